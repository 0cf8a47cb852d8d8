"""Dependencies point one way, and importing the package is cheap.

    integrations -> {guidance, training} -> {grammars, logits} -> {vocabulary, errors, _core}

Read from the syntax tree, so that an import inside a function counts as well: a lazy import is still a dependency.
"""

from __future__ import annotations

import ast
import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

import guiderail

PACKAGE = Path(guiderail.__file__).parent
MODULES = sorted(PACKAGE.rglob("*.py"))

# Part of the package -> the parts it may import. `compiled` joins a grammar and a vocabulary into matchers.
MAY_IMPORT: dict[str, set[str]] = {
    "errors": set(),
    "_core": set(),
    "token_bytes": {"errors"},
    "saved_file": set(),
    "vocabulary": {"errors", "_core", "saved_file", "token_bytes"},
    "grammars": {"errors", "_core", "vocabulary"},
    "logits": {"errors", "_core", "vocabulary"},
    "json_events": {"errors"},
    "compiled": {"errors", "_core", "saved_file", "vocabulary", "grammars", "json_events"},
    "linter": {"errors", "grammars"},
    "healing": {"compiled", "grammars", "vocabulary"},
    "explanation": {"compiled", "grammars", "vocabulary"},
    "ambiguity_search": {"errors", "grammars"},
    "grammar_linter": {"errors", "grammars", "ambiguity_search", "explanation"},
    "guidance": {"errors", "_core", "vocabulary", "grammars", "logits", "compiled"},
    "training": {"errors", "_core", "vocabulary", "grammars", "logits", "compiled", "guidance"},
    "integrations": {
        "errors",
        "_core",
        "vocabulary",
        "grammars",
        "logits",
        "compiled",
        "healing",
        "guidance",
        "training",
    },
    "cli": {
        "errors",
        "linter",
        "grammar_linter",
        "explanation",
        "_core",
        "vocabulary",
        "grammars",
        "logits",
        "compiled",
        "guidance",
        "training",
        "integrations",
    },
    # names only, loaded on first use
    "__init__": {"errors", "linter", "healing", "vocabulary", "grammars", "logits", "compiled", "guidance"},
}
# Parts that may name an engine at all. Streams own a model and its cache, so guidance and training know transformers'
# classes; only the integrations and the command line know an inference engine.
ENGINES = {
    "transformers": {"integrations", "cli", "guidance", "training"},
    "vllm": {"integrations"},
}


def part_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported(path: Path) -> set[str]:
    """Absolute dotted names that a module imports anywhere, TYPE_CHECKING blocks included."""
    package = ("guiderail", *path.relative_to(PACKAGE).parts[:-1])
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            start = ".".join(package[: len(package) - node.level + 1]) if node.level else ""
            base = ".".join(filter(None, (start, node.module)))
            # `from guiderail import errors` depends on guiderail.errors
            names |= {f"{base}.{alias.name}" for alias in node.names} | ({base} if node.module else set())
    return names


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_dependencies_point_one_way(path: Path) -> None:
    part = part_of(path)
    assert part in MAY_IMPORT, f"new part {part!r}: say here what it may import"
    ours = {name.split(".")[1] for name in imported(path) if name.startswith("guiderail.")} - {"__version__"}
    names_of_package = ours & {name for name in guiderail.__all__ if name not in MAY_IMPORT}
    assert not names_of_package, f"{path.name} imports {names_of_package} from the package; import from the module"
    assert ours - {part} <= MAY_IMPORT[part], path


@pytest.mark.parametrize("engine", sorted(ENGINES))
def test_only_named_parts_know_an_engine(engine: str) -> None:
    users = {part_of(path) for path in MODULES for name in imported(path) if name.split(".")[0] == engine}
    assert users <= ENGINES[engine]


def test_the_check_sees_a_forbidden_import(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A test of the test: relative, absolute and in-function imports are all found."""
    (tmp_path / "grammars").mkdir()
    module = tmp_path / "grammars" / "x.py"
    module.write_text(
        "import guiderail.logits\nfrom .. import guidance\ndef f():\n    from ..logits.bitmask import g\n"
    )
    monkeypatch.setattr(sys.modules[__name__], "PACKAGE", tmp_path)
    found = imported(module)
    assert {"guiderail.logits", "guiderail.guidance", "guiderail.logits.bitmask.g"} <= found


def test_base_import_is_light() -> None:
    """`import guiderail` in a fresh interpreter loads neither torch nor a tokenizer library, nor the extension."""
    heavy = "{'torch', 'transformers', 'tokenizers', 'tiktoken', 'sentencepiece', 'mistral_common', 'vllm', 'lark'}"
    code = f"import sys, guiderail; sys.exit(str({heavy} & set(sys.modules)) if {heavy} & set(sys.modules) else 0)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_vocabulary_imports_no_tokenizer_library() -> None:
    code = (
        "import sys, guiderail; guiderail.Vocabulary.from_bytes([b'a', b''], eos_token_ids=[1]);"
        "sys.exit(' '.join({'torch', 'transformers', 'tokenizers', 'tiktoken', 'sentencepiece'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stderr.strip() == ""


def test_every_public_name_resolves() -> None:
    for name in guiderail.__all__:
        assert name in dir(guiderail)
        try:
            assert getattr(guiderail, name) is not None
        except ModuleNotFoundError as error:  # an extra that is not installed
            assert error.name == "torch", name
            assert importlib.util.find_spec("torch") is None, name
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        guiderail.nonsense  # noqa: B018
