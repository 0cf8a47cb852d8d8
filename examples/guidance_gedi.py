"""GeDi from nothing: train a small class-conditional model on two kinds of text, then steer another model with it.

Texts are letters; those of the kind "low" are mostly a to m, those of the kind "high" mostly n to z. The base model is
trained on both without being told which is which. A grammar keeps the text to letters: the discriminator is soft, the
grammar hard. Half a minute on one core, offline.
"""

from __future__ import annotations

import torch
from transformers import LlamaConfig, LlamaForCausalLM

import guiderail as gr
from guiderail.integrations.generation import GuidedDecoder
from guiderail.logits import Sampling
from guiderail.training.gedi import GeDiModel

LETTERS, START, LOW, HIGH = 26, 26, 27, 28
LENGTH, BATCH, STEPS = 12, 32, 120


def texts(kinds: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """int64 (batch, 1 + LENGTH): a start token, then letters of the kind (0 low, 1 high) four times out of five."""
    half = torch.randint(0, LETTERS // 2, (len(kinds), LENGTH), generator=generator)
    typical = torch.rand(len(kinds), LENGTH, generator=generator) < 0.8
    letters = half + (LETTERS // 2) * (kinds[:, None].bool() == typical)
    return torch.cat([torch.full((len(kinds), 1), START), letters], dim=1)


def small_model(seed: int) -> LlamaForCausalLM:
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=29, hidden_size=48, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4,
        pad_token_id=START, bos_token_id=START, eos_token_id=None,
    )  # fmt: skip
    return LlamaForCausalLM(config)


def main() -> None:
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(0)
    base = small_model(0)
    gedi = GeDiModel(small_model(1), {"low": LOW, "high": HIGH})
    optimizer = torch.optim.AdamW([*base.parameters(), *gedi.parameters()], lr=3e-3)
    for _ in range(STEPS):
        kinds = torch.randint(0, 2, (BATCH,), generator=generator)
        ids = texts(kinds, generator)
        loss = base(input_ids=ids, labels=ids).loss + gedi.loss(ids, torch.ones_like(ids), kinds, 0.6)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    base.eval()
    gedi.eval()
    kinds = torch.randint(0, 2, (200,), generator=generator)
    ids = texts(kinds, generator)
    with torch.no_grad():
        right = (gedi.class_log_probs(ids, torch.ones_like(ids)).argmax(-1) == kinds).float().mean()
    print(f"the class-conditional model as a classifier of whole texts: {right:.0%} right")
    vocabulary = gr.Vocabulary.from_bytes([bytes([97 + i]) for i in range(LETTERS)] + [b""] * 3, eos_token_ids=[START])
    letters = gr.compile(gr.Grammar.from_regex(f"[a-z]{{{LENGTH}}}"), vocabulary)
    for omega in (0.0, 3.0, 30.0):
        decoder = GuidedDecoder(base, gedi.term("low", "high", omega), letters, Sampling(True))
        written = decoder.decode([[START]], LENGTH, num_return_sequences=50)
        low = sum(token < LETTERS // 2 for text in written for token in text.token_ids) / (50 * LENGTH)
        shown = vocabulary.decode(written[0].token_ids).decode()
        print(f"omega {omega:4.1f}: {low:.0%} letters of the wanted kind, for example {shown!r}")


if __name__ == "__main__":
    main()
