// Terminals put together from expressions by operators that regular expressions lack: intersection, complement, substrings of a text.
//
// A front end writes the tree as JSON, an array per node:
//
//   ["lit", text]  ["re", pattern, flags]  ["seq", x…]  ["or", x…]  ["and", x…]  ["not", x]  ["rep", x, least, most or null]
//   ["factor", chunk…]: any number of chunks that stand side by side in the list, none included
//
// Everything is read as a language: alternatives have no order, and a complement is one among the UTF-8 texts.
#pragma once

#include <string_view>

#include "core/lexer/lexicon.h"
#include "core/regex/regex.h"

namespace guiderail {

// The language of the tree. Throws GrammarError for a tree that is malformed, or an expression that looks beyond its match; LimitError.
Node terminal_language(Lexicon& lexicon, std::string_view json);

}  // namespace guiderail
