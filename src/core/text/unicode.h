// Sets of code points: algebra, named properties (Unicode 14.0, see tools/generate_unicode_tables.py), case, UTF-8.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace guiderail {

// Code points as sorted, disjoint, inclusive, non-adjacent ranges in [0, 0x10FFFF]. Surrogates are never members: no UTF-8
// text contains one.
using CodePoints = std::vector<std::pair<uint32_t, uint32_t>>;

inline constexpr uint32_t kMaxCodePoint = 0x10FFFF;

const CodePoints& all_code_points();
// Ranges in any order, overlapping, with surrogates, brought into the form above.
CodePoints normalise(std::vector<std::pair<uint32_t, uint32_t>> ranges);
CodePoints unite(const CodePoints& a, const CodePoints& b);
CodePoints intersect(const CodePoints& a, const CodePoints& b);
CodePoints complement(const CodePoints& set);
bool contains(const CodePoints& set, uint32_t point);

// What Python's `re` means by \w, \d and \s in a str pattern.
CodePoints python_word();
CodePoints python_digit();
CodePoints python_space();

// A property as written between the braces of \p{...}: a general category, script or binary property, alone or as gc=, sc=, scx=
// (or the long names of these). Case, spaces, hyphens and underscores do not count. nullopt: there is no such property.
std::optional<CodePoints> unicode_property(std::string_view name);

// Which characters match each other when case is ignored: Python's `re.IGNORECASE`, the same with `re.ASCII`, and ECMA-262's
// simple case folding.
enum class CaseOrbits : uint8_t { kPython, kAscii, kEcma };
CodePoints close_under_case(const CodePoints& set, CaseOrbits orbits);

// Throws GrammarError at the first byte that is not UTF-8 (offset in code points).
std::u32string decode_utf8(std::string_view text);
void append_utf8(std::string& out, uint32_t point);

}  // namespace guiderail
