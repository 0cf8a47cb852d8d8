// JSON Schema as read: documents, dialects, identifiers and references resolved, keywords typed.
//
// A `Schema` is one schema object under one dynamic scope: what `$dynamicRef` and `$recursiveRef` mean depends on the resources that were
// entered on the way, so the same object met through another way is another schema. Everything reachable from the root is read when the
// source is made, in one pass without recursion over references; after that a SchemaSet is immutable and shared by all engines.
//
// What a keyword says that cannot be enforced is refused with its JSON pointer, or, under on_unsupported = warn, ignored and reported.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "core/json/decimal.h"
#include "core/json/number.h"
#include "core/json/value.h"
#include "core/regex/regex.h"

namespace guiderail {

enum class SchemaId : uint32_t {};
enum class KeyId : uint32_t {};      // a property name that some schema mentions
enum class PatternId : uint32_t {};  // a regular expression
enum class ValueId : uint32_t {};    // a JSON value up to JSON Schema's equality
enum class DecimalId : uint32_t {};
inline constexpr SchemaId kNoSchema{UINT32_MAX};
inline constexpr uint64_t kNoCount = UINT64_MAX;

enum class Dialect : uint8_t { kDraft4, kDraft6, kDraft7, k2019, k2020 };

using TypeMask = uint8_t;  // bit t: JsonType t
inline constexpr TypeMask kAnyType = 0x7F;
constexpr TypeMask type_bit(JsonType type) { return static_cast<TypeMask>(1u << static_cast<unsigned>(type)); }

struct Schema {
  JsonId json{};
  Dialect dialect = Dialect::k2020;
  bool never = false;  // `false`

  TypeMask types = kAnyType;
  bool integer = false;                     // numbers: only integers, by value
  bool integer_text = false;                // draft 4: written without a fraction
  std::vector<std::vector<ValueId>> enums;  // one list per enum or const

  uint64_t min_length = 0, max_length = kNoCount;
  std::vector<PatternId> patterns;
  std::string format;                // empty: none that is checked
  std::vector<std::string> content;  // draft 7: languages of json/format.h for contentEncoding and contentMediaType

  std::vector<std::pair<NumberLanguages::Bound, DecimalId>> bounds;
  std::vector<DecimalId> multiples;

  std::vector<SchemaId> prefix;
  SchemaId rest = kNoSchema;  // items beyond the prefix
  uint64_t min_items = 0, max_items = kNoCount;
  SchemaId contains = kNoSchema;
  uint64_t min_contains = 1, max_contains = kNoCount;
  bool unique = false;
  SchemaId unevaluated_items = kNoSchema;

  std::vector<std::pair<KeyId, SchemaId>> properties;     // as declared
  std::unordered_map<uint32_t, SchemaId> property_index;  // only if there are many
  std::vector<std::pair<PatternId, SchemaId>> pattern_properties;
  SchemaId additional = kNoSchema;
  SchemaId names = kNoSchema;
  std::vector<KeyId> required;
  uint64_t min_properties = 0, max_properties = kNoCount;
  std::vector<std::pair<KeyId, std::vector<KeyId>>> dependent_required;
  std::vector<std::pair<KeyId, SchemaId>> dependent_schemas;
  SchemaId unevaluated_properties = kNoSchema;

  std::vector<SchemaId> references;  // $ref, $dynamicRef, $recursiveRef
  std::vector<SchemaId> all_of, any_of, one_of;
  SchemaId negated = kNoSchema;
  SchemaId condition = kNoSchema, then_branch = kNoSchema, else_branch = kNoSchema;

  bool has_items() const { return !prefix.empty() || rest != kNoSchema; }
  bool has_properties() const { return !properties.empty() || !pattern_properties.empty() || additional != kNoSchema; }
  SchemaId property(KeyId key) const;  // kNoSchema if not declared
};

struct SchemaReportRow {
  std::string pointer, status, reason;
};

struct JsonSchemaOptions {
  std::string whitespace = "flexible";
  std::string escapes = "any";  // see EscapePolicy
  bool free_order = false;
  bool strict = false;
  bool warn = false;  // on_unsupported
  bool formats = true;
  std::string dialect;                          // URI; empty: what $schema says, else 2020-12
  std::map<std::string, std::string> registry;  // URI → text of a schema
};

class SchemaSet {
 public:
  SchemaSet(std::string_view schema, const JsonSchemaOptions& options);

  SchemaId root() const { return root_; }
  const Schema& operator[](SchemaId id) const { return schemas_[static_cast<uint32_t>(id)]; }
  std::size_t size() const { return schemas_.size(); }
  const JsonStore& store() const { return store_; }
  const std::string& key(KeyId id) const { return keys_[static_cast<uint32_t>(id)]; }
  std::size_t num_keys() const { return keys_.size(); }
  const RegexTree& pattern(PatternId id) const { return *patterns_[static_cast<uint32_t>(id)].tree; }
  const std::string& pattern_text(PatternId id) const { return patterns_[static_cast<uint32_t>(id)].text; }
  bool certainly_matches(PatternId id) const { return patterns_[static_cast<uint32_t>(id)].certain; }
  bool matches_everything(PatternId id) const { return patterns_[static_cast<uint32_t>(id)].vacuous; }
  JsonId value(ValueId id) const { return values_[static_cast<uint32_t>(id)]; }
  // The value of an array item or object member of an enumerated value, as a value of its own.
  ValueId value_id(JsonId json) const { return child_values_.at(static_cast<uint32_t>(json)); }
  // The property name of a member of an enumerated object.
  KeyId key_id(std::string_view key) const;
  bool has_key(std::string_view key) const { return key_ids_.contains(std::string(key)); }
  // A value that a text contains, in a private copy of the set.
  ValueId add_value(std::string_view json) { return intern_value(store_.parse(json)); }
  // A name that a pattern admits, in a private copy of the set.
  KeyId add_key(std::string_view key) { return intern_key(key); }
  bool from_schema(ValueId id) const { return static_cast<uint32_t>(id) < num_schema_values_; }
  const Decimal& decimal(DecimalId id) const { return decimals_[static_cast<uint32_t>(id)]; }
  std::string pointer(SchemaId id) const { return store_.pointer((*this)[id].json); }

  // A row per keyword of the schema that is reachable from the root.
  std::vector<SchemaReportRow> report() const;
  // The report's rows that are not 'enforced': known once the schema is read.
  const std::vector<SchemaReportRow>& notes() const { return notes_; }
  // Takes uniqueItems of a schema out, with a note; throws where the options say so. Only before the set is shared.
  void drop_unique(SchemaId id, const std::string& reason);
  const JsonSchemaOptions& options() const { return options_; }

 private:
  struct Resource {
    JsonId root;
    std::string base;
    Dialect dialect;
    bool validation;  // its meta-schema has the validation vocabulary
    std::unordered_map<std::string, JsonId> anchors;
    std::map<std::string, JsonId> dynamic_anchors;
  };
  struct Pattern {
    std::string text;
    std::shared_ptr<const RegexTree> tree;
    bool certain;  // some text certainly matches
    bool vacuous;  // every text certainly matches
  };
  using Scope = std::vector<std::pair<std::string, JsonId>>;
  class Reader;
  friend class Reader;

  void load(JsonId root, const std::string& base, Dialect dialect, bool validation);
  void scan(JsonId json, uint32_t resource);
  uint32_t resource_of(JsonId json);
  std::pair<Dialect, bool> dialect_of(std::string_view uri, JsonId at, Dialect inherited);
  JsonId resolve(std::string_view reference, JsonId at, const char* keyword, bool& dynamic, std::string& anchor);
  JsonId follow_pointer(JsonId root, std::string_view pointer);
  uint32_t enter(uint32_t scope, uint32_t resource);
  SchemaId schema_at(JsonId json, uint32_t scope);
  void read(SchemaId id);
  void note_or_refuse(JsonId at, const std::string& keyword, const std::string& reason);
  KeyId intern_key(std::string_view key);
  // False if the pattern was refused and the options say to go on.
  bool intern_pattern(JsonId at, const std::string& keyword, std::string_view text, PatternId& out);
  ValueId intern_value(JsonId json);
  DecimalId intern_decimal(std::string_view text);

  const JsonSchemaOptions options_;
  JsonStore store_;
  std::vector<Resource> resources_;
  std::unordered_map<std::string, uint32_t> resource_ids_;  // by URI
  std::unordered_map<uint32_t, uint32_t> resource_at_;      // schema position → resource
  std::vector<Scope> scopes_;
  std::map<Scope, uint32_t> scope_ids_;
  std::vector<Schema> schemas_;
  std::vector<uint32_t> schema_scopes_;
  std::unordered_map<uint64_t, SchemaId> schema_ids_;
  std::vector<std::string> keys_;
  std::unordered_map<std::string, KeyId> key_ids_;
  std::vector<Pattern> patterns_;
  std::unordered_map<std::string, PatternId> pattern_ids_;
  std::vector<JsonId> values_;
  std::unordered_map<std::string, ValueId> value_ids_;
  std::unordered_map<uint32_t, ValueId> child_values_;
  std::vector<Decimal> decimals_;
  std::unordered_map<std::string, DecimalId> decimal_ids_;
  SchemaId root_ = kNoSchema;
  std::size_t num_schema_values_ = 0;
  std::vector<SchemaReportRow> notes_;
};

}  // namespace guiderail
