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

std::string JsonAlgebra::unique_obstacle(SchemaId id) {
  const Schema& schema = (*schemas_)[id];
  Formula rest = restricted(of_schema(id), JsonType::kArray);
  if (rest == kFalse || schema.max_items <= 1) return "";
  if (!unique_demands(rest).may_run_out) return "";
  // Then an array that must go on could find nothing left: that is a question of counting.
  std::vector<Formula> open{rest};
  while (!open.empty()) {
    Formula f = open.back();
    open.pop_back();
    FormulaKind kind = formulas_.kind(f);
    if ((kind == FormulaKind::kCount && formulas_.b(f) > 1) || kind == FormulaKind::kContains ||
        kind == FormulaKind::kUnevaluatedItems)
      if (f != formulas_.count(schema.max_items + 1))
        return "uniqueItems with a least number of items, of which there are finitely many without being listed";
    open.insert(open.end(), formulas_.children(f).begin(), formulas_.children(f).end());
  }
  return "";
}

bool JsonAlgebra::unique_listed(SchemaId id) {
  Formula rest = restricted(of_schema(id), JsonType::kArray);
  if (rest == kFalse || (*schemas_)[id].max_items <= 1) return true;
  std::vector<Formula> parts{rest};
  if (formulas_.kind(rest) == FormulaKind::kAnd)
    parts.assign(formulas_.children(rest).begin(), formulas_.children(rest).end());
  const Schema& schema = (*schemas_)[id];
  for (uint64_t position = 0; position <= schema.prefix.size() && position < schema.max_items; ++position) {
    std::vector<Formula> values, single;
    for (Formula part : parts)
      if (formulas_.kind(part) == FormulaKind::kItems)
        values.push_back(item_formula(formulas_.atom(FormulaKind::kItems, formulas_.a(part), position)));
    Formula item = formulas_.all(std::move(values));
    if (item != kFalse && !scalar_values(item, single)) return false;
  }
  return true;
}

bool JsonAlgebra::boundless_numbers(Formula f) {
  if (f == kTrue) return true;
  if (formulas_.kind(f) == FormulaKind::kOr)
    return std::ranges::any_of(formulas_.children(f), [this](Formula g) { return boundless_numbers(g); });
  std::vector<Formula> parts{f};
  if (formulas_.kind(f) == FormulaKind::kAnd) parts.assign(formulas_.children(f).begin(), formulas_.children(f).end());
  bool above = false, below = false, steps = false;
  for (Formula part : parts) {
    switch (formulas_.kind(part)) {
      case FormulaKind::kInteger:
      case FormulaKind::kIntegerText:
      case FormulaKind::kMultiple: steps = true; break;
      case FormulaKind::kBound: {
        auto bound = static_cast<NumberLanguages::Bound>(formulas_.a(part));
        bool least = bound == NumberLanguages::Bound::kAtLeast || bound == NumberLanguages::Bound::kGreater;
        (least ? above : below) = true;
        break;
      }
      case FormulaKind::kNot:
        if (formulas_.kind(formulas_.child(part)) != FormulaKind::kNumbers) return false;
        break;
      default: return false;
    }
  }
  if (!(above && below)) return true;
  if (steps) return false;
  // Between two different bounds there are always more.
  const Decimal *most = nullptr, *least = nullptr;
  for (Formula part : parts) {
    if (formulas_.kind(part) != FormulaKind::kBound) continue;
    const Decimal& at = schemas_->decimal(DecimalId{static_cast<uint32_t>(formulas_.b(part))});
    auto bound = static_cast<NumberLanguages::Bound>(formulas_.a(part));
    bool is_least = bound == NumberLanguages::Bound::kAtLeast || bound == NumberLanguages::Bound::kGreater;
    const Decimal*& known = is_least ? least : most;
    if (!known || (is_least ? at > *known : at < *known)) known = &at;
  }
  return *least < *most;
}

bool JsonAlgebra::boundless_strings(Formula f) {
  switch (formulas_.kind(f)) {
    case FormulaKind::kTrue:
    case FormulaKind::kFormat: return true;
    case FormulaKind::kNot: return formulas_.kind(formulas_.child(f)) == FormulaKind::kStrings;
    // A million strings of one character, and the square of that of two.
    case FormulaKind::kLength: return formulas_.b(f) >= 2;
    case FormulaKind::kOr:
      return std::ranges::any_of(formulas_.children(f), [this](Formula g) { return boundless_strings(g); });
    case FormulaKind::kPattern: return lexicon_.certainly_infinite(string_tail(f));
    case FormulaKind::kAnd: {
      // Taking listed strings away from boundlessly many leaves as many.
      std::vector<Formula> kept;
      for (Formula part : formulas_.children(f))
        if (formulas_.kind(part) != FormulaKind::kNot || formulas_.kind(formulas_.child(part)) != FormulaKind::kStrings)
          kept.push_back(part);
      if (kept.empty()) return true;
      if (kept.size() == 1) return boundless_strings(kept.front());
      Node tail = string_tail(formulas_.all(std::move(kept)));
      return lexicon_.alive(tail) && lexicon_.certainly_infinite(tail);
    }
    default: return false;
  }
}

bool JsonAlgebra::boundless(Formula value) { return boundless(value, 0); }

bool JsonAlgebra::boundless(Formula value, unsigned depth) {
  if (value == kTrue) return true;
  if (value == kFalse || depth > 8 || !satisfiable(value)) return false;
  const ValueShape parts = shape(value);
  if (parts.string != kFalse && boundless_strings(parts.string)) return true;
  if (parts.number != kFalse && boundless_numbers(parts.number)) return true;
  auto conjuncts = [this](Formula f) {
    std::vector<Formula> list{f};
    if (formulas_.kind(f) == FormulaKind::kAnd) list.assign(formulas_.children(f).begin(), formulas_.children(f).end());
    return list;
  };
  // Of arrays and objects only plain ones: what is required, and some part that may be present and has boundlessly many values. Formulas of
  // constants that must not come again take finitely many away.
  auto is_exclusion = [this](Formula f) {
    return formulas_.kind(f) == FormulaKind::kOr && std::ranges::any_of(formulas_.children(f), [this](Formula g) {
             return formulas_.kind(g) == FormulaKind::kNot &&
                    (formulas_.kind(formulas_.child(g)) == FormulaKind::kConstantItems ||
                     formulas_.kind(formulas_.child(g)) == FormulaKind::kConstantMembers);
           });
  };
  if (parts.array == kTrue || parts.object == kTrue) return true;
  if (parts.array != kFalse && array_alive(parts.array)) {
    bool plain = true, items = false;
    std::vector<Formula> first;
    for (Formula part : conjuncts(parts.array)) {
      switch (formulas_.kind(part)) {
        case FormulaKind::kItems: first.push_back(item_formula(part)); break;
        case FormulaKind::kCount:
        case FormulaKind::kUnique: break;
        case FormulaKind::kNot:
          plain = plain && formulas_.kind(formulas_.child(part)) == FormulaKind::kCount;
          items = items || formulas_.b(formulas_.child(part)) == 1;
          break;
        default: plain = plain && is_exclusion(part);
      }
    }
    if (plain && !items && boundless(formulas_.all(std::move(first)), depth + 1)) return true;
  }
  if (parts.object != kFalse && object_alive(open_object(parts.object, value))) {
    bool plain = true;
    std::vector<SchemaId> members;
    for (Formula part : conjuncts(parts.object)) {
      switch (formulas_.kind(part)) {
        case FormulaKind::kMembers: members.push_back(SchemaId{formulas_.a(part)}); break;
        case FormulaKind::kHas:
        case FormulaKind::kCount: break;
        case FormulaKind::kNot: {
          FormulaKind inner = formulas_.kind(formulas_.child(part));
          plain = plain && inner == FormulaKind::kCount && formulas_.b(formulas_.child(part)) > 8;
          break;
        }
        default: plain = plain && is_exclusion(part);
      }
    }
    if (plain && members.empty()) return true;
    if (plain && members.size() == 1) {
      const Schema& schema = (*schemas_)[members.front()];
      bool strict = schemas_->options().strict;
      if (schema.pattern_properties.empty()) {
        if (schema.additional == kNoSchema ? !strict : boundless(of_schema(schema.additional), depth + 1)) return true;
        for (auto [key, child] : schema.properties)
          if (boundless(of_schema(child), depth + 1)) return true;
      } else {
        for (auto [pattern, child] : schema.pattern_properties)
          if (of_schema(child) != kFalse && schemas_->certainly_matches(pattern) &&
              boundless(of_schema(child), depth + 1))
            return true;
      }
    }
  }
  return false;
}

// Which values the items to come may be confined to. Where none of them is, and the others are boundless, no value that has been read can
// make a difference to whether the array can go on.
const JsonAlgebra::UniqueDemands& JsonAlgebra::unique_demands(Formula rest) {
  auto known = unique_demands_.find(static_cast<uint32_t>(rest));
  if (known != unique_demands_.end()) return known->second;
  UniqueDemands demands;
  auto look = [&](Formula value) {
    if (value == kTrue || value == kFalse || !satisfiable(value)) return;
    std::vector<Formula> values;
    if (scalar_values(value, values))
      demands.constants.insert(demands.constants.end(), values.begin(), values.end());
    else if (!boundless(value))
      demands.may_run_out = true;
  };
  std::vector<Formula> parts{rest};
  bool conjunction = true;
  std::vector<Formula> atoms;
  std::unordered_map<uint32_t, bool> visited;
  for (std::size_t i = 0; i < parts.size(); ++i) {
    Formula f = parts[i];
    if (!visited.emplace(static_cast<uint32_t>(f), true).second) continue;
    switch (formulas_.kind(f)) {
      case FormulaKind::kItems:
      case FormulaKind::kConstantItems: atoms.push_back(f); break;
      case FormulaKind::kContains: look(formulas_.child(f)); break;
      case FormulaKind::kUnevaluatedItems:
        look(of_schema(evaluators_[formulas_.a(f)].unevaluated));
        parts.insert(parts.end(), formulas_.children(f).begin(), formulas_.children(f).end());
        break;
      case FormulaKind::kUnique: break;  // its children have been read already
      case FormulaKind::kOr:
      case FormulaKind::kOne: conjunction = false; [[fallthrough]];
      default: parts.insert(parts.end(), formulas_.children(f).begin(), formulas_.children(f).end());
    }
  }
  uint64_t horizon = 0;
  for (Formula atom : atoms) {
    uint64_t size = formulas_.kind(atom) == FormulaKind::kConstantItems
                        ? schemas_->store().size(schemas_->value(ValueId{formulas_.a(atom)}))
                        : (*schemas_)[SchemaId{formulas_.a(atom)}].prefix.size();
    horizon = std::max(horizon, size - std::min<uint64_t>(size, formulas_.b(atom)));
  }
  if (horizon > 256) throw LimitError("unique_items", "uniqueItems beside too many different items");
  for (uint64_t i = 0; i <= horizon; ++i) {
    std::vector<Formula> values;
    for (Formula atom : atoms)
      values.push_back(item_formula(formulas_.atom(formulas_.kind(atom), formulas_.a(atom), formulas_.b(atom) + i)));
    if (conjunction) values.assign(1, formulas_.all(std::move(values)));
    for (Formula value : values) look(value);
    // Which of several conditions hold together is not known.
    if (!conjunction && values.size() > 1) look(formulas_.all(std::move(values)));
  }
  std::ranges::sort(demands.constants);
  demands.constants.erase(std::ranges::unique(demands.constants).begin(), demands.constants.end());
  return unique_demands_.emplace(static_cast<uint32_t>(rest), std::move(demands)).first->second;
}

Formula JsonAlgebra::captured_value(std::string_view text) {
  // Where the value begins that ends with the text: after the lexemes before it.
  std::vector<std::size_t> open;
  std::size_t begin = 0;
  for (std::size_t i = 0; i < text.size();) {
    char c = text[i];
    if (c == '{' || c == '[') {
      open.push_back(i++);
    } else if (c == '}' || c == ']') {
      begin = open.empty() ? i : open.back();
      if (!open.empty()) open.pop_back();
      ++i;
    } else if (c == '"') {
      begin = i++;
      while (i < text.size() && text[i] != '"') i += text[i] == '\\' ? 2 : 1;
      ++i;
    } else if (c == ',' || c == ':' || c == ' ' || c == '\t' || c == '\n' || c == '\r') {
      ++i;
    } else {
      begin = i;
      i = std::min(text.find_first_of(",:]} \t\n\r", i), text.size());
    }
  }
  if (!own_schemas_) {
    // Values that texts contain belong to this engine alone. What was handed out points into the shared set, which stays.
    own_schemas_ = std::make_shared<SchemaSet>(*schemas_);
    shared_schemas_ = schemas_;
    schemas_ = own_schemas_;
  }
  ValueId value = own_schemas_->add_value(text.substr(begin));
  switch (schemas_->store().type(schemas_->value(value))) {
    case JsonType::kNull:
    case JsonType::kFalse:
    case JsonType::kTrue:
      return formulas_.atom(FormulaKind::kWord, static_cast<uint32_t>(schemas_->store().type(schemas_->value(value))));
    default: return of_value(value);
  }
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

// Where items must be unique, a case of several values is a case per value; of boundlessly many, one case that the text decides, apart from
// values that an item to come may be confined to.
void JsonAlgebra::split_unique(std::vector<ValueCase>& list) {
  if (std::ranges::none_of(list, [&](const ValueCase& one) { return formulas_.has_unique(one.rest); })) return;
  std::vector<ValueCase> out;
  for (const ValueCase& one : list) {
    if (!formulas_.has_unique(one.rest)) {
      out.push_back(one);
      continue;
    }
    std::vector<Formula> values;
    bool listed = scalar_values(one.value, values);
    if (!listed) {
      values.clear();
      for (Formula constant : unique_demands(one.rest).constants)
        if (satisfiable(formulas_.both(one.value, constant))) values.push_back(constant);
    }
    if (values.size() + out.size() > kMaxUniqueValues)
      throw LimitError("unique_items", "uniqueItems over too many values");
    for (Formula value : values) out.push_back({value, without_repetition(one.rest, value)});
    if (listed) continue;
    Formula others = formulas_.both(one.value, formulas_.negation(formulas_.any(std::move(values))));
    out.push_back({others, one.rest, true});
  }
  list = std::move(out);
}

}  // namespace guiderail
