#include "core/explanation.h"

#include <algorithm>
#include <string_view>
#include <unordered_set>

namespace guiderail {

namespace {

constexpr std::size_t kMaxVisits = 2'000;

// A short text of `node` that ends with the tag, of ordinary characters where they will do.
std::string example(Lexicon& lexicon, Node node, uint32_t tag) {
  static constexpr std::string_view kPreferred =
      "axn10_ABC \"'=+-*/.,;:()[]{}<>#\nbcdefghijklmopqrstuvwyzDEFGHIJKLMNOPQRSTUVWXYZ23456789\t!?@$%^&|~`\\";
  struct Visit {
    Node node;
    std::size_t parent;
    char byte;
  };
  std::vector<Visit> visits{{node, SIZE_MAX, 0}};
  std::unordered_set<uint32_t> seen;  // not yet the node itself, which may come back
  for (std::size_t at = 0; at < visits.size() && visits.size() < kMaxVisits; ++at) {
    Node here = visits[at].node;
    if (at > 0 && lexicon.nullable(here) && std::ranges::find(lexicon.tags(here), tag) != lexicon.tags(here).end()) {
      std::string text;
      for (std::size_t v = at; v != 0; v = visits[v].parent) text.push_back(visits[v].byte);
      std::ranges::reverse(text);
      return text;
    }
    ByteSet first = lexicon.first_bound(here);
    auto visit = [&](uint8_t byte) {
      Node next = first.has(byte) ? lexicon.step(here, byte) : kNone;
      if (next != kNone && seen.insert(static_cast<uint32_t>(next)).second)
        visits.push_back({next, at, static_cast<char>(byte)});
    };
    for (char c : kPreferred) visit(static_cast<uint8_t>(c));
    for (uint32_t byte = 0x80; byte < 0xF8; ++byte) visit(static_cast<uint8_t>(byte));
    for (uint32_t byte = 0; byte < 0x20; ++byte) visit(static_cast<uint8_t>(byte));
  }
  return "";
}

std::string name_of(const SymbolTable::Terminal& terminal, bool ignored) {
  if (ignored && terminal.name.starts_with("__IGNORE")) return "ignored";
  return terminal.name.empty() ? "(unnamed)" : terminal.name;
}

}  // namespace

std::vector<Expectation> expectations(Engine& engine, StateId state) {
  std::vector<Expectation> found;
  for (const Thread& t : engine.threads(state)) {
    for (const Parser::Expected& e : engine.parser().lookahead(t.parser).expected) {
      if (!t.at_boundary() && e.start != t.group) continue;
      const SymbolTable::Terminal& info = engine.symbols().terminal_info(e.terminal);
      if (info.border != SymbolTable::Border::kNone) continue;
      bool ignored = e.num_entries == 0;
      std::string text;
      if (e.start != kNone) text = example(engine.lexicon(), t.at_boundary() ? e.start : t.lexeme, e.tag);
      // A lexeme that has begun may be of several terminals; of some no longer.
      if (!t.at_boundary() && text.empty()) continue;
      found.push_back({name_of(info, ignored), !t.at_boundary(), ignored, std::move(text)});
    }
  }
  std::ranges::sort(found);
  found.erase(std::ranges::unique(found).begin(), found.end());
  return found;
}

std::vector<std::string> refusals(Engine& engine, StateId state, uint8_t byte) {
  std::vector<std::string> reasons;
  Lexicon& lexicon = engine.lexicon();
  auto names = [&](const Thread& t, Node group) {
    std::string out;
    for (const Parser::Expected& e : engine.parser().lookahead(t.parser).expected)
      if (e.start == group)
        out += (out.empty() ? "" : " or ") + name_of(engine.symbols().terminal_info(e.terminal), e.num_entries == 0);
    return out;
  };
  for (const Thread& t : engine.threads(state)) {
    std::vector<Thread> after;
    engine.step({&t, 1}, byte, after);
    if (!after.empty()) continue;
    if (!t.at_boundary() && lexicon.step(t.lexeme, byte) == kNone) {
      reasons.push_back(names(t, t.group) + ", which has begun, cannot go on with it");
    } else if (t.obligation != kAll && lexicon.step(t.obligation, byte) == kNone) {
      reasons.push_back("the lexeme before it would be longer with it: longest match reads them as one");
    } else if (!t.at_boundary()) {
      reasons.push_back(names(t, t.group) + " may go on with it, but nothing completes the text after that");
    } else {
      std::string begun;
      for (const auto& [group, first] : engine.parser().lookahead(t.parser).groups)
        if (first.has(byte) && lexicon.step(group, byte) != kNone)
          begun += (begun.empty() ? "" : ", ") + names(t, group);
      reasons.push_back(begun.empty() ? "nothing that may come next begins with it"
                                      : begun + " may begin with it, but nothing completes the text after that");
    }
  }
  std::ranges::sort(reasons);
  reasons.erase(std::ranges::unique(reasons).begin(), reasons.end());
  return reasons;
}

std::vector<std::string> open_rules(Engine& engine, StateId state) {
  std::vector<std::string> items;
  for (const Thread& t : engine.threads(state)) engine.parser().describe(t.parser, items);
  std::erase_if(items, [](const std::string& item) {
    return item.find("→ · ") != std::string::npos;
  });  // nothing of it has been read
  std::ranges::sort(items);
  items.erase(std::ranges::unique(items).begin(), items.end());
  return items;
}

}  // namespace guiderail
