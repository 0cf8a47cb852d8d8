"""Every Python block of the README runs, in order, in one namespace; a block of output after one is what it prints.

A block that needs the packaged language model says so in an HTML comment before it, `<!-- needs: model -->`, and finds
the model's folder in `path`.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import re
from pathlib import Path
from typing import Any

import pytest

README = Path(__file__).parents[2] / "README.md"
BLOCK = re.compile(
    r"(?P<needs><!-- needs: model -->\n)?```python\n(?P<code>.*?)```\n(?:\n```text\n(?P<output>.*?)```\n)?", re.DOTALL
)


def run(blocks: list[re.Match[str]], namespace: dict[str, Any]) -> None:
    for block in blocks:
        out = io.StringIO()
        line = README.read_text(encoding="utf-8")[: block.start("code")].count("\n")
        with contextlib.redirect_stdout(out):
            exec(compile("\n" * line + block["code"], str(README), "exec"), namespace)
        if block["output"] is not None:
            assert out.getvalue() == block["output"]


def blocks(*, model: bool) -> list[re.Match[str]]:
    found = list(BLOCK.finditer(README.read_text(encoding="utf-8")))
    assert len(found) == README.read_text(encoding="utf-8").count("```python"), "a block that the pattern misses"
    return found if model else [block for block in found if not block["needs"]]


def test_readme_blocks_that_need_no_model() -> None:
    chosen = blocks(model=False)
    assert chosen
    run(chosen, {})


@pytest.mark.model
@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("transformers") is None, reason="transformers is not installed")
def test_readme_blocks_with_the_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(README.parent / "examples"))
    import smollm2

    run(blocks(model=True), {"path": smollm2.convert()})


def test_the_first_block_comes_early() -> None:
    text = README.read_text(encoding="utf-8")
    assert text[: text.index("```python")].count("\n") <= 25
