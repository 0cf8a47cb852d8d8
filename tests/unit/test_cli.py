"""The command line: exit statuses are its contract."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from guiderail.cli import ACCEPTED, REFUSED, REJECTED, main


@pytest.fixture
def write(tmp_path: Path):  # type: ignore[no-untyped-def]
    def write_file(name: str, content: str | bytes) -> str:
        path = tmp_path / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return str(path)

    return write_file


NOTATIONS = [
    (["--regex", "[0-9]+"], "12", "1x"),
    (["--gbnf", 'root ::= "(" root ")" | "."'], "((.))", "((.)"),
    (["--lark", 'start: "a"+\n%ignore " "'], "a a", "b"),
    (["--builtin", "json"], '{"a": []}', "{a: 1}"),
    (["--json-schema", '{"type": "integer"}'], "5", '"5"'),
]


@pytest.mark.parametrize(("notation", "good", "bad"), NOTATIONS, ids=[notation[0] for notation, _, _ in NOTATIONS])
def test_validate(notation: list[str], good: str, bad: str, write, capsys: pytest.CaptureFixture[str]) -> None:  # type: ignore[no-untyped-def]
    accepted, rejected = write("good", good), write("bad", bad)
    assert main(["validate", *notation, accepted]) == ACCEPTED
    assert f"{accepted}: accepted" in capsys.readouterr().out
    assert main(["validate", *notation, rejected]) == REJECTED
    assert f"{rejected}: rejected" in capsys.readouterr().out
    assert main(["validate", *notation, accepted, rejected, accepted]) == REJECTED
    assert capsys.readouterr().out.count("accepted") == 2


@pytest.mark.parametrize(
    "notation",
    [
        ["--regex", "("],
        ["--gbnf", "root ::= x"],
        ["--lark", "start: x"],
        ["--builtin", "klingon"],
        ["--json-schema", "{"],
        ["--json-schema", '{"type": "nonsense"}'],
        ["--gbnf", ""],
    ],
)
def test_a_refused_grammar(notation: list[str], write, capsys: pytest.CaptureFixture[str]) -> None:  # type: ignore[no-untyped-def]
    assert main(["validate", *notation, write("text", "x")]) == REFUSED
    assert capsys.readouterr().err.startswith("guiderail: ")


def test_grammars_from_files(write, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    text = write("text", "yes")
    write("words.lark", "WORD: /[a-z]+/\n")
    assert main(["validate", "--lark", write("main.lark", "start: WORD\n%import .words.WORD"), text]) == ACCEPTED
    assert main(["validate", "--gbnf", write("g.gbnf", 'root ::= "yes"'), text]) == ACCEPTED
    assert main(["validate", "--choices", write("choices", "yes\nno\n"), text]) == ACCEPTED
    assert main(["validate", "--choices", write("choices", "yes!\nno\n"), text]) == REJECTED
    assert main(["validate", "--json-schema", write("s.json", json.dumps({"const": 1})), write("one", "1")]) == ACCEPTED


def test_the_place_of_a_rejection(write, capsys: pytest.CaptureFixture[str]) -> None:  # type: ignore[no-untyped-def]
    assert main(["validate", "--builtin", "json", write("text", '{"é": 1,\n "b" 2}')]) == REJECTED
    assert "at byte 15 (line 2, column 6)" in capsys.readouterr().out
    assert main(["validate", "--builtin", "json", write("text", '{"a": 1')]) == REJECTED
    assert "not complete" in capsys.readouterr().out


def test_prefixes_and_final_newlines(write) -> None:  # type: ignore[no-untyped-def]
    assert main(["validate", "--regex", "abc", "--prefix", write("text", "ab")]) == ACCEPTED
    assert main(["validate", "--regex", "abc", "--prefix", write("text", "b")]) == REJECTED
    assert main(["validate", "--regex", "abc", write("text", "abc\n")]) == REJECTED
    assert main(["validate", "--regex", "abc", "--strip", write("text", "abc\r\n")]) == ACCEPTED


def test_a_missing_file_is_not_a_rejection(tmp_path: Path) -> None:
    assert main(["validate", "--regex", "a", str(tmp_path / "missing")]) == REFUSED


def test_standard_input_and_the_installed_module() -> None:
    command = [sys.executable, "-m", "guiderail.cli", "validate", "--regex", "[a-z]+"]
    for text, status in ((b"abc", ACCEPTED), (b"ab1", REJECTED), (b"\xff", REJECTED)):
        assert subprocess.run(command, input=text, capture_output=True, check=False).returncode == status
    assert subprocess.run([*command[:-1], "("], input=b"", capture_output=True, check=False).returncode == REFUSED


def test_explain(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", "--gbnf", 'root ::= "a" (="b") x\nx ::= "b"']) == ACCEPTED
    out = capsys.readouterr().out
    assert "annotation: a lookahead is a hint" in out
    assert "x " in out
    assert main(["explain", "--regex", "[a-z]+@[a-z]+", "--text", "me@1"]) == REJECTED
    out = capsys.readouterr().out
    assert "fits:      'me@'" in out
    assert "stops at:  '1'" in out
    assert "expected:  " in out
    assert "the end" not in out
    assert main(["explain", "--regex", "ab", "--text", "ab"]) == ACCEPTED
    assert "expected:  the end" in capsys.readouterr().out


def test_usage_errors() -> None:
    for arguments in (
        [],
        ["validate"],
        ["validate", "--regex", "a", "--gbnf", "b"],
        ["lint"],
        ["generate", "--model", "m", "--regex", "a", "--guidance", "nan"],
    ):
        with pytest.raises(SystemExit) as caught:
            main(arguments)
        assert caught.value.code == 2


def test_a_negative_prompt_needs_a_scale(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["generate", "--model", "none", "--regex", "a", "--negative-prompt", "b"]) == REFUSED
    assert "--guidance" in capsys.readouterr().err
    assert main(["generate", "--model", "none", "--prompt", "b"]) == REFUSED
    assert "a grammar, --guidance SCALE, or both" in capsys.readouterr().err


@pytest.mark.model
@pytest.mark.slow
def test_generate(capsys: pytest.CaptureFixture[str]) -> None:
    sys.path.insert(0, str(Path(__file__).parents[2] / "examples"))
    try:
        import smollm2
    finally:
        sys.path.pop(0)
    try:
        model = smollm2.convert()
    except smollm2.MissingPackage as missing:
        pytest.skip(str(missing))
    arguments = [
        "generate",
        "--model",
        str(model),
        "--prompt",
        "Is the sky blue?",
        "--regex",
        "(Yes|No), because [a-z ]{5,30}\\.",
    ]
    assert main(arguments) == ACCEPTED
    out = capsys.readouterr().out.strip()
    assert out.startswith(("Yes, because ", "No, because "))
    assert out.endswith(".")
    assert main([*arguments, "--max-new-tokens", "2"]) == REJECTED
    other = "Why do people like music?"
    capsys.readouterr()
    shown = []
    for scale in ("1", "0"):
        assert main([*arguments, "--negative-prompt", other, "--guidance", scale]) == ACCEPTED
        shown.append(capsys.readouterr().out.strip())
    assert main([other if argument == "Is the sky blue?" else argument for argument in arguments]) == ACCEPTED
    assert shown == [out, capsys.readouterr().out.strip()]  # off; the negative prompt alone
    assert shown[0] != shown[1]
    assert main([*arguments, "--guidance", "2", "--plausibility", "0.1"]) == ACCEPTED
    free = [*arguments[:5], "--guidance", "1.5", "--max-new-tokens", "4"]
    assert "--regex" not in free
    capsys.readouterr()
    assert main(free) == ACCEPTED
    assert capsys.readouterr().out.strip()
