#include "core/regex/tree.h"

#include "core/errors.h"

namespace guiderail {
namespace {

// Longer sequences inside sequences stay as they are: copying (((ab)c)d)... level by level would be quadratic.
constexpr uint32_t kMaxFlattened = 64;

uint32_t saturating_add(uint32_t a, uint32_t b) { return a > kUnbounded - b ? kUnbounded : a + b; }

uint32_t saturating_multiply(uint32_t a, uint32_t b) {
  uint64_t product = uint64_t{a} * b;
  return product > kUnbounded ? kUnbounded : static_cast<uint32_t>(product);
}

void inherit(RegexNode& node, const RegexNode& child) {
  node.looks_ahead |= child.looks_ahead;
  node.looks_behind |= child.looks_behind;
  node.atomic |= child.atomic;
  node.depth = std::max(node.depth, child.depth + 1);
}

}  // namespace

uint32_t RegexTree::add(RegexNode node) {
  if (nodes.size() >= kMaxNodes) throw LimitError("regex_size", "the regular expression has more than 2^22 parts");
  if (node.depth > kMaxDepth) throw LimitError("regex_depth", "the regular expression is nested more than 500 deep");
  nodes.push_back(node);
  return static_cast<uint32_t>(nodes.size() - 1);
}

uint32_t RegexTree::class_id(CodePoints points) {
  auto next = static_cast<uint32_t>(classes.size());
  bool fresh;
  uint32_t id;
  if (points.size() == 1 && points[0].first == points[0].second) {
    auto [it, inserted] = single_ids_.try_emplace(points[0].first, next);
    id = it->second, fresh = inserted;
  } else {
    auto [it, inserted] = class_ids_.try_emplace(points, next);
    id = it->second, fresh = inserted;
  }
  if (fresh) {
    num_ranges_ += points.size();
    if (num_ranges_ > kMaxNodes)
      throw LimitError("regex_size", "the classes of the regular expression have more than 2^22 ranges");
    classes.push_back(std::move(points));
  }
  return id;
}

uint32_t RegexTree::add_class(CodePoints points) {
  uint32_t id = class_id(std::move(points));
  auto [it, fresh] = class_nodes_.try_emplace(id, static_cast<uint32_t>(nodes.size()));
  if (!fresh) return it->second;
  RegexNode node;
  node.kind = RegexKind::kClass;
  node.a = id;
  node.min_length = node.max_length = 1;
  return add(node);
}

uint32_t RegexTree::add_assertion(RegexKind kind, uint32_t class_id) {
  RegexNode node;
  node.kind = kind;
  node.a = class_id;
  node.looks_ahead = kind != RegexKind::kTextStart && kind != RegexKind::kLineStart;
  node.looks_behind = kind != RegexKind::kTextEnd && kind != RegexKind::kLineEnd && kind != RegexKind::kFinalLineEnd;
  return add(node);
}

uint32_t RegexTree::add_list(RegexKind kind, std::span<const uint32_t> list) {
  RegexNode node;
  node.kind = kind;
  node.a = static_cast<uint32_t>(children.size());
  node.b = static_cast<uint32_t>(list.size());
  bool sum = kind == RegexKind::kConcat;
  node.min_length = sum ? 0 : kUnbounded;
  for (uint32_t part : list) {
    const RegexNode& child = nodes[part];
    inherit(node, child);
    node.min_length =
        sum ? saturating_add(node.min_length, child.min_length) : std::min(node.min_length, child.min_length);
    node.max_length =
        sum ? saturating_add(node.max_length, child.max_length) : std::max(node.max_length, child.max_length);
  }
  children.insert(children.end(), list.begin(), list.end());
  return add(node);
}

uint32_t RegexTree::add_concat(std::vector<uint32_t> parts) {
  std::vector<uint32_t> flat;
  flat.reserve(parts.size());
  for (uint32_t part : parts) {
    const RegexNode& node = nodes[part];
    if (node.kind == RegexKind::kConcat && node.b <= kMaxFlattened) {
      auto inner = children_of(node);
      flat.insert(flat.end(), inner.begin(), inner.end());
    } else if (node.kind != RegexKind::kEmpty) {
      flat.push_back(part);
    }
  }
  if (flat.empty()) return add(RegexNode{});
  return flat.size() == 1 ? flat[0] : add_list(RegexKind::kConcat, flat);
}

uint32_t RegexTree::add_alternate(std::vector<uint32_t> options) {
  if (options.size() == 1) return options[0];
  bool all_single = std::all_of(options.begin(), options.end(),
                                [&](uint32_t option) { return nodes[option].kind == RegexKind::kClass; });
  if (all_single) {  // (a|b|c) is [abc]; the order of options that are as long does not matter
    std::vector<std::pair<uint32_t, uint32_t>> ranges;
    for (uint32_t option : options) {
      const CodePoints& set = classes[nodes[option].a];
      ranges.insert(ranges.end(), set.begin(), set.end());
    }
    return add_class(normalise(std::move(ranges)));
  }
  return add_list(RegexKind::kAlternate, options);
}

uint32_t RegexTree::add_repeat(uint32_t child, uint32_t min, uint32_t max, RegexGreed greed) {
  if (nodes[child].kind == RegexKind::kEmpty || max == 0) return add(RegexNode{});
  if (min == 1 && max == 1 && greed != RegexGreed::kPossessive) return child;
  RegexNode node;
  node.kind = RegexKind::kRepeat;
  node.greed = greed;
  node.a = child;
  node.min = min;
  node.max = max;
  inherit(node, nodes[child]);
  if (greed == RegexGreed::kPossessive) node.looks_ahead = node.atomic = true;
  node.min_length = saturating_multiply(nodes[child].min_length, min);
  node.max_length = nodes[child].max_length == 0 ? 0 : saturating_multiply(nodes[child].max_length, max);
  return add(node);
}

uint32_t RegexTree::add_atomic(uint32_t child) {
  RegexNode node;
  node.kind = RegexKind::kAtomic;
  node.a = child;
  inherit(node, nodes[child]);
  node.looks_ahead = node.atomic = true;
  node.min_length = nodes[child].min_length;
  node.max_length = nodes[child].max_length;
  return add(node);
}

uint32_t RegexTree::add_look(uint32_t child, bool behind, bool negative) {
  if (behind && nodes[child].looks_ahead) return add_split_lookbehind(child, negative);
  RegexNode node;
  node.kind = RegexKind::kLook;
  node.a = child;
  node.behind = behind;
  node.negative = negative;
  inherit(node, nodes[child]);
  (behind ? node.looks_behind : node.looks_ahead) = true;
  return add(node);
}

// What stands at the end of a lookbehind and has no width looks from where the lookbehind itself stands, so
//     (?<=XZ) = (?<=X)Z     (?<!XZ) = (?<!X)|(?!Z)     (?<=A|B) = (?<=A)|(?<=B)     (?<!A|B) = (?<!A)(?<!B)
// after which few lookbehinds still look ahead, and those that do are costly (regex/lookbehind.cpp).
uint32_t RegexTree::add_split_lookbehind(uint32_t child, bool negative) {
  const RegexNode body = nodes[child];
  if (body.kind == RegexKind::kAlternate) {
    std::vector<uint32_t> options(children_of(body).begin(), children_of(body).end());
    for (uint32_t& option : options) option = add_look(option, true, negative);
    return negative ? add_concat(std::move(options)) : add_alternate(std::move(options));
  }
  std::vector<uint32_t> parts{child}, at_end;
  if (body.kind == RegexKind::kConcat) parts.assign(children_of(body).begin(), children_of(body).end());
  while (!parts.empty() && nodes[parts.back()].kind >= RegexKind::kLook) {
    at_end.insert(at_end.begin(), parts.back());
    parts.pop_back();
  }
  if (at_end.empty()) {
    RegexNode node;
    node.kind = RegexKind::kLook;
    node.a = child;
    node.behind = node.looks_behind = true;
    node.negative = negative;
    inherit(node, nodes[child]);
    return add(node);
  }
  uint32_t ends = add_concat(std::move(at_end));
  if (negative) ends = add_look(ends, false, true);
  if (parts.empty()) return ends;
  uint32_t behind = add_look(add_concat(std::move(parts)), true, negative);
  return negative ? add_alternate({behind, ends}) : add_concat({behind, ends});
}

}  // namespace guiderail
