// JSON as bytes: strings with their escapes, white space by policy, and the whole of RFC 8259 as a grammar.
//
// Every lexeme carries the white space *before* it and ends with its own last byte, so white space is never ambiguous and no state of the
// automaton lies between two nullable pieces. Strings are languages over encoded characters: each may stand raw or in any of its
// escapes, so a length counts characters and a pattern sees what the string means.
//
// Policies. `flexible`: RFC white space, at most kMaxSpace characters in one place (enough for json.dumps with indent 4 to depth 9;
// a run longer than that is what a model does when it has lost its way). `compact`: none. `indent=N`: exactly what Python's json.dumps(indent=N)
// writes. Or a regular expression for what may stand between two tokens.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>

#include "core/lexer/lexicon.h"
#include "core/parser/grammar.h"
#include "core/regex/regex.h"

namespace guiderail {

// One code point out of `points`, raw or escaped, inside a JSON string.
Node json_string_encoder(Lexicon& lexicon, const CodePoints& points);

struct WhitespacePolicy {
  enum class Kind : uint8_t { kFlexible, kCompact, kIndent, kPattern };
  Kind kind = Kind::kFlexible;
  uint32_t indent = 0;
  std::shared_ptr<const RegexTree> pattern;

  static constexpr uint32_t kMaxSpace = 40;
  // "flexible", "compact", "indent=N", else a regular expression (Python's dialect). Throws GrammarError.
  static WhitespacePolicy parse(std::string_view text);
};

// How the characters of strings are written: in any way; escaped only where JSON asks for it, as json.dumps(ensure_ascii=False) does; or all but
// printable ASCII escaped, as json.dumps does.
enum class EscapePolicy : uint8_t { kAny, kNeeded, kAscii };
// "any", "needed" or "ascii". Throws GrammarError.
EscapePolicy parse_escapes(std::string_view text);

// Where a value stands; decides what comes before it. `depth` counts open brackets and stays 0 unless the policy indents.
struct JsonPlace {
  enum class Kind : uint8_t { kTop, kMember, kItem };
  Kind kind = Kind::kTop;
  uint32_t depth = 0;
  bool operator==(const JsonPlace&) const = default;
};

// The lexical pieces of a text under one policy, as nodes of one lexicon.
class JsonText {
 public:
  JsonText(Lexicon& lexicon, const WhitespacePolicy& policy, EscapePolicy escapes = EscapePolicy::kAny);

  Lexicon& lexicon() const { return lexicon_; }

  // --- strings: with their quotes, without what is around them
  EscapePolicy escapes() const { return escapes_; }
  Node character() const { return character_; }
  Node characters() const { return characters_; }  // any string body
  Node quoted(Node body) const { return concat(quote_, concat(body, quote_)); }
  Node any_string() const { return any_string_; }
  Node lengths(uint32_t min, uint32_t max) const;        // any string of so many characters
  Node spelled(std::string_view text, Node rest) const;  // every spelling of a string body, then `rest`
  // One string more in `names`, a language of string bodies with their closing quotes made by this function, or kNone: every spelling of it.
  // A trie of characters that shares what it does not change; `known` holds its parts.
  Node with_spelled(SymbolTable::NameSets& known, Node names, std::string_view text);
  // The body of `text` as json.dumps writes it, raw or ensure_ascii, then `rest`.
  Node declared(std::string_view text, Node rest) const;

  // --- structure
  JsonPlace member_place(JsonPlace object) const;
  JsonPlace item_place(JsonPlace array) const;
  Node lead(JsonPlace place) const;                     // before a value
  Node before_key(JsonPlace object, bool first) const;  // up to the opening quote, comma included
  Node colon() const { return colon_; }                 // after the closing quote, ':' included
  Node comma(JsonPlace array) const;                    // after an item
  Node close(JsonPlace container, bool empty, char bracket) const;

 private:
  Node concat(Node a, Node b) const { return lexicon_.concat(a, b); }
  Node newline(uint32_t depth) const;
  Node spellings_of(uint32_t point) const;

  Lexicon& lexicon_;
  WhitespacePolicy policy_;
  EscapePolicy escapes_;
  Node space_, quote_, character_, characters_, any_string_, colon_;
  mutable std::unordered_map<uint32_t, Node> spellings_;  // of single characters; under the growth lock
};

Node rfc8259_number(Lexicon& lexicon);

// Built-in `json`: exactly the JSON texts of RFC 8259, with white space unbounded wherever it may stand.
std::shared_ptr<const GrammarSource> json_rfc8259_source();

}  // namespace guiderail
