#include "core/masks/mask_builder.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <string>

#include "core/lexer/munch.h"
#include "core/masks/plain_tokens.h"

namespace guiderail {

namespace {

// Places of the trie are worth rows of their own from this size on.
constexpr uint32_t kLargePlace = 200;
// The same where something has been left over of tokens: what stands there is looked at for every state in which a lexeme ends.
constexpr uint32_t kLargeRest = 24;

}  // namespace

void MaskRow::fill(uint32_t* words, uint32_t num_words) const {
  const uint32_t* base = own_.empty() ? base_ : own_.data();
  if (general_)
    general_->fill(words, num_words);
  else if (base)
    std::memcpy(words, base, std::size_t{num_words} * 4);
  else
    std::memset(words, 0, std::size_t{num_words} * 4);
  for (const Patch& p : patches_) words[p.word] = p.value;
  for (const LexRow* row : layers_)
    for (LexRow::Word w : row->stay_words()) words[w.index] |= w.bits;
}

uint32_t MaskRow::value(uint32_t word) const {
  auto it = std::ranges::lower_bound(patches_, word, {}, &Patch::word);
  const uint32_t* base = own_.empty() ? base_ : own_.data();
  uint32_t bits = 0;
  if (it != patches_.end() && it->word == word)
    bits = it->value;
  else if (general_)
    bits = general_->value(word);
  else if (base)
    bits = base[word];
  for (const LexRow* row : layers_) { bits |= row->stay_word(word); }
  return bits;
}

MaskBuilder::Scratch& MaskBuilder::scratch() {
  thread_local Scratch scratch;
  return scratch;
}

void MaskBuilder::Scratch::clear() {
  contributions.clear();
  sets.clear();
  token_sets.clear();
  stack.clear();
  out.clear();
  frames.clear();
  doubtful.clear();
}

MaskRow MaskBuilder::build(StateId state, Reach* reach) {
  reach_ = reach;
  std::span<const Thread> threads = engine_.threads(state);
  walk_whole(TokenTrie::kRoot, threads);
  if (engine_.accepting(state))
    for (uint32_t eos : vocabulary_.eos_token_ids()) sets_.push_back(eos);
  for (const Thread& t : threads) {
    if (!t.at_boundary()) continue;
    const Parser::Lookahead& look = engine_.parser().lookahead(t.parser);
    for (uint32_t i : look.specials) {
      uint32_t index = look.expected[i].tag;
      int64_t token = vocabulary_.special(engine_.symbols().special_tokens()[index]);
      StateId next = token < 0 ? kDead : engine_.advance_special(state, index);
      if (next == kDead) continue;
      sets_.push_back(static_cast<uint32_t>(token));
      if (reach_) reach_->add(engine_.threads(next));
    }
  }
  return assemble();
}

MaskRow MaskBuilder::build_below(StateId state, uint32_t place) {
  reach_ = nullptr;
  walk_whole(place, engine_.threads(state));
  return assemble();
}

void MaskBuilder::walk_whole(uint32_t place, std::span<const Thread> threads) {
  scratch().clear();  // an exception may have left something
  many_widths_ = false;
  try {
    walk(vocabulary_.trie(), place, threads, true, nullptr);
  } catch (const ShapeTokens::TooMany&) {
    shapes_ = nullptr;
    walk_whole(place, threads);
  }
}

// Opens a frame for the threads on the stack from `begin` on. At a large place of the whole vocabulary, threads that a row answers
// for are taken off first. False, and the stack as before, if no thread is left.
bool MaskBuilder::enter(const TokenTrie& trie, uint32_t place, std::size_t begin, bool whole, const Ranges* skip) {
  bool large = whole && trie.subtree_size(place) >= kLargePlace;
  bool by_lexemes = shapes_ && !reach_;
  if (large || by_lexemes) {
    std::vector<Thread> open(stack_.begin() + static_cast<std::ptrdiff_t>(begin), stack_.end());
    stack_.resize(begin);
    bool plain_taken = false;
    if (large && place == TokenTrie::kRoot && open.size() > 1) {
      // First one that keeps all plain tokens: then no other needs to be asked about them.
      auto first = std::ranges::find_if(open, [this](const Thread& t) {
        if (t.at_boundary() || t.competing != kNone) return false;
        const LexRowCache::Plan& plan = rows_.plan(t.lexeme);
        return plan.broad && !plan.excludes && rows_.outlasts_plain(plan.first);
      });
      if (first != open.end()) std::swap(*first, open[0]);
    }
    for (std::size_t i = 0; i < open.size(); ++i) {
      Thread t = open[i];
      if (by_lexemes && t.at_boundary())
        visit(shapes_->readings().place(trie, place, t.obligation), t, skip);
      else if (t.at_boundary())
        engine_.begin_all(t, open);
      else if (large && take_row(t, place, skip, plain_taken, open))
        continue;
      else if (by_lexemes)
        read_on(trie, place, t, skip);
      else
        stack_.push_back(t);
    }
  } else if (!whole && place != TokenTrie::kRoot && trie.subtree_size(place) >= kLargeRest) {
    std::size_t kept = begin;
    for (std::size_t i = begin; i < stack_.size(); ++i) {
      Thread t = stack_[i];
      if (t.at_boundary() || !take_row_of_rest(trie, t, place, skip)) stack_[kept++] = t;
    }
    stack_.resize(kept);
  }
  if (stack_.size() == begin) return false;
  ByteSet bytes;
  if (firsts_.size() < stack_.size()) firsts_.resize(stack_.size());
  for (std::size_t i = begin; i < stack_.size(); ++i) bytes = bytes | (firsts_[i] = engine_.first_bound(stack_[i]));
  const TrieNode& node = trie.node(place);
  if (static_cast<uint32_t>(bytes.count()) > node.num_children) {
    // More bytes than children: only those that are there are visited.
    ByteSet present;
    for (const TrieNode& c : trie.children(place)) present.add(c.byte);
    bytes = bytes & present;
  }
  frames_.push_back({place, begin, stack_.size(), bytes});
  return true;
}

// Walks a trie below `place` with all threads at once and sets the tokens that some thread survives. Re-entrant: works above the tops
// of the stacks as it finds them.
void MaskBuilder::walk(const TokenTrie& trie, uint32_t place, std::span<const Thread> threads, bool whole,
                       const Ranges* skip) {
  std::size_t bottom = frames_.size(), floor = stack_.size();
  stack_.insert(stack_.end(), threads.begin(), threads.end());
  if (!enter(trie, place, floor, whole, skip)) return;
  while (frames_.size() > bottom) {
    Frame& f = frames_.back();
    if (f.bytes.empty()) {
      stack_.resize(f.begin);
      frames_.pop_back();
      continue;
    }
    uint8_t byte = f.bytes.first();
    f.bytes.words[byte >> 6] &= ~(uint64_t{1} << (byte & 63));
    uint32_t child = trie.child(f.place, byte);
    if (!child) continue;
    out_.clear();
    // The frequent case by hand: one thread, inside a literal or the like, that neither ends nor owes anything.
    const Thread& only = stack_[f.begin];
    Node next = kNone;
    bool plain = f.end - f.begin == 1 && !only.at_boundary() && only.obligation == kAll && only.competing == kNone &&
                 only.text == kNoText && !NameScopes::in_name(only.scope);
    if (plain) {
      next = engine_.lexicon().step(only.lexeme, byte);
      if (next == kNone) continue;
      plain = !engine_.lexicon().nullable(next);
    }
    if (plain) {
      out_.push_back(only);
      out_.back().lexeme = next;
    } else {
      // At a boundary most of the lexemes that may begin do not begin like this.
      for (std::size_t i = f.begin; i < f.end; ++i)
        if (firsts_[i].has(byte)) engine_.step({&stack_[i], 1}, byte, out_);
      if (out_.empty()) continue;
      engine_.merge(out_);
    }
    if (trie.node(child).num_tokens && spellable(out_)) {
      bool certain = std::ranges::any_of(out_, [this](const Thread& t) { return !engine_.doubtful(t); });
      for (uint32_t token : trie.tokens(child))
        if (!skip || !contains(*skip, token)) (certain ? sets_ : doubtful_).push_back(token);
      if (reach_) reach_->add(out_);
    }
    if (trie.node(child).num_children == 0) continue;
    std::size_t begin = stack_.size();
    stack_.insert(stack_.end(), out_.begin(), out_.end());
    enter(trie, child, begin, whole, skip);
  }
}

void MaskBuilder::add(const TokenSet& tokens, const Ranges* skip) {
  if (tokens.empty()) return;
  if (!skip) {
    token_sets_.push_back(&tokens);
    return;
  }
  auto add_word = [&](uint32_t index, uint32_t bits) {
    for (; bits; bits &= bits - 1) {
      uint32_t token = index * 32 + static_cast<uint32_t>(std::countr_zero(bits));
      if (!contains(*skip, token)) sets_.push_back(token);
    }
  };
  for (uint32_t i = 0; i < tokens.all_words().size(); ++i) add_word(i, tokens.all_words()[i]);
  for (TokenSet::Word w : tokens.words()) add_word(w.index, w.bits);
}

// Of a thread at a boundary, the tokens of a place.
void MaskBuilder::visit(TokenReadings::PlaceId place, const Thread& boundary, const Ranges* skip) {
  follow(shapes_->answer(place, boundary.parser, boundary.indentation), boundary, skip);
}

// Of a thread whose shape has given the answer: that, and what it leaves to the thread.
void MaskBuilder::follow(const ShapeTokens::Answer& answer, const Thread& thread, const Ranges* skip) {
  using What = ShapeTokens::Question::What;
  Parser& parser = engine_.parser();
  Indentation* indentation = engine_.indentation();
  add(answer.tokens, skip);
  for (const ShapeTokens::Return& r : answer.returns) {
    const Parser::Partial& after = parser.returned(thread.parser, r.item);
    if (!after.known) continue;
    Thread t = thread;
    t.parser = *after.known;
    if (indentation) t.indentation = indentation->with_brackets(thread.indentation, r.brackets);
    follow(shapes_->answer_behind(r.exits, t.parser, t.indentation), t, skip);
  }
  for (const ShapeTokens::Question& question : answer.questions) {
    Thread t = thread;
    t.group = question.group;
    if (indentation) t.indentation = indentation->with_brackets(thread.indentation, question.brackets);
    bool reached = true;
    for (const ShapeTokens::Step& step : question.path) {
      bool doubtful = false;
      if (step.group == kNone) {
        std::optional<ParserState> after = parser.returned(t.parser, step.tag).known;
        reached = reached && after;
        if (after) t.parser = *after;
      } else {
        t.parser =
            parser.shift(t.parser, *Parser::find(parser.lookahead(t.parser), step.group, step.tag), kNoText, doubtful);
      }
    }
    if (!reached) continue;
    switch (question.what) {
      case What::kArrival: arrive(*question.exit, t, skip); break;
      case What::kNewline: leave_newline(*question.newlines, t, skip); break;
      case What::kInside: stay(*question.inside, t, skip);
    }
  }
}

// The same for a thread inside a lexeme.
void MaskBuilder::read_on(const TokenTrie& trie, uint32_t place, const Thread& thread, const Ranges* skip) {
  using Kind = TokenReadings::Lexeme::Kind;
  TokenReadings& readings = shapes_->readings();
  const TokenReadings::Lexeme lexeme = readings.going_on(thread);
  const TokenReadings::Reading& reading = readings.reading(readings.place(trie, place, thread.obligation), lexeme);
  add(reading.inside, skip);
  for (const auto& inside : reading.doubtful) stay(inside, thread, skip);
  if (lexeme.kind == Kind::kMeasured) {
    leave_newline(shapes_->newlines(reading, thread.group), thread, skip);
    return;
  }
  for (const TokenReadings::Exit& exit : reading.exits)
    for (uint32_t tag : exit.tags) leave(exit, tag, thread, skip);
}

void MaskBuilder::stay(const TokenReadings::Reading::Doubtful& inside, const Thread& lexeme, const Ranges* skip) {
  Thread t = lexeme;
  t.lexeme = inside.lexeme;
  t.competing = inside.competing;
  t.obligation = inside.obligation;
  if (engine_.viability()->viable(t, engine_.dropped(t)) && spellable({&t, 1})) add(inside.tokens, skip);
}

// What follows where the thread's lexeme has ended.
void MaskBuilder::leave(const TokenReadings::Exit& exit, uint32_t tag, const Thread& lexeme, const Ranges* skip) {
  Parser& parser = engine_.parser();
  Indentation* indentation = engine_.indentation();
  Thread next = lexeme;
  if (!indentation || !indentation->is_newline(lexeme.group)) {  // else a dropped one
    const Parser::Expected* expected = Parser::find(parser.lookahead(lexeme.parser), lexeme.group, tag);
    if (!expected) return;
    if (indentation) next.indentation = indentation->after(lexeme.indentation, lexeme.group);
    if (next.indentation == Indentation::kNever) return;
    bool doubtful = false;
    next.parser = parser.shift(lexeme.parser, *expected, kNoText, doubtful);
  }
  arrive(exit, next, skip);
}

// The thread stands behind the exit; its group is that of the lexeme which has ended.
void MaskBuilder::arrive(const TokenReadings::Exit& exit, const Thread& ended, const Ranges* skip) {
  Thread next = ended;
  next.group = next.lexeme = next.competing = kNone;
  next.obligation = exit.obligation;
  if (!exit.certain) {
    MunchViability& viability = *engine_.viability();
    Node dropped = engine_.dropped(next);
    bool newline = engine_.indentation() && engine_.indentation()->is_newline(ended.group);
    if (newline ? !viability.viable(next.parser, next.obligation, dropped)
                : !viability.viable_after(ended.group, next.parser, next.obligation, dropped))
      return;
  }
  if (exit.certain || exit.here.empty() || spellable({&next, 1})) add(exit.here, skip);
  for (TokenReadings::PlaceId place : exit.next) visit(place, next, skip);
}

// A newline ends in tokens. Tokens have many widths, few of which are those of open blocks; and where a block opens, what follows does not depend on its
// width unless a further newline does.
void MaskBuilder::leave_newline(const std::vector<ShapeTokens::Newline>& newlines, const Thread& newline,
                                const Ranges* skip) {
  if (many_widths_) {
    width_matters_ = true;
    return;
  }
  Indentation& indentation = *engine_.indentation();
  Parser& parser = engine_.parser();
  const Parser::Expected* expected = Parser::find(parser.lookahead(newline.parser), newline.group, 0);
  bool doubtful = false, opens = false;
  if (expected) {
    ParserState next = parser.shift(newline.parser, *expected, kNoText, doubtful);
    opens = Parser::find(parser.lookahead(next), indentation.indent(), 0) != nullptr;
  }
  std::vector<Thread> after;
  for (const ShapeTokens::Newline& end : newlines) {
    if (end.behind_any != ShapeTokens::kNoExits) {
      after.clear();
      engine_.begin_comment_line(newline, end.before_comment, after);
      for (const Thread& boundary : after) go_on_behind(end.behind_any, boundary, skip);
    }
    if (!expected) continue;
    auto width = [&](const TokenReadings::LineBreak* b) { return indentation.columns(b->width); };
    // Not broken: no line break has been read, and the width does not count.
    for (auto b = end.breaks.begin(); b != end.breaks.end() && !indentation.broken((*b)->width); ++b)
      begin_line(newline, end, **b, shapes_->behind(end, **b), skip);
    indentation.for_each_block(newline.indentation, [&](Indentation::Columns open) {
      for (const TokenReadings::LineBreak* b : std::ranges::equal_range(end.breaks, open, {}, width))
        if (indentation.broken(b->width)) begin_line(newline, end, *b, shapes_->behind(end, *b), skip);
    });
    if (!opens) continue;
    const ShapeTokens::Wider& wider = shapes_->wider(end, indentation.innermost(newline.indentation));
    if (wider.behind == ShapeTokens::kNoExits) continue;
    width_matters_ = false;
    many_widths_ = true;
    begin_line(newline, end, *wider.breaks[0], wider.behind, skip);
    many_widths_ = false;
    if (!width_matters_) continue;
    for (const TokenReadings::LineBreak* b : wider.breaks) begin_line(newline, end, *b, shapes_->behind(end, *b), skip);
  }
}

void MaskBuilder::begin_line(const Thread& newline, const ShapeTokens::Newline& end,
                             const TokenReadings::LineBreak& line_break, ShapeTokens::ExitsId exits,
                             const Ranges* skip) {
  if (exits == ShapeTokens::kNoExits) return;
  Thread t = newline;
  t.indentation = engine_.indentation()->with_width(newline.indentation, line_break.width);
  std::vector<Thread> after;
  engine_.begin_line(t, end.before_line, after);
  for (const Thread& boundary : after) go_on_behind(exits, boundary, skip);
}

// Of a boundary that is viable. What stands behind exits does not tell tokens that end there from others.
void MaskBuilder::go_on_behind(ShapeTokens::ExitsId exits, const Thread& boundary, const Ranges* skip) {
  if (!spellable({&boundary, 1})) throw ShapeTokens::TooMany();
  follow(shapes_->answer_behind(exits, boundary.parser, boundary.indentation), boundary, skip);
}

// Is the obligation met, whatever byte the lexeme takes next? After white space it often says no more than 'no further white space'.
bool MaskBuilder::owes_nothing_next(const Thread& thread) {
  if (thread.obligation == kAll) return true;
  const Lexicon::Transitions& t = engine_.lexicon().transitions(thread.obligation);
  bool met = true;
  engine_.lexicon().first_bound(thread.lexeme).for_each([&](uint8_t byte) {
    if (!met) return;
    uint32_t known = t.next[t.classes[byte]].load(std::memory_order_acquire);
    met = (known != Lexicon::kUnknown ? Node{known} : engine_.lexicon().step(thread.obligation, byte)) == kAll;
  });
  return met;
}

// If a cached row can answer for this thread's tokens below `place` but for `skip`, lets it; threads that remain to be looked at are added to `more`.
// `plain_taken`: are all plain tokens allowed, whatever this thread says of them? Set if it allows them.
bool MaskBuilder::take_row(const Thread& thread, uint32_t place, const Ranges* skip, bool& plain_taken,
                           std::vector<Thread>& more) {
  if (!owes_nothing_next(thread) || !engine_.always_viable(thread)) return false;
  // What a newline leads to depends on the width read, which rows do not know.
  if (engine_.indentation() && engine_.indentation()->is_newline(thread.group)) return false;
  const LexRowCache::Plan& plan = rows_.plan(thread.lexeme);
  if (!plan.broad) return false;
  bool keeps_plain = !plain_taken && !skip && place == TokenTrie::kRoot && thread.competing == kNone &&
                     !plan.excludes && rows_.outlasts_plain(plan.first);
  // What is excluded stands in the vocabulary's trie.
  const bool others_only = plain_taken && !plan.excludes;
  const TokenTrie& trie = others_only ? vocabulary_.plain().others() : vocabulary_.trie();
  Contribution c{&rows_.row(plan.first, thread.competing, trie, place), skip ? *skip : Ranges{}};
  // White space between lexemes: what stands behind it is better taken from rows of its own, place by place.
  if (thread.competing != kNone && c.row->mostly_left_over()) return false;
  for (auto [characters, last] : plan.ends) {
    const LexRow& row = rows_.row(characters, kNone, vocabulary_.trie(), place);
    const TokenTrie& trie = vocabulary_.trie();
    if (engine_.lexicon().nullable(characters))
      if (uint32_t child = trie.child(place, last)) c.except.push_back(trie.token_range(child));
    for (const auto& exit : row.exits())
      for (uint32_t node : row.places_after(*exit, last)) {
        auto [first, end] = row.trie().token_range(node);
        for (uint32_t token : row.trie().all_tokens().subspan(first, end - first))
          c.except.emplace_back(vocabulary_.rank(token), vocabulary_.rank(token) + 1);
      }
  }
  if (plan.excluded != kNone) decide_excluded(thread, plan, place, c.except);
  join(c.except);
  Thread t = thread;
  t.lexeme = plan.reference;
  t.obligation = kAll;
  const Ranges looked_at = c.except;
  // These cannot keep the lexeme going; they may still end it on the way.
  if (liveness_) drop_unspellable(*c.row, t, plan.rest, c.except);
  // Where the text decides what follows the lexeme, all tokens are looked at as if it were some text, and then those where that is not enough.
  if (t.text != kNoText) t.text = kSomeText;
  if (NameScopes::in_name(t.scope)) t.scope = NameScopes::kSome;
  std::size_t known_doubtful = doubtful_.size();
  // The row does not know that a name that becomes whole may have come before.
  if (t.scope == NameScopes::kSomeNamed) {
    for (uint32_t token : rows_.tokens_into(t.lexeme, engine_.behind_name(t.group), place))
      if (!contains(looked_at, token)) {
        c.except.emplace_back(vocabulary_.rank(token), vocabulary_.rank(token) + 1);
        doubtful_.push_back(token);
        keeps_plain = keeps_plain && !vocabulary_.plain().has(token);
      }
    std::ranges::sort(c.except);
  }
  walk_left_over(*c.row, t, plan.rest, looked_at);
  t.text = thread.text;
  t.scope = thread.scope;
  if (Engine::well_known(thread)) read_doubtful(thread, place, known_doubtful);
  if (reach_) reach_->keep({thread, plan.first, plan.rest});
  if (plan.rest != kEpsilon && plan.first_nullable) {
    // Nothing of `first` is read: the thread stands before `rest` (with an exclusion, as the reference does, but for `except`).
    t.lexeme = plan.rest;
    t.obligation = thread.obligation;
    if (plan.excludes)
      walk(vocabulary_.trie(), place, {&t, 1}, true, looked_at.empty() ? nullptr : &looked_at);
    else
      more.push_back(t);
  }
  contributions_.push_back(std::move(c));
  plain_taken = plain_taken || keeps_plain;
  return true;
}

// The same below a place of what is left over of tokens, for threads that leave no question open. Re-entrant like walk().
// True if nothing of the thread remains to be looked at; else what does.
bool MaskBuilder::take_row_of_rest(const TokenTrie& trie, Thread& thread, uint32_t place, const Ranges* skip) {
  if (liveness_ || thread.text != kNoText || thread.obligation != kAll || NameScopes::in_name(thread.scope) ||
      thread.scope == NameScopes::kSomeNamed || !engine_.always_viable(thread) || engine_.indentation())
    return false;
  const LexRowCache::Plan& plan = rows_.plan(thread.lexeme);
  if (!plan.broad || plan.excludes) return false;
  const LexRow& row = rows_.row(plan.first, thread.competing, trie, place);
  if (row.mostly_left_over()) return false;
  Contribution c{&row, skip ? *skip : Ranges{}};
  walk_left_over(row, thread, plan.rest, c.except);
  if (reach_) reach_->keep({thread, plan.first, plan.rest});
  contributions_.push_back(std::move(c));
  // Nothing of `first` is read: then the thread stands before `rest`.
  thread.lexeme = plan.rest;
  return plan.rest == kEpsilon || !plan.first_nullable;
}

// Sorts ranges and joins those that overlap.
void MaskBuilder::join(Ranges& ranges) {
  if (ranges.empty()) return;
  std::ranges::sort(ranges);
  std::size_t last = 0;
  for (std::size_t k = 1; k < ranges.size(); ++k) {
    if (ranges[k].first <= ranges[last].second)
      ranges[last].second = std::max(ranges[last].second, ranges[k].second);
    else
      ranges[++last] = ranges[k];
  }
  ranges.resize(last + 1);
}

// Are there threads left after the bytes, and one that is not doubtful?
bool MaskBuilder::survives(std::string_view bytes, std::vector<Thread>& now) {
  std::vector<Thread> next;
  for (char c : bytes) {
    next.clear();
    engine_.step(now, static_cast<uint8_t>(c), next);
    engine_.merge(next);
    std::swap(now, next);
    if (now.empty()) return false;
  }
  return true;
}

// Of the doubtful tokens from number `from` on, sets those that `thread`, which stands at `place`, survives with its own text. Some may stay
// doubtful.
void MaskBuilder::read_doubtful(const Thread& thread, uint32_t place, std::size_t from) {
  if (doubtful_.size() == from) return;
  std::vector<uint32_t> tokens(doubtful_.begin() + static_cast<std::ptrdiff_t>(from), doubtful_.end());
  doubtful_.resize(from);
  std::vector<Thread> now;
  for (uint32_t token : tokens) {
    std::string_view bytes = vocabulary_.token(token);
    std::size_t depth = 0;
    for (uint32_t at = TokenTrie::kRoot; at != place; ++depth)
      at = vocabulary_.trie().child(at, static_cast<uint8_t>(bytes[depth]));
    now.assign(1, thread);
    if (!survives(bytes.substr(depth), now) || !spellable(now)) continue;
    (std::ranges::all_of(now, [this](const Thread& t) { return engine_.doubtful(t); }) ? doubtful_ : sets_)
        .push_back(token);
  }
}

MaskRow MaskBuilder::specialise(StateId state, const MaskRow& general) {
  MaskRow row;
  row.general_ = &general;
  if (general.doubtful_.empty()) return row;
  std::vector<Thread> now, forgetful(engine_.threads(state).begin(), engine_.threads(state).end());
  engine_.forget(forgetful);
  for (uint32_t token : general.doubtful_) {
    if (general.allows(token)) continue;
    now = forgetful;
    if (!survives(vocabulary_.token(token), now)) continue;
    if (std::ranges::all_of(now, [this](const Thread& t) { return engine_.doubtful(t); })) {
      now.assign(engine_.threads(state).begin(), engine_.threads(state).end());
      if (!survives(vocabulary_.token(token), now)) continue;
    }
    if (!spellable(now)) continue;
    uint32_t word = token >> 5;
    auto at = std::ranges::lower_bound(row.patches_, word, {}, &MaskRow::Patch::word);
    if (at == row.patches_.end() || at->word != word) at = row.patches_.insert(at, {word, general.value(word)});
    at->value |= uint32_t{1} << (token & 31);
  }
  return row;
}

bool MaskBuilder::contains(const Ranges& ranges, uint32_t token) const {
  uint32_t rank = vocabulary_.rank(token);
  auto after = std::ranges::upper_bound(ranges, rank, {}, &std::pair<uint32_t, uint32_t>::first);
  return after != ranges.begin() && rank < std::prev(after)->second;
}

// After these threads, can the text be completed in tokens?
bool MaskBuilder::spellable(std::span<const Thread> threads) { return !liveness_ || liveness_->live(threads); }

// Takes tokens that the row keeps, but after which the vocabulary cannot spell a completion, out of it.
void MaskBuilder::drop_unspellable(const LexRow& row, const Thread& thread, Node rest, Ranges& except) {
  const Ranges before = except;
  for (const auto& end : row.ends()) {
    Thread t = thread;
    t.lexeme = rest == kEpsilon ? end.remainder
                                : engine_.lexicon().concat(end.remainder, rest);  // a tag at the end would be lost
    t.competing = end.competing;
    if (t.text != kNoText) t.text = kSomeText;
    if (NameScopes::in_name(t.scope)) t.scope = NameScopes::kSome;
    std::vector<Thread> after;
    engine_.settle(t, after);
    if (!after.empty() && spellable(after)) continue;
    for (uint32_t token : end.tokens)
      if (!contains(before, token)) except.emplace_back(vocabulary_.rank(token), vocabulary_.rank(token) + 1);
  }
  if (except.size() > before.size()) std::ranges::sort(except);
}

// Tokens in which the row's lexeme ends: what they leave over must fit `rest`, or what comes after the lexeme if there is no rest.
void MaskBuilder::walk_left_over(const LexRow& row, const Thread& thread, Node rest, const Ranges& except) {
  if (shapes_ && !reach_ && rest == kEpsilon && thread.competing != kNone) {
    for (const TokenReadings::Exit& exit : shapes_->readings().exits(row, thread.group))
      for (uint32_t tag : exit.tags) leave(exit, tag, thread, except.empty() ? nullptr : &except);
    return;
  }
  std::vector<Thread> after, alive;
  for (const auto& exit : row.exits()) {
    after.clear();
    if (rest == kEpsilon) {
      engine_.end_lexeme(thread, exit->tags, exit->competing, exit->follow, after);
    } else {
      Thread t = thread;
      t.lexeme = rest;
      t.competing = exit->competing;
      after.push_back(t);
      if (engine_.lexicon().nullable(rest))
        engine_.end_lexeme(t, engine_.lexicon().tags(rest), t.competing, kAll, after);
    }
    if (after.empty()) continue;
    ByteSet bytes;
    for (const Thread& t : after) bytes = bytes | engine_.first_bound(t);
    bytes = bytes & exit->first;
    bytes.for_each([&](uint8_t byte) {
      alive.clear();
      engine_.step(after, byte, alive);
      if (alive.empty()) return;
      walk(row.left_over(*exit, byte), TokenTrie::kRoot, after, false, except.empty() ? nullptr : &except);
    });
  }
}

// The remainder is (base without excluded) k, its reference base k. The two differ below a place of the trie if base and excluded can end
// there (the reference may then go on with k, the remainder may not), or if excluded goes on where nothing else of base is certain
// to be left. Those subtrees are taken out of the reference's answer and walked with the thread itself. Under longest match, where there is no
// k: no lexeme can end before a byte that completes a longer match. Of the tokens that begin like a keyword only those that end it are then
// looked at, not all the names in them.
void MaskBuilder::decide_excluded(const Thread& thread, const LexRowCache::Plan& plan, uint32_t place, Ranges& except) {
  Lexicon& lexicon = engine_.lexicon();
  const TokenTrie& trie = vocabulary_.trie();
  struct Step {
    uint32_t place;
    Node base, excluded, competing;
    ByteSet bytes;  // to be looked at
    std::string path;
  };
  // Of names it is worth knowing, because what is excluded grows with each.
  bool endless =
      thread.scope != NameScopes::kOutside && !lexicon.certainly_infinite(plan.base) && engine_.endless(plan.base);
  bool skips = plan.last && !reach_ && trie.summarized();
  std::vector<Step> work;
  work.push_back({place, plan.base, plan.excluded, plan.rest == kEpsilon ? thread.competing : kNone,
                  lexicon.first_bound(plan.excluded), ""});
  std::vector<Thread> now, next;
  while (!work.empty()) {
    Step at = std::move(work.back());
    work.pop_back();
    at.bytes.for_each([&](uint8_t byte) {
      uint32_t child = trie.child(at.place, byte);
      if (!child || (skips && byte != *plan.last && !trie.below(child).has(*plan.last))) return;
      Node x = lexicon.step(at.excluded, byte);
      if (x == kNone) return;
      Node r = lexicon.step(at.base, byte);
      if (r == kNone) return;
      std::string path = at.path;
      path.push_back(static_cast<char>(byte));
      bool same_end = lexicon.nullable(x) && lexicon.nullable(r);
      bool kept = !same_end && (endless || lexicon.certainly_infinite(r)) && lexicon.certainly_finite(x);
      Node competing = at.competing == kNone ? kNone : lexicon.step(at.competing, byte);
      bool split = same_end && competing != kNone && lexicon.certainly_infinite(r);
      auto [first_token, last_token] = trie.token_range(child);
      if (split) last_token = first_token + trie.node(child).num_tokens;
      if (!kept && first_token < last_token) except.emplace_back(first_token, last_token);
      if (!kept || (reach_ && trie.node(child).num_tokens)) {
        now.assign(1, thread);
        for (char c : path) {
          next.clear();
          engine_.step(now, static_cast<uint8_t>(c), next);
          engine_.merge(next);
          std::swap(now, next);
          if (now.empty()) return;
        }
        if (reach_ && trie.node(child).num_tokens) reach_->add(now);
      }
      if (kept) {
        if (trie.node(child).num_children)
          work.push_back({child, r, x, competing, lexicon.first_bound(x), std::move(path)});
        return;
      }
      auto take = [&](uint32_t at_place, std::span<const Thread> threads) {
        if (trie.node(at_place).num_tokens && spellable(threads))
          for (uint32_t token : trie.tokens(at_place)) sets_.push_back(token);
        if (trie.node(at_place).num_children && (!split || at_place != child))
          walk(trie, at_place, threads, true, nullptr);
      };
      take(child, now);
      if (!split) return;
      ByteSet longer;
      for (const TrieNode& c : trie.children(child)) {
        Node match = lexicon.step(competing, c.byte);
        if (match != kNone && lexicon.nullable(match)) {
          longer.add(c.byte);
          continue;
        }
        uint32_t below = static_cast<uint32_t>(&c - &trie.node(0));
        except.push_back(trie.token_range(below));
        next.clear();
        engine_.step(now, c.byte, next);
        if (next.empty()) continue;
        engine_.merge(next);
        if (reach_ && c.num_tokens) reach_->add(next);
        take(below, next);
      }
      ByteSet bytes = lexicon.first_bound(x) & longer;
      if (!bytes.empty()) work.push_back({child, r, x, competing, bytes, std::move(path)});
    });
  }
  std::ranges::sort(except);
}

// The union of everything collected, as a base row, the words that differ from it, and sparse rows as they are.
MaskRow MaskBuilder::assemble() {
  MaskRow row;
  uint32_t num_words = vocabulary_.num_words();
  // The first dense row is the base, or else the first dense set.
  const Contribution* base = nullptr;
  for (const Contribution& c : contributions_)
    if (c.row->dense() && !base) base = &c;
  const TokenSet* base_set = nullptr;
  for (const TokenSet* s : token_sets_)
    if (s->dense() && !base && !base_set) base_set = s;
  // `words` holds the words that somebody has touched; the others are the base's.
  const uint32_t* under = base ? base->row->stay().data() : base_set ? base_set->all_words().data() : nullptr;
  words_.resize(num_words);
  touched_.assign((num_words + 63) / 64, 0);
  uint32_t* const words = words_.data();
  uint64_t* const touched = touched_.data();
  std::size_t num_touched = 0;
  auto value = [&](uint32_t word) {
    return touched[word >> 6] >> (word & 63) & 1 ? words[word] : under ? under[word] : 0;
  };
  auto set = [&](uint32_t word, uint32_t bits) {
    uint64_t& mark = touched[word >> 6];
    uint64_t bit = uint64_t{1} << (word & 63);
    num_touched += !(mark & bit);
    mark |= bit;
    words[word] = bits;
  };
  std::span<const uint32_t> by_rank = vocabulary_.trie().all_tokens();
  if (base)
    for (auto [first, last] : base->except)
      for (uint32_t token : by_rank.subspan(first, last - first))
        set(token >> 5, value(token >> 5) & ~(uint32_t{1} << (token & 31)));
  auto add = [&](uint32_t word, uint32_t bits) {
    if (uint32_t now = value(word); bits & ~now) set(word, now | bits);
  };
  // Dense rows differ little from each other: a block of words that adds nothing to the base and that nobody has touched is passed over.
  auto add_all = [&](std::span<const uint32_t> all) {
    for (uint32_t block = 0; block < all.size(); block += 64) {
      uint32_t end = std::min(block + 64, static_cast<uint32_t>(all.size()));
      uint32_t more = 0;
      for (uint32_t i = block; i < end; ++i) more |= under ? all[i] & ~under[i] : all[i];
      if (!more && !touched[block >> 6]) continue;
      for (uint32_t i = block; i < end; ++i) add(i, all[i]);
    }
  };
  // A sparse row that has none of the tokens which it must not answer for.
  auto allowed_as_a_whole = [&](const Contribution& c) {
    if (c.row->dense()) return false;
    std::size_t few = c.row->stay_words().size();
    for (auto [first, last] : c.except) {
      if (last - first > few) return false;
      few -= last - first;
      for (uint32_t token : by_rank.subspan(first, last - first))
        if (c.row->stays(token)) return false;
    }
    return true;
  };
  std::vector<uint32_t> absent;  // tokens of an exception that nobody has allowed so far: the row must not either
  for (const Contribution& c : contributions_) {
    if (&c == base) continue;
    if (allowed_as_a_whole(c)) {
      if (std::ranges::find(row.layers_, c.row) == row.layers_.end()) row.layers_.push_back(c.row);
      continue;
    }
    absent.clear();
    for (auto [first, last] : c.except)
      for (uint32_t token : by_rank.subspan(first, last - first))
        if (!(value(token >> 5) >> (token & 31) & 1)) absent.push_back(token);
    if (c.row->dense()) {
      add_all(c.row->stay());
    } else {
      for (LexRow::Word w : c.row->stay_words()) add(w.index, w.bits);
    }
    for (uint32_t token : absent) set(token >> 5, value(token >> 5) & ~(uint32_t{1} << (token & 31)));
  }
  for (const TokenSet* s : token_sets_) {
    if (s == base_set) continue;
    add_all(s->all_words());
    for (TokenSet::Word w : s->words()) add(w.index, w.bits);
  }
  for (uint32_t token : sets_) add(token >> 5, uint32_t{1} << (token & 31));
  bool own = num_touched * 3 > num_words;
  if (own && under)
    row.own_.assign(under, under + num_words);
  else if (own)
    row.own_.assign(num_words, 0);
  else
    row.base_ = under;
  if (!own) row.patches_.reserve(num_touched);
  for (uint32_t i = 0; i < touched_.size(); ++i)
    for (uint64_t t = touched[i]; t; t &= t - 1) {
      uint32_t word = i * 64 + static_cast<uint32_t>(std::countr_zero(t));
      if (own)
        row.own_[word] = words[word];
      else if (words[word] != (under ? under[word] : 0))
        row.patches_.push_back({word, words[word]});
    }
  std::ranges::sort(doubtful_);
  doubtful_.erase(std::ranges::unique(doubtful_).begin(), doubtful_.end());
  row.doubtful_ = doubtful_;
  return row;
}

}  // namespace guiderail
