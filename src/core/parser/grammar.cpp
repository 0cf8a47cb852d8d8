#include "core/parser/grammar.h"

#include <stdexcept>
#include <utility>

#include "core/errors.h"

namespace guiderail {

Symbol SymbolTable::nonterminal(RuleProvider* provider, uint32_t local, bool nullable) {
  std::size_t index = nonterminals_.emplace_back(Nonterminal{provider, local, nullable});
  if (index >= kCaptureBit) throw LimitError("symbols", "too many nonterminals");
  return Symbol{static_cast<uint32_t>(index)};
}

Symbol SymbolTable::terminal(Node start, uint32_t tag, std::string_view name) {
  uint64_t key = (uint64_t{static_cast<uint32_t>(start)} << 32) | tag;
  auto [it, fresh] = terminal_ids_.try_emplace(key, Symbol{});
  if (fresh) {
    std::size_t index = terminals_.emplace_back(Terminal{start, tag, std::string(name), {}, 0});
    it->second = Symbol{static_cast<uint32_t>(index) | kTerminalBit};
  }
  return it->second;
}

Symbol SymbolTable::terminal(std::vector<Node> starts, uint32_t next_lexer, std::string name) {
  Node any = lexicon_->either(starts);
  std::size_t index = terminals_.emplace_back(Terminal{any, 0, std::move(name), std::move(starts), next_lexer});
  return Symbol{static_cast<uint32_t>(index) | kTerminalBit};
}

Symbol SymbolTable::capture(RuleProvider* provider, uint32_t local, Symbol generic, bool doubtful) {
  std::size_t index = captures_.emplace_back(Capture{provider, local, generic, doubtful});
  if (index >= kCaptureBit) throw LimitError("symbols", "too many captures");
  return Symbol{static_cast<uint32_t>(index) | kCaptureBit};
}

Symbol RuleProvider::captured(uint32_t, std::string_view) {
  throw std::logic_error("a capture was registered by a provider that takes none");
}

Symbol SymbolTable::special_token(const std::string& text) {
  auto [it, fresh] = special_ids_.try_emplace(text, Symbol{});
  if (fresh) {
    std::size_t index =
        terminals_.emplace_back(Terminal{kNone, static_cast<uint32_t>(special_tokens_.size()), text, {}, 0});
    special_tokens_.push_back(text);
    it->second = Symbol{static_cast<uint32_t>(index) | kTerminalBit};
  }
  return it->second;
}

}  // namespace guiderail
