"""Masks of programming languages, made lexeme by lexeme and shared between nestings, and tokens tried one by one."""

from __future__ import annotations

import random

import pytest

import guiderail as gr

PROGRAMS = {
    "python": [
        'def f(a, b=[1, {"k": (2, 3)}], *c):\n    # why\n    if a:\n\n        return f(x[a:b][0], (lambda: y)())\n'
        "    elif b: pass\n\tx = 1\n",
        "class A(B):\n  x: int = (\n 1,\n\n    # in brackets\n  [2])\n  def g(self):\n    match x:\n"
        '      case {"a": [1, *_]}: print(f"a{b[1]!r:>{w}}c")\n',
    ],
    "c": [
        "int main(int argc, char **argv) { for (i = 0; i < f(a[b(1)], (x)); ++i) { s->y += (1 + g((z))); } return 0; }"
    ],
    "java": ["class A<T extends B<C<D>>> { int f(int[] x) { return x.g(h(1)[2]) >>> (3 >> y); /* c */ } }"],
    "sql": [
        "select a, f(b, (select max(c) from t where x in (1, 2, (3)))) as z from u join v on u.i = v.i order by 1;"
    ],
    "go": ['package p\n\nimport "x/y"\n\nfunc f(a []int) { x := g(h(a[1])) + (b)\n\treturn\n}\n'],
}


# Bytes that are no tokens: in no token at all, or in longer ones. Without continuations no character but ASCII ends.
LACKING = {
    "nothing": (b"", b""),
    "bytes": (b"\x04\xf1#'", b""),
    "brackets": (b"\x04", b")]"),
    "continuations": (bytes(range(0x80, 0xC0)), b""),
}


def vocabulary(texts: list[str], seed: int, lacking: str) -> tuple[gr.Vocabulary, list[bytes]]:
    """All bytes, and pieces of the texts: also such as no token of theirs would be cut."""
    rng = random.Random(seed)
    nowhere, alone = LACKING[lacking]
    pieces = {bytes([b]) for b in range(256) if b not in alone}
    for text in texts:
        data = text.encode()
        for _ in range(250):
            at = rng.randrange(len(data))
            pieces.add(data[at : at + rng.randint(2, 9)])
        for _ in range(60):  # what closes several nestings, and what follows lines
            pieces.add(bytes(rng.choice(b'()[]{},.:; \n"x1=') for _ in range(rng.randint(2, 5))))
    tokens = sorted(piece for piece in pieces if not set(piece) & set(nowhere))
    return gr.Vocabulary([*tokens, b""], eos_token_ids=[len(tokens)]), tokens


@pytest.mark.parametrize("lacking", LACKING)
@pytest.mark.parametrize("language", PROGRAMS)
def test_masks_are_what_is_accepted(language: str, lacking: str) -> None:
    for seed, text in enumerate(PROGRAMS[language]):
        words, tokens = vocabulary(PROGRAMS[language], seed, lacking)
        matcher = gr.compile(gr.Grammar.builtin(language), words).matcher()
        mask = gr.allocate_token_bitmask(1, words)
        data, rng = text.encode(), random.Random(seed)
        at = 0
        while at < len(data):
            matcher.fill_next_token_bitmask(mask)
            for token in range(len(tokens)):
                allowed = bool(int(mask[0, token // 32]) >> (token % 32) & 1)
                assert allowed == (matcher.count_valid([token]) == 1), (data[:at], tokens[token])
            fitting = [t for t in range(len(tokens)) if data.startswith(tokens[t], at)]
            taken = [t for t in fitting if matcher.count_valid([t])]
            if not taken:
                break  # the sample breaks the language's rules here on purpose (a tab, say), or cannot be written
            token = rng.choice(taken)
            assert matcher.accept_token(token)
            at += len(tokens[token])
        assert at > len(data) // 2 or lacking != "nothing"


# Whether the second line of a token goes on depends on the width of the first: an open block's, or wider than all.
LINES = [
    f"\n{first}{text}\n{second}{more}".encode()
    for first in ("", " ", "  ", "   ", "\t", "        ", " \t")
    for text in ("x", "#", "")
    for second in ("", " ", "  ", "   ", "\t", "        ")
    for more in ("", "y", "#")
]


@pytest.mark.parametrize(
    "text",
    ["if a:", "if a:\n  if b:", "if a:\n  x", "if a:\n\tif b:\n\t x", "if a:\n  if b:\n   x", "f(a,", "if a:\n  f(\n"],
)
def test_tokens_of_several_lines(text: str) -> None:
    tokens = sorted({*LINES, *(bytes([b]) for b in range(256))})
    words = gr.Vocabulary([*tokens, b""], eos_token_ids=[len(tokens)])
    matcher = gr.compile(gr.Grammar.builtin("python"), words).matcher(prefix=text)
    mask = gr.allocate_token_bitmask(1, words)
    matcher.fill_next_token_bitmask(mask)
    wrong = [
        token
        for number, token in enumerate(tokens)
        if bool(int(mask[0, number // 32]) >> (number % 32) & 1) != (matcher.count_valid([number]) == 1)
    ]
    assert not wrong
    assert 10 < sum(matcher.count_valid([number]) for number in range(len(tokens))) < len(tokens)
