#include "core/parser/composite_source.h"

#include <algorithm>
#include <optional>
#include <string_view>
#include <utility>

#include "core/errors.h"
#include "core/parser/table_rules.h"
#include "core/regex/regex.h"

namespace guiderail {

namespace {

// The rules with an alternative all of whose symbols are good: a least fixpoint.
template <typename Good>
std::vector<bool> derivable(const std::vector<CompositeRule>& rules, std::size_t num_parts, Good good) {
  std::vector<bool> result(rules.size(), false);
  for (bool changed = true; changed;) {
    changed = false;
    for (std::size_t r = 0; r < rules.size(); ++r) {
      if (result[r]) continue;
      bool one = std::ranges::any_of(rules[r].alternatives, [&](const auto& alternative) {
        return std::ranges::all_of(alternative,
                                   [&](uint32_t s) { return s < num_parts ? good(s) : bool{result[s - num_parts]}; });
      });
      if (one) result[r] = changed = true;
    }
  }
  return result;
}

}  // namespace

CompositeSource::CompositeSource(std::vector<CompositePart> parts, std::vector<CompositeRule> rules, uint32_t start,
                                 std::vector<std::string> triggers)
    : parts_(std::move(parts)), rules_(std::move(rules)), start_(start), triggers_(std::move(triggers)) {
  if (start_ >= rules_.size()) throw GrammarError("the start rule is not defined");
  for (const CompositeRule& r : rules_)
    for (const auto& a : r.alternatives)
      for (uint32_t s : a)
        if (s >= parts_.size() + rules_.size()) throw GrammarError("rule '" + r.name + "' uses an undefined symbol");
  for (const CompositePart& p : parts_)
    if (p.kind == CompositePart::Kind::kTriggered && p.trigger >= triggers_.size())
      throw GrammarError("a part names a trigger that is not there");
  for (std::size_t i = 0; i < triggers_.size(); ++i) {
    if (triggers_[i].empty()) throw GrammarError("a trigger is empty");
    for (std::size_t j = 0; j < triggers_.size(); ++j)
      if (i != j && triggers_[i].find(triggers_[j]) != std::string::npos)
        throw GrammarError("the trigger '" + triggers_[i] + "' contains the trigger '" + triggers_[j] +
                           "', which would always come first");
  }
  auto productive = derivable(rules_, parts_.size(), [](uint32_t) { return true; });
  for (std::size_t r = 0; r < rules_.size(); ++r)
    if (!productive[r]) throw GrammarError("rule '" + rules_[r].name + "' derives no text");
}

// What free text can be, without a trigger (the empty string excepted: terminals are never empty) and up to one.
std::pair<Node, Node> CompositeSource::free_text(Lexicon& lexicon) const {
  Node character = encode_utf8(lexicon, {{0, 0xD7FF}, {0xE000, 0x10FFFF}});
  Node text = lexicon.concat(character, lexicon.repeat(character, 0, kUnbounded));
  if (triggers_.empty()) return {lexicon.concat(text, lexicon.accept(1)), kNone};
  std::vector<std::pair<std::string_view, Node>> bare, tagged;
  for (std::size_t i = 0; i < triggers_.size(); ++i) {
    bare.emplace_back(triggers_[i], kEpsilon);
    tagged.emplace_back(triggers_[i], lexicon.accept(static_cast<uint32_t>(i) + 2));
  }
  Node some = lexicon.concat(kAll, lexicon.literals(bare));
  Node contains = lexicon.concat(some, kAll);
  Node earlier = lexicon.concat(some, lexicon.concat(lexicon.bytes(ByteSet::all()), kAll));
  Node plain = lexicon.both({lexicon.concat(text, lexicon.accept(1)), lexicon.complement(contains)});
  Node ended = lexicon.both({lexicon.concat(lexicon.repeat(character, 0, kUnbounded), lexicon.literals(tagged)),
                             lexicon.complement(earlier)});
  return {plain, ended};
}

OpenGrammar CompositeSource::open(SymbolTable& symbols) const {
  auto owned = std::make_unique<TableRules>();
  TableRules* provider = owned.get();
  OpenGrammar result;
  std::vector<std::vector<Symbol>> part_symbols;  // of an empty literal: none
  std::vector<bool> part_nullable;
  std::optional<std::pair<Node, Node>> text;  // plain, and up to a trigger
  for (const CompositePart& p : parts_) {
    bool nullable = false;
    std::vector<Symbol> one;
    switch (p.kind) {
      case CompositePart::Kind::kSource: {
        one.push_back(open_part(*p.source, symbols, result.providers));
        nullable = !is_terminal(one[0]) && symbols.nonterminal_info(one[0]).nullable;
        break;
      }
      case CompositePart::Kind::kLiteral:
        nullable = p.text.empty();
        if (!nullable) one.push_back(symbols.terminal(symbols.lexicon().literal(p.text), 0, "'" + p.text + "'"));
        break;
      case CompositePart::Kind::kSpecial: one.push_back(symbols.special_token(p.text)); break;
      case CompositePart::Kind::kFreeText:
      case CompositePart::Kind::kTriggered: {
        if (!text) text = free_text(symbols.lexicon());
        bool plain = p.kind == CompositePart::Kind::kFreeText;
        one.push_back(
            symbols.terminal(plain ? text->first : text->second, plain ? 1 : p.trigger + 2,
                             plain ? std::string("free text") : "free text up to '" + triggers_[p.trigger] + "'"));
        break;
      }
    }
    part_symbols.push_back(std::move(one));
    part_nullable.push_back(nullable);
  }
  std::vector<bool> nullable = derivable(rules_, parts_.size(), [&](uint32_t s) { return bool{part_nullable[s]}; });
  std::vector<Symbol> rule_symbols;
  for (uint32_t r = 0; r < rules_.size(); ++r) rule_symbols.push_back(symbols.nonterminal(provider, r, nullable[r]));
  for (const CompositeRule& r : rules_) {
    provider->names.push_back(r.name);
    auto& productions = provider->productions_of.emplace_back();
    for (const auto& alternative : r.alternatives) {
      std::vector<Symbol> sequence;
      for (uint32_t s : alternative) {
        if (s >= parts_.size())
          sequence.push_back(rule_symbols[s - parts_.size()]);
        else
          sequence.insert(sequence.end(), part_symbols[s].begin(), part_symbols[s].end());
      }
      productions.push_back(std::move(sequence));
    }
  }
  result.start = rule_symbols[start_];
  result.providers.push_back(std::move(owned));
  return result;
}

}  // namespace guiderail
