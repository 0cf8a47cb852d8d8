// What a lexeme surely reads, so that nobody needs to walk the vocabulary where nothing else occurs.
//
// Two kinds of knowledge, both about a remainder and what is below a place of the vocabulary trie (TokenTrie::below):
//  - loops: the characters after which the remainder is itself again, as a string's is nearly everywhere.
//  - stretches: however characters of a family (digits, letters, printable ones, …) are strung together, the remainder is alive for so many bytes.
//    That holds where automata move from state to state without getting anywhere: 'a string that contains one of nine words', labels of a
//    host name far from their limit.
#pragma once

#include <array>
#include <cstdint>
#include <unordered_map>
#include <vector>

#include "core/lexer/lexicon.h"
#include "core/masks/token_trie.h"

namespace guiderail {

// ASCII characters, and characters beyond ASCII by their first byte.
struct Characters {
  std::array<uint64_t, 2> ascii{};
  uint64_t leads = 0;  // bytes from 0xC0 on

  bool cover(const TokenTrie::Below& below) const {
    return !((below.ascii[0] & ~ascii[0]) | (below.ascii[1] & ~ascii[1]) | (below.leads & ~leads)) && below.utf8;
  }
  bool empty() const { return !(ascii[0] | ascii[1] | leads); }
  bool has(unsigned byte) const { return (byte < 0x80 ? ascii[byte >> 6] : leads) >> (byte & 63) & 1; }
  constexpr void add(unsigned byte) { (byte < 0x80 ? ascii[byte >> 6] : leads) |= uint64_t{1} << (byte & 63); }
  Characters operator&(const Characters& o) const {
    return {{ascii[0] & o.ascii[0], ascii[1] & o.ascii[1]}, leads & o.leads};
  }
};

// Answers are remembered for the life of the object. Not thread-safe; the lexicon below it is.
class LexemeStretches {
 public:
  explicit LexemeStretches(Lexicon& lexicon) : lexicon_(lexicon) {}

  // What the remainder loops on; inside a character beyond ASCII it does not end.
  const Characters& loops(Node remainder);
  // Does everything strictly below a place, at which a character ends, surely keep the remainder going?
  bool goes_on(Node remainder, const TokenTrie::Below& below, uint8_t height);
  // Printable characters but quotation marks and backslashes.
  static const Characters& plain_characters();
  // Is the remainder alive after any text of plain characters, however long? `states` are those that such texts lead to, as far as they were
  // looked at; if it is, each of them is so too.
  bool outlasts_plain(Node remainder, std::vector<Node>& states);

 private:
  Characters loops_of(Node remainder);
  bool always_comes_to(Node node, Node target, int more, uint8_t first, uint8_t last);
  // For how many bytes any characters of the family keep the remainder alive: at most `far`, or kEndless. `states`: as in outlasts_plain.
  static constexpr uint32_t kEndless = UINT32_MAX;
  uint32_t explore(Node remainder, const Characters& family, uint32_t far, std::vector<Node>* states);

  Lexicon& lexicon_;
  std::unordered_map<uint32_t, Characters> loops_;
  std::unordered_map<uint64_t, uint32_t> stretches_;
};

}  // namespace guiderail
