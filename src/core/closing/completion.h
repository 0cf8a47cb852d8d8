// How a text can be completed in few tokens, for sequences with a limit on their number.
//
// A state's *plan* is a sequence of tokens that completes it: a short text (shortest_text.h) cut into as few tokens as possible. Its length is an
// upper bound on what completing takes, but the plan exists, so who has room for it can keep to it. Hence the rule of a sequence
// with room for r more tokens and a plan of at most r: a token is allowed if the state after it has a plan of at most r - 1, and the
// plan's own first token always is. No such sequence ends up without room, however far the bounds are from the optimum.
//
// For masks, `lengths(state)` says how long the plans are after each token. Far from the limit the longest of them is all that is looked at.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <vector>

#include "core/closing/reach.h"
#include "core/closing/shortest_text.h"
#include "core/engine.h"
#include "core/masks/liveness.h"
#include "core/masks/vocabulary.h"
#include "core/stable_vector.h"

namespace guiderail {

class Completion {
 public:
  // Tokens that complete a text; null: none are known.
  using Plan = std::shared_ptr<const std::vector<uint32_t>>;
  static constexpr uint32_t kNoToken = UINT32_MAX;
  static constexpr uint32_t kUnknown = UINT32_MAX;      // the length of no plan
  static constexpr uint32_t kTooLong = UINT32_MAX - 2;  // as good as unknown

  // The tokens that a state allows by the length of the plan after each. End-of-sequence tokens that end the text are not among them.
  struct Lengths {
    struct Group {
      uint32_t length;
      std::vector<uint32_t> tokens;
    };
    uint32_t longest = 0;
    // Of all allowed tokens that are in no group, if there are any.
    std::optional<uint32_t> usual;
    std::vector<Group> groups;  // longest first

    // With room for `room` tokens and a plan that begins with `planned` (or kNoToken): does some token not fit?
    bool narrows(uint32_t room, uint32_t planned) const;
    // The least room in which some token fits.
    uint32_t least_room() const;
  };

  // `first` and `liveness` may be null, as in Epoch.
  Completion(Engine& engine, const Vocabulary& vocabulary, const Vocabulary* first, Liveness* liveness);
  ~Completion();

  // Any thread may call these. `first`: the state stands at the first position of a text.
  Plan plan(StateId state, bool first);
  // Plans of the state have at most so many tokens; kUnknown if only making one tells. Cheap, and the same at every call.
  uint32_t cost(StateId state, bool first);
  // As cost, of all states that `reach` was told of when the mask of `state` was built: tokens far from the limit need no looking at.
  uint32_t most_after(StateId state, bool first, const Reach& reach);
  uint32_t most_after(StateId state, bool first, uint32_t of_general);
  std::optional<uint32_t> known_most_after(StateId state, bool first) const;
  // Under longest match the symbols' texts one after the other need not be a text.
  bool can_estimate() const { return engine_.lexing() == Lexing::kFree && !engine_.indentation(); }
  const Lengths& lengths(StateId state, bool first);
  const Lengths* known_lengths(StateId state, bool first) const;
  // Takes what does not fit out of the state's mask.
  void narrow(const Lengths& lengths, bool accepting, uint32_t room, uint32_t planned, uint32_t* words) const;
  // The distinct states after one token, each with the tokens that lead there; what cannot be spelled on is left out.
  std::vector<std::pair<StateId, std::vector<uint32_t>>> successors(StateId state, bool first);
  std::size_t bytes_used() const { return bytes_.load(std::memory_order_relaxed); }

 private:
  struct Store {
    ~Store();
    StableVector<std::atomic<const Plan*>> plans;
    StableVector<std::atomic<const Lengths*>> lengths;
    StableVector<std::atomic<uint32_t>> costs, most_after;  // plus 1; 0: not asked yet
  };
  template <typename T>
  const T& publish(StableVector<std::atomic<const T*>>& table, StateId state, std::unique_ptr<T> value,
                   std::size_t bytes);
  static std::optional<uint32_t> read(const StableVector<std::atomic<uint32_t>>& table, StateId state);
  void write(StableVector<std::atomic<uint32_t>>& table, StateId state, uint32_t value);
  Store& store(bool first) { return first && first_ ? first_store_ : main_store_; }
  const Store& store(bool first) const { return first && first_ ? first_store_ : main_store_; }
  Plan make_plan(StateId state, bool first);
  Plan cut(const std::vector<ShortestText::Piece>& text, bool first) const;

  Engine& engine_;
  const Vocabulary& vocabulary_;
  const Vocabulary* first_;
  Liveness* liveness_;
  std::vector<int64_t> special_;  // of the grammar's special tokens: their ids, or -1
  ShortestText shortest_;
  Store main_store_, first_store_;
  std::mutex mutex_;
  std::atomic<std::size_t> bytes_{0};
};

}  // namespace guiderail
