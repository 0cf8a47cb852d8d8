// Regular expressions: text → syntax tree → Node, for Python's dialect and for ECMA-262's.
//
// The tree is over code points; lowering maps every character class through an encoder (UTF-8, or UTF-8 inside a JSON string), so one
// parser serves texts, terminals and JSON Schema patterns.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "core/lexer/lexicon.h"
#include "core/text/unicode.h"

namespace guiderail {

enum class RegexDialect : uint8_t { kPython, kEcma };

struct RegexFlags {
  bool ignore_case = false;  // Python i
  bool multiline = false;    // Python m
  bool dot_all = false;      // Python s
  bool verbose = false;      // Python x
  bool ascii = false;        // Python a
};

class RegexTree;  // defined in regex/tree.h

// Throws GrammarError with the offset (code points) of what is wrong or not supported (backreferences, ...).
std::shared_ptr<const RegexTree> parse_regex(std::string_view utf8_pattern, RegexDialect dialect,
                                             RegexFlags flags = {});

// Turns a set of code points into the language of its encodings. `lexicon` is where the node is made.
using Encoder = std::function<Node(Lexicon& lexicon, const CodePoints& points)>;
Node encode_utf8(Lexicon& lexicon, const CodePoints& points);

enum class RegexMatch : uint8_t {
  kFull,    // the whole text matches (re.fullmatch); terminals, from_regex
  kSearch,  // some part of the text matches (re.search, JSON Schema `pattern`)
  // The texts that re.match, given nothing else, would take as a whole: alternatives in order, lazy loops short. What re.match takes
  // from a longer text is the longest of its beginnings in this language. Equal to kFull, and the same node, where order changes nothing.
  kOrdered,
  // The texts u # r, # being Lexicon::kMarker, such that re.match takes u from the text u r: lookaheads and anchors see what follows.
  kMarked,
};

// May a lookahead, a word boundary or an end anchor of the expression see what stands behind its match? Then only kMarked is right
// for a lexeme in a longer text.
bool looks_past_its_end(const RegexTree& tree);
// May a lookbehind, a word boundary or a start anchor see what stands before the match?
bool looks_before_its_start(const RegexTree& tree);

// The language of a tree. `any` are all texts under the encoder (for complements and searches: encode(all code points) repeated).
// Lookarounds look at this text only: the start and the end of the text are the edges of the match.
Node lower_regex(Lexicon& lexicon, const RegexTree& tree, RegexMatch match, const Encoder& encoder);

}  // namespace guiderail
