#include "core/parser/parser.h"

#include <algorithm>
#include <cassert>
#include <queue>

#include "core/errors.h"

namespace guiderail {

namespace {

template <typename T>
uint64_t hash_of(const std::vector<T>& values, uint64_t seed) {
  uint64_t h = seed * 0x9E3779B97F4A7C15ull + values.size();
  for (T v : values) {
    h = (h ^ static_cast<uint64_t>(v)) * 0xFF51AFD7ED558CCDull;
    h ^= h >> 29;
  }
  return h;
}

template <typename T>
void sort_unique(std::vector<T>& v) {
  std::ranges::sort(v);
  v.erase(std::ranges::unique(v).begin(), v.end());
}

constexpr std::size_t kCoversKept = 16;

}  // namespace

Parser::Parser(SymbolTable& symbols, Symbol start, std::vector<Symbol> ignored, const LexerModes& modes,
               std::recursive_mutex& lock, std::size_t max_bytes, uint32_t first_lexer)
    : symbols_(symbols), ignored_(std::move(ignored)), modes_(modes), mutex_(lock), max_bytes_(max_bytes) {
  // The production  root → start  at position 0, waiting in the root context.
  pool_ = {static_cast<uint32_t>(start), kEnd};
  owner_ = {kEnd, kEnd};
  uint32_t root = context({kAcceptWaiter});
  std::vector<uint32_t> kernels, completed;
  std::vector<Entry> at_captures;  // none: no symbol has been read
  bool accepts = false;
  advance({0, root}, kernels, completed, at_captures);
  for (uint32_t c : completed) accepts = accepts || c == root;
  initial_ = state(std::move(kernels), accepts, first_lexer);
}

Parser::~Parser() = default;

void Parser::check_room() const {
  if (bytes_used() > max_bytes_) throw LimitError("grammar_bytes", "the parser's tables are full");
}

bool Parser::accepting(ParserState s) const { return states_[static_cast<uint32_t>(s)].accepting; }

bool Parser::nullable(uint32_t symbol) const {
  return !is_terminal(Symbol{symbol}) && !is_capture(Symbol{symbol}) &&
         symbols_.nonterminal_info(Symbol{symbol}).nullable;
}

bool Parser::nullable_from(uint32_t position) const {
  while (pool_[position] != kEnd && nullable(pool_[position])) ++position;
  return pool_[position] == kEnd;
}

// Calls back for the symbols that may come first from a position on: (symbol, position after it).
template <typename OnTerminal, typename OnNonterminal>
void Parser::heads(uint32_t position, OnTerminal on_terminal, OnNonterminal on_nonterminal) const {
  for (; pool_[position] != kEnd; ++position) {
    uint32_t symbol = pool_[position];
    if (is_terminal(Symbol{symbol})) {
      on_terminal(symbol, position + 1);
      return;
    }
    on_nonterminal(symbol, position + 1);
    if (!nullable(symbol)) return;
  }
}

Parser::Rules& Parser::rules(uint32_t nonterminal) {
  if (rules_.size() <= nonterminal) rules_.resize(std::max<std::size_t>(nonterminal + 1, symbols_.num_nonterminals()));
  if (!rules_[nonterminal].known) {
    Productions productions;
    auto info = symbols_.nonterminal_info(Symbol{nonterminal});
    info.provider->productions(info.local, productions);
    // The provider may have registered symbols, but it cannot have come back here: productions are asked for one at a time.
    if (rules_.size() <= nonterminal) rules_.resize(nonterminal + 1);
    Rules& r = rules_[nonterminal];
    r.known = true;
    for (const auto& alternative : productions.alternatives()) {
      if (alternative.empty()) continue;  // the registration said that it is nullable
      r.starts.push_back(static_cast<uint32_t>(pool_.size()));
      for (Symbol s : alternative) {
        pool_.push_back(static_cast<uint32_t>(s));
        owner_.push_back(nonterminal);
      }
      pool_.push_back(kEnd);
      owner_.push_back(nonterminal);
      charge(8 * (alternative.size() + 1));
    }
    for (uint32_t start : r.starts)
      heads(start, [](uint32_t, uint32_t) {}, [&](uint32_t symbol, uint32_t) { r.heads.push_back(symbol); });
    sort_unique(r.heads);
    charge(sizeof(Rules) + 4 * r.heads.size());
  }
  return rules_[nonterminal];
}

const std::vector<uint32_t>& Parser::left_corners(uint32_t nonterminal) {
  if (!rules(nonterminal).closed) {
    check_room();
    std::vector<uint32_t> found{nonterminal};
    std::unordered_map<uint32_t, bool> seen{{nonterminal, true}};
    for (std::size_t i = 0; i < found.size(); ++i) {
      // A copy: fetching the rules of one nonterminal may move those of others.
      for (uint32_t head : std::vector<uint32_t>(rules(found[i]).heads))
        if (seen.emplace(head, true).second) found.push_back(head);
    }
    for (uint32_t x : found) rules(x);
    std::ranges::sort(found);
    charge(4 * found.size());
    rules_[nonterminal].left_corners = std::move(found);
    rules_[nonterminal].closed = true;
  }
  return rules_[nonterminal].left_corners;
}

uint32_t Parser::kernel(uint32_t position, uint32_t context) {
  auto [it, fresh] =
      kernel_ids_.try_emplace((uint64_t{position} << 32) | context, static_cast<uint32_t>(kernels_.size()));
  if (fresh) {
    kernels_.push_back({position, context});
    charge(48);
  }
  return it->second;
}

uint32_t Parser::context(std::vector<uint64_t> waiters) {
  sort_unique(waiters);
  uint64_t hash = hash_of(waiters, 1);
  auto [begin, end] = context_ids_.equal_range(hash);
  for (auto it = begin; it != end; ++it)
    if (contexts_[it->second] == waiters) return it->second;
  uint32_t id = static_cast<uint32_t>(contexts_.size());
  charge(8 * waiters.size() + 80);
  contexts_.push_back(std::move(waiters));
  completions_.push_back(nullptr);
  canonical_.push_back(kUnknown);
  context_captures_.push_back(false);
  context_ids_.emplace(hash, id);
  return id;
}

ParserState Parser::state(std::vector<uint32_t> kernels, bool accepting, uint32_t lexer) {
  std::ranges::sort(kernels, {}, [this](uint32_t k) { return kernels_[k]; });
  kernels.erase(std::ranges::unique(kernels).begin(), kernels.end());
  uint64_t hash = hash_of(kernels, (uint64_t{lexer} << 2) | (accepting ? 3 : 2));
  auto [begin, end] = state_ids_.equal_range(hash);
  for (auto it = begin; it != end; ++it) {
    const State& s = states_[it->second];
    if (s.accepting == accepting && s.lexer == lexer && s.kernels == kernels) return ParserState{it->second};
  }
  charge(4 * kernels.size() + sizeof(State) + 40);
  bool capturing =
      symbols_.has_captures() && std::ranges::any_of(kernels, [this](uint32_t k) { return captures(kernels_[k]); });
  uint32_t id = static_cast<uint32_t>(states_.emplace_back(std::move(kernels), accepting, capturing, lexer));
  state_ids_.emplace(hash, id);
  return ParserState{id};
}

ParserState Parser::unite(ParserState a, ParserState b) {
  if (a == b) return a;
  if (a > b) std::swap(a, b);
  std::lock_guard lock(mutex_);
  auto [it, fresh] = unions_.try_emplace((uint64_t{static_cast<uint32_t>(a)} << 32) | static_cast<uint32_t>(b), 0u);
  if (fresh) {
    const State &x = states_[static_cast<uint32_t>(a)], &y = states_[static_cast<uint32_t>(b)];
    std::vector<uint32_t> kernels(x.kernels);
    kernels.insert(kernels.end(), y.kernels.begin(), y.kernels.end());
    bool accepting = x.accepting || y.accepting;
    charge(32);
    it->second = static_cast<uint32_t>(state(std::move(kernels), accepting, x.lexer));
  }
  return ParserState{it->second};
}

const Parser::Shape& Parser::expand(ParserState which) {
  State& s = states_[static_cast<uint32_t>(which)];
  if (const Shape* done = s.shape.load(std::memory_order_acquire)) return *done;
  check_room();
  std::vector<uint32_t> positions;
  for (uint32_t k : s.kernels) positions.push_back(kernels_[k].position);
  uint64_t hash = hash_of(positions, (uint64_t{s.lexer} << 2) | (s.accepting ? 3 : 2));
  auto [begin, end] = shapes_.equal_range(hash);
  const Shape* shape = nullptr;
  for (auto it = begin; it != end && !shape; ++it) {
    const Shape& known = *it->second;
    if (known.accepting == s.accepting && known.lexer == s.lexer && known.positions == positions) shape = &known;
  }
  if (!shape) {
    std::unique_ptr<Shape> fresh = make_shape(s);
    fresh->positions = std::move(positions);
    fresh->lookahead.number = static_cast<uint32_t>(shapes_.size());
    shape = shapes_.emplace(hash, std::move(fresh))->second.get();
  }
  if (symbols_.has_captures()) mark_captures(s, *shape);
  s.shape.store(shape, std::memory_order_release);
  return *shape;
}

std::unique_ptr<Parser::Shape> Parser::make_shape(const State& s) {
  auto shape = std::make_unique<Shape>();
  shape->accepting = s.accepting;
  shape->lexer = s.lexer;
  std::vector<std::pair<uint32_t, Item>> scans, waits;  // symbol, what advances
  std::size_t num_returns = 0;
  std::unordered_map<uint32_t, uint32_t> predicted;  // nonterminal → place among the predictions
  for (uint32_t k = 0; k < s.kernels.size(); ++k) {
    uint32_t position = kernels_[s.kernels[k]].position;
    std::vector<std::pair<uint32_t, uint32_t>> own;  // nonterminals this item waits for, and the position after them
    heads(
        position, [&](uint32_t symbol, uint32_t next) { scans.push_back({symbol, {next, k}}); },
        [&](uint32_t symbol, uint32_t next) { own.push_back({symbol, next}); });
    if (own.empty()) continue;
    std::vector<uint32_t> reached;
    for (auto [symbol, next] : own) {
      waits.push_back({symbol, {next, k}});
      const auto& corners = left_corners(symbol);
      reached.insert(reached.end(), corners.begin(), corners.end());
    }
    sort_unique(reached);
    std::vector<uint32_t> inner;  // what predictions wait for
    // What the contexts below will take: many kernel items that all reach many nonterminals.
    num_returns += reached.size();
    if (bytes_used() + num_returns * sizeof(uint64_t) > max_bytes_)
      throw LimitError("grammar_bytes", "too many rules can begin at one place of a text");
    for (uint32_t x : reached) inner.insert(inner.end(), rules_[x].heads.begin(), rules_[x].heads.end());
    sort_unique(inner);
    for (uint32_t x : reached) {
      uint32_t times = 0;
      bool last = false;
      for (auto [symbol, next] : own)
        if (symbol == x) {
          ++times;
          last = pool_[next] == kEnd;
        }
      auto [it, fresh] = predicted.try_emplace(x, static_cast<uint32_t>(shape->predicted.size()));
      if (fresh) shape->predicted.push_back({x, {}, {}});
      Prediction& prediction = shape->predicted[it->second];
      bool inherits = times == 1 && last && !std::ranges::binary_search(inner, x);
      (inherits ? prediction.inherits : prediction.waits).push_back(k);
    }
  }
  for (uint32_t p = 0; p < shape->predicted.size(); ++p) {
    uint32_t origin = static_cast<uint32_t>(s.kernels.size()) + p;
    for (uint32_t start : rules_[shape->predicted[p].nonterminal].starts)
      heads(
          start, [&](uint32_t symbol, uint32_t next) { scans.push_back({symbol, {next, origin}}); },
          [&](uint32_t symbol, uint32_t next) { waits.push_back({symbol, {next, origin}}); });
  }
  sort_unique(waits);
  for (const auto& [symbol, item] : waits) {
    if (shape->waits.empty() || shape->waits.back().first != symbol) shape->waits.push_back({symbol, {}});
    shape->waits.back().second.push_back(item);
  }

  Lookahead& look = shape->lookahead;
  sort_unique(scans);
  for (std::size_t i = 0; i < scans.size();) {
    uint32_t symbol = scans[i].first;
    uint32_t first = static_cast<uint32_t>(shape->entries.size());
    for (; i < scans.size() && scans[i].first == symbol; ++i) shape->entries.push_back(scans[i].second);
    if (std::ranges::find(ignored_, Symbol{symbol}) != ignored_.end()) continue;
    const auto& info = symbols_.terminal_info(Symbol{symbol});
    Node start = info.start_under(s.lexer);
    if (start == kNone && !info.starts.empty()) continue;  // the lexer never gives it
    look.expected.push_back(
        {Symbol{symbol}, start, info.tag, first, static_cast<uint32_t>(shape->entries.size()) - first, info.role});
  }
  look.skips = modes_.single() || s.accepting ||
               std::ranges::any_of(look.expected, [this](const Expected& e) { return modes_.skips(e.start); });
  for (Symbol ignored : ignored_) {
    if (!look.skips) break;
    const auto& info = symbols_.terminal_info(ignored);
    Node start = info.start_under(s.lexer);
    if (start != kNone && ignores(ignored, s.lexer))
      look.expected.push_back({ignored, start, info.tag, 0, 0, ScopeRole::kNone});
  }
  std::ranges::sort(look.expected, {}, [](const Expected& e) { return std::pair(e.start, e.tag); });
  for (uint32_t i = 0; i < look.expected.size(); ++i) {
    const Expected& e = look.expected[i];
    if (e.start == kNone) {
      look.specials.push_back(i);
    } else if (symbols_.terminal_info(e.terminal).border != SymbolTable::Border::kNone) {
      look.borders.push_back(i);
    } else if (look.groups.empty() || look.groups.back().first != e.start) {
      ByteSet bound = symbols_.lexicon().first_bound(e.start);
      look.groups.push_back({e.start, bound});
      look.first = look.first | bound;
      if (const SymbolTable::Name* name = symbols_.name_info(e.start)) look.names.emplace_back(e.start, *name);
    }
  }
  charge(sizeof(Shape) + shape->entries.size() * sizeof(Item) + look.expected.size() * sizeof(Expected) +
         waits.size() * sizeof(Item) + look.groups.size() * 40 + shape->predicted.size() * sizeof(Prediction) +
         num_returns * sizeof(uint32_t) + 4 * s.kernels.size());
  return shape;
}

Parser::Links& Parser::links(State& s, const Shape& shape) {
  if (Links* known = s.links.load(std::memory_order_acquire)) return *known;
  auto fresh = std::make_unique<Links>();
  std::size_t n = shape.lookahead.expected.size();
  fresh->targets = std::make_unique<std::atomic<uint32_t>[]>(n);
  for (std::size_t i = 0; i < n; ++i) fresh->targets[i].store(kUnknown, std::memory_order_relaxed);
  fresh->contexts.assign(shape.predicted.size(), kUnknown);
  charge(sizeof(Links) + 4 * (n + shape.predicted.size()));
  s.links.store(fresh.get(), std::memory_order_release);
  return *fresh.release();
}

uint32_t Parser::context_of(State& s, const Shape& shape, uint32_t origin) {
  if (origin < s.kernels.size()) return kernels_[s.kernels[origin]].context;
  uint32_t place = origin - static_cast<uint32_t>(s.kernels.size());
  uint32_t& known = links(s, shape).contexts[place];
  if (known != kUnknown) return known;
  const Prediction& prediction = shape.predicted[place];
  std::vector<uint64_t> returns;
  for (uint32_t k : prediction.waits) returns.push_back((uint64_t{prediction.nonterminal} << 32) | s.kernels[k]);
  for (uint32_t k : prediction.inherits) {
    const auto& inherited = contexts_[kernels_[s.kernels[k]].context];
    returns.insert(returns.end(), inherited.begin(), inherited.end());
  }
  return known = context(std::move(returns));
}

const Parser::Lookahead& Parser::lookahead(ParserState which) {
  if (const Shape* done = states_[static_cast<uint32_t>(which)].shape.load(std::memory_order_acquire))
    return done->lookahead;
  std::lock_guard lock(mutex_);
  return expand(which).lookahead;
}

const Parser::Expected* Parser::find(const Lookahead& look, Node start, uint32_t tag) {
  auto it = std::ranges::lower_bound(look.expected, std::pair(start, tag), {},
                                     [](const Expected& e) { return std::pair(e.start, e.tag); });
  if (it == look.expected.end() || it->start != start || it->tag != tag) return nullptr;
  return &*it;
}

// Puts an item whose dot has just moved where it belongs: among the kernels if symbols are left, among the completed
// contexts if all that is left can be empty, among the captures if a text is to decide.
void Parser::advance(const Entry& entry, std::vector<uint32_t>& kernels, std::vector<uint32_t>& completed,
                     std::vector<Entry>& captures) {
  if (pool_[entry.position] != kEnd && is_capture(Symbol{pool_[entry.position]})) {
    captures.push_back(entry);
    return;
  }
  if (pool_[entry.position] != kEnd) kernels.push_back(kernel(entry.position, entry.context));
  if (nullable_from(entry.position)) completed.push_back(entry.context);
}

uint32_t Parser::canonical(uint32_t context) {
  // What a context captures is no part of its completion. And under free lexing few operands are left to the parser: not worth the time.
  if (symbols_.has_captures() || modes_.unions().empty()) return context;
  if (canonical_[context] != kUnknown) return canonical_[context];
  const Completion& done = complete(context);
  if (symbols_.has_captures()) return context;  // the first of them have just come up
  uint64_t hash = hash_of(done.kernels, done.accepting ? 5 : 4);
  auto [begin, end] = by_completion_.equal_range(hash);
  for (auto it = begin; it != end; ++it) {
    const Completion& other = *completions_[it->second];
    if (other.accepting == done.accepting && other.kernels == done.kernels && other.open == done.open)
      return canonical_[context] = it->second;
  }
  by_completion_.emplace(hash, context);
  charge(48);
  return canonical_[context] = context;
}

// What waits for a nonterminal in the closure of kernel items that are known to.
std::vector<Parser::Entry> Parser::waiting(std::vector<uint32_t> group, uint32_t nonterminal) {
  ParserState which = state(std::move(group), false);
  const Shape& closure = expand(which);
  State& s = states_[static_cast<uint32_t>(which)];
  auto wait = std::ranges::lower_bound(closure.waits, nonterminal, {}, [](const auto& w) { return w.first; });
  assert(wait != closure.waits.end() && wait->first == nonterminal);
  std::vector<Entry> entries;
  for (const Item& item : wait->second) entries.push_back({item.position, context_of(s, closure, item.origin)});
  sort_unique(entries);
  return entries;
}

// What is known of a context met on the way is taken over with all that it covers. Newest contexts first: they were made after, and so tend
// to cover, the others. In  s → s s | "a"  every step then costs what is new, not the square of it.
const Parser::Completion& Parser::complete(uint32_t root) {
  if (completions_[root]) return *completions_[root];
  check_room();
  auto result = std::make_unique<Completion>();
  std::priority_queue<uint32_t> work;
  work.push(root);
  std::unordered_map<uint32_t, bool> covered{{root, false}};
  while (!work.empty()) {
    uint32_t at = work.top();
    work.pop();
    if (covered[at]) continue;
    if (const Completion* known = completions_[at].get()) {
      result->kernels.insert(result->kernels.end(), known->kernels.begin(), known->kernels.end());
      result->captures.insert(result->captures.end(), known->captures.begin(), known->captures.end());
      result->accepting = result->accepting || known->accepting;
      result->open.insert(result->open.end(), known->open.begin(), known->open.end());
      for (uint32_t c : known->covers) covered[c] = true;
      continue;
    }
    covered[at] = true;
    const std::vector<uint64_t> waiters = contexts_[at];  // a copy: contexts_ may grow below
    for (std::size_t i = 0; i < waiters.size();) {
      if (waiters[i] == kAcceptWaiter) {
        result->accepting = true;
        ++i;
        continue;
      }
      if (waiters[i] >= kOpenWaiter) {
        result->open.push_back(static_cast<uint32_t>(waiters[i++]));
        continue;
      }
      uint32_t x = static_cast<uint32_t>(waiters[i] >> 32);
      std::vector<uint32_t> group;
      for (; i < waiters.size() && waiters[i] != kAcceptWaiter && static_cast<uint32_t>(waiters[i] >> 32) == x; ++i)
        group.push_back(static_cast<uint32_t>(waiters[i]));
      std::vector<uint32_t> completed;
      for (const Entry& entry : waiting(std::move(group), x))
        advance(entry, result->kernels, completed, result->captures);
      for (uint32_t c : completed)
        if (covered.emplace(c, false).second) work.push(c);
    }
  }
  sort_unique(result->kernels);
  sort_unique(result->captures);
  sort_unique(result->open);
  // A long list for few kernels would cost more to keep than it saves.
  if (covered.size() <= kCoversKept + 8 * result->kernels.size())
    for (const auto& [c, done] : covered) result->covers.push_back(c);
  charge(sizeof(Completion) + 4 * (result->kernels.size() + result->covers.size()));
  completions_[root] = std::move(result);
  return *completions_[root];
}

std::vector<Parser::Entry> Parser::kernel_items(ParserState which) const {
  std::vector<Entry> items;
  for (uint32_t k : states_[static_cast<uint32_t>(which)].kernels) items.push_back(kernels_[k]);
  return items;
}

// One step of `complete`: nothing that is complete in turn is followed.
Parser::Continuations Parser::continuations(uint32_t root) {
  Continuations result;
  const std::vector<uint64_t> waiters = contexts_[root];  // a copy: contexts_ may grow below
  for (std::size_t i = 0; i < waiters.size();) {
    if (waiters[i] == kAcceptWaiter) {
      result.accepting = true;
      ++i;
      continue;
    }
    uint32_t x = static_cast<uint32_t>(waiters[i] >> 32);
    std::vector<uint32_t> group;
    for (; i < waiters.size() && waiters[i] != kAcceptWaiter && static_cast<uint32_t>(waiters[i] >> 32) == x; ++i)
      group.push_back(static_cast<uint32_t>(waiters[i]));
    std::vector<Entry> items = waiting(std::move(group), x);
    result.items.insert(result.items.end(), items.begin(), items.end());
  }
  sort_unique(result.items);
  return result;
}

// A capture's text is a property of the thread, so it is no part of an item: its production is replaced by the one that the text asks for, in the
// same context.
uint32_t Parser::resume(const Entry& capture, uint32_t text, bool& doubtful) {
  Symbol symbol{pool_[capture.position]};
  auto position_of = [this](Symbol next) {
    auto [it, fresh] = resumed_.try_emplace(static_cast<uint32_t>(next), static_cast<uint32_t>(pool_.size()));
    if (fresh) {
      pool_.insert(pool_.end(), {static_cast<uint32_t>(next), kEnd});
      owner_.insert(owner_.end(), 2, static_cast<uint32_t>(next));
      charge(64);
    }
    return it->second;
  };
  const SymbolTable::Capture& info = symbols_.capture_info(symbol);
  if (is_some_text(text)) {
    doubtful = doubtful || info.doubtful;
    uint32_t position = position_of(info.generic);
    generic_[position] |= info.doubtful;
    return kernel(position, capture.context);
  }
  uint64_t key = uint64_t{index_of(symbol)} << 32 | text;
  auto known = captured_.find(key);
  if (known == captured_.end()) {
    check_room();
    uint32_t position = position_of(info.provider->captured(info.local, texts_.text(text)));
    known = captured_.emplace(key, position).first;
    charge(48);
  }
  return kernel(known->second, capture.context);
}

bool Parser::captures(const Entry& entry) const {
  if (context_captures_[entry.context]) return true;
  for (uint32_t p = entry.position; pool_[p] != kEnd; ++p)
    if (is_capture(Symbol{pool_[p]})) return true;
  return false;
}

// Marks the contexts of predictions that return into a capture, and the state if something that it may scan belongs to one.
void Parser::mark_captures(State& s, const Shape& shape) {
  auto captured = [&](const Item& item) { return captures({item.position, context_of(s, shape, item.origin)}); };
  std::unordered_map<uint32_t, uint32_t> contexts;  // of predictions, by nonterminal
  for (uint32_t p = 0; p < shape.predicted.size(); ++p)
    contexts[shape.predicted[p].nonterminal] = context_of(s, shape, static_cast<uint32_t>(s.kernels.size()) + p);
  for (bool changed = true; changed;) {
    changed = false;
    for (const auto& [symbol, items] : shape.waits) {
      auto found = contexts.find(symbol);
      if (found == contexts.end() || context_captures_[found->second] || !std::ranges::any_of(items, captured))
        continue;
      context_captures_[found->second] = true;
      changed = true;
    }
  }
  s.may_capture = std::ranges::any_of(shape.entries, captured);
}

ParserState Parser::after(std::span<const Entry> entries, uint32_t lexer, uint32_t text, bool& captured,
                          bool& doubtful) {
  std::vector<uint32_t> kernels, completed;
  std::vector<Entry> at_captures;
  bool accepting = false;
  for (const Entry& entry : entries) advance(entry, kernels, completed, at_captures);
  sort_unique(completed);
  for (uint32_t c : completed) {
    const Completion& done = complete(c);
    kernels.insert(kernels.end(), done.kernels.begin(), done.kernels.end());
    at_captures.insert(at_captures.end(), done.captures.begin(), done.captures.end());
    accepting = accepting || done.accepting;
  }
  captured = !at_captures.empty();
  for (const Entry& entry : at_captures) kernels.push_back(resume(entry, text, doubtful));
  return state(std::move(kernels), accepting, lexer);
}

ParserState Parser::shift(ParserState from, const Expected& expected, uint32_t text, bool& doubtful, bool* asked) {
  if (expected.num_entries == 0) return from;  // ignored
  State& s = states_[static_cast<uint32_t>(from)];
  const Shape& shape = *s.shape.load(std::memory_order_acquire);
  auto place = static_cast<std::size_t>(&expected - shape.lookahead.expected.data());
  if (Links* known = s.links.load(std::memory_order_acquire)) {
    uint32_t target = known->targets[place].load(std::memory_order_acquire);
    if (target != kUnknown) return ParserState{target};
  }
  std::lock_guard lock(mutex_);
  bool captured = false;
  ParserState to = after(advancing(s, shape, expected), symbols_.terminal_info(expected.terminal).next_lexer, text,
                         captured, doubtful);
  if (asked) *asked = captured;
  if (captured) return to;
  links(s, shape).targets[place].store(static_cast<uint32_t>(to), std::memory_order_release);
  return to;
}

std::vector<Parser::Entry> Parser::advancing(State& s, const Shape& shape, const Expected& expected) {
  std::vector<Entry> entries;
  for (uint32_t i = 0; i < expected.num_entries; ++i) {
    const Item& item = shape.entries[expected.first_entry + i];
    entries.push_back({item.position, canonical(context_of(s, shape, item.origin))});
  }
  return entries;
}

ParserState Parser::opened(ParserState which) {
  lookahead(which);
  const Shape& shape = *states_[static_cast<uint32_t>(which)].shape.load(std::memory_order_acquire);
  uint32_t known = shape.opened.load(std::memory_order_acquire);
  if (known != kUnknown) return ParserState{known};
  std::lock_guard lock(mutex_);
  std::vector<uint32_t> kernels;
  for (uint32_t k = 0; k < shape.positions.size(); ++k)
    kernels.push_back(kernel(shape.positions[k], context({kOpenWaiter + k})));
  ParserState result = state(std::move(kernels), shape.accepting, shape.lexer);
  expand(result);
  shape.opened.store(static_cast<uint32_t>(result), std::memory_order_release);
  return result;
}

Parser::Partial Parser::partial(std::vector<uint32_t> kernels, std::vector<uint32_t> completed, uint32_t lexer) {
  Partial result;
  bool accepting = false;
  sort_unique(completed);
  for (uint32_t c : completed) {
    const Completion& done = complete(c);
    kernels.insert(kernels.end(), done.kernels.begin(), done.kernels.end());
    accepting = accepting || done.accepting;
    result.open.insert(result.open.end(), done.open.begin(), done.open.end());
  }
  sort_unique(result.open);
  if (accepting || !kernels.empty()) result.known = state(std::move(kernels), accepting, lexer);
  return result;
}

const Parser::Partial& Parser::keep(PublishedMap& in, uint64_t key, Partial partial) {
  charge(sizeof(Partial) + 4 * partial.open.size());
  auto index = static_cast<uint32_t>(partials_.emplace_back(std::move(partial)));
  charge(in.insert(key, index));
  return partials_[index];
}

const Parser::Partial& Parser::shift_opened(ParserState from, const Expected& expected) {
  State& s = states_[static_cast<uint32_t>(from)];
  const Shape& shape = *s.shape.load(std::memory_order_acquire);
  auto place = static_cast<std::size_t>(&expected - shape.lookahead.expected.data());
  uint64_t key = (uint64_t{static_cast<uint32_t>(from)} << 32) | place;
  if (uint32_t known = shifted_opened_.find(key); known != PublishedMap::kUnknown) return partials_[known];
  std::lock_guard lock(mutex_);
  if (uint32_t known = shifted_opened_.find(key); known != PublishedMap::kUnknown) return partials_[known];
  if (expected.num_entries == 0) return keep(shifted_opened_, key, {from, {}});  // ignored
  std::vector<uint32_t> kernels, completed;
  std::vector<Entry> at_captures;
  for (const Entry& entry : advancing(s, shape, expected)) advance(entry, kernels, completed, at_captures);
  assert(at_captures.empty());
  return keep(shifted_opened_, key,
              partial(std::move(kernels), std::move(completed), symbols_.terminal_info(expected.terminal).next_lexer));
}

const Parser::Partial& Parser::returned(ParserState from, uint32_t item) {
  uint64_t key = (uint64_t{static_cast<uint32_t>(from)} << 32) | item;
  if (uint32_t known = returned_.find(key); known != PublishedMap::kUnknown) return partials_[known];
  std::lock_guard lock(mutex_);
  if (uint32_t known = returned_.find(key); known != PublishedMap::kUnknown) return partials_[known];
  State& s = states_[static_cast<uint32_t>(from)];
  return keep(returned_, key, partial({}, {kernels_[s.kernels[item]].context}, s.lexer));
}

void Parser::describe(ParserState which, std::vector<std::string>& items) {
  std::lock_guard lock(mutex_);
  auto show = [&](uint32_t symbol) {
    if (is_capture(Symbol{symbol})) symbol = static_cast<uint32_t>(symbols_.capture_info(Symbol{symbol}).generic);
    if (is_terminal(Symbol{symbol})) return symbols_.terminal_info(Symbol{symbol}).name;
    const auto& info = symbols_.nonterminal_info(Symbol{symbol});
    return info.provider->name(info.local);
  };
  for (uint32_t k : states_[static_cast<uint32_t>(which)].kernels) {
    uint32_t position = kernels_[k].position;
    uint32_t begin = position;
    while (begin > 0 && pool_[begin - 1] != kEnd) --begin;
    std::string text = owner_[position] == kEnd ? "start" : show(owner_[position]);
    text += " →";
    for (uint32_t p = begin; pool_[p] != kEnd; ++p) text += (p == position ? " · " : " ") + show(pool_[p]);
    items.push_back(std::move(text));
  }
}

}  // namespace guiderail
