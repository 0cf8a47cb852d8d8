#include "core/json/formula.h"

#include <algorithm>
#include <utility>

#include "core/errors.h"

namespace guiderail {
namespace {

constexpr std::size_t kMaxFormulas = 8'000'000;
constexpr unsigned kMaxFormulaDepth = 2000;

uint64_t mix(uint64_t hash, uint64_t value) {
  hash ^= value + 0x9E3779B97F4A7C15u + (hash << 6) + (hash >> 2);
  return hash * 0xFF51AFD7ED558CCDu;
}

}  // namespace

FormulaStore::FormulaStore() {
  nodes_.push_back({FormulaKind::kFalse, false, false, 0, 0, 0, 0});
  nodes_.push_back({FormulaKind::kTrue, false, false, 0, 0, 0, 0});
}

void FormulaStore::check_depth(unsigned depth) {
  if (depth > kMaxFormulaDepth) throw LimitError("schema_depth", "schemas nested or referring too deeply");
}

Formula FormulaStore::atom(FormulaKind kind, uint32_t a, uint64_t b, std::span<const Formula> children) {
  uint64_t hash = mix(mix(mix(0, static_cast<uint64_t>(kind)), a), b);
  for (Formula child : children) hash = mix(hash, static_cast<uint32_t>(child));
  auto [begin, end] = ids_.equal_range(hash);
  for (auto it = begin; it != end; ++it) {
    Formula f{it->second};
    const Node& n = node(f);
    if (n.kind == kind && n.a == a && n.b == b && std::ranges::equal(this->children(f), children)) return f;
  }
  if (nodes_.size() >= kMaxFormulas) throw LimitError("schema_formulas", "the schema's cases need too many formulas");
  Node n{kind, kind == FormulaKind::kCondition,         kind == FormulaKind::kUnique,
         a,    static_cast<uint32_t>(children_.size()), static_cast<uint32_t>(children.size()),
         b};
  // What is inside a condition, a count of matches or a name is about another value.
  if (kind != FormulaKind::kCondition && kind != FormulaKind::kContains && kind != FormulaKind::kNames)
    for (Formula child : children) {
      n.has_condition = n.has_condition || has_condition(child);
      n.has_unique = n.has_unique || has_unique(child);
    }
  std::vector<Formula> copy(children.begin(), children.end());  // the span may point into children_
  children_.insert(children_.end(), copy.begin(), copy.end());
  nodes_.push_back(n);
  ids_.emplace(hash, static_cast<uint32_t>(nodes_.size() - 1));
  return Formula{static_cast<uint32_t>(nodes_.size() - 1)};
}

Formula FormulaStore::negation(Formula f) {
  if (f == kTrue) return kFalse;
  if (f == kFalse) return kTrue;
  if (kind(f) == FormulaKind::kNot) return child(f);
  return atom(FormulaKind::kNot, 0, 0, std::span(&f, 1));
}

Formula FormulaStore::condition(Formula value) {
  if (value == kTrue || value == kFalse) return value;
  if (kind(value) == FormulaKind::kNot) return negation(condition(child(value)));
  return atom(FormulaKind::kCondition, 0, 0, std::span(&value, 1));
}

Formula FormulaStore::all(std::vector<Formula> parts) {
  if (parts.size() == 1) return parts.front();
  std::vector<Formula> flat;
  for (Formula part : parts) {
    if (part == kFalse) return kFalse;
    if (part == kTrue) continue;
    if (kind(part) == FormulaKind::kAnd)
      flat.insert(flat.end(), children(part).begin(), children(part).end());
    else
      flat.push_back(part);
  }
  std::ranges::sort(flat);
  flat.erase(std::unique(flat.begin(), flat.end()), flat.end());
  uint64_t least = 0, below = UINT64_MAX;  // count >= least, count < below
  bool repeats = false;
  for (Formula part : flat) {
    if (kind(part) == FormulaKind::kNot) {
      if (std::ranges::binary_search(flat, child(part))) return kFalse;
      if (kind(child(part)) == FormulaKind::kCount) below = std::min(below, b(child(part)));
      repeats = repeats || kind(child(part)) == FormulaKind::kUnique;
    } else if (kind(part) == FormulaKind::kCount) {
      least = std::max(least, b(part));
    }
  }
  if (least >= below || (repeats && below == 1)) return kFalse;
  // Only the strictest counts stay; nothing can come twice where nothing comes.
  auto is_redundant = [&](Formula part) {
    if (kind(part) == FormulaKind::kCount) return b(part) != least;
    if (kind(part) == FormulaKind::kNot && kind(child(part)) == FormulaKind::kCount) return b(child(part)) != below;
    if (below == 1 && kind(part) == FormulaKind::kUnique) return true;
    // Absorption: (a or b) and a is a.
    return kind(part) == FormulaKind::kOr && std::ranges::any_of(children(part), [&](Formula option) {
             return std::ranges::binary_search(flat, option);
           });
  };
  std::vector<Formula> kept;
  for (Formula part : flat)
    if (!is_redundant(part)) kept.push_back(part);
  if (kept.empty()) return kTrue;
  if (kept.size() == 1) return kept.front();
  return atom(FormulaKind::kAnd, 0, 0, kept);
}

Formula FormulaStore::any(std::vector<Formula> options) {
  if (options.size() == 1) return options.front();
  std::vector<Formula> flat;
  for (Formula option : options) {
    if (option == kTrue) return kTrue;
    if (option == kFalse) continue;
    if (kind(option) == FormulaKind::kOr)
      flat.insert(flat.end(), children(option).begin(), children(option).end());
    else
      flat.push_back(option);
  }
  std::ranges::sort(flat);
  flat.erase(std::unique(flat.begin(), flat.end()), flat.end());
  for (Formula option : flat)
    if (kind(option) == FormulaKind::kNot && std::ranges::binary_search(flat, child(option))) return kTrue;
  // Absorption: a or (a and b) is a.
  std::vector<Formula> kept;
  for (Formula option : flat) {
    bool absorbed = kind(option) == FormulaKind::kAnd && std::ranges::any_of(children(option), [&](Formula part) {
                      return std::ranges::binary_search(flat, part);
                    });
    if (!absorbed) kept.push_back(option);
  }
  if (kept.empty()) return kFalse;
  if (kept.size() == 1) return kept.front();
  return atom(FormulaKind::kOr, 0, 0, kept);
}

Formula FormulaStore::one(std::vector<Formula> options) {
  std::erase(options, kFalse);
  std::ranges::sort(options);
  auto constants = std::ranges::count(options, kTrue);
  if (constants > 1) return kFalse;
  if (constants == 1) {
    std::erase(options, kTrue);
    return negation(any(std::move(options)));
  }
  // What is listed twice must not hold.
  std::vector<Formula> single, never;
  for (std::size_t i = 0; i < options.size();) {
    std::size_t j = i;
    while (j < options.size() && options[j] == options[i]) ++j;
    if (j - i == 1)
      single.push_back(options[i]);
    else
      never.push_back(negation(options[i]));
    i = j;
  }
  Formula result = single.empty()       ? kFalse
                   : single.size() == 1 ? single.front()
                                        : atom(FormulaKind::kOne, 0, 0, single);
  if (never.empty()) return result;
  never.push_back(result);
  return all(std::move(never));
}

Formula FormulaStore::rebuild(FormulaKind kind, std::vector<Formula> parts) {
  switch (kind) {
    case FormulaKind::kNot: return negation(parts.front());
    case FormulaKind::kAnd: return all(std::move(parts));
    case FormulaKind::kOr: return any(std::move(parts));
    default: return one(std::move(parts));
  }
}

Formula FormulaStore::assume(Formula f, Formula value, bool holds) {
  std::unordered_map<uint32_t, Formula> memo;
  return assume(f, value, holds, memo, 0);
}

Formula FormulaStore::assume(Formula f, Formula value, bool holds, std::unordered_map<uint32_t, Formula>& memo,
                             unsigned depth) {
  if (!has_condition(f)) return f;
  if (kind(f) == FormulaKind::kCondition) return child(f) != value ? f : holds ? kTrue : kFalse;
  auto found = memo.find(static_cast<uint32_t>(f));
  if (found != memo.end()) return found->second;
  check_depth(depth);
  std::vector<Formula> parts(children(f).begin(), children(f).end());
  for (Formula& part : parts) part = assume(part, value, holds, memo, depth + 1);
  Formula result = kind(f) <= FormulaKind::kOne ? rebuild(kind(f), std::move(parts)) : atom(kind(f), a(f), b(f), parts);
  memo.emplace(static_cast<uint32_t>(f), result);
  return result;
}

Formula FormulaStore::assume_constant(Formula f, Formula constant) {
  std::unordered_map<uint32_t, Formula> memo;
  return assume_constant(f, constant, memo, 0);
}

Formula FormulaStore::assume_constant(Formula f, Formula constant, std::unordered_map<uint32_t, Formula>& memo,
                                      unsigned depth) {
  if (!has_condition(f)) return f;
  if (kind(f) == FormulaKind::kCondition)
    return kind(child(f)) != FormulaKind::kEquals ? f : child(f) == constant ? kTrue : kFalse;
  auto found = memo.find(static_cast<uint32_t>(f));
  if (found != memo.end()) return found->second;
  check_depth(depth);
  std::vector<Formula> parts(children(f).begin(), children(f).end());
  for (Formula& part : parts) part = assume_constant(part, constant, memo, depth + 1);
  Formula result = kind(f) <= FormulaKind::kOne ? rebuild(kind(f), std::move(parts)) : atom(kind(f), a(f), b(f), parts);
  memo.emplace(static_cast<uint32_t>(f), result);
  return result;
}

std::vector<Formula> FormulaStore::constant_conditions(Formula f) const {
  std::vector<Formula> found, open{f};
  std::unordered_map<uint32_t, bool> visited;
  while (!open.empty()) {
    Formula at = open.back();
    open.pop_back();
    if (!has_condition(at) || !visited.emplace(static_cast<uint32_t>(at), true).second) continue;
    if (kind(at) == FormulaKind::kCondition) {
      if (kind(child(at)) == FormulaKind::kEquals) found.push_back(child(at));
      continue;
    }
    open.insert(open.end(), children(at).begin(), children(at).end());
  }
  std::ranges::sort(found);
  return found;
}

Formula FormulaStore::first_condition(Formula f) const {
  while (kind(f) != FormulaKind::kCondition)
    f = *std::ranges::find_if(children(f), [this](Formula child) { return has_condition(child); });
  return child(f);
}

}  // namespace guiderail
