#include "lex_row.h"

#include <algorithm>
#include <map>

#include "growth.h"
#include "vocabulary.h"

namespace guiderail {

const LexRow& LexRowCache::row(Node remainder, Node competing, uint32_t place) {
  remainder = lexicon_.saturate(remainder, vocabulary_.longest_token() + 1);
  Key key{static_cast<uint32_t>(remainder), static_cast<uint32_t>(competing), place};
  {
    std::lock_guard lock(mutex_);
    if (auto it = rows_.find(key); it != rows_.end()) return *it->second;
  }
  // Built without the lock: two threads may build the same row, the first one stays.
  auto fresh = build(remainder, competing, place);
  std::size_t size = fresh->dense_.size() * 4 + fresh->words_.size() * 8 + sizeof(LexRow);
  for (const auto& exit : fresh->exits_) size += sizeof(LexRow::Exit) + exit->places.size() * 4;
  std::lock_guard lock(mutex_);
  auto [it, added] = rows_.try_emplace(key, std::move(fresh));
  if (added) {
    bytes_.fetch_add(size, std::memory_order_relaxed);
    growth_of_this_thread += size;
  }
  return *it->second;
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

std::unique_ptr<LexRow> LexRowCache::build(Node remainder, Node competing, uint32_t place) {
  auto result = std::make_unique<LexRow>();
  std::vector<uint32_t> stay(vocabulary_.num_words(), 0);
  const TokenTrie& trie = vocabulary_.trie();
  std::map<std::pair<std::vector<uint32_t>, Node>, LexRow::Exit*> exits;
  std::map<std::pair<Node, Node>, std::size_t> ends;
  struct Frame {
    uint32_t place;
    Node remainder, competing;
  };
  std::vector<Frame> work{{place, remainder, competing}};
  while (!work.empty()) {
    Frame f = work.back();
    work.pop_back();
    const Lexicon::Transitions& t = lexicon_.transitions(f.remainder);
    uint32_t first = trie.node(f.place).first_child, end = first + trie.node(f.place).num_children;
    for (uint32_t c = first; c < end; ++c) {
      uint8_t byte = trie.node(c).byte;
      uint32_t known = t.next[t.classes[byte]].load(std::memory_order_acquire);
      Node next = known != Lexicon::kUnknown ? Node{known} : lexicon_.step(f.remainder, byte);
      if (next == kNone) continue;
      for (uint32_t token : trie.tokens(c)) stay[token >> 5] |= uint32_t{1} << (token & 31);
      Node rival = competing == kNone ? kNone : lexicon_.step(f.competing, byte);
      if (!vocabulary_.byte_complete() && trie.node(c).num_tokens) {
        auto [it, fresh] = ends.try_emplace({next, rival}, result->ends_.size());
        if (fresh) result->ends_.push_back({next, rival, {}});
        auto& tokens = result->ends_[it->second].tokens;
        tokens.insert(tokens.end(), trie.tokens(c).begin(), trie.tokens(c).end());
      }
      if (trie.node(c).num_children == 0) continue;
      if (lexicon_.nullable(next)) {
        auto tags = lexicon_.tags(next);
        auto [it, fresh] = exits.try_emplace({std::vector<uint32_t>(tags.begin(), tags.end()), rival}, nullptr);
        if (fresh) {
          result->exits_.push_back(std::make_unique<LexRow::Exit>());
          it->second = result->exits_.back().get();
          it->second->tags = it->first.first;
          it->second->competing = rival;
        }
        it->second->places.push_back(c);
        for (const TrieNode& child : trie.children(c)) it->second->first.add(child.byte);
      }
      if (lexicon_.continues(next)) work.push_back({c, next, rival});
    }
  }
  std::size_t used = stay.size() - static_cast<std::size_t>(std::ranges::count(stay, 0u));
  if (used * 4 > stay.size()) {
    result->dense_ = std::move(stay);
  } else {
    for (uint32_t i = 0; i < stay.size(); ++i)
      if (stay[i]) result->words_.push_back({i, stay[i]});
  }
  return result;
}

const TokenTrie& LexRow::left_over(const TokenTrie& vocabulary, const Exit& exit, uint8_t byte) const {
  if (const TokenTrie* known = exit.left[byte].load(std::memory_order_acquire)) return *known;
  std::lock_guard lock(mutex_);
  if (const TokenTrie* known = exit.left[byte].load(std::memory_order_acquire)) return *known;
  std::vector<uint32_t> roots;
  for (uint32_t place : exit.places)
    if (uint32_t child = vocabulary.child(place, byte)) roots.push_back(child);
  // The root of the merged trie stands for `byte` itself, so its own tokens count too: hang it below a new root.
  auto* merged = new TokenTrie(TokenTrie::merge_below(vocabulary, std::move(roots), byte));
  growth_of_this_thread += merged->bytes_used();
  const_cast<Exit&>(exit).left[byte].store(merged, std::memory_order_release);
  return *merged;
}

}  // namespace guiderail
