// How a text can be completed in few tokens, for sequences with a limit on their number.
//
// A state's *plan* is a sequence of tokens that completes it: a short text (shortest_text.h) cut into as few tokens as possible. Its length is an
// upper bound on what completing takes, but the plan exists, so who has room for it can keep to it. Hence the rule of a sequence
// with room for r more tokens and a plan of at most r: a token is allowed if the state after it has a plan of at most r - 1, and the
// plan's own first token always is. No such sequence ends up without room, however far the bounds are from the optimum.
//
// For masks, `lengths(state)` says how long the plans are after each token. Far from the limit a bound on them all is looked at (`most_after`).
//
// Masks and acceptance must agree although what a search finds depends on what was asked before. So whatever decides is found once and kept: a
// state has one plan, and one bound on what its tokens may cost. A token is allowed if that bound leaves room, or else if the plan of the
// state after it does. `cost` is only a quicker way to the same answer: it never is below the plan's length. A bound is a promise made before the plan
// is; `plan_within` keeps it by looking again, should the plan that is kept be longer: what is known of short texts only gets better.
//
// States that differ only in the names they have read (name_scopes.h) share a plan that writes no further name in their scopes, and states
// that differ only in the name they are reading share one that writes others than that. So do states inside a captured text (captured_text.h), if the
// plan neither depends on it nor goes on behind what is captured but by closing it. So the tokens that go on in a name, each of which leads to a
// state of its own, need not be looked at one by one.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "core/closing/reach.h"
#include "core/closing/shortest_text.h"
#include "core/engine.h"
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

  // The state after a token, kDead if that is not allowed: Epoch::after.
  using After = std::function<StateId(StateId state, uint32_t token, bool first)>;

  // `first` may be null, as in Epoch.
  Completion(Engine& engine, const Vocabulary& vocabulary, const Vocabulary* first, After after);
  ~Completion();

  // Any thread may call these. `first`: the state stands at the first position of a text.
  Plan plan(StateId state, bool first);
  // A plan of at most so many tokens, if there is one among the plan that is kept and what a search finds today; else the shorter of them.
  Plan plan_within(StateId state, bool first, uint32_t room);
  // The plan of the state has at most so many tokens; kUnknown if only making it tells. Cheap.
  uint32_t cost(StateId state, bool first);
  // After each of the state's tokens, plans of at most so many tokens can be found, now and later: none of the tokens needs looking at while there is
  // more room. kUnknown if that is not known. `reach` was told where they lead when the mask of `state` was built.
  uint32_t most_after(StateId state, bool first, const Reach& reach);
  // The same from the answer for `general` (Engine::generalised), which does not know the names that have been read.
  uint32_t most_after(StateId state, bool first, StateId general);
  std::optional<uint32_t> known_most_after(StateId state, bool first) const;
  // Under longest match the symbols' texts one after the other need not be a text.
  bool can_estimate() const { return engine_.lexing() == Lexing::kFree && !engine_.indentation(); }
  const Lengths& lengths(StateId state, bool first);
  const Lengths* known_lengths(StateId state, bool first) const;
  // Takes what does not fit out of the state's mask.
  void narrow(const Lengths& lengths, bool accepting, uint32_t room, uint32_t planned, uint32_t* words) const;
  // The distinct states after one token, each with the tokens that lead there.
  struct Way {
    bool ended = false;  // a lexeme, on the way
    bool named = false;  // a name of those that the state does not know well
    bool operator==(const Way&) const = default;
  };
  struct Successor {
    StateId next;
    Way way;
    std::vector<uint32_t> tokens;
  };
  std::vector<Successor> successors(StateId state, bool first);
  // Is the token allowed, limits apart?
  bool takes(StateId state, uint32_t token, bool first) const { return after_(state, token, first) != kDead; }
  std::size_t bytes_used() const { return bytes_.load(std::memory_order_relaxed); }

 private:
  // Of states that differ only in names. `any`: the plan writes no further name in their scopes, so it is that of all of them.
  struct Shared {
    Plan plan;
    bool any;
  };
  // What a plan writes of names: how the one that is being read ends, if it turns out to be one, and which follow in the scopes that are open.
  struct Names {
    std::optional<std::string> rest;
    std::vector<std::string> further;
  };
  // Of states that differ only in the name that is being read: the plan of all whose name is not among `further`.
  struct Named {
    Plan plan;
    Names names;
  };
  struct Store {
    ~Store();
    StableVector<std::atomic<const Plan*>> plans;
    StableVector<std::atomic<const Shared*>> shared;
    StableVector<std::atomic<const Named*>> named;
    StableVector<std::atomic<const Plan*>> textless;  // by the state without its texts, where they do not matter
    // Of states that do not know the names and texts read: names that begin after some token, and tokens after which the text matters.
    std::unordered_map<uint32_t, std::vector<Reach::Name>> names;
    std::unordered_map<uint32_t, std::vector<uint32_t>> asked;
    StableVector<std::atomic<const Lengths*>> lengths;
    StableVector<std::atomic<uint32_t>> costs, most_after;  // plus 1; 0: not asked yet
  };
  template <typename T>
  static const T* look_up(const StableVector<std::atomic<const T*>>& table, StateId state);
  template <typename T>
  const T& publish(StableVector<std::atomic<const T*>>& table, StateId state, std::unique_ptr<T> value,
                   std::size_t bytes);
  static std::optional<uint32_t> read(const StableVector<std::atomic<uint32_t>>& table, StateId state);
  void write(StableVector<std::atomic<uint32_t>>& table, StateId state, uint32_t value);
  Store& store(bool first) { return first && first_ ? first_store_ : main_store_; }
  const Store& store(bool first) const { return first && first_ ? first_store_ : main_store_; }
  Plan make_plan(StateId state, bool first);
  Plan nameless_plan(StateId state, bool first);
  // The state without its captured texts, if a plan does not depend on them; else itself.
  StateId without_texts(StateId state);
  Plan shared_plan(StateId state, StateId nameless);
  std::optional<Names> names_of(StateId state, const std::vector<uint32_t>& plan);
  bool repeats(StateId state, const Names& names);
  std::vector<Reach::Name> open_names(const Reach& reach);
  // The longest that plans after these tokens of the state may be.
  uint32_t most_after_each(StateId state, bool first, std::span<const uint32_t> tokens);
  uint32_t more_than_general(StateId state, std::span<const Reach::Name> names);
  // Moves the tokens that must be asked one by one out of a successor of `state`; those that are left lead to states with one plan.
  std::vector<uint32_t> to_be_asked(Successor& successor, StateId state, bool first);
  Plan cut(const std::vector<ShortestText::Piece>& text, bool first) const;

  Engine& engine_;
  const Vocabulary& vocabulary_;
  const Vocabulary* first_;
  After after_;
  std::vector<int64_t> special_;  // of the grammar's special tokens: their ids, or -1
  ShortestText shortest_;
  Store main_store_, first_store_;
  std::mutex mutex_;
  std::atomic<std::size_t> bytes_{0};
};

}  // namespace guiderail
