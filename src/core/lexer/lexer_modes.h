// Modes of longest match: which terminals compete with which.
//
// Every terminal belongs to one mode. A lexeme must be the longest match among the terminals of its own mode; what those of other modes
// would match does not count. So the text of an f-string and the expressions in its fields can have lexers of their own, and which of them
// reads on is the parser's affair: it asks for terminals, and those know their mode. Mode 0 holds the ignored terminals; a mode
// says whether they may stand before its terminals.
//
// Terminals of the other modes carry their mode as their tag, so terminals of equal texts stay apart. A grammar without modes has one, mode 0.
//
// Of a grammar with parts (SymbolTable::Parts), mode 0 is that of all that is lexed freely, where nothing competes, and each other part has modes
// of its own, ignored terminals included.
#pragma once

#include <cstdint>
#include <unordered_map>
#include <vector>

#include "core/lexer/lexicon.h"
#include "core/parser/grammar.h"

namespace guiderail {

class LexerModes {
 public:
  LexerModes() = default;
  // After the grammar has been opened: its terminals are in `symbols`.
  LexerModes(const OpenGrammar& grammar, SymbolTable& symbols) {
    for (const LexerMode& mode : grammar.modes) {
      unions_.push_back(symbols.lexicon().either(mode.competitors));
      skips_.push_back(mode.skips);
    }
    if (single()) return;
    for (std::size_t t = 0; t < symbols.num_terminals(); ++t) {
      const auto& info = symbols.terminal_info(Symbol{static_cast<uint32_t>(t) | kTerminalBit});
      if (info.start != kNone && info.mode != 0) mode_of_.emplace(static_cast<uint32_t>(info.start), info.mode);
    }
  }

  // Does every terminal compete with every other? (Also where nothing competes: free lexing.)
  bool single() const { return unions_.size() <= 1; }
  // Who competes with the terminals of `group` from their first byte on; kNone under free lexing.
  Node competing_with(Node group) const {
    if (single()) return unions_.empty() ? kNone : unions_[0];
    return unions_[mode(group)];
  }
  // May ignored lexemes stand before the terminals of `group`?
  bool skips(Node group) const { return single() || skips_[mode(group)]; }
  // The union of each mode.
  const std::vector<Node>& unions() const { return unions_; }

 private:
  uint32_t mode(Node group) const {
    auto found = mode_of_.find(static_cast<uint32_t>(group));
    return found == mode_of_.end() ? 0 : found->second;
  }

  std::vector<Node> unions_;
  std::vector<bool> skips_;
  std::unordered_map<uint32_t, uint32_t> mode_of_;  // groups of modes other than 0
};

}  // namespace guiderail
