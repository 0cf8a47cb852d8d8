// Objects, one member at a time.
//
// As for arrays, what is still required of an object is a formula about the members to come: `kHas(k)` until k came, `kMembers(S)` for
// properties, patternProperties and additionalProperties of S, `kCount`. A key decides which schemas its value meets, so the derivative is
// taken by the key, and its conditions are about the value.
//
// Keys are told apart as far as the formula of the opened object can (KeyPlan): declared names in document order, names mentioned
// otherwise, and the rest by the patterns they match. In declared order a name that was passed over cannot come any more: its kHas
// becomes false, and where that leaves nothing, the names after it are not offered.
#include <algorithm>
#include <utility>

#include "core/errors.h"
#include "core/json/algebra.h"
#include "core/json/format.h"

namespace guiderail {
namespace {

constexpr std::size_t kMaxClasses = 1024;
// So many names of a pattern are listed; of more, no text is taken to use up all.
constexpr std::size_t kFewNames = 64;
constexpr std::size_t kFewNamesBytes = 4096;

}  // namespace

void JsonAlgebra::expand_object(const Schema& schema, SchemaId id, std::vector<Formula>& parts) {
  auto has = [&](KeyId key) { return formulas_.atom(FormulaKind::kHas, static_cast<uint32_t>(key)); };
  if (schema.has_properties()) parts.push_back(formulas_.atom(FormulaKind::kMembers, static_cast<uint32_t>(id)));
  if (schema.names != kNoSchema) {
    Formula names = of_schema(schema.names);
    if (names != kTrue) parts.push_back(formulas_.atom(FormulaKind::kNames, 0, 0, std::span(&names, 1)));
  }
  for (KeyId key : schema.required) parts.push_back(has(key));
  if (schema.min_properties > 0) parts.push_back(formulas_.count(schema.min_properties));
  if (schema.max_properties < kNoCount - 1)
    parts.push_back(formulas_.negation(formulas_.count(schema.max_properties + 1)));
  for (const auto& [key, list] : schema.dependent_required) {
    std::vector<Formula> needed;
    for (KeyId other : list) needed.push_back(has(other));
    parts.push_back(formulas_.implies(has(key), formulas_.all(std::move(needed))));
  }
  for (auto [key, dependent] : schema.dependent_schemas)
    parts.push_back(formulas_.implies(has(key), expand(dependent, JsonType::kObject)));
  if (schema.unevaluated_properties != kNoSchema) parts.push_back(unevaluated(id, JsonType::kObject));
}

// --- which keys there are -----------------------------------------------------------------------------------------------

void JsonAlgebra::collect_declared(SchemaId id, std::vector<KeyId>& out, std::vector<bool>& seen_keys,
                                   std::vector<SchemaId>& path) {
  if (std::ranges::find(path, id) != path.end()) return;
  if (path.size() > 500) throw LimitError("schema_depth", "schemas nested or referring too deeply");
  const Schema& schema = (*schemas_)[id];
  const JsonStore& store = schemas_->store();
  if (!(schema.types & type_bit(JsonType::kObject)) || !store.is_object(schema.json)) return;
  path.push_back(id);
  auto subs = [&](const std::vector<SchemaId>& list) {
    for (SchemaId child : list) collect_declared(child, out, seen_keys, path);
  };
  auto sub = [&](SchemaId child) {
    if (child != kNoSchema) collect_declared(child, out, seen_keys, path);
  };
  bool references_done = false;
  for (uint32_t i = 0; i < store.size(schema.json); ++i) {
    std::string_view keyword = store.key(schema.json, i);
    if (keyword == "properties") {
      for (auto [key, child] : schema.properties) {
        if (seen_keys[static_cast<uint32_t>(key)]) continue;
        seen_keys[static_cast<uint32_t>(key)] = true;
        out.push_back(key);
      }
    } else if ((keyword == "$ref" || keyword == "$dynamicRef" || keyword == "$recursiveRef") && !references_done) {
      references_done = true;
      subs(schema.references);
    } else if (keyword == "allOf") {
      subs(schema.all_of);
    } else if (keyword == "anyOf") {
      subs(schema.any_of);
    } else if (keyword == "oneOf") {
      subs(schema.one_of);
    } else if (keyword == "not") {
      sub(schema.negated);
    } else if (keyword == "if") {
      sub(schema.condition);
    } else if (keyword == "then") {
      sub(schema.then_branch);
    } else if (keyword == "else") {
      sub(schema.else_branch);
    } else if (keyword == "dependentSchemas" || keyword == "dependencies") {
      for (auto [key, child] : schema.dependent_schemas) sub(child);
    } else if (keyword == "enum" || keyword == "const") {
      for (const auto& values : schema.enums)
        for (ValueId value : values) collect_value_keys(of_value(value), out, seen_keys);
    }
  }
  path.pop_back();
}

// Declared names of the schemas and values in a formula of values, in the order of the document.
void JsonAlgebra::collect_value_keys(Formula value, std::vector<KeyId>& out, std::vector<bool>& seen_keys) {
  std::vector<SchemaId> schemas;
  std::vector<Formula> open{value};
  std::unordered_map<uint32_t, bool> visited;
  while (!open.empty()) {
    Formula f = open.back();
    open.pop_back();
    if (!visited.emplace(static_cast<uint32_t>(f), true).second) continue;
    if (formulas_.kind(f) == FormulaKind::kSchema) {
      schemas.push_back(SchemaId{formulas_.a(f)});
    } else if (formulas_.kind(f) == FormulaKind::kEquals) {
      JsonId json = schemas_->value(ValueId{formulas_.a(f)});
      const JsonStore& store = schemas_->store();
      // What a text said declares nothing.
      if (!store.is_object(json) || !schemas_->from_schema(ValueId{formulas_.a(f)})) continue;
      for (uint32_t i = 0; i < store.size(json); ++i) {
        KeyId key = schemas_->key_id(store.key(json, i));
        if (seen_keys[static_cast<uint32_t>(key)]) continue;
        seen_keys[static_cast<uint32_t>(key)] = true;
        out.push_back(key);
      }
    } else {
      open.insert(open.end(), formulas_.children(f).begin(), formulas_.children(f).end());
    }
  }
  std::ranges::sort(schemas);
  std::vector<SchemaId> path;
  for (SchemaId id : schemas) collect_declared(id, out, seen_keys, path);
}

// Names and patterns in the atoms of an object's formula.
void JsonAlgebra::collect_atoms(Formula f, KeyPlan& plan, std::vector<bool>& seen_keys,
                                std::unordered_map<uint32_t, bool>& visited) {
  std::vector<Formula> open{f};
  auto add_key = [&](KeyId key) {
    if (seen_keys[static_cast<uint32_t>(key)]) return;
    seen_keys[static_cast<uint32_t>(key)] = true;
    plan.named.push_back(key);
  };
  auto add_classifier = [&](KeyPlan::Classifier classifier) {
    if (std::ranges::find(plan.classifiers, classifier) == plan.classifiers.end())
      plan.classifiers.push_back(classifier);
  };
  auto add_members = [&](const Schema& schema) {
    for (auto [key, child] : schema.properties) add_key(key);
    for (auto [pattern, child] : schema.pattern_properties)
      if (!schemas_->matches_everything(pattern)) add_classifier({true, static_cast<uint32_t>(pattern)});
  };
  while (!open.empty()) {
    Formula at = open.back();
    open.pop_back();
    if (!visited.emplace(static_cast<uint32_t>(at), true).second) continue;
    switch (formulas_.kind(at)) {
      case FormulaKind::kHas: add_key(KeyId{formulas_.a(at)}); break;
      case FormulaKind::kMembers: add_members((*schemas_)[SchemaId{formulas_.a(at)}]); break;
      case FormulaKind::kConstantMembers: {
        JsonId json = schemas_->value(ValueId{formulas_.a(at)});
        for (uint32_t i = 0; i < schemas_->store().size(json); ++i)
          add_key(schemas_->key_id(schemas_->store().key(json, i)));
        break;
      }
      case FormulaKind::kNames: {
        // Finitely many names are names like any other.
        Formula names = simplify_strings(restricted(formulas_.child(at), JsonType::kString));
        if (formulas_.kind(names) == FormulaKind::kStrings)
          for (ValueId v : value_sets_[formulas_.a(names)])
            if (schemas_->has_key(schemas_->store().text(schemas_->value(v))))
              add_key(schemas_->key_id(schemas_->store().text(schemas_->value(v))));
        add_classifier({false, static_cast<uint32_t>(formulas_.child(at))});
        break;
      }
      case FormulaKind::kUnevaluatedProperties:
        for (auto [id, kind] : evaluators_[formulas_.a(at)].list) add_members((*schemas_)[id]);
        [[fallthrough]];
      default: open.insert(open.end(), formulas_.children(at).begin(), formulas_.children(at).end()); break;
    }
  }
}

ObjectState JsonAlgebra::open_object(Formula members, Formula value) {
  auto plan = std::make_unique<KeyPlan>();
  std::vector<bool> seen_keys(schemas_->num_keys());
  collect_value_keys(value, plan->declared, seen_keys);
  std::unordered_map<uint32_t, bool> visited;
  collect_atoms(members, *plan, seen_keys, visited);
  for (const KeyPlan::Classifier& classifier : plan->classifiers)
    for (KeyId key : few_names(classifier)) {
      seen_keys.resize(schemas_->num_keys());
      if (!seen_keys[static_cast<uint32_t>(key)]) plan->named.push_back(key);
      seen_keys[static_cast<uint32_t>(key)] = true;
    }
  std::ranges::sort(plan->named);
  std::ranges::sort(plan->classifiers);
  plan->only_explicit = schemas_->options().strict && !plan->declared.empty();
  std::vector<uint32_t> key{static_cast<uint32_t>(plan->declared.size()), plan->only_explicit};
  for (KeyId k : plan->declared) key.push_back(static_cast<uint32_t>(k));
  for (KeyId k : plan->named) key.push_back(static_cast<uint32_t>(k));
  key.push_back(UINT32_MAX);
  for (const auto& classifier : plan->classifiers) {
    key.push_back(classifier.is_pattern);
    key.push_back(classifier.id);
  }
  auto [it, fresh] = plan_ids_.try_emplace(std::move(key), PlanId{static_cast<uint32_t>(plans_.size())});
  if (fresh) plans_.push_back(std::move(plan));
  return {it->second, members, 0, 0};
}

SchemaSet& JsonAlgebra::own_schemas() {
  if (!own_schemas_) {
    // What texts contain belongs to this engine alone. What was handed out points into the shared set, which stays.
    own_schemas_ = std::make_shared<SchemaSet>(*schemas_);
    shared_schemas_ = schemas_;
    schemas_ = own_schemas_;
  }
  return *own_schemas_;
}

Node JsonAlgebra::class_language(const KeyPlan::Classifier& classifier) {
  if (classifier.is_pattern) return lexicon_.concat(pattern_body(PatternId{classifier.id}), lexicon_.literal("\""));
  return string_tail(simplify_strings(restricted(Formula{classifier.id}, JsonType::kString)));
}

// No name comes twice, so a class with few names can be used up, and whether it can is a question about each of them.
const std::vector<KeyId>& JsonAlgebra::few_names(const KeyPlan::Classifier& classifier) {
  auto [it, fresh] = few_names_.try_emplace(classifier);
  if (!fresh) return it->second;
  Node language = class_language(classifier);
  if (!lexicon_.certainly_finite(language)) return it->second;
  std::vector<std::pair<Node, std::string>> open{{language, ""}};
  std::vector<std::string> found;
  for (std::size_t i = 0; i < open.size(); ++i) {
    auto [at, text] = open[i];
    if (lexicon_.nullable(at)) found.push_back(text.substr(0, text.size() - 1));
    if (found.size() > kFewNames || open.size() > kFewNamesBytes) return it->second;
    lexicon_.first_bound(at).for_each([&, at = at, text = text](uint8_t byte) {
      Node next = byte == '\\' ? kNone : lexicon_.step(at, byte);
      if (next != kNone && lexicon_.alive(next)) open.emplace_back(next, text + static_cast<char>(byte));
    });
  }
  // A name that can only be written with escapes has not been met.
  std::vector<Node> spelled;
  for (const std::string& name : found) spelled.push_back(text_.spelled(name, lexicon_.literal("\"")));
  if (lexicon_.alive(lexicon_.difference(language, lexicon_.either(std::move(spelled))))) return it->second;
  for (const std::string& name : found) it->second.push_back(own_schemas().add_key(name));
  return it->second;
}

// Splits the names that the plan does not know by name into classes that all classifiers see alike; none is empty.
const std::vector<KeyPlan::OtherNames>& JsonAlgebra::other_names(PlanId id) {
  KeyPlan& plan = *plans_[static_cast<uint32_t>(id)];
  if (plan.others_known) return plan.others;
  Node end = lexicon_.literal("\"");
  Node tail = lexicon_.concat(text_.characters(), end);
  std::vector<Node> forbidden;
  for (std::size_t i = 0; i < plan.size(); ++i) forbidden.push_back(text_.spelled(schemas_->key(plan.key(i)), end));
  if (!forbidden.empty()) tail = lexicon_.difference(tail, lexicon_.either(std::move(forbidden)));
  std::vector<KeyPlan::OtherNames> classes{{{}, tail}};
  for (const KeyPlan::Classifier& classifier : plan.classifiers) {
    Node language = class_language(classifier);
    std::vector<KeyPlan::OtherNames> split;
    for (const KeyPlan::OtherNames& one : classes)
      for (bool holds : {true, false}) {
        Node part = lexicon_.both({one.tail, holds ? language : lexicon_.complement(language)});
        if (!lexicon_.alive(part)) continue;
        split.push_back({one.holds, part});
        split.back().holds.push_back(holds);
      }
    if (split.size() > kMaxClasses)
      throw LimitError("pattern_classes", "too many overlapping patterns of property names");
    classes = std::move(split);
  }
  plan.others = std::move(classes);
  plan.others_known = true;
  return plan.others;
}

bool JsonAlgebra::name_matches(const KeyEvent& event, PatternId pattern) {
  if (schemas_->matches_everything(pattern)) return true;
  if (event.other) {
    for (std::size_t i = 0; i < event.plan->classifiers.size(); ++i)
      if (event.plan->classifiers[i] == KeyPlan::Classifier{true, static_cast<uint32_t>(pattern)})
        return event.other->holds[i];
    return false;
  }
  uint64_t key = (uint64_t{static_cast<uint32_t>(pattern)} << 32) | static_cast<uint32_t>(event.key);
  auto [it, fresh] = pattern_on_key_.try_emplace(key, false);
  if (fresh) {
    std::string spelled = json_quote(schemas_->key(event.key));
    std::string_view body = std::string_view(spelled).substr(1, spelled.size() - 2);
    it->second = lexicon_.nullable(lexicon_.walk(pattern_body(pattern), body));
  }
  return it->second;
}

bool JsonAlgebra::name_satisfies(const KeyEvent& event, Formula names) {
  if (event.other) {
    for (std::size_t i = 0; i < event.plan->classifiers.size(); ++i)
      if (event.plan->classifiers[i] == KeyPlan::Classifier{false, static_cast<uint32_t>(names)})
        return event.other->holds[i];
    return false;
  }
  return string_satisfies(restricted(names, JsonType::kString), schemas_->key(event.key));
}

// --- derivative ---------------------------------------------------------------------------------------------------------

// What properties, patternProperties and additionalProperties of a schema say of the member's value; `evaluated`: whether any spoke.
Formula JsonAlgebra::member_formula(SchemaId id, const KeyEvent& event, bool* evaluated) {
  const Schema& schema = (*schemas_)[id];
  std::vector<Formula> parts;
  bool matched = false;
  if (!event.other)
    if (SchemaId child = schema.property(event.key); child != kNoSchema) {
      matched = true;
      parts.push_back(of_schema(child));
    }
  for (auto [pattern, child] : schema.pattern_properties)
    if (name_matches(event, pattern)) {
      matched = true;
      parts.push_back(of_schema(child));
    }
  if (!matched && schema.additional != kNoSchema) {
    matched = true;
    parts.push_back(of_schema(schema.additional));
  }
  if (evaluated) *evaluated = matched;
  return formulas_.all(std::move(parts));
}

// Conjunctions whose parts do not depend on each other are nearly all objects there are.
const JsonAlgebra::MemberConjunction& JsonAlgebra::member_conjunction(Formula rest) {
  auto [it, fresh] = conjunctions_.try_emplace(static_cast<uint32_t>(rest));
  MemberConjunction& result = it->second;
  if (!fresh) return result;
  std::span<const Formula> parts(&rest, 1);
  if (formulas_.kind(rest) == FormulaKind::kAnd) parts = formulas_.children(rest);
  result.known = true;
  for (Formula part : parts) {
    switch (formulas_.kind(part)) {
      case FormulaKind::kHas: result.needed.push_back(KeyId{formulas_.a(part)}); break;
      case FormulaKind::kMembers: result.schemas.push_back(SchemaId{formulas_.a(part)}); break;
      case FormulaKind::kTrue: break;
      default: result.known = false; return result;
    }
  }
  std::ranges::sort(result.needed);
  return result;
}

std::vector<ValueCase> JsonAlgebra::member_cases(Formula rest, const KeyEvent& event) {
  const MemberConjunction& conjunction = member_conjunction(rest);
  if (!conjunction.known) return cases(object_derivative(rest, event));
  std::vector<Formula> values;
  for (SchemaId id : conjunction.schemas) values.push_back(member_formula(id, event, nullptr));
  Formula value = formulas_.all(std::move(values));
  if (!satisfiable(value)) return {};
  bool needed = !event.other && std::ranges::binary_search(conjunction.needed, event.key);
  return {{value, needed ? without_need(rest, event.key) : rest}};
}

// `rest` of a conjunction once `key` has come.
Formula JsonAlgebra::without_need(Formula rest, KeyId key) {
  if (formulas_.kind(rest) == FormulaKind::kHas) return kTrue;
  std::vector<Formula> parts;
  for (Formula part : formulas_.children(rest))
    if (formulas_.kind(part) != FormulaKind::kHas || KeyId{formulas_.a(part)} != key) parts.push_back(part);
  return formulas_.all(std::move(parts));
}

Formula JsonAlgebra::object_derivative(Formula f, const KeyEvent& event) {
  auto leaf = [&](Formula atom) -> Formula {
    uint32_t a = formulas_.a(atom);
    switch (formulas_.kind(atom)) {
      case FormulaKind::kHas: return !event.other && KeyId{a} == event.key ? kTrue : atom;
      case FormulaKind::kCount: return formulas_.count(formulas_.b(atom) - 1);
      case FormulaKind::kMembers:
        return formulas_.both(formulas_.condition(member_formula(SchemaId{a}, event, nullptr)), atom);
      case FormulaKind::kConstantMembers: {
        const JsonStore& store = schemas_->store();
        JsonId json = schemas_->value(ValueId{a});
        JsonId member = event.other ? kNoJson : store.find(json, schemas_->key(event.key));
        if (member == kNoJson) return kFalse;
        return formulas_.both(formulas_.condition(of_value(schemas_->value_id(member))), atom);
      }
      case FormulaKind::kNames: return name_satisfies(event, formulas_.child(atom)) ? atom : kFalse;
      case FormulaKind::kUnevaluatedProperties: {
        Evaluators evaluators = evaluators_[a];
        std::vector<Formula> guards(formulas_.children(atom).begin(), formulas_.children(atom).end());
        std::vector<Formula> obligation{formulas_.condition(of_schema(evaluators.unevaluated))};
        for (std::size_t i = 0; i < guards.size(); ++i) {
          guards[i] = object_derivative(guards[i], event);
          SchemaId id = evaluators.list[i].first;
          const Schema& schema = (*schemas_)[id];
          bool evaluated = false;
          member_formula(id, event, &evaluated);
          if (evaluated ||
              (schema.unevaluated_properties != kNoSchema && schema.unevaluated_properties != evaluators.unevaluated))
            obligation.push_back(guards[i]);
        }
        Formula next = make_unevaluated(FormulaKind::kUnevaluatedProperties, evaluators, 0, std::move(guards));
        return formulas_.both(formulas_.any(std::move(obligation)), next);
      }
      default: return atom;
    }
  };
  return formulas_.map(f, leaf);
}

// The same, once it is known that `key` does not come.
Formula JsonAlgebra::without_key(Formula rest, KeyId key) {
  if (const MemberConjunction& conjunction = member_conjunction(rest); conjunction.known)
    return std::ranges::binary_search(conjunction.needed, key) ? kFalse : rest;
  auto leaf = [&](Formula atom) -> Formula {
    if (formulas_.kind(atom) == FormulaKind::kHas && KeyId{formulas_.a(atom)} == key) return kFalse;
    if (formulas_.kind(atom) != FormulaKind::kUnevaluatedProperties) return atom;
    Evaluators evaluators = evaluators_[formulas_.a(atom)];
    std::vector<Formula> guards(formulas_.children(atom).begin(), formulas_.children(atom).end());
    for (Formula& guard : guards) guard = without_key(guard, key);
    return make_unevaluated(FormulaKind::kUnevaluatedProperties, std::move(evaluators), 0, std::move(guards));
  };
  return formulas_.map(rest, leaf);
}

bool JsonAlgebra::object_may_end(const ObjectState& state) {
  if (const MemberConjunction& conjunction = member_conjunction(state.rest); conjunction.known)
    return conjunction.needed.empty();
  auto leaf = [&](Formula atom) {
    FormulaKind kind = formulas_.kind(atom);
    return kind == FormulaKind::kHas || kind == FormulaKind::kCount ? kFalse : kTrue;
  };
  return formulas_.map(state.rest, leaf) == kTrue;
}

// strict: does some schema speak about this name, other than by silence?
bool JsonAlgebra::explicitly_allowed(Formula f, const KeyEvent& event) {
  std::vector<Formula> open{f};
  while (!open.empty()) {
    Formula at = open.back();
    open.pop_back();
    switch (formulas_.kind(at)) {
      case FormulaKind::kMembers: {
        bool evaluated = false;
        member_formula(SchemaId{formulas_.a(at)}, event, &evaluated);
        if (evaluated) return true;
        break;
      }
      case FormulaKind::kUnevaluatedProperties: return true;
      case FormulaKind::kAnd:
      case FormulaKind::kOr:
      case FormulaKind::kOne:
        open.insert(open.end(), formulas_.children(at).begin(), formulas_.children(at).end());
        break;
      default: break;
    }
  }
  return false;
}

// --- states -------------------------------------------------------------------------------------------------------------

uint32_t JsonAlgebra::add_to_set(uint32_t set, uint32_t index) {
  std::vector<uint64_t> words = sets_[set];
  if (words.size() <= index / 64) words.resize(index / 64 + 1);
  words[index / 64] |= uint64_t{1} << (index % 64);
  auto [it, fresh] = set_ids_.try_emplace(words, static_cast<uint32_t>(sets_.size()));
  if (fresh) sets_.push_back(std::move(words));
  return it->second;
}

bool JsonAlgebra::in_set(uint32_t set, uint32_t index) const {
  const auto& words = sets_[set];
  return index / 64 < words.size() && (words[index / 64] >> (index % 64) & 1);
}

// A member may be left out of a completion, and the rest still is one, unless the formula asks for its key, counts members, or is
// better off where an atom (of a schema that must not hold) is violated by it. So a proof that something completes an object tries no
// other members.
const JsonAlgebra::Relevance& JsonAlgebra::relevance(Formula rest) {
  auto found = relevances_.find(static_cast<uint32_t>(rest));
  if (found != relevances_.end()) return found->second;
  Relevance result;
  enum : uint8_t { kPositive = 1, kNegative = 2 };
  std::vector<std::pair<Formula, uint8_t>> open{{rest, kPositive}};
  std::unordered_map<uint32_t, uint8_t> visited;
  while (!open.empty()) {
    auto [f, polarity] = open.back();
    open.pop_back();
    uint8_t& known = visited[static_cast<uint32_t>(f)];
    if ((known | polarity) == known) continue;
    known = static_cast<uint8_t>(known | polarity);
    FormulaKind kind = formulas_.kind(f);
    uint8_t below = polarity;
    if (kind == FormulaKind::kNot)
      below = static_cast<uint8_t>((polarity & kPositive ? kNegative : 0) | (polarity & kNegative ? kPositive : 0));
    if (kind == FormulaKind::kOne) below = kPositive | kNegative;
    switch (kind) {
      case FormulaKind::kHas: result.keys.push_back(KeyId{formulas_.a(f)}); break;
      case FormulaKind::kCount: result.every_member = true; break;
      case FormulaKind::kMembers:
      case FormulaKind::kNames:
        if (polarity & kNegative) result.violable.push_back(f);
        break;
      case FormulaKind::kConstantMembers:
        if (polarity & kNegative) result.every_member = true;
        break;
      case FormulaKind::kUnevaluatedProperties:
        if (polarity & kNegative) result.every_member = true;
        [[fallthrough]];
      default:
        for (Formula child : formulas_.children(f)) open.emplace_back(child, below);
    }
  }
  return relevances_.emplace(static_cast<uint32_t>(rest), std::move(result)).first->second;
}

bool JsonAlgebra::relevant(const Relevance& relevance, const KeyEvent& event) {
  if (relevance.every_member) return true;
  if (!event.other && std::ranges::find(relevance.keys, event.key) != relevance.keys.end()) return true;
  return std::ranges::any_of(relevance.violable, [&](Formula atom) {
    if (formulas_.kind(atom) == FormulaKind::kNames) return !name_satisfies(event, formulas_.child(atom));
    return member_formula(SchemaId{formulas_.a(atom)}, event, nullptr) != kTrue;
  });
}

bool JsonAlgebra::visit_members(const ObjectState& state, Search search,
                                const std::function<bool(const MemberStep&)>& visit) {
  const KeyPlan& keys = plan(state.plan);
  bool free_order = search == Search::kFree, proof = search == Search::kProof;
  auto offer = [&](uint32_t index, const KeyEvent& event, Formula rest, uint32_t position, uint32_t seen) {
    if (proof && !relevant(relevance(rest), event)) return false;
    for (const ValueCase& one : member_cases(rest, event)) {
      ObjectState next{state.plan, one.rest, position, seen};
      if (!satisfiable(one.value) || !object_alive(next)) continue;
      if (visit({index, one.value, next})) return true;
    }
    return false;
  };
  Formula rest = state.rest;
  auto declared = static_cast<uint32_t>(keys.declared.size()), all = static_cast<uint32_t>(keys.size());
  uint32_t i = state.position;
  for (; i < declared; ++i) {
    if (in_set(state.seen, i)) continue;
    KeyEvent event{&keys, keys.declared[i], nullptr};
    if (free_order) {
      if (offer(i, event, rest, 0, add_to_set(state.seen, i))) return true;
      continue;
    }
    if (offer(i, event, rest, i + 1, state.seen)) return true;
    // Passing over a name must leave something possible.
    Formula skipped = without_key(rest, keys.declared[i]);
    if (skipped == kFalse) return false;
    if (!proof && skipped != rest && !object_alive({state.plan, skipped, i + 1, state.seen})) return false;
    rest = skipped;
  }
  uint32_t position = free_order ? 0 : declared;
  for (i = declared; i < all; ++i) {
    if (in_set(state.seen, i)) continue;
    if (offer(i, {&keys, keys.key(i), nullptr}, rest, position, add_to_set(state.seen, i))) return true;
  }
  // Nothing but a closing bracket or a name that is still needed: the others need not be looked at.
  if (keys.classifiers.empty()) {
    KeyPlan::OtherNames generic{{}, kNone};
    KeyEvent event{&keys, KeyId{}, &generic};
    const MemberConjunction& conjunction = member_conjunction(rest);
    if (conjunction.known
            ? std::ranges::any_of(conjunction.schemas,
                                  [&](SchemaId id) { return member_formula(id, event, nullptr) == kFalse; })
            : object_derivative(rest, event) == kFalse)
      return false;
  }
  const auto& others = other_names(state.plan);
  for (uint32_t c = 0; c < others.size(); ++c) {
    KeyEvent event{&keys, KeyId{}, &others[c]};
    if (keys.only_explicit && !explicitly_allowed(rest, event)) continue;
    if (offer(all + c, event, rest, position, state.seen)) return true;
  }
  return false;
}

std::vector<MemberStep> JsonAlgebra::object_steps(const ObjectState& state) {
  std::vector<MemberStep> steps;
  visit_members(state, schemas_->options().free_order ? Search::kFree : Search::kDeclared, [&](const MemberStep& step) {
    steps.push_back(step);
    return false;
  });
  return steps;
}

// The common case, decided key by key: a conjunction in which members do not depend on each other.
bool JsonAlgebra::conjunction_alive(const ObjectState& state, bool& known) {
  const KeyPlan& keys = plan(state.plan);
  std::vector<Formula> parts{state.rest};
  if (formulas_.kind(state.rest) == FormulaKind::kAnd)
    parts.assign(formulas_.children(state.rest).begin(), formulas_.children(state.rest).end());
  uint64_t least = 0, below = UINT64_MAX;
  std::vector<KeyId> needed;
  std::vector<Formula> always;  // what every member must satisfy
  for (Formula part : parts) {
    switch (formulas_.kind(part)) {
      case FormulaKind::kHas: needed.push_back(KeyId{formulas_.a(part)}); break;
      case FormulaKind::kCount: least = formulas_.b(part); break;
      case FormulaKind::kNot:
        if (formulas_.kind(formulas_.child(part)) != FormulaKind::kCount) return false;
        below = formulas_.b(formulas_.child(part));
        break;
      case FormulaKind::kMembers:
      case FormulaKind::kConstantMembers:
      case FormulaKind::kNames: always.push_back(part); break;
      default: return false;
    }
  }
  known = true;
  if (needed.size() >= below) return false;
  Formula members = formulas_.all(always);
  auto possible = [&](const KeyEvent& event) {
    for (const ValueCase& one : member_cases(members, event))
      if (satisfiable(one.value)) return true;
    return false;
  };
  for (KeyId key : needed)
    if (!possible({&keys, key, nullptr})) return false;
  if (least <= needed.size()) return true;
  uint64_t more = least - needed.size();
  for (uint32_t i = 0; i < keys.size() && more > 0; ++i) {
    if ((i < keys.declared.size() && i < state.position) || in_set(state.seen, i)) continue;
    if (std::ranges::find(needed, keys.key(i)) != needed.end()) continue;
    if (possible({&keys, keys.key(i), nullptr})) --more;
  }
  if (more == 0) return true;
  for (const KeyPlan::OtherNames& other : other_names(state.plan)) {
    KeyEvent event{&keys, KeyId{}, &other};
    if (keys.only_explicit && !explicitly_allowed(state.rest, event)) continue;
    if (possible(event)) return true;
  }
  return false;
}

}  // namespace guiderail
