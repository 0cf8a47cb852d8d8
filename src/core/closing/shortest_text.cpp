#include "core/closing/shortest_text.h"

#include <algorithm>
#include <deque>
#include <queue>
#include <span>
#include <tuple>
#include <unordered_set>
#include <utility>

#include "core/growth.h"

namespace guiderail {

namespace {

// Bounds of one search each. Beyond them the answer is the best found so far, or none.
constexpr std::size_t kMaxRemainders = 400'000;  // of a lexeme
constexpr uint32_t kMaxFruitless = 2;            // searches that looked at so many in vain
constexpr std::size_t kBreadthFirst = 4'000;     // remainders looked at before the newest are tried as well
constexpr std::size_t kLookedAtMore = 256;       // after the end of a lexeme that others had found
constexpr std::size_t kMaxParts = 1'000;         // of a remainder that are asked for their tags
constexpr std::size_t kSeveral = 4;              // tags of a lexeme that are looked for one by one
constexpr std::size_t kMaxRests = 500;           // remainders whose rests are compared
constexpr std::size_t kMaxEnds = 8;              // tags between which a lexeme that goes on may choose
constexpr std::size_t kMaxExpansions = 20'000;   // of nonterminals
constexpr std::size_t kExpansionsMore = 64;      // after the first answer, besides as many as that took
constexpr std::size_t kMaxContexts = 50'000;     // on the way to acceptance

constexpr uint32_t id(Node n) { return static_cast<uint32_t>(n); }

}  // namespace

ShortestText::ShortestText(Engine& engine, std::vector<uint8_t> preference, std::vector<bool> special)
    : engine_(engine), preference_(std::move(preference)), special_(std::move(special)) {
  for (uint8_t byte : preference_) bytes_.add(byte);
}

void ShortestText::charge(std::size_t bytes) { growth_of_this_thread += bytes; }

// --- lexemes --------------------------------------------------------------------------------------------------------

template <typename F>
void ShortestText::for_each_class(Node node, F f) {
  Lexicon& lexicon = engine_.lexicon();
  ByteSet possible = lexicon.first_bound(node) & bytes_;
  if (possible.empty()) return;
  const Lexicon::Transitions& transitions = lexicon.transitions(node);
  std::array<bool, 256> tried{};
  for (uint8_t byte : preference_)
    if (possible.has(byte) && !std::exchange(tried[transitions.classes[byte]], true) && f(byte)) return;
}

uint32_t ShortestText::lexeme(Node node, uint32_t tag) {
  auto known = lexemes_.find(key(node, tag));
  if (known != lexemes_.end()) return known->second.length;
  if (explored_.contains(key(node, tag))) return kUnknown;
  if (uint32_t length = multiple(node, tag); length != kUnknown) return length;
  const std::vector<uint32_t>& tags = ends(node);
  if (tags.empty() || std::ranges::find(tags, tag) != tags.end()) explore(node, tag);
  known = lexemes_.find(key(node, tag));
  if (known != lexemes_.end()) return known->second.length;
  explored_.emplace(key(node, tag), true);
  charge(48);
  return kUnknown;
}

// Multiples of a number have more remainders than anybody can look at; which digits lead to one is arithmetic.
uint32_t ShortestText::multiple(Node node, uint32_t tag) {
  Lexicon& lexicon = engine_.lexicon();
  std::optional<Lexicon::NearestMultiple> nearest = lexicon.nearest_multiple(node);
  if (!nearest || nearest->text.empty()) return kUnknown;
  std::vector<Node> way{node};
  for (char c : nearest->text) {
    auto byte = static_cast<uint8_t>(c);
    if (!bytes_.has(byte)) return kUnknown;
    way.push_back(lexicon.step(way.back(), byte));
  }
  uint32_t length = lexeme(way.back(), tag);
  if (length == kUnknown) return kUnknown;
  for (std::size_t i = nearest->text.size(); i-- > 0;) {
    ++length;
    auto [it, fresh] =
        lexemes_.try_emplace(key(way[i], tag), LexemeStep{length, static_cast<uint8_t>(nearest->text[i])});
    if (fresh)
      charge(48);
    else
      length = it->second.length;
  }
  return length;
}

const std::vector<uint32_t>& ShortestText::ends(Node root) {
  Lexicon& lexicon = engine_.lexicon();
  auto [known, fresh] = ends_.try_emplace(id(root));
  std::vector<uint32_t>& tags = known->second;
  if (fresh) {
    std::vector<Node> work{root};
    std::unordered_set<uint32_t> seen{id(root)};
    bool told = true;
    while (!work.empty() && told && seen.size() < kMaxParts) {
      Node node = work.back();
      work.pop_back();
      std::vector<Node> parts;
      told = lexicon.ends_with(node, parts);
      if (parts.empty()) {
        if (lexicon.untagged(node))
          tags.push_back(0);
        else if (told)
          tags.insert(tags.end(), lexicon.tags(node).begin(), lexicon.tags(node).end());
      }
      for (Node part : parts)
        if (seen.insert(id(part)).second) work.push_back(part);
    }
    std::ranges::sort(tags);
    tags.erase(std::ranges::unique(tags).begin(), tags.end());
    if (!told || !work.empty()) tags.clear();
    charge(64 + tags.size() * sizeof(uint32_t));
  }
  return tags;
}

// Oldest first until that has become broad, then the newest as well, which finds the end of what is long. All tags met are noted, along the
// way to each; where there are many, the search goes on for a while after the end wanted.
void ShortestText::explore(Node root, uint32_t wanted) {
  struct Visit {
    Node node;
    std::size_t parent;
    uint32_t depth;
    uint8_t byte;
  };
  constexpr std::size_t kRoot = SIZE_MAX;
  Lexicon& lexicon = engine_.lexicon();
  const std::vector<uint32_t>& tags = ends(root);
  bool many = tags.empty() || tags.size() > kSeveral;
  std::unordered_set<uint32_t> met;  // tags
  std::vector<Visit> visits{{root, kRoot, 0, 0}};
  std::deque<std::size_t> frontier{0};
  std::unordered_set<uint32_t> seen{id(root)};
  uint32_t best = kUnknown;  // of the tag wanted
  std::size_t looked_at = 0;
  std::size_t last_find = 0, found_at = 0;  // visits when a tag was found; remainders looked at when the wanted one was
  // Notes the way from the root to `visit`, after which `rest` bytes complete the lexeme.
  auto note_way = [&](std::size_t visit, uint32_t tag, uint32_t rest) {
    uint8_t byte = 0;
    bool at_end = true;
    for (std::size_t v = visit; v != kRoot; v = visits[v].parent) {
      uint32_t length = rest + (visits[visit].depth - visits[v].depth);
      if (!at_end || rest == 0) {
        auto [it, fresh] = lexemes_.try_emplace(key(visits[v].node, tag), LexemeStep{length, byte});
        if (fresh)
          charge(48);
        else if (length < it->second.length)
          it->second = {length, byte};
      }
      at_end = false;
      byte = visits[v].byte;
    }
    if (tag == wanted) {
      if (best == kUnknown) found_at = looked_at;
      best = std::min(best, rest + visits[visit].depth);
    }
    last_find = visits.size();
  };
  for (std::size_t count = 0; !frontier.empty() && visits.size() < kMaxRemainders; ++count) {
    looked_at = count;
    std::size_t visit;
    if (count < kBreadthFirst || count % 2) {
      visit = frontier.front();
      frontier.pop_front();
    } else {
      visit = frontier.back();
      frontier.pop_back();
    }
    Node node = visits[visit].node;
    uint32_t depth = visits[visit].depth;
    if (best != kUnknown &&
        (many ? visits.size() > last_find + 2 * kBreadthFirst : depth >= best || count >= found_at + kLookedAtMore))
      break;
    if (lexicon.nullable(node)) {
      std::vector<uint32_t> here(lexicon.tags(node).begin(), lexicon.tags(node).end());
      for (uint32_t tag : here) {
        note_way(visit, tag, 0);
        if (many) met.insert(tag);
      }
      if (many && met.size() == tags.size()) break;
      if (!many && best != kUnknown && count < kBreadthFirst) break;  // breadth-first: none is shorter
    } else if (visit != 0) {
      uint32_t known = multiple(node, wanted);
      bool arithmetic = known != kUnknown;
      if (auto it = lexemes_.find(key(node, wanted)); it != lexemes_.end()) known = it->second.length;
      if (known != kUnknown && (best == kUnknown || depth + known < best)) note_way(visit, wanted, known);
      if (arithmetic) continue;
    }
    for_each_class(node, [&](uint8_t byte) {
      Node next = lexicon.step(node, byte);
      if (next != kNone && seen.insert(id(next)).second) {
        frontier.push_back(visits.size());
        visits.push_back({next, visit, depth + 1, byte});
      }
      return false;
    });
  }
  // Multiples of a large number: an end may be further than anybody looks, from every place of the vocabulary.
  if (best == kUnknown && visits.size() >= kMaxRemainders && ++fruitless_ > kMaxFruitless)
    throw LimitError("max_tokens", "no end of a lexeme is found among its many remainders");
}

uint32_t ShortestText::rest(Node node, const std::vector<uint32_t>& tags) {
  uint32_t best = kUnknown;
  for (uint32_t tag : tags) best = std::min(best, lexeme(node, tag));
  return best;
}

// All remainders are looked at, except that counted bodies b{min,max} are read off b: what is left of one body, and the others due.
ShortestText::LongestRest ShortestText::longest_rest(Node root, const std::vector<uint32_t>& tags) {
  auto [known, fresh] = longest_rests_.try_emplace({root, tags}, LongestRest{kUnknown, kNone});
  if (!fresh) return known->second;
  charge(64 + tags.size() * sizeof(uint32_t));
  Lexicon& lexicon = engine_.lexicon();
  static const std::vector<uint32_t> kUntagged{0};
  std::vector<Node> work{root};
  std::unordered_set<uint32_t> seen{id(root)};
  LongestRest longest{0, kNone};
  auto meet = [&](Node next) {
    if (next != kNone && seen.insert(id(next)).second) work.push_back(next);
  };
  auto compare = [&](Node node, uint32_t least) {
    longest.length = std::max(longest.length, least);
    if (least == kUnknown) longest.without = node;
  };
  while (!work.empty() && longest.length != kUnknown && seen.size() < kMaxRests) {
    Node node = work.back(), first = node, behind = kEpsilon, body = kNone;
    work.pop_back();
    uint32_t min = 0, max = 0;
    if (lexicon.shape(node, first, behind) != Lexicon::Shape::kSequence) first = node, behind = kEpsilon;
    if (lexicon.counted(first, body, min, max) && lexicon.untagged(body)) {
      uint32_t one = lexeme(body, 0), bodies = 0;
      if (min > 0 && one > 0) bodies = one == kUnknown || min > kMaxBytes / one ? kUnknown : min * one;
      compare(node, sum(sum(longest_rest(body, kUntagged).length, bodies), rest(behind, tags)));
      meet(behind);
      continue;
    }
    if (std::optional<Lexicon::NearestMultiple> nearest = lexicon.nearest_multiple(node)) {
      compare(node, sum(nearest->longest, rest(nearest->behind, tags)));
      meet(nearest->behind);
      continue;
    }
    compare(node, rest(node, tags));
    const Lexicon::Transitions& transitions = lexicon.transitions(node);
    std::array<bool, 256> tried{};
    lexicon.first_bound(node).for_each([&](uint8_t byte) {
      if (!std::exchange(tried[transitions.classes[byte]], true)) meet(lexicon.step(node, byte));
    });
  }
  if (!work.empty()) longest.length = kUnknown;
  longest_rests_.insert_or_assign({root, tags}, longest);
  return longest;
}

bool ShortestText::may_be_empty(Symbol terminal) {
  Node start = engine_.symbols().terminal_info(terminal).start;
  return start != kNone && engine_.lexicon().nullable(start);
}

uint32_t ShortestText::terminal(Symbol symbol) {
  const auto& info = engine_.symbols().terminal_info(symbol);
  if (may_be_empty(symbol)) return 0;  // stands for no text
  if (info.start != kNone) {
    uint32_t length = lexeme(info.start, info.tag);
    const SymbolTable::Name* name = engine_.symbols().name_info(info.start);
    return name && !name->alone ? sum(length, kDoubtful) : length;
  }
  return info.tag < special_.size() && special_[info.tag] ? 1 : kUnknown;
}

// --- nonterminals ---------------------------------------------------------------------------------------------------

ShortestText::Nonterminal& ShortestText::at(uint32_t nonterminal) {
  if (nonterminals_.size() <= nonterminal) {
    std::size_t size = std::max<std::size_t>(nonterminal + 1, engine_.symbols().num_nonterminals());
    charge((size - nonterminals_.size()) * sizeof(Nonterminal));
    nonterminals_.resize(size);
  }
  return nonterminals_[nonterminal];
}

// Two searches take turns: one looks into what was met first, the other goes down what its owner still needs to get a first answer.
uint32_t ShortestText::nonterminal(uint32_t root) {
  if (engine_.symbols().nonterminal_info(Symbol{root}).nullable) return 0;
  if (at(root).cost != kUnknown || std::exchange(at(root).searched, true)) return at(root).cost;
  std::deque<uint32_t> frontier;
  std::unordered_set<uint32_t> seen{root}, descended;
  std::vector<uint32_t> met{root}, down{root};
  auto meet = [&] {
    while (!met.empty()) {
      uint32_t x = met.back();
      met.pop_back();
      if (!at(x).expanded) {
        frontier.push_back(x);
        continue;
      }
      if (at(x).cost != kUnknown) continue;
      for (uint32_t y : at(x).needs)
        if (seen.insert(y).second) met.push_back(y);
    }
  };
  auto descend = [&](uint32_t x) {
    if (descended.insert(x).second) down.insert(down.end(), at(x).needs.rbegin(), at(x).needs.rend());
  };
  constexpr uint32_t kNone = UINT32_MAX;
  auto next_down = [&] {
    while (!down.empty()) {
      uint32_t x = down.back();
      down.pop_back();
      if (at(x).cost != kUnknown) continue;
      if (at(x).expanded)
        descend(x);
      else if (x == root || wanted(x))
        return x;
    }
    return kNone;
  };
  auto next_first = [&] {
    while (!frontier.empty()) {
      uint32_t x = frontier.front();
      frontier.pop_front();
      if (at(x).expanded) continue;
      if (x == root || useful(x)) return x;
      seen.erase(x);
    }
    return kNone;
  };
  meet();
  std::size_t last = kMaxExpansions;
  for (std::size_t count = 0; count < last; ++count) {
    uint32_t x = count % 2 ? next_first() : next_down();
    const bool descends = x != kNone && count % 2 == 0;
    if (x == kNone) x = next_first();
    if (x == kNone) break;
    expand(x);
    if (last == kMaxExpansions && at(root).cost != kUnknown) last = std::min(last, 2 * count + kExpansionsMore);
    for (uint32_t y : at(x).needs)
      if (seen.insert(y).second) met.push_back(y);
    meet();
    if (descends) descend(x);
  }
  return at(root).cost;
}

// Is it needed for something that has no answer yet?
bool ShortestText::wanted(uint32_t x) {
  return std::ranges::any_of(at(x).used_by,
                             [&](uint32_t number) { return at(productions_[number].owner).cost == kUnknown; });
}

bool ShortestText::useful(uint32_t x) {
  return std::ranges::any_of(at(x).used_by, [&](uint32_t number) {
    const Production& p = productions_[number];
    return p.terminals + p.nonterminals.size() < at(p.owner).cost;
  });
}

// Productions of more symbols than the cheapest so far has bytes are left alone, and so is all that only they need.
void ShortestText::expand(uint32_t x) {
  Parser& parser = engine_.parser();
  std::vector<uint32_t> needs;
  at(x).expanded = true;
  std::vector<std::pair<uint32_t, uint32_t>> by_size;  // bytes at least
  for (uint32_t start : parser.productions(x)) {
    uint32_t least = 0;
    for (uint32_t p = start; parser.symbol_at(p) != Parser::kEnd; ++p) {
      Symbol symbol{parser.symbol_at(p)};
      least += !(is_terminal(symbol) ? may_be_empty(symbol) : engine_.symbols().nonterminal_info(symbol).nullable);
    }
    by_size.emplace_back(least, start);
  }
  std::ranges::stable_sort(by_size, {}, &std::pair<uint32_t, uint32_t>::first);
  for (auto [least, start] : by_size) {
    if (least >= at(x).cost) continue;
    Production production{x, start, 0, {}};
    for (uint32_t p = start; production.terminals != kUnknown && parser.symbol_at(p) != Parser::kEnd; ++p) {
      if (depends_on_text(p)) production.terminals = sum(production.terminals, kDoubtful);
      uint32_t symbol = parser.symbol_at(p);
      if (is_terminal(Symbol{symbol}))
        production.terminals = sum(production.terminals, terminal(Symbol{symbol}));
      else if (!engine_.symbols().nonterminal_info(Symbol{symbol}).nullable)
        production.nonterminals.push_back(symbol);
    }
    if (production.terminals == kUnknown) continue;
    uint32_t cost = production.terminals, number = static_cast<uint32_t>(productions_.size());
    for (uint32_t y : production.nonterminals) {
      cost = sum(cost, at(y).cost);
      at(y).used_by.push_back(number);
      needs.push_back(y);
    }
    charge(sizeof(Production) + production.nonterminals.size() * 12);
    productions_.push_back(std::move(production));
    if (cost != kUnknown) improve(x, cost, start);
  }
  at(x).needs = std::move(needs);
}

void ShortestText::improve(uint32_t first, uint32_t cost, uint32_t start) {
  if (cost >= at(first).cost) return;
  at(first).cost = cost;
  at(first).best = start;
  std::priority_queue<std::pair<uint32_t, uint32_t>, std::vector<std::pair<uint32_t, uint32_t>>, std::greater<>> work;
  work.push({cost, first});
  while (!work.empty()) {
    auto [known, x] = work.top();
    work.pop();
    if (at(x).cost != known) continue;
    for (uint32_t number : at(x).used_by) {
      const Production& p = productions_[number];
      uint32_t total = p.terminals;
      for (uint32_t y : p.nonterminals) total = sum(total, at(y).cost);
      if (total >= at(p.owner).cost) continue;
      at(p.owner).cost = total;
      at(p.owner).best = p.start;
      work.push({total, p.owner});
    }
  }
}

// --- states ---------------------------------------------------------------------------------------------------------

bool ShortestText::depends_on_text(uint32_t position) {
  Parser& parser = engine_.parser();
  std::optional<bool> doubtful = parser.doubtful_at(position);
  if (!doubtful || *doubtful) return doubtful.has_value();
  auto [it, fresh] = ends_at_once_.try_emplace(parser.symbol_at(position), false);
  if (fresh) {
    charge(48);
    it->second = std::ranges::any_of(parser.productions(it->first), [&](uint32_t start) {
      uint32_t symbol = parser.symbol_at(start);
      return symbol != Parser::kEnd && is_terminal(Symbol{symbol}) && parser.symbol_at(start + 1) == Parser::kEnd;
    });
  }
  return !it->second;
}

uint32_t ShortestText::cost_from(uint32_t position) {
  uint32_t total = 0;
  for (; total != kUnknown && engine_.parser().symbol_at(position) != Parser::kEnd; ++position) {
    uint32_t symbol = engine_.parser().symbol_at(position);
    if (depends_on_text(position)) total = sum(total, kDoubtful);
    total = sum(total, is_terminal(Symbol{symbol}) ? terminal(Symbol{symbol}) : nonterminal(symbol));
  }
  return total;
}

const Parser::Continuations& ShortestText::continuations(uint32_t context) {
  auto known = continuations_.find(context);
  if (known != continuations_.end()) return known->second;
  Parser::Continuations found = engine_.parser().continuations(context);
  charge(sizeof(found) + 48 + found.items.size() * sizeof(Parser::Entry));
  return continuations_.emplace(context, std::move(found)).first->second;
}

const ShortestText::Way& ShortestText::boundary(ParserState state) {
  auto known = states_.find(static_cast<uint32_t>(state));
  if (known != states_.end()) return known->second;
  charge(48);
  constexpr Parser::Entry kStop{Parser::kEnd, 0};
  auto answer = [&](Way way) -> const Way& {
    return states_.insert_or_assign(static_cast<uint32_t>(state), way).first->second;
  };
  if (engine_.parser().accepting(state)) return answer({0, kStop});
  constexpr std::size_t kRoot = SIZE_MAX;
  struct Visit {
    Parser::Entry item;
    uint32_t cost;  // up to its end
    std::size_t parent;
  };
  std::vector<Visit> visits;
  std::priority_queue<std::pair<uint32_t, std::size_t>, std::vector<std::pair<uint32_t, std::size_t>>, std::greater<>>
      work;
  auto meet = [&](const Parser::Entry& item, uint32_t before, std::size_t parent) {
    uint32_t total = sum(before, cost_from(item.position));
    if (total == kUnknown) return;
    work.push({total, visits.size()});
    visits.push_back({item, total, parent});
  };
  for (const Parser::Entry& item : engine_.parser().kernel_items(state)) meet(item, 0, kRoot);
  uint32_t best = kUnknown;
  std::size_t last = kRoot;
  std::unordered_set<uint32_t> done;
  while (!work.empty() && done.size() < kMaxContexts) {
    auto [total, visit] = work.top();
    work.pop();
    if (total >= best) break;
    uint32_t context = visits[visit].item.context;
    if (!done.insert(context).second) continue;
    if (auto way = contexts_.find(context); way != contexts_.end()) {
      if (uint32_t whole = sum(total, way->second.cost); whole < best) {
        best = whole;
        last = visit;
      }
      continue;
    }
    const Parser::Continuations& next = continuations(context);
    if (next.accepting) {
      contexts_.emplace(context, Way{0, kStop});
      charge(48);
      best = total;
      last = visit;
      break;
    }
    for (const Parser::Entry& item : next.items) meet(item, total, visit);
  }
  if (best == kUnknown) return answer({kUnknown, kStop});
  std::size_t at = last;
  for (std::size_t before = visits[at].parent; before != kRoot; at = before, before = visits[at].parent)
    if (contexts_
            .emplace(visits[before].item.context,
                     Way{(length(best) - length(visits[before].cost)) | (best & kDoubtful), visits[at].item})
            .second)
      charge(48);
  return answer({best, visits[at].item});
}

// Whatever the lexeme's text will be: if what follows depends on it, `find` notices and searches.
ParserState ShortestText::after(const Thread& t, const Parser::Expected& end) {
  bool doubtful = false;
  return engine_.parser().shift(t.parser, end, kSomeText, doubtful);
}

uint32_t ShortestText::inside(const Thread& t, const Parser::Expected*& best) {
  Parser& parser = engine_.parser();
  const Parser::Lookahead& look = parser.lookahead(t.parser);
  std::vector<std::pair<uint32_t, const Parser::Expected*>> ends;
  auto [expected, last] = std::ranges::equal_range(look.expected, t.group, {}, &Parser::Expected::start);
  for (; expected != last; ++expected)
    if (uint32_t least = lexeme(t.lexeme, expected->tag); least != kUnknown) ends.emplace_back(least, &*expected);
  std::ranges::sort(ends, {}, [](const auto& end) { return end.first; });
  uint32_t cost = kUnknown;
  for (auto [least, end] : ends) {
    if (least >= cost) break;
    if (uint32_t whole = sum(least, boundary(after(t, *end)).cost); whole < cost) {
      cost = whole;
      best = end;
    }
  }
  return cost;
}

uint32_t ShortestText::cost(const Thread& t) {
  const Parser::Expected* best = nullptr;
  return t.at_boundary() ? boundary(t.parser).cost : inside(t, best);
}

uint32_t ShortestText::bound(std::span<const Thread> threads) {
  uint32_t best = kUnknown;
  for (const Thread& t : threads) {
    if (is_some_text(t.text) && t.text > kSomeTextAsked) return kUnknown;
    best = std::min(best, cost(t));
  }
  return best & kDoubtful ? kUnknown : best;
}

uint32_t ShortestText::bound(const Reach::Kept& kept) {
  const Thread& t = kept.thread;
  if (is_some_text(t.text) && t.text > kSomeTextAsked) return kUnknown;
  const Parser::Lookahead& look = engine_.parser().lookahead(t.parser);
  auto [first, last] = std::ranges::equal_range(look.expected, t.group, {}, &Parser::Expected::start);
  // The shortest end of all that `node` has, and what comes after it.
  auto end_of = [&](Node node) {
    auto best = last;
    for (auto it = first; it != last; ++it) {
      uint32_t least = lexeme(node, it->tag);
      if (least != kUnknown && (best == last || least < lexeme(node, best->tag))) best = it;
    }
    return best;
  };
  if (kept.rest != kEpsilon) {
    auto end = engine_.lexicon().untagged(kept.first) ? end_of(kept.rest) : last;
    if (end == last) return kUnknown;
    uint32_t behind = sum(lexeme(kept.rest, end->tag), boundary(after(t, *end)).cost);
    uint32_t whole = sum(longest_rest(kept.first, {0}).length, behind);
    return whole & kDoubtful ? kUnknown : whole;
  }
  // As few of the tags as there is always one to end with.
  std::vector<uint32_t> tags;
  uint32_t behind = 0;
  for (Node open = kept.first; tags.size() < kMaxEnds;) {
    auto end = end_of(open);
    if (end == last || std::ranges::find(tags, end->tag) != tags.end()) return kUnknown;
    tags.push_back(end->tag);
    behind = std::max(behind, boundary(after(t, *end)).cost);
    LongestRest longest = longest_rest(kept.first, tags);
    if (longest.length != kUnknown) {
      uint32_t whole = sum(longest.length, behind);
      return whole & kDoubtful ? kUnknown : whole;
    }
    open = longest.without;
  }
  return kUnknown;
}

uint32_t ShortestText::longest_rest(const Reach::Name& name, Node seen) {
  Node left = engine_.without_names(*engine_.symbols().name_info(name.group), seen);
  return left == kNone ? 0 : longest_rest(left, {name.tag}).length;
}

uint32_t ShortestText::cost(StateId state) {
  auto known = state_costs_.find(static_cast<uint32_t>(state));
  if (known != state_costs_.end()) return known->second;
  uint32_t best = kUnknown;
  if (engine_.accepting(state))
    best = 0;
  else
    for (const Thread& t : engine_.threads(state)) best = std::min(best, cost(t));
  charge(32);
  state_costs_.emplace(static_cast<uint32_t>(state), best);
  return best;
}

}  // namespace guiderail
