"""Released decoders of token models as values: LlamaGen, VAR, VoxInstruct, MusicGen's doubled batch, Emu3's grid,
MaskGIT's loop.

The models are stand-ins (random scores or weights): what is shown is which streams a step needs, and what becomes of
their scores.
"""

from __future__ import annotations

import torch
from transformers import LlamaConfig, LlamaForCausalLM

import guiderail as gr
from guiderail import guidance
from guiderail.guidance import token_models
from guiderail.integrations.generation import GuidedDecoder
from guiderail.logits import classifier_free_guidance


def main() -> None:
    torch.manual_seed(0)

    llamagen = token_models.LlamaGen(scale=4.0, guided_steps=2, top_k=100)
    needed = [step for step in range(8) if llamagen.needs_null(step)]
    print(f"LlamaGen with interval 2: the null stream runs at steps {needed}, then its cache can be dropped")

    var = token_models.Var(weight=1.5)
    print(f"VAR: scale by resolution {[round(var.schedule(index), 2) for index in range(var.scales)]}")

    voxinstruct = token_models.VoxInstruct()
    print(f"VoxInstruct: acoustic weights of (conditional, no text, no semantics) {voxinstruct.weights('acoustic')}")
    streams = torch.randn(3, 1, len(token_models.VOXINSTRUCT_TOKENS))
    drawn = torch.multinomial(voxinstruct.probabilities("acoustic", *streams), 1).item()
    print(f"             an acoustic step drew id {drawn}, a token of segment '{segment(int(drawn))}'")

    scores = torch.randn(2 * 4, 2048)  # one sequence, four codebooks, conditional rows first
    guided = token_models.DoubledBatch([1.0, 2.0, 3.0, 4.0], codebooks=4)(scores)
    print(f"MusicGen: {tuple(scores.shape)} -> {tuple(guided.shape)}, one scale per codebook")
    print(
        f"          delay pattern {token_models.delayed(torch.tensor([[[1, 2], [3, 4], [5, 6]]]), pad=0)[0].tolist()}"
    )

    emu3 = token_models.Emu3(top_k=8)
    table = token_models.SegmentTable([("end", 1), ("text", 10), ("visual", 16), ("eol", 1), ("eof", 1), ("eoi", 1)])
    ids = gr.Vocabulary.from_bytes([b"", *table.token_bytes()[1:]], eos_token_ids=[0])
    grid = gr.compile(gr.Grammar.from_regex(emu3.grid(height=2, width=3)), ids)
    config = LlamaConfig(
        vocab_size=len(table), hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2
    )
    term = guidance.ClassifierFree(emu3.scale, negative_prompt_ids=[4])
    decoder = GuidedDecoder(LlamaForCausalLM(config).eval(), term, grid, emu3.sampling)
    (image,) = decoder.decode([[5, 6, 7]], 16)
    print(f"Emu3: {[table.segment_of(token) for token in image.token_ids]}, {image.forced} of them without a model")

    conditional, null = torch.randn(2, 1, 12, 32)
    tokens = token_models.fill_by_confidence(
        lambda tokens, still_open: {"conditional": conditional, "null": null},
        torch.zeros(1, 12, dtype=torch.int64),
        torch.ones(1, 12, dtype=torch.bool),
        iterations=4,
        guidance=lambda s: classifier_free_guidance(s["conditional"], s["null"], 2.0),
    )
    print(f"MaskGIT: 12 positions in 4 iterations {tokens[0].tolist()}")


def segment(token_id: int) -> str:
    return token_models.VOXINSTRUCT_TOKENS.segment_of(token_id)


if __name__ == "__main__":
    main()
