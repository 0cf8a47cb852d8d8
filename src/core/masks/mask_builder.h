// The mask of a sequence state: which tokens may come next.
//
// The mask is the union over the state's threads. A thread in a *broad* lexeme (one that thousands of tokens keep going: a
// string, white space, an identifier, a number) takes the lexeme's cached row (lex_row.h) and walks only what tokens leave over after the
// lexeme's end; where the remainder is a sequence `first rest` with a broad `first`, the row of `first` alone serves, whatever
// rest it has in this grammar. All other threads walk the vocabulary trie together along live branches, a few dozen nodes. No walk
// over the whole vocabulary happens unless a broad remainder is met for the first time in this vocabulary.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "core/closing/reach.h"
#include "core/engine.h"
#include "core/masks/lex_row.h"
#include "core/masks/liveness.h"
#include "core/masks/shape_tokens.h"
#include "core/masks/vocabulary.h"

namespace guiderail {

// One row of the mask store: a base shared with others, what differs from it, and sparse rows laid over both. `fill` costs a copy and some words.
class MaskRow {
 public:
  void fill(uint32_t* words, uint32_t num_words) const;
  bool allows(uint32_t token) const { return value(token >> 5) >> (token & 31) & 1; }
  std::size_t bytes_used() const {
    return sizeof(MaskRow) + patches_.size() * sizeof(Patch) + layers_.size() * sizeof(LexRow*) +
           (own_.size() + doubtful_.size()) * 4;
  }

 private:
  friend class MaskBuilder;
  struct Patch {
    uint32_t word, value;
  };
  uint32_t value(uint32_t word) const;
  const MaskRow* general_ = nullptr;  // the row underneath; then base_ and own_ are empty
  const uint32_t* base_ = nullptr;    // of a dense LexRow, which lives as long as the vocabulary's cache, or own_
  std::vector<uint32_t> own_;
  std::vector<Patch> patches_;         // in place of the base's words; sorted by word
  std::vector<const LexRow*> layers_;  // sparse rows, each allowed as a whole
  std::vector<uint32_t> doubtful_;     // tokens that the threads of the state know too little to decide
};

class MaskBuilder {
 public:
  // `liveness` is null if every byte is a token: then alive in bytes is alive in tokens.
  // `shapes` is null where lexing depends on the parser (TokenReadings::usable).
  MaskBuilder(Engine& engine, const Vocabulary& vocabulary, LexRowCache& rows, Liveness* liveness, ShapeTokens* shapes)
      : engine_(engine), vocabulary_(vocabulary), rows_(rows), liveness_(liveness), shapes_(shapes) {}

  // `reach`, if not null, is told where the tokens lead.
  MaskRow build(StateId state, Reach* reach = nullptr);
  // Of text tokens below a place of the trie alone, for a state in which that much has been read of them. What it says of the tokens of the place
  // itself means nothing.
  MaskRow build_below(StateId state, uint32_t place);
  // The mask of a state out of that of its general form (Engine::generalised), which must outlive it.
  MaskRow specialise(StateId state, const MaskRow& general);

 private:
  // Tokens by rank, in sorted ranges [first, second).
  using Ranges = std::vector<std::pair<uint32_t, uint32_t>>;
  // A row that answers for a thread, but for the tokens of `except`.
  struct Contribution {
    const LexRow* row;
    Ranges except;
  };
  // A place of a trie with its threads, which are stack_[begin .. end).
  struct Frame {
    uint32_t place;
    std::size_t begin, end;
    ByteSet bytes;  // still to be visited
  };

  void walk_whole(uint32_t place, std::span<const Thread> threads);
  void walk(const TokenTrie& trie, uint32_t place, std::span<const Thread> threads, bool whole, const Ranges* skip);
  bool enter(const TokenTrie& trie, uint32_t place, std::size_t begin, bool whole, const Ranges* skip);
  void visit(TokenReadings::PlaceId place, const Thread& boundary, const Ranges* skip);
  void follow(const ShapeTokens::Answer& answer, const Thread& thread, const Ranges* skip);
  void read_on(const TokenTrie& trie, uint32_t place, const Thread& thread, const Ranges* skip);
  void stay(const TokenReadings::Reading::Doubtful& inside, const Thread& lexeme, const Ranges* skip);
  void leave(const TokenReadings::Exit& exit, uint32_t tag, const Thread& lexeme, const Ranges* skip);
  void arrive(const TokenReadings::Exit& exit, const Thread& ended, const Ranges* skip);
  void leave_newline(const std::vector<ShapeTokens::Newline>& newlines, const Thread& newline, const Ranges* skip);
  void begin_line(const Thread& newline, const ShapeTokens::Newline& end, const TokenReadings::LineBreak& line_break,
                  ShapeTokens::ExitsId exits, const Ranges* skip);
  void go_on_behind(ShapeTokens::ExitsId exits, const Thread& boundary, const Ranges* skip);
  void add(const TokenSet& tokens, const Ranges* skip);
  bool owes_nothing_next(const Thread& thread);
  bool take_row(const Thread& thread, uint32_t place, const Ranges* skip, bool& plain_taken, std::vector<Thread>& more);
  bool take_row_of_rest(const TokenTrie& trie, Thread& thread, uint32_t place, const Ranges* skip);
  void walk_left_over(const LexRow& row, const Thread& thread, Node rest, const Ranges& except);
  bool spellable(std::span<const Thread> threads);
  void read_doubtful(const Thread& thread, uint32_t place, std::size_t from);
  bool survives(std::string_view bytes, std::vector<Thread>& threads);
  void drop_unspellable(const LexRow& row, const Thread& thread, Node rest, Ranges& except);
  void decide_excluded(const Thread& thread, const LexRowCache::Plan& plan, uint32_t place, Ranges& except);
  static void join(Ranges& ranges);
  bool contains(const Ranges& ranges, uint32_t token) const;
  MaskRow assemble();

  Engine& engine_;
  const Vocabulary& vocabulary_;
  LexRowCache& rows_;
  Liveness* liveness_;
  ShapeTokens* shapes_;
  Reach* reach_ = nullptr;
  bool many_widths_ = false;    // are lines of several widths followed as one,
  bool width_matters_ = false;  // and was there a place where they differ?
  // Working memory, one per thread: a mask is built in microseconds, and allocating it anew would be a good part of them.
  struct Scratch {
    std::vector<Contribution> contributions;
    std::vector<uint32_t> sets;  // single tokens that are allowed, in no order
    std::vector<const TokenSet*> token_sets;
    std::vector<uint32_t> doubtful;
    std::vector<Thread> stack, out;
    std::vector<ByteSet> firsts;  // of the threads on the stack, what they may take next
    std::vector<Frame> frames;
    std::vector<uint32_t> words;
    std::vector<uint64_t> touched;
    void clear();
  };
  static Scratch& scratch();
  Scratch& scratch_ = scratch();
  std::vector<Contribution>& contributions_ = scratch_.contributions;
  std::vector<const TokenSet*>& token_sets_ = scratch_.token_sets;
  std::vector<uint32_t>&sets_ = scratch_.sets, &doubtful_ = scratch_.doubtful, &words_ = scratch_.words;
  std::vector<uint64_t>& touched_ = scratch_.touched;
  std::vector<Thread>&stack_ = scratch_.stack, &out_ = scratch_.out;
  std::vector<ByteSet>& firsts_ = scratch_.firsts;
  std::vector<Frame>& frames_ = scratch_.frames;
};

}  // namespace guiderail
