#include "core/lexer/lexeme_ends.h"

#include <algorithm>
#include <set>

namespace guiderail {

namespace {

constexpr uint32_t id(Node n) { return static_cast<uint32_t>(n); }

}  // namespace

uint32_t LexemeEnds::find(Node lexeme, Node competing, Node obligation) const {
  uint32_t pair = pairs_.find(key(id(lexeme), id(competing)));
  return pair == kUnknown ? kUnknown : state_ids_.find(key(pair, id(obligation)));
}

uint32_t LexemeEnds::state(Node lexeme, Node competing, Node obligation) {
  uint64_t pair_key = key(id(lexeme), id(competing));
  uint32_t pair = pairs_.find(pair_key);
  if (pair == kUnknown) {
    pair = static_cast<uint32_t>(pairs_.size());
    effort_.spend(pairs_.insert(pair_key, pair));
  }
  uint32_t known = state_ids_.find(key(pair, id(obligation)));
  if (known != kUnknown) return known;
  // Obligations that are one language are one state, whatever node names them.
  Node canonical = obligations_.canonical(obligation);
  if (canonical != obligation) {
    uint32_t state = this->state(lexeme, competing, canonical);
    effort_.spend(state_ids_.insert(key(pair, id(obligation)), state));
    return state;
  }
  State fresh{lexeme, competing, obligation, false, kUnknown, {}, {}};
  if (lexicon_.nullable(lexeme)) {
    Node left = obligations_.after(obligation, competing, lexicon_.after_marker(lexeme));
    if (left != kNone)
      for (uint32_t tag : lexicon_.tags(lexeme)) fresh.ends.push_back({tag, left});
  }
  effort_.spend(sizeof(State) + fresh.ends.size() * sizeof(End));
  uint32_t number = static_cast<uint32_t>(states_.size());
  states_.push_back(std::move(fresh));
  effort_.spend(state_ids_.insert(key(pair, id(obligation)), number));
  return number;
}

const std::vector<uint32_t>& LexemeEnds::next(uint32_t which) {
  State& s = states_[which];  // of a deque: stays where it is
  if (s.expanded) return s.next;
  std::vector<uint32_t> next;
  const Lexicon::Transitions& lexemes = lexicon_.transitions(s.lexeme);
  const Lexicon::Transitions& rivals = lexicon_.transitions(s.competing);
  const Lexicon::Transitions& demands = lexicon_.transitions(s.obligation);
  std::vector<uint32_t> seen;  // combinations of classes, few
  uint32_t last = kUnknown;
  (lexicon_.first_bound(s.lexeme) & lexicon_.first_bound(s.obligation)).for_each([&](uint8_t byte) {
    uint32_t classes =
        (uint32_t{lexemes.classes[byte]} << 16) | (uint32_t{rivals.classes[byte]} << 8) | demands.classes[byte];
    if (classes == last) return;
    last = classes;
    if (std::ranges::find(seen, classes) != seen.end()) return;
    seen.push_back(classes);
    Node lexeme = lexicon_.step(s.lexeme, byte);
    if (lexeme == kNone) return;
    Node obligation = lexicon_.step(s.obligation, byte);
    if (obligation == kNone) return;
    next.push_back(state(lexeme, lexicon_.step(s.competing, byte), obligation));
  });
  std::ranges::sort(next);
  next.erase(std::ranges::unique(next).begin(), next.end());
  effort_.spend(next.size() * sizeof(uint32_t));
  s.next = std::move(next);
  s.expanded = true;
  return s.next;
}

void LexemeEnds::keep_weakest(std::vector<End>& set, const End& end) {
  for (const End& other : set)
    if (other.tag == end.tag && obligations_.implies(end.obligation, other.obligation)) return;
  std::erase_if(set, [&](const End& other) {
    return other.tag == end.tag && obligations_.implies(other.obligation, end.obligation);
  });
  set.push_back(end);
}

// Strongly connected components (Tarjan 1972) without recursion: the states of one component reach the same ends.
// Finished components are kept, so each state is walked once however many questions are asked.
const std::vector<LexemeEnds::End>& LexemeEnds::weakest_ends(uint32_t root) {
  if (states_[root].weakest != kUnknown) return end_sets_[states_[root].weakest];
  struct Visit {
    uint32_t index, low;
    bool open = true;  // on the stack of unfinished components
    std::vector<End> ends;
  };
  struct Frame {
    uint32_t state;
    std::size_t edge = 0;
  };
  std::unordered_map<uint32_t, Visit> visits;
  std::vector<uint32_t> open;
  std::vector<Frame> frames;
  auto enter = [&](uint32_t state) {
    uint32_t index = static_cast<uint32_t>(visits.size());
    Visit& visit = visits.emplace(state, Visit{index, index, true, {}}).first->second;
    for (uint32_t successor : next(state))
      for (const End& end : ends_here(successor)) keep_weakest(visit.ends, end);
    if (no_tags_ && visit.ends.size() == 1 && visit.ends[0].obligation == kAll) {
      // Nothing weaker can be found: a long bounded repeat is not walked to its end for a quote that may come at once.
      states_[state].weakest = static_cast<uint32_t>(end_sets_.size());
      end_sets_.push_back(visit.ends);
      visit.open = false;
      return;
    }
    open.push_back(state);
    frames.push_back({state});
  };
  enter(root);
  while (!frames.empty()) {
    Frame& frame = frames.back();
    Visit& visit = visits.at(frame.state);
    const std::vector<uint32_t>& successors = next(frame.state);
    if (frame.edge < successors.size()) {
      uint32_t successor = successors[frame.edge++];
      auto met = visits.find(successor);
      if (met == visits.end() && states_[successor].weakest == kUnknown)
        enter(successor);
      else if (met != visits.end() && met->second.open)
        visit.low = std::min(visit.low, met->second.index);
      if (states_[successor].weakest != kUnknown)
        for (const End& end : end_sets_[states_[successor].weakest]) keep_weakest(visit.ends, end);
      continue;
    }
    uint32_t done = frame.state, low = visit.low;
    if (low == visit.index) {
      std::vector<End> ends;
      std::size_t bottom = open.size();
      while (open[bottom - 1] != done) --bottom;
      --bottom;
      for (std::size_t k = bottom; k < open.size(); ++k)
        for (const End& end : visits.at(open[k]).ends) keep_weakest(ends, end);
      effort_.spend(ends.size() * sizeof(End) + sizeof(ends));
      uint32_t set = static_cast<uint32_t>(end_sets_.size());
      end_sets_.push_back(std::move(ends));
      for (std::size_t k = bottom; k < open.size(); ++k) {
        states_[open[k]].weakest = set;
        visits.at(open[k]).open = false;
      }
      open.resize(bottom);
    }
    frames.pop_back();
    if (frames.empty()) break;
    Visit& parent = visits.at(frames.back().state);
    parent.low = std::min(parent.low, low);
    if (states_[done].weakest != kUnknown)
      for (const End& end : end_sets_[states_[done].weakest]) keep_weakest(parent.ends, end);
  }
  return end_sets_[states_[root].weakest];
}

bool LexemeEnds::all_ends(uint32_t from, std::size_t max_states, std::vector<End>& out) {
  std::vector<uint32_t> queue{from};
  std::unordered_map<uint32_t, bool> seen{{from, true}};
  std::set<End> ends;
  for (std::size_t at = 0; at < queue.size(); ++at) {
    if (queue.size() > max_states) return false;
    for (uint32_t successor : next(queue[at])) {
      ends.insert(ends_here(successor).begin(), ends_here(successor).end());
      if (seen.emplace(successor, true).second) queue.push_back(successor);
    }
  }
  out.assign(ends.begin(), ends.end());
  return true;
}

}  // namespace guiderail
