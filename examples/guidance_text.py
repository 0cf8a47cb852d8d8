"""A negative prompt on a small real model: scales, beams, several rules at once, and what it cost.

python examples/guidance_text.py        # needs the packaged SmolLM2, see smollm2.py
"""

from __future__ import annotations

import torch
from smollm2 import load

from guiderail import guidance
from guiderail.integrations.generation import GuidedDecoder
from guiderail.integrations.transformers_guidance import GuidanceLogitsProcessor


def main() -> None:
    torch.set_num_threads(1)
    model, tokenizer = load()

    def chat(text: str) -> list[int]:
        messages = [{"role": "user", "content": text}]
        prompt = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
        return list(tokenizer(prompt, add_special_tokens=False)["input_ids"])

    wanted = chat("Describe the sea in one sentence, like a poet.")
    unwanted = chat("Describe the sea in one sentence, like an encyclopedia.")

    print("our loop, one scale after the other (1 is the model itself)")
    for scale in (1.0, 1.5, 2.5):
        term = guidance.ClassifierFree(scale, unwanted, plausibility=0.1)
        decoder = GuidedDecoder(model, term)
        (generation,) = decoder.decode([wanted], 28)
        passes = decoder.engine.runner().counts.passes
        print(f"  {scale}: {tokenizer.decode(generation.token_ids)!r}  ({passes} forward passes)")

    print("model.generate with beams, and two rules added up")
    term = guidance.ClassifierFree(1.3, unwanted) + guidance.Perturbed(guidance.SkipLayers((12,)), 1.1)
    ids = torch.tensor([wanted])
    output = model.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        logits_processor=[GuidanceLogitsProcessor(term, model=model)],
        num_beams=3,
        do_sample=False,
        max_new_tokens=28,
    )
    print(f"  {tokenizer.decode(output[0, ids.shape[1] :], skip_special_tokens=True)!r}")


if __name__ == "__main__":
    main()
