#include "core/parser/infill_blocks.h"

#include <algorithm>
#include <array>
#include <string>
#include <utility>

#include "core/errors.h"

namespace guiderail {

namespace {

constexpr uint64_t key(uint32_t a, uint32_t b) { return (uint64_t{a} << 32) | b; }
constexpr uint32_t kRounded = 16;  // columns: so that a deeper block rarely means new tables

// Widths of the suffix's lines: those of its newlines, of white space where a line begins, and of the beginning, which may belong to a line.
std::vector<Indentation::Columns> widths_of_lines(Engine& engine, std::string_view suffix) {
  const Indentation& blocks = *engine.indentation();
  Lexicon& lexicon = engine.lexicon();
  using Columns = Indentation::Columns;
  std::vector<Columns> found;
  auto space = [](char c) { return c == ' ' || c == '\t'; };
  for (std::size_t at = 0; at <= suffix.size(); ++at) {
    if (at != 0 && !blocks.breaks(static_cast<uint8_t>(suffix[at - 1]))) continue;
    Columns columns{0, 0};
    std::size_t end = at;
    for (; end < suffix.size() && space(suffix[end]); ++end)
      columns = blocks.longer(columns, static_cast<uint8_t>(suffix[end]));
    found.push_back(columns);
  }
  for (uint32_t lexer = 0; lexer < engine.num_lexers(); ++lexer) {
    Node newline = blocks.newline(lexer);
    if (newline == kNone) continue;
    for (std::size_t at = 0; at < suffix.size(); ++at) {
      if (!blocks.breaks(static_cast<uint8_t>(suffix[at]))) continue;
      Columns columns{0, 0};
      Node left = newline;
      for (std::size_t i = at; i < suffix.size(); ++i) {
        auto byte = static_cast<uint8_t>(suffix[i]);
        left = lexicon.step(left, byte);
        if (left == kNone) break;
        columns = blocks.breaks(byte) ? Columns{0, 0} : blocks.longer(columns, byte);
        if (lexicon.nullable(left)) found.push_back(columns);
      }
    }
    // A newline may hold a comment that begins before the suffix: then the whole first line may count.
    Node line = lexicon.step(newline, '\n');
    ByteSet others = line == kNone ? ByteSet{} : lexicon.first_bound(line);
    bool only_space = true;
    others.for_each([&](uint8_t byte) {
      only_space = only_space && (byte == ' ' || byte == '\t' || byte == '\n' || byte == '\r' || byte == '\f');
    });
    if (only_space) continue;
    Columns columns{0, 0};
    for (std::size_t i = 0; i < suffix.size() && !blocks.breaks(static_cast<uint8_t>(suffix[i])); ++i)
      columns = blocks.longer(columns, static_cast<uint8_t>(suffix[i]));
    found.push_back(columns);
  }
  std::ranges::sort(found);
  found.erase(std::ranges::unique(found).begin(), found.end());
  return found;
}

}  // namespace

InfillBlocks::Widths InfillBlocks::enough(Engine& engine, std::string_view suffix, const Thread& thread) {
  const Indentation& blocks = *engine.indentation();
  std::vector<Columns> lines = widths_of_lines(engine, suffix), all = lines;
  std::vector<Columns> open = blocks.blocks(thread.indentation);
  all.insert(all.end(), open.begin(), open.end());
  all.push_back(blocks.columns(thread.indentation));
  auto only = [&](uint32_t columns_of_letter) {
    return std::ranges::all_of(all, [&](Columns c) { return c.columns == c.least * columns_of_letter; });
  };
  Widths result;
  result.letters = only(1)                                          ? Letters::kSpaces
                   : blocks.as_python() && only(blocks.tab_width()) ? Letters::kTabs
                                                                    : Letters::kAny;
  uint32_t most = 0;
  for (Columns c : result.letters == Letters::kAny ? all : lines) most = std::max(most, c.columns);
  result.free = most + 1;
  if (result.letters == Letters::kAny) result.free = (result.free + kRounded - 1) / kRounded * kRounded;
  return result;
}

InfillBlocks::InfillBlocks(Engine& engine, Node before, std::vector<bool> special, std::string_view suffix,
                           const Widths& widths)
    : engine_(engine), parser_(engine.parser()), symbols_(engine.symbols()), lexicon_(engine.lexicon()),
      modes_(engine.modes()), blocks_(*engine.indentation()), before_(before), suffix_(suffix),
      special_(std::move(special)), how_(widths), effort_(engine.limits().munch_states),
      obligations_(lexicon_, parser_.mutex(), effort_) {
  for (Columns c : widths_of_lines(engine, suffix)) lines_.push_back(c.columns);
  lines_.erase(std::ranges::unique(lines_).begin(), lines_.end());
  if (engine.whole_as_python()) suffix_ += '\n';
  if (engine.marked()) obligations_.expect_markers();
  if (blocks_.as_python()) {
    comment_ = lexicon_.concat(lexicon_.bytes(ByteSet::of('#')), kAll);
    no_comment_ = lexicon_.complement(comment_);
  }
  width({0, 0});
  if (how_.letters != Letters::kAny) {
    uint32_t letter = how_.letters == Letters::kTabs ? blocks_.tab_width() : 1;
    for (uint32_t n = 0; n * letter < how_.free; ++n) choices_.push_back(width({n * letter, n}));
    choices_.push_back(kFree);
  }
  frame_id({});
  stack(UINT32_MAX, {});
  MunchEffort::Question question(effort_);
  find_effects();
  find_firsts();
}

// --- what symbols do to frames --------------------------------------------------------------------------------------

// Under each of several lexers a terminal has a start of its own.
InfillBlocks::Role InfillBlocks::role(Symbol terminal) const {
  const auto& info = symbols_.terminal_info(terminal);
  if (info.start == kNone && info.starts.empty()) return Role::kSpecial;
  if (info.start == blocks_.indent()) return Role::kIndent;
  if (info.start == blocks_.dedent()) return Role::kDedent;
  const std::vector<Node> starts = info.starts.empty() ? std::vector{info.start} : info.starts;
  if (std::ranges::any_of(starts, [this](Node n) { return blocks_.is_newline(n); })) return Role::kNewline;
  if (std::ranges::any_of(starts, [this](Node n) { return n != kNone && blocks_.opens(n); })) return Role::kOpens;
  if (std::ranges::any_of(starts, [this](Node n) { return n != kNone && blocks_.closes(n); })) return Role::kCloses;
  return Role::kText;
}

InfillBlocks::Effect InfillBlocks::effect(uint32_t symbol) const {
  if (!is_terminal(Symbol{symbol})) return effects_[symbol];
  switch (role(Symbol{symbol})) {
    case Role::kIndent: return Effect::kOpensBlock;
    case Role::kDedent: return Effect::kClosesBlock;
    case Role::kOpens: return Effect::kOpensBracket;
    case Role::kCloses: return Effect::kClosesBracket;
    default: return Effect::kNone;
  }
}

// kUnknown, with `known`: the production does not close what it opens.
InfillBlocks::Effect InfillBlocks::effect_of_production(uint32_t position, bool& known) const {
  std::vector<Effect> open;
  known = true;
  for (; parser_.symbol_at(position) != Parser::kEnd; ++position) {
    Effect e = effect(parser_.symbol_at(position));
    if (e == Effect::kUnknown) {
      known = false;
      return e;
    }
    if (opens(e)) open.push_back(e);
    if (!closes(e)) continue;
    if (open.empty()) return parser_.symbol_at(position + 1) == Parser::kEnd ? e : Effect::kUnknown;
    if ((open.back() == Effect::kOpensBlock) != (e == Effect::kClosesBlock)) return Effect::kUnknown;
    open.pop_back();
  }
  if (open.empty()) return Effect::kNone;
  return open.size() == 1 ? open[0] : Effect::kUnknown;
}

void InfillBlocks::find_effects() {
  std::size_t count = symbols_.num_nonterminals();
  effects_.assign(count, Effect::kUnknown);
  has_lines_.assign(count, false);
  std::vector<std::vector<uint32_t>> productions;
  for (std::size_t n = 0; n < count; ++n) productions.push_back(parser_.productions(static_cast<uint32_t>(n)));
  auto makes_lines = [&](Symbol terminal) {
    Role r = role(terminal);
    return r == Role::kNewline || r == Role::kIndent || r == Role::kDedent;
  };
  for (bool changed = true; changed;) {
    changed = false;
    for (std::size_t n = 0; n < count; ++n) {
      if (effects_[n] == Effect::kUnknown) {
        if (symbols_.nonterminal_info(Symbol{static_cast<uint32_t>(n)}).nullable) effects_[n] = Effect::kNone;
        for (uint32_t start : productions[n]) {
          bool known = false;
          Effect e = effect_of_production(start, known);
          if (known && effects_[n] == Effect::kUnknown) effects_[n] = e;
        }
        changed = changed || effects_[n] != Effect::kUnknown;
      }
      for (uint32_t start : productions[n])
        for (uint32_t p = start; parser_.symbol_at(p) != Parser::kEnd && !has_lines_[n]; ++p) {
          uint32_t symbol = parser_.symbol_at(p);
          has_lines_[n] = is_terminal(Symbol{symbol}) ? makes_lines(Symbol{symbol}) : has_lines_[symbol];
          changed = changed || has_lines_[n];
        }
    }
  }
  for (std::size_t n = 0; n < count; ++n) {
    const auto& info = symbols_.nonterminal_info(Symbol{static_cast<uint32_t>(n)});
    bool uneven = info.nullable && effects_[n] != Effect::kNone;
    for (uint32_t start : productions[n]) {
      bool known = false;
      Effect e = effect_of_production(start, known);
      uneven = uneven || !known || e == Effect::kUnknown || e != effects_[n];
    }
    if (uneven)
      throw GrammarError(
          "a suffix is not supported where a rule with blocks by indentation does not close what it opens: rule '" +
          info.provider->name(info.local) + "'");
  }
}

// Where the first symbol stands that closes what was opened before `position`, or the production ends.
uint32_t InfillBlocks::closing_position(uint32_t position) const {
  for (uint32_t depth = 0; parser_.symbol_at(position) != Parser::kEnd; ++position) {
    Effect e = effect(parser_.symbol_at(position));
    if (opens(e)) ++depth;
    if (closes(e) && depth-- == 0) break;
  }
  return position;
}

// Is a block or bracket left open by what the production has from `position` on?
bool InfillBlocks::unclosed(uint32_t position) const {
  uint32_t depth = 0;
  for (; parser_.symbol_at(position) != Parser::kEnd; ++position) {
    Effect e = effect(parser_.symbol_at(position));
    if (opens(e)) ++depth;
    if (closes(e) && depth) --depth;
  }
  return depth != 0;
}

bool InfillBlocks::is_ignored(Symbol terminal) const {
  return std::ranges::find(parser_.ignored(), terminal) != parser_.ignored().end();
}

// --- situations -----------------------------------------------------------------------------------------------------

uint32_t InfillBlocks::intern(const Situation& s) {
  auto [it, fresh] = situation_ids_.try_emplace(s, static_cast<uint32_t>(situations_.size()));
  if (fresh) {
    situations_.push_back(s);
    effort_.spend(2 * sizeof(Situation) + 64, 0);
  }
  return it->second;
}

uint32_t InfillBlocks::frame_id(const Frame& f) {
  auto [it, fresh] = frame_ids_.try_emplace(f, static_cast<uint32_t>(frames_.size()));
  if (fresh) frames_.push_back(f);
  return it->second;
}

uint32_t InfillBlocks::width(Columns columns) {
  if (columns.columns >= how_.free) return kFree;
  auto [it, fresh] = width_ids_.try_emplace(columns, static_cast<uint32_t>(widths_.size()));
  if (fresh) widths_.push_back(columns);
  return it->second;
}

uint32_t InfillBlocks::pending(const Pending& p) {
  auto [it, fresh] = pending_ids_.try_emplace(p, static_cast<uint32_t>(pendings_.size()));
  if (fresh) pendings_.push_back(p);
  return it->second + 2;
}

uint32_t InfillBlocks::stack(uint32_t outer, const Frame& frame) {
  auto [it, fresh] = stack_ids_.try_emplace({outer, frame}, static_cast<uint32_t>(stacks_.size()));
  if (fresh) {
    stacks_.push_back({outer, frame});
    effort_.spend(96);
  }
  return it->second;
}

bool InfillBlocks::wider(uint32_t a, uint32_t b) const {
  if (a == kFree || a == kChosen) return true;
  return b != kFree && widths_[a].columns > widths_[b].columns && widths_[a].least > widths_[b].least;
}

bool InfillBlocks::narrower(uint32_t a, uint32_t b) const {
  if (b == kFree || a == kChosen) return true;
  return a != kFree && widths_[a].columns < widths_[b].columns;
}

bool InfillBlocks::resolve(Situation& s) const {
  if (s.pending == kNothing) return true;
  if (s.pending == kEnd || !same(pendings_[s.pending - 2].width, s.frame.width)) return false;
  s.pending = kNothing;
  return true;
}

bool InfillBlocks::implies(const Situation& stronger, const Situation& weaker) {
  return stronger.position == weaker.position && stronger.rest == weaker.rest && stronger.lexer == weaker.lexer &&
         stronger.pending == weaker.pending && stronger.frame == weaker.frame &&
         obligations_.implies(stronger.obligation, weaker.obligation);
}

void InfillBlocks::keep_weakest(std::vector<Situation>& set, const Situation& s) {
  for (const Situation& other : set)
    if (implies(s, other)) return;
  std::erase_if(set, [&](const Situation& other) { return implies(other, s); });
  set.push_back(s);
}

// --- what may come first --------------------------------------------------------------------------------------------

void InfillBlocks::find_firsts() {
  std::size_t count = symbols_.num_nonterminals(), words = (symbols_.num_terminals() + 63) / 64;
  firsts_.assign(count, Terminals(words, 0));
  for (bool changed = true; changed;) {
    changed = false;
    for (std::size_t n = 0; n < count; ++n)
      for (uint32_t p : parser_.productions(static_cast<uint32_t>(n))) {
        for (; parser_.symbol_at(p) != Parser::kEnd; ++p) {
          Symbol symbol{parser_.symbol_at(p)};
          auto set = [&](std::size_t word, uint64_t bits) {
            changed = changed || (bits & ~firsts_[n][word]);
            firsts_[n][word] |= bits;
          };
          if (is_terminal(symbol)) {
            set(index_of(symbol) / 64, uint64_t{1} << (index_of(symbol) % 64));
            break;
          }
          for (std::size_t w = 0; w < words; ++w) set(w, firsts_[index_of(symbol)][w]);
          if (!symbols_.nonterminal_info(symbol).nullable) break;
        }
      }
  }
  indents_.assign(words, 0);
  for (std::size_t t = 0; t < symbols_.num_terminals(); ++t)
    if (role(Symbol{static_cast<uint32_t>(t) | kTerminalBit}) == Role::kIndent)
      indents_[t / 64] |= uint64_t{1} << (t % 64);
  effort_.spend(count * words * sizeof(uint64_t));
}

// The terminals that can be read here, in the suffix; those that stand for no text are among them.
const InfillBlocks::Terminals& InfillBlocks::readable(const Situation& from) {
  Situation plain = from;
  plain.pending = kNothing;
  plain.frame.width = 0;
  auto known = readable_.find(plain);
  if (known != readable_.end()) return known->second;
  Terminals found(firsts_[0].size(), 0);
  const std::vector<Situation> skipping = beginnings(plain, true);
  for (std::size_t t = 0; t < symbols_.num_terminals(); ++t) {
    Symbol terminal{static_cast<uint32_t>(t) | kTerminalBit};
    Role which = role(terminal);
    bool reads = which == Role::kIndent || which == Role::kDedent;
    const auto& info = symbols_.terminal_info(terminal);
    if (!reads && which != Role::kSpecial && !is_ignored(terminal))
      if (Node start = info.start_under(plain.lexer); start != kNone) {
        Node competing = modes_.competing_with(start);
        auto begins = [&](const Situation& s) {
          return s.position < suffix_.size() &&
                 lexicon_.first_bound(start).has(static_cast<uint8_t>(suffix_[s.position])) &&
                 !ends_in_suffix(start, competing, s.position).empty();
        };
        reads = modes_.skips(start) ? std::ranges::any_of(skipping, begins) : begins(plain);
      }
    if (reads) found[t / 64] |= uint64_t{1} << (t % 64);
  }
  effort_.spend(96);
  return readable_.emplace(plain, std::move(found)).first->second;
}

// Is it worth asking what the symbol there leaves?
bool InfillBlocks::may_begin(uint32_t position, const Situation& from) {
  uint32_t symbol = parser_.symbol_at(position);
  if (symbol == Parser::kEnd) return true;
  bool terminal = is_terminal(Symbol{symbol});
  if (!terminal && symbols_.nonterminal_info(Symbol{symbol}).nullable) return true;
  auto begins_with = [&](const Terminals& set) {
    if (terminal) return (set[index_of(Symbol{symbol}) / 64] >> (index_of(Symbol{symbol}) % 64) & 1) != 0;
    for (std::size_t w = 0; w < set.size(); ++w)
      if (set[w] & firsts_[symbol][w]) return true;
    return false;
  };
  if (from.pending != kNothing && from.pending != kEnd && may_indent(from) && begins_with(indents_)) return true;
  if (Situation resolved = from; !resolve(resolved)) return false;
  return from.position == kBefore || begins_with(readable(from));
}

bool InfillBlocks::may_indent(const Situation& s) const {
  if (s.pending < 2 || s.frame.brackets) return false;
  const Pending& p = pendings_[s.pending - 2];
  return !p.closed && wider(p.width, s.frame.width);
}

// --- the fixpoint ---------------------------------------------------------------------------------------------------

uint32_t InfillBlocks::variable(uint32_t which, uint32_t situation, bool is_symbol) {
  auto& table = is_symbol ? symbol_variables_ : suffix_variables_;
  auto [it, fresh] = table.try_emplace(key(which, situation), static_cast<uint32_t>(variables_.size()));
  if (!fresh) return it->second;
  uint32_t number = it->second;
  variables_.push_back({which, situation, is_symbol, false, false, {}, {}});
  enqueue(number);
  effort_.spend(sizeof(Variable) + 64);
  return number;
}

void InfillBlocks::enqueue(uint32_t number) {
  if (variables_[number].queued) return;
  variables_[number].queued = true;
  queue_.push_back(number);
}

void InfillBlocks::add(uint32_t number, uint32_t value) {
  std::vector<uint32_t>& values = variables_[number].values;
  for (uint32_t other : values)
    if (other == value || implies(situations_[value], situations_[other])) return;
  effort_.spend(sizeof(uint32_t), 0);
  values.push_back(value);
  enqueue(number);
}

void InfillBlocks::connect(uint32_t from, Edge edge) {
  if (edge.kind == Edge::Kind::kCopy && edge.target == from) return;
  std::array<uint32_t, 6> which{from,       static_cast<uint32_t>(edge.kind), edge.position, edge.close, edge.frame,
                                edge.target};
  if (connected_.contains(which)) return;
  effort_.spend(sizeof(Edge) + 72, 0);
  connected_.insert(which);
  variables_[from].edges.push_back(edge);
  enqueue(from);
}

// What follows a value from `position` on belongs to `target`, up to what closes the frame or the production's end.
void InfillBlocks::go_on(uint32_t position, uint32_t value, uint32_t target) {
  uint32_t symbol = parser_.symbol_at(position);
  if (symbol == Parser::kEnd || closes(effect(symbol))) {
    add(target, value);
    return;
  }
  if (!may_begin(position, situations_[value])) return;
  connect(variable(position, value, false), {Edge::Kind::kCopy, 0, 0, kKeep, target});
}

void InfillBlocks::start(uint32_t number) {
  variables_[number].started = true;
  auto [which, from] = std::pair(variables_[number].which, variables_[number].situation);
  const Situation here = situations_[from];
  if (!variables_[number].is_symbol) {
    uint32_t symbol = parser_.symbol_at(which);
    if (symbol == Parser::kEnd || closes(effect(symbol))) {
      add(number, from);
      return;
    }
    uint32_t first = variable(symbol, from, true);
    if (!opens(effect(symbol))) {
      connect(first, {Edge::Kind::kGo, which + 1, 0, kKeep, number});
    } else if (uint32_t close = closing_position(which + 1); parser_.symbol_at(close) != Parser::kEnd) {
      connect(first, {Edge::Kind::kRegion, which + 1, close, frame_id(here.frame), number});
    } else {
      connect(first, {Edge::Kind::kGo, which + 1, 0, kKeep, number});
    }
    return;
  }
  if (is_terminal(Symbol{which})) {
    std::vector<Situation> ends;
    after_terminal(Symbol{which}, here, ends);
    for (const Situation& end : ends) add(number, intern(end));
    return;
  }
  const auto& info = symbols_.nonterminal_info(Symbol{which});
  if (!has_lines_[which] && (here.pending != kNothing || here.frame.width != 0)) {
    // Widths mean nothing to it.
    if (info.nullable) add(number, from);
    Situation inside = here;
    if (!resolve(inside)) return;
    inside.frame.width = 0;
    connect(variable(which, intern(inside), true), {Edge::Kind::kWidth, 0, 0, frame_id(here.frame), number});
    return;
  }
  if (info.nullable) add(number, from);
  bool closing = closes(effect(which));
  for (uint32_t production : parser_.productions(which)) {
    if (!may_begin(production, here)) continue;
    uint32_t body = variable(production, from, false);
    if (closing)
      connect(body, {Edge::Kind::kClose, closing_position(production), 0, kKeep, number});
    else
      connect(body, {Edge::Kind::kCopy, 0, 0, kKeep, number});
  }
}

void InfillBlocks::hand_on(uint32_t value, const Edge& edge) {
  Situation s = situations_[value];
  switch (edge.kind) {
    case Edge::Kind::kCopy:
      if (edge.frame != kKeep) s.frame = frames_[edge.frame];
      add(edge.target, intern(s));
      return;
    case Edge::Kind::kWidth:
      s.frame.width = frames_[edge.frame].width;
      add(edge.target, intern(s));
      return;
    case Edge::Kind::kGo:
      if (edge.frame != kKeep) s.frame = frames_[edge.frame];
      go_on(edge.position, intern(s), edge.target);
      return;
    case Edge::Kind::kRegion:
      connect(variable(edge.position, value, false), {Edge::Kind::kClose, edge.close, 0, edge.frame, edge.target});
      return;
    case Edge::Kind::kClose:
      connect(variable(parser_.symbol_at(edge.position), value, true),
              {Edge::Kind::kGo, edge.position + 1, 0, edge.frame, edge.target});
      return;
  }
}

void InfillBlocks::propagate(uint32_t number) {
  if (!variables_[number].started) start(number);
  Variable& v = variables_[number];  // of a deque: stays where it is
  for (std::size_t e = 0; e < v.edges.size(); ++e) {
    while (v.edges[e].done < v.values.size()) {
      Edge edge = v.edges[e];
      hand_on(v.values[edge.done], edge);
      ++v.edges[e].done;
    }
  }
}

std::vector<uint32_t> InfillBlocks::solve(uint32_t number) {
  while (!queue_.empty()) {
    uint32_t next = queue_.back();
    queue_.pop_back();
    variables_[next].queued = false;
    try {
      propagate(next);
    } catch (...) {
      variables_[next].started = false;  // nothing is done twice
      enqueue(next);                     // where it stopped, the next question goes on
      throw;
    }
  }
  return variables_[number].values;
}

// --- boundaries -----------------------------------------------------------------------------------------------------

const Parser::Continuations& InfillBlocks::continuations(uint32_t context) {
  auto known = continuations_.find(context);
  if (known != continuations_.end()) return known->second;
  Parser::Continuations found = parser_.continuations(context);
  effort_.spend(sizeof(found) + 48 + found.items.size() * sizeof(Parser::Entry));
  return continuations_.emplace(context, std::move(found)).first->second;
}

// The ways to complete an item that stands where `stack` is open.
void InfillBlocks::complete_item(const Parser::Entry& item, uint32_t situation, uint32_t open,
                                 std::vector<Place>& out) {
  struct Part {
    uint32_t position, situation, stack;
  };
  std::vector<Part> work{{item.position, situation, open}};
  for (std::size_t at = 0; at < work.size(); ++at) {
    const Part part = work[at];
    uint32_t close = closing_position(part.position);
    for (uint32_t value : solve(variable(part.position, part.situation, false))) {
      if (parser_.symbol_at(close) == Parser::kEnd) {
        uint32_t left = unclosed(part.position) ? stack(part.stack, situations_[value].frame) : part.stack;
        out.push_back({item.context, value, left});
        continue;
      }
      uint32_t outer = stacks_[part.stack].outer;
      if (outer == UINT32_MAX) continue;
      for (uint32_t closed : solve(variable(parser_.symbol_at(close), value, true))) {
        Situation s = situations_[closed];
        s.frame = stacks_[outer].frame;
        work.push_back({close + 1, intern(s), outer});
      }
    }
  }
}

// As in munch.h: the way to a hit is true, and if there is none, all that was visited is false.
bool InfillBlocks::returns_to_acceptance(const std::vector<Place>& roots) {
  struct Visit {
    Place at;
    std::size_t parent;
  };
  constexpr std::size_t kRoot = SIZE_MAX;
  std::vector<Visit> queue;
  std::set<Place> seen;
  auto mark_path = [&](std::size_t visit) {
    for (; visit != kRoot; visit = queue[visit].parent) {
      effort_.spend(64);
      returns_[queue[visit].at] = true;
    }
    return true;
  };
  auto meet = [&](const Place& at, std::size_t parent) {
    if (auto known = returns_.find(at); known != returns_.end()) return known->second;
    if (seen.insert(at).second) queue.push_back({at, parent});
    return false;
  };
  for (const Place& root : roots)
    if (meet(root, kRoot)) return true;
  for (std::size_t at = 0; at < queue.size(); ++at) {
    const Place place = queue[at].at;
    const Parser::Continuations& next = continuations(place.context);
    if (next.accepting) {
      Situation end = situations_[place.situation];
      if ((end.pending == kEnd || resolve(end)) && may_end(end)) return mark_path(at);
    }
    for (const Parser::Entry& item : next.items) {
      std::vector<Place> reached;
      complete_item(item, place.situation, place.stack, reached);
      for (const Place& place_after : reached)
        if (meet(place_after, at)) return mark_path(at);
    }
  }
  for (const Visit& visit : queue) {
    effort_.spend(64);
    returns_[visit.at] = false;
  }
  return false;
}

bool InfillBlocks::decide(ParserState parser, const Situation& from, uint32_t open) {
  Situation s = from;
  if (s.position == kBefore) {
    if (s.obligation == kNone || !lexicon_.alive(s.obligation)) return false;
    s.obligation = obligations_.canonical(s.obligation);
  }
  s.lexer = parser_.lexer(parser);
  s.frame = stacks_[open].frame;
  if (parser_.accepting(parser) && stacks_[open].outer == UINT32_MAX && may_end(s)) return true;
  std::vector<Place> complete;
  for (const Parser::Entry& item : parser_.kernel_items(parser)) complete_item(item, intern(s), open, complete);
  return returns_to_acceptance(complete);
}

// The frames that a text has open: blocks first, because none can begin inside of brackets.
uint32_t InfillBlocks::stack_of(const Indentation::State& state) {
  uint32_t open = 0;
  Frame frame;
  for (Columns columns : blocks_.blocks(state)) {
    frame.width = width(columns);
    open = stack(open, frame);
  }
  frame.brackets = true;
  for (uint32_t i = 0; i < blocks_.brackets(state); ++i) open = stack(open, frame);
  return open;
}

// The newline that is being read is compared with the blocks that are open, by their columns: nothing about it is free but what is still to
// be read of it.
bool InfillBlocks::viable_in_newline(const Thread& t, uint32_t open) {
  std::vector<Columns> widths = blocks_.blocks(t.indentation);
  Columns read = blocks_.columns(t.indentation);
  uint32_t most = std::max(how_.free, read.columns + 1);
  for (Columns c : widths) most = std::max(most, c.columns + 1);
  bool doubtful = false;
  for (const NewlineEnd& end :
       newline_ends(t.lexeme, t.competing, t.obligation, before_, read, blocks_.broken(t.indentation), most)) {
    Situation next;
    next.position = end.position;
    next.obligation = end.obligation;
    next.rest = end.rest;
    if (blocks_.suspended(t.indentation)) {
      if (decide(t.parser, next, open)) return true;
      continue;
    }
    if (!end.broken && engine_.indentation_rule().needs_line_break) continue;
    if (blocks_.as_python()) {
      Situation line = next;
      line.obligation = lexicon_.both({end.obligation, comment_});
      if (end.position == kBefore || meets(comment_, end.position))
        if (decide(t.parser, line, open)) return true;
      next.obligation = lexicon_.both({end.obligation, no_comment_});
      if (end.position != kBefore && !meets(no_comment_, end.position)) continue;
    }
    ParserState parser = t.parser;
    auto shift = [&](Node terminal) {
      const Parser::Expected* expected = Parser::find(parser_.lookahead(parser), terminal, 0);
      if (expected) parser = parser_.shift(parser, *expected, kNoText, doubtful);
      return expected != nullptr;
    };
    if (!shift(t.group)) continue;
    std::vector<Columns> left = widths;
    uint32_t now = open;
    auto inner = [&] { return left.empty() ? Columns{0, 0} : left.back(); };
    bool fits = true;
    if (end.broken && end.columns.columns > inner().columns) {
      fits = end.columns.least > inner().least && shift(blocks_.indent());
      left.push_back(end.columns);
      now = stack(now, {width(end.columns), false});
    }
    while (fits && end.broken && end.columns.columns < inner().columns) {
      fits = shift(blocks_.dedent());
      left.pop_back();
      now = stacks_[now].outer;
    }
    if (fits && (!end.broken || end.columns == inner()) && decide(parser, next, now)) return true;
  }
  return false;
}

bool InfillBlocks::viable(const Thread& t) {
  MunchEffort::Question question(effort_);
  uint32_t open = stack_of(t.indentation);
  Situation here;
  here.obligation = t.obligation;
  here.rest = before_;
  if (t.at_boundary()) return decide(t.parser, here, open);
  if (blocks_.is_newline(t.group)) return viable_in_newline(t, open);
  const Parser::Lookahead& look = parser_.lookahead(t.parser);
  uint32_t after = open;
  if (blocks_.opens(t.group)) after = stack(open, {stacks_[open].frame.width, true});
  if (blocks_.closes(t.group)) {
    if (!stacks_[open].frame.brackets) return false;
    after = stacks_[open].outer;
  }
  const std::vector<End> found = ends(t.lexeme, t.competing, t.obligation, before_);
  return std::ranges::any_of(found, [&](const End& end) {
    const Parser::Expected* expected = Parser::find(look, t.group, end.tag);
    if (!expected) return false;
    bool doubtful = false;
    here.position = end.position;
    here.obligation = end.obligation;
    here.rest = end.rest;
    return decide(parser_.shift(t.parser, *expected, kNoText, doubtful), here, after);
  });
}

}  // namespace guiderail
