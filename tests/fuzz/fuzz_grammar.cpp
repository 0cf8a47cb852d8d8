// Grammars as tables of rules: bytes → terminals, rules, lexing, vocabulary, then choices of tokens. Whatever the table is, it is
// refused with one of the core's errors, or the laws of matchers hold in it.
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "core/errors.h"
#include "core/parser/static_source.h"
#include "tiny_vocabulary.h"

using namespace guiderail;

namespace {

// Reads the input byte by byte; zeros where it ends.
class Reader {
 public:
  Reader(const uint8_t* data, std::size_t size) : rest_(data, size) {}
  uint8_t byte() {
    if (rest_.empty()) return 0;
    uint8_t value = rest_.front();
    rest_ = rest_.subspan(1);
    return value;
  }
  uint32_t below(uint32_t n) { return byte() % n; }
  std::span<const uint8_t> rest() const { return rest_; }

 private:
  std::span<const uint8_t> rest_;
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, std::size_t size) {
  static const char* const kPatterns[] = {"a",    "b+",         "[ab]*b",       "a|ab", "(?:ab)+?c", "a{2,4}",
                                          "[^a]", "\"[^\"]*\"", "(?=ab)[abc]+", "a*",   "(?<!a)b",   "c??"};
  Reader in(data, size);
  uint8_t options = in.byte();
  Limits limits;
  limits.lexer_states_per_request = 20'000;
  limits.munch_states = 20'000;
  limits.states = 20'000;
  limits.grammar_bytes = limits.request_bytes = limits.mask_bytes = std::size_t{1} << 25;
  try {
    std::vector<StaticTerminal> terminals(1 + in.below(4));
    for (std::size_t i = 0; i < terminals.size(); ++i) {
      StaticTerminal& terminal = terminals[i];
      terminal.name = "T" + std::to_string(i);
      terminal.priority = -static_cast<int>(i);
      if (in.byte() & 1) {
        terminal.kind = StaticTerminal::Kind::kLiteral;
        for (uint32_t n = in.below(4); n; --n) terminal.text += static_cast<char>('a' + in.below(3));
      } else {
        terminal.kind = StaticTerminal::Kind::kRegex;
        terminal.text = kPatterns[in.below(std::size(kPatterns))];
        terminal.regex = parse_regex(terminal.text, RegexDialect::kPython);
      }
    }
    std::vector<StaticRule> rules(1 + in.below(4));
    uint32_t symbols = static_cast<uint32_t>(terminals.size() + rules.size());
    for (std::size_t i = 0; i < rules.size(); ++i) {
      rules[i].name = "r" + std::to_string(i);
      rules[i].alternatives.resize(1 + in.below(3));
      for (auto& alternative : rules[i].alternatives)
        for (uint32_t n = in.below(4); n; --n) alternative.push_back(in.below(symbols));
    }
    std::vector<uint32_t> ignored;
    if (options & 1) ignored.push_back(in.below(static_cast<uint32_t>(terminals.size())));
    // Half of the vocabularies cannot write every text.
    auto vocabulary = fuzz::tiny_vocabulary(options & 2 ? "abc\"" : "a", {"ab", "bb", "abc", "ca", "\"a", "cc"});
    auto source = std::make_shared<const StaticSource>(
        std::move(terminals), std::move(rules), 0, options & 4 ? Lexing::kMunch : Lexing::kFree, std::move(ignored));
    auto compiled = std::make_shared<CompiledGrammar>(source, vocabulary, nullptr, limits);
    auto choices = in.rest();
    fuzz::check_laws(compiled, choices.first(std::min<std::size_t>(choices.size(), 12)));
  } catch (const GrammarError&) {
  } catch (const LimitError&) {
  } catch (const DeadEndError&) {}
  return 0;
}
