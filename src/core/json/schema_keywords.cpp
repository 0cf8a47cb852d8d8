// One schema object → a Schema: every keyword with its dialect's meaning, values interned.
#include "core/json/schema_keywords.h"

#include <algorithm>
#include <set>
#include <utility>

#include "core/errors.h"
#include "core/json/format.h"
#include "core/json/pattern.h"
#include "core/json/schema_document.h"

namespace guiderail {

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

SchemaId Schema::property(KeyId key) const {
  if (!property_index.empty()) {
    auto found = property_index.find(static_cast<uint32_t>(key));
    return found == property_index.end() ? kNoSchema : found->second;
  }
  for (auto [name, schema] : properties)
    if (name == key) return schema;
  return kNoSchema;
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
        {"contentEncoding", &Reader::content_encoding},
        {"contentMediaType", &Reader::content_media_type},
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

  // Draft 7 lets them be asserted; before it they are unknown, and since 2019-09 they are annotations.
  bool content_is_checked() const { return schema_.dialect == Dialect::kDraft7 && set_.options_.formats; }
  void content_encoding(JsonId value) {
    if (!content_is_checked() || !set_.store_.is_string(value) || set_.store_.text(value) != "base64") return;
    schema_.content.emplace_back(kContentBase64);
    set_.notes_.push_back({set_.store_.pointer(json_) + "/contentEncoding", "enforced", ""});
  }
  void content_media_type(JsonId value) {
    if (!content_is_checked() || !set_.store_.is_string(value) || set_.store_.text(value) != "application/json") return;
    JsonId encoding = set_.store_.find(json_, "contentEncoding");
    if (encoding != kNoJson && set_.store_.is_string(encoding) && set_.store_.text(encoding) == "base64")
      return wrong("JSON inside base64 cannot be enforced");
    schema_.content.emplace_back(kContentJson);
    set_.notes_.push_back(
        {set_.store_.pointer(json_) + "/contentMediaType", "approximated", "arrays and objects nest to depth 4 only"});
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

}  // namespace guiderail
