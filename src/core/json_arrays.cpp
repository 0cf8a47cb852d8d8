// Arrays, one item at a time.
//
// What is still required of an array is a formula whose atoms speak about the items to come: `kItems` at a position, `kContains` with how
// many matches are still needed, `kCount`. Its derivative by the next item has conditions on that item's value as leaves:
//   contains(C, n)  →  C(item) ? contains(C, n-1) : contains(C, n)
//   items(p)        →  schema_p(item) and items(p+1)
// and `cases` decides the conditions. Counters are numbers in atoms, so an array of at least 10,000 items is one formula at a time.
#include <algorithm>
#include <utility>

#include "errors.h"
#include "json_algebra.h"

namespace guiderail {
namespace {

constexpr std::size_t kMaxUniqueValues = 20000;

}  // namespace

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
        std::vector<Formula> parts{atom};
        std::vector<Formula> seen(formulas_.children(atom).begin(), formulas_.children(atom).end());
        for (Formula value : seen) parts.push_back(formulas_.negation(formulas_.condition(value)));
        return formulas_.all(std::move(parts));
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
      default: return false;
    }
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

// --- uniqueItems --------------------------------------------------------------------------------------------------------

// Formulas of the single values of `value`, if it has finitely many and each has a name.
bool JsonAlgebra::scalar_values(Formula value, std::vector<Formula>& out) {
  const ValueShape parts = shape(value);
  auto set_of = [&](Formula f, FormulaKind kind) {
    if (f == kFalse) return true;
    if (formulas_.kind(f) != kind) return false;
    for (ValueId v : value_sets_[formulas_.a(f)]) out.push_back(of_value(v));
    return true;
  };
  if (!set_of(parts.string, FormulaKind::kStrings) || !set_of(parts.number, FormulaKind::kNumbers)) return false;
  for (JsonType type : {JsonType::kNull, JsonType::kFalse, JsonType::kTrue}) {
    bool allowed = type == JsonType::kNull ? parts.null : type == JsonType::kFalse ? parts.no : parts.yes;
    if (allowed) out.push_back(formulas_.atom(FormulaKind::kWord, static_cast<uint32_t>(type)));
  }
  // Enumerated arrays and objects.
  for (Formula f : {parts.array, parts.object}) {
    if (f == kFalse) continue;
    std::vector<Formula> options{f};
    if (formulas_.kind(f) == FormulaKind::kOr)
      options.assign(formulas_.children(f).begin(), formulas_.children(f).end());
    for (Formula option : options) {
      std::vector<Formula> atoms{option};
      if (formulas_.kind(option) == FormulaKind::kAnd)
        atoms.assign(formulas_.children(option).begin(), formulas_.children(option).end());
      Formula constant = kFalse;
      for (Formula atom : atoms)
        if (formulas_.kind(atom) == FormulaKind::kConstantItems ||
            formulas_.kind(atom) == FormulaKind::kConstantMembers)
          constant = of_value(ValueId{formulas_.a(atom)});
      if (constant == kFalse) return false;
      if (satisfiable(formulas_.both(value, constant))) out.push_back(constant);
    }
  }
  return true;
}

bool JsonAlgebra::unique_enforceable(SchemaId id) {
  const Schema& schema = (*schemas_)[id];
  Formula rest = restricted(of_schema(id), JsonType::kArray);
  if (rest == kFalse || schema.max_items <= 1) return true;
  std::vector<Formula> parts{rest};
  if (formulas_.kind(rest) == FormulaKind::kAnd)
    parts.assign(formulas_.children(rest).begin(), formulas_.children(rest).end());
  for (uint64_t position = 0; position <= schema.prefix.size() && position < schema.max_items; ++position) {
    std::vector<Formula> values;
    for (Formula part : parts)
      if (formulas_.kind(part) == FormulaKind::kItems)
        values.push_back(item_formula(formulas_.atom(FormulaKind::kItems, formulas_.a(part), position)));
    std::vector<Formula> single;
    Formula item = formulas_.all(std::move(values));
    if (item != kFalse && !scalar_values(item, single)) return false;
  }
  return true;
}

Formula JsonAlgebra::without_repetition(Formula rest, Formula value) {
  auto leaf = [&](Formula atom) -> Formula {
    if (formulas_.kind(atom) != FormulaKind::kUnique) return atom;
    std::vector<Formula> seen(formulas_.children(atom).begin(), formulas_.children(atom).end());
    seen.insert(std::ranges::lower_bound(seen, value), value);
    return formulas_.atom(FormulaKind::kUnique, 0, 0, seen);
  };
  return formulas_.map(rest, leaf);
}

// Where items must be unique, a case of several values is a case per value.
void JsonAlgebra::split_unique(std::vector<ValueCase>& list) {
  if (std::ranges::none_of(list, [&](const ValueCase& one) { return formulas_.has_unique(one.rest); })) return;
  std::vector<ValueCase> out;
  for (const ValueCase& one : list) {
    if (!formulas_.has_unique(one.rest)) {
      out.push_back(one);
      continue;
    }
    std::vector<Formula> values;
    if (!scalar_values(one.value, values))
      throw SchemaError("uniqueItems over items of which there are infinitely many is not supported",
                        pointer_of(one.value));
    if (values.size() + out.size() > kMaxUniqueValues)
      throw LimitError("unique_items", "uniqueItems over too many values");
    for (Formula value : values) out.push_back({value, without_repetition(one.rest, value)});
  }
  list = std::move(out);
}

}  // namespace guiderail
