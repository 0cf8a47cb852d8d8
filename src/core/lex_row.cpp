#include "lex_row.h"

#include <algorithm>
#include <map>
#include <tuple>

#include "growth.h"
#include "vocabulary.h"

namespace guiderail {

const LexRow& LexRowCache::row(Node remainder, Node competing, uint32_t place) {
  Key key{static_cast<uint32_t>(remainder), static_cast<uint32_t>(competing), place};
  {
    std::lock_guard lock(mutex_);
    if (auto it = rows_.find(key); it != rows_.end()) return *it->second;
    if (auto it = saturated_.find(key); it != saturated_.end()) return *it->second;
  }
  if (Node twin = lexicon_.saturate(remainder, vocabulary_.longest_token() + 1); twin != remainder) {
    const LexRow& result = row(twin, competing, place);
    std::lock_guard lock(mutex_);
    saturated_.emplace(key, &result);
    return result;
  }
  // Built without the lock: two threads may build the same row, the first one stays.
  std::unique_ptr<LexRow> fresh;
  if (competing == kNone && vocabulary_.byte_complete()) fresh = read_off(remainder, place);
  if (!fresh) fresh = build(remainder, competing, place);
  std::size_t size = fresh->dense_.size() * 4 + fresh->words_.size() * 8 + sizeof(LexRow);
  for (const auto& exit : fresh->exits_)
    size += sizeof(LexRow::Exit) + exit->places.size() * sizeof(LexRow::Exit::Place);
  std::lock_guard lock(mutex_);
  auto [it, added] = rows_.try_emplace(key, std::move(fresh));
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
  constexpr int kManyBytes = 20;
  Plan plan;
  plan.reference = remainder;
  Lexicon::Exclusion exclusion;
  if (lexicon_.exclusion(remainder, exclusion)) {
    plan.excludes = true;
    plan.reference = exclusion.reference;
    plan.base = exclusion.base;
    plan.excluded = exclusion.excluded;
  }
  switch (lexicon_.shape(plan.reference, plan.first, plan.rest)) {
    case Lexicon::Shape::kLiteral: return plan;
    case Lexicon::Shape::kSequence:
      if (is_broad(plan.first)) break;
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

std::size_t LexRowCache::size() const {
  std::lock_guard lock(mutex_);
  return rows_.size();
}

// The row of body{min,max} from the row of body*; null if the remainder is nothing of the kind or numbers of bodies are not definite.
std::unique_ptr<LexRow> LexRowCache::read_off(Node remainder, uint32_t place) {
  Node body;
  uint32_t min, max;
  if (!lexicon_.counted(remainder, body, min, max) || (min == 0 && max == kUnbounded)) return nullptr;
  const LexRow& starred = row(lexicon_.repeat(body, 0, kUnbounded), kNone, place);
  if (!starred.counts_ || starred.exits_.size() != 1) return nullptr;
  auto result = std::make_unique<LexRow>();
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
  return result;
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

std::unique_ptr<LexRow> LexRowCache::build(Node remainder, Node competing, uint32_t place) {
  auto result = std::make_unique<LexRow>();
  std::vector<uint32_t> stay(vocabulary_.num_words(), 0);
  const TokenTrie& trie = vocabulary_.trie();
  std::map<std::tuple<std::vector<uint32_t>, Node, Node>, LexRow::Exit*> exits;
  std::map<std::pair<Node, Node>, std::size_t> ends;
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
    Node follow = competing == kNone ? kAll : lexicon_.after_marker(next);
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
  // Numbers of bodies are kept as long as they are definite: after each byte the remainder is body* again, or (rest of a body) body*.
  Node body;
  uint32_t min, max;
  bool starred = competing == kNone && lexicon_.counted(remainder, body, min, max) && min == 0 && max == kUnbounded;
  Node inside = kNone;  // the last remainder inside a body that was seen to lead back
  auto counts = std::make_unique<LexRow::Counts>();
  struct Frame {
    uint32_t place;
    Node remainder, competing;
    uint32_t count;      // bodies complete
    LexRow::Exit* exit;  // that ends here, if any
  };
  std::vector<Frame> work{{place, remainder, competing, 0, nullptr}};
  while (!work.empty()) {
    Frame f = work.back();
    work.pop_back();
    uint32_t first = trie.node(f.place).first_child, end = first + trie.node(f.place).num_children;
    // A table of transitions pays where many bytes are asked for; a remainder met at a few narrow places is stepped as it is.
    constexpr uint32_t kFewChildren = 6;
    const Lexicon::Transitions* t = end - first > kFewChildren ? &lexicon_.transitions(f.remainder) : nullptr;
    for (uint32_t c = first; c < end; ++c) {
      const TrieNode& child = trie.node(c);
      if (f.exit) f.exit->first.add(child.byte);
      uint32_t known = t ? t->next[t->classes[child.byte]].load(std::memory_order_acquire) : Lexicon::kUnknown;
      Node next = known != Lexicon::kUnknown ? Node{known} : lexicon_.step(f.remainder, child.byte);
      if (next == kNone) continue;
      for (uint32_t token : trie.tokens(c)) stay[token >> 5] |= uint32_t{1} << (token & 31);
      Node rival = competing == kNone ? kNone : lexicon_.step(f.competing, child.byte);
      uint32_t count = f.count;
      if (starred) {
        uint32_t begun = count + 1;
        if (next == remainder) {
          ++count;
        } else if (next != inside) {
          starred = lexicon_.leads_to(next, remainder);
          inside = next;
        }
        for (uint32_t token : trie.tokens(c)) counts->tokens.emplace_back(begun, token);
      }
      if (!vocabulary_.byte_complete() && child.num_tokens) {
        auto [it, fresh] = ends.try_emplace({next, rival}, result->ends_.size());
        if (fresh) result->ends_.push_back({next, rival, {}});
        auto& tokens = result->ends_[it->second].tokens;
        tokens.insert(tokens.end(), trie.tokens(c).begin(), trie.tokens(c).end());
      }
      if (child.num_children == 0) continue;
      look_up(next, rival);
      if (last.exit) last.exit->places.push_back({c, count});
      if (last.continues) {
        work.push_back({c, next, rival, count, last.exit});
      } else if (last.exit) {
        for (const TrieNode& below : trie.children(c)) last.exit->first.add(below.byte);
      }
    }
  }
  store_stay(*result, std::move(stay));
  if (starred) {
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
const std::vector<LexRow::Exit::Place>& LexRow::ends_before(const TokenTrie& vocabulary, uint8_t byte) const {
  std::lock_guard lock(mutex_);
  auto& ends = counts_->ends[byte];
  if (!counts_->known[byte]) {
    for (Exit::Place p : exits_[0]->places)
      if (uint32_t child = vocabulary.child(p.node, byte)) ends.push_back({child, p.count});
    counts_->known[byte] = true;
  }
  return ends;
}

const TokenTrie& LexRow::left_over(const TokenTrie& vocabulary, const Exit& exit, uint8_t byte) const {
  if (const TokenTrie* known = exit.left[byte].load(std::memory_order_acquire)) return *known;
  std::lock_guard lock(mutex_);
  if (const TokenTrie* known = exit.left[byte].load(std::memory_order_acquire)) return *known;
  std::vector<uint32_t> roots;
  if (starred_) {
    for (Exit::Place p : starred_->ends_before(vocabulary, byte))
      if (p.count >= min_ && p.count <= max_) roots.push_back(p.node);
  } else {
    for (Exit::Place p : exit.places)
      if (uint32_t child = vocabulary.child(p.node, byte)) roots.push_back(child);
  }
  // The root of the merged trie stands for `byte` itself, so its own tokens count too: hang it below a new root.
  auto* merged = new TokenTrie(TokenTrie::merge_below(vocabulary, std::move(roots), byte));
  growth_of_this_thread += merged->bytes_used();
  const_cast<Exit&>(exit).left[byte].store(merged, std::memory_order_release);
  return *merged;
}

}  // namespace guiderail
