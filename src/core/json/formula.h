// Boolean combinations of what schemas say, interned.
//
// One node store serves three levels that never mix below a connective:
//   of a value:          kSchema, kEquals
//   of a value's type:   what remains of a formula once the JSON type is known: string and number atoms; of arrays and objects, atoms
//                        about *what is still to come* (how many more items, which keys must still appear)
//   of a step:           the same, with kCondition leaves: formulas that the next item or member value satisfies or not
// so the remainder of an array or object after one more item or member is again a formula of the same kind, a derivative. Equal formulas are
// the same number, which is what makes them nonterminals of a grammar.
//
// Connectives are simplified on construction: flat, sorted, no constants, no complementary pairs. kOne is 'exactly one of', kept as it is: its
// derivative is the kOne of the derivatives, where spelling it out would be quadratic.
#pragma once

#include <cstdint>
#include <span>
#include <unordered_map>
#include <vector>

namespace guiderail {

enum class Formula : uint32_t {};
inline constexpr Formula kFalse{0};
inline constexpr Formula kTrue{1};

enum class FormulaKind : uint8_t {
  kFalse,
  kTrue,
  kNot,
  kAnd,
  kOr,
  kOne,
  kCondition,  // child: formula of the next value
  // of a value
  kSchema,  // a: SchemaId
  kEquals,  // a: ValueId
  kWord,    // a: JsonType; null, false or true
  // of strings
  kLength,   // a: minimum, b: maximum number of characters
  kPattern,  // a: PatternId
  kFormat,   // a: number of the format
  kStrings,  // a: a set of ValueIds
  // of numbers
  kBound,        // a: NumberLanguages::Bound, b: DecimalId
  kMultiple,     // b: DecimalId
  kInteger,      // an integer by value
  kIntegerText,  // written without a fraction
  kNumbers,      // a: a set of ValueIds
  // of arrays and objects
  kCount,  // at least b more items or members
  // of arrays
  kItems,             // a: SchemaId, b: position; prefixItems and items from there on
  kConstantItems,     // a: ValueId, b: position; as the array `a` from there on
  kContains,          // child: formula of an item; at least b more items satisfy it
  kUnique,            // children: formulas of one value each, none of which may come again
  kUnevaluatedItems,  // a: evaluators, b: position; children: their guards
  // of objects
  kHas,                    // a: KeyId; the key is still to come
  kMembers,                // a: SchemaId; properties, patternProperties and additionalProperties
  kConstantMembers,        // a: ValueId; as in the object `a`
  kNames,                  // child: formula of the property names
  kUnevaluatedProperties,  // a: evaluators; children: their guards
};

class FormulaStore {
 public:
  FormulaStore();

  FormulaKind kind(Formula f) const { return node(f).kind; }
  uint32_t a(Formula f) const { return node(f).a; }
  uint64_t b(Formula f) const { return node(f).b; }
  std::span<const Formula> children(Formula f) const { return {children_.data() + node(f).first, node(f).count}; }
  Formula child(Formula f) const { return children_[node(f).first]; }
  bool has_condition(Formula f) const { return node(f).has_condition; }
  bool has_unique(Formula f) const { return node(f).has_unique; }
  std::size_t size() const { return nodes_.size(); }

  Formula atom(FormulaKind kind, uint32_t a = 0, uint64_t b = 0, std::span<const Formula> children = {});
  Formula negation(Formula f);
  Formula all(std::vector<Formula> parts);
  Formula any(std::vector<Formula> options);
  Formula one(std::vector<Formula> options);
  Formula both(Formula f, Formula g) { return all({f, g}); }
  Formula implies(Formula f, Formula g) { return any({negation(f), g}); }
  Formula condition(Formula value);
  Formula count(uint64_t n) { return n == 0 ? kTrue : atom(FormulaKind::kCount, 0, n); }

  // Rebuilds `f` with its atoms replaced; `leaf(atom)` returns the replacement. Connectives only; children of atoms are the leaf's affair.
  template <typename F>
  Formula map(Formula f, F& leaf) {
    std::unordered_map<uint32_t, Formula> memo;
    return map(f, leaf, memo, 0);
  }
  // f with every condition on `value` replaced by a constant, inside guards as well.
  Formula assume(Formula f, Formula value, bool holds);
  // f with its conditions on constants (kEquals) decided: the value is `constant`, or none of them if that is kFalse.
  Formula assume_constant(Formula f, Formula constant);
  std::vector<Formula> constant_conditions(Formula f) const;
  // Some condition of f that is not inside another one's formula; f must have one.
  Formula first_condition(Formula f) const;

 private:
  struct Node {
    FormulaKind kind;
    bool has_condition, has_unique;
    uint32_t a, first, count;
    uint64_t b;
  };
  const Node& node(Formula f) const { return nodes_[static_cast<uint32_t>(f)]; }
  Formula assume(Formula f, Formula value, bool holds, std::unordered_map<uint32_t, Formula>& memo, unsigned depth);
  Formula assume_constant(Formula f, Formula constant, std::unordered_map<uint32_t, Formula>& memo, unsigned depth);
  static void check_depth(unsigned depth);

  template <typename F>
  Formula map(Formula f, F& leaf, std::unordered_map<uint32_t, Formula>& memo, unsigned depth) {
    FormulaKind k = kind(f);
    if (k == FormulaKind::kFalse || k == FormulaKind::kTrue) return f;
    if (k > FormulaKind::kOne) return leaf(f);
    auto found = memo.find(static_cast<uint32_t>(f));
    if (found != memo.end()) return found->second;
    check_depth(depth);
    std::vector<Formula> parts(children(f).begin(), children(f).end());
    for (Formula& part : parts) {
      part = map(part, leaf, memo, depth + 1);
      if (k == FormulaKind::kAnd && part == kFalse) break;
      if (k == FormulaKind::kOr && part == kTrue) break;
    }
    Formula result = rebuild(k, std::move(parts));
    memo.emplace(static_cast<uint32_t>(f), result);
    return result;
  }
  Formula rebuild(FormulaKind kind, std::vector<Formula> parts);

  std::vector<Node> nodes_;
  std::vector<Formula> children_;
  std::unordered_multimap<uint64_t, uint32_t> ids_;
};

}  // namespace guiderail
