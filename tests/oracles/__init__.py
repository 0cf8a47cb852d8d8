"""Slow truths: what the engine is judged by.

Each module is short enough to be seen to be right, shares no code with `src/` (tests/exhaustive/test_oracles.py reads
the imports) and is itself checked against something else: `re`, the `lark` package, or a second oracle that works in
another way.

    regular_expressions   syntax trees over bytes, Brzozowski derivatives, exhaustive and random generation
    context_free          grammars over bytes: Earley's recogniser, and Bar-Hillel intersection with an automaton
    random_grammars       seeded grammars with every awkward kind of recursion, and what kinds they have
    munch                 lexing by definition, membership, and the prefixes of finite languages
    json_prefix           RFC 8259 as a machine with a stack, quick enough for real vocabularies
    tokens                masks by trying every token; a matcher built on nothing but membership and viability
    laws                  what every matcher must obey, whatever it matches
"""
