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

// --- terminals ------------------------------------------------------------------------------------------------------

bool InfillBlocks::meets(Node obligation, std::size_t position) {
  if (position == 0)
    if (auto known = meets_.find(obligation); known != meets_.end()) return known->second;
  Node left = obligation;
  for (std::size_t i = position; i < suffix_.size() && left != kAll && left != kNone; ++i)
    left = lexicon_.step(left, static_cast<uint8_t>(suffix_[i]));
  bool result = left == kAll || (left != kNone && lexicon_.nullable(left));
  if (position == 0) meets_.emplace(obligation, result);
  return result;
}

// The lexeme's ends one byte on at least, read from a position of the suffix on.
const std::vector<InfillBlocks::End>& InfillBlocks::ends_in_suffix(Node lexeme, Node competing, uint32_t position) {
  auto known = ends_in_suffix_.find({lexeme, competing, position});
  if (known != ends_in_suffix_.end()) return known->second;
  std::vector<End> found;
  Node left = lexeme, rivals = competing;
  for (uint32_t i = position; i < suffix_.size();) {
    auto byte = static_cast<uint8_t>(suffix_[i++]);
    left = lexicon_.step(left, byte);
    if (left == kNone) break;
    rivals = lexicon_.step(rivals, byte);
    if (!lexicon_.nullable(left)) continue;
    Node demand = obligations_.after(kAll, rivals, lexicon_.after_marker(left));
    if (demand == kNone || !meets(demand, i)) continue;
    for (uint32_t tag : lexicon_.tags(left)) found.push_back({tag, i, kAll, kAll});
  }
  effort_.spend(80 + found.size() * sizeof(End));
  return ends_in_suffix_.emplace(std::tuple(lexeme, competing, position), std::move(found)).first->second;
}

// The same of a lexeme that is read before the suffix, and may go on in it.
const std::vector<InfillBlocks::End>& InfillBlocks::ends(Node lexeme, Node competing, Node obligation, Node rest) {
  std::array<Node, 4> which{lexeme, competing, obligation, rest};
  if (auto known = ends_.find(which); known != ends_.end()) return known->second;
  std::vector<std::array<Node, 4>> queue{which};
  std::set<std::array<Node, 4>> seen{which};
  std::vector<End> found;
  auto keep = [&](const End& end) {
    auto follows = [&](const End& strong, const End& weak) {
      return strong.tag == weak.tag && strong.position == weak.position && strong.rest == weak.rest &&
             obligations_.implies(strong.obligation, weak.obligation);
    };
    if (std::ranges::any_of(found, [&](const End& other) { return follows(end, other); })) return;
    std::erase_if(found, [&](const End& other) { return follows(other, end); });
    found.push_back(end);
  };
  for (std::size_t at = 0; at < queue.size(); ++at) {
    auto [left, rivals, demands, before] = queue[at];
    effort_.spend(0);
    if (lexicon_.nullable(before) && meets(demands, 0))
      for (const End& end : ends_in_suffix(left, rivals, 0)) keep(end);
    const Lexicon::Transitions *of_left = &lexicon_.transitions(left), *of_rivals = &lexicon_.transitions(rivals),
                               *of_demands = &lexicon_.transitions(demands), *of_before = &lexicon_.transitions(before);
    std::vector<uint32_t> tried;
    (lexicon_.first_bound(left) & lexicon_.first_bound(demands) & lexicon_.first_bound(before))
        .for_each([&](uint8_t byte) {
          uint32_t classes = (uint32_t{of_left->classes[byte]} << 24) | (uint32_t{of_rivals->classes[byte]} << 16) |
                             (uint32_t{of_demands->classes[byte]} << 8) | of_before->classes[byte];
          if (std::ranges::find(tried, classes) != tried.end()) return;
          tried.push_back(classes);
          std::array<Node, 4> next{lexicon_.step(left, byte), lexicon_.step(rivals, byte),
                                   obligations_.canonical(lexicon_.step(demands, byte)), lexicon_.step(before, byte)};
          if (next[0] == kNone || next[2] == kNone || next[3] == kNone) return;
          if (!seen.insert(next).second) return;
          queue.push_back(next);
          if (!lexicon_.nullable(next[0])) return;
          Node after = obligations_.after(next[2], next[1], lexicon_.after_marker(next[0]));
          if (after == kNone) return;
          for (uint32_t tag : lexicon_.tags(next[0])) keep({tag, kBefore, after, next[3]});
        });
  }
  effort_.spend(96 + found.size() * sizeof(End));
  return ends_.emplace(which, std::move(found)).first->second;
}

void InfillBlocks::ends_of(Symbol terminal, const Situation& from, std::vector<Situation>& out) {
  const auto& info = symbols_.terminal_info(terminal);
  Node start = info.start_under(from.lexer);
  if (start == kNone) return;
  Node competing = modes_.competing_with(start);
  const std::vector<End>& found = from.position == kBefore ? ends(start, competing, from.obligation, from.rest)
                                                           : ends_in_suffix(start, competing, from.position);
  for (const End& end : found) {
    if (end.tag != info.tag) continue;
    Situation next = from;
    next.position = end.position;
    next.obligation = end.obligation;
    next.rest = end.rest;
    if (!is_ignored(terminal)) next.lexer = info.next_lexer;
    keep_weakest(out, next);
  }
}

bool InfillBlocks::at_suffix(const Situation& from, Situation& out) {
  if (from.position != kBefore || !lexicon_.nullable(from.rest) || !meets(from.obligation, 0)) return false;
  out = from;
  out.position = 0;
  out.obligation = out.rest = kAll;
  return true;
}

// The parser does not see ignored lexemes, and newlines inside of brackets.
std::vector<InfillBlocks::Situation> InfillBlocks::beginnings(const Situation& from, bool skips) {
  if (!skips) {
    Situation other;
    return at_suffix(from, other) ? std::vector{from, other} : std::vector{from};
  }
  Situation plain = from;
  plain.pending = kNothing;
  plain.frame.width = 0;
  auto known = beginnings_.find(plain);
  if (known == beginnings_.end()) {
    std::vector<Situation> weakest, queue;
    auto reach = [&](const Situation& s) {
      keep_weakest(weakest, s);
      if (std::ranges::find(queue, s) == queue.end()) queue.push_back(s);
    };
    reach(plain);
    for (std::size_t at = 0; at < queue.size(); ++at) {
      const Situation here = queue[at];
      if (std::ranges::find(weakest, here) == weakest.end()) continue;
      Situation other;
      if (at_suffix(here, other)) reach(other);
      std::vector<Situation> reached;
      for (Symbol ignored : parser_.ignored()) ends_of(ignored, here, reached);
      if (Node newline = blocks_.newline(here.lexer); here.frame.brackets && newline != kNone) {
        Node competing = modes_.competing_with(newline);
        const std::vector<End>& found = here.position == kBefore ? ends(newline, competing, here.obligation, here.rest)
                                                                 : ends_in_suffix(newline, competing, here.position);
        for (const End& end : found) {
          Situation next = here;
          next.position = end.position;
          next.obligation = end.obligation;
          next.rest = end.rest;
          keep_weakest(reached, next);
        }
      }
      for (const Situation& next : reached) reach(next);
    }
    effort_.spend(96 + weakest.size() * sizeof(Situation));
    known = beginnings_.emplace(plain, std::move(weakest)).first;
  }
  std::vector<Situation> result = known->second;
  for (Situation& s : result) {
    s.pending = from.pending;
    s.frame = from.frame;
  }
  return result;
}

bool InfillBlocks::may_end(const Situation& from) {
  return std::ranges::any_of(beginnings(from, true),
                             [this](const Situation& s) { return s.position == suffix_.size(); });
}

void InfillBlocks::newline_ends_in_suffix(Node lexeme, Node competing, uint32_t position, Columns columns, bool broken,
                                          uint32_t most, std::vector<NewlineEnd>& out) {
  Node left = lexeme, rivals = competing;
  for (uint32_t i = position; i < suffix_.size();) {
    auto byte = static_cast<uint8_t>(suffix_[i++]);
    left = lexicon_.step(left, byte);
    if (left == kNone) return;
    rivals = lexicon_.step(rivals, byte);
    if (blocks_.breaks(byte)) {
      columns = {0, 0};
      broken = true;
    } else if (broken) {
      columns = blocks_.longer(columns, byte);
    }
    if (!lexicon_.nullable(left)) continue;
    Node demand = obligations_.after(kAll, rivals, lexicon_.after_marker(left));
    if (demand == kNone || !meets(demand, i)) continue;
    out.push_back({i, kAll, kAll, broken && columns.columns >= most ? Columns{most, most} : columns, broken});
  }
}

// All ways to end a newline after one more byte at least, with the width of its last line; `most` columns stand for all beyond.
std::vector<InfillBlocks::NewlineEnd> InfillBlocks::newline_ends(Node lexeme, Node competing, Node obligation,
                                                                 Node rest, Columns columns, bool broken,
                                                                 uint32_t most) {
  struct At {
    Node lexeme, competing, obligation, rest;
    Columns columns;
    bool broken;
    auto operator<=>(const At&) const = default;
  };
  std::vector<At> queue{{lexeme, competing, obligation, rest, columns, broken}};
  std::set<At> seen{queue[0]};
  std::vector<NewlineEnd> found;
  const Columns beyond{most, most};
  for (std::size_t at = 0; at < queue.size(); ++at) {
    const At here = queue[at];
    effort_.spend(0);
    if (lexicon_.nullable(here.rest) && meets(here.obligation, 0))
      newline_ends_in_suffix(here.lexeme, here.competing, 0, here.columns, here.broken, most, found);
    const Lexicon::Transitions *lexemes = &lexicon_.transitions(here.lexeme),
                               *rivals = &lexicon_.transitions(here.competing),
                               *demands = &lexicon_.transitions(here.obligation),
                               *before = &lexicon_.transitions(here.rest);
    std::vector<uint32_t> tried;
    (lexicon_.first_bound(here.lexeme) & lexicon_.first_bound(here.obligation) & lexicon_.first_bound(here.rest))
        .for_each([&](uint8_t byte) {
          // Bytes that measure are looked at one by one, of others one of each class.
          if (!blocks_.breaks(byte) && byte != ' ' && byte != '\t') {
            uint32_t classes = (uint32_t{lexemes->classes[byte]} << 24) | (uint32_t{rivals->classes[byte]} << 16) |
                               (uint32_t{demands->classes[byte]} << 8) | before->classes[byte];
            if (std::ranges::find(tried, classes) != tried.end()) return;
            tried.push_back(classes);
          }
          At next{lexicon_.step(here.lexeme, byte),
                  lexicon_.step(here.competing, byte),
                  obligations_.canonical(lexicon_.step(here.obligation, byte)),
                  lexicon_.step(here.rest, byte),
                  here.columns,
                  here.broken};
          if (next.lexeme == kNone || next.obligation == kNone || next.rest == kNone) return;
          if (blocks_.breaks(byte)) {
            next.columns = {0, 0};
            next.broken = true;
          } else if (next.broken && next.columns != beyond) {
            next.columns = blocks_.longer(next.columns, byte);
            if (next.columns.columns >= most) next.columns = beyond;
          }
          if (!seen.insert(next).second) return;
          queue.push_back(next);
          if (!lexicon_.nullable(next.lexeme)) return;
          Node left = obligations_.after(next.obligation, next.competing, lexicon_.after_marker(next.lexeme));
          if (left != kNone)
            found.push_back({kBefore, left, next.rest, next.broken ? next.columns : Columns{0, 0}, next.broken});
        });
  }
  std::ranges::sort(found);
  found.erase(std::ranges::unique(found).begin(), found.end());
  effort_.spend(found.size() * sizeof(NewlineEnd));
  // Lines of other letters are not needed, nor is, of two that are equally wide, one that leaves more to be met.
  std::vector<NewlineEnd> needed;
  for (const NewlineEnd& end : found) {
    bool letters =
        end.columns == beyond || !end.broken || how_.letters == Letters::kAny ||
        end.columns.columns == end.columns.least * (how_.letters == Letters::kTabs ? blocks_.tab_width() : 1);
    bool implied = std::ranges::any_of(found, [&](const NewlineEnd& other) {
      return other != end && other.position == end.position && other.rest == end.rest && other.columns == end.columns &&
             other.broken == end.broken && obligations_.implies(end.obligation, other.obligation) &&
             (other < end || !obligations_.implies(other.obligation, end.obligation));
    });
    if (letters && !implied) needed.push_back(end);
  }
  return needed;
}

const std::vector<InfillBlocks::NewlineEnd>& InfillBlocks::newlines(const Situation& from) {
  Situation plain = from;
  plain.pending = kNothing;
  plain.frame = {};
  auto known = newlines_.find(plain);
  if (known != newlines_.end()) return known->second;
  Node start = blocks_.newline(from.lexer);
  std::vector<NewlineEnd> found;
  if (start != kNone && from.position == kBefore)
    found = newline_ends(start, modes_.competing_with(start), from.obligation, from.rest, {0, 0}, blocks_.as_python(),
                         how_.free);
  else if (start != kNone)
    newline_ends_in_suffix(start, modes_.competing_with(start), from.position, {0, 0}, blocks_.as_python(), how_.free,
                           found);
  effort_.spend(96);
  return newlines_.emplace(plain, std::move(found)).first->second;
}

void InfillBlocks::after_newline(const Situation& from, Node start, uint32_t next_lexer, std::vector<Situation>& out) {
  if (from.frame.brackets) return;
  std::vector<Situation> work = beginnings(from, modes_.skips(start));
  for (std::size_t at = 0; at < work.size(); ++at) {
    const Situation before = work[at];
    const std::vector<NewlineEnd>& found = newlines(before);
    for (const NewlineEnd& end : found) {
      Situation next = before;
      next.position = end.position;
      next.obligation = end.obligation;
      next.rest = end.rest;
      if (blocks_.as_python()) {
        // As in Engine::end_newline: a line that holds nothing but a comment drops the newline before it.
        auto met = [&](Node condition, Situation& s) {
          if (s.position != kBefore) return meets(condition, s.position);
          s.obligation = lexicon_.both({s.obligation, condition});
          if (!lexicon_.alive(s.obligation)) return false;
          s.obligation = obligations_.canonical(s.obligation);
          return true;
        };
        Situation line = next;
        if (met(comment_, line))
          for (const Situation& s : beginnings(line, true))
            if (std::ranges::find(work, s) == work.end()) work.push_back(s);
        if (!met(no_comment_, next)) continue;
      }
      next.lexer = next_lexer;
      if (!end.broken) {
        if (!engine_.indentation_rule().needs_line_break) keep_weakest(out, next);
        continue;
      }
      // Where a line can have any width, one value stands for all.
      bool chosen = end.position == kBefore && !choices_.empty() && std::ranges::all_of(choices_, [&](uint32_t choice) {
                      return std::ranges::any_of(found, [&](const NewlineEnd& other) {
                        return other.position == kBefore && other.obligation == end.obligation &&
                               other.rest == end.rest && other.broken && width(other.columns) == choice;
                      });
                    });
      next.pending = pending({chosen ? kChosen : width(end.columns), false});
      keep_weakest(out, next);
    }
  }
}

void InfillBlocks::after_terminal(Symbol terminal, const Situation& from, std::vector<Situation>& out) {
  const Role which = role(terminal);
  Situation s = from;
  if (which == Role::kIndent) {
    if (!may_indent(s)) return;
    uint32_t pending = pendings_[s.pending - 2].width, outer = s.frame.width;
    s.pending = kNothing;
    if (pending != kChosen) {
      s.frame.width = pending;
      out.push_back(s);
      return;
    }
    uint32_t narrower_choice = kChosen;  // none
    auto columns = [&](uint32_t w) { return w == kFree ? how_.free : widths_[w].columns; };
    for (uint32_t choice : choices_) {
      if (!wider(choice, outer)) continue;
      bool alone = narrower_choice == kChosen || std::ranges::any_of(lines_, [&](uint32_t line) {
                     return line >= columns(narrower_choice) && line <= columns(choice);
                   });
      narrower_choice = choice;
      if (!alone) continue;
      s.frame.width = choice;
      out.push_back(s);
    }
    return;
  }
  if (which == Role::kDedent) {
    if (s.pending == kEnd) {
      out.push_back(s);
      return;
    }
    if (s.pending != kNothing && narrower(pendings_[s.pending - 2].width, s.frame.width)) {
      Situation closed = s;
      closed.pending = pending({pendings_[s.pending - 2].width, true});
      out.push_back(closed);
    }
    // At the end of the text all blocks close.
    if (resolve(s) && may_end(s)) {
      s.position = static_cast<uint32_t>(suffix_.size());
      s.obligation = s.rest = kAll;
      s.pending = kEnd;
      out.push_back(s);
    }
    return;
  }
  if (!resolve(s)) return;
  const auto& info = symbols_.terminal_info(terminal);
  if (which == Role::kSpecial) {
    // A special token is no text: longest match ends before it as it does at the end.
    if (info.tag < special_.size() && !special_[info.tag]) return;
    for (const Situation& before : beginnings(s, true)) {
      if (before.position != kBefore || !lexicon_.nullable(before.obligation) || !lexicon_.nullable(before.rest))
        continue;
      Situation next = before;
      next.obligation = kAll;
      next.rest = before_;
      next.lexer = info.next_lexer;
      keep_weakest(out, next);
    }
    return;
  }
  if (is_ignored(terminal)) return;
  Node start = info.start_under(s.lexer);
  if (start == kNone) return;
  if (which == Role::kNewline) {
    after_newline(s, start, info.next_lexer, out);
    return;
  }
  for (const Situation& before : beginnings(s, modes_.skips(start))) ends_of(terminal, before, out);
  if (which == Role::kOpens)
    for (Situation& end : out) end.frame.brackets = true;
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
