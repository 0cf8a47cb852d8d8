#include "core/text/byte_spelling.h"

#include <algorithm>
#include <deque>
#include <unordered_set>
#include <utility>

#include "core/growth.h"

namespace guiderail {

namespace {

// Nonterminals that one question may look into, and remainders that one search for a tag may.
constexpr std::size_t kMaxExpansions = 50'000;
constexpr std::size_t kMaxRemainders = 20'000;

constexpr uint32_t id(Node n) { return static_cast<uint32_t>(n); }

}  // namespace

ByteSpelling::ByteSpelling(Engine& engine, const ByteSet& bytes, std::vector<bool> special)
    : engine_(engine), bytes_(bytes), special_(std::move(special)), texts_(kEpsilon) {
  if (!bytes.empty()) texts_ = engine.lexicon().repeat(engine.lexicon().bytes(bytes), 0, kUnbounded);
}

void ByteSpelling::charge(std::size_t bytes) {
  bytes_used_ += bytes;
  growth_of_this_thread += bytes;
}

ByteSpelling::Answer ByteSpelling::completable(const Thread& thread) {
  open_ = false;
  if (thread.at_boundary() ? boundary(thread.parser) : inside(thread)) return Answer::kYes;
  return open_ || uncertain_ ? Answer::kOpen : Answer::kNo;
}

bool ByteSpelling::inside(const Thread& t) {
  Lexicon& lexicon = engine_.lexicon();
  const Parser::Lookahead& look = engine_.parser().lookahead(t.parser);
  auto goes_on = [&](uint32_t tag) {
    const Parser::Expected* expected = Parser::find(look, t.group, tag);
    bool doubtful = false;
    return expected && boundary(engine_.parser().shift(t.parser, *expected, kSomeText, doubtful));
  };
  if (lexicon.untagged(t.lexeme)) return lexicon.alive(lexicon.both({t.lexeme, texts_})) && goes_on(0);
  auto first = std::ranges::lower_bound(look.expected, t.group, {}, &Parser::Expected::start);
  for (; first != look.expected.end() && first->start == t.group; ++first)
    if (goes_on(first->tag) && writable_lexeme(t.lexeme, first->tag)) return true;
  return false;
}

bool ByteSpelling::boundary(ParserState state) {
  Parser& parser = engine_.parser();
  if (parser.accepting(state)) return true;
  auto known = states_.find(static_cast<uint32_t>(state));
  if (known != states_.end()) return known->second;
  std::vector<uint32_t> contexts;
  for (const Parser::Entry& item : parser.kernel_items(state))
    if (writable_from(item.position)) contexts.push_back(item.context);
  bool result = returns(contexts);
  if (result || !(open_ || uncertain_)) {
    states_.emplace(static_cast<uint32_t>(state), result);
    charge(48);
  }
  return result;
}

// Depth first: the way out of the newest context is as good as any. The way to a hit is true; without one, all that was visited is false.
bool ByteSpelling::returns(const std::vector<uint32_t>& roots) {
  struct Visit {
    uint32_t context;
    std::size_t parent;
  };
  constexpr std::size_t kRoot = SIZE_MAX;
  std::vector<Visit> visits;
  std::vector<std::size_t> stack;
  std::unordered_set<uint32_t> seen;
  auto mark_path = [&](std::size_t visit) {
    for (; visit != kRoot; visit = visits[visit].parent)
      if (contexts_.insert_or_assign(visits[visit].context, true).second) charge(48);
    return true;
  };
  auto meet = [&](uint32_t context, std::size_t parent) {
    auto known = contexts_.find(context);
    if (known != contexts_.end()) return known->second;
    if (seen.insert(context).second) {
      stack.push_back(visits.size());
      visits.push_back({context, parent});
    }
    return false;
  };
  for (uint32_t context : roots)
    if (meet(context, kRoot)) return true;
  while (!stack.empty()) {
    std::size_t visit = stack.back();
    stack.pop_back();
    Parser::Continuations next = engine_.parser().continuations(visits[visit].context);
    if (next.accepting) return mark_path(visit);
    for (const Parser::Entry& item : next.items)
      if (writable_from(item.position) && meet(item.context, visit)) return mark_path(visit);
  }
  if (!open_ && !uncertain_)
    for (const Visit& visit : visits)
      if (contexts_.emplace(visit.context, false).second) charge(48);
  return false;
}

bool ByteSpelling::writable_from(uint32_t position) {
  for (; engine_.parser().symbol_at(position) != Parser::kEnd; ++position) {
    uint32_t symbol = engine_.parser().symbol_at(position);
    if (is_terminal(Symbol{symbol}) ? !writable_terminal(Symbol{symbol}) : !writable(symbol)) return false;
  }
  return true;
}

bool ByteSpelling::writable_terminal(Symbol terminal) {
  auto known = terminals_.find(static_cast<uint32_t>(terminal));
  if (known != terminals_.end()) return known->second;
  const auto& info = engine_.symbols().terminal_info(terminal);
  Lexicon& lexicon = engine_.lexicon();
  bool result;
  if (info.start == kNone)
    result = info.tag < special_.size() && special_[info.tag];
  else if (lexicon.untagged(info.start))
    result = lexicon.alive(lexicon.both({info.start, texts_}));
  else
    result = writable_lexeme(info.start, info.tag);
  terminals_.emplace(static_cast<uint32_t>(terminal), result);
  charge(48);
  return result;
}

// Breadth-first through the remainders of the lexeme after one of the bytes.
bool ByteSpelling::writable_lexeme(Node lexeme, uint32_t tag) {
  Lexicon& lexicon = engine_.lexicon();
  std::vector<Node> queue{lexeme};
  std::unordered_set<uint32_t> seen{id(lexeme)};
  for (std::size_t at = 0; at < queue.size(); ++at) {
    Node n = queue[at];
    if (lexicon.nullable(n) && std::ranges::binary_search(lexicon.tags(n), tag)) return true;
    if (queue.size() > kMaxRemainders) {
      uncertain_ = true;
      return false;
    }
    const Lexicon::Transitions& transitions = lexicon.transitions(n);
    std::array<bool, 256> tried{};
    (lexicon.first_bound(n) & bytes_).for_each([&](uint8_t byte) {
      if (std::exchange(tried[transitions.classes[byte]], true)) return;
      Node next = lexicon.step(n, byte);
      if (next != kNone && seen.insert(id(next)).second) queue.push_back(next);
    });
  }
  return false;
}

ByteSpelling::Nonterminal& ByteSpelling::at(uint32_t nonterminal) {
  if (nonterminals_.size() <= nonterminal) {
    std::size_t size = std::max<std::size_t>(nonterminal + 1, engine_.symbols().num_nonterminals());
    charge((size - nonterminals_.size()) * sizeof(Nonterminal));
    nonterminals_.resize(size);
  }
  return nonterminals_[nonterminal];
}

bool ByteSpelling::writable(uint32_t root) {
  if (at(root).writable) return true;
  if (at(root).never) return false;
  if (engine_.symbols().nonterminal_info(Symbol{root}).nullable) {
    found(root);
    return true;
  }
  // What was looked into before is gone through again, down to where an earlier question stopped.
  std::deque<uint32_t> frontier;
  std::unordered_set<uint32_t> seen{root};
  std::vector<uint32_t> passed, known{root};
  auto pass = [&] {
    while (!known.empty()) {
      uint32_t x = known.back();
      known.pop_back();
      if (at(x).writable) continue;
      if (!at(x).expanded) {
        frontier.push_back(x);
        continue;
      }
      passed.push_back(x);
      for (uint32_t y : at(x).misses)
        if (seen.insert(y).second) known.push_back(y);
    }
  };
  pass();
  for (std::size_t count = 0; !frontier.empty() && !at(root).writable; ++count) {
    if (count == kMaxExpansions) {
      open_ = true;
      return false;
    }
    uint32_t x;
    if (count % 2) {
      x = frontier.back();
      frontier.pop_back();
    } else {
      x = frontier.front();
      frontier.pop_front();
    }
    if (at(x).writable) continue;
    expand(x);
    known.push_back(x);
    pass();
  }
  if (at(root).writable) return true;
  if (!uncertain_)
    for (uint32_t x : passed)
      if (!at(x).writable) at(x).never = true;
  return false;
}

void ByteSpelling::expand(uint32_t x) {
  Parser& parser = engine_.parser();
  std::vector<uint32_t> misses;
  bool complete = engine_.symbols().nonterminal_info(Symbol{x}).nullable;
  std::vector<std::vector<uint32_t>> missing;  // per production that may still become writable
  for (uint32_t start : parser.productions(x)) {
    if (complete) break;
    std::vector<uint32_t> lacks;
    bool possible = true;
    for (uint32_t p = start; possible && parser.symbol_at(p) != Parser::kEnd; ++p) {
      uint32_t symbol = parser.symbol_at(p);
      if (is_terminal(Symbol{symbol}))
        possible = writable_terminal(Symbol{symbol});
      else if (!engine_.symbols().nonterminal_info(Symbol{symbol}).nullable && !at(symbol).writable)
        lacks.push_back(symbol);
    }
    if (!possible) continue;
    if (lacks.empty())
      complete = true;
    else
      missing.push_back(std::move(lacks));
  }
  at(x).expanded = true;
  if (complete) {
    found(x);
    return;
  }
  for (const auto& lacks : missing) {
    uint32_t production = static_cast<uint32_t>(productions_.size());
    productions_.push_back({x, static_cast<uint32_t>(lacks.size())});
    for (uint32_t y : lacks) {
      at(y).missed_by.push_back(production);
      misses.push_back(y);
    }
    charge(sizeof(Production) + lacks.size() * 8);
  }
  at(x).misses = std::move(misses);
}

void ByteSpelling::found(uint32_t first) {
  std::vector<uint32_t> work{first};
  at(first).writable = true;
  while (!work.empty()) {
    uint32_t x = work.back();
    work.pop_back();
    for (uint32_t production : std::exchange(at(x).missed_by, {})) {
      if (--productions_[production].missing) continue;
      uint32_t owner = productions_[production].owner;
      if (!std::exchange(at(owner).writable, true)) work.push_back(owner);
    }
  }
}

}  // namespace guiderail
