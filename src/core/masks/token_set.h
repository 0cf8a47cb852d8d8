// A set of tokens as bits: all words, or only those that are not zero.
#pragma once

#include <algorithm>
#include <cstdint>
#include <span>
#include <vector>

namespace guiderail {

class TokenSet {
 public:
  struct Word {
    uint32_t index, bits;
  };

  TokenSet() = default;
  explicit TokenSet(std::vector<uint32_t> words) {
    std::size_t used = 0;
    for (uint32_t word : words) used += word != 0;
    constexpr std::size_t kDense = 4;  // from a quarter of the words on
    if (used * kDense > words.size()) {
      dense_ = std::move(words);
      return;
    }
    words_.reserve(used);
    for (uint32_t i = 0; i < words.size(); ++i)
      if (words[i]) words_.push_back({i, words[i]});
  }

  // Of tokens in any order, some perhaps twice.
  static TokenSet of(std::vector<uint32_t> tokens, uint32_t num_words) {
    TokenSet set;
    if (tokens.empty()) return set;
    constexpr std::size_t kFew = 16;  // sorting them is cheaper than looking at all words
    if (tokens.size() * kFew > num_words) {
      std::vector<uint32_t> words(num_words, 0);
      for (uint32_t token : tokens) words[token >> 5] |= uint32_t{1} << (token & 31);
      return TokenSet(std::move(words));
    }
    std::ranges::sort(tokens);
    for (uint32_t token : tokens) {
      if (set.words_.empty() || set.words_.back().index != token >> 5) set.words_.push_back({token >> 5, 0});
      set.words_.back().bits |= uint32_t{1} << (token & 31);
    }
    return set;
  }

  // The union.
  static TokenSet of(std::span<const TokenSet* const> sets, uint32_t num_words) {
    std::size_t size = 0;
    for (const TokenSet* s : sets) size += s->dense_.size() + s->words_.size();
    if (size * 4 > num_words) {
      std::vector<uint32_t> words(num_words, 0);
      for (const TokenSet* s : sets) s->add_to(words);
      return TokenSet(std::move(words));
    }
    TokenSet result;
    for (const TokenSet* s : sets) result.words_.insert(result.words_.end(), s->words_.begin(), s->words_.end());
    std::ranges::sort(result.words_, {}, &Word::index);
    std::size_t kept = 0;
    for (std::size_t i = 0; i < result.words_.size(); ++i) {
      if (kept && result.words_[kept - 1].index == result.words_[i].index)
        result.words_[kept - 1].bits |= result.words_[i].bits;
      else
        result.words_[kept++] = result.words_[i];
    }
    result.words_.resize(kept);
    result.words_.shrink_to_fit();
    return result;
  }

  bool empty() const { return dense_.empty() && words_.empty(); }
  bool dense() const { return !dense_.empty(); }
  std::span<const uint32_t> all_words() const { return dense_; }  // of a dense set
  std::span<const Word> words() const { return words_; }          // of another
  void add_to(std::span<uint32_t> words) const {
    for (std::size_t i = 0; i < dense_.size(); ++i) words[i] |= dense_[i];
    for (Word w : words_) words[w.index] |= w.bits;
  }
  std::size_t bytes_used() const { return dense_.size() * 4 + words_.size() * sizeof(Word); }

 private:
  std::vector<uint32_t> dense_;
  std::vector<Word> words_;
};

}  // namespace guiderail
