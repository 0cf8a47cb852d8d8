#include "core/lexer/munch.h"

#include <algorithm>

#include "core/engine.h"

namespace guiderail {

namespace {

// A group with more states than this is not looked through for `always_viable`.
constexpr std::size_t kMaxGroupStates = 20'000;

constexpr uint32_t id(Node n) { return static_cast<uint32_t>(n); }

}  // namespace

MunchViability::MunchViability(Parser& parser, SymbolTable& symbols, const LexerModes& modes, bool marked,
                               uint32_t num_lexers, bool shadowed, std::size_t max_states, Node rests,
                               std::vector<bool> special, bool surveys)
    : parser_(parser), symbols_(symbols), lexicon_(symbols.lexicon()), modes_(modes), rests_(rests),
      num_lexers_(num_lexers), mixed_(symbols.parts().mixed()),
      surveys_(rests == kAll || (surveys && !mixed_ && !modes.unions().empty())), special_(std::move(special)),
      effort_(max_states), obligations_(lexicon_, parser.mutex(), effort_), ends_(lexicon_, obligations_, effort_) {
  std::lock_guard lock(parser_.mutex());
  MunchEffort::Question question(effort_);
  std::unordered_map<uint32_t, uint32_t> tags;
  for (std::size_t t = 0; t < symbols_.num_terminals(); ++t) {
    const auto& info = symbols_.terminal_info(Symbol{static_cast<uint32_t>(t) | kTerminalBit});
    if (info.start != kNone && tags.emplace(id(info.start), info.tag).first->second != info.tag) no_tags_ = false;
  }
  if (!surveys_) no_tags_ = false;  // free lexing: terminals with tags may still be registered
  if (marked) obligations_.expect_markers();
  if (no_tags_ && !mixed_) ends_.promise_no_tags();
  // The separator stands for 'any productive rule can be completed', which holds of bytes, of special tokens that
  // there are, and of lexers that give what they are asked for.
  if (surveys_ && modes_.single() && !mixed_ && std::ranges::count(special_, false) == 0 && !shadowed) find_separator();
  if (mixed_) no_tags_ = false;  // parts may register more
  if (surveys_ && separator_ == kNoSeparator && (mixed_ || (no_tags_ && num_lexers_ == 1))) find_followers();
}

// --- terminals ------------------------------------------------------------------------------------------------------

bool MunchViability::is_ignored(Symbol terminal) const {
  return std::ranges::find(parser_.ignored(), terminal) != parser_.ignored().end();
}

MunchViability::Situation MunchViability::situation(Node obligation, uint32_t lexer) {
  if (lexer == 0) return Situation{id(obligation)};
  auto [it, fresh] = situation_ids_.try_emplace(key(id(obligation), lexer), Situation{});
  if (fresh) {
    it->second = Situation{static_cast<uint32_t>(situations_.size()) | kOtherLexer};
    situations_.emplace_back(obligation, lexer);
    effort_.spend(64);
  }
  return it->second;
}

void MunchViability::keep_weakest(std::vector<Situation>& set, Situation situation) {
  for (Situation other : set)
    if (implies(situation, other)) return;
  std::erase_if(set, [&](Situation other) { return implies(other, situation); });
  set.push_back(situation);
}

// What one lexeme of the terminal, read right here, can leave.
void MunchViability::ends_of(Symbol terminal, Situation from, std::vector<Situation>& out) {
  const auto& info = symbols_.terminal_info(terminal);
  uint32_t lexer = lexer_of(from);
  Node start = info.start_under(lexer);
  if (start == kNone) return;
  uint32_t next_lexer = is_ignored(terminal) ? lexer : info.next_lexer;
  for (const LexemeEnds::End& end :
       ends_.weakest_ends(ends_.state(start, modes_.competing_with(start), obligation_of(from))))
    if (end.tag == info.tag) keep_weakest(out, situation(end.obligation, next_lexer));
}

// The weakest situations after any number of ignored lexemes.
const std::vector<MunchViability::Situation>& MunchViability::after_ignored(Situation from) {
  uint32_t number = static_cast<uint32_t>(from);
  auto known = after_ignored_.find(number);
  if (known != after_ignored_.end()) return known->second;
  std::vector<Situation> weakest{from}, queue{from};
  std::unordered_set<uint32_t> seen{number};
  for (std::size_t at = 0; at < queue.size(); ++at) {
    // What only a stronger obligation could reach, a weaker one that is in the queue reaches too.
    if (std::ranges::find(weakest, queue[at]) == weakest.end()) continue;
    std::vector<Situation> reached;
    for (Symbol ignored : parser_.ignored())
      if (parser_.ignores(ignored, lexer_of(from))) ends_of(ignored, queue[at], reached);
    for (Situation next : reached) {
      keep_weakest(weakest, next);
      if (seen.insert(static_cast<uint32_t>(next)).second) queue.push_back(next);
    }
  }
  effort_.spend(64 + weakest.size() * sizeof(Situation));
  return after_ignored_.emplace(number, std::move(weakest)).first->second;
}

// What a lexeme of the terminal can leave, ignored ones before it included.
const std::vector<MunchViability::Situation>& MunchViability::after_terminal(Symbol terminal, Situation from) {
  uint64_t which = key(static_cast<uint32_t>(terminal), static_cast<uint32_t>(from));
  auto known = after_terminal_.find(which);
  if (known != after_terminal_.end()) return known->second;
  std::vector<Situation> result;
  const auto& info = symbols_.terminal_info(terminal);
  if (info.start == kNone) {
    // A special token is no text: longest match ends before it as it does at the end.
    if ((info.tag >= special_.size() || special_[info.tag]) && may_end(from))
      result.push_back(situation(rests_, info.next_lexer));
  } else if (info.border != SymbolTable::Border::kNone) {
    if (may_end(from)) result.push_back(situation(rests_, info.next_lexer));
  } else if (lexicon_.nullable(info.start)) {
    result.push_back(situation(obligation_of(from), info.next_lexer));  // stands for no text (IndentationRule)
  } else if (!is_ignored(terminal)) {
    if (modes_.skips(info.start))
      for (Situation before : after_ignored(from)) ends_of(terminal, before, result);
    else
      ends_of(terminal, from, result);
  }
  effort_.spend(64 + result.size() * sizeof(Situation));
  return after_terminal_.emplace(which, std::move(result)).first->second;
}

bool MunchViability::may_end(Situation from) {
  return std::ranges::any_of(after_ignored(from), [this](Situation s) { return lexicon_.nullable(obligation_of(s)); });
}

// --- the separator --------------------------------------------------------------------------------------------------

bool MunchViability::clean(uint32_t candidate, Situation from) {
  uint64_t which = key(candidate * num_lexers_ + lexer_of(from), id(obligation_of(from)));
  uint32_t known = clean_.find(which);
  if (known != PublishedMap::kUnknown) return known == 1;
  Situation separator = situation(candidates_[candidate], lexer_of(from));
  bool result = std::ranges::any_of(after_ignored(from), [&](Situation s) { return implies(separator, s); });
  effort_.spend(clean_.insert(which, result ? 1 : 0));
  return result;
}

bool MunchViability::known_clean(Node obligation, uint32_t lexer) const {
  if (separator_ == kNoSeparator) return false;
  return obligation == rests_ || clean_.find(key(separator_ * num_lexers_ + lexer, id(obligation))) == 1;
}

bool MunchViability::separates(uint32_t candidate) {
  if (!lexicon_.nullable(candidates_[candidate])) return false;
  std::vector<uint32_t> questions;
  for (uint32_t lexer = 0; lexer < num_lexers_; ++lexer) questions.push_back(num_questions_++);
  for (std::size_t t = 0; t < symbols_.num_terminals(); ++t) {
    Symbol terminal{static_cast<uint32_t>(t) | kTerminalBit};
    const auto& info = symbols_.terminal_info(terminal);
    if (info.start == kNone || is_ignored(terminal) || lexicon_.nullable(info.start)) continue;
    if (!no_tags_) questions[info.next_lexer] = num_questions_++;
    for (uint32_t lexer = 0; lexer < (info.starts.empty() ? 1 : num_lexers_); ++lexer) {
      Node start = info.start_under(lexer);
      if (start == kNone) continue;
      uint32_t from = ends_.state(start, modes_.competing_with(start), candidates_[candidate]);
      if (!ends_.leads_to(from, questions[info.next_lexer], [&](const LexemeEnds::End& end) {
            return end.tag == info.tag && clean(candidate, situation(end.obligation, info.next_lexer));
          }))
        return false;
    }
  }
  separator_questions_ = std::move(questions);
  return true;
}

void MunchViability::find_separator() {
  auto add = [this](Node obligation) {
    if (std::ranges::find(candidates_, obligation) == candidates_.end()) candidates_.push_back(obligation);
  };
  for (uint32_t lexer = 0; lexer < num_lexers_; ++lexer) {
    std::vector<Situation> left;
    for (Symbol ignored : parser_.ignored()) ends_of(ignored, situation(rests_, lexer), left);
    for (Situation s : left) add(obligation_of(s));
  }
  add(rests_);
  for (uint32_t candidate = 0; candidate < candidates_.size(); ++candidate)
    if (separates(candidate)) {
      separator_ = candidate;
      return;
    }
}

// --- safe ends ------------------------------------------------------------------------------------------------------

// The usual sets of first and following terminals, by iteration. The set at the end is that of the ignored terminals: they leave the parser where
// it was, so anything may follow them that ignored ones may stand before.
void MunchViability::find_followers() {
  std::size_t terminals = symbols_.num_terminals(), nonterminals = symbols_.num_nonterminals();
  std::size_t words = (terminals + 63) / 64;
  auto index = [](uint32_t symbol) { return symbol & ~kTerminalBit; };
  auto info = [&](std::size_t t) -> const SymbolTable::Terminal& {
    return symbols_.terminal_info(Symbol{static_cast<uint32_t>(t) | kTerminalBit});
  };
  auto empty = [&](uint32_t symbol) {
    if (!is_terminal(Symbol{symbol})) return symbols_.nonterminal_info(Symbol{symbol}).nullable;
    const SymbolTable::Terminal& t = info(index(symbol));
    return t.start != kNone && t.border == SymbolTable::Border::kNone && lexicon_.nullable(t.start);
  };
  // A part that is lexed freely is always completed, and leaves nothing: as if it were not there.
  auto hidden = [&](uint32_t symbol) {
    return !is_terminal(Symbol{symbol}) && symbols_.nonterminal_info(Symbol{symbol}).provider->free_part;
  };
  std::vector<Terminals> first(nonterminals, Terminals(words, 0)), after(nonterminals, Terminals(words, 0));
  std::vector<bool> ends(nonterminals, false);
  followers_.assign(terminals, Terminals(words, 0));
  last_.assign(terminals, false);
  bool changed = true;
  auto unite = [](Terminals& to, const Terminals& what) {
    bool grew = false;
    for (std::size_t w = 0; w < to.size(); ++w) {
      grew = grew || (what[w] & ~to[w]);
      to[w] |= what[w];
    }
    return grew;
  };
  auto add = [&](Terminals& to, const Terminals& what) { changed = unite(to, what) || changed; };
  auto first_of = [&](uint32_t symbol) {
    if (!is_terminal(Symbol{symbol})) return first[symbol];
    Terminals own(words, 0);
    own[index(symbol) / 64] |= uint64_t{1} << (index(symbol) % 64);
    return own;
  };
  uint32_t start = parser_.symbol_at(0);
  if (is_terminal(Symbol{start}))
    last_[index(start)] = true;
  else
    ends[index(start)] = true;
  std::vector<uint32_t> body;
  while (changed) {
    changed = false;
    for (std::size_t n = 0; n < nonterminals; ++n) {
      if (hidden(static_cast<uint32_t>(n))) continue;
      for (uint32_t position : parser_.productions(static_cast<uint32_t>(n))) {
        body.clear();
        for (; parser_.symbol_at(position) != Parser::kEnd; ++position)
          if (!hidden(parser_.symbol_at(position))) body.push_back(parser_.symbol_at(position));
        Terminals next = after[n];
        bool last = ends[n];
        for (std::size_t k = body.size(); k-- > 0;) {
          uint32_t symbol = body[k];
          bool terminal = is_terminal(Symbol{symbol});
          add(terminal ? followers_[index(symbol)] : after[symbol], next);
          std::vector<bool>& lasts = terminal ? last_ : ends;
          if (last && !lasts[index(symbol)]) {
            lasts[index(symbol)] = true;
            changed = true;
          }
          Terminals own = first_of(symbol);
          if (empty(symbol))
            unite(own, next);
          else
            last = false;
          next = std::move(own);
        }
        Terminals own(words, 0);
        for (uint32_t symbol : body) {
          unite(own, first_of(symbol));
          if (!empty(symbol)) break;
        }
        add(first[n], own);
      }
    }
  }
  const std::vector<Terminals> followers = followers_;
  for (Symbol ignored : parser_.ignored()) {
    Terminals skipping(words, 0);
    auto take = [&](const Terminals& set) {
      for (std::size_t t = 0; t < terminals; ++t)
        if ((set[t / 64] >> (t % 64) & 1) && (info(t).start == kNone || modes_.skips(info(t).start)))
          skipping[t / 64] |= uint64_t{1} << (t % 64);
    };
    for (std::size_t t = 0; t < terminals; ++t)
      if (parser_.ignores(ignored, info(t).next_lexer)) take(followers[t]);
    if (!is_terminal(Symbol{start}) && parser_.ignores(ignored, parser_.lexer(parser_.initial())))
      take(first[index(start)]);
    followers_[index(static_cast<uint32_t>(ignored))] = skipping;
    last_[index(static_cast<uint32_t>(ignored))] = true;
  }
  // What is lexed freely in a grammar with parts may have tags, and is looked at place by place.
  for (std::size_t t = 0; t < terminals; ++t)
    if (info(t).start != kNone && (!mixed_ || info(t).mode != 0))
      terminal_of_.emplace(id(info(t).start), static_cast<uint32_t>(t));
  effort_.spend((terminals + 2 * nonterminals) * words * sizeof(uint64_t));
}

bool MunchViability::safe_after(Node group, Node obligation) {
  auto terminal = terminal_of_.find(id(group));
  if (terminal == terminal_of_.end() || obligation == kNone) return false;
  uint64_t which = key(terminal->second, id(obligation));
  uint32_t known = safe_.find(which);
  if (known != PublishedMap::kUnknown) return known == 1;
  std::lock_guard lock(parser_.mutex());
  MunchEffort::Question question(effort_);
  Node canonical = obligations_.canonical(obligation);
  bool result = safe(terminal->second, canonical);
  if (canonical != obligation) effort_.spend(safe_.insert(which, result ? 1 : 0));
  return result;
}

// A greatest fixpoint: all pairs that the question leads to are held to be safe until one of their followers has no safe end left.
bool MunchViability::safe(uint32_t terminal, Node obligation) {
  uint64_t asked = key(terminal, id(obligation));
  if (uint32_t known = safe_.find(asked); known != PublishedMap::kUnknown) return known == 1;
  struct Pair {
    uint64_t what;
    bool safe = true;
    std::vector<std::vector<uint32_t>> needs;  // per follower: the pairs of which one must be safe
  };
  std::vector<Pair> pairs{{asked, true, {}}};
  std::unordered_map<uint64_t, uint32_t> number{{asked, 0}};
  for (std::size_t at = 0; at < pairs.size(); ++at) {
    uint32_t t = static_cast<uint32_t>(pairs[at].what >> 32);
    Node o{static_cast<uint32_t>(pairs[at].what)};
    effort_.spend(0);
    uint32_t lexer = mixed_ ? symbols_.terminal_info(Symbol{t | kTerminalBit}).next_lexer : 0;
    bool possible = !last_[t] || may_end(situation(o, lexer));
    std::vector<std::vector<uint32_t>> needs;
    for (uint32_t follower = 0; possible && follower < followers_.size(); ++follower) {
      if (!(followers_[t][follower / 64] >> (follower % 64) & 1)) continue;
      std::vector<uint32_t> options;
      bool certain = false;
      for (Situation after : after_terminal(Symbol{follower | kTerminalBit}, situation(o, lexer))) {
        Node left = obligations_.canonical(obligation_of(after));
        uint64_t next = key(follower, id(left));
        uint32_t known = safe_.find(next);
        certain = certain || known == 1;
        if (known != PublishedMap::kUnknown) continue;
        auto [it, fresh] = number.try_emplace(next, static_cast<uint32_t>(pairs.size()));
        if (fresh) pairs.push_back({next, true, {}});
        options.push_back(it->second);
      }
      if (certain) continue;
      possible = !options.empty();
      needs.push_back(std::move(options));
    }
    pairs[at].safe = possible;
    if (possible) pairs[at].needs = std::move(needs);
  }
  for (bool changed = true; changed;) {
    changed = false;
    for (Pair& pair : pairs) {
      if (!pair.safe) continue;
      pair.safe = std::ranges::all_of(pair.needs, [&](const std::vector<uint32_t>& options) {
        return std::ranges::any_of(options, [&](uint32_t p) { return pairs[p].safe; });
      });
      changed = changed || !pair.safe;
    }
  }
  for (const Pair& pair : pairs) effort_.spend(safe_.insert(pair.what, pair.safe ? 1 : 0), 0);
  return pairs[0].safe;
}

// --- the fixpoint ---------------------------------------------------------------------------------------------------

uint32_t MunchViability::variable(std::unordered_map<uint64_t, uint32_t>& table, uint32_t which, Situation situation,
                                  bool is_symbol) {
  uint64_t what = key(which, static_cast<uint32_t>(situation));
  auto found = table.find(what);
  if (found != table.end()) return found->second;
  effort_.spend(sizeof(Variable) + 64);
  uint32_t number = static_cast<uint32_t>(variables_.size());
  variables_.push_back({what, is_symbol, false, false, {}, {}});
  table.emplace(what, number);
  enqueue(number);
  return number;
}

void MunchViability::enqueue(uint32_t number) {
  if (variables_[number].queued) return;
  variables_[number].queued = true;
  queue_.push_back(number);
}

void MunchViability::add(uint32_t number, Situation value) {
  std::vector<Situation>& values = variables_[number].values;
  for (Situation other : values)
    if (implies(value, other)) return;
  effort_.spend(sizeof(Situation));
  values.push_back(value);
  enqueue(number);
}

void MunchViability::connect(uint32_t from, uint32_t to) {
  if (from == to || !copies_.insert(key(from, to)).second) return;
  effort_.spend(sizeof(Variable::Edge) + 40);
  variables_[from].edges.push_back({kCopy, to});
  enqueue(from);
}

// Gives a variable its edges. What can throw comes before what cannot be done twice.
void MunchViability::start(uint32_t number) {
  Variable& v = variables_[number];
  uint32_t which = static_cast<uint32_t>(v.what >> 32);
  Situation from{static_cast<uint32_t>(v.what)};
  if (!v.is_symbol) {
    uint32_t symbol = parser_.symbol_at(which);
    if (symbol == Parser::kEnd) {
      add(number, from);
    } else {
      uint32_t first = symbol_variable(symbol, from);
      if (parser_.symbol_at(which + 1) == Parser::kEnd) {
        connect(first, number);
      } else {
        effort_.spend(sizeof(Variable::Edge));
        variables_[first].edges.push_back({which + 1, number});
        enqueue(first);
      }
    }
  } else if (is_terminal(Symbol{which})) {
    for (Situation end : after_terminal(Symbol{which}, from)) add(number, end);
  } else if (rests_ == kAll && obligation_of(from) == kAll &&
             symbols_.nonterminal_info(Symbol{which}).provider->free_part) {
    add(number, from);
  } else {
    if (symbols_.nonterminal_info(Symbol{which}).nullable) add(number, from);
    for (uint32_t production : parser_.productions(which)) connect(suffix_variable(production, from), number);
  }
  v.started = true;
}

void MunchViability::propagate(uint32_t number) {
  Variable& v = variables_[number];
  if (!v.started) start(number);
  for (std::size_t e = 0; e < v.edges.size(); ++e) {
    while (v.edges[e].done < v.values.size()) {
      Situation value = v.values[v.edges[e].done];
      auto [position, target, done] = v.edges[e];
      if (position == kCopy)
        add(target, value);
      else
        connect(suffix_variable(position, value), target);
      ++v.edges[e].done;
    }
  }
}

const std::vector<MunchViability::Situation>& MunchViability::suffix(uint32_t position, Situation situation) {
  uint32_t wanted = suffix_variable(position, situation);
  while (!queue_.empty()) {
    uint32_t number = queue_.back();
    queue_.pop_back();
    variables_[number].queued = false;
    try {
      propagate(number);
    } catch (...) {
      enqueue(number);  // where it stopped, the next question goes on
      throw;
    }
  }
  return variables_[wanted].values;
}

// --- boundaries -----------------------------------------------------------------------------------------------------

const Parser::Continuations& MunchViability::continuations(uint32_t context) {
  auto known = continuations_.find(context);
  if (known != continuations_.end()) return known->second;
  Parser::Continuations found = parser_.continuations(context);
  effort_.spend(sizeof(found) + 48 + found.items.size() * sizeof(Parser::Entry));
  return continuations_.emplace(context, std::move(found)).first->second;
}

// Breadth-first from (context, situation) pairs, read 'an item returning there is complete'. As in any search for one
// hit: the way to it is true, and if there is none, all that was visited is false.
bool MunchViability::returns_to_acceptance(const std::vector<uint64_t>& roots) {
  struct Visit {
    uint64_t at;
    std::size_t parent;
  };
  constexpr std::size_t kRoot = SIZE_MAX;
  std::vector<Visit> queue;
  std::unordered_set<uint64_t> seen;
  auto mark_path = [&](std::size_t visit) {
    for (; visit != kRoot; visit = queue[visit].parent) {
      effort_.spend(32);
      returns_[queue[visit].at] = true;
    }
    return true;
  };
  // Is it known to reach acceptance?
  auto meet = [&](uint64_t at, std::size_t parent) {
    auto known = returns_.find(at);
    if (known != returns_.end()) return known->second;
    if (seen.insert(at).second) queue.push_back({at, parent});
    return false;
  };
  for (uint64_t root : roots)
    if (meet(root, kRoot)) return true;
  for (std::size_t at = 0; at < queue.size(); ++at) {
    uint32_t context = static_cast<uint32_t>(queue[at].at >> 32);
    Situation from{static_cast<uint32_t>(queue[at].at)};
    const Parser::Continuations& next = continuations(context);
    if (next.accepting && may_end(from)) return mark_path(at);
    for (const Parser::Entry& item : next.items)
      for (Situation left : suffix(item.position, from))
        if (meet(key(item.context, static_cast<uint32_t>(left)), at)) return mark_path(at);
  }
  for (const Visit& visit : queue) {
    effort_.spend(32);
    returns_[visit.at] = false;
  }
  return false;
}

bool MunchViability::decide(ParserState parser, Situation from) {
  if (parser_.accepting(parser) && may_end(from)) return true;
  std::vector<uint64_t> complete;
  for (const Parser::Entry& item : parser_.kernel_items(parser))
    for (Situation left : suffix(item.position, from))
      complete.push_back(key(item.context, static_cast<uint32_t>(left)));
  return returns_to_acceptance(complete);
}

bool MunchViability::viable(ParserState parser, Node obligation, Dropped newline) {
  if (obligation == kNone) return false;
  uint32_t lexer = parser_.lexer(parser);
  if (known_clean(obligation, lexer)) return true;
  PublishedMap& boundaries = boundaries_[newline != kNone];
  uint64_t which = key(static_cast<uint32_t>(parser), id(obligation));
  uint32_t known = boundaries.find(which);
  if (known != PublishedMap::kUnknown) return known == 1;
  if (viable_in_shape(parser_.lookahead(parser), obligation, newline)) return true;
  std::lock_guard lock(parser_.mutex());
  MunchEffort::Question question(effort_);
  if (separator_ != kNoSeparator && clean(separator_, situation(obligation, lexer))) return true;
  Node canonical = obligations_.canonical(obligation);
  bool result = canonical == obligation ? decide(parser, situation(obligation, lexer)) : viable(parser, canonical);
  if (!result && newline != kNone) {
    // After the newline the text goes on as if it were not there. (Where one does not help, no second one does.)
    result = std::ranges::any_of(after_dropped(situation(obligation, lexer), newline),
                                 [&](Situation s) { return viable(parser, obligation_of(s)); });
  }
  effort_.spend(boundaries.insert(which, result ? 1 : 0));
  return result;
}

std::vector<MunchViability::Situation> MunchViability::after_dropped(Situation from, Node newline) {
  std::vector<Situation> left;
  for (Situation before : after_ignored(from))
    for (const LexemeEnds::End& end :
         ends_.weakest_ends(ends_.state(newline, modes_.competing_with(newline), obligation_of(before))))
      keep_weakest(left, situation(end.obligation, lexer_of(before)));
  return left;
}

bool MunchViability::tells_ends() {
  if (separator_ != kNoSeparator) return true;
  std::lock_guard lock(parser_.mutex());
  MunchEffort::Question question(effort_);
  return std::ranges::any_of(terminal_of_, [this](const auto& entry) { return group_ends(Node{entry.first}).clean; });
}

// If what is expected next can be read to an end that is safe, whatever follows it can be. Not so of special tokens that there are none of, but
// then nothing is safe before them.
bool MunchViability::viable_in_shape(const Parser::Lookahead& look, Node obligation, Dropped newline) {
  if (!shapes_tell() || obligation == kNone) return false;
  PublishedMap& boundaries = shape_boundaries_[newline != kNone];
  uint64_t which = key(look.number, id(obligation));
  uint32_t known = boundaries.find(which);
  if (known != PublishedMap::kUnknown) return known == 1;
  std::lock_guard lock(parser_.mutex());
  MunchEffort::Question question(effort_);
  Node canonical = obligations_.canonical(obligation);
  bool result = false;
  for (const Parser::Expected& e : look.expected) {
    if (e.num_entries == 0) continue;  // ignored: what comes after is asked below
    uint32_t terminal = static_cast<uint32_t>(e.terminal) & ~kTerminalBit;
    for (Situation after : after_terminal(e.terminal, situation(canonical, 0)))
      result = result || (terminal_of_.empty() ? separator_ != kNoSeparator && clean(separator_, after)
                                               : safe(terminal, obligations_.canonical(obligation_of(after))));
    if (result) break;
  }
  if (!result && newline != kNone)
    result = std::ranges::any_of(after_dropped(situation(canonical, 0), newline),
                                 [&](Situation s) { return viable_in_shape(look, obligation_of(s)); });
  effort_.spend(boundaries.insert(which, result ? 1 : 0));
  return result;
}

bool MunchViability::leads_into_shape(const Parser::Lookahead& after, uint32_t state, Dropped newline) {
  PublishedMap& questions = shape_questions_[newline != kNone];
  uint32_t question = questions.find(after.number);
  if (question == PublishedMap::kUnknown) {
    question = num_questions_++;
    effort_.spend(questions.insert(after.number, question));
  }
  return ends_.leads_to(state, question,
                        [&](const LexemeEnds::End& end) { return viable_in_shape(after, end.obligation, newline); });
}

bool MunchViability::viable_before_shape(const Parser::Lookahead& after, Node lexeme, Node competing, Node obligation,
                                         Dropped newline) {
  if (!shapes_tell()) return false;
  std::lock_guard lock(parser_.mutex());
  MunchEffort::Question question(effort_);
  return leads_into_shape(after, ends_.state(lexeme, competing, obligation), newline);
}

// --- inside lexemes -------------------------------------------------------------------------------------------------

// The lexer that reads on when the lexeme is complete.
uint32_t MunchViability::lexer_after(const Thread& t) {
  const Parser::Expected* expected = Parser::find(parser_.lookahead(t.parser), t.group, 0);
  if (!expected || expected->num_entries == 0) return parser_.lexer(t.parser);  // ignored
  return symbols_.terminal_info(expected->terminal).next_lexer;
}

bool MunchViability::viable(const Thread& t, Dropped newline) {
  constexpr uint32_t kDropped = uint32_t{1} << 31;        // beyond all nodes
  bool dropped = newline != kNone && newline == t.group;  // the parser will not see it
  uint64_t place = key(static_cast<uint32_t>(t.parser), id(t.group) | (dropped ? kDropped : 0));
  PublishedMap& questions = questions_[newline != kNone];
  // Parser states expect whole groups where terminals have no tags, so any clean end will do.
  bool separated = no_tags_ && separator_ != kNoSeparator;
  uint32_t lexer = separated && num_lexers_ > 1 ? lexer_after(t) : 0;
  uint32_t safe_question = safe_questions_.find(id(t.group));
  uint32_t state = ends_.find(t.lexeme, t.competing, t.obligation);
  if (state != LexemeEnds::kUnknown) {
    if (separated && ends_.answer(separator_questions_[lexer], state) == 1) return true;
    if (!dropped && safe_question != PublishedMap::kUnknown && ends_.answer(safe_question, state) == 1) return true;
    uint32_t question = questions.find(place);
    if (question != PublishedMap::kUnknown) {
      uint32_t known = ends_.answer(question, state);
      if (known != LexemeEnds::kUnknown) return known == 1;
    }
  }
  std::lock_guard lock(parser_.mutex());
  MunchEffort::Question guard(effort_);
  if (lexed_freely(t.group, t.parser) && rests_ == kAll && t.obligation == kAll && always_viable(t.group, t.parser))
    return true;
  state = ends_.state(t.lexeme, t.competing, t.obligation);
  if (separated && ends_.leads_to(state, separator_questions_[lexer], [&](const LexemeEnds::End& end) {
        return clean(separator_, situation(end.obligation, lexer));
      }))
    return true;
  if (!dropped && leads_to_safe_end(t.group, state)) return true;
  if (shapes_tell()) {
    const Parser::Lookahead* after = &parser_.lookahead(t.parser);
    if (!dropped) {
      const Parser::Expected* expected = Parser::find(*after, t.group, 0);
      bool doubtful = false;
      after = expected ? &parser_.lookahead(parser_.shift(t.parser, *expected, kSomeText, doubtful)) : nullptr;
    }
    if (after && leads_into_shape(*after, state, newline)) return true;
  }
  uint32_t question = questions.find(place);
  if (question == PublishedMap::kUnknown) {
    question = num_questions_++;
    effort_.spend(questions.insert(place, question));
  }
  if (dropped)
    return ends_.leads_to(state, question,
                          [&](const LexemeEnds::End& end) { return viable(t.parser, end.obligation, newline); });
  const Parser::Lookahead& look = parser_.lookahead(t.parser);
  return ends_.leads_to(state, question, [&](const LexemeEnds::End& end) {
    const Parser::Expected* expected = Parser::find(look, t.group, end.tag);
    bool doubtful = false;
    return expected && viable(parser_.shift(t.parser, *expected, kSomeText, doubtful), end.obligation, newline);
  });
}

bool MunchViability::leads_to_safe_end(Node group, uint32_t state) {
  if (!terminal_of_.contains(id(group))) return false;
  uint32_t question = safe_questions_.find(id(group));
  if (question == PublishedMap::kUnknown) {
    question = num_questions_++;
    effort_.spend(safe_questions_.insert(id(group), question));
  }
  return ends_.leads_to(state, question, [&](const LexemeEnds::End& end) { return safe_after(group, end.obligation); });
}

bool MunchViability::surely_viable(Node group, Node lexeme, Node competing, Node obligation) {
  std::lock_guard lock(parser_.mutex());
  MunchEffort::Question guard(effort_);
  uint32_t state = ends_.state(lexeme, competing, obligation);
  bool separated = no_tags_ && separator_ != kNoSeparator && num_lexers_ == 1;
  if (separated && ends_.leads_to(state, separator_questions_[0], [&](const LexemeEnds::End& end) {
        return clean(separator_, situation(end.obligation, 0));
      }))
    return true;
  return leads_to_safe_end(group, state);
}

bool MunchViability::surely_viable_after(Node group, Node obligation) {
  if (safe_after(group, obligation)) return true;
  if (separator_ == kNoSeparator || num_lexers_ > 1) return false;
  if (known_clean(obligation, 0)) return true;
  std::lock_guard lock(parser_.mutex());
  MunchEffort::Question guard(effort_);
  return clean(separator_, situation(obligation, 0));
}

// A terminal that looks past its end may demand what a longer match forbids; then part of its lexeme leads nowhere.
bool MunchViability::every_state_ends(Node group) {
  std::vector<uint32_t> queue{ends_.state(group, modes_.competing_with(group), rests_)};
  std::unordered_set<uint32_t> seen(queue.begin(), queue.end());
  for (std::size_t at = 0; at < queue.size(); ++at) {
    uint32_t state = queue[at];
    if (ends_.ends_here(state).empty() && ends_.weakest_ends(state).empty()) return false;
    for (uint32_t next : ends_.next(state))
      if (seen.insert(next).second) queue.push_back(next);
  }
  return true;
}

const MunchViability::GroupEnds& MunchViability::group_ends(Node group) {
  auto known = group_ends_.find(id(group));
  if (known != group_ends_.end()) return known->second;
  GroupEnds found{false, false, {}};
  found.known = ends_.all_ends(ends_.state(group, modes_.competing_with(group), rests_), kMaxGroupStates, found.ends);
  if (found.known && lexicon_.after_marker(group) != kAll) found.known = every_state_ends(group);
  found.clean = found.known && no_tags_ && separator_ != kNoSeparator && num_lexers_ == 1 &&
                std::ranges::all_of(found.ends, [this](const LexemeEnds::End& end) {
                  return clean(separator_, situation(end.obligation, 0));
                });
  if (found.known && !found.clean && !terminal_of_.empty())
    found.clean =
        std::ranges::all_of(found.ends, [&](const LexemeEnds::End& end) { return safe_after(group, end.obligation); });
  effort_.spend(sizeof(found) + found.ends.size() * sizeof(LexemeEnds::End));
  return group_ends_.emplace(id(group), std::move(found)).first->second;
}

bool MunchViability::always_viable(Node group, ParserState parser, Dropped newline) {
  PublishedMap& always = always_[newline != kNone];
  uint64_t which = key(static_cast<uint32_t>(parser), id(group));
  uint32_t known = always.find(which);
  if (known != PublishedMap::kUnknown) return known == 1;
  std::lock_guard lock(parser_.mutex());
  MunchEffort::Question question(effort_);
  if (lexed_freely(group, parser)) {
    // Whichever of its terminals it becomes, it owes nothing.
    const Parser::Lookahead& look = parser_.lookahead(parser);
    bool viable_after_all = std::ranges::all_of(look.expected, [&](const Parser::Expected& e) {
      bool doubtful = false;
      return e.start != group || viable(parser_.shift(parser, e, kSomeText, doubtful), kAll);
    });
    if (viable_after_all) {
      effort_.spend(always.insert(which, 1));
      return true;
    }
  }
  const GroupEnds& all = group_ends(group);
  bool result = all.clean;
  if (!result && all.known) {
    const Parser::Lookahead& look = parser_.lookahead(parser);
    result = std::ranges::all_of(all.ends, [&](const LexemeEnds::End& end) {
      const Parser::Expected* expected = Parser::find(look, group, end.tag);
      bool doubtful = false;
      return expected && viable(parser_.shift(parser, *expected, kSomeText, doubtful), end.obligation, newline);
    });
  }
  effort_.spend(always.insert(which, result ? 1 : 0));
  return result;
}

}  // namespace guiderail
