// Tokens taken from rows of lexemes (lex_row.h), for threads that a row can answer for.
#include <algorithm>
#include <string>

#include "core/masks/mask_builder.h"
#include "core/masks/plain_tokens.h"

namespace guiderail {

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
  // What is left of a row where texts are taken out of it is not told from what `skip` takes out.
  if (!plan.broad || (plan.excludes && skip)) return false;
  bool keeps_plain = !plain_taken && !skip && place == TokenTrie::kRoot && thread.competing == kNone &&
                     !plan.excludes && rows_.outlasts_plain(plan.first);
  // Where texts are taken out, all tokens are looked at.
  const bool others_only = plain_taken && !plan.excludes;
  const TokenTrie& whole = vocabulary_.trie();
  const TokenTrie& trie = others_only ? vocabulary_.plain().others() : whole;
  Contribution c{&rows_.row(plan.first, thread.competing, trie, place), skip ? *skip : Ranges{}};
  // White space between lexemes: what stands behind it is better taken from rows of its own, place by place.
  if (thread.competing != kNone && c.row->mostly_left_over()) return false;
  for (auto [characters, last] : plan.ends) {
    const LexRow& row = rows_.row(characters, kNone, whole, place);
    if (engine_.lexicon().nullable(characters))
      if (uint32_t child = whole.child(place, last)) c.except.push_back(whole.token_range(child));
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
      walk(whole, place, {&t, 1}, true, looked_at.empty() ? nullptr : &looked_at);
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

bool MaskBuilder::contains(const Ranges& ranges, uint32_t token) const {
  uint32_t rank = vocabulary_.rank(token);
  auto after = std::ranges::upper_bound(ranges, rank, {}, &std::pair<uint32_t, uint32_t>::first);
  return after != ranges.begin() && rank < std::prev(after)->second;
}

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
        if (reach_ && trie.node(child).num_tokens) reach_->add(now, trie.tokens(child));
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
        if (reach_ && c.num_tokens) reach_->add(next, trie.tokens(below));
        take(below, next);
      }
      ByteSet bytes = lexicon.first_bound(x) & longer;
      if (!bytes.empty()) work.push_back({child, r, x, competing, bytes, std::move(path)});
    });
  }
  std::ranges::sort(except);
}

}  // namespace guiderail
