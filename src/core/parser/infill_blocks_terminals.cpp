// What terminals do to a situation of infill_blocks.h: where a lexeme may end, before the suffix or in it, and what a newline's width leads to.
#include "core/parser/infill_blocks.h"

#include <algorithm>
#include <array>
#include <string>
#include <utility>

#include "core/errors.h"

namespace guiderail {

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

}  // namespace guiderail
