"""Infilling: masks that lead from a prefix to a suffix, judged by trying every text up to a length."""

from __future__ import annotations

import itertools

import pytest

import guiderail as gr
from guiderail.errors import GrammarError
from oracles import laws

# Grammar, how it is read, alphabet, prefix, suffix, longest text in between that is tried, longest that is checked.
CASES = {
    "brackets": ('root ::= "(" root ")" root | "x"?', "gbnf", "()x", "((", ")x)", 6, 3),
    "suffix spelled by chance": ('root ::= "ab"* "c"', "gbnf", "abc", "a", "bc", 6, 4),
    "suffix within itself": ('root ::= [ab]+ "!"', "gbnf", "ab!", "", "abab!", 6, 4),
    "empty suffix": ('root ::= "a" root "b" | "c"', "gbnf", "abc", "aa", "", 5, 1),
    "prefix meets suffix": ('root ::= "ab" | "acb"', "gbnf", "abc", "a", "b", 3, 2),
    "inside a lexeme": ('start: N "=" N\nN: /[a-b]+/\n%ignore " "', "munch", "ab= ", "a", "b =a", 4, 2),
    "longest match": ('start: ("if" N ":")+\nN: /[ifx]+/\n%ignore " "', "munch", "ifx :", "if", "f:", 4, 2),
    "no text may touch": ('start: N (" " N)*\nN: /a+/', "munch", "a ", "a", "a a", 5, 3),
    "first that matches": ('start: A B+\nA: /a|ab/\nB: /b+/', "lark-basic", "ab", "a", "b", 5, 3),
    "statements": (
        'start: s+\ns: N "=" e ";"\n?e: N | e "+" e | "(" e ")"\nN: "n"',
        *("munch", "n=+();", "n=(", ")+n;n=n;", 4, 1),
    ),
    "lists": ('start: v\nv: "[" [v ("," v)*] "]" | "1"', "munch", "[],1", "[[", ",1],1]", 6, 2),
}  # fmt: skip


def read(name: str) -> gr.Grammar:
    text, notation, *_ = CASES[name]
    return gr.Grammar.from_gbnf(text) if notation == "gbnf" else gr.Grammar.from_lark(text, lexer=notation)


@pytest.mark.parametrize("every_byte", [False, True])
@pytest.mark.parametrize("name", CASES)
def test_masks_against_every_text(name: str, every_byte: bool) -> None:
    _, _, alphabet, prefix, suffix, longest, checked = CASES[name]
    grammar = read(name)
    between = {
        text
        for length in range(longest + 1)
        for text in map("".join, itertools.product(alphabet, repeat=length))
        if grammar.accepts(prefix + text + suffix)
    }
    assert between
    tokens = ["".join(t) for n in (1, 2) for t in itertools.product(alphabet, repeat=n)]
    encoded = [token.encode() for token in tokens]
    if every_byte:
        encoded += [bytes([b]) for b in range(256) if bytes([b]) not in encoded]
    end = len(encoded)
    compiled = gr.compile(grammar, gr.Vocabulary.from_bytes([*encoded, b""], eos_token_ids=[end]))
    seen = 0
    for length in range(checked + 1):
        for beginning in map("".join, itertools.product(alphabet, repeat=length)):
            matcher = compiled.matcher(prefix=prefix, suffix=suffix)
            if not all(matcher.accept_token(tokens.index(c)) for c in beginning):
                assert not any(text.startswith(beginning) for text in between), beginning
                continue
            seen += 1
            allowed = laws.allowed(matcher, end + 1)
            for number, token in enumerate(tokens):
                if any(text.startswith(beginning + token) for text in between):
                    assert number in allowed, (beginning, token)
                elif len(beginning + token) <= checked:  # all that it may lead to is among the texts tried
                    assert number not in allowed, (beginning, token)
            assert (end in allowed) == (beginning in between), beginning
            assert matcher.is_accepting == (beginning in between)
    assert seen


def test_what_no_text_connects_is_refused() -> None:
    compiled = gr.compile(read("brackets"), gr.Vocabulary.from_bytes([b"(", b")", b"x", b""], eos_token_ids=[3]))
    with pytest.raises(GrammarError, match="no text leads"):
        compiled.matcher(prefix="(", suffix="))(")
    with pytest.raises(ValueError, match="together"):
        compiled.matcher(max_tokens=3, suffix=")")


def test_rollback_and_fork() -> None:
    compiled = gr.compile(read("brackets"), gr.Vocabulary.from_bytes([b"(", b")", b"x", b""], eos_token_ids=[3]))
    matcher = compiled.matcher(prefix="(", suffix=")")
    before = laws.allowed(matcher, 4)
    assert matcher.accept_token(0)
    fork = matcher.fork()
    matcher.rollback(1)
    assert laws.allowed(matcher, 4) == before
    assert fork.accept_token(1)
    assert fork.accept_token(3)
    assert fork.is_terminated


def test_draft_masks_know_the_suffix() -> None:
    compiled = gr.compile(read("brackets"), gr.Vocabulary.from_bytes([b"(", b")", b"x", b""], eos_token_ids=[3]))
    matcher = compiled.matcher(prefix="(", suffix=")")
    rows = gr.allocate_token_bitmask(2, 4)
    matcher.fill_draft_bitmask([(-1, 0), (0, 1)], rows)
    for row, path in enumerate([[0], [0, 1]]):
        other = compiled.matcher(prefix="(", suffix=")")
        assert other.accept_tokens(path) == len(path)
        assert {t for t in range(4) if int(rows[row, 0]) >> t & 1} == laws.allowed(other, 4)


def test_explain_names_the_suffix() -> None:
    grammar = gr.Grammar.from_gbnf('root ::= "a" "b" "c" | "b" "d"')
    compiled = gr.compile(grammar, gr.Vocabulary.from_bytes([b"a", b"b", b"c", b"d", b""], eos_token_ids=[4]))
    matcher = compiled.matcher(suffix="d")
    assert "leads to the suffix" in matcher.explain(0)
    assert matcher.explain(1).startswith("allowed")
    assert matcher.forced_bytes() == b"b"


UNIQUE_NAMES = {"type": "array", "items": {"type": "string"}, "uniqueItems": True}


@pytest.mark.parametrize(
    ("schema", "prefix", "middle", "suffix", "answer"),
    [
        ({"type": "object"}, '{"a":1,', '"b":2', "}", "complete"),
        ({"type": "object"}, '{"a":1,', '"a":2', "}", "dead"),
        ({"type": "object"}, "{", '"a":1,"a":2', "}", "dead"),
        ({"type": "object"}, '{"a":1,"b":{', '"a":1', '},"c":3}', "complete"),
        ({"type": "object"}, '{"a":1,', '"b":2', ',"a":3}', "refused"),
        ({"type": "object"}, "{", '"a":{"b":1', '},"a":2}', "refused"),
        ({"properties": {"a": {}}, "type": "object"}, '{"b":1,', '"c":2', ',"b":3}', "refused"),
        (UNIQUE_NAMES, '["a",', '"b"', ',"c"]', "complete"),
        (UNIQUE_NAMES, '["a",', '"b"', ',"a"]', "refused"),
        (UNIQUE_NAMES, '["a",', '"a"', "]", "dead"),
    ],
)
def test_a_name_does_not_come_twice_over_prefix_text_and_suffix(
    schema: object, prefix: str, middle: str, suffix: str, answer: str
) -> None:
    vocabulary = gr.Vocabulary.from_bytes([*(bytes([b]) for b in range(256)), b""], eos_token_ids=[256])
    compiled = gr.compile(gr.Grammar.from_json_schema(schema, property_order="free"), vocabulary)

    def outcome() -> str:
        try:
            matcher = compiled.matcher(prefix=prefix, suffix=suffix)
            if matcher.accept_tokens(list(middle.encode())) < len(middle):
                return "dead"
            return "complete" if matcher.is_accepting else "incomplete"
        except GrammarError as error:
            assert "must not come twice" in str(error)
            return "refused"

    assert outcome() == answer


def test_an_item_that_decides_late_what_may_follow_is_refused() -> None:
    inner = {"type": "array", "items": {"type": "integer"}, "uniqueItems": True}
    schema = {"properties": {"a": {"properties": {"b": inner}}}, "required": ["a"]}
    vocabulary = gr.Vocabulary.from_bytes([*(bytes([b]) for b in range(256)), b""], eos_token_ids=[256])
    compiled = gr.compile(gr.Grammar.from_json_schema(schema), vocabulary)
    with pytest.raises(GrammarError, match="uniqueItems"):
        matcher = compiled.matcher(prefix='{"a":', suffix=",1]}}")
        for byte in b'{"b":[1,2':
            matcher.fill_next_token_bitmask(gr.allocate_token_bitmask(1, 257))
            matcher.accept_token(byte)
