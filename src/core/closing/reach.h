// Where the tokens of a mask lead: collected while the mask is built, so that nobody has to walk the vocabulary for it.
#pragma once

#include <algorithm>
#include <cstdint>
#include <span>
#include <unordered_map>
#include <vector>

#include "core/engine.h"

namespace guiderail {

class Reach {
 public:
  // Tokens that keep the lexeme `first` of `thread` going, with `rest` behind it (LexRowCache::Plan): nobody looked at each of them.
  struct Kept {
    Thread thread;
    Node first, rest;
    bool operator==(const Kept&) const = default;
  };

  // A terminal that writes names.
  struct Name {
    Node group;
    uint32_t tag;
    bool operator==(const Name&) const = default;
  };

  // These tokens lead to these threads, which have been merged. Where a captured text that is not known has been asked for, it may matter to whom
  // they belong.
  void add(std::span<const Thread> threads, std::span<const uint32_t> tokens) {
    std::size_t number = number_of(threads);
    if (std::ranges::any_of(threads, [](const Thread& t) { return is_some_text(t.text) && t.text > kSomeText; }))
      tokens_[number].insert(tokens_[number].end(), tokens.begin(), tokens.end());
  }
  void keep(const Kept& kept) {
    if (std::ranges::find(kept_, kept) == kept_.end()) kept_.push_back(kept);
  }

  std::size_t size() const { return ends_.size(); }
  std::span<const Thread> set(std::size_t i) const {
    std::size_t begin = i ? ends_[i - 1] : 0;
    return std::span(threads_).subspan(begin, ends_[i] - begin);
  }
  // The tokens that lead to set i, if that depends on a text.
  std::span<const uint32_t> tokens(std::size_t i) const { return tokens_[i]; }
  std::span<const Kept> kept() const { return kept_; }

 private:
  std::size_t number_of(std::span<const Thread> threads) {
    uint64_t hash = hash_of(threads);
    auto [begin, end] = known_.equal_range(hash);
    for (auto it = begin; it != end; ++it)
      if (std::ranges::equal(set(it->second), threads)) return it->second;
    known_.emplace(hash, ends_.size());
    threads_.insert(threads_.end(), threads.begin(), threads.end());
    ends_.push_back(threads_.size());
    tokens_.emplace_back();
    return ends_.size() - 1;
  }

  std::vector<Thread> threads_;  // the sets, one after the other
  std::vector<std::size_t> ends_;
  std::vector<std::vector<uint32_t>> tokens_;
  std::unordered_multimap<uint64_t, std::size_t> known_;
  std::vector<Kept> kept_;
};

}  // namespace guiderail
