"""Which texts longest match leaves possible: cases worked out by hand.

The random tests against lexing by definition are in tests/exhaustive/test_munch.py; here is what each mechanism of the
core (obligations, the separator, the fixpoint over rules) is for, and that none of them costs more than it should.
"""

from __future__ import annotations

import itertools
import time

import pytest

import guiderail as gr
from guiderail import _core
from guiderail.errors import GrammarError, LimitError

NAME = "NAME: /[a-z]+/\n"
SPACE = '%ignore " "\n'


def language(text: str) -> gr.Grammar:
    return gr.Grammar.from_lark(text, lexer="munch")


def check(grammar: gr.Grammar, *, accept: str = "", alive: str = "", dead: str = "") -> None:
    """Texts separated by `|`: accepted; a proper beginning of an accepted one; neither."""
    for text in filter(None, accept.split("|")):
        assert grammar.accepts(text), text
        assert grammar.accepts_prefix(text), text
    for text in filter(None, alive.split("|")):
        assert grammar.accepts_prefix(text), text
        assert not grammar.accepts(text), text
    for text in filter(None, dead.split("|")):
        assert not grammar.accepts_prefix(text), text


# --- neighbours -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "start: NAME NAME\n" + NAME,  # the second name would extend the first
        'start: "if" NAME\n' + NAME,  # "ifx" is a name
        "start: A A | A AA\nA: /a/\nAA: /aa/\n",  # two a's are one lexeme, three are AA A
        'start: A B C D | ABCD A B C D\nA: "a"\nB: "b"\nC: "c"\nD: "d"\nABCD: "abcd"\n',
        'start: "a" start\n',  # never ends, whatever the lexer
        'start: LOW | HIGH LOW\nLOW: "a"\nHIGH.1: /[a-z]/\n',  # LOW never wins
        "start: NAME s NAME\ns:\n" + NAME,  # a nullable rule separates nothing
    ],
)
def test_nothing_can_be_lexed(text: str) -> None:
    with pytest.raises(GrammarError, match="empty"):
        language(text)


def test_neighbours_that_cannot_stand_together_are_not_offered() -> None:
    grammar = language("start: NAME (NAME | INT | DASH NAME)\nINT: /[0-9]+/\nDASH: /-/\n" + NAME)
    check(grammar, accept="a1|ab-c", alive="a|ab|ab-", dead="a |1|-")


def test_a_separator_makes_them_stand_together() -> None:
    grammar = language("start: NAME NAME\n" + NAME + SPACE)
    check(grammar, accept="a b| ab  c ", alive="a|ab|ab |", dead="a b c|1")


def test_keywords_are_not_names() -> None:
    grammar = language('start: "if" NAME | NAME "=" NAME\n' + NAME + SPACE)
    check(grammar, accept="if x|if iff|iff=a|ifx = b", alive="if|i|if |iff|ifx", dead="if=|if i=|if x y")
    # `if` may become a longer name, but may not stand on the right of `=`.
    check(grammar, alive="a=if|if if", accept="a=iff|if ifi", dead="a=if |if if ")


def test_recursion_needs_the_separator_too() -> None:
    grammar = language('start: "(" start ")" | NAME+\n' + NAME)
    check(grammar, accept="(a)|((ab))", alive="(|((a", dead="a b|(a b")
    # In the list only one name can ever stand; through the rule, brackets cannot help.
    with pytest.raises(GrammarError):
        language('start: "(" start ")" | NAME pair\npair: NAME | pair NAME\n' + NAME)


def test_ambiguous_left_hidden_left_and_nullable_rules() -> None:
    grammar = language('start: x\nx: e x "+" x | e NAME | x "?"\ne: | e e\n' + NAME)
    check(grammar, accept="a|a+b|a?+b??|a+b+c?", alive="a+|a+b+", dead="+|a b|?|a++")


# --- obligations ------------------------------------------------------------------------------------------------------


def test_one_point_two_or_a_range() -> None:
    grammar = language('start: n ".." n\nn: INT | FLOAT\nINT: /[0-9]+/\nFLOAT: /[0-9]+\\.[0-9]+/\n')
    check(grammar, accept="1..2|1.5..2|1..2.5|12..3", alive="1|1.|1..|1.5.|1.5..", dead="1.2.3|1...|..")


def test_two_brackets_are_a_shift() -> None:
    grammar = language('start: type | NAME ">>" NAME\ntype: NAME "<" type ">" | NAME\n' + NAME + SPACE)
    check(grammar, accept="a<b>|a>>b|a<b<c> >", alive="a<b<c>|a<b<c> ", dead="a<b<c>>|a> >")


def test_an_obligation_outlives_several_lexemes() -> None:
    letters = "".join(f'{letter.upper()}: "{letter}"\n' for letter in "abcde")
    grammar = language('start: A B C (D | E) | LONG "!"\nLONG: "abcd"\n' + letters)
    check(grammar, accept="abce|abcd!", alive="a|ab|abc|abcd", dead="abcd |abcde|abce!")
    # Where only a still longer text would match, nothing is in the way of D but a second one.
    grammar = language('start: A B C D D? | E LONG\nLONG: "abcdd"\n' + letters)
    check(grammar, accept="abcd|eabcdd", alive="abc|eabcd", dead="abcdd|eabcde")


def test_two_obligations_at_once() -> None:
    # After `a`: not `bcx`. After `a` `b`: not `cy` either.
    grammar = language(
        'start: A B C (X | Y | Z) | Z (ABCX | BCY)\nA: "a"\nB: "b"\nC: "c"\nX: "x"\nY: "y"\nZ: "z"\n'
        'ABCX: "abcx"\nBCY: "bcy"\n'
    )
    check(grammar, accept="abcz|zabcx|zbcy", alive="a|ab|abc|zabc", dead="abcx|abcy|zabcy")


def test_a_comment_must_not_be_completed() -> None:
    grammar = language('start: e\ne: e "/" u | u\nu: "*" u | NAME\n' + NAME + "%ignore /\\/\\*[^*]*\\*\\//\n")
    # `/*b` is a division by a dereference until `*/` makes it a comment.
    check(grammar, accept="a/b|a/*b|a/*b*/|/* */a|a/**b|a/*b*//*c", alive="a/|a/*|a/*b*", dead="a b|a/*b*/*|a/*b*/c")


def test_the_end_of_the_text_discharges() -> None:
    grammar = language('start: "a" | "a" "b" "c" "d"? | "d" LONG\nLONG: "abcx"\n')
    check(grammar, accept="a|abc|abcd|dabcx", alive="ab|dabc", dead="abcx|dabcd")


def test_a_special_token_discharges() -> None:
    """NAME <sep> NAME: the token stands between the names as a space would; bytes alone cannot."""
    terminals = [("regex", "[a-z]+", 0, "NAME"), ("special", "<sep>", 0, "SEP")]
    source = _core.static_source(terminals, [("start", [[0, 1, 0], [0, 0]])], "start", "munch", [], [0, 1])
    assert source.match(b"ab") == (2, False)  # not complete, and no byte but a letter may follow
    assert source.match(b"ab ") == (2, False)
    with pytest.raises(GrammarError):
        _core.static_source(terminals, [("start", [[0, 0]])], "start", "munch", [], [0, 1])


# --- ignored terminals ------------------------------------------------------------------------------------------------


def test_ignored_terminals_compete() -> None:
    grammar = language('start: "a" "b"? NAME?\nNAME: /c[a-c]*/\n%ignore /b+;/\n')
    check(grammar, accept="a|ab|abc|abb;b|bb;a|ab;c|abca", alive="b|bb|b;|abb", dead="abba|aa")


def test_ignored_terminals_inside_rules_never_match() -> None:
    # The rule asks for a lexeme that is thrown away.
    with pytest.raises(GrammarError):
        language('start: "a" SPACE "b"\nSPACE: " "\n%ignore SPACE\n')
    grammar = language('start: "a" SPACE "b" | "a"\nSPACE: " "\n%ignore SPACE\n')
    check(grammar, accept="a|a | a", dead="a b|ab")


def test_a_line_end_that_swallows_separators() -> None:
    """NEWLINE takes the spaces after it, so two lines need a statement between: no separator serves everywhere."""
    grammar = language(
        'start: (NEWLINE | statement)+\nstatement: NAME ("," NAME)* NEWLINE\nNEWLINE: /(\\n *)+/\n' + NAME + SPACE
    )
    check(grammar, accept="a\n|a\n  b,c \n|\n\n|\n a , b\n\n", alive="a|a,", dead="a b|a\n,")


# --- cost -------------------------------------------------------------------------------------------------------------


def test_long_bounded_repeats_are_not_walked() -> None:
    """A quote may come at once, so a long bounded string is decided at its first character."""
    start = time.process_time()
    grammar = language('start: STRING ("," STRING)*\nSTRING: /"[^"]{0,1000}"/\n')
    check(grammar, accept='"a"|"","bc"', alive='"|"a', dead='""""')
    grammar = language("start: NAME (SPACE NAME)*\nSPACE: / +/\nNAME: /[a-z]{1,1000}/\n")
    check(grammar, accept="a b|abc", alive="a ", dead="1")
    assert grammar.accepts("a" * 1000)  # after a thousand letters a name can grow no further
    assert not grammar.accepts_prefix("a" * 1001)
    assert time.process_time() - start < 5


def test_deep_nesting_is_linear() -> None:
    grammar = language('start: e\ne: "(" e ")" | NAME e?\n' + NAME + SPACE)
    seconds = []
    for depth in (500, 4000):
        text = "(" * depth + "x" + ")" * depth
        start = time.process_time()
        assert grammar.accepts(text)
        assert not grammar.accepts_prefix(text + ")")
        seconds.append(time.process_time() - start)
    assert seconds[1] < 40 * max(seconds[0], 0.005)


def test_hostile_terminals_end_in_a_named_limit() -> None:
    """What is left of OTHER is a set of 14 positions, so there are more obligations than anybody should wait for."""
    with pytest.raises(LimitError) as caught:
        language("start: LETTER+ | OTHER\nLETTER: /[ab]/\nOTHER: /[ab]*a[ab]{14}c/\n")
    assert caught.value.limit == "munch_states"
    check(language("start: LETTER+ | OTHER\nLETTER: /[ab]/\nOTHER: /[ab]*a[ab]{8}c/\n"), accept="abab", dead="c")


def test_a_language_of_many_words_is_decided_quickly() -> None:
    """Python's statements in small: 30 keywords, names, numbers, operators that are prefixes of each other."""
    keywords = "if elif else while for in is not and or def class return yield pass break continue with as import from"
    statement = " | ".join(f'"{word}" expr' for word in keywords.split(" "))
    grammar = language(
        f"start: (statement NEWLINE)+\nstatement: expr | expr ASSIGN expr | {statement}\n"
        'expr: atom | expr OPERATOR atom | "(" expr ")" | expr "." NAME\natom: NAME | INT | FLOAT | STRING\n'
        "ASSIGN: /=|[-+*\\/<>]=|(\\*\\*|\\/\\/|<<|>>)=/\nOPERATOR: /\\*\\*|\\/\\/|<<|>>|==|<=|[-+*\\/<>]/\n"
        'NAME: /[A-Za-z_][A-Za-z_0-9]*/\nINT: /[0-9]+/\nFLOAT: /[0-9]+\\.[0-9]*/\nSTRING: /"[^"\\n]*"/\n'
        "NEWLINE: /(\\n *)+/\n%ignore / +/\n%ignore /#[^\\n]*/\n"
    )
    check(
        grammar,
        alive="if x|ifx|a.b|x=1.",
        dead="if if |a b|x = = 1|1 . 2",
        accept="a.b\n|x**=1.+y #c\n|if x\n\n  iffy <<= 2\n",
    )
    text = "x <<= (y.z + 3.14) # comment\nreturn x2 ** 7\n  value = other // 2.\n"
    grammar.accepts(text)
    start = time.process_time()
    assert grammar.accepts(text * 500)
    assert time.process_time() - start < 2


# --- terminals that look past their end -------------------------------------------------------------------------------


def test_a_lookahead_is_met_by_what_follows() -> None:
    grammar = language("start: A (B | C)\nA: /x(?=y)/\nB: /y/\nC: /z/\n")
    check(grammar, accept="xy", alive="x", dead="xz|y")


def test_a_forbidden_lookahead() -> None:
    grammar = language('start: OP NAME | "?" NAME\nOP: /[?](?![a-c])/\nNAME: /[a-z]+/\n')
    # `?` is a string, which wins over the pattern of the same priority where both match.
    check(grammar, accept="?a|?x", dead="??")
    grammar = language("start: OP NAME\nOP: /[?](?![a-c])/\nNAME: /[a-z]+/\n")
    check(grammar, accept="?x", alive="?", dead="?a")


def test_a_longer_match_counts_only_where_its_lookahead_holds() -> None:
    grammar = language("start: A A A | LONG B\nA: /a/\nB: /b/\nLONG: /aaa(?=b)/\n")
    check(grammar, accept="aaa|aaab", alive="a|aa", dead="aaaa|aab")


def test_word_boundaries_and_end_anchors() -> None:
    check(language("start: IF NAME\nIF: /if\\b/\nNAME: /[a-z]+/\n" + SPACE), accept="if x", dead="ifx")
    with pytest.raises(GrammarError, match="empty"):
        language("start: A A\nA: /a$/\n")


def test_what_stands_before_a_lexeme_cannot_be_asked() -> None:
    for pattern in [r"\bif", "(?<=x)y", "(?<!x)y", "^a"]:
        with pytest.raises(GrammarError, match="stands before the lexeme"):
            language(f"start: A\nA: /{pattern}/\n")
    # Inside the lexeme it can.
    check(language("start: A\nA: /x\\b-(?<=-)y/\n"), accept="x-y", dead="x-z")


def test_tokens_that_begin_like_keywords() -> None:
    """Names are what no keyword is: every token up to four characters, against the grammar asked token by token."""
    grammar = gr.Grammar.from_lark(
        'start: (NAME | "as" | "def" NAME | "ase" "(" start ")" | "d." NAME)+\nNAME: /[adef_s]+/\n%ignore " "'
    )
    alphabet = "adefs( .)"
    tokens = ["".join(text).encode() for n in range(1, 5) for text in itertools.product(alphabet, repeat=n)]
    vocabulary = gr.Vocabulary.from_bytes([*tokens, b""], eos_token_ids=[len(tokens)])
    compiled = gr.compile(grammar, vocabulary)
    for prefix in (b"", b"de", b"def ", b"ase(", b"ase( as", b"d", b"d.f"):
        matcher = compiled.matcher(prefix=prefix)
        mask = gr.allocate_token_bitmask(1, vocabulary)
        matcher.fill_next_token_bitmask(mask)
        allowed = {i for i in range(len(tokens)) if int(mask[0, i // 32]) >> (i % 32) & 1}
        expected = {i for i, token in enumerate(tokens) if grammar.accepts_prefix(prefix + token)}
        assert {tokens[i] for i in allowed ^ expected} == set()
        assert allowed
