#include "core/masks/lex_row.h"

#include <algorithm>
#include <array>
#include <bit>
#include <map>
#include <tuple>

#include "core/growth.h"
#include "core/lexer/lexeme_stretch.h"
#include "core/masks/plain_tokens.h"
#include "core/masks/vocabulary.h"
#include "core/text/utf8_lead.h"

namespace guiderail {

namespace {

// A row says that it is mostly left over where more tokens than this go on after an end, so many times those that keep it going.
constexpr std::size_t kMuchLeftOver = 2'000, kMuchLeftOverPerToken = 4;

ByteSet bytes_of(const TokenTrie::Below& below) {
  ByteSet bytes;
  for (unsigned i = 0; i < 2; ++i) bytes.words[i] = below.ascii[i];
  bytes.words[2] = 0;
  bytes.words[3] = below.leads;
  return bytes;
}

// Calls back for the nodes strictly below `root`: (node, characters begun on the way, whether a character ends there).
template <typename F>
void for_each_below(const TokenTrie& trie, uint32_t root, F f) {
  struct Visit {
    uint32_t node, begun;
    uint8_t more;  // bytes of a character still to come
  };
  std::vector<Visit> work{{root, 0, 0}};
  while (!work.empty()) {
    Visit at = work.back();
    work.pop_back();
    uint32_t first = trie.node(at.node).first_child, end = first + trie.node(at.node).num_children;
    for (uint32_t c = first; c < end; ++c) {
      Visit next{c, at.begun, at.more};
      if (at.more) {
        --next.more;
      } else {
        ++next.begun;
        if (const Utf8Lead* lead = utf8_lead(trie.node(c).byte)) next.more = lead->more;
      }
      f(c, next.begun, next.more == 0);
      if (trie.node(c).num_children) work.push_back(next);
    }
  }
}

}  // namespace

const LexRow& LexRowCache::row(Node remainder, Node competing, const TokenTrie& trie, uint32_t place) {
  Key key{static_cast<uint32_t>(remainder), static_cast<uint32_t>(competing), place, &trie};
  {
    std::lock_guard lock(mutex_);
    if (auto it = rows_.find(key); it != rows_.end()) return *it->second;
    if (auto it = saturated_.find(key); it != saturated_.end()) return *it->second;
  }
  if (Node twin = lexicon_.saturate(remainder, vocabulary_.longest_token() + 1); twin != remainder) {
    const LexRow& result = row(twin, competing, trie, place);
    std::lock_guard lock(mutex_);
    saturated_.emplace(key, &result);
    return result;
  }
  // Built without the lock: two threads may build the same row, the first one stays.
  std::unique_ptr<LexRow> fresh;
  if (competing == kNone && &trie == &vocabulary_.trie()) fresh = read_off(remainder, place);
  if (!fresh && competing == kNone && &trie == &vocabulary_.trie() && place == TokenTrie::kRoot &&
      outlasts_plain(remainder)) {
    const PlainTokens& plain = vocabulary_.plain();
    fresh = build(remainder, kNone, plain.others(), TokenTrie::kRoot, false, plain.tokens());
  }
  if (!fresh) fresh = build(remainder, competing, trie, place, false);
  return keep(rows_, key, std::move(fresh));
}

const LexRow& LexRowCache::counting_row(Node starred, uint32_t place) {
  Key key{static_cast<uint32_t>(starred), static_cast<uint32_t>(kNone), place};
  {
    std::lock_guard lock(mutex_);
    if (auto it = counting_.find(key); it != counting_.end()) return *it->second;
  }
  return keep(counting_, key, build(starred, kNone, vocabulary_.trie(), place, true));
}

const LexRow& LexRowCache::keep(Rows& rows, const Key& key, std::unique_ptr<LexRow> fresh) {
  std::size_t stay = 0, left = 0;
  for (uint32_t word : fresh->dense_) stay += static_cast<std::size_t>(std::popcount(word));
  for (LexRow::Word word : fresh->words_) stay += static_cast<std::size_t>(std::popcount(word.bits));
  for (const auto& exit : fresh->exits_)
    for (const LexRow::Exit::Place& place : exit->places) {
      auto [first, last] = fresh->trie().token_range(place.node);
      left += last - first;
    }
  fresh->mostly_left_over_ = left > kMuchLeftOver && left / kMuchLeftOverPerToken > stay;
  std::size_t size = fresh->dense_.size() * 4 + fresh->words_.size() * 8 + sizeof(LexRow);
  for (const auto& exit : fresh->exits_)
    size += sizeof(LexRow::Exit) + (exit->places.size() + exit->spans.size()) * sizeof(LexRow::Exit::Place);
  if (fresh->counts_) size += fresh->counts_->tokens.size() * sizeof(fresh->counts_->tokens[0]);
  size += fresh->ends_.size() * sizeof(LexRow::End);
  for (const auto& tokens : fresh->tokens_of_ends_) size += tokens.size() * sizeof(uint32_t);
  std::lock_guard lock(mutex_);
  auto [it, added] = rows.try_emplace(key, std::move(fresh));
  if (added) {
    bytes_.fetch_add(size, std::memory_order_relaxed);
    growth_of_this_thread += size;
  }
  return *it->second;
}

const LexRowCache::Plan& LexRowCache::plan(Node remainder) {
  {
    std::lock_guard lock(mutex_);
    if (auto it = plans_.find(static_cast<uint32_t>(remainder)); it != plans_.end()) return it->second;
  }
  Plan fresh = make_plan(remainder);
  std::lock_guard lock(mutex_);
  return plans_.try_emplace(static_cast<uint32_t>(remainder), fresh).first->second;
}

LexRowCache::Plan LexRowCache::make_plan(Node remainder) {
  // A lexeme that this many bytes may begin is worth a row for all of it.
  constexpr int kManyBytes = 8, kFewBytes = 16;
  Plan plan;
  plan.reference = remainder;
  Lexicon::Exclusion exclusion;
  if (lexicon_.exclusion(remainder, exclusion)) {
    std::vector<Node> others;
    for (Node option : lexicon_.options(exclusion.excluded)) {
      Node characters;
      uint8_t last;
      if (lexicon_.excluded_at_end(option, exclusion.base, characters, last))
        plan.ends.emplace_back(characters, last);
      else
        others.push_back(option);
    }
    Node excluded = lexicon_.either(std::move(others));
    if (excluded == kNone || excludes_little(excluded)) {
      plan.excludes = true;
      plan.reference = exclusion.reference;
      plan.base = exclusion.base;
      plan.excluded = excluded;
      if (excluded != kNone && lexicon_.certainly_finite(excluded))
        plan.last = lexicon_.last_byte_of_endless(exclusion.base);
    }
  }
  switch (lexicon_.shape(plan.reference, plan.first, plan.rest)) {
    case Lexicon::Shape::kLiteral: return plan;
    case Lexicon::Shape::kSequence:
      // The rest of an escape, then so many characters as are left: there is a row of these below each of a few bytes, whatever their number.
      if (lexicon_.first_bound(plan.first).count() <= kFewBytes && !is_broad(plan.first) && begins_counted(plan.rest))
        return plan;
      // A rest that begins like `first` could begin nearly everywhere in it ('any text, then one of these words').
      if ((lexicon_.first_bound(plan.first) & lexicon_.first_bound(plan.rest)).empty() && is_broad(plan.first)) break;
      if (lexicon_.first_bound(plan.reference).count() < kManyBytes || !is_broad(plan.reference)) return plan;
      plan.first = plan.reference;
      plan.rest = kEpsilon;
      break;
    case Lexicon::Shape::kOther:
      if (!is_broad(plan.reference)) return plan;
      plan.first = plan.reference;
      plan.rest = kEpsilon;
  }
  plan.broad = true;
  plan.first_nullable = lexicon_.nullable(plan.first);
  return plan;
}

const std::vector<uint32_t>& LexRowCache::tokens_into(Node remainder, const std::set<Node>& targets, uint32_t place) {
  Key key{static_cast<uint32_t>(remainder), 0, place};
  {
    std::lock_guard lock(mutex_);
    if (auto it = tokens_into_.find(key); it != tokens_into_.end()) return it->second;
  }
  const TokenTrie& trie = vocabulary_.trie();
  std::vector<uint32_t> found;
  std::vector<std::pair<uint32_t, Node>> work{{place, remainder}};
  while (!work.empty()) {
    auto [at, node] = work.back();
    work.pop_back();
    for (const TrieNode& child : trie.children(at)) {
      Node next = lexicon_.step(node, child.byte);
      if (next == kNone) continue;
      auto number = trie.child(at, child.byte);
      if (child.num_tokens && targets.contains(next))
        found.insert(found.end(), trie.tokens(number).begin(), trie.tokens(number).end());
      if (child.num_children) work.emplace_back(number, next);
    }
  }
  std::lock_guard lock(mutex_);
  bytes_.fetch_add(64 + found.size() * sizeof(uint32_t), std::memory_order_relaxed);
  return tokens_into_.try_emplace(key, std::move(found)).first->second;
}

// A repetition of a definite number of times, alone or before something.
bool LexRowCache::begins_counted(Node remainder) {
  Node first = remainder, rest, body;
  uint32_t min, max;
  lexicon_.shape(remainder, first, rest);
  return lexicon_.counted(first, body, min, max) && (min > 1 || max != kUnbounded);
}

// What is excluded and may go on for ever is looked for token by token below its first bytes (MaskBuilder::decide_excluded): that pays
// for names that begin in some way, not for texts that contain something.
bool LexRowCache::excludes_little(Node excluded) {
  constexpr uint32_t kManyPlaces = 8'000;
  if (lexicon_.certainly_finite(excluded)) return true;
  const TokenTrie& trie = vocabulary_.trie();
  uint32_t places = 0;
  lexicon_.first_bound(excluded).for_each([&](uint8_t byte) {
    uint32_t child = trie.child(TokenTrie::kRoot, byte);
    if (!child || places > kManyPlaces) return;
    Node next = lexicon_.step(excluded, byte);
    if (next != kNone && !lexicon_.certainly_finite(next)) places += trie.subtree_size(child);
  });
  return places <= kManyPlaces;
}

bool LexRowCache::is_broad(Node remainder) {
  constexpr std::size_t kEnough = 150;
  {
    std::lock_guard lock(mutex_);
    if (auto it = broad_.find(static_cast<uint32_t>(remainder)); it != broad_.end()) return it->second;
  }
  const TokenTrie& trie = vocabulary_.trie();
  std::vector<std::pair<uint32_t, Node>> work{{TokenTrie::kRoot, remainder}};
  std::size_t met = 0;
  while (!work.empty() && met < kEnough) {
    auto [place, at] = work.back();
    work.pop_back();
    lexicon_.first_bound(at).for_each([&, place = place, at = at](uint8_t byte) {
      if (met >= kEnough) return;
      uint32_t child = trie.child(place, byte);
      if (!child) return;
      Node next = lexicon_.step(at, byte);
      if (next == kNone) return;
      ++met;
      if (trie.node(child).num_children) work.push_back({child, next});
    });
  }
  std::lock_guard lock(mutex_);
  return broad_.try_emplace(static_cast<uint32_t>(remainder), met >= kEnough).first->second;
}

bool LexRowCache::outlasts_plain(Node remainder) {
  if (!vocabulary_.byte_complete()) return false;
  {
    std::lock_guard lock(mutex_);
    if (auto it = outlasts_plain_.find(static_cast<uint32_t>(remainder)); it != outlasts_plain_.end())
      return it->second;
  }
  std::vector<Node> states{remainder};
  const bool result = LexemeStretches(lexicon_).outlasts_plain(remainder, states);
  std::lock_guard lock(mutex_);
  // Where one of them fails the others may well not, but most do, and asking each would cost more than it is worth.
  for (Node state : states) outlasts_plain_.try_emplace(static_cast<uint32_t>(state), result);
  return result;
}

std::size_t LexRowCache::size() const {
  std::lock_guard lock(mutex_);
  return rows_.size();
}

// The row of body{min,max} from the row of body*; null if the remainder is nothing of the kind or numbers of bodies are not definite.
std::unique_ptr<LexRow> LexRowCache::read_off(Node remainder, uint32_t place) {
  Node body;
  uint32_t min, max;
  if (!lexicon_.counted(remainder, body, min, max) || (min == 0 && max == kUnbounded)) return nullptr;
  const LexRow& starred = counting_row(lexicon_.repeat(body, 0, kUnbounded), place);
  if (!starred.counts_ || starred.exits_.size() != 1) return nullptr;
  auto result = std::make_unique<LexRow>();
  result->trie_ = &vocabulary_.trie();
  result->starred_ = &starred;
  result->min_ = min;
  result->max_ = max;
  const auto& tokens = starred.counts_->tokens;
  auto beyond = std::ranges::upper_bound(tokens, max, {}, &std::pair<uint32_t, uint32_t>::first);
  std::vector<uint32_t> stay(vocabulary_.num_words(), 0);
  if (beyond - tokens.begin() > tokens.end() - beyond) {
    if (starred.dense())
      stay = starred.dense_;
    else
      for (LexRow::Word w : starred.words_) stay[w.index] = w.bits;
    for (auto it = beyond; it != tokens.end(); ++it) stay[it->second >> 5] &= ~(uint32_t{1} << (it->second & 31));
  } else {
    for (auto it = tokens.begin(); it != beyond; ++it) stay[it->second >> 5] |= uint32_t{1} << (it->second & 31);
  }
  store_stay(*result, std::move(stay));
  auto exit = std::make_unique<LexRow::Exit>();
  exit->tags = starred.exits_[0]->tags;
  exit->competing = kNone;
  exit->first = starred.exits_[0]->first;
  result->exits_.push_back(std::move(exit));
  // What tokens leave of body* and how many bodies they have begun says what they leave of body{min,max}: one of them shows it.
  const std::size_t depth = starred.ends_.empty() ? 0 : depth_of(place);
  for (const LexRow::End& end : starred.ends_) {
    if (end.count > max) continue;
    Node left = remainder;
    for (char byte : vocabulary_.token(end.tokens.front()).substr(depth))
      left = lexicon_.step(left, static_cast<uint8_t>(byte));
    result->ends_.push_back({left, kNone, 0, end.tokens});
  }
  return result;
}

// The bytes that lead to a place of the vocabulary trie.
std::size_t LexRowCache::depth_of(uint32_t place) const {
  const TokenTrie& trie = vocabulary_.trie();
  std::string_view text = vocabulary_.token(trie.all_tokens()[trie.node(place).first_token]);
  std::size_t depth = 0;
  for (uint32_t at = TokenTrie::kRoot; at != place; ++depth) at = trie.child(at, static_cast<uint8_t>(text[depth]));
  return depth;
}

void LexRowCache::store_stay(LexRow& row, std::vector<uint32_t> stay) {
  std::size_t used = stay.size() - static_cast<std::size_t>(std::ranges::count(stay, 0u));
  if (used * 4 > stay.size()) {
    row.dense_ = std::move(stay);
    return;
  }
  for (uint32_t i = 0; i < stay.size(); ++i)
    if (stay[i]) row.words_.push_back({i, stay[i]});
}

// The same for tokens of which there cannot be many.
void LexRowCache::store_few(LexRow& row, std::vector<uint32_t> tokens) {
  std::ranges::sort(tokens);
  for (uint32_t token : tokens) {
    if (row.words_.empty() || row.words_.back().index != token >> 5) row.words_.push_back({token >> 5, 0});
    row.words_.back().bits |= uint32_t{1} << (token & 31);
  }
}

std::unique_ptr<LexRow> LexRowCache::build(Node remainder, Node competing, const TokenTrie& trie, uint32_t place,
                                           bool counting, std::span<const uint32_t> kept) {
  auto result = std::make_unique<LexRow>();
  result->trie_ = &trie;
  // Tokens that stay, as a list where the place is small and as bits where it is not.
  auto [first_below, last_below] = trie.token_range(place);
  const bool few = kept.empty() && last_below - first_below < vocabulary_.num_words() / 4;
  std::vector<uint32_t> stay(kept.begin(), kept.end()), stay_list;
  if (!few) stay.resize(vocabulary_.num_words(), 0);
  auto keep_tokens = [&](std::span<const uint32_t> tokens) {
    if (few)
      stay_list.insert(stay_list.end(), tokens.begin(), tokens.end());
    else
      for (uint32_t token : tokens) stay[token >> 5] |= uint32_t{1} << (token & 31);
  };
  std::map<std::tuple<std::vector<uint32_t>, Node, Node>, LexRow::Exit*> exits;
  std::map<std::tuple<Node, Node, uint32_t>, std::size_t> ends;
  auto tokens_ending = [&](Node left, Node rival, uint32_t begun) -> std::vector<uint32_t>& {
    auto [it, fresh] = ends.try_emplace({left, rival, begun}, result->ends_.size());
    if (fresh) {
      result->ends_.push_back({left, rival, begun, {}});
      result->tokens_of_ends_.emplace_back();
    }
    return result->tokens_of_ends_[it->second];
  };
  // Nodes repeat from place to place, so what is known of the last one answers nearly always.
  struct Known {
    Node node = kNone, competing = kNone;
    LexRow::Exit* exit = nullptr;  // null: not nullable
    bool continues = false;
  } last;
  auto look_up = [&](Node next, Node rival) {
    if (last.node == next && last.competing == rival) return;
    last = {next, rival, nullptr, lexicon_.continues(next)};
    if (!lexicon_.nullable(next)) return;
    auto tags = lexicon_.tags(next);
    Node follow = lexicon_.after_marker(next);
    auto [it, fresh] = exits.try_emplace({std::vector<uint32_t>(tags.begin(), tags.end()), rival, follow}, nullptr);
    if (fresh) {
      result->exits_.push_back(std::make_unique<LexRow::Exit>());
      it->second = result->exits_.back().get();
      it->second->tags = std::get<0>(it->first);
      it->second->competing = rival;
      it->second->follow = follow;
    }
    last.exit = it->second;
  };
  // Where the lexeme ends in there matters only if these tokens may be taken away again, by a count or because no completion can be spelled;
  // else they are allowed, whatever else they could be.
  auto keep_all_below = [&](uint32_t node) {
    auto [begin, beyond] = trie.token_range(node);
    uint32_t own = trie.node(node).num_tokens;
    std::span<const uint32_t> tokens = trie.all_tokens().subspan(begin + own, beyond - begin - own);
    keep_tokens(tokens);
    return tokens;
  };
  // Numbers of bodies are kept as long as they are definite: after each byte the remainder is body* again, or (rest of a body) body*.
  Node inside = kNone;  // the last remainder inside a body that was seen to lead back
  auto counts = std::make_unique<LexRow::Counts>();
  struct Frame {
    uint32_t place;
    Node remainder, competing;
    uint32_t count;      // bodies complete
    LexRow::Exit* exit;  // that ends here, if any
  };
  LexemeStretches stretches(lexicon_);
  Node looping = kNone, rival_looping = kNone;  // of these:
  Characters looped;
  // Remainders that move on from place to place are not asked: only one that has just come to itself.
  auto loops_below = [&](uint32_t place, Node before, Node next, Node rival) {
    if (next != before && next != looping) return false;
    if (next != looping || rival != rival_looping) {
      looping = next;
      rival_looping = rival;
      looped = stretches.loops(next);
      if (rival != kNone) looped = looped & stretches.loops(rival);
    }
    return looped.cover(trie.below(place));
  };
  std::vector<Frame> work{{place, remainder, competing, 0, nullptr}};
  while (!work.empty()) {
    Frame f = work.back();
    work.pop_back();
    uint32_t first = trie.node(f.place).first_child, end = first + trie.node(f.place).num_children;
    // A table of transitions pays where many bytes are asked for; a remainder met at a few narrow places is stepped as it is.
    constexpr uint32_t kFewChildren = 6;
    constexpr int kFewBytes = 12;
    const ByteSet bound = lexicon_.first_bound(f.remainder);
    const Lexicon::Transitions* t =
        end - first > kFewChildren && bound.count() > kFewBytes ? &lexicon_.transitions(f.remainder) : nullptr;
    for (uint32_t c = first; c < end; ++c) {
      const TrieNode& child = trie.node(c);
      if (f.exit) f.exit->first.add(child.byte);
      if (!bound.has(child.byte)) continue;
      uint32_t known = t ? t->next[t->classes[child.byte]].load(std::memory_order_acquire) : Lexicon::kUnknown;
      Node next = known != Lexicon::kUnknown ? Node{known} : lexicon_.step(f.remainder, child.byte);
      if (next == kNone) continue;
      keep_tokens(trie.tokens(c));
      Node rival = competing == kNone ? kNone : lexicon_.step(f.competing, child.byte);
      uint32_t count = f.count;
      const uint32_t begun = counting ? count + 1 : 0;
      if (counting) {
        if (next == remainder) {
          ++count;
        } else if (next != inside) {
          counting = lexicon_.leads_to(next, remainder);
          inside = next;
        }
        for (uint32_t token : trie.tokens(c)) counts->tokens.emplace_back(begun, token);
      }
      if (!vocabulary_.byte_complete() && child.num_tokens) {
        auto& tokens = tokens_ending(next, rival, begun);
        tokens.insert(tokens.end(), trie.tokens(c).begin(), trie.tokens(c).end());
      }
      if (child.num_children == 0) continue;
      look_up(next, rival);
      // Everything below keeps the lexeme as it is. (Which part of a character a token ends in would matter to ends_.)
      constexpr uint32_t kWorthAsking = 4;
      if (last.continues && trie.summarized() && trie.subtree_size(c) >= kWorthAsking &&
          (!counting || next == remainder) && (vocabulary_.byte_complete() || !trie.below(c).leads) &&
          loops_below(c, f.remainder, next, rival)) {
        std::span<const uint32_t> tokens = keep_all_below(c);
        if (!vocabulary_.byte_complete() && !counting && !tokens.empty()) {
          auto& list = tokens_ending(next, rival, 0);
          list.insert(list.end(), tokens.begin(), tokens.end());
        }
        if (counting) {
          // What stands below is whole characters, but for the last ones of tokens, and each begins a body.
          std::span<const uint16_t> characters = trie.characters().subspan(
              static_cast<std::size_t>(tokens.data() - trie.all_tokens().data()), tokens.size());
          const uint32_t before = trie.characters_to(c);
          for (std::size_t k = 0; k < tokens.size(); ++k) {
            const uint32_t bodies = count + characters[k] - before;
            counts->tokens.emplace_back(bodies, tokens[k]);
            if (!vocabulary_.byte_complete()) tokens_ending(next, rival, bodies).push_back(tokens[k]);
          }
        }
        if (last.exit && (counting || !vocabulary_.byte_complete())) {
          last.exit->spans.push_back({c, count});
          last.exit->first = last.exit->first | bytes_of(trie.below(c));
        }
        continue;
      }
      constexpr uint32_t kWorthExploring = 12;
      if (last.continues && trie.summarized() && !counting && vocabulary_.byte_complete() &&
          trie.subtree_size(c) >= kWorthExploring && stretches.goes_on(next, trie.below(c), child.height)) {
        keep_all_below(c);
        continue;
      }
      if (last.exit) last.exit->places.push_back({c, count});
      if (last.continues) {
        work.push_back({c, next, rival, count, last.exit});
      } else if (last.exit) {
        for (const TrieNode& below : trie.children(c)) last.exit->first.add(below.byte);
      }
    }
  }
  if (few)
    store_few(*result, std::move(stay_list));
  else
    store_stay(*result, std::move(stay));
  for (std::size_t i = 0; i < result->ends_.size(); ++i) result->ends_[i].tokens = result->tokens_of_ends_[i];
  if (counting) {
    // By number of bodies, of which there are few: a counting sort.
    std::vector<std::size_t> starts;
    for (auto [begun, token] : counts->tokens) {
      if (starts.size() <= begun + 1) starts.resize(begun + 2, 0);
      ++starts[begun + 1];
    }
    for (std::size_t i = 1; i < starts.size(); ++i) starts[i] += starts[i - 1];
    std::vector<std::pair<uint32_t, uint32_t>> sorted(counts->tokens.size());
    for (auto entry : counts->tokens) sorted[starts[entry.first]++] = entry;
    counts->tokens = std::move(sorted);
    result->counts_ = std::move(counts);
  }
  return result;
}

// The children by `byte` of all places where the one exit of a starred row may end, with the number of bodies. Under the row's lock.
const std::vector<LexRow::Exit::Place>& LexRow::ends_before(uint8_t byte) const {
  std::lock_guard lock(mutex_);
  auto& ends = counts_->ends[byte];
  if (!counts_->known[byte]) {
    ends = children_by(*exits_[0], byte);
    counts_->known[byte] = true;
  }
  return ends;
}

std::vector<LexRow::Exit::Place> LexRow::children_by(const Exit& exit, uint8_t byte) const {
  std::vector<Exit::Place> result;
  auto ask = [&](uint32_t node, uint32_t count) {
    if (uint32_t child = trie_->child(node, byte)) result.push_back({child, count});
  };
  for (Exit::Place p : exit.places) ask(p.node, p.count);
  for (Exit::Place span : exit.spans) {
    if (!trie_->below(span.node).has(byte)) continue;
    ask(span.node, span.count);
    for_each_below(*trie_, span.node, [&](uint32_t node, uint32_t begun, bool complete) {
      if (complete) ask(node, span.count + begun);
    });
  }
  return result;
}

std::vector<uint32_t> LexRow::places_after(const Exit& exit, uint8_t byte) const {
  std::vector<uint32_t> places;
  if (starred_) {
    for (Exit::Place p : starred_->ends_before(byte))
      if (p.count >= min_ && p.count <= max_) places.push_back(p.node);
  } else {
    for (Exit::Place p : children_by(exit, byte)) places.push_back(p.node);
  }
  return places;
}

const TokenTrie& LexRow::left_over(const Exit& exit, uint8_t byte) const {
  if (const TokenTrie* known = exit.left[byte].load(std::memory_order_acquire)) return *known;
  std::lock_guard lock(mutex_);
  if (const TokenTrie* known = exit.left[byte].load(std::memory_order_acquire)) return *known;
  std::vector<uint32_t> roots = places_after(exit, byte);
  // The root of the merged trie stands for `byte` itself, so its own tokens count too: hang it below a new root.
  auto* merged = new TokenTrie(TokenTrie::merge_below(*trie_, std::move(roots), byte));
  growth_of_this_thread += merged->bytes_used();
  const_cast<Exit&>(exit).left[byte].store(merged, std::memory_order_release);
  return *merged;
}

}  // namespace guiderail
