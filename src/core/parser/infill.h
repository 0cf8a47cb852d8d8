// Texts that must lead up to a given one: what is written between a prefix and a suffix of a program.
//
// A state is *possible* if some text completes it that ends with the suffix, and *complete* if the suffix itself does. 'What is to come ends
// with the suffix' is a regular language, so the question is that of longest match (munch.h) with this language as one more obligation, asked
// anew of each state: whatever of the suffix the text has already spelled by chance does not count. Where not every byte is a token, the
// language is 'tokens, then the suffix', asked for only where bytes that are tokens do not suffice and bytes of tokens might (liveness.h).
//
// Names that must not come twice (name_scopes.h) are followed through prefix, text and suffix, so no text that repeats one is complete. Whether
// a state is possible is asked without them: where only a name that the suffix repeats keeps a state from being complete, that is refused by
// name, since no way on may be left.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <unordered_map>
#include <vector>

#include "core/closing/completion.h"
#include "core/engine.h"
#include "core/lexer/munch.h"
#include "core/masks/vocabulary.h"
#include "core/parser/infill_blocks.h"
#include "core/published_map.h"

namespace guiderail {

class Infill {
 public:
  // Throws GrammarError for grammars whose states remember text that the question does not see (captures), and for those of several parts.
  Infill(Engine& engine, const Vocabulary& vocabulary, std::string suffix);
  ~Infill();

  // Any thread may call these. They throw LimitError `munch_states`, and GrammarError where the suffix repeats a name.
  bool possible(StateId state);
  bool complete(StateId state);
  // The mask of a state, of `num_words` words.
  void fill(StateId state, bool first, Completion& completion, uint32_t* words, std::size_t num_words);

 private:
  Engine& engine_;
  const Vocabulary& vocabulary_;
  std::string suffix_;
  // What may stand before the suffix, and the question whether a text can be of that kind.
  struct Question {
    Node before = kNone, language = kNone;
    std::unique_ptr<MunchViability> viability;                             // without blocks by indentation
    std::map<InfillBlocks::Widths, std::unique_ptr<InfillBlocks>> blocks;  // with them
  };
  bool leads_to_suffix(const Thread& thread, Question& question);
  void refuse_captures() const;

  std::vector<bool> special_;         // of the grammar's special tokens, which the vocabulary has
  Question enough_, needed_, exact_;  // the first two only where they differ
  PublishedMap possible_, complete_;  // state → 0, 1
  std::mutex mutex_;
  std::unordered_map<uint64_t, std::vector<uint32_t>> masks_;  // state and first
};

}  // namespace guiderail
