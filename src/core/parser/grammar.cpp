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

Symbol SymbolTable::terminal(Node start, uint32_t tag, std::string_view name, uint32_t mode, uint32_t next_lexer) {
  uint64_t key = (uint64_t{static_cast<uint32_t>(start)} << 32) | tag;
  auto [it, fresh] = terminal_ids_.try_emplace(key, Symbol{});
  if (fresh) {
    std::size_t index = terminals_.emplace_back(Terminal{start, tag, std::string(name), {}, next_lexer, mode});
    it->second = Symbol{static_cast<uint32_t>(index) | kTerminalBit};
  }
  return it->second;
}

Symbol SymbolTable::terminal(std::vector<Node> starts, uint32_t next_lexer, std::string name) {
  Node any = lexicon_->either(starts);
  std::size_t index = terminals_.emplace_back(Terminal{any, 0, std::move(name), std::move(starts), next_lexer, 0});
  return Symbol{static_cast<uint32_t>(index) | kTerminalBit};
}

Symbol SymbolTable::border(Border kind, uint32_t next_lexer) {
  constexpr uint32_t kTag = uint32_t{1} << 28;  // never reported: no lexeme of it is begun
  Node start = lexicon_->accept(kTag + static_cast<uint32_t>(terminals_.size()));
  Symbol symbol = terminal(start, 0, kind == Border::kEnter ? "(a part begins)" : "(a part ends)", 0, next_lexer);
  terminals_[index_of(symbol)].border = kind;
  return symbol;
}

Symbol SymbolTable::capture(RuleProvider* provider, uint32_t local, Symbol generic, bool doubtful) {
  std::size_t index = captures_.emplace_back(Capture{provider, local, generic, doubtful});
  if (index >= kCaptureBit) throw LimitError("symbols", "too many captures");
  return Symbol{static_cast<uint32_t>(index) | kCaptureBit};
}

Symbol RuleProvider::captured(uint32_t, std::string_view) {
  throw std::logic_error("a capture was registered by a provider that takes none");
}

Node RuleProvider::with_name(Node, std::string_view) {
  throw std::logic_error("a name was registered by a provider that has none");
}

std::string RuleProvider::name_of(std::string_view) {
  throw std::logic_error("a name was registered by a provider that has none");
}

void SymbolTable::as_name(Symbol terminal, RuleProvider* provider, Node before, Node name, Node after, bool alone) {
  names_.try_emplace(static_cast<uint32_t>(terminal_info(terminal).start), Name{provider, before, name, after, alone});
}

Symbol SymbolTable::special_token(const std::string& text) {
  auto [it, fresh] = special_ids_.try_emplace({text, parts_.lexer}, Symbol{});
  if (fresh) {
    std::size_t index = terminals_.emplace_back(
        Terminal{kNone, static_cast<uint32_t>(special_tokens_.size()), text, {}, parts_.lexer, 0});
    special_tokens_.push_back(text);
    it->second = Symbol{static_cast<uint32_t>(index) | kTerminalBit};
  }
  return it->second;
}

namespace {

class PartRules : public RuleProvider {
 public:
  PartRules(Symbol enter, Symbol content, Symbol leave) : symbols_{enter, content, leave} {}
  void productions(uint32_t, Productions& out) override { out.add(symbols_); }
  std::string name(uint32_t) const override { return "part"; }

 private:
  std::vector<Symbol> symbols_;
};

}  // namespace

Symbol open_part(const GrammarSource& source, SymbolTable& symbols,
                 std::vector<std::unique_ptr<RuleProvider>>& providers) {
  SymbolTable::Parts& parts = symbols.parts();
  const uint32_t outside = parts.lexer, known = parts.num_lexers;
  const uint32_t inside = source.lexed_freely() ? 0 : parts.num_lexers++;
  parts.lexer = inside;
  OpenGrammar inner = source.open(symbols);
  parts.lexer = outside;
  bool free = inside == 0 && parts.num_lexers == known;
  for (auto& provider : inner.providers) {
    provider->free_part = provider->free_part || free;
    providers.push_back(std::move(provider));
  }
  if (inside == outside) return inner.start;
  auto owned = std::make_unique<PartRules>(symbols.border(SymbolTable::Border::kEnter, inside), inner.start,
                                           symbols.border(SymbolTable::Border::kLeave, outside));
  Symbol part = symbols.nonterminal(owned.get(), 0);
  providers.push_back(std::move(owned));
  return part;
}

}  // namespace guiderail
