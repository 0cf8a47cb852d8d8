"""Exact grammar constraints and guidance for autoregressive models.

What the next token *may* be (`Grammar`, `compile`, `Matcher`) and what it *should* be (`guidance`). Importing this
package imports neither torch nor transformers nor any tokenizer library; all names are loaded on first use (PEP 562).
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    import guiderail.guidance as guidance  # noqa: F401  (the form that mypy counts as exported)
    from guiderail import errors as errors
    from guiderail.compiled import CompiledGrammar as CompiledGrammar
    from guiderail.compiled import Limits as Limits
    from guiderail.compiled import Matcher as Matcher
    from guiderail.compiled import compile as compile
    from guiderail.compiled import fill_next_token_bitmask_batch as fill_next_token_bitmask_batch
    from guiderail.errors import DeadEndError as DeadEndError
    from guiderail.errors import GrammarError as GrammarError
    from guiderail.errors import GuiderailError as GuiderailError
    from guiderail.errors import LimitError as LimitError
    from guiderail.errors import SchemaError as SchemaError
    from guiderail.errors import UnsatisfiableError as UnsatisfiableError
    from guiderail.errors import VocabularyError as VocabularyError
    from guiderail.grammars.grammar import Grammar as Grammar
    from guiderail.healing import heal as heal
    from guiderail.linter import LintReport as LintReport
    from guiderail.linter import LintRow as LintRow
    from guiderail.linter import lint as lint
    from guiderail.logits.bitmask import allocate_token_bitmask as allocate_token_bitmask
    from guiderail.logits.bitmask import apply_token_bitmask_inplace as apply_token_bitmask_inplace
    from guiderail.vocabulary import Vocabulary as Vocabulary

# public name -> the module that defines it; a name that maps to itself is a submodule
_HOME = {
    "CompiledGrammar": "guiderail.compiled",
    "DeadEndError": "guiderail.errors",
    "Grammar": "guiderail.grammars.grammar",
    "GrammarError": "guiderail.errors",
    "GuiderailError": "guiderail.errors",
    "LimitError": "guiderail.errors",
    "Limits": "guiderail.compiled",
    "LintReport": "guiderail.linter",
    "LintRow": "guiderail.linter",
    "Matcher": "guiderail.compiled",
    "SchemaError": "guiderail.errors",
    "UnsatisfiableError": "guiderail.errors",
    "Vocabulary": "guiderail.vocabulary",
    "VocabularyError": "guiderail.errors",
    "allocate_token_bitmask": "guiderail.logits.bitmask",
    "apply_token_bitmask_inplace": "guiderail.logits.bitmask",
    "compile": "guiderail.compiled",
    "errors": "guiderail.errors",
    "fill_next_token_bitmask_batch": "guiderail.compiled",
    "guidance": "guiderail.guidance",
    "heal": "guiderail.healing",
    "lint": "guiderail.linter",
}

__all__ = [*_HOME, "__version__"]


def __getattr__(name: str) -> Any:
    try:
        home = _HOME[name]
    except KeyError:
        raise AttributeError(f"module 'guiderail' has no attribute {name!r}") from None
    module = importlib.import_module(home)
    value = module if home == f"guiderail.{name}" else getattr(module, name)
    globals()[name] = value  # the next access does not come here
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME})
