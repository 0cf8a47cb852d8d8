// A trie over byte strings in one array: the children of a node lie side by side, ordered by byte.
//
//   tokens {7: "a", 9: "ab", 4: "b"}    nodes  0 root → 1..2,  1 'a' (token 7) → 3..3,  2 'b' (token 4),  3 'b' (token 9)
//
// Walks that follow few bytes find a child by binary search; walks that follow many scan the block. Used for the vocabulary and
// for what is left over of its tokens after a lexeme has ended inside them (lex_row.h).
#pragma once

#include <cstdint>
#include <span>
#include <string_view>
#include <utility>
#include <vector>

namespace guiderail {

struct TrieNode {
  uint32_t first_child;
  uint32_t first_token;  // into TokenTrie::tokens
  uint32_t num_tokens;   // several ids may have the same bytes
  uint16_t num_children;
  uint8_t byte;
  uint8_t height;  // of the subtree in bytes, at most 255
};
static_assert(sizeof(TrieNode) == 16);

class TokenTrie {
 public:
  static constexpr uint32_t kRoot = 0;

  // Entries with an empty string are left out. O(total bytes · log) time.
  static TokenTrie build(std::vector<std::pair<std::string_view, uint32_t>> entries);

  std::size_t size() const { return nodes_.size(); }
  const TrieNode& node(uint32_t i) const { return nodes_[i]; }
  std::span<const TrieNode> children(uint32_t i) const {
    return {nodes_.data() + nodes_[i].first_child, nodes_[i].num_children};
  }
  std::span<const uint32_t> tokens(uint32_t i) const {
    return {tokens_.data() + nodes_[i].first_token, nodes_[i].num_tokens};
  }
  // The tokens of a subtree lie side by side: [first, last) of all_tokens().
  std::pair<uint32_t, uint32_t> token_range(uint32_t i) const {
    return {nodes_[i].first_token, nodes_[i].first_token + subtree_tokens_[i]};
  }
  std::span<const uint32_t> all_tokens() const { return tokens_; }
  // Number of nodes below and including i.
  uint32_t subtree_size(uint32_t i) const { return subtree_[i]; }
  // The child of `i` by `byte`, or 0 (the root is nobody's child).
  uint32_t child(uint32_t i, uint8_t byte) const;
  uint32_t find(uint32_t from, std::string_view text) const;
  std::size_t bytes_used() const { return nodes_.size() * (sizeof(TrieNode) + 8) + tokens_.size() * 4; }

  // The trie of `byte` followed by all strings at or below any of `roots` (nodes of `whole` that all stand for `byte`), with their tokens.
  static TokenTrie merge_below(const TokenTrie& whole, std::vector<uint32_t> roots, uint8_t byte);

 private:
  void measure();
  std::vector<TrieNode> nodes_;
  std::vector<uint32_t> tokens_;
  std::vector<uint32_t> subtree_, subtree_tokens_;
};

}  // namespace guiderail
