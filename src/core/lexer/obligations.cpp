#include "core/lexer/obligations.h"

#include <algorithm>
#include <array>
#include <utility>
#include <vector>

#include "core/errors.h"
#include "core/growth.h"

namespace guiderail {

namespace {

// Obligations with larger automata stay as they are built: still right, only not shared.
constexpr std::size_t kMaxCanonicalStates = 64;
// A comparison of two obligations that takes more pairs of states than this is given up.
constexpr std::size_t kMaxComparedPairs = 256;

constexpr uint32_t id(Node n) { return static_cast<uint32_t>(n); }
constexpr uint64_t pair_key(Node a, Node b) { return (uint64_t{id(a)} << 32) | id(b); }

}  // namespace

void MunchEffort::spend(std::size_t bytes, std::size_t states) {
  if (states_ + states > max_states_)
    throw LimitError("munch_states", "too many states to decide which lexemes may stand side by side");
  states_ += states;
  bytes_.fetch_add(bytes, std::memory_order_relaxed);
  growth_of_this_thread += bytes;
}

Node Obligations::no_longer_match(Node competing) {
  uint32_t known = no_longer_.find(id(competing));
  if (known != PublishedMap::kUnknown) return Node{known};
  std::lock_guard lock(mutex_);
  MunchEffort::Question question(effort_);
  Node result = kAll;
  if (lexicon_.continues(competing)) {
    Node longer;
    if (markers_) {
      ByteSet text = ByteSet::all();
      text.words[Lexicon::kMarker >> 6] &= ~(uint64_t{1} << (Lexicon::kMarker & 63));
      Node some = lexicon_.repeat(lexicon_.bytes(text), 1, kUnbounded);
      Node marker = lexicon_.concat(lexicon_.bytes(ByteSet::of(Lexicon::kMarker)), kAll);
      Node plain = lexicon_.both({competing, some});
      Node looking = lexicon_.both({competing, lexicon_.concat(some, marker)});
      longer = lexicon_.either({lexicon_.alive(plain) ? lexicon_.concat(plain, kAll) : kNone,
                                lexicon_.alive(looking) ? lexicon_.without_marker(looking) : kNone});
    } else {
      longer = lexicon_.both({competing, lexicon_.concat(lexicon_.bytes(ByteSet::all()), kAll)});
      longer = lexicon_.alive(longer) ? lexicon_.concat(longer, kAll) : kNone;
    }
    if (longer != kNone) result = canonical(lexicon_.complement(longer));
  }
  effort_.spend(no_longer_.insert(id(competing), id(result)));
  return result;
}

Node Obligations::both_or_none(Node a, Node b) {
  Node result = lexicon_.both({a, b});
  return lexicon_.alive(result) ? canonical(result) : kNone;
}

Node Obligations::after(Node obligation, Node competing, Node follow) {
  if (follow != kAll) {
    uint64_t key = pair_key(obligation, follow);
    uint32_t known = meeting_.find(key);
    if (known == PublishedMap::kUnknown) {
      std::lock_guard lock(mutex_);
      MunchEffort::Question question(effort_);
      known = id(both_or_none(obligation, follow));
      effort_.spend(meeting_.insert(key, known));
    }
    obligation = Node{known};
    if (obligation == kNone) return kNone;
  }
  if (obligation == kAll) return no_longer_match(competing);
  uint64_t key = pair_key(obligation, competing);
  uint32_t known = after_.find(key);
  if (known != PublishedMap::kUnknown) return Node{known};
  std::lock_guard lock(mutex_);
  MunchEffort::Question question(effort_);
  Node result = both_or_none(obligation, no_longer_match(competing));
  effort_.spend(after_.insert(key, id(result)));
  return result;
}

Node Obligations::canonical(Node obligation) {
  if (obligation == kAll || obligation == kNone) return obligation;
  uint32_t known = canonical_.find(id(obligation));
  if (known != PublishedMap::kUnknown) return Node{known};
  std::string automaton = minimal_automaton(obligation);
  Node result = automaton.empty() ? obligation : by_automaton_.try_emplace(automaton, obligation).first->second;
  effort_.spend(canonical_.insert(id(obligation), id(result)) + (result == obligation ? automaton.size() + 64 : 0));
  return result;
}

std::vector<uint8_t> Obligations::representatives(Node a, Node b) {
  const Lexicon::Transitions &of_a = lexicon_.transitions(a), &of_b = lexicon_.transitions(b);
  std::vector<uint32_t> seen;  // few
  std::vector<uint8_t> bytes;
  for (unsigned byte = 0; byte < 256; ++byte) {
    uint32_t classes = (uint32_t{of_a.classes[byte]} << 8) | of_b.classes[byte];
    if (!seen.empty() && seen.back() == classes) continue;
    if (std::ranges::find(seen, classes) != seen.end()) continue;
    seen.push_back(classes);
    bytes.push_back(static_cast<uint8_t>(byte));
  }
  return bytes;
}

// The minimal automaton as a string that is equal for equal languages; empty if the automaton is too large. Partition
// refinement (Moore 1956): states are small in number, so the simple quadratic form is the fast one.
std::string Obligations::minimal_automaton(Node obligation) {
  if (by_automaton_.empty()) {
    by_automaton_.reserve(64);
    for (Node trivial : {kAll, kNone}) by_automaton_.emplace(std::string(trivial == kAll ? "\1" : "\0", 1), trivial);
  }
  std::vector<Node> states{obligation};
  std::unordered_map<uint32_t, uint16_t> index{{id(obligation), 0}};
  std::vector<std::array<uint16_t, 256>> rows;
  for (std::size_t at = 0; at < states.size(); ++at) {
    effort_.spend(0);
    const uint8_t* classes = lexicon_.transitions(states[at]).classes;
    std::array<uint16_t, 256> target{};  // by class
    for (uint8_t byte : representatives(states[at], states[at])) {
      Node next = lexicon_.step(states[at], byte);
      auto [it, fresh] = index.try_emplace(id(next), static_cast<uint16_t>(states.size()));
      if (fresh) {
        if (states.size() == kMaxCanonicalStates) return "";
        states.push_back(next);
      }
      target[classes[byte]] = it->second;
    }
    rows.emplace_back();
    for (unsigned byte = 0; byte < 256; ++byte) rows[at][byte] = target[classes[byte]];
  }
  std::size_t n = states.size();
  std::vector<uint16_t> part(n);
  for (std::size_t s = 0; s < n; ++s) part[s] = lexicon_.nullable(states[s]) ? 1 : 0;
  std::size_t parts = 0;
  while (true) {
    // Two states stay together while their parts and the parts of all successors agree.
    std::vector<uint16_t> finer(n);
    std::vector<std::size_t> representatives;
    for (std::size_t s = 0; s < n; ++s) {
      auto same = [&](std::size_t r) {
        if (part[r] != part[s]) return false;
        for (unsigned byte = 0; byte < 256; ++byte)
          if (part[rows[r][byte]] != part[rows[s][byte]]) return false;
        return true;
      };
      auto it = std::ranges::find_if(representatives, same);
      finer[s] = static_cast<uint16_t>(it - representatives.begin());
      if (it == representatives.end()) representatives.push_back(s);
    }
    part = std::move(finer);
    if (representatives.size() == parts) {
      // Breadth-first numbering from the start; runs of bytes with one target are written once.
      if (parts == 1) return std::string(1, lexicon_.nullable(obligation) ? '\1' : '\0');
      std::vector<uint16_t> number(parts, UINT16_MAX), order{part[0]};
      number[part[0]] = 0;
      std::string out;
      for (std::size_t at = 0; at < order.size(); ++at) {
        std::size_t s = representatives[order[at]];
        out.push_back(lexicon_.nullable(states[s]) ? '\1' : '\0');
        for (unsigned byte = 0; byte < 256;) {
          uint16_t target = part[rows[s][byte]];
          unsigned last = byte;
          while (last < 255 && part[rows[s][last + 1]] == target) ++last;
          if (number[target] == UINT16_MAX) {
            number[target] = static_cast<uint16_t>(order.size());
            order.push_back(target);
          }
          out.push_back(static_cast<char>(last));
          out.push_back(static_cast<char>(number[target]));
          byte = last + 1;
        }
      }
      return out;
    }
    parts = representatives.size();
  }
}

bool Obligations::implies(Node stronger, Node weaker) {
  if (stronger == weaker || weaker == kAll || stronger == kNone) return true;
  if (stronger == kAll || weaker == kNone) return false;
  uint64_t key = pair_key(stronger, weaker);
  uint32_t known = implies_.find(key);
  if (known != PublishedMap::kUnknown) return known == 1;
  bool result = search_implies(stronger, weaker);
  effort_.spend(implies_.insert(key, result ? 1 : 0));
  return result;
}

// Looks for a text that meets one and not the other.
bool Obligations::search_implies(Node stronger, Node weaker) {
  std::vector<std::pair<Node, Node>> pairs{{stronger, weaker}};
  std::unordered_map<uint64_t, bool> seen{{pair_key(stronger, weaker), true}};
  for (std::size_t at = 0; at < pairs.size(); ++at) {
    auto [s, w] = pairs[at];
    if (w == kNone || (lexicon_.nullable(s) && !lexicon_.nullable(w))) return false;
    if (pairs.size() > kMaxComparedPairs) return false;
    effort_.spend(0);
    for (uint8_t byte : representatives(s, w)) {
      Node next_s = lexicon_.step(s, byte);
      if (next_s == kNone) continue;
      Node next_w = lexicon_.step(w, byte);
      if (next_w == kAll || next_w == next_s) continue;
      if (seen.emplace(pair_key(next_s, next_w), true).second) pairs.emplace_back(next_s, next_w);
    }
  }
  return true;
}

}  // namespace guiderail
