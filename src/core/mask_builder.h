// The mask of a sequence state: which tokens may come next.
//
// The mask is the union over the state's threads. A thread whose lexeme is *heavy* (many bytes go on, so thousands of tokens do)
// takes its lexeme's cached row (lex_row.h) and walks only what tokens leave over after the lexeme's end; all
// other threads walk the vocabulary trie together along live branches, a few dozen nodes. No walk over the whole vocabulary happens
// unless a heavy remainder is met for the first time in this vocabulary.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "engine.h"
#include "lex_row.h"
#include "vocabulary.h"

namespace guiderail {

// One row of the mask store: a base shared with others, and what differs from it. `fill` costs a copy and a few patches.
class MaskRow {
 public:
  void fill(uint32_t* words, uint32_t num_words) const;
  bool allows(uint32_t token) const;
  bool empty() const { return !base_ && patches_.empty(); }
  std::size_t bytes_used() const { return sizeof(MaskRow) + patches_.size() * sizeof(Patch) + own_.size() * 4; }

 private:
  friend class MaskBuilder;
  struct Patch {
    uint32_t word, keep, set;
  };
  const uint32_t* base_ = nullptr;  // into a LexRow, which lives as long as the vocabulary's cache, or own_
  std::vector<uint32_t> own_;
  std::vector<Patch> patches_;  // sorted by word
};

class MaskBuilder {
 public:
  MaskBuilder(Engine& engine, const Vocabulary& vocabulary, LexRowCache& rows) : engine_(engine), vocabulary_(vocabulary), rows_(rows) {}

  MaskRow build(StateId state);

 private:
  struct Contribution {
    const LexRow* row;
    uint32_t place;
    std::vector<uint32_t> fix;  // tokens the row does not answer for; sorted
  };

  bool heavy(const Thread& thread);
  void apply_row(const Thread& thread, uint32_t place);
  void walk(const TokenTrie& trie, uint32_t place, std::vector<Thread> threads, bool whole, const std::vector<uint32_t>* skip);
  void find_fix(Node base, Node excluded, uint32_t place, std::vector<uint32_t>& fix);
  void collect_below(uint32_t place, std::vector<uint32_t>& tokens);
  std::size_t depth_of(uint32_t place, std::string_view text) const;
  MaskRow assemble();

  Engine& engine_;
  const Vocabulary& vocabulary_;
  LexRowCache& rows_;
  std::vector<Contribution> contributions_;
  std::vector<uint32_t> sets_;
};

}  // namespace guiderail
