"""Inputs made to hurt: each ends in an answer or in an error of ours, soon and in bounded memory. Never a crash.

Every case runs in a process of its own, which reports how it ended, its processor time (the machine may be busy) and
its largest memory. A case is a function that returns normally or raises GuiderailError.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable

import numpy as np
import pytest

import guiderail as gr

SECONDS = 10.0
MEGABYTES = 2000
SANITIZED = "lib" in os.environ.get("LD_PRELOAD", "")

Case = Callable[[], None]
CASES: dict[str, Case] = {}


def case(function: Case) -> Case:
    CASES[function.__name__] = function
    return function


def byte_vocabulary(extra: tuple[bytes, ...] = ()) -> gr.Vocabulary:
    token_bytes = [bytes([byte]) for byte in range(256)] + [*extra, b""]
    return gr.Vocabulary.from_bytes(token_bytes, eos_token_ids=[len(token_bytes) - 1])


def follow(grammar: gr.Grammar, text: bytes, extra: tuple[bytes, ...] = (), masks: int = 50) -> gr.Matcher:
    """Walk `text` byte by byte as far as it fits, masks along the way; the matcher, for more."""
    vocabulary = byte_vocabulary(extra)
    matcher = gr.compile(grammar, vocabulary).matcher()
    bitmask = np.zeros((1, (vocabulary.size + 31) // 32), dtype=np.int32)
    every = max(1, len(text) // masks)
    for position, byte in enumerate(text):
        if position % every == 0:
            matcher.fill_next_token_bitmask(bitmask)
        if not matcher.accept_token(byte):
            break
    matcher.fill_next_token_bitmask(bitmask)
    return matcher


def regex(pattern: str, text: bytes) -> None:
    follow(gr.Grammar.from_regex(pattern), text)


def gbnf(grammar: str, text: bytes) -> None:
    follow(gr.Grammar.from_gbnf(grammar), text)


# --- regular expressions ----------------------------------------------------------------------------------------------


@case
def nested_quantifiers() -> None:
    regex("(" * 30 + "a" + "+)*" * 30 + "b", b"a" * 2000 + b"b")


@case
def nested_counters() -> None:
    regex("((((a{1,40}b?){1,40}c?){1,40}d?){1,40}e?){1,40}", b"ab" * 500 + b"cab" * 50)


@case
def counters_that_overlap() -> None:
    regex("(?:a{1,300}a{1,300}a{1,300})+b", b"a" * 1500 + b"b")


@case
def exponential_backtracking() -> None:
    regex("(a|a)*(a|aa)*(a*)*b", b"a" * 5000)


@case
def exponential_states() -> None:
    regex("(?:a|b)*a(?:a|b){24}", b"abaab" * 400)


@case
def million_repeats() -> None:
    regex("(?:ab?){1000000}", b"ab" * 2000)


@case
def million_optional_repeats() -> None:
    regex(".{0,1000000}x", b"ab" * 2000)


@case
def repeats_of_repeats() -> None:
    regex("(?:(?:a{1000}){1000}){1000}", b"a" * 2000)


@case
def repeat_too_large() -> None:
    regex("a{99999999999999999999}", b"a")


@case
def deep_groups() -> None:
    regex("(" * 100_000 + "a" + ")" * 100_000, b"a")


@case
def deep_groups_that_differ() -> None:
    regex("(?:a" * 1_000 + "b" + "|c)?" * 1_000, b"a" * 1500)


@case
def unclosed_groups() -> None:
    regex("(" * 100_000, b"a")


@case
def many_alternatives() -> None:
    regex("|".join(f"w{i}x" for i in range(100_000)), b"w99999x")


@case
def many_classes() -> None:
    regex("|".join(f"[{chr(0x4E00 + i)}-{chr(0x5000 + 2 * i)}]" for i in range(3_000)), "乁".encode())


@case
def lookaheads_in_loops() -> None:
    regex("(?:(?=a*b)(?:a|ab)|(?=.*c)(?!.*dd).)*", b"ab" * 20 + b"acad" * 200)


@case
def many_lookaheads() -> None:
    regex("".join(f"(?=.*{chr(97 + i)})" for i in range(20)) + "[a-z]{0,40}", b"qwertyuiopasdfghjklzxcvbnm")


@case
def many_exclusions() -> None:
    regex("".join(f"(?!.*{chr(97 + i)}{chr(98 + i)}{chr(97 + i)})" for i in range(20)) + "[a-z]*", b"abcabc" * 50)


@case
def lookbehinds() -> None:
    regex("(?:a|(?<=aa)b|(?<!bab)c){50,}", b"aabc" * 100)


@case
def case_folding_of_everything() -> None:
    follow(gr.Grammar.from_regex(r"(?i)(?:\w[^\W\d]\S\b.){20}", 0), b"abcde" * 20)


@case
def nul_bytes() -> None:
    follow(gr.Grammar.from_regex("a\x00b\\x00(?:\x00)*"), b"a\x00b\x00\x00\x00")
    matcher = follow(gr.Grammar.from_choices(["a\x00b", "\x00"]), b"\x00")
    assert matcher.is_accepting


@case
def lone_surrogates() -> None:
    regex("a\ud800b", b"a")


@case
def invalid_utf8() -> None:
    matcher = follow(
        gr.Grammar.from_regex(".*"), b"\xff\xfe\xc0\x80\xed\xa0\x80", (b"\xff\xff", b"\xc0\x80", b"\xe4\xb8")
    )
    assert not matcher.accept_token(0xFF)
    assert not gr.Grammar.from_regex(".*").accepts(b"\xed\xa0\x80")


@case
def empty_regular_language() -> None:
    regex("a(?!b)(?=b)", b"")


@case
def language_of_the_empty_text() -> None:
    matcher = follow(gr.Grammar.from_regex(""), b"a")
    assert matcher.is_accepting
    assert matcher.must_stop


# --- grammars ---------------------------------------------------------------------------------------------------------


@case
def ambiguous() -> None:
    gbnf('root ::= root root | "a"', b"a" * 10_000)


@case
def very_ambiguous() -> None:
    gbnf('root ::= root root root | root root | "a" | "aa" | ""', b"a" * 3_000)


@case
def hidden_left_recursion() -> None:
    gbnf('root ::= e root "a" | "b"\ne ::= "" | e e | "c"', b"cb" + b"a" * 2_000)


@case
def cyclic_unit_rules() -> None:
    gbnf('root ::= a | "x" root\na ::= b\nb ::= c | a\nc ::= a | b | c | root | "y"', b"x" * 2_000 + b"y")


@case
def only_cyclic_unit_rules() -> None:
    gbnf("root ::= a\na ::= b\nb ::= a", b"")


@case
def nullable_everywhere() -> None:
    gbnf("root ::= a a a a a a a a a a a a\na ::= b b b b b b\nb ::= c? c? c?\nc ::= root | [x-z]", b"xyz" * 100)


@case
def nesting_of_brackets() -> None:
    gbnf('root ::= "[" root? "]"', b"[" * 100_000 + b"]" * 100_000)


@case
def nesting_of_json() -> None:
    follow(gr.Grammar.builtin("json"), b"[" * 100_000)


@case
def nesting_of_json_objects() -> None:
    follow(gr.Grammar.builtin("json"), b'{"a":' * 20_000 + b"1" + b"}" * 20_000)


@case
def palindromes() -> None:
    gbnf('root ::= "a" root "a" | "b" root "b" | ""', b"ab" * 700)


@case
def fifty_thousand_rules() -> None:
    rules = [f'r{i} ::= "a" r{i + 1} "b" | "x"' for i in range(50_000)]
    gbnf("root ::= r0\n" + "\n".join(rules) + '\nr50000 ::= "c" root', b"a" * 1_000)


@case
def chain_of_unit_rules() -> None:
    rules = [f'r{i} ::= r{i + 1} | "(" root ")"' for i in range(20_000)]
    gbnf("root ::= r0\n" + "\n".join(rules) + '\nr20000 ::= "c"', b"(" * 50)


@case
def precedence_levels() -> None:
    rules = [f'r{i} ::= r{i} "{chr(0x100 + i)}" r{i + 1} | r{i + 1}' for i in range(2_000)]
    gbnf("root ::= r0\n" + "\n".join(rules) + '\nr2000 ::= "c" | "(" root ")"', ("(cĀ" * 20).encode())


@case
def undefined_language_of_many_rules() -> None:
    rules = [f"r{i} ::= r{i + 1} r{i + 1}" for i in range(50_000)]
    gbnf("root ::= r0\n" + "\n".join(rules) + "\nr100000 ::= r0", b"")


@case
def doubling_rules() -> None:
    rules = [f"r{i} ::= r{i + 1} r{i + 1}" for i in range(60)]
    gbnf("root ::= r0\n" + "\n".join(rules) + '\nr60 ::= "a"', b"a" * 3_000)


@case
def long_alternatives() -> None:
    gbnf("root ::= " + " | ".join('"' + "ab" * 500 + f'{i}" root' for i in range(2_000)) + ' | ""', b"ab" * 500 + b"7")


@case
def long_production() -> None:
    gbnf("root ::= " + ' "a" root? ' * 3_000, b"a" * 200)


@case
def many_choices() -> None:
    follow(gr.Grammar.from_choices([f"{i:06d}" * 3 for i in range(50_000)]), b"001234001234001234")


@case
def nested_choices() -> None:
    follow(gr.Grammar.from_choices(["a" * i for i in range(1, 5_000)]), b"a" * 6_000)


@case
def munch_of_many_keywords() -> None:
    words = " | ".join(f'"kw{i}"' for i in range(3_000))
    grammar = f"start: (KEYWORD | NAME | NUMBER)*\nKEYWORD: {words}\nNAME: /[a-z0-9_]+/\nNUMBER: /[0-9]+/\n%ignore / +/"
    follow(gr.Grammar.from_lark(grammar, lexer="munch"), b"kw12 foo kw2999x 12 " * 20)


@case
def munch_of_many_terminals() -> None:
    lines = "\n".join(f'T{i}: "t{i}"' for i in range(2_000))
    names = " | ".join(f"T{i}" for i in range(2_000))
    grammar = f'start: (item " ")*\nitem: {names} | NAME\nNAME: /[a-z0-9]+/\n{lines}'
    follow(gr.Grammar.from_lark(grammar, lexer="munch"), b"t1 t1999 t20000 x " * 20)


@case
def munch_that_looks_far_ahead() -> None:
    grammar = "start: (A | B | C)*\nA: /a/\nB: /a{1,200}b/\nC: /(?:aa){1,99}c/"
    follow(gr.Grammar.from_lark(grammar, lexer="munch"), b"a" * 2_000 + b"b")


@case
def munch_empty() -> None:
    follow(gr.Grammar.from_lark("start: NAME NAME\nNAME: /[a-z]+/", lexer="munch"), b"a")


# --- vocabularies -----------------------------------------------------------------------------------------------------


@case
def vocabulary_of_nothing() -> None:
    gr.compile(gr.Grammar.from_regex("a*"), gr.Vocabulary.from_bytes([], eos_token_ids=[])).matcher()


@case
def vocabulary_without_text() -> None:
    matcher = gr.compile(gr.Grammar.from_regex("a*"), gr.Vocabulary.from_bytes([b""], eos_token_ids=[0])).matcher()
    bitmask = np.zeros((1, 1), dtype=np.int32)
    matcher.fill_next_token_bitmask(bitmask)
    assert bitmask[0, 0] == 1
    gr.compile(gr.Grammar.from_regex("a+"), gr.Vocabulary.from_bytes([b""], eos_token_ids=[0]))


@case
def tokens_of_megabytes() -> None:
    matcher = follow(
        gr.Grammar.from_regex("(?:ab|c)*"), b"ab", (b"ab" * 50_000, b"ab" * 49_999 + b"x", b"c" * 1_000_000)
    )
    assert matcher.accept_token(256)
    assert not matcher.accept_token(257)
    assert matcher.accept_token(258)


@case
def long_tokens_of_an_ambiguous_grammar() -> None:
    follow(gr.Grammar.from_gbnf('root ::= root root | "a"'), b"a", (b"a" * 2_000, b"a" * 1_999 + b"b"))


@case
def vocabulary_that_cannot_spell() -> None:
    token_bytes = [b"a", b"ab", b"bba", b"abb", b""]
    grammar = gr.Grammar.from_gbnf('root ::= root root | "b" root "b" | "b"')
    gr.compile(grammar, gr.Vocabulary.from_bytes(token_bytes, eos_token_ids=[4])).matcher()


@case
def vocabulary_that_spells_in_words() -> None:
    words = [bytes([97 + i % 5, 97 + i // 5 % 5, 97 + i // 25]) for i in range(125)]
    grammar = gr.Grammar.from_gbnf('root ::= root root | "a" root "b" | [a-e] [a-e] | "[" root "]"')
    vocabulary = gr.Vocabulary.from_bytes([*words, b"[ab", b"]", b"][", b""], eos_token_ids=[128])
    matcher = gr.compile(grammar, vocabulary).matcher()
    bitmask = np.zeros((1, 5), dtype=np.int32)
    for token in (125, 3, 126, 17, 60):
        matcher.fill_next_token_bitmask(bitmask)
        matcher.accept_token(token)


# --- JSON Schema ------------------------------------------------------------------------------------------------------


def schema(value: object, text: bytes) -> None:
    follow(gr.Grammar.from_json_schema(value), text)  # type: ignore[arg-type]


@case
def deep_schema() -> None:
    value: object = {"type": "integer"}
    for _ in range(2_000):
        value = {"type": "object", "properties": {"a": value}, "required": ["a"], "additionalProperties": False}
    schema(value, b'{"a":' * 500)


@case
def schema_of_many_properties() -> None:
    properties = {f"property{i}": {"type": "string", "maxLength": i} for i in range(5_000)}
    schema(
        {"type": "object", "properties": properties, "required": list(properties)[::7]},
        b'{"property0":"","property1":"',
    )


@case
def schema_that_doubles() -> None:
    definitions: dict[str, object] = {f"d{i}": {"allOf": [{"$ref": f"#/$defs/d{i + 1}"}] * 2} for i in range(40)}
    schema({"$defs": definitions | {"d40": {"type": "integer"}}, "$ref": "#/$defs/d0"}, b"123")


@case
def schema_of_conflicting_branches() -> None:
    branches = [{"properties": {f"p{i}": {"type": "integer", "minimum": i}}, "required": [f"p{i}"]} for i in range(24)]
    schema({"type": "object", "oneOf": branches}, b'{"p3": 12, "p4": 2')


@case
def schema_that_refers_to_itself() -> None:
    schema({"$ref": "#"}, b"1")


@case
def enumeration_of_many() -> None:
    schema({"enum": [f"value {i}" for i in range(50_000)]}, b'"value 49999"')


@case
def numbers_of_many_digits() -> None:
    schema({"type": "number", "minimum": 10**300, "multipleOf": 1e-300}, b"1" * 100)


# --- the harness ------------------------------------------------------------------------------------------------------


def run(name: str) -> dict[str, object]:
    """In the child: how the case ended."""
    started = time.process_time()
    try:
        CASES[name]()
        outcome = "answered"
    except gr.errors.GuiderailError as error:
        outcome = f"{type(error).__name__}: {error}"
    seconds = time.process_time() - started
    largest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # in bytes on macOS, else in kilobytes
    megabytes = largest / (1e6 if sys.platform == "darwin" else 1e3)
    return {"outcome": outcome[:300], "seconds": round(seconds, 2), "megabytes": round(megabytes)}


@pytest.mark.parametrize("name", CASES)
def test_hostile_input(name: str) -> None:
    child = subprocess.run(
        [sys.executable, __file__, name], capture_output=True, text=True, timeout=600, check=False, env=os.environ
    )
    assert child.returncode == 0, f"exit {child.returncode}\n{child.stdout[-1000:]}\n{child.stderr[-3000:]}"
    report = json.loads(child.stdout.splitlines()[-1])
    print(name, report)
    assert report["outcome"]
    if not SANITIZED:
        assert report["seconds"] <= SECONDS, report
        assert report["megabytes"] <= MEGABYTES, report


if __name__ == "__main__":
    print(json.dumps(run(sys.argv[1])))
