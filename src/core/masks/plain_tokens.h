// A vocabulary in two parts: the tokens that consist of plain characters alone, and the others.
//
// Plain is what no text format gives a meaning inside a string: printable characters but quotation marks and backslashes. Of 128,256 tokens some
// 120,000 are plain. A lexeme that plain characters can never end or kill, such as a string that has to contain something, keeps them all, so that
// only the others are looked at (LexRowCache).
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "core/masks/token_trie.h"

namespace guiderail {

class Vocabulary;

class PlainTokens {
 public:
  explicit PlainTokens(const Vocabulary& vocabulary);
  // As bits.
  std::span<const uint32_t> tokens() const { return tokens_; }
  bool has(uint32_t token) const { return tokens_[token >> 5] >> (token & 31) & 1; }
  const TokenTrie& others() const { return others_; }

 private:
  std::vector<uint32_t> tokens_;
  TokenTrie others_;
};

}  // namespace guiderail
