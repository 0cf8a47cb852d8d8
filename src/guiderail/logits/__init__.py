"""What the next token *should* be: pure functions on score tensors.

Nothing here holds state, calls a model or knows a grammar's insides. `bitmask` works on numpy arrays and torch tensors
and never imports torch; every other module computes with torch and is imported on first use, so that `import guiderail`
stays light.
"""

from __future__ import annotations

from importlib import import_module
from types import ModuleType

from guiderail.logits.bitmask import allocate_token_bitmask, apply_token_bitmask_inplace, unpack_token_bitmask

__all__ = [
    "allocate_token_bitmask",
    "apply_token_bitmask_inplace",
    "unpack_token_bitmask",
]

_TORCH_MODULES: frozenset[str] = frozenset()


def __getattr__(name: str) -> ModuleType:
    if name in _TORCH_MODULES:
        return import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
