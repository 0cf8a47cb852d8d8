// From costs to texts: the symbols' texts one after the other, tried on the engine, and the search where none of them fits.
#include <algorithm>
#include <queue>
#include <unordered_set>
#include <utility>

#include "core/closing/shortest_text.h"
#include "core/growth.h"

namespace guiderail {

namespace {

// Beyond these there is no answer.
constexpr std::size_t kMaxSearchedStates = 20'000;  // of the engine, under munch
constexpr std::size_t kTriedSpaced = 4;             // threads of a state

}  // namespace

void ShortestText::write_lexeme(Node node, uint32_t tag, std::vector<Piece>& out) {
  while (true) {
    LexemeStep step = lexemes_.at(key(node, tag));
    if (step.length == 0) return;
    out.push_back(step.byte);
    node = engine_.lexicon().step(node, step.byte);
  }
}

Node ShortestText::name_behind(Node start, uint32_t tag, Spacing& spacing, const std::vector<Piece>& out) {
  std::vector<Thread> next;
  for (; spacing.read_to < out.size() && !spacing.threads.empty(); ++spacing.read_to) {
    next.clear();
    if (out[spacing.read_to] < kSpecial)
      engine_.step(spacing.threads, static_cast<uint8_t>(out[spacing.read_to]), next);
    engine_.merge(next);
    spacing.threads.swap(next);
  }
  for (const Thread& t : spacing.threads) {
    next.clear();
    if (t.at_boundary()) engine_.begin_all(t, next);
    for (const Thread& begun : next)
      if (begun.group == start && lexeme(begun.lexeme, tag) != kUnknown) return begun.lexeme;
  }
  return start;
}

uint32_t ShortestText::gap() {
  if (gap_) return *gap_;
  gap_ = kNoGap;
  Lexicon& lexicon = engine_.lexicon();
  for (uint8_t byte : {' ', '\n', '\t'})
    for (Symbol ignored : engine_.parser().ignored()) {
      Node left = bytes_.has(byte) ? lexicon.step(engine_.symbols().terminal_info(ignored).start, byte) : kNone;
      if (*gap_ == kNoGap && left != kNone && lexicon.nullable(left)) gap_ = byte;
    }
  return *gap_;
}

void ShortestText::write_terminal(Symbol terminal, Spacing& spacing, std::vector<Piece>& out) {
  const auto& info = engine_.symbols().terminal_info(terminal);
  const Indentation* lines = engine_.indentation();
  if (info.start == kNone) {
    out.push_back(kSpecial + info.tag);
    return;
  }
  if (may_be_empty(terminal)) {
    if (lines && info.start == lines->indent()) {
      spacing.blocks.push_back(spacing.blocks.empty() ? 1 : spacing.blocks.back() + 1);
    } else if (lines && info.start == lines->dedent() && !spacing.blocks.empty()) {
      spacing.blocks.pop_back();
    }
    return;
  }
  bool newline = lines && lines->is_newline(info.start);
  uint32_t width = spacing.blocks.empty() ? 0 : spacing.blocks.back();
  if (spacing.spaced && spacing.line && !newline)
    out.insert(out.end(), width > spacing.read ? width - spacing.read : 0, Piece{' '});
  else if (spacing.spaced && !spacing.line && !newline && !out.empty() && gap() != kNoGap)
    out.push_back(gap());
  spacing.line = newline;
  spacing.read = 0;
  const bool name = !spacing.threads.empty() && engine_.symbols().name_info(info.start);
  write_lexeme(name ? name_behind(info.start, info.tag, spacing, out) : info.start, info.tag, out);
}

void ShortestText::write_item(uint32_t first, Spacing& spacing, std::vector<Piece>& out) {
  std::vector<uint32_t> positions{first};
  while (!positions.empty()) {
    uint32_t symbol = engine_.parser().symbol_at(positions.back());
    if (symbol == Parser::kEnd) {
      positions.pop_back();
      continue;
    }
    ++positions.back();
    if (is_terminal(Symbol{symbol}))
      write_terminal(Symbol{symbol}, spacing, out);
    else if (!engine_.symbols().nonterminal_info(Symbol{symbol}).nullable)
      positions.push_back(at(symbol).best);
  }
}

void ShortestText::write(const Thread& t, bool spaced, std::vector<Piece>& out) {
  Spacing spacing{spaced};
  if (spaced && engine_.indentation())
    for (Indentation::Columns c : engine_.indentation()->blocks(t.indentation)) spacing.blocks.push_back(c.columns);
  if (NameScopes::known(t.scope)) spacing.threads.push_back(t);
  ParserState state = t.parser;
  if (!t.at_boundary()) {
    const Parser::Expected* end = nullptr;
    inside(t, end);
    write_lexeme(t.lexeme, end->tag, out);
    state = after(t, *end);
    if (engine_.indentation() && engine_.indentation()->is_newline(t.group)) {
      spacing.line = true;
      if (out.empty()) spacing.read = engine_.indentation()->columns(t.indentation).columns;
    }
  } else if (spaced && gap() != kNoGap && engine_.lexicon().step(t.obligation, static_cast<uint8_t>(gap())) != kNone) {
    // What was read before may go on with the first lexeme, which is not meant. At the end a gap is no harm.
    out.push_back(gap());
  }
  for (Way way = boundary(state); way.next.position != Parser::kEnd || length(way.cost) != 0;
       way = contexts_.at(way.next.context))
    write_item(way.next.position, spacing, out);
}

bool ShortestText::completes(StateId state, const std::vector<Piece>& text) {
  std::string bytes;
  auto flush = [&] {
    state = engine_.advance(state, bytes);
    bytes.clear();
  };
  for (Piece piece : text) {
    if (piece < kSpecial) {
      bytes.push_back(static_cast<char>(piece));
    } else {
      flush();
      state = engine_.advance_special(state, piece - kSpecial);
    }
    if (state == kDead) return false;
  }
  flush();
  return state != kDead && engine_.accepting(state);
}

std::optional<std::vector<ShortestText::Piece>> ShortestText::find(StateId state) {
  std::vector<Piece> text;
  if (engine_.accepting(state)) return text;
  std::vector<std::pair<uint32_t, const Thread*>> ways;
  for (const Thread& t : engine_.threads(state))
    if (uint32_t c = cost(t); length(c) < kMaxBytes) ways.emplace_back(c, &t);
  if (ways.empty()) return std::nullopt;
  std::ranges::stable_sort(ways, {}, &std::pair<uint32_t, const Thread*>::first);
  // A text that a search has passed by may be longer than the symbols' own.
  if (auto hop = hops_.find(static_cast<uint32_t>(state));
      hop == hops_.end() || hop->second.cost > length(ways[0].first)) {
    write(*ways[0].second, false, text);
    if (completes(state, text)) return text;
    if (engine_.viability())
      for (auto [cost, thread] : std::span(ways).first(std::min(ways.size(), kTriedSpaced))) {
        text.clear();
        write(*thread, true, text);
        if (completes(state, text)) return text;
      }
  }
  return search(state);
}

std::optional<std::vector<ShortestText::Piece>> ShortestText::search(StateId start) {
  struct Visit {
    StateId state;
    uint32_t cost;
    std::size_t parent;
    Piece piece;
  };
  constexpr std::size_t kRoot = SIZE_MAX;
  std::vector<Visit> visits{{start, 0, kRoot, 0}};
  std::unordered_map<uint32_t, uint32_t> least{{static_cast<uint32_t>(start), 0}};
  // By estimate of the whole, then the deepest first.
  using Open = std::tuple<uint32_t, uint32_t, std::size_t>;
  std::priority_queue<Open, std::vector<Open>, std::greater<>> work;
  auto push = [&](std::size_t visit, uint32_t estimate) {
    work.push({sum(visits[visit].cost, estimate), UINT32_MAX - visits[visit].cost, visit});
  };
  push(0, length(cost(start)));
  Lexicon& lexicon = engine_.lexicon();
  std::vector<Thread> out;
  std::size_t goal = kRoot;
  for (std::size_t count = 0; !work.empty() && count < kMaxSearchedStates; ++count) {
    std::size_t visit = std::get<2>(work.top());
    work.pop();
    StateId state = visits[visit].state;
    uint32_t so_far = visits[visit].cost;
    if (least.at(static_cast<uint32_t>(state)) < so_far) continue;
    if (engine_.accepting(state) || hops_.contains(static_cast<uint32_t>(state))) {
      goal = visit;
      break;
    }
    auto meet = [&](StateId next, Piece piece) {
      if (next == kDead) return;
      auto hop = hops_.find(static_cast<uint32_t>(next));
      uint32_t estimate = hop != hops_.end() ? hop->second.cost : length(cost(next));
      if (estimate == kUnknown || so_far + 1 >= kMaxBytes) return;
      auto [it, fresh] = least.try_emplace(static_cast<uint32_t>(next), so_far + 1);
      if (!fresh && it->second <= so_far + 1) return;
      it->second = so_far + 1;
      visits.push_back({next, so_far + 1, visit, piece});
      push(visits.size() - 1, estimate);
    };
    std::span<const Thread> threads = engine_.threads(state);
    ByteSet possible;
    std::vector<const uint8_t*> classes;
    auto look_at = [&](Node n) {
      if (n != kNone && n != kAll) classes.push_back(lexicon.transitions(n).classes);
    };
    for (const Thread& t : threads) {
      possible = possible | engine_.first_bound(t);
      look_at(t.lexeme);
      look_at(t.competing);
      look_at(t.obligation);
      if (!t.at_boundary()) continue;
      for (Node n : engine_.modes().unions()) look_at(n);
      const Parser::Lookahead& look = engine_.parser().lookahead(t.parser);
      for (const auto& [group, first] : look.groups) look_at(group);
      for (uint32_t i : look.specials)
        if (uint32_t index = look.expected[i].tag; index < special_.size() && special_[index])
          meet(engine_.advance_special(state, index), kSpecial + index);
    }
    std::unordered_set<uint64_t> tried;  // what the automata make of a byte, hashed
    for (uint8_t byte : preference_) {
      if (!possible.has(byte)) continue;
      uint64_t signature = 0;
      for (const uint8_t* c : classes) signature = (signature ^ c[byte]) * 0x9E3779B97F4A7C15ull + 1;
      if (!tried.insert(signature).second) continue;
      out.clear();
      engine_.step(threads, byte, out);
      if (!out.empty()) meet(engine_.intern(out), byte);
    }
  }
  if (goal == kRoot) return std::nullopt;
  // The way is noted: its states have their answers, and later searches may end on it.
  auto end = hops_.find(static_cast<uint32_t>(visits[goal].state));
  uint32_t rest = end == hops_.end() ? 0 : end->second.cost;
  for (std::size_t v = goal; visits[v].parent != kRoot; v = visits[v].parent) {
    const Visit& before = visits[visits[v].parent];
    Hop hop{visits[v].piece, visits[v].state, rest + visits[goal].cost - before.cost};
    if (hops_.emplace(static_cast<uint32_t>(before.state), hop).second) charge(48);
  }
  std::vector<Piece> text;
  for (StateId at = start; !engine_.accepting(at);) {
    const Hop& hop = hops_.at(static_cast<uint32_t>(at));
    text.push_back(hop.piece);
    at = hop.next;
  }
  return text;
}

}  // namespace guiderail
