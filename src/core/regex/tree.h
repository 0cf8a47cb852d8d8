// The syntax tree of a regular expression, common to both dialects.
//
// Dialects and flags are resolved while parsing: what remains are classes of code points, concatenation, alternation, repetition,
// atomic groups, lookarounds and five assertions. `(?i)[a-z]+$` of Python becomes Repeat(Class, 1..inf), TextEnd-or-newline.
// Nodes lie in one array, children before parents, so that everything that flows upward is computed without recursion; depth is
// bounded by kMaxDepth, so what flows downward may recurse.
#pragma once

#include <algorithm>
#include <cstdint>
#include <map>
#include <span>
#include <unordered_map>
#include <vector>

#include "core/lexer/lexicon.h"
#include "core/text/unicode.h"

namespace guiderail {

enum class RegexKind : uint8_t {
  kEmpty,      // the empty string
  kClass,      // one code point out of classes[a]
  kConcat,     // children
  kAlternate,  // children, best first
  kRepeat,     // child, min..max, greedy, lazy or possessive
  kAtomic,     // child; the first match in order of preference is the only one
  kLook,       // child; behind, negative. From here on: no width
  kTextStart,
  kTextEnd,
  kLineStart,          // at the start of the text or after one of classes[a]
  kLineEnd,            // at the end of the text or before one of classes[a]
  kFinalLineEnd,       // at the end of the text or before one of classes[a] that ends it (Python's $)
  kWordBoundary,       // between one of classes[a] and something else
  kNotWordBoundary,    // not there
  kNotWordBoundaryPy,  // not there and the text is not empty (Python's \B before 3.14)
};

enum class RegexGreed : uint8_t { kGreedy, kLazy, kPossessive };

struct RegexNode {
  RegexKind kind = RegexKind::kEmpty;
  RegexGreed greed = RegexGreed::kGreedy;
  bool behind = false;
  bool negative = false;
  bool looks_ahead = false;   // contains a lookahead, an assertion that needs the next character, or an atomic group
  bool looks_behind = false;  // contains a lookbehind or an assertion that needs the character before
  bool atomic = false;        // contains an atomic group or a possessive quantifier
  uint32_t a = 0;             // class, or first child in RegexTree::children, or the only child
  uint32_t b = 0;             // number of children
  uint32_t min = 0, max = 0;
  uint32_t min_length = 0, max_length = 0;  // in code points; saturates at kUnbounded
  uint32_t depth = 1;
};

class RegexTree {
 public:
  // Fixed limits (LimitError names them regex_depth, regex_size). A tree of the greatest depth is lowered within 1 MB of stack.
  static constexpr uint32_t kMaxDepth = 500;
  static constexpr std::size_t kMaxNodes = std::size_t{1} << 22;

  std::vector<RegexNode> nodes;
  std::vector<uint32_t> children;
  std::vector<CodePoints> classes;
  uint32_t root = 0;

  const RegexNode& operator[](uint32_t node) const { return nodes[node]; }
  std::span<const uint32_t> children_of(const RegexNode& node) const {
    return std::span(children).subspan(node.a, node.b);
  }
  bool nullable(uint32_t node) const { return nodes[node].min_length == 0; }

  // Constructors: intern classes, compute lengths and flags, drop what is empty, flatten nested sequences.
  uint32_t class_id(CodePoints points);
  uint32_t add_class(CodePoints points);
  uint32_t add_assertion(RegexKind kind, uint32_t class_id = 0);
  uint32_t add_concat(std::vector<uint32_t> parts);
  uint32_t add_alternate(std::vector<uint32_t> options);
  uint32_t add_repeat(uint32_t child, uint32_t min, uint32_t max, RegexGreed greed);
  uint32_t add_atomic(uint32_t child);
  uint32_t add_look(uint32_t child, bool behind, bool negative);

 private:
  uint32_t add(RegexNode node);
  uint32_t add_split_lookbehind(uint32_t child, bool negative);
  uint32_t add_list(RegexKind kind, std::span<const uint32_t> list);

  std::unordered_map<uint32_t, uint32_t> single_ids_;  // classes of one code point
  std::map<CodePoints, uint32_t> class_ids_;
  std::unordered_map<uint32_t, uint32_t> class_nodes_;  // one node per class
  std::size_t num_ranges_ = 0;
};

}  // namespace guiderail
