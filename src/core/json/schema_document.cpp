#include "core/json/schema_document.h"

#include <algorithm>
#include <array>
#include <utility>

#include "core/errors.h"
#include "core/json/schema_keywords.h"
#include "core/json/uri.h"

namespace guiderail {
namespace {

// The anchor under which $recursiveAnchor is kept beside the names of $dynamicAnchor.
const std::string kRecursive = "\x01";

constexpr std::array<std::pair<std::string_view, Dialect>, 6> kDialects{
    {{"http://json-schema.org/draft-04/schema", Dialect::kDraft4},
     {"http://json-schema.org/draft-06/schema", Dialect::kDraft6},
     {"http://json-schema.org/draft-07/schema", Dialect::kDraft7},
     {"https://json-schema.org/draft/2019-09/schema", Dialect::k2019},
     {"https://json-schema.org/draft/2020-12/schema", Dialect::k2020},
     {"http://json-schema.org/schema", Dialect::k2020}}};

}  // namespace

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

}  // namespace guiderail
