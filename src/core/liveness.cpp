#include "liveness.h"

#include <utility>

#include "munch.h"

namespace guiderail {

namespace {
constexpr std::size_t kMaxByteStates = 3'000;
}

Liveness::Liveness(Engine& engine, const Vocabulary& vocabulary) : engine_(engine), vocabulary_(vocabulary) {
  for (const TrieNode& child : vocabulary.trie().children(TokenTrie::kRoot))
    if (child.num_tokens) single_.add(child.byte);
}

Liveness::~Liveness() = default;

bool Liveness::live(StateId state) {
  if (state == kDead) return false;
  std::lock_guard lock(mutex_);
  if (auto it = known_.find(static_cast<uint32_t>(state)); it != known_.end()) return it->second;
  bool answer = found_in_single_bytes(state) || spelled_in_tokens(state);
  known_[static_cast<uint32_t>(state)] = answer;
  return answer;
}

// Breadth-first to an accepting or known live state; the whole path to it is live then.
bool Liveness::found_in_single_bytes(StateId start) {
  struct Visit {
    StateId state;
    std::size_t parent;
  };
  constexpr std::size_t kNoParent = static_cast<std::size_t>(-1);
  std::vector<Visit> queue{{start, kNoParent}};
  std::unordered_map<uint32_t, bool> seen{{static_cast<uint32_t>(start), true}};
  std::vector<StateId> next;
  for (std::size_t at = 0; at < queue.size() && at < kMaxByteStates; ++at) {
    StateId state = queue[at].state;
    auto known = known_.find(static_cast<uint32_t>(state));
    if (known != known_.end() && !known->second) continue;
    if (known != known_.end() || engine_.accepting(state)) {
      for (std::size_t v = at; v != kNoParent; v = queue[v].parent) known_[static_cast<uint32_t>(queue[v].state)] = true;
      return true;
    }
    next.clear();
    after_single_bytes(state, next);
    for (StateId s : next)
      if (seen.emplace(static_cast<uint32_t>(s), true).second) queue.push_back({s, at});
  }
  return false;
}

void Liveness::after_single_bytes(StateId state, std::vector<StateId>& out) {
  ByteSet bound;
  for (const Thread& t : engine_.threads(state)) bound = bound | engine_.first_bound(t);
  (bound & single_).for_each([&](uint8_t byte) {
    char c = static_cast<char>(byte);
    StateId next = engine_.advance(state, {&c, 1});
    if (next != kDead) out.push_back(next);
  });
  for (uint32_t i = 0; i < engine_.symbols().special_tokens().size(); ++i)
    if (vocabulary_.special(engine_.symbols().special_tokens()[i]) >= 0)
      if (StateId next = engine_.advance_special(state, i); next != kDead) out.push_back(next);
}

bool Liveness::spelled_in_tokens(StateId state) {
  Lexicon& lexicon = engine_.lexicon();
  if (token_sequences_ == kNone) {
    std::vector<std::pair<std::string_view, Node>> tokens;
    for (uint32_t id = 0; id < vocabulary_.size(); ++id)
      if (vocabulary_.is_text(id)) tokens.emplace_back(vocabulary_.token(id), kEpsilon);
    token_sequences_ = lexicon.repeat(lexicon.literals(std::move(tokens)), 0, kUnbounded);
    if (!engine_.viability())
      spelling_ = std::make_unique<MunchViability>(engine_.parser(), engine_.symbols(), kNone, engine_.limits().munch_states);
  }
  MunchViability& viability = spelling_ ? *spelling_ : *engine_.viability();
  for (Thread t : engine_.threads(state)) {
    t.obligation = lexicon.both({t.obligation, token_sequences_});
    if (t.obligation == kNone || !lexicon.alive(t.obligation)) continue;
    if (t.at_boundary() ? viability.viable(t.parser, t.obligation) : viability.viable(t)) return true;
  }
  return false;
}

}  // namespace guiderail
