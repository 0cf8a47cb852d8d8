// A test on the syntax tree for 'the preferred match of a text that matches as a whole is the whole text'.
//
// The test asks for two things.
//
// One-unambiguity (Brüggemann-Klein & Wood 1998, in the strong form, with counters): wherever a loop may go round again or
// stop, and wherever an alternative is chosen, the next character decides. Then a text and a beginning of it that both match
// are read in the same way up to where the beginning ends.
//
// The end last: at that point, whatever reads another character is tried before what ends the match. Greedy loops do so. Lazy
// loops do not if the match can end behind them, nor does an alternative that can be empty and has others after it.
//
// Worked example: in `a*ab?`, a* and what follows it both begin with a: not decided here. In `".*?"` neither. In `"[^"]*?"` the
// next character decides and the match cannot end behind the loop: the order does not matter.
#include "core/regex/order.h"

#include <algorithm>
#include <cstdint>
#include <optional>
#include <utility>
#include <vector>

namespace guiderail {
namespace {

// What can come at a position: characters, or the end of the match.
struct Next {
  CodePoints points;
  bool end = false;
};

class OrderTest {
 public:
  explicit OrderTest(const RegexTree& tree) : tree_(tree), first_(tree.nodes.size()) {}

  // The part of the tree at `index` passes, where `follow` is what can come behind it.
  bool passes(uint32_t index, const Next& follow) {
    if (!afford(1)) return false;
    const RegexNode& node = tree_[index];
    switch (node.kind) {
      case RegexKind::kEmpty:
      case RegexKind::kClass: return true;
      case RegexKind::kConcat: return concat_passes(node, follow);
      case RegexKind::kAlternate: return alternate_passes(node, follow);
      case RegexKind::kRepeat: return repeat_passes(node, follow);
      default: return false;  // looks around itself or forgets alternatives
    }
  }

 private:
  // Ranges of characters handled in all. Beyond it nothing is claimed.
  static constexpr std::size_t kMaxWork = std::size_t{1} << 20;

  bool afford(std::size_t ranges) {
    work_ += ranges;
    return work_ <= kMaxWork;
  }

  // The characters that a match of the part can begin with. Meaningless once the work is spent: afford() is false from then on.
  const CodePoints& first(uint32_t index) {
    const RegexNode& node = tree_[index];
    if (node.kind == RegexKind::kClass) return tree_.classes[node.a];
    if (node.kind == RegexKind::kRepeat) return first(node.a);
    std::optional<CodePoints>& memo = first_[index];
    if (memo) return *memo;
    std::vector<std::pair<uint32_t, uint32_t>> ranges;
    if (node.kind == RegexKind::kConcat || node.kind == RegexKind::kAlternate) {
      for (uint32_t part : tree_.children_of(node)) {
        const CodePoints& more = first(part);
        if (!afford(more.size() + 1)) break;
        ranges.insert(ranges.end(), more.begin(), more.end());
        if (node.kind == RegexKind::kConcat && !tree_.nullable(part)) break;
      }
    }
    memo = normalise(std::move(ranges));
    return *memo;
  }

  // What can come before a part that `follow` comes behind.
  Next with_first(uint32_t index, const Next& follow) {
    const CodePoints& own = first(index);
    if (!tree_.nullable(index)) {
      afford(own.size());
      return {own, false};
    }
    afford(own.size() + follow.points.size());
    return {unite(own, follow.points), follow.end};
  }

  bool disjoint(const CodePoints& a, const CodePoints& b) {
    if (!afford(a.size() + b.size())) return false;
    for (std::size_t i = 0, j = 0; i < a.size() && j < b.size();) {
      if (a[i].second < b[j].first) {
        ++i;
      } else if (b[j].second < a[i].first) {
        ++j;
      } else {
        return false;
      }
    }
    return true;
  }

  bool concat_passes(const RegexNode& node, const Next& follow) {
    auto parts = tree_.children_of(node);
    Next behind = follow;
    for (std::size_t i = parts.size(); i-- > 0;) {
      if (!passes(parts[i], behind)) return false;
      if (i > 0) behind = with_first(parts[i], behind);
    }
    return true;
  }

  bool alternate_passes(const RegexNode& node, const Next& follow) {
    auto options = tree_.children_of(node);
    std::vector<std::pair<uint32_t, uint32_t>> ranges;
    for (std::size_t i = 0; i < options.size(); ++i) {
      if (tree_.nullable(options[i]) && follow.end && i + 1 < options.size()) return false;
      Next here = with_first(options[i], follow);
      if (!afford(here.points.size() + 1)) return false;
      ranges.insert(ranges.end(), here.points.begin(), here.points.end());
    }
    std::ranges::sort(ranges);
    for (std::size_t i = 1; i < ranges.size(); ++i)
      if (ranges[i].first <= ranges[i - 1].second) return false;
    return std::ranges::all_of(options, [&](uint32_t option) { return passes(option, follow); });
  }

  bool repeat_passes(const RegexNode& node, const Next& follow) {
    if (node.greed == RegexGreed::kPossessive) return false;
    bool again = node.max > 1;
    if (again && tree_.nullable(node.a)) return false;  // matchers have rules of their own for rounds that are empty
    if (node.min < node.max) {
      if (node.greed == RegexGreed::kLazy && follow.end) return false;
      if (!disjoint(first(node.a), follow.points)) return false;
    }
    if (!again) return passes(node.a, follow);
    if (!afford(first(node.a).size() + follow.points.size())) return false;
    return passes(node.a, {unite(first(node.a), follow.points), follow.end});
  }

  const RegexTree& tree_;
  std::vector<std::optional<CodePoints>> first_;
  std::size_t work_ = 0;
};

}  // namespace

bool longest_is_preferred(const RegexTree& tree) { return OrderTest(tree).passes(tree.root, {{}, true}); }

}  // namespace guiderail
