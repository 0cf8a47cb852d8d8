// A JSON Schema as a grammar: the texts of the JSON values that satisfy it.
//
//   value(shape, place)   →  scalar | "{" members | "[" items
//   members(state, first) →  "}" | key value members(state')      one alternative per key and case
//   items(R, first)       →  "]" | "," value items(R')            one alternative per case
//
// Terminals carry all punctuation and white space (json/text.h). What may come next where several terminals share a node: a value is one
// automaton whose tags say string, number, word or bracket; the declared names of an object are one automaton with a tag per name; a string body is the same
// node in every schema, so its token masks are computed once per vocabulary.
#pragma once

#include <memory>
#include <string_view>
#include <vector>

#include "core/json/schema_document.h"
#include "core/json/text.h"
#include "core/parser/grammar.h"

namespace guiderail {

class JsonSchemaSource : public GrammarSource {
 public:
  // Throws SchemaError (with pointer), GrammarError (white space pattern) or LimitError.
  JsonSchemaSource(std::string_view schema, const JsonSchemaOptions& options);

  // Throws SchemaError, unsatisfiable, if no text satisfies the schema.
  OpenGrammar open(SymbolTable& symbols) const override;
  std::vector<SchemaReportRow> report() const;

 private:
  std::shared_ptr<const SchemaSet> schemas_;
  WhitespacePolicy whitespace_;
};

}  // namespace guiderail
