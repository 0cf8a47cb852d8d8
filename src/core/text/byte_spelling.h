// Can what is left of a text be written with a given set of bytes alone? Under free lexing.
//
// If every byte of the set is a token, yes means that the text can be completed in tokens; if every byte in any token is in the
// set, no means that it cannot. Either way the question is about single bytes, so no position inside a token has to be carried along
// and the answer is reached symbol by symbol:
//
//   a terminal is *writable* if one of its lexemes is made of the bytes, a nonterminal if it is nullable or one of its productions
//   consists of writable symbols, an item if the rest of its production is; a parser state if from one of its items the way through
//   return contexts, over writable items, leads to acceptance.
//
// Rules are asked for on demand, so this looks no further than an answer takes: writable nonterminals are found by counting down what
// each production still misses (Dowling and Gallier 1984), the next nonterminal to look into is taken now from the oldest, now from the newest
// end of those met, which finds what is shallow and what is deep. Answers are kept.
#pragma once

#include <cstddef>
#include <cstdint>
#include <unordered_map>
#include <vector>

#include "core/engine.h"
#include "core/text/byte_set.h"

namespace guiderail {

class ByteSpelling {
 public:
  enum class Answer : uint8_t { kNo, kYes, kOpen };  // open: looking further would take too long

  // `special[i]`: is special token i of the grammar in the vocabulary?
  ByteSpelling(Engine& engine, const ByteSet& bytes, std::vector<bool> special);

  // With the parser's mutex held. The thread carries no obligation.
  Answer completable(const Thread& thread);
  std::size_t bytes_used() const { return bytes_used_; }

 private:
  struct Nonterminal {
    bool expanded = false, writable = false, never = false;
    std::vector<uint32_t> missed_by;  // productions that still miss it
    std::vector<uint32_t> misses;     // nonterminals that its productions missed when it was expanded
  };
  struct Production {
    uint32_t owner, missing;
  };

  bool inside(const Thread& thread);
  bool boundary(ParserState state);
  bool returns(const std::vector<uint32_t>& contexts);
  bool writable_from(uint32_t position);
  bool writable_terminal(Symbol terminal);
  bool writable_lexeme(Node lexeme, uint32_t tag);
  bool writable(uint32_t nonterminal);
  void expand(uint32_t nonterminal);
  void found(uint32_t nonterminal);
  Nonterminal& at(uint32_t nonterminal);
  void charge(std::size_t bytes);

  Engine& engine_;
  ByteSet bytes_;
  std::vector<bool> special_;
  Node texts_;              // all texts over the bytes
  bool open_ = false;       // the question at hand was given up somewhere
  bool uncertain_ = false;  // so was a terminal: no longer is any no certain
  std::vector<Nonterminal> nonterminals_;
  std::vector<Production> productions_;
  std::unordered_map<uint32_t, bool> terminals_, states_, contexts_;
  std::size_t bytes_used_ = 0;
};

}  // namespace guiderail
