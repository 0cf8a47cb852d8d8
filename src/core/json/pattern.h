// What is certain of a `pattern`, read off its syntax tree. One-sided: false also means 'not known'.
#pragma once

#include <string_view>

#include "core/regex/regex.h"

namespace guiderail {

// Does some text match, being searched? `text` is the pattern.
bool certainly_matches(const RegexTree& tree, std::string_view text);
// Does every text match, being searched?
bool matches_everything(const RegexTree& tree);

}  // namespace guiderail
