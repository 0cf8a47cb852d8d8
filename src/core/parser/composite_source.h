// Grammars put together from other grammars: free text up to a trigger, then the rules of any source, then free text again.
//
// A rule of the composite is a sequence of parts. A part is another grammar (its start symbol, an ordinary nonterminal of another provider), a literal,
// a special token, or free text. Free text is two lexemes: one that contains no trigger (an unfinished one at its end is text), and one
// that the first trigger in it ends, with a tag for each trigger, so that however many triggers there are, a position inside free
// text is at most two threads. They are two because after the last tag only the first may come, and a token that finishes a trigger would lead nowhere.
//
// No trigger may contain another one, so 'first' has one meaning.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "core/parser/grammar.h"

namespace guiderail {

struct CompositePart {
  enum class Kind : uint8_t { kSource, kLiteral, kSpecial, kFreeText, kTriggered };
  Kind kind;
  std::string text;                             // of a literal, of a special token
  std::shared_ptr<const GrammarSource> source;  // of kSource
  uint32_t trigger = 0;                         // of kTriggered
};

struct CompositeRule {
  std::string name;
  // Symbols: parts as their index, rules as their index + number of parts.
  std::vector<std::vector<uint32_t>> alternatives;
};

class CompositeSource : public GrammarSource {
 public:
  // kFreeText is at least one character. Throws GrammarError if a symbol is out of range, a trigger is empty or contains another, or a rule derives
  // no text.
  CompositeSource(std::vector<CompositePart> parts, std::vector<CompositeRule> rules, uint32_t start,
                  std::vector<std::string> triggers);
  OpenGrammar open(SymbolTable& symbols) const override;

 private:
  std::pair<Node, Node> free_text(Lexicon& lexicon) const;

  std::vector<CompositePart> parts_;
  std::vector<CompositeRule> rules_;
  uint32_t start_;
  std::vector<std::string> triggers_;
};

}  // namespace guiderail
