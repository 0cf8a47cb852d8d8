// Whether the order in which a backtracking matcher tries things can matter for what it takes as a whole.
#pragma once

#include "core/regex/tree.h"

namespace guiderail {

// True: RegexMatch::kOrdered and kFull are the same language. False says nothing. Takes time linear in the tree for ordinary
// expressions and is bounded for all; counts of repetitions do not matter.
bool longest_is_preferred(const RegexTree& tree);

}  // namespace guiderail
