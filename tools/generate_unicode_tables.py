#!/usr/bin/env python3
"""Write `src/core/text/unicode_tables.inc`: the character sets that regular expressions can name.

Unicode 14.0, the version of the oldest Python this package supports (3.11): with its tables the core agrees with
that interpreter's `re` on every code point, and with newer ones on every character that Python 3.11 knew.

Sources, all read from the interpreter that runs this script, so that it downloads nothing:
  - general categories from `unicodedata`; `\\w`, `\\d`, `\\s` and the case orbits from `re` itself;
  - scripts from `fontTools.unicodedata`, binary properties from the `regex` package, at Unicode 14.0 both:

    pip install --target gen regex==2022.6.2 fonttools==4.33.3
    PYTHONPATH=gen python3.11 tools/generate_unicode_tables.py

Format of the output. A set is a list of inclusive ranges, stored as alternating distances (gap from the end of the
range before, length - 1), each as a little-endian base-128 integer; all sets share one byte array. Case orbits
(characters that match each other when case is ignored) are stored as their members: the distance of the first from the
first of the orbit before, the number of others, and their distances.
"""

import itertools
import re
import sys
import unicodedata
from collections.abc import Iterable
from pathlib import Path

import regex
from fontTools.unicodedata import ScriptExtensions, Scripts

UNICODE_VERSION = "14.0.0"
SURROGATES = range(0xD800, 0xE000)
CODE_POINTS = [c for c in range(0x110000) if c not in SURROGATES]
ALL_TEXT = "".join(map(chr, CODE_POINTS))

# Names as in ECMA-262, table "Value aliases and canonical values for General_Category".
CATEGORIES = {
    "L": "Letter", "LC": "Cased_Letter", "Lu": "Uppercase_Letter", "Ll": "Lowercase_Letter", "Lt": "Titlecase_Letter",
    "Lm": "Modifier_Letter", "Lo": "Other_Letter", "M": "Mark Combining_Mark", "Mn": "Nonspacing_Mark",
    "Mc": "Spacing_Mark", "Me": "Enclosing_Mark", "N": "Number", "Nd": "Decimal_Number digit", "Nl": "Letter_Number",
    "No": "Other_Number", "P": "Punctuation punct", "Pc": "Connector_Punctuation", "Pd": "Dash_Punctuation",
    "Ps": "Open_Punctuation", "Pe": "Close_Punctuation", "Pi": "Initial_Punctuation", "Pf": "Final_Punctuation",
    "Po": "Other_Punctuation", "S": "Symbol", "Sm": "Math_Symbol", "Sc": "Currency_Symbol",
    "Sk": "Modifier_Symbol", "So": "Other_Symbol",
    "Z": "Separator", "Zs": "Space_Separator", "Zl": "Line_Separator", "Zp": "Paragraph_Separator",
    "C": "Other", "Cc": "Control cntrl", "Cf": "Format", "Cn": "Unassigned", "Co": "Private_Use", "Cs": "Surrogate",
}  # fmt: skip

# Binary properties of ECMA-262 with their short names; Any, ASCII and Assigned are computed.
BINARY = {
    "ASCII_Hex_Digit": "AHex", "Alphabetic": "Alpha", "Bidi_Control": "Bidi_C", "Bidi_Mirrored": "Bidi_M",
    "Case_Ignorable": "CI", "Cased": "", "Changes_When_Casefolded": "CWCF", "Changes_When_Casemapped": "CWCM",
    "Changes_When_Lowercased": "CWL", "Changes_When_Titlecased": "CWT", "Changes_When_Uppercased": "CWU",
    "Dash": "", "Default_Ignorable_Code_Point": "DI", "Deprecated": "Dep", "Diacritic": "Dia", "Emoji": "",
    "Emoji_Component": "EComp", "Emoji_Modifier": "EMod", "Emoji_Modifier_Base": "EBase",
    "Emoji_Presentation": "EPres", "Extended_Pictographic": "ExtPict", "Extender": "Ext", "Grapheme_Base": "Gr_Base",
    "Grapheme_Extend": "Gr_Ext", "Hex_Digit": "Hex", "IDS_Binary_Operator": "IDSB", "IDS_Trinary_Operator": "IDST",
    "ID_Continue": "IDC", "ID_Start": "IDS", "Ideographic": "Ideo", "Join_Control": "Join_C",
    "Logical_Order_Exception": "LOE", "Lowercase": "Lower", "Math": "", "Noncharacter_Code_Point": "NChar",
    "Pattern_Syntax": "Pat_Syn", "Pattern_White_Space": "Pat_WS", "Quotation_Mark": "QMark", "Radical": "",
    "Regional_Indicator": "RI", "Sentence_Terminal": "STerm", "Soft_Dotted": "SD", "Terminal_Punctuation": "Term",
    "Unified_Ideograph": "UIdeo", "Uppercase": "Upper", "Variation_Selector": "VS", "White_Space": "space WSpace",
    "XID_Continue": "XIDC", "XID_Start": "XIDS",
}  # fmt: skip


def ranges_of(points: Iterable[int]) -> list[tuple[int, int]]:
    """Sorted code points as inclusive ranges."""
    out: list[tuple[int, int]] = []
    for c in points:
        if out and out[-1][1] == c - 1:
            out[-1] = (out[-1][0], c)
        else:
            out.append((c, c))
    return out


def base128(value: int) -> list[int]:
    out = []
    while True:
        out.append(value & 0x7F | (0x80 if value > 0x7F else 0))
        value >>= 7
        if not value:
            return out


class SetTable:
    """Named sets in one byte array; equal sets are stored once."""

    def __init__(self) -> None:
        self.data: list[int] = []
        self.places: dict[tuple[tuple[int, int], ...], tuple[int, int]] = {}
        self.names: dict[str, tuple[int, int]] = {}

    def add(self, names: Iterable[str], ranges: list[tuple[int, int]]) -> None:
        key = tuple(ranges)
        if key not in self.places:
            self.places[key] = (len(self.data), len(ranges))
            end = 0
            for first, last in ranges:
                self.data += base128(first - end) + base128(last - first)
                end = last
        for name in names:
            loose = name.lower().replace("_", "").replace("-", "").replace(" ", "")
            assert self.names.setdefault(loose, self.places[key]) == self.places[key], name


def category_sets(table: SetTable) -> None:
    by_category: dict[str, list[int]] = {}
    for c in CODE_POINTS:
        by_category.setdefault(unicodedata.category(chr(c)), []).append(c)
    by_category["Cs"] = []
    for short, longs in CATEGORIES.items():
        members = ["Lu", "Ll", "Lt"] if short == "LC" else [k for k in by_category if k.startswith(short)]
        points = sorted(c for k in members for c in by_category[k])
        names = [short, *longs.split()] + (["L&"] if short == "LC" else [])
        table.add([f"gc={name}" for name in names], ranges_of(points))


def script_sets(table: SetTable) -> None:
    """`sc=` and `scx=` under the ISO 15924 code and the long name."""

    def runs(module: object) -> list[tuple[int, int, object]]:
        starts = [*module.RANGES, 0x110000]
        return [(starts[i], starts[i + 1], value) for i, value in enumerate(module.VALUES)]

    scripts: dict[str, set[int]] = {code: set() for code in Scripts.NAMES}
    script_of: dict[int, str] = {}
    for first, end, code in runs(Scripts):
        for c in range(first, end):
            if c not in SURROGATES:
                scripts[code].add(c)
                script_of[c] = code
    extensions: dict[str, set[int]] = {code: set() for code in Scripts.NAMES}
    for first, end, codes in runs(ScriptExtensions):
        for c in range(first, end):
            if c not in SURROGATES:
                for code in codes or {script_of[c]}:
                    extensions[code].add(c)
    for code, name in Scripts.NAMES.items():
        if code in ("Zzzz", "Hrkt"):
            continue
        names = [code, name] + (["Qaac"] if code == "Copt" else ["Qaai"] if code == "Zinh" else [])
        table.add([f"sc={n}" for n in names], ranges_of(sorted(scripts[code])))
        table.add([f"scx={n}" for n in names], ranges_of(sorted(extensions[code])))


def binary_sets(table: SetTable) -> None:
    for name, short in BINARY.items():
        table.add([name, *short.split()], matches(regex, rf"\p{{{name}}}"))
    table.add(["Any"], ranges_of(CODE_POINTS))
    table.add(["ASCII"], [(0, 0x7F)])
    table.add(["Assigned"], ranges_of(c for c in CODE_POINTS if unicodedata.category(chr(c)) != "Cn"))


def matches(engine: object, pattern: str) -> list[tuple[int, int]]:
    return ranges_of(ord(ch) for ch in engine.findall(pattern, ALL_TEXT))


def python_orbits() -> list[tuple[int, ...]]:
    """Which characters match each other under `re.IGNORECASE`: asked of `re`, character by character."""
    cased = [
        c for c in CODE_POINTS
        if any(f(chr(c)) != chr(c) for f in (str.lower, str.upper, str.title, str.casefold))
    ]  # fmt: skip
    text = "".join(map(chr, cased))
    orbit_of: dict[int, tuple[int, ...]] = {}
    for c in cased:
        literal = tuple(sorted(map(ord, re.findall(re.escape(chr(c)), text, re.IGNORECASE))))
        in_class = tuple(sorted(map(ord, re.findall(f"[{re.escape(chr(c))}]", text, re.IGNORECASE))))
        assert literal == in_class, hex(c)
        orbit_of[c] = literal
    for c, orbit in orbit_of.items():
        assert all(orbit_of[other] == orbit for other in orbit), hex(c)  # an equivalence relation
    # `re` asks whether the lower case of a character is in \w: the same as asking the character, so \w, \d and \s stay
    # as they are when case is ignored (and not closed under the orbits: U+0345 matches iota, which alone is a letter).
    for name in ("w", "d", "s"):
        assert re.findall(rf"\{name}", ALL_TEXT) == re.findall(rf"[\{name}]", ALL_TEXT, re.IGNORECASE), name
    return sorted({orbit for orbit in orbit_of.values() if len(orbit) > 1})


def ecma_orbits() -> list[tuple[int, ...]]:
    """The same under ECMA-262's `iu`: equal simple case folding (CaseFolding.txt, status C and S)."""
    classes: dict[int, list[int]] = {}
    for c in CODE_POINTS:
        folded = chr(c).casefold()
        if len(folded) > 1:  # only a full folding; a simple one exists where lower case is one other character
            folded = chr(c).lower() if len(chr(c).lower()) == 1 else chr(c)
        classes.setdefault(ord(folded), []).append(c)
    return sorted(tuple(members) for members in classes.values() if len(members) > 1)


def orbit_bytes(orbits: list[tuple[int, ...]]) -> list[int]:
    """Orbits ordered by first member: its distance from the one before, the number of others, their distances."""
    data: list[int] = []
    before = 0
    for orbit in orbits:
        data += base128(orbit[0] - before) + base128(len(orbit) - 1)
        before = orbit[0]
        for a, b in itertools.pairwise(orbit):
            data += base128(b - a)
    return data


def array(name: str, values: list[int]) -> str:
    lines, line = [], "   "
    for value in values:
        if len(line) + len(str(value)) + 2 > 118:
            lines.append(line)
            line = "   "
        line += f" {value},"
    return f"constexpr uint8_t {name}[] = {{\n" + "\n".join([*lines, line]) + "\n};\n"


def main() -> None:
    assert unicodedata.unidata_version == UNICODE_VERSION, "run this with the Python whose tables are wanted"
    assert matches(regex, r"\p{Cn}") == ranges_of(c for c in CODE_POINTS if unicodedata.category(chr(c)) == "Cn")
    table = SetTable()
    table.add(["python:w"], matches(re, r"\w"))
    table.add(["python:d"], matches(re, r"\d"))
    table.add(["python:s"], matches(re, r"\s"))
    category_sets(table)
    script_sets(table)
    binary_sets(table)
    entries = "".join(
        f'    {{"{name}", {offset}, {count}}},\n' for name, (offset, count) in sorted(table.names.items())
    )
    python, ecma = python_orbits(), ecma_orbits()
    output = Path(__file__).parent.parent / "src" / "core" / "unicode_tables.inc"
    output.write_text(
        f"// Unicode {UNICODE_VERSION}. Written by tools/generate_unicode_tables.py (format: see there); do not edit.\n"
        f"constexpr NamedSet kNamedSets[] = {{\n{entries}}};\n"
        + array("kSetData", table.data)
        + array("kPythonOrbits", orbit_bytes(python))
        + array("kEcmaOrbits", orbit_bytes(ecma)),
        encoding="ascii",
    )
    sys.stdout.write(f"{output.name}: {output.stat().st_size} bytes, {len(table.names)} names, "
                     f"{len(python)} and {len(ecma)} orbits\n")  # fmt: skip


if __name__ == "__main__":
    main()
