// uniqueItems.
//
// An array's formula has one atom kUnique, whose children are the items read so far: 'none of these comes again, and no two of those to come
// are equal'. Two equal items decide it. Wherever it stands in the formula, what is required is `unique and F` or `not unique and G`, with F and
// G free of it (`by_distinctness`), and these two are followed apart:
//  - unique and F: a next item equal to none before. Boundlessly many values cannot run out; finitely many are split, value by value.
//  - not unique and G: an item equal to one before, and then G alone; or another item, to be repeated itself or followed by two that are
//    equal. Whether that is possible asks for two places of G that some value fits.
// Items without a name of their own are captured: the text read decides what follows (grammar.h). But for strings, where it is `unique and F`
// with F a plain conjunction: these are names that come once in the scope of their array (name_scopes.h), so that masks do not depend on
// which have come.
#include <algorithm>
#include <unordered_set>
#include <utility>

#include "core/errors.h"
#include "core/json/algebra.h"

namespace guiderail {
namespace {

constexpr std::size_t kMaxUniqueValues = 20000;
// Different requirements that an array may come to while a repetition is looked for.
constexpr std::size_t kMaxPlaces = 2000;
constexpr unsigned kMaxBoundlessQuestions = 5000;  // about parts of a value

}  // namespace

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

bool JsonAlgebra::boundless(Formula value) {
  unsigned questions = kMaxBoundlessQuestions;
  return boundless(value, 0, questions);
}

std::vector<Formula> JsonAlgebra::conjuncts(Formula f) const {
  if (formulas_.kind(f) != FormulaKind::kAnd) return {f};
  return {formulas_.children(f).begin(), formulas_.children(f).end()};
}

// Constants that must not come again take finitely many values away.
bool JsonAlgebra::takes_away_constants(Formula f) const {
  return formulas_.kind(f) == FormulaKind::kOr && std::ranges::any_of(formulas_.children(f), [this](Formula g) {
           return formulas_.kind(g) == FormulaKind::kNot &&
                  (formulas_.kind(formulas_.child(g)) == FormulaKind::kConstantItems ||
                   formulas_.kind(formulas_.child(g)) == FormulaKind::kConstantMembers);
         });
}

bool JsonAlgebra::boundless(Formula value, unsigned depth, unsigned& questions) {
  if (value == kTrue) return true;
  if (value == kFalse || depth > 8 || questions == 0 || !satisfiable(value)) return false;
  --questions;
  const ValueShape parts = shape(value);
  if (parts.string != kFalse && boundless_strings(parts.string)) return true;
  if (parts.number != kFalse && boundless_numbers(parts.number)) return true;
  // Of arrays and objects only plain ones: what is required, and some part that may be present and has boundlessly many values.
  if (parts.array == kTrue || parts.object == kTrue) return true;
  auto alternatives = [this](Formula f) {
    if (formulas_.kind(f) != FormulaKind::kOr || takes_away_constants(f)) return std::vector<Formula>{f};
    return std::vector<Formula>(formulas_.children(f).begin(), formulas_.children(f).end());
  };
  for (Formula array : alternatives(parts.array))
    if (array != kFalse && array_alive(array) && boundless_arrays(array, depth, questions)) return true;
  for (Formula object : alternatives(parts.object))
    if (object != kFalse && boundless_objects(object, value, depth, questions)) return true;
  return false;
}

bool JsonAlgebra::boundless_arrays(Formula array, unsigned depth, unsigned& questions) {
  std::vector<Formula> first;
  for (Formula part : conjuncts(array)) {
    switch (formulas_.kind(part)) {
      case FormulaKind::kItems: first.push_back(item_formula(part)); break;
      case FormulaKind::kCount:
      case FormulaKind::kUnique: break;
      case FormulaKind::kNot: {
        Formula inner = formulas_.child(part);
        if (formulas_.kind(inner) != FormulaKind::kCount || formulas_.b(inner) == 1) return false;
        break;
      }
      default:
        if (!takes_away_constants(part)) return false;
    }
  }
  return boundless(formulas_.all(std::move(first)), depth + 1, questions);
}

// Members that do not depend on each other, and one, of a name that may be there beside those that must, with boundlessly many values.
bool JsonAlgebra::boundless_objects(Formula object, Formula value, unsigned depth, unsigned& questions) {
  const ObjectState state = open_object(object, value);
  if (!object_alive(state)) return false;
  std::vector<SchemaId> schemas;
  std::vector<KeyId> needed;
  std::vector<Formula> names;
  uint64_t below = UINT64_MAX;
  for (Formula part : conjuncts(object)) {
    switch (formulas_.kind(part)) {
      case FormulaKind::kMembers: schemas.push_back(SchemaId{formulas_.a(part)}); break;
      case FormulaKind::kHas: needed.push_back(KeyId{formulas_.a(part)}); break;
      case FormulaKind::kCount: break;  // one name may stand in for another
      case FormulaKind::kNames: names.push_back(formulas_.child(part)); break;
      case FormulaKind::kNot:
        if (formulas_.kind(formulas_.child(part)) != FormulaKind::kCount) return false;
        below = formulas_.b(formulas_.child(part));
        break;
      default:
        if (!takes_away_constants(part)) return false;
    }
  }
  const bool another = needed.size() + 1 < below;
  auto boundless_at = [&](const KeyEvent& event) {
    if (!std::ranges::all_of(names, [&](Formula allowed) { return name_satisfies(event, allowed); })) return false;
    std::vector<Formula> values;
    for (SchemaId id : schemas) values.push_back(member_formula(id, event, nullptr));
    return boundless(formulas_.all(std::move(values)), depth + 1, questions);
  };
  const KeyPlan& keys = plan(state.plan);
  if (another)
    for (const KeyPlan::OtherNames& other : other_names(state.plan)) {
      KeyEvent event{&keys, KeyId{}, &other};
      if (keys.only_explicit && !explicitly_allowed(object, event)) continue;
      if (boundless_at(event)) return true;
    }
  for (std::size_t i = 0; i < keys.size(); ++i)
    if (another || std::ranges::find(needed, keys.key(i)) != needed.end())
      if (boundless_at({&keys, keys.key(i), nullptr})) return true;
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
  ValueId value = own_schemas().add_value(text.substr(begin));
  switch (schemas_->store().type(schemas_->value(value))) {
    case JsonType::kNull:
    case JsonType::kFalse:
    case JsonType::kTrue:
      return formulas_.atom(FormulaKind::kWord, static_cast<uint32_t>(schemas_->store().type(schemas_->value(value))));
    default: return of_value(value);
  }
}

// `rest` with its kUnique atom replaced by what `leaf` says, in guards as well.
template <typename F>
Formula JsonAlgebra::map_unique(Formula rest, F leaf) {
  auto atoms = [&](Formula atom) -> Formula {
    if (formulas_.kind(atom) == FormulaKind::kUnique) return leaf(atom);
    if (formulas_.kind(atom) != FormulaKind::kUnevaluatedItems || !formulas_.has_unique(atom)) return atom;
    std::vector<Formula> guards(formulas_.children(atom).begin(), formulas_.children(atom).end());
    Evaluators evaluators = evaluators_[formulas_.a(atom)];
    uint64_t position = formulas_.b(atom);
    for (Formula& guard : guards) guard = map_unique(guard, leaf);
    return make_unevaluated(FormulaKind::kUnevaluatedItems, std::move(evaluators), position, std::move(guards));
  };
  return formulas_.has_unique(rest) ? formulas_.map(rest, atoms) : rest;
}

Formula JsonAlgebra::without_repetition(Formula rest, Formula value) {
  return map_unique(rest, [&](Formula atom) {
    std::vector<Formula> seen(formulas_.children(atom).begin(), formulas_.children(atom).end());
    seen.insert(std::ranges::lower_bound(seen, value), value);
    return formulas_.atom(FormulaKind::kUnique, 0, 0, seen);
  });
}

Formula JsonAlgebra::assume_distinct(Formula rest, bool distinct) {
  return map_unique(rest, [&](Formula) { return distinct ? kTrue : kFalse; });
}

const std::vector<Formula>& JsonAlgebra::by_distinctness(Formula rest) {
  auto [it, fresh] = by_distinctness_.try_emplace(static_cast<uint32_t>(rest));
  if (!fresh) return it->second;
  std::vector<Formula> parts;
  Formula unique = kTrue;
  map_unique(rest, [&](Formula atom) { return unique = atom; });
  Formula distinct = assume_distinct(rest, true), repeated = assume_distinct(rest, false);
  if (distinct == repeated) {
    parts.push_back(distinct);
  } else {
    parts = {formulas_.both(unique, distinct), formulas_.both(formulas_.negation(unique), repeated)};
    std::erase(parts, kFalse);
  }
  return by_distinctness_[static_cast<uint32_t>(rest)] = std::move(parts);
}

bool JsonAlgebra::strings_as_names(Formula rest) {
  if (!formulas_.has_unique(rest) || formulas_.kind(rest) == FormulaKind::kOr) return false;
  std::vector<Formula> parts{rest};
  if (formulas_.kind(rest) == FormulaKind::kAnd)
    parts.assign(formulas_.children(rest).begin(), formulas_.children(rest).end());
  std::vector<Formula> items;
  for (Formula part : parts) {
    switch (formulas_.kind(part)) {
      case FormulaKind::kItems: items.push_back(part); break;
      case FormulaKind::kCount: break;
      case FormulaKind::kUnique:
        if (!formulas_.children(part).empty()) return false;
        break;
      case FormulaKind::kNot:
        if (formulas_.kind(formulas_.child(part)) != FormulaKind::kCount) return false;
        break;
      default: return false;
    }
  }
  // With these parts every later `rest` is of the same kind, and demands no more than this one.
  const UniqueDemands& demands = unique_demands(rest);
  return !demands.may_run_out && demands.constants.empty();
}

bool JsonAlgebra::needs_repetition(Formula rest) {
  return formulas_.has_unique(rest) && assume_distinct(rest, true) == kFalse;
}

// Calls `visit(value)` for what the items to come may be, place by place, until it returns true. `rest` is free of kUnique.
bool JsonAlgebra::visit_later_items(Formula rest, const std::function<bool(const ValueCase&)>& visit) {
  std::vector<Formula> open{rest};
  std::unordered_set<uint32_t> met{static_cast<uint32_t>(rest)};
  while (!open.empty()) {
    Formula at = open.back();
    open.pop_back();
    for (const ValueCase& one : array_step(at)) {
      if (!satisfiable(one.value) || !array_alive(one.rest)) continue;
      if (visit(one)) return true;
      if (met.insert(static_cast<uint32_t>(one.rest)).second) open.push_back(one.rest);
    }
    if (met.size() > kMaxPlaces) throw LimitError("unique_items", "a repetition among too many different items");
  }
  return false;
}

// Can an array of `not unique and G` go on to a repetition?
bool JsonAlgebra::repetition_alive(Formula rest) {
  Formula plain = assume_distinct(rest, false), seen = kFalse;
  map_unique(rest, [&](Formula atom) {
    seen = formulas_.any({formulas_.children(atom).begin(), formulas_.children(atom).end()});
    return atom;
  });
  auto may_be = [&](Formula value) {
    return [this, value](const ValueCase& one) { return satisfiable(formulas_.both(one.value, value)); };
  };
  if (seen != kFalse && visit_later_items(plain, may_be(seen))) return true;
  return visit_later_items(plain, [&](const ValueCase& one) { return visit_later_items(one.rest, may_be(one.value)); });
}

// The case of a next item after which there must still be a repetition.
void JsonAlgebra::split_repetition(const ValueCase& one, std::vector<ValueCase>& out) {
  std::vector<Formula> values;
  if (scalar_values(one.value, values)) {
    for (Formula value : values) out.push_back({value, without_repetition(one.rest, value)});
    return;
  }
  if (array_alive(one.rest)) {
    out.push_back({one.value, one.rest, true});
    return;
  }
  // Only this item itself can be repeated.
  std::vector<Formula> later;
  visit_later_items(assume_distinct(one.rest, false), [&](const ValueCase& other) {
    later.push_back(other.value);
    return false;
  });
  Formula value = formulas_.both(one.value, formulas_.any(std::move(later)));
  if (satisfiable(value)) out.push_back({value, one.rest, true});
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
    if (needs_repetition(one.rest)) {
      split_repetition(one, out);
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
