// unevaluatedProperties and unevaluatedItems.
//
// A property is evaluated if some applicator beside the keyword that *holds* looks at it. Whether it holds is known only when the object
// ends, so the atom carries, for each such schema, a guard: the formula (of what is still to come) that the schema holds. A property
// seen leaves the obligation 'one of the guards of those that looked at it, or the unevaluated schema's word on its value'; obligations
// are ordinary formulas beside the atom. With `anyOf: [A, B], unevaluatedProperties: false`, a key that only A declares and one that only B
// declares leave A and B to be met.
#include <algorithm>
#include <utility>

#include "core/errors.h"
#include "core/json/algebra.h"

namespace guiderail {

uint32_t JsonAlgebra::intern_evaluators(Evaluators evaluators) {
  auto [it, fresh] = evaluator_ids_.try_emplace(evaluators, static_cast<uint32_t>(evaluators_.size()));
  if (fresh) evaluators_.push_back(std::move(evaluators));
  return it->second;
}

void JsonAlgebra::collect_evaluators(SchemaId id, SchemaId subject, Formula guard, JsonType type,
                                     Evaluators& evaluators, std::vector<Formula>& guards, unsigned depth) {
  if (guard == kFalse) return;
  if (depth > 200 || evaluators.list.size() > 10000)
    throw LimitError("schema_depth", "schemas nested or referring too deeply beside an unevaluated keyword");
  const Schema& schema = (*schemas_)[id];
  if (schema.never || !(schema.types & type_bit(type))) return;
  auto add = [&](Evaluators::Kind kind) {
    evaluators.list.emplace_back(id, kind);
    guards.push_back(guard);
  };
  auto sub = [&](SchemaId child, Formula when) {
    collect_evaluators(child, subject, when, type, evaluators, guards, depth + 1);
  };
  if (type == JsonType::kObject) {
    if (schema.has_properties() || (schema.unevaluated_properties != kNoSchema && id != subject))
      add(Evaluators::Kind::kKeywords);
  } else {
    if (schema.has_items() || (schema.unevaluated_items != kNoSchema && id != subject))
      add(Evaluators::Kind::kKeywords);
    // In 2019-09, contains evaluates nothing.
    if (schema.contains != kNoSchema && schema.dialect >= Dialect::k2020) add(Evaluators::Kind::kContains);
  }
  for (SchemaId target : schema.references) sub(target, guard);
  for (SchemaId child : schema.all_of) sub(child, guard);
  for (SchemaId child : schema.any_of) sub(child, formulas_.both(guard, expand(child, type)));
  for (SchemaId child : schema.one_of) sub(child, formulas_.both(guard, expand(child, type)));
  if (schema.condition != kNoSchema) {
    Formula condition = expand(schema.condition, type);
    Formula met = formulas_.both(guard, condition);
    sub(schema.condition, met);
    if (schema.then_branch != kNoSchema) sub(schema.then_branch, met);
    if (schema.else_branch != kNoSchema) sub(schema.else_branch, formulas_.both(guard, formulas_.negation(condition)));
  }
  if (type == JsonType::kObject)
    for (auto [key, child] : schema.dependent_schemas)
      sub(child, formulas_.both(guard, formulas_.atom(FormulaKind::kHas, static_cast<uint32_t>(key))));
}

Formula JsonAlgebra::unevaluated(SchemaId id, JsonType type) {
  const Schema& schema = (*schemas_)[id];
  bool object = type == JsonType::kObject;
  Evaluators evaluators{object ? schema.unevaluated_properties : schema.unevaluated_items, {}};
  std::vector<Formula> guards;
  collect_evaluators(id, id, kTrue, type, evaluators, guards, 0);
  return make_unevaluated(object ? FormulaKind::kUnevaluatedProperties : FormulaKind::kUnevaluatedItems,
                          std::move(evaluators), 0, std::move(guards));
}

Formula JsonAlgebra::make_unevaluated(FormulaKind kind, Evaluators evaluators, uint64_t position,
                                      std::vector<Formula> guards) {
  if (of_schema(evaluators.unevaluated) == kTrue) return kTrue;
  Evaluators kept{evaluators.unevaluated, {}};
  std::vector<Formula> kept_guards;
  uint64_t horizon = 0;
  for (std::size_t i = 0; i < guards.size(); ++i) {
    auto [id, what] = evaluators.list[i];
    const Schema& schema = (*schemas_)[id];
    if (guards[i] == kFalse) continue;
    bool everything = what == Evaluators::Kind::kKeywords &&
                      (kind == FormulaKind::kUnevaluatedItems
                           ? schema.rest != kNoSchema || schema.unevaluated_items != kNoSchema
                           : schema.additional != kNoSchema || schema.unevaluated_properties != kNoSchema);
    bool own = kind == FormulaKind::kUnevaluatedItems ? schema.unevaluated_items == evaluators.unevaluated
                                                      : schema.unevaluated_properties == evaluators.unevaluated;
    if (everything && own)
      everything = kind == FormulaKind::kUnevaluatedItems ? schema.rest != kNoSchema : schema.additional != kNoSchema;
    if (everything && guards[i] == kTrue) return kTrue;
    horizon = std::max<uint64_t>(horizon, schema.prefix.size());
    kept.list.push_back(evaluators.list[i]);
    kept_guards.push_back(guards[i]);
  }
  if (kind == FormulaKind::kUnevaluatedProperties) position = 0;
  position = std::min(position, horizon);
  return formulas_.atom(kind, intern_evaluators(std::move(kept)), position, kept_guards);
}

}  // namespace guiderail
