"""The oracles are right, and they are ours alone: checked against `re`, `lark` and each other, and by their imports."""

from __future__ import annotations

import ast
import json
import random
import re
import sys
from pathlib import Path

import lark
import pytest

from conftest import SEED
from oracles import context_free, munch, random_grammars, tokens
from oracles import regular_expressions as regex
from oracles.json_prefix import JsonPrefix

ORACLES = Path(context_free.__file__).parent
MODULES = sorted(ORACLES.glob("*.py"))
# jsonschema is a judge that others wrote; the package never imports it (below).
ALLOWED_IMPORTS = {"numpy", "torch", "jsonschema", "oracles", *sys.stdlib_module_names}


def imports_of(source: str) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add("oracles" if node.level else (node.module or "").split(".")[0])
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in ("__import__", "importlib.import_module"):
            found.add(ast.unparse(node))
    return found


@pytest.mark.parametrize("module", MODULES, ids=lambda path: path.stem)
def test_oracles_import_nothing_of_ours(module: Path) -> None:
    assert imports_of(module.read_text()) <= ALLOWED_IMPORTS


def test_the_import_check_sees_an_import() -> None:
    assert "guiderail" in imports_of("def f():\n    from guiderail.grammars import regex\n")
    assert imports_of("__import__('guiderail')") - ALLOWED_IMPORTS
    assert imports_of("import importlib\nimportlib.import_module('guiderail')") - ALLOWED_IMPORTS


def test_the_source_imports_no_oracle() -> None:
    source = ORACLES.parents[1] / "src" / "guiderail"
    judges = {"oracles", "tests", "jsonschema"}
    users = [path for path in source.rglob("*.py") if imports_of(path.read_text()) & judges]
    assert users == []


# Regular expressions against `re` -----------------------------------------------------------------------------------

TEXTS = regex.all_texts(5)


@pytest.mark.parametrize("size", [1, 2, 3, 4])
def test_derivatives_agree_with_re(size: int) -> None:
    for tree in regex.all_expressions(size):
        pattern = regex.to_pattern(tree)
        compiled = re.compile(pattern.encode())
        matched = {text for text in TEXTS if compiled.fullmatch(text)}
        assert {text for text in TEXTS if regex.matches(tree, text)} == matched, pattern
        # The longest shortest completion of trees this small is that of a{2}{2}{2}: eight bytes.
        seen = {text[:end] for text in regex.all_texts(8) if compiled.fullmatch(text) for end in range(4)}
        assert {text for text in regex.all_texts(3) if regex.viable(tree, text)} == seen


def test_random_derivatives_agree_with_re() -> None:
    rng = random.Random(SEED)
    for _ in range(300):
        tree = regex.random_expression(rng, rng.randint(1, 9))
        compiled = re.compile(regex.to_pattern(tree).encode())
        for text in regex.all_texts(4, b"abc"):
            assert regex.matches(tree, text) == bool(compiled.fullmatch(text)), (compiled.pattern, text)


def test_finite_enumeration_agrees_with_derivatives() -> None:
    rng = random.Random(SEED)
    for _ in range(200):
        tree = regex.random_expression(rng, rng.randint(1, 5), b"ab", finite=True)
        texts = regex.texts_of(tree, 200)
        if texts is not None:
            longest = max(map(len, texts), default=0)
            assert texts == {t for t in regex.all_texts(min(longest + 1, 8)) if regex.matches(tree, t)} or longest > 8


# Context-free grammars: two recognisers, and lark -------------------------------------------------------------------


def sample_grammars(count: int, seed: int = SEED) -> list[context_free.Grammar]:
    rng = random.Random(seed)
    return [random_grammars.random_grammar(rng) for _ in range(count)]


def disagreement(grammar: context_free.Grammar, length: int) -> str | None:
    """The first text on which Earley and the intersection differ, as member or as prefix."""
    if context_free.is_empty(grammar):
        if context_free.viable(grammar, b""):
            return "an empty language with a viable prefix"
        return None
    for text in regex.all_texts(length):
        state = context_free.Earley(grammar).read(text)
        if state.viable != context_free.viable(grammar, text):
            return f"viable {text!r}"
        if state.accepting != context_free.accepts(grammar, text):
            return f"member {text!r}"
    return None


def test_earley_agrees_with_intersection() -> None:
    for grammar in sample_grammars(120):
        assert disagreement(grammar, 3) is None, random_grammars.to_gbnf(grammar)


def test_the_sample_has_every_awkward_kind() -> None:
    """200 grammars (the least that the engine is run on) contain each kind, most of them dozens of times."""
    counts: dict[str, int] = {}
    ambiguous = 0
    for grammar in sample_grammars(200):
        for feature in random_grammars.features(grammar):
            counts[feature] = counts.get(feature, 0) + 1
        ambiguous += any(random_grammars.is_ambiguous_for(grammar, text) for text in (b"", b"a", b"b", b"ab", b"aa"))
    wanted = {"left recursive", "hidden left recursive", "right recursive", "mutually recursive", "nullable", "cyclic"}
    assert {kind: counts.get(kind, 0) for kind in wanted if counts.get(kind, 0) < 5} == {}
    assert ambiguous >= 20
    assert counts["empty"] >= 3


def lark_rules(grammar: context_free.Grammar) -> str:
    """Plain productions in Lark's syntax, one terminal per byte set."""
    names = {name: f"r{index}" for index, name in enumerate(grammar.productions)}
    lines = []
    for name, productions in grammar.productions.items():
        options = [
            " ".join(names[s] if isinstance(s, str) else "/[" + "".join(map(chr, sorted(s))) + "]/" for s in production)
            for production in productions
        ]
        lines.append(f"{names[name]}: " + "\n  | ".join(options))
    return "\n".join(lines) + f"\nstart: {names[grammar.start]}\n"


def test_earley_agrees_with_lark() -> None:
    """An implementation by others. Cyclic grammars are left out: lark builds a forest."""
    checked = 0
    for grammar in sample_grammars(60, SEED + 1):
        if random_grammars.features(grammar) & {"cyclic", "empty"}:
            continue
        parser = lark.Lark(lark_rules(grammar), parser="earley", lexer="dynamic_complete")
        for text in regex.all_texts(3):
            try:
                parser.parse(text.decode())
                member = True
            except (lark.UnexpectedInput, lark.UnexpectedEOF):
                member = False
            assert context_free.Earley(grammar).read(text).accepting == member, (lark_rules(grammar), text)
        checked += 1
    assert checked > 20


def test_liveness_in_tokens() -> None:
    """a^n b^n with tokens that can only write pairs: an odd rest cannot be written."""
    grammar = context_free.Grammar(
        "s",
        {
            "s": regex.Choice(
                (
                    regex.EMPTY_TEXT,
                    regex.Sequence((regex.literal(b"a"), regex.Name("s"), regex.literal(b"b"))),
                )
            )
        },
    )
    assert context_free.viable_in_tokens(grammar, b"aab", [b"b"])
    assert context_free.viable_in_tokens(grammar, b"aa", [b"bb"])
    assert not context_free.viable_in_tokens(grammar, b"aab", [b"bb"])
    assert not context_free.viable_in_tokens(grammar, b"a", [b"a"])
    assert context_free.viable_in_tokens(grammar, b"a", [b"ab", b"b"])


# Munch: examples decided by hand ------------------------------------------------------------------------------------


def terminal(name: str, pattern_tree: regex.Node, is_string: bool = False, **options: int) -> munch.Terminal:
    return munch.Terminal(name, pattern_tree, is_string, **options)  # type: ignore[arg-type]


def plus(letters: bytes) -> regex.Node:
    return regex.Repeat(regex.one_of(letters), 1, None)


def test_two_names_in_a_row_have_no_text() -> None:
    """The second NAME extends the first: an empty language though every rule is productive."""
    grammar = munch.MunchGrammar("start", {"start": [("NAME", "NAME")]}, [terminal("NAME", plus(b"ab"))])
    assert not any(grammar.accepts(text) for text in regex.all_texts(6))


def test_a_range_of_integers() -> None:
    """`1..2`: the dot after 1 could have begun a fraction."""
    digit = regex.one_of(b"12")
    fraction = regex.sequence([digit, regex.literal(b"."), digit])
    grammar = munch.MunchGrammar(
        "start",
        {"start": [("INT", "DOTS", "INT"), ("FLOAT",)]},
        [terminal("INT", plus(b"12")), terminal("FLOAT", fraction), terminal("DOTS", regex.literal(b".."), True)],
    )
    assert grammar.lex(b"1..2") == ["INT", "DOTS", "INT"]
    assert grammar.lex(b"1.2") == ["FLOAT"]
    assert grammar.accepts(b"1..2")
    assert grammar.accepts(b"1.2")
    assert not grammar.accepts(b"1.2.2")
    assert grammar.lex(b"1.") is None


def test_priority_then_string_then_order_decides_ties() -> None:
    keyword = terminal("IF", regex.literal(b"ab"), True)
    name = terminal("NAME", plus(b"abc"))
    rules: dict[str, list[tuple[str, ...]]] = {"start": [("IF",), ("NAME",)]}
    assert munch.MunchGrammar("start", rules, [name, keyword]).lex(b"ab") == ["IF"]
    assert munch.MunchGrammar("start", rules, [name, keyword]).lex(b"abc") == ["NAME"]
    strong = terminal("NAME", plus(b"abc"), priority=1)
    assert munch.MunchGrammar("start", rules, [strong, keyword]).lex(b"ab") == ["NAME"]
    same = terminal("WORD", plus(b"abc"))
    assert munch.MunchGrammar("start", rules, [name, same]).lex(b"abc") == ["NAME"]
    assert munch.MunchGrammar("start", rules, [same, name]).lex(b"abc") == ["WORD"]


def test_a_terminal_matches_as_its_expression_says() -> None:
    """`/a|ab/` never sees `ab`: the longest is among terminals, each of which has one match."""
    short_first = terminal("X", regex.Choice((regex.literal(b"a"), regex.literal(b"ab"))))
    grammar = munch.MunchGrammar("start", {"start": [("X",), ("X", "B")]}, [short_first, terminal("B", plus(b"b"))])
    assert grammar.lex(b"ab") == ["X", "B"]


def test_ignored_terminals_compete() -> None:
    space = munch.Terminal("SPACE", plus(b" "), False, ignored=True)
    arrow = terminal("ARROW", regex.literal(b" >"), True)
    grammar = munch.MunchGrammar(
        "start", {"start": [("A", "ARROW", "A"), ("A", "A")]}, [terminal("A", plus(b"a")), space, arrow]
    )
    assert grammar.accepts(b"a >a")
    assert grammar.lex(b"a  >a") is None
    assert grammar.accepts(b" a  a ")
    assert not grammar.accepts(b"aa")


def test_finite_munch_languages_are_enumerated_completely() -> None:
    """Every short text that lexing by definition puts into the language is among the enumerated ones."""
    rng = random.Random(SEED)
    checked = 0
    while checked < 60:
        grammar = munch.random_munch_grammar(rng)
        texts = grammar.texts(400)
        if texts is not None:
            short = {text for text in regex.all_texts(6) if grammar.accepts(text)}
            assert {text for text in texts if len(text) <= 6} == short, grammar.to_lark()
            checked += 1


# JSON, byte by byte ---------------------------------------------------------------------------------------------------


def is_json(text: bytes) -> bool:
    def refuse(name: str) -> None:
        raise ValueError(name)

    try:
        json.loads(text.decode(), parse_constant=refuse)
    except (ValueError, RecursionError):
        return False
    return True


def machine_says(text: bytes) -> bool:
    state = JsonPrefix().read(text)
    return state is not None and state.complete


def test_the_json_machine_agrees_with_the_json_module() -> None:
    """Every text up to four bytes out of JSON's own, and spoilt documents of all kinds."""
    for letters in (b'[]{},1 "', b"-0.1eE+ ", b'"\\u0a\xc3\xa9', b'{"a":1,}'):
        for text in regex.all_texts(4, bytes(sorted(set(letters)))):
            assert machine_says(text) == is_json(text), text
    rng = random.Random(SEED)
    document = '{"a": [1, -2.5e+3, "x\\n\\u00e9é😀", true, false, null, {}], "b": {"c": []}}'.encode()
    for _ in range(3000):
        spoilt = bytearray(document)
        for _ in range(rng.randint(1, 2)):
            start = rng.randrange(len(spoilt))
            spoilt[start : start + rng.randint(0, 2)] = bytes([rng.choice(document + b"\xff\x80\x00\t")])[
                : rng.randint(0, 1)
            ]
        assert machine_says(bytes(spoilt)) == is_json(bytes(spoilt)), bytes(spoilt)
    assert is_json(document)
    assert all(JsonPrefix().read(document[:end]) is not None for end in range(len(document)))


def test_the_json_machine_never_dies_late() -> None:
    """A prefix that is alive has a completion: whatever is open is closed by a few bytes."""
    rng = random.Random(SEED)
    for _ in range(400):
        state, text = JsonPrefix(), b""
        for _ in range(rng.randint(1, 12)):
            alive = [byte for byte in range(256) if state.step(byte) is not None]
            byte = rng.choice(alive)
            text += bytes([byte])
            state = state.step(byte) or JsonPrefix()
        for _ in range(60):
            if state.complete:
                break
            for byte in b'"0:]}\x80\x90\xa0aruels\\':
                after = state.step(byte)
                if after is not None and after != state:
                    state, text = after, text + bytes([byte])
                    break
        assert is_json(text), text


# Mutants: a broken oracle is noticed --------------------------------------------------------------------------------


class ForgetsNullable(context_free.Earley):
    """Completes a nullable rule once, for those that wait already: the classical mistake."""

    def _add_set(self, items: set[context_free.Item]) -> None:
        position = len(self._items)
        closed: set[context_free.Item] = set()
        self._waiting.append({})
        frontier = list(items)
        while frontier:
            item = frontier.pop()
            if item in closed:
                continue
            closed.add(item)
            name, production, dot, origin = item
            if dot == len(production):
                frontier += [(n, p, d + 1, o) for n, p, d, o in self._waiting[origin].get(name, ())]
            elif isinstance(waited := production[dot], str):
                self._waiting[-1].setdefault(waited, []).append(item)
                frontier += [(waited, p, 0, position) for p in self._productions[waited]]
        self._items.append(closed)


def every_name(grammar: context_free.Grammar) -> set[str]:
    return set(grammar.productions)


def whole_text_only(prefix: bytes) -> context_free.Automaton:
    return context_free.text_automaton(prefix)


@pytest.mark.parametrize(
    ("where", "name", "broken"),
    [
        (context_free, "Earley", ForgetsNullable),
        (context_free, "productive", every_name),
        (context_free, "prefix_automaton", whole_text_only),
    ],
    ids=["nullable rules forgotten", "no trimming", "a prefix taken for a text"],
)
def test_a_broken_oracle_is_caught(where: object, name: str, broken: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(where, name, broken)
    grammars = sample_grammars(60)
    found = False
    for grammar in grammars:
        try:
            found = disagreement(grammar, 2) is not None
        except KeyError:  # a name without productions left
            found = True
        if found:
            break
    assert found


def test_masks_by_hand() -> None:
    """The language {ab, abc}: after `a`, `b` and `bc` may come; after `ab`, `c` and the end."""
    texts = {b"ab", b"abc"}
    viable = munch.prefixes(texts).__contains__
    token_bytes = [b"a", b"b", b"c", b"bc", b"ab", b"", b""]
    eos = [6]
    assert tokens.allowed_tokens(b"", viable, texts.__contains__, token_bytes, eos) == {0, 4}
    assert tokens.allowed_tokens(b"a", viable, texts.__contains__, token_bytes, eos) == {1, 3}
    assert tokens.allowed_tokens(b"ab", viable, texts.__contains__, token_bytes, eos) == {2, 6}
    assert tokens.allowed_tokens(b"abc", viable, texts.__contains__, token_bytes, eos) == {6}
