// What became of each keyword: the report of a schema, row by row.
#include <set>

#include "core/json/schema_document.h"
#include "core/json/schema_keywords.h"

namespace guiderail {

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
