#include "core/json/algebra.h"

#include <algorithm>
#include <utility>

#include "core/errors.h"

namespace guiderail {
namespace {

constexpr unsigned kMaxReferenceDepth = 1000;
constexpr uint32_t kMaxProofDepth = 400;  // within the stack even of a build with sanitizers
constexpr uint64_t kMaxProofSteps = 40'000;
constexpr std::size_t kMaxProofFormulas = 400'000;
constexpr std::size_t kMaxCases = 4096;

}  // namespace

JsonAlgebra::JsonAlgebra(std::shared_ptr<const SchemaSet> schemas, const JsonText& text)
    : schemas_(std::move(schemas)), text_(text), lexicon_(text.lexicon()), numbers_(text.lexicon()),
      schema_formulas_(schemas_->size(), kFalse), expanded_(schemas_->size() * 7, kFalse),
      expansion_state_(schemas_->size() * 8, 0) {
  sets_.emplace_back();
  set_ids_.emplace(std::vector<uint64_t>{}, 0);
}

// --- schemas → formulas -------------------------------------------------------------------------------------------------

// Does the schema say nothing at all?
bool JsonAlgebra::simple_schema(SchemaId id) {
  const Schema& s = (*schemas_)[id];
  return s.types == kAnyType && !s.integer && s.enums.empty() && s.min_length == 0 && s.max_length == kNoCount &&
         s.patterns.empty() && s.format.empty() && s.content.empty() && s.bounds.empty() && s.multiples.empty() &&
         !s.has_items() && s.min_items == 0 && s.max_items == kNoCount && s.contains == kNoSchema && !s.unique &&
         s.unevaluated_items == kNoSchema && !s.has_properties() && s.names == kNoSchema && s.required.empty() &&
         s.min_properties == 0 && s.max_properties == kNoCount && s.dependent_required.empty() &&
         s.dependent_schemas.empty() && s.unevaluated_properties == kNoSchema && s.references.empty() &&
         s.all_of.empty() && s.any_of.empty() && s.one_of.empty() && s.negated == kNoSchema && s.condition == kNoSchema;
}

Formula JsonAlgebra::of_schema(SchemaId id) {
  uint8_t& state = expansion_state_[static_cast<uint32_t>(id) * 8 + 7];
  Formula& formula = schema_formulas_[static_cast<uint32_t>(id)];
  if (state == 0) {
    state = 2;
    if ((*schemas_)[id].never)
      formula = kFalse;
    else
      formula = simple_schema(id) ? kTrue : formulas_.atom(FormulaKind::kSchema, static_cast<uint32_t>(id));
  }
  return formula;
}

Formula JsonAlgebra::expand(SchemaId id, JsonType type) {
  std::size_t slot = static_cast<std::size_t>(id) * 8 + static_cast<std::size_t>(type);
  std::size_t place = static_cast<std::size_t>(id) * 7 + static_cast<std::size_t>(type);
  if (expansion_state_[slot] == 2) return expanded_[place];
  if (expansion_state_[slot] == 1)
    throw SchemaError("the schema refers to itself without ever reaching a part of the value", schemas_->pointer(id));
  if (++expansion_depth_ > kMaxReferenceDepth) {
    expansion_depth_ = 0;
    throw LimitError("schema_depth", "schemas nested or referring too deeply");
  }
  expansion_state_[slot] = 1;
  struct Leave {
    uint8_t& state;
    unsigned& depth;
    ~Leave() {
      if (state == 1) state = 0;
      if (depth) --depth;
    }
  } leave{expansion_state_[slot], expansion_depth_};
  Formula result = expand_type((*schemas_)[id], id, type);
  expanded_[place] = result;
  expansion_state_[slot] = 2;
  return result;
}

uint32_t JsonAlgebra::value_set(std::vector<ValueId> values) {
  std::ranges::sort(values);
  values.erase(std::unique(values.begin(), values.end()), values.end());
  auto [it, fresh] = value_set_ids_.try_emplace(values, static_cast<uint32_t>(value_sets_.size()));
  if (fresh) value_sets_.push_back(std::move(values));
  return it->second;
}

// A formula of type-`type` values equal to `value`.
Formula JsonAlgebra::equals(ValueId value, JsonType type) {
  const JsonStore& store = schemas_->store();
  JsonId json = schemas_->value(value);
  if (store.type(json) != type) return kFalse;
  switch (type) {
    case JsonType::kNull:
    case JsonType::kFalse:
    case JsonType::kTrue: return kTrue;
    case JsonType::kString: return formulas_.atom(FormulaKind::kStrings, value_set({value}));
    case JsonType::kNumber: return formulas_.atom(FormulaKind::kNumbers, value_set({value}));
    case JsonType::kArray: {
      uint64_t size = store.size(json);
      return formulas_.all({formulas_.count(size), formulas_.negation(formulas_.count(size + 1)),
                            formulas_.atom(FormulaKind::kConstantItems, static_cast<uint32_t>(value), 0)});
    }
    case JsonType::kObject: break;
  }
  std::vector<Formula> parts{formulas_.negation(formulas_.count(uint64_t{store.size(json)} + 1)),
                             formulas_.atom(FormulaKind::kConstantMembers, static_cast<uint32_t>(value))};
  for (uint32_t i = 0; i < store.size(json); ++i)
    parts.push_back(formulas_.atom(FormulaKind::kHas, static_cast<uint32_t>(schemas_->key_id(store.key(json, i)))));
  return formulas_.all(std::move(parts));
}

Formula JsonAlgebra::one_of_values(const std::vector<ValueId>& values, JsonType type) {
  const JsonStore& store = schemas_->store();
  std::vector<ValueId> matching;
  for (ValueId value : values)
    if (store.type(schemas_->value(value)) == type) matching.push_back(value);
  if (matching.empty()) return kFalse;
  if (type == JsonType::kString) return formulas_.atom(FormulaKind::kStrings, value_set(std::move(matching)));
  if (type == JsonType::kNumber) return formulas_.atom(FormulaKind::kNumbers, value_set(std::move(matching)));
  std::vector<Formula> options;
  for (ValueId value : matching) options.push_back(equals(value, type));
  return formulas_.any(std::move(options));
}

Formula JsonAlgebra::format_atom(const std::string& name) {
  auto known = std::ranges::find(formats_, name);
  auto index = static_cast<uint32_t>(known - formats_.begin());
  if (known == formats_.end()) formats_.push_back(name);
  return formulas_.atom(FormulaKind::kFormat, index);
}

Formula JsonAlgebra::expand_type(const Schema& schema, SchemaId id, JsonType type) {
  if (schema.never || !(schema.types & type_bit(type))) return kFalse;
  std::vector<Formula> parts;
  for (const auto& values : schema.enums) parts.push_back(one_of_values(values, type));
  switch (type) {
    case JsonType::kNull:
    case JsonType::kFalse:
    case JsonType::kTrue: break;
    case JsonType::kString:
      if (schema.min_length > 0 || schema.max_length != kNoCount) {
        if (schema.min_length > schema.max_length) return kFalse;
        auto least = static_cast<uint32_t>(std::min<uint64_t>(schema.min_length, kUnbounded));
        if (least == kUnbounded) throw LimitError("string_length", "minLength is too large");
        // A bound beyond what can be counted is no bound that a text could reach.
        uint64_t most = schema.max_length >= kUnbounded ? kUnbounded : schema.max_length;
        if (least > 0 || most != kUnbounded) parts.push_back(formulas_.atom(FormulaKind::kLength, least, most));
      }
      for (PatternId pattern : schema.patterns)
        if (!schemas_->matches_everything(pattern))
          parts.push_back(formulas_.atom(FormulaKind::kPattern, static_cast<uint32_t>(pattern)));
      if (!schema.format.empty()) parts.push_back(format_atom(schema.format));
      for (const std::string& content : schema.content) parts.push_back(format_atom(content));
      break;
    case JsonType::kNumber:
      if (schema.integer) parts.push_back(formulas_.atom(FormulaKind::kInteger));
      if (schema.integer_text) parts.push_back(formulas_.atom(FormulaKind::kIntegerText));
      for (auto [bound, decimal] : schema.bounds)
        parts.push_back(
            formulas_.atom(FormulaKind::kBound, static_cast<uint32_t>(bound), static_cast<uint32_t>(decimal)));
      for (DecimalId divisor : schema.multiples)
        parts.push_back(formulas_.atom(FormulaKind::kMultiple, 0, static_cast<uint32_t>(divisor)));
      break;
    case JsonType::kArray: expand_array(schema, id, parts); break;
    case JsonType::kObject: expand_object(schema, id, parts); break;
  }
  auto sub = [&](SchemaId child) { return expand(child, type); };
  auto subs = [&](const std::vector<SchemaId>& children) {
    std::vector<Formula> list;
    for (SchemaId child : children) list.push_back(sub(child));
    return list;
  };
  for (SchemaId target : schema.references) parts.push_back(sub(target));
  for (SchemaId child : schema.all_of) parts.push_back(sub(child));
  if (!schema.any_of.empty()) parts.push_back(formulas_.any(subs(schema.any_of)));
  if (!schema.one_of.empty()) parts.push_back(formulas_.one(subs(schema.one_of)));
  if (schema.negated != kNoSchema) parts.push_back(formulas_.negation(sub(schema.negated)));
  if (schema.condition != kNoSchema) {
    Formula condition = sub(schema.condition);
    if (schema.then_branch != kNoSchema) parts.push_back(formulas_.implies(condition, sub(schema.then_branch)));
    if (schema.else_branch != kNoSchema) parts.push_back(formulas_.any({condition, sub(schema.else_branch)}));
  }
  return formulas_.all(std::move(parts));
}

Formula JsonAlgebra::restricted(Formula value, JsonType type) {
  uint64_t key = (uint64_t{static_cast<uint32_t>(value)} << 3) | static_cast<uint64_t>(type);
  if (auto found = restricted_.find(key); found != restricted_.end()) return found->second;
  auto leaf = [&](Formula f) {
    switch (formulas_.kind(f)) {
      case FormulaKind::kSchema: return expand(SchemaId{formulas_.a(f)}, type);
      case FormulaKind::kWord: return static_cast<JsonType>(formulas_.a(f)) == type ? kTrue : kFalse;
      default: return equals(ValueId{formulas_.a(f)}, type);
    }
  };
  Formula result = formulas_.map(value, leaf);
  restricted_.emplace(key, result);
  return result;
}

const ValueShape& JsonAlgebra::shape(Formula value) {
  if (auto found = shapes_.find(static_cast<uint32_t>(value)); found != shapes_.end()) return found->second;
  ValueShape shape;
  shape.null = restricted(value, JsonType::kNull) == kTrue;
  shape.no = restricted(value, JsonType::kFalse) == kTrue;
  shape.yes = restricted(value, JsonType::kTrue) == kTrue;
  shape.string = simplify_strings(restricted(value, JsonType::kString));
  shape.number = simplify_numbers(restricted(value, JsonType::kNumber));
  shape.array = restricted(value, JsonType::kArray);
  shape.object = restricted(value, JsonType::kObject);
  return shapes_.emplace(static_cast<uint32_t>(value), shape).first->second;
}

std::string JsonAlgebra::pointer_of(Formula value) const {
  for (int i = 0; i < 64; ++i) {
    FormulaKind kind = formulas_.kind(value);
    if (kind == FormulaKind::kSchema) return schemas_->pointer(SchemaId{formulas_.a(value)});
    if (formulas_.children(value).empty()) break;
    value = formulas_.child(value);
  }
  return "";
}

// --- cases --------------------------------------------------------------------------------------------------------------

// Splits a step, a formula with conditions on the next value, into disjoint cases by deciding one condition after the other; of a
// decision that nobody's value can make nothing is followed up.
std::vector<ValueCase> JsonAlgebra::cases(Formula step) {
  if (step == kFalse) return {};
  if (!formulas_.has_condition(step)) return {{kTrue, step}};
  auto found = cases_.find(static_cast<uint32_t>(step));
  if (found != cases_.end()) return found->second;
  std::vector<ValueCase> out;
  split_cases(step, kTrue, out);
  // Cases that leave the same behind are one.
  std::vector<ValueCase> merged;
  for (const ValueCase& one : out) {
    auto same = std::ranges::find(merged, one.rest, &ValueCase::rest);
    if (same == merged.end())
      merged.push_back(one);
    else
      same->value = formulas_.any({same->value, one.value});
  }
  // Answers that lean on an unfinished question may still change.
  if (leans_on_ == UINT32_MAX) cases_.emplace(static_cast<uint32_t>(step), merged);
  return merged;
}

void JsonAlgebra::split_cases(Formula step, Formula value, std::vector<ValueCase>& out) {
  struct Open {
    Formula step, value;
  };
  std::vector<Open> stack{{step, value}};
  while (!stack.empty()) {
    Open open = stack.back();
    stack.pop_back();
    // What a conjunction requires of the value is no decision.
    std::vector<Formula> required{open.value};
    while (formulas_.kind(open.step) == FormulaKind::kAnd || formulas_.kind(open.step) == FormulaKind::kCondition ||
           formulas_.kind(open.step) == FormulaKind::kNot) {
      Formula unit = kFalse;
      auto is_unit = [&](Formula f) {
        return formulas_.kind(f) == FormulaKind::kCondition ||
               (formulas_.kind(f) == FormulaKind::kNot &&
                formulas_.kind(formulas_.child(f)) == FormulaKind::kCondition);
      };
      if (is_unit(open.step)) {
        unit = open.step;
      } else if (formulas_.kind(open.step) == FormulaKind::kAnd) {
        for (Formula child : formulas_.children(open.step))
          if (is_unit(child)) {
            unit = child;
            break;
          }
      }
      if (unit == kFalse) break;
      bool holds = formulas_.kind(unit) == FormulaKind::kCondition;
      Formula about = formulas_.child(holds ? unit : formulas_.child(unit));
      required.push_back(holds ? about : formulas_.negation(about));
      open.step = formulas_.assume(open.step, about, holds);
    }
    if (required.size() > 1) {
      open.value = formulas_.all(std::move(required));
      if (!satisfiable(open.value)) continue;
    }
    if (open.step == kFalse) continue;
    if (!formulas_.has_condition(open.step)) {
      out.push_back({open.value, open.step});
      if (out.size() > kMaxCases) throw LimitError("schema_cases", "an item or member has too many cases");
      continue;
    }
    Formula about = formulas_.first_condition(open.step);
    if (formulas_.kind(about) == FormulaKind::kEquals) {
      // A value equals at most one of several constants: one case each, and one for none of them.
      std::vector<Formula> constants = formulas_.constant_conditions(open.step), others{open.value};
      for (Formula constant : constants) {
        Formula step_then = formulas_.assume_constant(open.step, constant);
        Formula value_then = formulas_.both(open.value, constant);
        others.push_back(formulas_.negation(constant));
        if (step_then != kFalse && satisfiable(value_then)) stack.push_back({step_then, value_then});
      }
      Formula step_then = formulas_.assume_constant(open.step, kFalse);
      if (step_then != kFalse) {
        Formula value_then = formulas_.all(std::move(others));
        if (satisfiable(value_then)) stack.push_back({step_then, value_then});
      }
      if (stack.size() > kMaxCases) throw LimitError("schema_cases", "an item or member has too many cases");
      continue;
    }
    Formula if_true = formulas_.assume(open.step, about, true), if_false = formulas_.assume(open.step, about, false);
    if (if_true == if_false) {
      stack.push_back({if_true, open.value});
      continue;
    }
    Formula with = formulas_.both(open.value, about), without = formulas_.both(open.value, formulas_.negation(about));
    if (if_false != kFalse && satisfiable(without)) stack.push_back({if_false, without});
    if (if_true != kFalse && satisfiable(with)) stack.push_back({if_true, with});
    if (stack.size() > kMaxCases) throw LimitError("schema_cases", "an item or member has too many cases");
  }
}

// --- satisfiability -----------------------------------------------------------------------------------------------------

template <typename F>
bool JsonAlgebra::least_fixpoint(uint64_t key, F compute) {
  {
    const Verdict& verdict = verdicts_[key];
    switch (verdict.state) {
      case Verdict::State::kYes: return true;
      case Verdict::State::kNo: return false;
      case Verdict::State::kOpen: leans_on_ = std::min(leans_on_, verdict.depth); return false;
      case Verdict::State::kUnknown: break;
    }
  }
  if (depth_ >= kMaxProofDepth) throw LimitError("satisfiability_depth", "schemas nested or referring too deeply");
  if (depth_ == 0) {
    work_ = 0;
    formulas_before_ = formulas_.size();
  }
  if (++work_ > kMaxProofSteps || formulas_.size() - formulas_before_ > kMaxProofFormulas)
    throw LimitError("satisfiability", "deciding what the schema admits takes too long");
  struct Scope {
    JsonAlgebra& algebra;
    uint64_t key;
    uint32_t outer;
    bool finished = false;
    ~Scope() {
      --algebra.depth_;
      if (!finished) {  // an error passes through
        algebra.verdicts_[key].state = Verdict::State::kUnknown;
        algebra.leans_on_ = outer;
      }
    }
  } scope{*this, key, leans_on_};
  uint32_t depth = ++depth_;
  verdicts_[key] = {Verdict::State::kOpen, depth};
  leans_on_ = UINT32_MAX;
  bool answer = compute();
  Verdict& verdict = verdicts_[key];
  if (answer) {
    verdict.state = Verdict::State::kYes;
    leans_on_ = scope.outer;
  } else {
    verdict.state = leans_on_ >= depth ? Verdict::State::kNo : Verdict::State::kUnknown;
    leans_on_ = std::min(scope.outer, leans_on_ >= depth ? UINT32_MAX : leans_on_);
  }
  scope.finished = true;
  return answer;
}

bool JsonAlgebra::satisfiable(Formula value) {
  if (value == kFalse) return false;
  if (value == kTrue) return true;
  return least_fixpoint((uint64_t{0} << 60) | static_cast<uint32_t>(value), [&] {
    // Types in order of their cost; nothing is expanded that an earlier type makes unnecessary.
    for (JsonType type : {JsonType::kNull, JsonType::kTrue, JsonType::kFalse})
      if (restricted(value, type) == kTrue) return true;
    ValueShape parts = shape(value);
    if (parts.string != kFalse && (strings_certain(parts.string) || lexicon_.alive(string_tail(parts.string))))
      return true;
    return satisfiable_beside_strings(value);
  });
}

bool JsonAlgebra::satisfiable_beside_strings(Formula value) {
  const ValueShape parts = shape(value);
  if (parts.null || parts.no || parts.yes) return true;
  if (parts.number != kFalse && lexicon_.alive(number_text(parts.number))) return true;
  if (parts.array != kFalse && array_alive(parts.array)) return true;
  return parts.object != kFalse && object_alive(open_object(parts.object, value));
}

bool JsonAlgebra::array_alive(Formula rest) {
  if (rest == kFalse) return false;
  if (formulas_.has_unique(rest)) {
    const std::vector<Formula>& parts = by_distinctness(rest);
    if (parts.size() != 1 || parts.front() != rest)
      return std::ranges::any_of(std::vector<Formula>(parts), [this](Formula part) { return array_alive(part); });
  }
  if (array_may_end(rest)) return true;
  return least_fixpoint((uint64_t{1} << 60) | static_cast<uint32_t>(rest), [&] {
    if (needs_repetition(rest)) return repetition_alive(rest);
    bool known = false;
    bool alive = array_conjunction_alive(rest, known);
    if (known) return alive;
    if (formulas_.kind(rest) == FormulaKind::kOr) {
      std::vector<Formula> options(formulas_.children(rest).begin(), formulas_.children(rest).end());
      return std::ranges::any_of(options, [&](Formula option) { return array_alive(option); });
    }
    for (const ValueCase& one : array_step(rest))
      if (satisfiable(one.value) && array_alive(one.rest)) return true;
    return false;
  });
}

bool JsonAlgebra::object_alive(const ObjectState& state) {
  if (state.rest == kFalse) return false;
  if (object_may_end(state)) return true;
  // Where members do not depend on each other it does not matter which have come.
  ObjectState question = state;
  if (member_conjunction(state.rest).known) question.position = question.seen = 0;
  auto [it, fresh] = object_state_ids_.try_emplace(question, static_cast<uint32_t>(object_state_ids_.size()));
  return least_fixpoint((uint64_t{2} << 60) | it->second, [&] {
    bool known = false;
    bool alive = conjunction_alive(state, known);
    if (known) return alive;
    if (formulas_.kind(state.rest) == FormulaKind::kOr) {
      std::vector<Formula> options(formulas_.children(state.rest).begin(), formulas_.children(state.rest).end());
      return std::ranges::any_of(
          options, [&](Formula option) { return object_alive({state.plan, option, state.position, state.seen}); });
    }
    // Whether a completion exists does not depend on the order of its members.
    return visit_members(state, Search::kProof, [](const MemberStep&) { return true; });
  });
}

}  // namespace guiderail
