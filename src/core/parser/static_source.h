// Grammars given as a table of rules over terminals: what the Lark, GBNF, regex and choice front ends produce.
//
// Under free lexing the boundaries between lexemes carry no meaning, so a rule that is not recursive is a regular expression and becomes a single terminal;
// what is left for the parser is what nests.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "core/parser/grammar.h"
#include "core/regex/regex.h"

namespace guiderail {

struct StaticTerminal {
  // kBlock: the empty string, an indent or dedent. kPart: a text of another grammar.
  enum class Kind : uint8_t { kLiteral, kRegex, kLanguage, kSpecial, kBlock, kPart };
  Kind kind;
  std::string
      text;  // bytes of a literal; name of a special token; pattern of a regex; tree of a language (regex/terminal_language.h)
  std::shared_ptr<const RegexTree> regex;       // of a regex
  std::shared_ptr<const GrammarSource> source;  // of a part
  std::string name;
  int priority = 0;   // munch: higher wins ties; all different
  uint32_t mode = 0;  // munch: see lexer_modes.h
};

struct StaticRule {
  std::string name;
  // Symbols: terminals as their index, then shifts, then nonterminals.
  std::vector<std::vector<uint32_t>> alternatives;
};

// IndentationRule, by indices of terminals.
struct StaticIndentation {
  uint32_t newline, indent, dedent;
  std::vector<uint32_t> opens, closes;
  uint32_t tab_width;
  bool as_python = false;
};

// One lexer of Lexing::kOrdered, terminals by index: at each place the first of `patterns` that re.match takes wins. Where all that it took is a text of
// one of `replaced[pattern]` as well, the first such terminal stands for it.
struct StaticLexer {
  std::vector<uint32_t> patterns;
  std::vector<std::pair<uint32_t, std::vector<uint32_t>>> replaced;
};

class StaticSource : public GrammarSource {
 public:
  // `lexers`: of Lexing::kOrdered. `shifts`: symbols that stand for (terminal, index of the lexer that reads on behind it).
  // `skips`: for each mode of terminals from 1 on, may ignored lexemes stand before them?
  // Throws GrammarError if a symbol is out of range, the language is empty, or a terminal matches the empty string under munch.
  StaticSource(std::vector<StaticTerminal> terminals, std::vector<StaticRule> rules, uint32_t start, Lexing lexing,
               std::vector<uint32_t> ignored, std::optional<StaticIndentation> indentation = {},
               std::vector<StaticLexer> lexers = {}, std::vector<std::pair<uint32_t, uint32_t>> shifts = {},
               std::vector<bool> skips = {});
  OpenGrammar open(SymbolTable& symbols) const override;
  bool lexed_freely() const override { return lexing_ == Lexing::kFree && ignored_.empty(); }

 private:
  void check_modes() const;

  std::vector<StaticTerminal> terminals_;
  std::vector<StaticRule> rules_;
  uint32_t start_;  // index into rules_
  Lexing lexing_;
  std::vector<uint32_t> ignored_;
  std::optional<StaticIndentation> indentation_;
  std::vector<StaticLexer> lexers_;
  std::vector<std::pair<uint32_t, uint32_t>> shifts_;
  std::vector<bool> skips_;  // by mode
};

}  // namespace guiderail
