// Arrays, one item at a time.
//
// What is still required of an array is a formula whose atoms speak about the items to come: `kItems` at a position, `kContains` with how
// many matches are still needed, `kCount`. Its derivative by the next item has conditions on that item's value as leaves:
//   contains(C, n)  →  C(item) ? contains(C, n-1) : contains(C, n)
//   items(p)        →  schema_p(item) and items(p+1)
// and `cases` decides the conditions. Counters are numbers in atoms, so an array of at least 10,000 items is one formula at a time.
#include <algorithm>
#include <utility>

#include "core/errors.h"
#include "core/json/algebra.h"

namespace guiderail {
void JsonAlgebra::expand_array(const Schema& schema, SchemaId id, std::vector<Formula>& parts) {
  auto sid = static_cast<uint32_t>(id);
  if (schema.has_items()) parts.push_back(formulas_.atom(FormulaKind::kItems, sid, 0));
  if (schema.min_items > 0) parts.push_back(formulas_.count(schema.min_items));
  if (schema.max_items < kNoCount - 1) parts.push_back(formulas_.negation(formulas_.count(schema.max_items + 1)));
  if (schema.contains != kNoSchema) {
    Formula item = of_schema(schema.contains);
    auto at_least = [&](uint64_t n) {
      return n == 0 ? kTrue : formulas_.atom(FormulaKind::kContains, 0, n, std::span(&item, 1));
    };
    parts.push_back(at_least(schema.min_contains));
    if (schema.max_contains < kNoCount - 1) parts.push_back(formulas_.negation(at_least(schema.max_contains + 1)));
  }
  if (schema.unique) parts.push_back(formulas_.atom(FormulaKind::kUnique));
  if (schema.unevaluated_items != kNoSchema) parts.push_back(unevaluated(id, JsonType::kArray));
}

// The formula of the next item that a kItems or kConstantItems atom demands.
Formula JsonAlgebra::item_formula(Formula atom) {
  uint64_t position = formulas_.b(atom);
  if (formulas_.kind(atom) == FormulaKind::kConstantItems) {
    JsonId array = schemas_->value(ValueId{formulas_.a(atom)});
    if (position >= schemas_->store().size(array)) return kFalse;
    return of_value(schemas_->value_id(schemas_->store().item(array, static_cast<uint32_t>(position))));
  }
  const Schema& schema = (*schemas_)[SchemaId{formulas_.a(atom)}];
  if (position < schema.prefix.size()) return of_schema(schema.prefix[position]);
  return schema.rest == kNoSchema ? kTrue : of_schema(schema.rest);
}

Formula JsonAlgebra::array_derivative(Formula f) {
  auto leaf = [&](Formula atom) -> Formula {
    uint64_t b = formulas_.b(atom);
    uint32_t a = formulas_.a(atom);
    switch (formulas_.kind(atom)) {
      case FormulaKind::kCount: return formulas_.count(b - 1);
      case FormulaKind::kItems: {
        Formula item = formulas_.condition(item_formula(atom));
        uint64_t next = std::min<uint64_t>(b + 1, (*schemas_)[SchemaId{a}].prefix.size());
        if (next > b && next == (*schemas_)[SchemaId{a}].prefix.size() && (*schemas_)[SchemaId{a}].rest == kNoSchema)
          return item;
        return formulas_.both(item, formulas_.atom(FormulaKind::kItems, a, next));
      }
      case FormulaKind::kConstantItems: {
        Formula item = formulas_.condition(item_formula(atom));
        return formulas_.both(item, formulas_.atom(FormulaKind::kConstantItems, a, b + 1));
      }
      case FormulaKind::kContains: {
        Formula value = formulas_.child(atom);
        Formula matches = formulas_.condition(value);
        Formula fewer = b == 1 ? kTrue : formulas_.atom(FormulaKind::kContains, 0, b - 1, std::span(&value, 1));
        return formulas_.any({formulas_.both(matches, fewer), formulas_.both(formulas_.negation(matches), atom)});
      }
      case FormulaKind::kUnique: {
        // One condition on all of them: splitting by each would be quadratic.
        std::vector<Formula> seen(formulas_.children(atom).begin(), formulas_.children(atom).end());
        if (seen.empty()) return atom;
        return formulas_.both(atom, formulas_.negation(formulas_.condition(formulas_.any(std::move(seen)))));
      }
      case FormulaKind::kUnevaluatedItems: {
        Evaluators evaluators = evaluators_[a];
        std::vector<Formula> guards(formulas_.children(atom).begin(), formulas_.children(atom).end());
        std::vector<Formula> obligation{formulas_.condition(of_schema(evaluators.unevaluated))};
        for (std::size_t i = 0; i < guards.size(); ++i) {
          guards[i] = array_derivative(guards[i]);
          auto [id, kind] = evaluators.list[i];
          const Schema& schema = (*schemas_)[id];
          if (kind == Evaluators::Kind::kContains) {
            obligation.push_back(formulas_.both(guards[i], formulas_.condition(of_schema(schema.contains))));
          } else if (b < schema.prefix.size() || schema.rest != kNoSchema ||
                     (schema.unevaluated_items != kNoSchema && schema.unevaluated_items != evaluators.unevaluated)) {
            obligation.push_back(guards[i]);
          }
        }
        Formula next = make_unevaluated(FormulaKind::kUnevaluatedItems, evaluators, b + 1, std::move(guards));
        return formulas_.both(formulas_.any(std::move(obligation)), next);
      }
      default: return atom;
    }
  };
  return formulas_.map(f, leaf);
}

std::vector<ValueCase> JsonAlgebra::array_step(Formula rest) {
  auto found = array_derivatives_.find(static_cast<uint32_t>(rest));
  Formula step = found != array_derivatives_.end() ? found->second : array_derivative(rest);
  if (found == array_derivatives_.end()) array_derivatives_.emplace(static_cast<uint32_t>(rest), step);
  std::vector<ValueCase> result = cases(step);
  split_unique(result);
  return result;
}

bool JsonAlgebra::array_may_end(Formula rest) {
  auto leaf = [&](Formula atom) {
    switch (formulas_.kind(atom)) {
      case FormulaKind::kCount:
      case FormulaKind::kContains: return kFalse;
      default: return kTrue;
    }
  };
  return formulas_.map(rest, leaf) == kTrue;
}

// The common case, decided without following items one by one: a conjunction of item schemas and counts.
bool JsonAlgebra::array_conjunction_alive(Formula rest, bool& known) {
  std::vector<Formula> parts{rest};
  if (formulas_.kind(rest) == FormulaKind::kAnd)
    parts.assign(formulas_.children(rest).begin(), formulas_.children(rest).end());
  uint64_t needed = 0, horizon = 0;
  bool unique = false;
  for (Formula part : parts) {
    switch (formulas_.kind(part)) {
      case FormulaKind::kCount: needed = std::max(needed, formulas_.b(part)); break;
      case FormulaKind::kItems:
        horizon = std::max<uint64_t>(
            horizon, (*schemas_)[SchemaId{formulas_.a(part)}].prefix.size() -
                         std::min<uint64_t>(formulas_.b(part), (*schemas_)[SchemaId{formulas_.a(part)}].prefix.size()));
        break;
      case FormulaKind::kConstantItems:
        horizon = std::max<uint64_t>(horizon, schemas_->store().size(schemas_->value(ValueId{formulas_.a(part)})));
        break;
      case FormulaKind::kNot:
        if (formulas_.kind(formulas_.child(part)) != FormulaKind::kCount) return false;
        break;
      case FormulaKind::kUnique: unique = true; break;
      default: return false;
    }
  }
  // Boundlessly many values at every place: none of them can be missed.
  if (unique) {
    const UniqueDemands& demands = unique_demands(rest);
    if (demands.may_run_out || !demands.constants.empty()) return false;
  }
  known = true;
  // Items beyond every prefix are all alike.
  for (uint64_t i = 0; i < std::min(needed, horizon + 1); ++i) {
    std::vector<Formula> values;
    for (Formula part : parts) {
      FormulaKind kind = formulas_.kind(part);
      if (kind == FormulaKind::kItems || kind == FormulaKind::kConstantItems)
        values.push_back(item_formula(formulas_.atom(kind, formulas_.a(part), formulas_.b(part) + i)));
    }
    if (!satisfiable(formulas_.all(std::move(values)))) return false;
  }
  return true;
}

}  // namespace guiderail
