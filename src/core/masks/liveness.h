// For vocabularies in which not every byte is a token: can this state's text still be completed *in tokens*?
//
// Aliveness in bytes is not enough when, say, no token contains the byte 0x04. Four questions, each asked only if the one before left it open:
//
//  1. Can the rest be written with those bytes that are tokens of their own? Then it can be completed.
//  2. Can it be written with the bytes that occur in any token? If not, it cannot be completed. Where both sets are the same (a byte is a token
//     or nowhere), 1 has answered this.
//  3. Can it be written with bytes that are tokens and a few short tokens for each of the others? Then it can be completed. This is the next
//     question with an automaton of a few hundred states in place of the vocabulary's.
//  4. The definition: is there a rest that is a sequence of tokens? 'A sequence of tokens' is a regular language, so it is an obligation like
//     those of longest match, and the fixpoint of munch.h decides.
//
// Under free lexing 1 and 2 are byte_spelling.h's; under munch all four are the fixpoint's, with 'a text over these bytes' as the obligation.
// Also for grammars that name special tokens which the vocabulary lacks. Answers are kept per thread.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "core/engine.h"
#include "core/masks/vocabulary.h"
#include "core/published_map.h"
#include "core/text/byte_spelling.h"

namespace guiderail {

class Liveness {
 public:
  Liveness(Engine& engine, const Vocabulary& vocabulary);
  ~Liveness();

  // False if the vocabulary can write every text of every grammar like this one, so that there is nothing to ask.
  static bool needed(Engine& engine, const Vocabulary& vocabulary);

  // Any thread may call these. Throws LimitError if the answer takes too many states.
  bool live(StateId state) { return live(engine_.threads(state)); }
  bool live(std::span<const Thread> threads);
  // Under longest match, the first question: viable means live. Null under free lexing. `MunchViability::rests` is part of all obligations asked.
  MunchViability* by_single_bytes() { return singles_.viability.get(); }

 private:
  // Longest match and one of the sets of rests above.
  struct Rests {
    Node language = kNone;
    std::unique_ptr<MunchViability> viability;
  };

  bool live(const Thread& thread);
  bool surely_live(const Thread& thread);
  bool decide(const Thread& thread);
  void open(Rests& rests, Node (Liveness::*language)());
  bool completable(const Thread& thread, Rests& rests, Node (Liveness::*language)());
  Node single_bytes();
  Node any_bytes();
  Node short_token_sequences();
  Node token_sequences();

  Engine& engine_;
  const Vocabulary& vocabulary_;
  ByteSet single_, any_;       // bytes that are tokens; bytes of tokens
  std::vector<bool> special_;  // of the grammar's special tokens, which the vocabulary has
  ByteSpelling by_single_, by_any_;
  Rests singles_, anys_, short_sequences_, sequences_;
  PublishedMap lexemes_;     // group, remainder → number
  PublishedMap surely_;      // number of the lexeme, number of the demand → 0, 1
  PublishedMap places_;      // group, parser state → number
  PublishedMap remainders_;  // number of the place, remainder → number
  PublishedMap demands_;     // competing, obligation → number
  PublishedMap answers_;     // number of the remainder, number of the demand → 0, 1
};

}  // namespace guiderail
