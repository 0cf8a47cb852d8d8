"""Seeded random grammars, printed as GBNF, and a description of what is awkward about each.

Small alphabets and short right-hand sides on purpose: three nonterminals over {a, b} already meet left, right, hidden
left and mutual recursion, nullable and cyclic rules and ambiguity, usually several at once.
"""

from __future__ import annotations

import random

from .context_free import Grammar, Production, nullable_names, productive
from .regular_expressions import ByteSet, Choice, Name, Node, Repeat, Sequence, literal, one_of

NAMES = ["s", "t", "u", "v", "w"]


def random_grammar(rng: random.Random, alphabet: bytes = b"ab") -> Grammar:
    """Two to five rules of one to three alternatives; one grammar in three also uses groups and repetitions."""
    names = NAMES[: rng.randint(1, len(NAMES) - rng.randint(0, 2))]
    with_groups = rng.random() < 0.33

    def leaf() -> Node:
        roll = rng.random()
        if roll < 0.5:
            return Name(rng.choice(names))
        if roll < 0.9:
            return literal(bytes([rng.choice(alphabet)]))
        if roll < 0.95:
            return one_of(bytes(rng.sample(list(alphabet), rng.randint(1, len(alphabet)))))
        return literal(bytes(rng.choices(alphabet, k=2)))

    def alternative(depth: int) -> Node:
        parts: list[Node] = []
        for _ in range(rng.choices([0, 1, 2, 3], weights=[1, 4, 5, 3])[0]):
            if with_groups and depth < 2 and rng.random() < 0.3:
                group = body(depth + 1)
                low = rng.choice([0, 0, 1, 2])
                high = rng.choice([None, None, low, low + 1, 1])
                if high is not None and (high < low or high == 0):
                    high = low + 1
                parts.append(rng.choice([group, Repeat(group, low, high)]))
            else:
                parts.append(leaf())
        return Sequence(tuple(parts)) if len(parts) != 1 else parts[0]

    def body(depth: int) -> Node:
        options = [alternative(depth) for _ in range(rng.choices([1, 2, 3], weights=[2, 4, 3])[0])]
        return Choice(tuple(options)) if len(options) > 1 else options[0]

    return Grammar(names[0], {name: body(0) for name in names})


def random_viable_texts(rng: random.Random, grammar: Grammar, tries: int, length: int) -> list[bytes]:
    """Texts by random expansion, cut at `length` expansions: long members of the language that enumeration misses."""
    useful = productive(grammar)
    cost = _shortest_costs(grammar)
    texts = []
    for _ in range(tries):
        text, stack, budget = bytearray(), [grammar.start], length
        if grammar.start not in useful:
            return []
        while stack:
            symbol = stack.pop()
            if not isinstance(symbol, str):
                text.append(rng.choice(sorted(symbol)))
                continue
            usable = [
                p for p in grammar.productions[symbol] if all(s in useful if isinstance(s, str) else s for s in p)
            ]
            budget -= 1
            if budget < 0:
                usable = [min(usable, key=lambda p: _cost(p, cost))]
            stack.extend(reversed(rng.choice(usable)))
        texts.append(bytes(text))
    return texts


def _cost(production: Production, cost: dict[str, int]) -> int:
    return 1 + sum(cost.get(s, 1 << 20) if isinstance(s, str) else 1 for s in production)


def _shortest_costs(grammar: Grammar) -> dict[str, int]:
    """Size of the smallest derivation of each productive nonterminal."""
    cost: dict[str, int] = {}
    while True:
        more = dict(cost)
        for name, productions in grammar.productions.items():
            best = min((_cost(p, cost) for p in productions), default=1 << 20)
            if best < min(1 << 20, more.get(name, 1 << 20)):
                more[name] = best
        if more == cost:
            return cost
        cost = more


# Description --------------------------------------------------------------------------------------------------------


def _reaches(edges: dict[str, set[str]]) -> dict[str, set[str]]:
    """Transitive closure (at least one step)."""
    closure = {name: set(targets) for name, targets in edges.items()}
    for middle in closure:
        for targets in closure.values():
            if middle in targets:
                targets |= closure[middle]
    return closure


def features(grammar: Grammar) -> set[str]:
    """Which awkward kinds of rule the useful part of the grammar has."""
    useful = productive(grammar)
    if grammar.start not in useful:
        return {"empty"}
    productions = {
        name: [p for p in ps if all(s in useful if isinstance(s, str) else s for s in p)]
        for name, ps in grammar.productions.items()
        if name in useful
    }
    uses = _reaches({n: {s for p in ps for s in p if isinstance(s, str)} for n, ps in productions.items()})
    reachable = uses[grammar.start] | {grammar.start}
    productions = {name: ps for name, ps in productions.items() if name in reachable}
    nullable = nullable_names(grammar)

    def corners(reverse: bool, through_nullable: bool) -> dict[str, set[str]]:
        edges: dict[str, set[str]] = {name: set() for name in productions}
        for name, ps in productions.items():
            for production in ps:
                for symbol in reversed(production) if reverse else production:
                    if isinstance(symbol, str):
                        edges[name].add(symbol)
                    if not (through_nullable and symbol in nullable):
                        break
        return edges

    def recursive(edges: dict[str, set[str]]) -> set[str]:
        return {name for name, targets in _reaches(edges).items() if name in targets}

    units: dict[str, set[str]] = {name: set() for name in productions}
    for name, ps in productions.items():
        for production in ps:
            for index, symbol in enumerate(production):
                rest = production[:index] + production[index + 1 :]
                if isinstance(symbol, str) and all(s in nullable for s in rest):
                    units[name].add(symbol)

    found = set()
    for side, reverse in (("left", False), ("right", True)):
        direct = recursive(corners(reverse, through_nullable=False))
        if direct:
            found.add(f"{side} recursive")
        if recursive(corners(reverse, through_nullable=True)) - direct:
            found.add(f"hidden {side} recursive")
    if any(a != b and b in uses[a] and a in uses[b] for a in productions for b in productions):
        found.add("mutually recursive")
    if nullable & set(productions):
        found.add("nullable")
    if recursive(units):
        found.add("cyclic")
    if not any(name in uses[name] for name in productions):
        found.add("finite")
    return found


def is_ambiguous_for(grammar: Grammar, text: bytes) -> bool:
    """Does `text` have two derivation trees? Counts trees per span to a fixed point, saturating at two."""
    length = len(text)
    spans = [(i, j) for i in range(length + 1) for j in range(i, length + 1)]
    counts = {(name, i, j): 0 for name in grammar.productions for i, j in spans}
    while True:
        more = {}
        for name, productions in grammar.productions.items():
            for i, j in spans:
                more[name, i, j] = min(2, sum(_trees(p, i, j, text, counts) for p in productions))
        if more == counts:
            return counts[grammar.start, 0, length] == 2
        counts = more


def _trees(production: Production, start: int, end: int, text: bytes, counts: dict[tuple[str, int, int], int]) -> int:
    ways = {start: 1}
    for symbol in production:
        after: dict[int, int] = {}
        for position, count in ways.items():
            if isinstance(symbol, str):
                for stop in range(position, end + 1):
                    after[stop] = min(2, after.get(stop, 0) + count * counts[symbol, position, stop])
            elif position < end and text[position] in symbol:
                after[position + 1] = min(2, after.get(position + 1, 0) + count)
        ways = after
    return ways.get(end, 0)


# Printing -----------------------------------------------------------------------------------------------------------


def to_gbnf(grammar: Grammar) -> str:
    """The rules as GBNF, one a line, start first; its symbol is called `root`, as that notation wants."""
    if grammar.start != next(iter(grammar.rules)):
        raise ValueError("the start symbol must be the first rule")
    renamed = {name: "root" if name == grammar.start else name for name in grammar.rules}
    return "".join(f"{renamed[name]} ::= {_gbnf(body, renamed, 0)}\n" for name, body in grammar.rules.items())


def _gbnf(node: Node, renamed: dict[str, str], depth: int) -> str:
    match node:
        case ByteSet(members):
            characters = "".join(map(chr, sorted(members)))
            if not characters.isalnum() or not characters.isascii():
                raise ValueError("only ASCII letters and digits are printed")
            return f'"{characters}"' if len(characters) == 1 else f"[{characters}]"
        case Name(name):
            return renamed[name]
        case Sequence(parts):
            return " ".join(_gbnf(part, renamed, depth + 1) for part in parts) if parts else '""'
        case Choice(options):
            text = " | ".join(_gbnf(option, renamed, 1 if isinstance(option, Choice) else depth) for option in options)
            return f"({text})" if depth else text
        case Repeat(item, low, high):
            suffix = {(0, None): "*", (1, None): "+", (0, 1): "?"}.get((low, high))
            if suffix is None:
                suffix = f"{{{low},}}" if high is None else f"{{{low}}}" if low == high else f"{{{low},{high}}}"
            atom = _gbnf(item, renamed, 1)
            return (atom if isinstance(item, ByteSet | Name) else f"({_gbnf(item, renamed, 0)})") + suffix
    raise TypeError(node)
