"""Chat templates of model families, as a package ships them: those that llama.cpp tests with.

    python tests/chat_templates.py            # fetch them once into the cache folder (76 MB, of which 0.5 MB is kept)
    text = chat_templates.read("Qwen-Qwen3-0.6B")
    said = chat_templates.assistant_turn(text, messages, tools, header="<|im_start|>assistant\\n", end="<|im_end|>")

They lie in the source archive of llama-cpp-python, which pip downloads; nothing is installed, and none of them is kept
in the repository. `MissingTemplates` says that they were not fetched; tests turn it into a skip.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import Any

PACKAGE = "llama-cpp-python==0.3.36"
FOLDER = "/vendor/llama.cpp/models/templates/"
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "guiderail" / "chat-templates"


class MissingTemplates(Exception):
    """The templates were not fetched, or the archive has none of that name."""


def fetch() -> int:
    """Download the archive with pip and keep its templates; the number kept."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=CACHE) as folder:
        command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "download", "-q", "--no-deps"]
        subprocess.run(
            [*command, "--no-build-isolation", "--no-binary", ":all:", PACKAGE, "-d", folder], check=True, timeout=900
        )
        (archive,) = Path(folder).glob("*.tar.gz")
        kept = 0
        with tarfile.open(archive) as members:
            for member in members:
                if FOLDER in member.name and member.name.endswith(".jinja") and member.isfile():
                    content = members.extractfile(member)
                    assert content is not None
                    (CACHE / Path(member.name).name).write_bytes(content.read())
                    kept += 1
    return kept


def read(name: str) -> str:
    """The template of that name. Raises: MissingTemplates."""
    file = CACHE / f"{name}.jinja"
    if not file.exists():
        raise MissingTemplates(f"no chat template {name}: `python tests/chat_templates.py` fetches them")
    return file.read_text(encoding="utf-8")


def assistant_turn(template: str, messages: list[Any], tools: list[Any], header: str, end: str) -> str:
    """What a model writes for the last of `messages`: from the end of the prompt to its end-of-turn token.

    Args:
        header: what the prompt of an assistant's turn ends with. end: the end-of-turn token; empty: the text's end.
    """
    from transformers.utils.chat_template_utils import render_jinja_template

    def rendered(chat: list[Any], prompt: bool) -> str:
        texts, _ = render_jinja_template(
            conversations=[chat],
            chat_template=template,
            tools=tools,
            bos_token="<s>",
            eos_token="</s>",
            add_generation_prompt=prompt,
        )
        return str(texts[0])

    whole, prompt = rendered(messages, False), rendered(messages[:-1], True)
    # Some prompts go on after the header (`<think>`), and their templates leave the thoughts out of past turns.
    start = len(prompt) if whole.startswith(prompt) else prompt.rindex(header) + len(header)
    assert whole[:start].endswith(header) or whole.startswith(prompt)
    if not end:
        return whole[start:]
    said, found, _ = whole[start:].partition(end)
    assert found, f"no {end} in {whole[start:]!r}"
    return said


if __name__ == "__main__":
    print(f"{fetch()} chat templates in {CACHE}")
