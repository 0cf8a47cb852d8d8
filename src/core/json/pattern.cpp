#include "core/json/pattern.h"

#include <algorithm>
#include <cstddef>
#include <span>
#include <vector>

#include "core/regex/tree.h"

namespace guiderail {

// Does some text match, for sure? Cheap and one-sided: yes where nothing but a `^` in front and a `$` at the end asserts anything.
bool certainly_matches(const RegexTree& tree, std::string_view text) {
  auto count = [&](std::string_view part) {
    std::size_t n = 0;
    for (std::size_t at = text.find(part); at != text.npos; at = text.find(part, at + 1)) ++n;
    return n;
  };
  std::size_t starts = count("^") - count("[^"), ends = count("$");
  if (starts > 1 || ends > 1 || (starts && !text.starts_with('^')) || (ends && !text.ends_with('$'))) return false;
  for (const RegexNode& node : tree.nodes) {
    switch (node.kind) {
      case RegexKind::kEmpty:
      case RegexKind::kConcat:
      case RegexKind::kAlternate:
      case RegexKind::kRepeat:
      case RegexKind::kTextStart:
      case RegexKind::kTextEnd: break;
      case RegexKind::kClass:
        if (tree.classes[node.a].empty()) return false;
        break;
      default: return false;
    }
  }
  return true;
}

// Does every text match, being searched? Certain if so: an expression without assertions that admits the empty string, behind `^` or
// before `$` alone, or an alternative of that kind.
bool matches_everything(const RegexTree& tree) {
  auto plain = [&](uint32_t root) {
    std::vector<uint32_t> open{root};
    while (!open.empty()) {
      const RegexNode& node = tree[open.back()];
      open.pop_back();
      switch (node.kind) {
        case RegexKind::kEmpty:
        case RegexKind::kClass: break;
        case RegexKind::kRepeat: open.push_back(node.a); break;
        case RegexKind::kConcat:
        case RegexKind::kAlternate:
          for (uint32_t child : tree.children_of(node)) open.push_back(child);
          break;
        default: return false;
      }
    }
    return true;
  };
  auto nullable = [&](uint32_t node) { return tree.nullable(node) && plain(node); };
  std::vector<uint32_t> options{tree.root};
  if (tree[tree.root].kind == RegexKind::kAlternate) {
    auto children = tree.children_of(tree[tree.root]);
    options.assign(children.begin(), children.end());
  }
  return std::ranges::any_of(options, [&](uint32_t option) {
    if (tree[option].kind != RegexKind::kConcat) return nullable(option);
    std::span<const uint32_t> parts = tree.children_of(tree[option]);
    if (tree[parts.front()].kind == RegexKind::kTextStart)
      parts = parts.subspan(1);
    else if (tree[parts.back()].kind == RegexKind::kTextEnd)
      parts = parts.first(parts.size() - 1);
    return std::ranges::all_of(parts, nullable);
  });
}

}  // namespace guiderail
