// A trie over byte strings in one array: the children of a node lie side by side, ordered by byte.
//
//   tokens {7: "a", 9: "ab", 4: "b"}    nodes  0 root → 1..2,  1 'a' (token 7) → 3..3,  2 'b' (token 4),  3 'b' (token 9)
//
// Walks that follow few bytes find a child by binary search; walks that follow many scan the block. Used for the vocabulary and
// for what is left over of its tokens after a lexeme has ended inside them (lex_row.h).
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string_view>
#include <utility>
#include <vector>

#include "core/text/byte_set.h"

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

  // Entries with an empty string are left out; strings of the same bytes have their tokens in ascending order.
  static TokenTrie build(std::span<const std::pair<std::string_view, uint32_t>> strings);

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
  uint32_t child(uint32_t i, uint8_t byte) const {
    const TrieNode& n = nodes_[i];
    if (n.num_children == 0) return 0;
    if (n.num_children == 1) return nodes_[n.first_child].byte == byte ? n.first_child : 0;
    if (i == kRoot && !first_level_.empty()) return first_level_[byte];
    return child_among(n, byte);
  }
  uint32_t find(uint32_t from, std::string_view text) const;
  std::size_t bytes_used() const {
    return nodes_.size() * (sizeof(TrieNode) + 8) + tokens_.size() * 4 + below_.size() * sizeof(Below) +
           (characters_to_.size() + characters_.size()) * sizeof(uint16_t);
  }

  // What the strings strictly below a node are made of: a lexeme that surely reads all of it need not be walked there.
  struct Below {
    std::array<uint64_t, 2> ascii{};  // the ASCII bytes that occur
    uint64_t leads = 0;               // the bytes from 0xC0 on, which begin characters
    // If the node ends a character, all of these strings are UTF-8, but for a last character that may be cut off.
    bool utf8 = true;
    bool has(uint8_t byte) const {
      if (byte < 0x80) return ascii[byte >> 6] >> (byte & 63) & 1;
      return byte < 0xC0 ? !utf8 || leads : leads >> (byte & 63) & 1;
    }
  };
  // Computes below() for every node and the characters of every string; not done for tries of what is left over.
  void summarize();
  bool summarized() const { return !below_.empty(); }
  const Below& below(uint32_t i) const { return below_[i]; }
  // How many characters begin on the way to a node, and in each of all_tokens(): bytes that do not continue one.
  uint32_t characters_to(uint32_t i) const { return characters_to_[i]; }
  std::span<const uint16_t> characters() const { return characters_; }

  // The trie of `byte` followed by all strings at or below any of `roots` (nodes of `whole` that all stand for `byte`), with their tokens.
  static TokenTrie merge_below(const TokenTrie& whole, std::vector<uint32_t> roots, uint8_t byte);
  // The trie of all strings strictly below any of `roots` that begin with one of `first`.
  static TokenTrie merge(const TokenTrie& whole, std::span<const uint32_t> roots, const ByteSet& first);

 private:
  // Adds to each node of `open` what stands below it: what is at and below nodes of `whole`, which are sources[begin .. end). The ranges follow one
  // another.
  struct Merging {
    uint32_t node, begin, end;
  };
  void merge_from(const TokenTrie& whole, std::vector<Merging> open, std::vector<uint32_t> sources);
  void measure();
  uint32_t child_among(const TrieNode& parent, uint8_t byte) const;
  bool continues_character(uint32_t node, int bytes, uint8_t first, uint8_t last) const;
  std::vector<TrieNode> nodes_;
  std::vector<uint32_t> tokens_;
  std::vector<uint32_t> subtree_, subtree_tokens_;
  std::vector<Below> below_;
  std::vector<uint16_t> characters_to_, characters_;  // at most 65,535
  std::vector<uint32_t> first_level_;                 // the root's children by byte, once summarized
};

}  // namespace guiderail
