// Where a lexeme under longest match can still end, and what its end leaves to be met.
//
// A state here is (lexeme, competing, obligation): what is left of the terminal being read, of the union of all
// terminals, and of what earlier lexemes demand; all three take every byte together. A lexeme may end in a state if its
// remainder contains the empty string and the obligations before it and of its own end do not contradict each other.
// The product is walked once per combination of byte classes and kept; it is finite because derivatives are, and a
// LimitError ends a walk that finds too much of it.
//
// All calls but `find` and `answer` with the engine's lock held.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <span>
#include <unordered_map>
#include <utility>
#include <vector>

#include "core/lexer/lexicon.h"
#include "core/lexer/obligations.h"
#include "core/published_map.h"

namespace guiderail {

class LexemeEnds {
 public:
  struct End {
    uint32_t tag;
    Node obligation;
    auto operator<=>(const End&) const = default;
  };

  LexemeEnds(Lexicon& lexicon, Obligations& obligations, MunchEffort& effort)
      : lexicon_(lexicon), obligations_(obligations), effort_(effort) {}

  // Promises that no two terminals of one start have different tags, so that an end without obligation is as weak as any.
  void promise_no_tags() { no_tags_ = true; }

  static constexpr uint32_t kUnknown = PublishedMap::kUnknown;
  // The state, or kUnknown if nobody has been there; takes no lock.
  uint32_t find(Node lexeme, Node competing, Node obligation) const;
  uint32_t state(Node lexeme, Node competing, Node obligation);

  // The ways to end exactly here.
  const std::vector<End>& ends_here(uint32_t state) const { return states_[state].ends; }
  // The states one byte on.
  const std::vector<uint32_t>& next(uint32_t state);
  // The ways to end after one more byte at least; of two with the same tag where one's obligation implies the other's,
  // only the weaker, because whatever can follow the stronger can follow the weaker.
  const std::vector<End>& weakest_ends(uint32_t state);
  // All ways to end after one more byte at least. False if that takes more than `max_states` states.
  bool all_ends(uint32_t state, std::size_t max_states, std::vector<End>& out);

  // Is there an end, one more byte on at least, that `accept` takes? `question` names the predicate: answers are kept
  // by it.
  template <typename Accept>
  bool leads_to(uint32_t state, uint32_t question, Accept accept);
  // An answer given before: 0, 1 or kUnknown; takes no lock.
  uint32_t answer(uint32_t question, uint32_t state) const { return answers_.find(key(question, state)); }

 private:
  struct State {
    Node lexeme, competing, obligation;
    bool expanded = false;
    uint32_t weakest = kUnknown;  // index into end_sets_
    std::vector<End> ends;
    std::vector<uint32_t> next;
  };
  static constexpr uint64_t key(uint32_t a, uint32_t b) { return (uint64_t{a} << 32) | b; }
  void keep_weakest(std::vector<End>& set, const End& end);
  void remember(uint32_t question, uint32_t state, bool answer) {
    effort_.spend(answers_.insert(key(question, state), answer ? 1 : 0));
  }

  Lexicon& lexicon_;
  Obligations& obligations_;
  MunchEffort& effort_;
  bool no_tags_ = false;
  PublishedMap pairs_;      // lexeme, competing → number
  PublishedMap state_ids_;  // number of the pair, obligation → state
  PublishedMap answers_;    // question, state → 0, 1
  std::deque<State> states_;
  std::deque<std::vector<End>> end_sets_;
};

// Breadth-first, so that the nearest end is found first. All states on the way to a hit have the answer yes; if there
// is no hit, all that were visited have the answer no.
template <typename Accept>
bool LexemeEnds::leads_to(uint32_t from, uint32_t question, Accept accept) {
  uint32_t known = answer(question, from);
  if (known != kUnknown) return known == 1;
  struct Visit {
    uint32_t state, parent;
  };
  std::vector<Visit> queue{{from, kUnknown}};
  std::unordered_map<uint32_t, bool> seen{{from, true}};
  for (uint32_t at = 0; at < queue.size(); ++at) {
    bool hit = false;
    for (uint32_t successor : next(queue[at].state)) {
      known = answer(question, successor);
      hit = known == 1;
      for (const End& end : ends_here(successor)) hit = hit || accept(end);
      if (hit) break;
      if (known == kUnknown && seen.emplace(successor, true).second) queue.push_back({successor, at});
    }
    if (!hit) continue;
    for (uint32_t visit = at; visit != kUnknown; visit = queue[visit].parent)
      remember(question, queue[visit].state, true);
    return true;
  }
  for (const Visit& visit : queue) remember(question, visit.state, false);
  return false;
}

}  // namespace guiderail
