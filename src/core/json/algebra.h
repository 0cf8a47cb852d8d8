// What a JSON value at some place must satisfy, as formulas, and what follows from it: by type, by the next item or member, and whether
// anything satisfies it at all.
//
// The steps of the derivation (engine.md section 9). `shape(F)` splits a formula of values by JSON type. Strings and numbers become
// lexical languages. Arrays and objects are followed one item or member at a time: `array_step(R)` and `object_steps` give, for what is
// still required R, the cases of the next value: pairs (formula of that value, what is required afterwards), where the formulas of one
// step are pairwise disjoint, so the grammar made of them is unambiguous. Cases nobody can satisfy are never handed out: `satisfiable` is
// a least fixpoint over formulas, computed depth first; a negative answer that leaned on an unfinished one is not kept.
//
// One algebra belongs to one engine and runs under its growth lock.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "core/json/formula.h"
#include "core/json/number.h"
#include "core/json/schema_document.h"
#include "core/json/text.h"

namespace guiderail {

// A formula of values by type: what strings, numbers, arrays and objects among them must still satisfy.
struct ValueShape {
  bool null = false, no = false, yes = false;
  Formula string = kFalse, number = kFalse, array = kFalse, object = kFalse;
  auto operator<=>(const ValueShape&) const = default;
};

// One case of the next item or member value.
struct ValueCase {
  Formula value;          // of values
  Formula rest;           // what is required afterwards
  bool captured = false;  // the value must not come again: afterwards without_repetition(rest, the value read)
};

// Which property names an object's formula can tell apart. Made once where an object opens, constant inside it.
struct KeyPlan {
  std::vector<KeyId> declared;  // in document order
  std::vector<KeyId> named;     // mentioned otherwise: required, dependencies, enumerated names
  // What decides about other names: patterns and formulas of names.
  struct Classifier {
    bool is_pattern;
    uint32_t id;  // PatternId or Formula
    auto operator<=>(const Classifier&) const = default;
  };
  std::vector<Classifier> classifiers;
  bool only_explicit = false;  // strict: other names only where a schema says so

  // Other names by what the classifiers say of them, none of them empty. Filled when first needed.
  struct OtherNames {
    std::vector<bool> holds;  // per classifier
    Node tail;                // the rest of the string after its opening quote
  };
  std::vector<OtherNames> others;
  bool others_known = false;

  std::size_t size() const { return declared.size() + named.size(); }
  KeyId key(std::size_t i) const { return i < declared.size() ? declared[i] : named[i - declared.size()]; }
};

enum class PlanId : uint32_t {};

// An object after some of its members.
struct ObjectState {
  PlanId plan{};
  Formula rest = kTrue;
  uint32_t position = 0;  // declared names before it can not come any more
  uint32_t seen = 0;      // a set of indices into the plan that can not come any more
  auto operator<=>(const ObjectState&) const = default;
};

// One way to continue an object: the key, then a value, then the rest.
struct MemberStep {
  uint32_t key;  // index into the plan; from plan.size() on: index into plan.others
  Formula value;
  ObjectState next;
};

class JsonAlgebra {
 public:
  JsonAlgebra(std::shared_ptr<const SchemaSet> schemas, const JsonText& text);

  FormulaStore& formulas() { return formulas_; }
  const SchemaSet& schemas() const { return *schemas_; }
  const JsonText& text() const { return text_; }

  // --- values (json/algebra.cpp)
  Formula of_schema(SchemaId schema);
  Formula of_value(ValueId value) { return formulas_.atom(FormulaKind::kEquals, static_cast<uint32_t>(value)); }
  const ValueShape& shape(Formula value);
  Formula restricted(Formula value, JsonType type);
  bool satisfiable(Formula value);
  std::string pointer_of(Formula value) const;  // of a schema in it, for people
  // Rows for the parts that no value satisfies (json/unsatisfiable.cpp).
  void report_unsatisfiable(std::vector<SchemaReportRow>& rows);

  // --- strings and numbers (json/scalars.cpp)
  Formula simplify_strings(Formula f);
  Formula merge_lengths(Formula f);
  Formula simplify_numbers(Formula f);
  Node string_tail(Formula f, bool all_spellings = false);  // what follows the opening quote
  Node number_text(Formula f);
  bool string_satisfies(Formula f, std::string_view text);
  bool number_satisfies(Formula f, const Decimal& value);

  // --- arrays (json/arrays.cpp); uniqueItems (json/unique_items.cpp)
  std::vector<ValueCase> array_step(Formula rest);
  bool array_may_end(Formula rest);
  // Can uniqueItems of this schema be enforced? Empty if so, else why not.
  std::string unique_obstacle(SchemaId schema);
  // `rest` as an 'or' of at most two: unique and what then is required, not unique and what then is required. One if that decides nothing.
  const std::vector<Formula>& by_distinctness(Formula rest);
  // Must some item still come twice?
  bool needs_repetition(Formula rest);
  // `rest` where it is known whether all items differ.
  Formula assume_distinct(Formula rest, bool distinct);
  // `rest` once an item equal to `value` has been read.
  Formula without_repetition(Formula rest, Formula value);
  // The value at the end of a text that may begin anywhere between two lexemes.
  Formula captured_value(std::string_view text);
  // Might some value that has been read leave too few for the items to come?
  bool may_run_out(Formula rest) { return unique_demands(rest).may_run_out; }
  bool array_alive(Formula rest);
  // Are the strings among the items never needed by name, so that they can be kept apart as names in a scope (name_scopes.h)?
  bool strings_as_names(Formula rest);
  // Does some value other than a string satisfy it?
  bool satisfiable_beside_strings(Formula value);

  // --- objects (json/objects.cpp)
  ObjectState open_object(Formula members, Formula value);
  const KeyPlan& plan(PlanId id) const { return *plans_[static_cast<uint32_t>(id)]; }
  std::vector<MemberStep> object_steps(const ObjectState& state);
  bool object_may_end(const ObjectState& state);
  bool object_alive(const ObjectState& state);

 private:
  // How a case is decided: a key that the plan names, or a class of others.
  struct KeyEvent {
    const KeyPlan* plan;
    KeyId key;
    const KeyPlan::OtherNames* other;  // null for a named key
  };
  // Who evaluates properties or items for `unevaluated...`: the schemas whose annotations count, each under its guard.
  struct Evaluators {
    SchemaId unevaluated;
    enum class Kind : uint8_t { kKeywords, kContains };
    std::vector<std::pair<SchemaId, Kind>> list;
    auto operator<=>(const Evaluators&) const = default;
  };

  Formula expand(SchemaId schema, JsonType type);
  std::string why_unsatisfiable(const Schema& schema);
  Formula format_atom(const std::string& name);
  Formula expand_type(const Schema& schema, SchemaId id, JsonType type);
  void expand_object(const Schema& schema, SchemaId id, std::vector<Formula>& parts);
  void expand_array(const Schema& schema, SchemaId id, std::vector<Formula>& parts);
  Formula equals(ValueId value, JsonType type);
  Formula one_of_values(const std::vector<ValueId>& values, JsonType type);
  uint32_t value_set(std::vector<ValueId> values);
  std::vector<ValueCase> cases(Formula step);
  void split_cases(Formula step, Formula value, std::vector<ValueCase>& out);
  template <typename F>
  bool least_fixpoint(uint64_t key, F compute);
  bool simple_schema(SchemaId id);

  bool finite_values(Formula f, FormulaKind kind, std::vector<ValueId>& out);
  bool strings_certain(Formula f);
  Node pattern_body(PatternId id);
  Node every_spelling(ValueId string);  // with its closing quote

  Formula unevaluated(SchemaId schema, JsonType type);
  void collect_evaluators(SchemaId schema, SchemaId subject, Formula guard, JsonType type, Evaluators& evaluators,
                          std::vector<Formula>& guards, unsigned depth);
  Formula make_unevaluated(FormulaKind kind, Evaluators evaluators, uint64_t position, std::vector<Formula> guards);
  uint32_t intern_evaluators(Evaluators evaluators);

  Formula array_derivative(Formula f);
  Formula item_formula(Formula atom);
  bool array_conjunction_alive(Formula rest, bool& known);
  void split_unique(std::vector<ValueCase>& cases);
  void split_repetition(const ValueCase& one, std::vector<ValueCase>& out);
  template <typename F>
  Formula map_unique(Formula rest, F leaf);
  bool visit_later_items(Formula rest, const std::function<bool(const ValueCase&)>& visit);
  bool repetition_alive(Formula rest);
  bool scalar_values(Formula value, std::vector<Formula>& out);
  // Certainly more values than any text has room for?
  bool boundless(Formula value);
  // `questions`: how many more formulas may be looked at.
  bool boundless(Formula value, unsigned depth, unsigned& questions);
  bool boundless_arrays(Formula array, unsigned depth, unsigned& questions);
  bool boundless_objects(Formula object, Formula value, unsigned depth, unsigned& questions);
  bool contradicts_wide_formats(Formula conjunction, bool all_spellings);
  Node wide_tail(Formula f, bool all_spellings, bool& widened);
  bool takes_away_constants(Formula f) const;
  std::vector<Formula> conjuncts(Formula f) const;
  bool boundless_numbers(Formula f);
  bool boundless_strings(Formula f);
  struct UniqueDemands {
    std::vector<Formula> constants;  // values that some item to come may be confined to
    bool may_run_out = false;        // some item to come has finitely many values that have no names
  };
  const UniqueDemands& unique_demands(Formula rest);

  const std::vector<KeyId>& declared_keys(SchemaId schema);
  void collect_declared(SchemaId schema, std::vector<KeyId>& out, std::vector<bool>& seen_keys,
                        std::vector<SchemaId>& path);
  void collect_value_keys(Formula value, std::vector<KeyId>& out, std::vector<bool>& seen_keys);
  void collect_atoms(Formula f, KeyPlan& plan, std::vector<bool>& seen_keys,
                     std::unordered_map<uint32_t, bool>& visited);
  // What is still required of an object, where that is names to come and what schemas say of each member by itself.
  struct MemberConjunction {
    bool known = false;  // false: it is something else
    std::vector<SchemaId> schemas;
    std::vector<KeyId> needed;  // sorted
  };
  const MemberConjunction& member_conjunction(Formula rest);
  std::vector<ValueCase> member_cases(Formula rest, const KeyEvent& event);
  Formula without_need(Formula rest, KeyId key);
  Formula object_derivative(Formula f, const KeyEvent& event);
  Formula member_formula(SchemaId schema, const KeyEvent& event, bool* evaluated);
  bool name_matches(const KeyEvent& event, PatternId pattern);
  bool name_satisfies(const KeyEvent& event, Formula names);
  bool explicitly_allowed(Formula f, const KeyEvent& event);
  Formula without_key(Formula rest, KeyId key);
  const std::vector<KeyPlan::OtherNames>& other_names(PlanId id);
  // The language of names, with the closing quote, that a classifier tells from others.
  Node class_language(const KeyPlan::Classifier& classifier);
  // All names of that language, if it has few; else none.
  const std::vector<KeyId>& few_names(const KeyPlan::Classifier& classifier);
  SchemaSet& own_schemas();
  uint32_t add_to_set(uint32_t set, uint32_t index);
  bool in_set(uint32_t set, uint32_t index) const;
  bool conjunction_alive(const ObjectState& state, bool& known);
  // Which members could make an object's formula true that is not true without them.
  struct Relevance {
    bool every_member = false;
    std::vector<KeyId> keys;
    std::vector<Formula> violable;  // atoms of members or names whose violation is of use
  };
  const Relevance& relevance(Formula rest);
  bool relevant(const Relevance& relevance, const KeyEvent& event);
  enum class Search : uint8_t { kDeclared, kFree, kProof };
  // Calls `visit(step)` for every live continuation until it returns true; for a proof of life, for those that could matter.
  bool visit_members(const ObjectState& state, Search search, const std::function<bool(const MemberStep&)>& visit);

  std::shared_ptr<const SchemaSet> schemas_;
  std::shared_ptr<SchemaSet> own_schemas_;  // schemas_, once values have been captured
  std::shared_ptr<const SchemaSet> shared_schemas_;
  const JsonText& text_;
  Lexicon& lexicon_;
  NumberLanguages numbers_;
  FormulaStore formulas_;

  std::vector<Formula> schema_formulas_;
  std::vector<Formula> expanded_;         // per schema and type
  std::vector<uint8_t> expansion_state_;  // 0 unknown, 1 in progress, 2 known
  unsigned expansion_depth_ = 0;
  std::unordered_map<uint32_t, ValueShape> shapes_;
  std::unordered_map<uint64_t, Formula> restricted_;
  std::map<std::vector<ValueId>, uint32_t> value_set_ids_;
  std::vector<std::vector<ValueId>> value_sets_;
  std::vector<std::string> formats_;
  std::unordered_map<uint32_t, std::vector<ValueCase>> cases_;

  struct Verdict {
    enum class State : uint8_t { kUnknown, kOpen, kNo, kYes } state = State::kUnknown;
    uint32_t depth = 0;
  };
  std::unordered_map<uint64_t, Verdict> verdicts_;
  uint32_t depth_ = 0;
  uint32_t leans_on_ = UINT32_MAX;  // the shallowest unfinished question that the current answer used
  uint64_t work_ = 0;
  std::size_t formulas_before_ = 0;

  std::unordered_map<uint32_t, Node> pattern_bodies_;
  std::unordered_map<uint64_t, Node> string_tails_;
  std::unordered_map<uint32_t, Node> spellings_;
  std::unordered_map<uint32_t, Node> number_texts_;
  std::unordered_map<uint64_t, bool> pattern_on_key_;

  std::map<Evaluators, uint32_t> evaluator_ids_;
  std::vector<Evaluators> evaluators_;

  std::unordered_map<uint32_t, std::vector<KeyId>> declared_;
  std::map<KeyPlan::Classifier, std::vector<KeyId>> few_names_;
  std::vector<std::unique_ptr<KeyPlan>> plans_;
  std::map<std::vector<uint32_t>, PlanId> plan_ids_;
  std::map<std::vector<uint64_t>, uint32_t> set_ids_;
  std::vector<std::vector<uint64_t>> sets_;
  std::unordered_map<uint32_t, Relevance> relevances_;
  std::unordered_map<uint32_t, MemberConjunction> conjunctions_;
  std::map<ObjectState, uint32_t> object_state_ids_;
  std::unordered_map<uint32_t, Formula> array_derivatives_;
  std::unordered_map<uint32_t, UniqueDemands> unique_demands_;
  std::unordered_map<uint32_t, std::vector<Formula>> by_distinctness_;
};

}  // namespace guiderail
