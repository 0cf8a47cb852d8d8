#include "json_schema_document.h"

#include <algorithm>
#include <array>
#include <set>
#include <utility>

#include "errors.h"
#include "json_format.h"
#include "json_uri.h"
#include "regex_tree.h"

namespace guiderail {
namespace {

// Where schemas stand inside a schema: as the value, in an array, or as the values of an object.
enum class Holds : uint8_t { kSchema, kArray, kMap };

const std::unordered_map<std::string_view, Holds>& subschema_keywords() {
  static const std::unordered_map<std::string_view, Holds> keywords{{"additionalProperties", Holds::kSchema},
                                                                    {"additionalItems", Holds::kSchema},
                                                                    {"contains", Holds::kSchema},
                                                                    {"not", Holds::kSchema},
                                                                    {"if", Holds::kSchema},
                                                                    {"then", Holds::kSchema},
                                                                    {"else", Holds::kSchema},
                                                                    {"propertyNames", Holds::kSchema},
                                                                    {"unevaluatedItems", Holds::kSchema},
                                                                    {"unevaluatedProperties", Holds::kSchema},
                                                                    {"contentSchema", Holds::kSchema},
                                                                    {"items", Holds::kSchema},
                                                                    {"allOf", Holds::kArray},
                                                                    {"anyOf", Holds::kArray},
                                                                    {"oneOf", Holds::kArray},
                                                                    {"prefixItems", Holds::kArray},
                                                                    {"properties", Holds::kMap},
                                                                    {"patternProperties", Holds::kMap},
                                                                    {"$defs", Holds::kMap},
                                                                    {"definitions", Holds::kMap},
                                                                    {"dependentSchemas", Holds::kMap},
                                                                    {"dependencies", Holds::kMap}};
  return keywords;
}

// The anchor under which $recursiveAnchor is kept beside the names of $dynamicAnchor.
const std::string kRecursive = "\x01";

constexpr std::array<std::pair<std::string_view, Dialect>, 6> kDialects{
    {{"http://json-schema.org/draft-04/schema", Dialect::kDraft4},
     {"http://json-schema.org/draft-06/schema", Dialect::kDraft6},
     {"http://json-schema.org/draft-07/schema", Dialect::kDraft7},
     {"https://json-schema.org/draft/2019-09/schema", Dialect::k2019},
     {"https://json-schema.org/draft/2020-12/schema", Dialect::k2020},
     {"http://json-schema.org/schema", Dialect::k2020}}};

// Does some text match, for sure? Cheap and one-sided: yes where nothing but a `^` in front and a `$` at the end asserts anything.
bool certainly_matches(const RegexTree& tree, std::string_view text) {
  auto count = [&](std::string_view part) {
    std::size_t n = 0;
    for (std::size_t at = text.find(part); at != text.npos; at = text.find(part, at + 1)) ++n;
    return n;
  };
  std::size_t starts = count("^") - count("[^"), ends = count("$");
  if (starts > 1 || ends > 1 || (starts && !text.starts_with('^')) || (ends && !text.ends_with('$'))) return false;
  for (const RegexNode& node : tree.nodes) {
    switch (node.kind) {
      case RegexKind::kEmpty:
      case RegexKind::kConcat:
      case RegexKind::kAlternate:
      case RegexKind::kRepeat:
      case RegexKind::kTextStart:
      case RegexKind::kTextEnd: break;
      case RegexKind::kClass:
        if (tree.classes[node.a].empty()) return false;
        break;
      default: return false;
    }
  }
  return true;
}

// Does every text match, being searched? Certain if so: an expression without assertions that admits the empty string, behind `^` or
// before `$` alone, or an alternative of that kind.
bool matches_everything(const RegexTree& tree) {
  auto plain = [&](uint32_t root) {
    std::vector<uint32_t> open{root};
    while (!open.empty()) {
      const RegexNode& node = tree[open.back()];
      open.pop_back();
      switch (node.kind) {
        case RegexKind::kEmpty:
        case RegexKind::kClass: break;
        case RegexKind::kRepeat: open.push_back(node.a); break;
        case RegexKind::kConcat:
        case RegexKind::kAlternate:
          for (uint32_t child : tree.children_of(node)) open.push_back(child);
          break;
        default: return false;
      }
    }
    return true;
  };
  auto nullable = [&](uint32_t node) { return tree.nullable(node) && plain(node); };
  std::vector<uint32_t> options{tree.root};
  if (tree[tree.root].kind == RegexKind::kAlternate) {
    auto children = tree.children_of(tree[tree.root]);
    options.assign(children.begin(), children.end());
  }
  return std::ranges::any_of(options, [&](uint32_t option) {
    if (tree[option].kind != RegexKind::kConcat) return nullable(option);
    std::span<const uint32_t> parts = tree.children_of(tree[option]);
    if (tree[parts.front()].kind == RegexKind::kTextStart)
      parts = parts.subspan(1);
    else if (tree[parts.back()].kind == RegexKind::kTextEnd)
      parts = parts.first(parts.size() - 1);
    return std::ranges::all_of(parts, nullable);
  });
}

}  // namespace

SchemaId Schema::property(KeyId key) const {
  if (!property_index.empty()) {
    auto found = property_index.find(static_cast<uint32_t>(key));
    return found == property_index.end() ? kNoSchema : found->second;
  }
  for (auto [name, schema] : properties)
    if (name == key) return schema;
  return kNoSchema;
}

// --- documents ----------------------------------------------------------------------------------------------------------

SchemaSet::SchemaSet(std::string_view schema, const JsonSchemaOptions& options) : options_(options) {
  scopes_.emplace_back();
  scope_ids_.emplace(Scope{}, 0);
  JsonId root = store_.parse(schema);
  auto [dialect, validation] = std::pair(Dialect::k2020, true);
  if (!options_.dialect.empty()) std::tie(dialect, validation) = dialect_of(options_.dialect, root, Dialect::k2020);
  load(root, "", dialect, validation);
  root_ = schema_at(root, enter(0, resource_of(root)));
  for (uint32_t i = 0; i < schemas_.size(); ++i) read(SchemaId{i});
  // Enumerated property names are names like those of `properties`.
  for (const Schema& owner : schemas_) {
    if (owner.names == kNoSchema) continue;
    for (const auto& values : (*this)[owner.names].enums)
      for (ValueId value : values)
        if (store_.is_string(values_[static_cast<uint32_t>(value)]))
          intern_key(store_.text(values_[static_cast<uint32_t>(value)]));
  }
  num_schema_values_ = values_.size();
}

void SchemaSet::load(JsonId root, const std::string& base, Dialect dialect, bool validation) {
  auto resource = static_cast<uint32_t>(resources_.size());
  resources_.push_back({root, base, dialect, validation, {}, {}});
  resource_ids_.emplace(base, resource);
  resource_at_[static_cast<uint32_t>(root)] = resource;
  scan(root, resource);
}

std::pair<Dialect, bool> SchemaSet::dialect_of(std::string_view uri, JsonId at, Dialect inherited) {
  std::string_view body = split_fragment(uri).first;
  for (auto [name, dialect] : kDialects)
    if (body == name) return {dialect, true};
  for (const std::string& key : {std::string(body), std::string(body) + "#"}) {
    auto found = options_.registry.find(key);
    if (found == options_.registry.end()) continue;
    JsonId meta = store_.parse(found->second);
    Dialect dialect = inherited;
    JsonId own = store_.find(meta, "$schema");
    if (own != kNoJson && store_.is_string(own))
      for (auto [name, known] : kDialects)
        if (split_fragment(store_.text(own)).first == name) dialect = known;
    JsonId vocabularies = store_.find(meta, "$vocabulary");
    if (vocabularies == kNoJson || !store_.is_object(vocabularies)) return {dialect, true};
    bool validation = false;
    for (uint32_t i = 0; i < store_.size(vocabularies); ++i)
      validation = validation || store_.key(vocabularies, i).ends_with("/vocab/validation");
    return {dialect, validation};
  }
  notes_.push_back({store_.pointer(at) + "/$schema", "annotation",
                    "unknown dialect " + std::string(uri) + ", read as the default one"});
  return {inherited, true};
}

void SchemaSet::scan(JsonId json, uint32_t resource) {
  if (!store_.is_object(json)) return;
  auto text_of = [&](const char* keyword) -> std::string_view {
    JsonId value = store_.find(json, keyword);
    return value != kNoJson && store_.is_string(value) ? store_.text(value) : std::string_view();
  };
  bool is_root = resources_[resource].root == json;
  if (is_root || !text_of("$schema").empty()) {
    std::string_view uri = text_of("$schema");
    bool own = is_root || !text_of("$id").empty();
    if (!uri.empty() && own && (options_.dialect.empty() || !is_root || resource != 0)) {
      auto [dialect, validation] = dialect_of(uri, json, resources_[resource].dialect);
      resources_[resource].dialect = dialect;
      resources_[resource].validation = validation;
    }
  }
  Dialect dialect = resources_[resource].dialect;
  bool reference_only = dialect <= Dialect::kDraft7 && store_.find(json, "$ref") != kNoJson;
  std::string_view id = text_of(dialect == Dialect::kDraft4 ? "id" : "$id");
  if (!id.empty() && (!reference_only || is_root)) {
    auto [body, fragment] = split_fragment(id);
    if (body.empty() && !fragment.empty() && dialect <= Dialect::kDraft7) {
      resources_[resource].anchors.emplace(fragment, json);
    } else if (!body.empty()) {
      std::string uri = resolve_uri(resources_[resource].base, body);
      if (is_root) {
        resources_[resource].base = uri;
        resource_ids_.emplace(uri, resource);
      } else {
        bool validation = resources_[resource].validation;
        auto inner = static_cast<uint32_t>(resources_.size());
        if (!text_of("$schema").empty()) std::tie(dialect, validation) = dialect_of(text_of("$schema"), json, dialect);
        resources_.push_back({json, uri, dialect, validation, {}, {}});
        resource_ids_.emplace(uri, inner);
        resource = inner;
      }
      if (!fragment.empty() && dialect <= Dialect::kDraft7) resources_[resource].anchors.emplace(fragment, json);
    }
  }
  resource_at_[static_cast<uint32_t>(json)] = resource;
  if (dialect >= Dialect::k2019) {
    if (auto anchor = text_of("$anchor"); !anchor.empty()) resources_[resource].anchors.emplace(anchor, json);
    if (auto anchor = text_of("$dynamicAnchor"); !anchor.empty() && dialect == Dialect::k2020) {
      resources_[resource].anchors.emplace(anchor, json);
      resources_[resource].dynamic_anchors.emplace(anchor, json);
    }
    JsonId recursive = store_.find(json, "$recursiveAnchor");
    if (recursive != kNoJson && store_.type(recursive) == JsonType::kTrue && resources_[resource].root == json)
      resources_[resource].dynamic_anchors.emplace(kRecursive, json);
  }
  auto child = [&](JsonId value) { scan(value, resource); };
  for (uint32_t i = 0; i < store_.size(json); ++i) {
    auto keyword = subschema_keywords().find(store_.key(json, i));
    if (keyword == subschema_keywords().end()) continue;
    JsonId value = store_.item(json, i);
    if (store_.is_array(value) && keyword->second != Holds::kMap)
      for (uint32_t j = 0; j < store_.size(value); ++j) child(store_.item(value, j));
    else if (keyword->second == Holds::kMap && store_.is_object(value))
      for (uint32_t j = 0; j < store_.size(value); ++j) child(store_.item(value, j));
    else if (keyword->second == Holds::kSchema)
      child(value);
  }
}

uint32_t SchemaSet::resource_of(JsonId json) {
  auto known = [&](JsonId at) { return resource_at_.find(static_cast<uint32_t>(at)); };
  if (auto found = known(json); found != resource_at_.end()) return found->second;
  JsonId up = store_.parent(json);
  while (known(up) == resource_at_.end()) up = store_.parent(up);
  uint32_t resource = known(up)->second;
  // A place to which no keyword leads, reached by a pointer: what is below it has not been looked at.
  scan(json, resource);
  return resource_at_.try_emplace(static_cast<uint32_t>(json), resource).first->second;
}

// --- references ---------------------------------------------------------------------------------------------------------

JsonId SchemaSet::follow_pointer(JsonId root, std::string_view pointer) {
  JsonId at = root;
  while (!pointer.empty()) {
    pointer.remove_prefix(1);
    std::size_t end = std::min(pointer.find('/'), pointer.size());
    std::string part;
    for (std::size_t i = 0; i < end; ++i) {
      if (pointer[i] == '~' && i + 1 < end && (pointer[i + 1] == '0' || pointer[i + 1] == '1'))
        part.push_back(pointer[++i] == '0' ? '~' : '/');
      else
        part.push_back(pointer[i]);
    }
    pointer.remove_prefix(end);
    if (store_.is_array(at)) {
      bool number = !part.empty() && part.size() < 9 && part.find_first_not_of("0123456789") == part.npos;
      std::size_t index = number ? std::stoul(part) : SIZE_MAX;
      if (index >= store_.size(at)) return kNoJson;
      at = store_.item(at, static_cast<uint32_t>(index));
    } else {
      at = store_.find(at, part);
      if (at == kNoJson) return kNoJson;
    }
  }
  return at;
}

JsonId SchemaSet::resolve(std::string_view reference, JsonId at, const char* keyword, bool& dynamic,
                          std::string& anchor) {
  auto fail = [&](const std::string& why) -> JsonId {
    throw SchemaError("cannot resolve " + std::string(reference) + ": " + why, store_.pointer(at) + "/" + keyword);
  };
  dynamic = false;
  std::string full = resolve_uri(resources_[resource_of(at)].base, reference);
  auto [body_view, fragment_view] = split_fragment(full);
  std::string body(body_view), fragment = percent_decode(fragment_view);
  auto found = resource_ids_.find(body);
  // A bare fragment means this resource, even if its URI is not unique.
  uint32_t resource = 0;
  if (reference.starts_with('#')) {
    resource = resource_of(at);
  } else if (found != resource_ids_.end()) {
    resource = found->second;
  } else {
    auto entry = options_.registry.find(body);
    if (entry == options_.registry.end()) entry = options_.registry.find(body + "#");
    if (entry == options_.registry.end()) return fail("no such resource in the schema or the registry");
    JsonId root = store_.parse(entry->second);
    resource = static_cast<uint32_t>(resources_.size());
    load(root, body, resources_[resource_of(at)].dialect, true);
  }
  const Resource& target = resources_[resource];
  if (fragment.empty()) {
    auto recursive = target.dynamic_anchors.find(kRecursive);
    if (recursive != target.dynamic_anchors.end()) {
      dynamic = true;
      anchor = kRecursive;
    }
    return target.root;
  }
  if (fragment.front() == '/') {
    JsonId place = follow_pointer(target.root, fragment);
    return place == kNoJson ? fail("nothing stands there") : place;
  }
  auto named = target.anchors.find(fragment);
  if (named == target.anchors.end()) return fail("no such anchor");
  auto moving = target.dynamic_anchors.find(fragment);
  if (moving != target.dynamic_anchors.end()) {
    dynamic = true;
    anchor = fragment;
  }
  return named->second;
}

uint32_t SchemaSet::enter(uint32_t scope, uint32_t resource) {
  const auto& anchors = resources_[resource].dynamic_anchors;
  if (anchors.empty()) return scope;
  Scope extended = scopes_[scope];
  for (const auto& [name, json] : anchors) {
    auto at =
        std::ranges::lower_bound(extended, name, {}, [](const auto& entry) { return std::string_view(entry.first); });
    if (at == extended.end() || at->first != name) extended.insert(at, {name, json});
  }
  auto [it, fresh] = scope_ids_.try_emplace(extended, static_cast<uint32_t>(scopes_.size()));
  if (fresh) scopes_.push_back(extended);
  return it->second;
}

SchemaId SchemaSet::schema_at(JsonId json, uint32_t scope) {
  scope = enter(scope, resource_of(json));
  uint64_t key = (uint64_t{static_cast<uint32_t>(json)} << 32) | scope;
  auto [it, fresh] = schema_ids_.try_emplace(key, SchemaId{static_cast<uint32_t>(schemas_.size())});
  if (fresh) {
    if (schemas_.size() >= 4'000'000) throw LimitError("schema_size", "the schema has too many subschemas");
    schemas_.emplace_back();
    schemas_.back().json = json;
    schema_scopes_.push_back(scope);
  }
  return it->second;
}

// --- interning ----------------------------------------------------------------------------------------------------------

KeyId SchemaSet::intern_key(std::string_view key) {
  auto [it, fresh] = key_ids_.try_emplace(std::string(key), KeyId{static_cast<uint32_t>(keys_.size())});
  if (fresh) keys_.emplace_back(key);
  return it->second;
}

KeyId SchemaSet::key_id(std::string_view key) const { return key_ids_.at(std::string(key)); }

bool SchemaSet::intern_pattern(JsonId at, const std::string& keyword, std::string_view text, PatternId& out) {
  auto [it, fresh] = pattern_ids_.try_emplace(std::string(text), PatternId{static_cast<uint32_t>(patterns_.size())});
  if (fresh) {
    try {
      auto tree = parse_regex(text, RegexDialect::kEcma);
      bool certain = guiderail::certainly_matches(*tree, text);
      bool vacuous = guiderail::matches_everything(*tree);
      patterns_.push_back({std::string(text), std::move(tree), certain, vacuous});
    } catch (const GrammarError& error) {
      pattern_ids_.erase(it);
      std::string place =
          error.offset == GrammarError::kNoOffset ? "" : " at character " + std::to_string(error.offset);
      note_or_refuse(at, keyword, std::string(error.what()) + place);
      return false;
    }
  }
  out = it->second;
  return true;
}

ValueId SchemaSet::intern_value(JsonId json) {
  auto [it, fresh] = value_ids_.try_emplace(store_.canonical(json), ValueId{static_cast<uint32_t>(values_.size())});
  ValueId id = it->second;
  if (fresh) {
    values_.push_back(json);
    if (store_.is_array(json) || store_.is_object(json))
      for (uint32_t i = 0; i < store_.size(json); ++i) {
        if (store_.is_object(json)) intern_key(store_.key(json, i));
        JsonId child = store_.item(json, i);
        child_values_[static_cast<uint32_t>(child)] = intern_value(child);
      }
  }
  return id;
}

DecimalId SchemaSet::intern_decimal(std::string_view text) {
  Decimal value = Decimal::parse(text);
  auto [it, fresh] = decimal_ids_.try_emplace(value.canonical(), DecimalId{static_cast<uint32_t>(decimals_.size())});
  if (fresh) decimals_.push_back(std::move(value));
  return it->second;
}

void SchemaSet::note_or_refuse(JsonId at, const std::string& keyword, const std::string& reason) {
  std::string pointer = store_.pointer(at);
  for (char c : "/" + keyword) pointer += c;
  if (!options_.warn) throw SchemaError(reason, pointer);
  notes_.push_back({pointer, "refused", reason});
}

// --- keywords -----------------------------------------------------------------------------------------------------------

// Reads one schema object into a Schema.
class SchemaSet::Reader {
 public:
  Reader(SchemaSet& set, SchemaId id)
      : set_(set), scope_(set.schema_scopes_[static_cast<uint32_t>(id)]), json_(set[id].json) {
    schema_.json = json_;
    const Resource& resource = set.resources_[set.resource_of(json_)];
    schema_.dialect = resource.dialect;
    validation_ = resource.validation;
  }

  Schema read() {
    const JsonStore& store = set_.store_;
    switch (store.type(json_)) {
      case JsonType::kTrue: return std::move(schema_);
      case JsonType::kFalse: schema_.never = true; return std::move(schema_);
      case JsonType::kObject: break;
      default: throw SchemaError("a schema must be an object or a boolean", store.pointer(json_));
    }
    JsonId reference = store.find(json_, "$ref");
    if (reference != kNoJson && schema_.dialect <= Dialect::kDraft7) {
      keyword("$ref", reference);  // its siblings do not count in these drafts
    } else {
      for (uint32_t i = 0; i < store.size(json_); ++i) keyword(store.key(json_, i), store.item(json_, i));
      finish();
    }
    return std::move(schema_);
  }

 private:
  using Handler = void (Reader::*)(JsonId);

  bool at_least(Dialect dialect) const { return schema_.dialect >= dialect; }
  void wrong(const std::string& what) { set_.note_or_refuse(json_, keyword_, what); }
  SchemaId sub(JsonId json) { return set_.schema_at(json, scope_); }

  void keyword(std::string_view name, JsonId value) {
    static const std::unordered_map<std::string_view, Handler> handlers{
        {"$ref", &Reader::ref},
        {"$dynamicRef", &Reader::dynamic_ref},
        {"$recursiveRef", &Reader::recursive_ref},
        {"type", &Reader::type},
        {"enum", &Reader::enumeration},
        {"const", &Reader::constant},
        {"minLength", &Reader::min_length},
        {"maxLength", &Reader::max_length},
        {"pattern", &Reader::pattern},
        {"format", &Reader::format},
        {"minimum", &Reader::minimum},
        {"maximum", &Reader::maximum},
        {"exclusiveMinimum", &Reader::exclusive_minimum},
        {"exclusiveMaximum", &Reader::exclusive_maximum},
        {"multipleOf", &Reader::multiple_of},
        {"items", &Reader::items},
        {"prefixItems", &Reader::prefix_items},
        {"additionalItems", &Reader::additional_items},
        {"minItems", &Reader::min_items},
        {"maxItems", &Reader::max_items},
        {"contains", &Reader::contains},
        {"minContains", &Reader::min_contains},
        {"maxContains", &Reader::max_contains},
        {"uniqueItems", &Reader::unique_items},
        {"unevaluatedItems", &Reader::unevaluated_items},
        {"properties", &Reader::properties},
        {"patternProperties", &Reader::pattern_properties},
        {"additionalProperties", &Reader::additional_properties},
        {"propertyNames", &Reader::property_names},
        {"required", &Reader::required},
        {"minProperties", &Reader::min_properties},
        {"maxProperties", &Reader::max_properties},
        {"dependentRequired", &Reader::dependent_required},
        {"dependentSchemas", &Reader::dependent_schemas},
        {"dependencies", &Reader::dependencies},
        {"unevaluatedProperties", &Reader::unevaluated_properties},
        {"allOf", &Reader::all_of},
        {"anyOf", &Reader::any_of},
        {"oneOf", &Reader::one_of},
        {"not", &Reader::negation},
        {"if", &Reader::condition},
        {"then", &Reader::then_branch},
        {"else", &Reader::else_branch}};
    static const std::set<std::string_view> validation_keywords{
        "type",        "enum",     "const",         "minLength",        "maxLength",
        "pattern",     "minimum",  "maximum",       "exclusiveMinimum", "exclusiveMaximum",
        "multipleOf",  "minItems", "maxItems",      "minContains",      "maxContains",
        "uniqueItems", "required", "minProperties", "maxProperties",    "dependentRequired"};
    auto handler = handlers.find(name);
    if (handler == handlers.end()) return;
    if (!validation_ && validation_keywords.contains(name)) return;
    keyword_ = name;
    (this->*handler->second)(value);
  }

  void finish() {
    const JsonStore& store = set_.store_;
    if (schema_.condition == kNoSchema) schema_.then_branch = schema_.else_branch = kNoSchema;
    if (schema_.properties.size() > 12)
      for (auto [key, schema] : schema_.properties) schema_.property_index.emplace(static_cast<uint32_t>(key), schema);
    // The grammar does not remember names that no schema mentions, so one of them written twice counts as two.
    JsonId others = store.find(json_, "additionalProperties");
    if (schema_.min_properties > 1 && (others == kNoJson || store.type(others) != JsonType::kFalse))
      set_.notes_.push_back({set_.store_.pointer(json_) + "/minProperties", "approximated",
                             "an undeclared property written twice counts as two"});
    // minContains and maxContains say nothing without contains.
    if (schema_.contains == kNoSchema) {
      schema_.min_contains = 1;
      schema_.max_contains = kNoCount;
    }
    // The array form of items gives additionalItems its meaning.
    JsonId items = store.find(json_, "items"), additional = store.find(json_, "additionalItems");
    if (additional != kNoJson && items != kNoJson && store.is_array(items)) schema_.rest = sub(additional);
  }

  // --- references
  void ref(JsonId value) { reference(value, "$ref", false); }
  void dynamic_ref(JsonId value) {
    if (at_least(Dialect::k2020)) reference(value, "$dynamicRef", true);
  }
  void recursive_ref(JsonId value) {
    if (schema_.dialect == Dialect::k2019) reference(value, "$recursiveRef", true);
  }
  void reference(JsonId value, const char* name, bool follow_scope) {
    if (!set_.store_.is_string(value)) throw SchemaError("must be a string", set_.store_.pointer(json_) + "/" + name);
    bool dynamic = false;
    std::string anchor;
    JsonId target = set_.resolve(set_.store_.text(value), json_, name, dynamic, anchor);
    if (follow_scope && dynamic)
      for (const auto& [name_in_scope, json] : set_.scopes_[scope_])
        if (name_in_scope == anchor) target = json;
    schema_.references.push_back(sub(target));
  }

  // --- any type
  void type(JsonId value) {
    const JsonStore& store = set_.store_;
    TypeMask mask = 0;
    bool number = false, integer = false, bad = false;
    auto name = [&](JsonId item) {
      if (store.is_object(item) || !store.is_string(item)) return void(bad = true);
      std::string_view text = store.text(item);
      if (text == "null")
        mask = static_cast<TypeMask>(mask | type_bit(JsonType::kNull));
      else if (text == "boolean")
        mask = static_cast<TypeMask>(mask | type_bit(JsonType::kFalse) | type_bit(JsonType::kTrue));
      else if (text == "string")
        mask = static_cast<TypeMask>(mask | type_bit(JsonType::kString));
      else if (text == "array")
        mask = static_cast<TypeMask>(mask | type_bit(JsonType::kArray));
      else if (text == "object")
        mask = static_cast<TypeMask>(mask | type_bit(JsonType::kObject));
      else if (text == "number")
        number = true;
      else if (text == "integer")
        integer = true;
      else
        bad = true;
    };
    if (store.is_array(value))
      for (uint32_t i = 0; i < store.size(value); ++i) name(store.item(value, i));
    else
      name(value);
    if (bad) return wrong("unknown type");
    if (number || integer) mask = static_cast<TypeMask>(mask | type_bit(JsonType::kNumber));
    schema_.types &= mask;
    schema_.integer = integer && !number;
    schema_.integer_text = schema_.integer && schema_.dialect == Dialect::kDraft4;
  }
  void enumeration(JsonId value) {
    if (!set_.store_.is_array(value)) return wrong("must be an array");
    std::vector<ValueId> values;
    for (uint32_t i = 0; i < set_.store_.size(value); ++i)
      values.push_back(set_.intern_value(set_.store_.item(value, i)));
    schema_.enums.push_back(std::move(values));
  }
  void constant(JsonId value) {
    if (at_least(Dialect::kDraft6)) schema_.enums.push_back({set_.intern_value(value)});
  }

  // --- counts
  bool count(JsonId value, uint64_t& out) {
    if (set_.store_.type(value) == JsonType::kNumber) {
      Decimal number = Decimal::parse(set_.store_.text(value));
      if (!number.negative && number.is_integer()) {
        out = number.to_count();
        return true;
      }
    }
    wrong("must be a non-negative integer");
    return false;
  }
  void min_length(JsonId value) { count(value, schema_.min_length); }
  void max_length(JsonId value) { count(value, schema_.max_length); }
  void min_items(JsonId value) { count(value, schema_.min_items); }
  void max_items(JsonId value) { count(value, schema_.max_items); }
  void min_properties(JsonId value) { count(value, schema_.min_properties); }
  void max_properties(JsonId value) { count(value, schema_.max_properties); }
  void min_contains(JsonId value) {
    if (at_least(Dialect::k2019)) count(value, schema_.min_contains);
  }
  void max_contains(JsonId value) {
    if (at_least(Dialect::k2019)) count(value, schema_.max_contains);
  }

  // --- strings
  void pattern(JsonId value) {
    if (!set_.store_.is_string(value)) return wrong("must be a string");
    PatternId id{};
    if (set_.intern_pattern(json_, keyword_, set_.store_.text(value), id)) schema_.patterns.push_back(id);
  }
  void format(JsonId value) {
    if (!set_.store_.is_string(value)) return wrong("must be a string");
    std::string name(set_.store_.text(value)), reason;
    std::string pointer = set_.store_.pointer(json_) + "/format";
    if (!set_.options_.formats) {
      set_.notes_.push_back({pointer, "annotation", "formats=False"});
      return;
    }
    FormatStatus status = format_status(name, reason);
    if (status == FormatStatus::kUnknown)
      set_.notes_.push_back({pointer, "annotation", "unknown format '" + name + "'"});
    else
      schema_.format = name;
    if (status == FormatStatus::kApproximated) set_.notes_.push_back({pointer, "approximated", reason});
  }

  // --- numbers
  bool number(JsonId value, DecimalId& out) {
    if (set_.store_.type(value) != JsonType::kNumber) {
      wrong("must be a number");
      return false;
    }
    out = set_.intern_decimal(set_.store_.text(value));
    return true;
  }
  void bound(JsonId value, NumberLanguages::Bound kind) {
    DecimalId id{};
    if (number(value, id)) schema_.bounds.emplace_back(kind, id);
  }
  // Draft 4: exclusiveMinimum is a flag of minimum. Accepted in all drafts, where it could mean nothing else.
  bool flag(const char* name) {
    JsonId value = set_.store_.find(json_, name);
    return value != kNoJson && set_.store_.type(value) == JsonType::kTrue;
  }
  bool is_flag(JsonId value) {
    JsonType type = set_.store_.type(value);
    return type == JsonType::kTrue || type == JsonType::kFalse;
  }
  void minimum(JsonId value) {
    bound(value, flag("exclusiveMinimum") ? NumberLanguages::Bound::kGreater : NumberLanguages::Bound::kAtLeast);
  }
  void maximum(JsonId value) {
    bound(value, flag("exclusiveMaximum") ? NumberLanguages::Bound::kLess : NumberLanguages::Bound::kAtMost);
  }
  void exclusive_minimum(JsonId value) {
    if (!is_flag(value)) bound(value, NumberLanguages::Bound::kGreater);
  }
  void exclusive_maximum(JsonId value) {
    if (!is_flag(value)) bound(value, NumberLanguages::Bound::kLess);
  }
  void multiple_of(JsonId value) {
    DecimalId id{};
    if (!number(value, id)) return;
    const Decimal& divisor = set_.decimal(id);
    if (divisor.negative || divisor.is_zero()) return wrong("must be greater than 0");
    schema_.multiples.push_back(id);
  }

  // --- arrays
  void items(JsonId value) {
    if (set_.store_.is_array(value))
      prefix(value);
    else
      schema_.rest = sub(value);
  }
  void prefix(JsonId value) {
    for (uint32_t i = 0; i < set_.store_.size(value); ++i) schema_.prefix.push_back(sub(set_.store_.item(value, i)));
  }
  void prefix_items(JsonId value) {
    if (!at_least(Dialect::k2020)) return;
    if (!set_.store_.is_array(value)) return wrong("must be an array");
    prefix(value);
  }
  void additional_items(JsonId) {}  // see finish
  void contains(JsonId value) {
    if (at_least(Dialect::kDraft6)) schema_.contains = sub(value);
  }
  void unique_items(JsonId value) {
    if (!is_flag(value)) return wrong("must be a boolean");
    schema_.unique = set_.store_.type(value) == JsonType::kTrue;
  }
  void unevaluated_items(JsonId value) {
    if (at_least(Dialect::k2019)) schema_.unevaluated_items = sub(value);
  }

  // --- objects
  template <typename F>
  void each_member(JsonId value, F f) {
    if (!set_.store_.is_object(value)) return wrong("must be an object");
    for (uint32_t i = 0; i < set_.store_.size(value); ++i) f(set_.store_.key(value, i), set_.store_.item(value, i));
  }
  std::vector<KeyId> key_list(JsonId value) {
    std::vector<KeyId> keys;
    for (uint32_t i = 0; i < set_.store_.size(value); ++i) {
      JsonId item = set_.store_.item(value, i);
      if (!set_.store_.is_string(item)) {
        wrong("must be an array of strings");
        return {};
      }
      KeyId key = set_.intern_key(set_.store_.text(item));
      if (std::ranges::find(keys, key) == keys.end()) keys.push_back(key);
    }
    return keys;
  }
  void properties(JsonId value) {
    each_member(value, [&](std::string_view key, JsonId schema) {
      schema_.properties.emplace_back(set_.intern_key(key), sub(schema));
    });
  }
  void pattern_properties(JsonId value) {
    each_member(value, [&](std::string_view key, JsonId schema) {
      PatternId id{};
      if (set_.intern_pattern(json_, keyword_, key, id)) schema_.pattern_properties.emplace_back(id, sub(schema));
    });
  }
  void additional_properties(JsonId value) { schema_.additional = sub(value); }
  void property_names(JsonId value) {
    if (at_least(Dialect::kDraft6)) schema_.names = sub(value);
  }
  void required(JsonId value) {
    if (is_flag(value)) {
      set_.notes_.push_back({set_.store_.pointer(json_) + "/required", "annotation",
                             "a boolean here belongs to draft 3 and says nothing in later ones"});
      return;
    }
    if (!set_.store_.is_array(value)) return wrong("must be an array of strings");
    schema_.required = key_list(value);
  }
  void dependent_required(JsonId value) {
    if (!at_least(Dialect::k2019)) return;
    each_member(value, [&](std::string_view key, JsonId list) {
      if (!set_.store_.is_array(list)) return wrong("must hold arrays of strings");
      schema_.dependent_required.emplace_back(set_.intern_key(key), key_list(list));
    });
  }
  void dependent_schemas(JsonId value) {
    if (!at_least(Dialect::k2019)) return;
    each_member(value, [&](std::string_view key, JsonId schema) {
      schema_.dependent_schemas.emplace_back(set_.intern_key(key), sub(schema));
    });
  }
  void dependencies(JsonId value) {
    each_member(value, [&](std::string_view key, JsonId dependency) {
      KeyId id = set_.intern_key(key);
      if (set_.store_.is_array(dependency))
        schema_.dependent_required.emplace_back(id, key_list(dependency));
      else if (set_.store_.is_string(dependency))  // draft 3's short form
        schema_.dependent_required.emplace_back(id, std::vector{set_.intern_key(set_.store_.text(dependency))});
      else
        schema_.dependent_schemas.emplace_back(id, sub(dependency));
    });
  }
  void unevaluated_properties(JsonId value) {
    if (at_least(Dialect::k2019)) schema_.unevaluated_properties = sub(value);
  }

  // --- applicators
  void list(JsonId value, std::vector<SchemaId>& out) {
    if (!set_.store_.is_array(value) || set_.store_.size(value) == 0) return wrong("must be a non-empty array");
    for (uint32_t i = 0; i < set_.store_.size(value); ++i) out.push_back(sub(set_.store_.item(value, i)));
  }
  void all_of(JsonId value) { list(value, schema_.all_of); }
  void any_of(JsonId value) { list(value, schema_.any_of); }
  void one_of(JsonId value) { list(value, schema_.one_of); }
  void negation(JsonId value) { schema_.negated = sub(value); }
  void condition(JsonId value) {
    if (at_least(Dialect::kDraft7)) schema_.condition = sub(value);
  }
  void then_branch(JsonId value) {
    if (at_least(Dialect::kDraft7)) schema_.then_branch = sub(value);
  }
  void else_branch(JsonId value) {
    if (at_least(Dialect::kDraft7)) schema_.else_branch = sub(value);
  }

  SchemaSet& set_;
  uint32_t scope_;
  JsonId json_;
  Schema schema_;
  bool validation_ = true;
  std::string keyword_;
};

void SchemaSet::read(SchemaId id) {
  Schema schema = Reader(*this, id).read();
  schemas_[static_cast<uint32_t>(id)] = std::move(schema);
}

void SchemaSet::drop_unique(SchemaId id, const std::string& reason) {
  Schema& schema = schemas_[static_cast<uint32_t>(id)];
  note_or_refuse(schema.json, "uniqueItems", reason);
  schema.unique = false;
}

// --- report -------------------------------------------------------------------------------------------------------------

std::vector<SchemaReportRow> SchemaSet::report() const {
  static const std::set<std::string_view> annotations{"title",           "description",      "default",      "examples",
                                                      "deprecated",      "readOnly",         "writeOnly",    "$comment",
                                                      "contentEncoding", "contentMediaType", "contentSchema"};
  static const std::set<std::string_view> structure{
      "$schema", "$id", "id", "$anchor", "$dynamicAnchor", "$recursiveAnchor", "$defs", "definitions", "$vocabulary"};
  static const std::set<std::string_view> assertions{"$ref",
                                                     "$dynamicRef",
                                                     "$recursiveRef",
                                                     "type",
                                                     "enum",
                                                     "const",
                                                     "minLength",
                                                     "maxLength",
                                                     "pattern",
                                                     "format",
                                                     "minimum",
                                                     "maximum",
                                                     "exclusiveMinimum",
                                                     "exclusiveMaximum",
                                                     "multipleOf",
                                                     "minItems",
                                                     "maxItems",
                                                     "minContains",
                                                     "maxContains",
                                                     "uniqueItems",
                                                     "required",
                                                     "minProperties",
                                                     "maxProperties",
                                                     "dependentRequired"};
  std::vector<SchemaReportRow> rows = notes_;
  std::set<std::string> noted;
  for (const SchemaReportRow& row : notes_) noted.insert(row.pointer);
  std::set<uint32_t> seen;
  for (const Schema& schema : schemas_) {
    if (!seen.insert(static_cast<uint32_t>(schema.json)).second || !store_.is_object(schema.json)) continue;
    std::string base = store_.pointer(schema.json);
    bool reference_only = schema.dialect <= Dialect::kDraft7 && store_.find(schema.json, "$ref") != kNoJson;
    for (uint32_t i = 0; i < store_.size(schema.json); ++i) {
      std::string_view keyword = store_.key(schema.json, i);
      std::string pointer = base + "/" + std::string(keyword);
      if (noted.contains(pointer) || structure.contains(keyword)) continue;
      if (reference_only && keyword != "$ref")
        rows.push_back({pointer, "annotation", "a sibling of $ref says nothing before 2019-09"});
      else if (annotations.contains(keyword))
        rows.push_back({pointer, "annotation", ""});
      else if (assertions.contains(keyword) || subschema_keywords().contains(keyword))
        rows.push_back({pointer, "enforced", ""});
      else
        rows.push_back({pointer, "annotation", "unknown keyword"});
    }
  }
  return rows;
}

}  // namespace guiderail
