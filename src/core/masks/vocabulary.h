// A tokenizer's vocabulary as the engine sees it: token id → bytes, one trie, and what lexemes do to it (cached).
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "core/lexer/lexicon.h"
#include "core/masks/token_trie.h"

namespace guiderail {

class LexRowCache;
class PlainTokens;

class Vocabulary {
 public:
  enum TokenKind : uint8_t { kUnused = 0, kText = 1, kSpecial = 2 };

  // `bytes` holds all tokens end to end, token i at offsets[i] .. offsets[i + 1]; kinds[i] is a TokenKind. Special and unused tokens
  // are in no text. Throws GrammarError if the arrays do not fit together or an id is out of range.
  Vocabulary(std::string bytes, std::vector<uint32_t> offsets, std::vector<uint8_t> kinds,
             std::unordered_map<std::string, uint32_t> special_tokens, std::vector<uint32_t> eos_token_ids);
  ~Vocabulary();

  uint32_t size() const { return static_cast<uint32_t>(kinds_.size()); }
  uint32_t num_words() const { return (size() + 31) / 32; }
  std::string_view token(uint32_t id) const {
    return std::string_view(bytes_).substr(offsets_[id], offsets_[id + 1] - offsets_[id]);
  }
  bool is_text(uint32_t id) const { return kinds_[id] == kText && offsets_[id + 1] > offsets_[id]; }
  const TokenTrie& trie() const { return trie_; }
  // Where a text token stands in trie().all_tokens().
  uint32_t rank(uint32_t id) const { return ranks_[id]; }
  const std::vector<uint32_t>& eos_token_ids() const { return eos_; }
  bool is_eos(uint32_t id) const;
  // The id of a special token by its text, or -1. `<[7]>` is token 7, whatever it is.
  int64_t special(const std::string& text) const;
  static bool is_token_id(std::string_view text);
  uint32_t longest_token() const { return longest_; }
  // Every byte value is a token of its own: then every text can be written in tokens.
  bool byte_complete() const { return byte_complete_; }

  // Made when first asked for.
  const PlainTokens& plain() const;

  // The cache of one lexicon generation's lexemes; shared by all grammars of that generation.
  std::shared_ptr<LexRowCache> rows(const std::shared_ptr<Lexicon>& lexicon) const;

 private:
  std::string bytes_;
  std::vector<uint32_t> offsets_;
  std::vector<uint8_t> kinds_;
  std::unordered_map<std::string, uint32_t> special_;
  std::vector<uint32_t> eos_;
  TokenTrie trie_;
  std::vector<uint32_t> ranks_;
  uint32_t longest_ = 0;
  bool byte_complete_ = false;
  mutable std::mutex mutex_;
  mutable std::weak_ptr<Lexicon> generation_;
  mutable std::shared_ptr<LexRowCache> rows_;
  mutable std::unique_ptr<PlainTokens> plain_;
};

}  // namespace guiderail
