#include "core/json/schema.h"

#include <algorithm>
#include <map>
#include <string>
#include <unordered_map>
#include <utility>

#include "core/errors.h"
#include "core/json/algebra.h"

namespace guiderail {
namespace {

// Tags of the terminals that begin a value.
enum ValueTag : uint32_t { kStringTag = 1, kNumberTag, kWordTag, kObjectTag, kArrayTag, kNamesTag, kNameTag };

class JsonSchemaRules : public RuleProvider {
 public:
  JsonSchemaRules(SymbolTable& symbols, std::shared_ptr<const SchemaSet> schemas, const WhitespacePolicy& whitespace)
      : symbols_(symbols), lexicon_(symbols.lexicon()),
        text_(symbols.lexicon(), whitespace, parse_escapes(schemas->options().escapes)),
        algebra_(std::move(schemas), text_) {}

  Symbol start() {
    Formula root = algebra_.of_schema(algebra_.schemas().root());
    if (!algebra_.satisfiable(root))
      throw SchemaError("no JSON value satisfies the schema", unsatisfiable_place(), true);
    return value(root, JsonPlace{});
  }

  // Schemas whose uniqueItems cannot be enforced, and why.
  std::vector<std::pair<SchemaId, std::string>> unenforceable_unique() {
    std::vector<std::pair<SchemaId, std::string>> found;
    for (uint32_t i = 0; i < algebra_.schemas().size(); ++i) {
      if (!algebra_.schemas()[SchemaId{i}].unique) continue;
      std::string obstacle = algebra_.unique_obstacle(SchemaId{i});
      if (!obstacle.empty()) found.emplace_back(SchemaId{i}, obstacle);
    }
    return found;
  }

  void report_unsatisfiable(std::vector<SchemaReportRow>& rows) { algebra_.report_unsatisfiable(rows); }

  Symbol captured(uint32_t local, std::string_view text) override {
    Rule rule = rules_[local];
    Formula rest = algebra_.without_repetition(rule.formula, algebra_.captured_value(text));
    return items(rest, rule.place, false, rule.owner, rule.names);
  }

  Node with_name(Node seen, std::string_view lexeme) override {
    return text_.with_spelled(symbols_.name_sets(), seen, name_of(lexeme));
  }

  std::string name_of(std::string_view lexeme) override {
    std::size_t begin = lexeme.find('"'), end = lexeme.rfind('"');
    JsonStore store;
    return std::string(store.text(store.parse(lexeme.substr(begin, end + 1 - begin))));
  }

  void productions(uint32_t local, Productions& out) override {
    Rule rule = rules_[local];
    switch (rule.kind) {
      case Rule::Kind::kValue: return value_productions(rule, out);
      case Rule::Kind::kMembers: return member_productions(rule, out);
      case Rule::Kind::kItems: return item_productions(rule, out);
    }
  }

  std::string name(uint32_t local) const override {
    const Rule& rule = rules_[local];
    std::string pointer = algebra_.pointer_of(rule.owner);
    const char* what = rule.kind == Rule::Kind::kValue     ? "value"
                       : rule.kind == Rule::Kind::kMembers ? "members"
                                                           : "items";
    return std::string(what) + " of " + (pointer.empty() ? "the schema" : pointer);
  }

 private:
  struct Rule {
    enum class Kind : uint8_t { kValue, kMembers, kItems };
    Kind kind;
    bool first = false;
    JsonPlace place;
    Formula formula = kTrue;  // a value's, or what is required of the items to come
    ObjectState object;
    Formula owner;  // the value that it is about, or whose part it is
    // Of items: the strings among them are names in the scope of their array. Of a value: such a name is no case of it.
    bool names = false;
  };
  using ShapeKey = std::pair<ValueShape, uint64_t>;

  // A property name as keys are written, between the quotes.
  struct Spelling {
    std::string raw, ascii;  // ascii: empty if the same
    std::string name;        // for people
  };

  static uint64_t place_key(JsonPlace place, bool first) {
    return (uint64_t{place.depth} << 3) | (static_cast<uint64_t>(place.kind) << 1) | uint64_t{first};
  }
  struct KeyHash {
    static std::size_t mix(uint64_t a, uint64_t b) {
      uint64_t h = (a ^ (b * 0x9E3779B97F4A7C15ull)) * 0xFF51AFD7ED558CCDull;
      return h ^ h >> 29;
    }
    std::size_t operator()(const std::pair<Formula, uint64_t>& k) const {
      return mix(static_cast<uint64_t>(k.first), k.second);
    }
    std::size_t operator()(const std::pair<ObjectState, uint64_t>& k) const {
      const ObjectState& s = k.first;
      return mix(mix(uint64_t{static_cast<uint32_t>(s.plan)} << 32 | static_cast<uint32_t>(s.rest),
                     uint64_t{s.position} << 32 | s.seen),
                 k.second);
    }
  };

  Symbol add(Rule rule) {
    auto local = static_cast<uint32_t>(rules_.size());
    rules_.push_back(rule);
    return symbols_.nonterminal(this, local);
  }

  const Spelling& spelling(KeyId id) {
    auto [it, fresh] = spellings_.try_emplace(static_cast<uint32_t>(id));
    if (fresh) {
      const std::string& key = algebra_.schemas().key(id);
      std::string raw = json_quote(key), ascii = json_quote(key, true);
      if (text_.escapes() == EscapePolicy::kAscii) raw = ascii;
      if (ascii != raw && text_.escapes() == EscapePolicy::kAny) it->second.ascii = ascii.substr(1, ascii.size() - 2);
      it->second.raw = raw.substr(1, raw.size() - 2);
      it->second.name = "\"" + key + "\"";
    }
    return it->second;
  }

  Symbol value(Formula formula, JsonPlace place, bool without_strings = false) {
    auto [known, unmet] = value_ids_.try_emplace({formula, place_key(place, without_strings)}, Symbol{});
    if (!unmet) return known->second;
    // Formulas of one shape are one nonterminal. Members depend on the declared names too, so objects keep their formula apart.
    ShapeKey key{algebra_.shape(formula), place_key(place, false)};
    if (without_strings) key.first.string = kFalse;
    bool share = key.first.object == kFalse || key.first.object == kTrue;
    if (share) {
      auto found = shape_ids_.find(key);
      if (found != shape_ids_.end()) return known->second = found->second;
    }
    Symbol symbol = add({Rule::Kind::kValue, false, place, formula, {}, formula, without_strings});
    value_ids_[{formula, place_key(place, without_strings)}] = symbol;
    if (share) shape_ids_.emplace(key, symbol);
    return symbol;
  }

  Symbol members(const ObjectState& state, JsonPlace place, bool first, Formula owner) {
    auto [it, fresh] = member_ids_.try_emplace({state, place_key(place, first)}, Symbol{});
    if (fresh) it->second = add({Rule::Kind::kMembers, first, place, kTrue, state, owner});
    return it->second;
  }

  Symbol items(Formula rest, JsonPlace place, bool first, Formula owner, bool names) {
    auto [it, fresh] = item_ids_.try_emplace({rest, place_key(place, first) | uint64_t{names} << 63}, Symbol{});
    if (fresh) it->second = add({Rule::Kind::kItems, first, place, rest, {}, owner, names});
    return it->second;
  }

  void value_productions(const Rule& rule, Productions& out) {
    ValueShape shape = algebra_.shape(rule.formula);
    if (rule.names) shape.string = kFalse;
    std::vector<Node> options;
    auto option = [&](Node node, ValueTag tag) { options.push_back(lexicon_.concat(node, lexicon_.accept(tag))); };
    std::vector<std::pair<ValueTag, const char*>> tags;
    if (shape.string != kFalse) {
      Node tail = algebra_.string_tail(shape.string);
      if (lexicon_.alive(tail)) {
        option(lexicon_.literal("\"", tail), kStringTag);
        tags.emplace_back(kStringTag, "string");
      }
    }
    if (shape.number != kFalse) {
      Node number = algebra_.number_text(shape.number);
      if (lexicon_.alive(number)) {
        option(number, kNumberTag);
        tags.emplace_back(kNumberTag, "number");
      }
    }
    std::vector<std::pair<std::string_view, Node>> words;
    if (shape.null) words.emplace_back("null", kEpsilon);
    if (shape.no) words.emplace_back("false", kEpsilon);
    if (shape.yes) words.emplace_back("true", kEpsilon);
    if (!words.empty()) {
      option(lexicon_.literals(std::move(words)), kWordTag);
      tags.emplace_back(kWordTag, "true, false or null");
    }
    ObjectState object;
    bool has_object = false, has_array = shape.array != kFalse && algebra_.array_alive(shape.array);
    if (shape.object != kFalse) {
      object = algebra_.open_object(shape.object, rule.formula);
      has_object = algebra_.object_alive(object);
    }
    if (has_object) option(lexicon_.literal("{"), kObjectTag);
    bool names = has_array && algebra_.strings_as_names(shape.array);
    ValueTag array_tag = names ? kNamesTag : kArrayTag;
    if (has_array) option(lexicon_.literal("["), array_tag);
    Node start = lexicon_.concat(text_.lead(rule.place), lexicon_.either(std::move(options)));
    for (auto [tag, name] : tags) out.add({symbols_.terminal(start, tag, name)});
    if (has_object) {
      Symbol open = symbols_.terminal(start, kObjectTag, "{");
      symbols_.set_role(open, ScopeRole::kOpens);
      out.add({open, members(object, rule.place, true, rule.owner)});
    }
    if (has_array) {
      Symbol open = symbols_.terminal(start, array_tag, "[");
      if (names) symbols_.set_role(open, ScopeRole::kOpens);
      out.add({open, items(shape.array, rule.place, true, rule.owner, names)});
    }
  }

  void member_productions(const Rule& rule, Productions& out) {
    if (algebra_.object_may_end(rule.object)) {
      Symbol close = symbols_.terminal(text_.close(rule.place, rule.first, '}'), 0, "}");
      symbols_.set_role(close, ScopeRole::kCloses);
      out.add({close});
    }
    std::vector<MemberStep> steps = algebra_.object_steps(rule.object);
    const KeyPlan& plan = algebra_.plan(rule.object.plan);
    Node before = text_.before_key(rule.place, rule.first), end = lexicon_.literal("\"", text_.colon());
    // Names known to the plan: one automaton, a tag per name.
    std::vector<std::pair<std::string_view, Node>> entries;
    uint32_t last = UINT32_MAX;
    for (const MemberStep& step : steps) {
      if (step.key >= plan.size() || step.key == last) continue;
      last = step.key;
      const Spelling& key = spelling(plan.key(step.key));
      Node rest = lexicon_.concat(end, lexicon_.accept(step.key + 1));
      entries.emplace_back(key.raw, rest);
      if (!key.ascii.empty()) entries.emplace_back(key.ascii, rest);
    }
    Node names = entries.empty() ? kNone : lexicon_.concat(before, lexicon_.literals(std::move(entries)));
    JsonPlace place = text_.member_place(rule.place);
    auto emit = [&](const MemberStep& step) {
      Symbol key{};
      if (step.key < plan.size()) {
        key = symbols_.terminal(names, step.key + 1, spelling(plan.key(step.key)).name);
      } else {
        Node tail = plan.others[step.key - plan.size()].tail;
        key = symbols_.terminal(lexicon_.concat(before, lexicon_.concat(tail, text_.colon())), 0, "another property");
        symbols_.as_name(key, this, before, tail, text_.colon(), rule.first);
      }
      out.add({key, value(step.value, place), members(step.next, rule.place, false, rule.owner)});
    };
    // First what brings the object closer to its end, for those who look for a way there (shortest_text.h).
    for (const MemberStep& step : steps)
      if (step.next.rest != rule.object.rest) emit(step);
    for (const MemberStep& step : steps)
      if (step.next.rest == rule.object.rest) emit(step);
  }

  void item_productions(const Rule& rule, Productions& out) {
    const std::vector<Formula> parts = algebra_.by_distinctness(rule.formula);  // a copy: more formulas may come
    if (parts.size() != 1 || parts.front() != rule.formula) {
      for (Formula part : parts)
        if (algebra_.array_alive(part)) out.add({items(part, rule.place, rule.first, rule.owner, false)});
      return;
    }
    if (algebra_.array_may_end(rule.formula)) {
      Node end = text_.close(rule.place, rule.first, ']');
      if (rule.names) {
        Symbol close = symbols_.terminal(lexicon_.concat(end, lexicon_.accept(kNamesTag)), kNamesTag, "]");
        symbols_.set_role(close, ScopeRole::kCloses);
        out.add({close});
      } else {
        out.add({symbols_.terminal(end, 0, "]")});
      }
    }
    JsonPlace own = rule.place, place = text_.item_place(rule.place);
    bool first = rule.first;
    for (const ValueCase& one : algebra_.array_step(rule.formula)) {
      // Where the item may be what will be repeated, only its text tells whether the array can go on.
      bool repeats = one.captured && algebra_.needs_repetition(one.rest);
      if (!algebra_.satisfiable(one.value) || (!repeats && !algebra_.array_alive(one.rest))) continue;
      Symbol rest = items(one.rest, own, false, rule.owner, rule.names);
      auto emit = [&](Symbol item, Symbol after) {
        if (first)
          out.add({item, after});
        else
          out.add({symbols_.terminal(text_.comma(own), 0, ","), item, after});
      };
      if (rule.names) {
        Formula strings = algebra_.shape(one.value).string;
        Node tail = strings == kFalse ? kNone : algebra_.string_tail(strings);
        if (tail != kNone && lexicon_.alive(tail)) {
          Node before = lexicon_.concat(text_.lead(place), lexicon_.literal("\"")), after = lexicon_.accept(kNameTag);
          Node start = lexicon_.concat(before, lexicon_.concat(tail, after));
          Symbol name = symbols_.terminal(start, kNameTag, "another string");
          symbols_.as_name(name, this, before, tail, after);
          emit(name, rest);
        }
        if (!algebra_.satisfiable_beside_strings(one.value)) continue;
      }
      Symbol item = value(one.value, place, rule.names);
      if (repeats) {
        Symbol any = items(algebra_.assume_distinct(one.rest, false), own, false, rule.owner, false);
        rest = symbols_.capture(this, symbols_.nonterminal_info(rest).local, any, true);
      } else if (one.captured) {
        rest = symbols_.capture(this, symbols_.nonterminal_info(rest).local, rest, algebra_.may_run_out(one.rest));
      }
      emit(item, rest);
    }
  }

  // The deepest required property that nothing satisfies, from the root.
  std::string unsatisfiable_place() {
    SchemaId at = algebra_.schemas().root();
    for (int depth = 0; depth < 100; ++depth) {
      const Schema& schema = algebra_.schemas()[at];
      SchemaId next = kNoSchema;
      for (KeyId key : schema.required)
        if (SchemaId child = schema.property(key);
            child != kNoSchema && !algebra_.satisfiable(algebra_.of_schema(child)))
          next = child;
      for (SchemaId child : schema.references)
        if (!algebra_.satisfiable(algebra_.of_schema(child))) next = child;
      for (SchemaId child : schema.all_of)
        if (!algebra_.satisfiable(algebra_.of_schema(child))) next = child;
      if (next == kNoSchema) break;
      at = next;
    }
    return algebra_.schemas().pointer(at);
  }

  SymbolTable& symbols_;
  Lexicon& lexicon_;
  JsonText text_;
  JsonAlgebra algebra_;
  std::vector<Rule> rules_;
  std::unordered_map<uint32_t, Spelling> spellings_;
  std::unordered_map<std::pair<Formula, uint64_t>, Symbol, KeyHash> value_ids_;
  std::map<ShapeKey, Symbol> shape_ids_;
  std::unordered_map<std::pair<ObjectState, uint64_t>, Symbol, KeyHash> member_ids_;
  std::unordered_map<std::pair<Formula, uint64_t>, Symbol, KeyHash> item_ids_;
};

}  // namespace

JsonSchemaSource::JsonSchemaSource(std::string_view schema, const JsonSchemaOptions& options)
    : whitespace_(WhitespacePolicy::parse(options.whitespace)) {
  auto schemas = std::make_shared<SchemaSet>(schema, options);
  bool any_unique = false;
  for (uint32_t i = 0; i < schemas->size(); ++i) any_unique = any_unique || (*schemas)[SchemaId{i}].unique;
  if (any_unique) {
    SymbolTable symbols(Lexicon::current());
    for (const auto& [id, obstacle] : JsonSchemaRules(symbols, schemas, whitespace_).unenforceable_unique())
      schemas->drop_unique(id, obstacle);
  }
  schemas_ = std::move(schemas);
}

OpenGrammar JsonSchemaSource::open(SymbolTable& symbols) const {
  auto rules = std::make_unique<JsonSchemaRules>(symbols, schemas_, whitespace_);
  OpenGrammar grammar;
  grammar.start = rules->start();
  grammar.providers.push_back(std::move(rules));
  return grammar;
}

std::vector<SchemaReportRow> JsonSchemaSource::report() const {
  std::vector<SchemaReportRow> rows = schemas_->report();
  SymbolTable symbols(Lexicon::current());
  JsonSchemaRules(symbols, schemas_, whitespace_).report_unsatisfiable(rows);
  return rows;
}

}  // namespace guiderail
