// For vocabularies in which not every byte is a token: can this state's text still be completed *in tokens*?
//
// Aliveness in bytes is not enough when, say, no token contains the byte 0x04. First a cheap search over bytes that are tokens of their
// own, which answers almost always. If that finds nothing, the definition: the rest of the text must be a text of the grammar and a
// sequence of tokens, and 'a sequence of tokens' is a regular language, so it is an obligation like those of longest match and the
// machinery of munch.h decides. Answers are kept per state.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "engine.h"
#include "vocabulary.h"

namespace guiderail {

class Liveness {
 public:
  Liveness(Engine& engine, const Vocabulary& vocabulary);
  ~Liveness();

  // Throws LimitError if the answer takes too many states.
  bool live(StateId state);

 private:
  bool found_in_single_bytes(StateId start);
  void after_single_bytes(StateId state, std::vector<StateId>& out);
  bool spelled_in_tokens(StateId state);

  Engine& engine_;
  const Vocabulary& vocabulary_;
  ByteSet single_;  // bytes that are tokens
  std::recursive_mutex mutex_;
  Node token_sequences_ = kNone;  // made on first use
  std::unique_ptr<MunchViability> spelling_;
  std::unordered_map<uint32_t, bool> known_;
};

}  // namespace guiderail
