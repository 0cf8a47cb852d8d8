#include "core/closing/completion.h"

#include <algorithm>
#include <map>
#include <unordered_map>
#include <utility>

#include "core/errors.h"
#include "core/growth.h"

namespace guiderail {

namespace {

// The bytes that are tokens of their own, those first of which the longest runs are one token.
std::vector<uint8_t> bytes_by_preference(const Vocabulary& vocabulary) {
  const TokenTrie& trie = vocabulary.trie();
  std::vector<std::pair<uint32_t, uint8_t>> runs;
  for (const TrieNode& child : trie.children(TokenTrie::kRoot)) {
    if (!child.num_tokens) continue;
    uint32_t longest = 1, length = 1;
    for (uint32_t at = trie.child(TokenTrie::kRoot, child.byte); (at = trie.child(at, child.byte)) != 0;)
      if (++length; trie.node(at).num_tokens) longest = length;
    runs.emplace_back(longest, child.byte);
  }
  std::ranges::stable_sort(runs, [](const auto& a, const auto& b) { return a.first > b.first; });
  std::vector<uint8_t> bytes;
  for (auto [length, byte] : runs) bytes.push_back(byte);
  return bytes;
}

std::vector<int64_t> special_ids(Engine& engine, const Vocabulary& vocabulary) {
  std::vector<int64_t> ids;
  for (const std::string& text : engine.symbols().special_tokens()) ids.push_back(vocabulary.special(text));
  return ids;
}

std::vector<bool> known(const std::vector<int64_t>& ids) {
  std::vector<bool> result;
  for (int64_t id : ids) result.push_back(id >= 0);
  return result;
}

}  // namespace

bool Completion::Lengths::narrows(uint32_t room, uint32_t planned) const {
  if (longest < room) return false;
  if (usual && *usual >= room) return true;  // of two tokens or more
  for (const Group& group : groups) {
    if (group.length < room) break;
    if (group.tokens.size() > 1 || group.tokens[0] != planned) return true;
  }
  return false;
}

uint32_t Completion::Lengths::least_room() const {
  uint32_t shortest = usual.value_or(kUnknown);
  if (!groups.empty()) shortest = std::min(shortest, groups.back().length);
  return shortest == kUnknown ? kUnknown : shortest + 1;
}

Completion::Store::~Store() {
  for (std::size_t i = 0; i < plans.size(); ++i) delete plans[i].load(std::memory_order_relaxed);
  for (std::size_t i = 0; i < lengths.size(); ++i) delete lengths[i].load(std::memory_order_relaxed);
}

Completion::Completion(Engine& engine, const Vocabulary& vocabulary, const Vocabulary* first, Liveness* liveness)
    : engine_(engine), vocabulary_(vocabulary), first_(first), liveness_(liveness),
      special_(special_ids(engine, vocabulary)), shortest_(engine, bytes_by_preference(vocabulary), known(special_)) {}

Completion::~Completion() = default;

template <typename T>
const T& Completion::publish(StableVector<std::atomic<const T*>>& table, StateId state, std::unique_ptr<T> value,
                             std::size_t bytes) {
  std::lock_guard lock(mutex_);
  std::size_t index = static_cast<std::size_t>(state);
  while (table.size() <= index) table.emplace_back(nullptr);
  if (const T* there = table[index].load(std::memory_order_acquire)) return *there;
  bytes_.fetch_add(bytes, std::memory_order_relaxed);
  growth_of_this_thread += bytes;
  table[index].store(value.get(), std::memory_order_release);
  return *value.release();
}

// --- plans ----------------------------------------------------------------------------------------------------------

Completion::Plan Completion::plan(StateId state, bool first) {
  first = first && first_;
  auto& table = store(first).plans;
  std::size_t index = static_cast<std::size_t>(state);
  if (index < table.size())
    if (const Plan* there = table[index].load(std::memory_order_acquire)) return *there;
  Plan fresh = make_plan(state, first);
  std::size_t bytes = sizeof(Plan) + 64 + (fresh ? fresh->size() * sizeof(uint32_t) : 0);
  return publish(table, state, std::make_unique<Plan>(std::move(fresh)), bytes);
}

Completion::Plan Completion::make_plan(StateId state, bool first) {
  if (bytes_used() > engine_.limits().mask_bytes)
    throw LimitError("mask_bytes", "known completions of one compiled grammar fill the memory budget of its masks");
  std::optional<std::vector<ShortestText::Piece>> text;
  {
    Lexicon::Budget budget(engine_.limits().lexer_states_per_request);
    std::lock_guard lock(engine_.parser().mutex());
    text = shortest_.find(state);
  }
  if (text)
    if (Plan whole = cut(*text, first)) return whole;
  if (!first) return nullptr;
  // The text cannot begin with one of its own bytes here: the best of what can.
  Plan best;
  uint32_t begin = kNoToken;
  for (const auto& [next, tokens] : successors(state, true)) {
    Plan rest = plan(next, false);
    if (!rest || (best && best->size() <= rest->size())) continue;
    best = rest;
    begin = tokens.front();
  }
  if (!best) return nullptr;
  std::vector<uint32_t> whole{begin};
  whole.insert(whole.end(), best->begin(), best->end());
  return std::make_shared<const std::vector<uint32_t>>(std::move(whole));
}

// The fewest tokens that write a text, from its end: fewest[i] = 1 + the least fewest[j] with a token from i to j.
Completion::Plan Completion::cut(const std::vector<ShortestText::Piece>& text, bool first) const {
  struct Step {
    uint32_t count = kUnknown, token = kNoToken;
    std::size_t next = 0;
  };
  std::vector<Step> steps(text.size() + 1);
  steps[text.size()].count = 0;
  for (std::size_t i = text.size(); i-- > 0;) {
    Step& step = steps[i];
    if (text[i] >= ShortestText::kSpecial) {
      if (steps[i + 1].count != kUnknown)
        step = {steps[i + 1].count + 1, static_cast<uint32_t>(special_[text[i] - ShortestText::kSpecial]), i + 1};
      continue;
    }
    const TokenTrie& trie = (first && i == 0 ? *first_ : vocabulary_).trie();
    uint32_t at = TokenTrie::kRoot;
    for (std::size_t j = i; j < text.size() && text[j] < ShortestText::kSpecial;) {
      at = trie.child(at, static_cast<uint8_t>(text[j++]));
      if (!at) break;
      if (trie.node(at).num_tokens && steps[j].count != kUnknown && steps[j].count + 1 < step.count)
        step = {steps[j].count + 1, trie.tokens(at).front(), j};
    }
  }
  if (steps[0].count == kUnknown) return nullptr;
  std::vector<uint32_t> tokens;
  for (std::size_t i = 0; i < text.size(); i = steps[i].next) tokens.push_back(steps[i].token);
  return std::make_shared<const std::vector<uint32_t>>(std::move(tokens));
}

// --- estimates ------------------------------------------------------------------------------------------------------

std::optional<uint32_t> Completion::read(const StableVector<std::atomic<uint32_t>>& table, StateId state) {
  std::size_t index = static_cast<std::size_t>(state);
  uint32_t value = index < table.size() ? table[index].load(std::memory_order_acquire) : 0;
  return value ? std::optional(value - 1) : std::nullopt;
}

void Completion::write(StableVector<std::atomic<uint32_t>>& table, StateId state, uint32_t value) {
  std::lock_guard lock(mutex_);
  std::size_t index = static_cast<std::size_t>(state);
  while (table.size() <= index) {
    table.emplace_back(0u);
    bytes_.fetch_add(sizeof(uint32_t), std::memory_order_relaxed);
    growth_of_this_thread += sizeof(uint32_t);
  }
  table[index].store(std::min(value, kTooLong) + 1, std::memory_order_release);
}

uint32_t Completion::cost(StateId state, bool first) {
  // A first token may be written otherwise than the same bytes later.
  if (!can_estimate() || (first && first_)) return kUnknown;
  auto& costs = main_store_.costs;
  std::optional<uint32_t> known = read(costs, state);
  if (!known) {
    Lexicon::Budget budget(engine_.limits().lexer_states_per_request);
    std::lock_guard lock(engine_.parser().mutex());
    known = shortest_.bound(engine_.threads(state));
    write(costs, state, *known);
  }
  return *known >= kTooLong ? kUnknown : *known;
}

std::optional<uint32_t> Completion::known_most_after(StateId state, bool first) const {
  std::optional<uint32_t> known = read(store(first).most_after, state);
  return known && *known >= kTooLong ? kUnknown : known;
}

uint32_t Completion::most_after(StateId state, bool first, const Reach& reach) {
  uint32_t most = can_estimate() ? 0 : kUnknown;
  if (can_estimate()) {
    std::lock_guard lock(engine_.parser().mutex());
    for (const Reach::Kept& kept : reach.kept())
      if (most != kUnknown) most = std::max(most, shortest_.bound(kept));
    for (std::size_t i = 0; i < reach.size() && most != kUnknown; ++i)
      most = std::max(most, shortest_.bound(reach.set(i)));
  }
  write(store(first).most_after, state, most);
  return most >= kTooLong ? kUnknown : most;
}

uint32_t Completion::most_after(StateId state, bool first, uint32_t of_general) {
  write(store(first).most_after, state, of_general);
  return of_general >= kTooLong ? kUnknown : of_general;
}

// --- lengths --------------------------------------------------------------------------------------------------------

// The distinct states after one token, each with the tokens that lead there.
std::vector<std::pair<StateId, std::vector<uint32_t>>> Completion::successors(StateId state, bool first) {
  const TokenTrie& trie = (first && first_ ? *first_ : vocabulary_).trie();
  std::vector<std::pair<StateId, std::vector<uint32_t>>> found;
  std::unordered_map<uint32_t, std::size_t> numbers;
  constexpr std::size_t kOpen = SIZE_MAX, kRefused = SIZE_MAX - 1;
  auto number_of = [&](StateId next) {
    auto [it, fresh] = numbers.try_emplace(static_cast<uint32_t>(next), found.size());
    if (fresh) {
      if (liveness_ && !liveness_->live(next))
        it->second = kRefused;
      else
        found.push_back({next, {}});
    }
    return it->second;
  };
  // Depth first along live branches; threads of a place are stack[begin .. end).
  struct Frame {
    uint32_t place, child;
    std::size_t begin, end, number;
    ByteSet bytes;
  };
  std::vector<Thread> stack(engine_.threads(state).begin(), engine_.threads(state).end()), out;
  std::vector<Frame> frames;
  auto enter = [&](uint32_t place, std::size_t begin, std::size_t number) {
    ByteSet bytes;
    for (std::size_t i = begin; i < stack.size(); ++i) bytes = bytes | engine_.first_bound(stack[i]);
    frames.push_back({place, trie.node(place).first_child, begin, stack.size(), number, bytes});
  };
  enter(TokenTrie::kRoot, 0, kOpen);
  while (!frames.empty()) {
    Frame& f = frames.back();
    if (f.child == trie.node(f.place).first_child + trie.node(f.place).num_children) {
      stack.resize(f.begin);
      frames.pop_back();
      continue;
    }
    uint32_t child = f.child++;
    const TrieNode& node = trie.node(child);
    if (!f.bytes.has(node.byte)) continue;
    out.clear();
    engine_.step({stack.data() + f.begin, f.end - f.begin}, node.byte, out);
    if (out.empty()) continue;
    engine_.merge(out);
    // Most bytes of a string or a word leave everything as it was.
    bool same = std::ranges::equal(std::span(stack.data() + f.begin, f.end - f.begin), out);
    std::size_t number = same ? f.number : kOpen;
    if (node.num_tokens) {
      if (number == kOpen) {
        std::vector<Thread> threads(out);
        number = number_of(engine_.intern(threads));
        if (same) f.number = number;
      }
      if (number != kRefused)
        found[number].second.insert(found[number].second.end(), trie.tokens(child).begin(), trie.tokens(child).end());
    }
    if (node.num_children) {
      std::size_t begin = stack.size();
      stack.insert(stack.end(), out.begin(), out.end());
      enter(child, begin, number);
    }
  }
  for (const Thread& t : engine_.threads(state)) {
    if (!t.at_boundary()) continue;
    const Parser::Lookahead& look = engine_.parser().lookahead(t.parser);
    for (uint32_t i : look.specials) {
      int64_t token = special_[look.expected[i].tag];
      StateId next = token < 0 ? kDead : engine_.advance_special(state, look.expected[i].tag);
      if (next == kDead) continue;
      std::size_t number = number_of(next);
      if (number == kRefused) continue;
      auto& tokens = found[number].second;
      if (std::ranges::find(tokens, static_cast<uint32_t>(token)) == tokens.end())
        tokens.push_back(static_cast<uint32_t>(token));
    }
  }
  return found;
}

const Completion::Lengths* Completion::known_lengths(StateId state, bool first) const {
  const auto& table = store(first).lengths;
  std::size_t index = static_cast<std::size_t>(state);
  return index < table.size() ? table[index].load(std::memory_order_acquire) : nullptr;
}

const Completion::Lengths& Completion::lengths(StateId state, bool first) {
  if (const Lengths* there = known_lengths(state, first)) return *there;
  if (bytes_used() > engine_.limits().mask_bytes)
    throw LimitError("mask_bytes", "known completions of one compiled grammar fill the memory budget of its masks");
  Lexicon::Budget budget(engine_.limits().lexer_states_per_request);
  std::map<uint32_t, std::vector<uint32_t>, std::greater<>> by_length;
  // Names that are being read would make a state of every token: which one it is matters to few.
  StateId general = engine_.forgetful(state);
  const Vocabulary& vocabulary = first && first_ ? *first_ : vocabulary_;
  for (auto& [next, tokens] : successors(general, first)) {
    // A token that both ends the text and is named by the grammar may always end it.
    if (engine_.accepting(state)) std::erase_if(tokens, [this](uint32_t token) { return vocabulary_.is_eos(token); });
    if (tokens.empty()) continue;
    Plan rest = plan(next, false);
    if (general == state || rest) {
      auto& all = by_length[rest ? static_cast<uint32_t>(rest->size()) : kUnknown];
      all.insert(all.end(), tokens.begin(), tokens.end());
      continue;
    }
    for (uint32_t token : tokens) {
      StateId own = vocabulary.is_text(token) ? engine_.advance(state, vocabulary.token(token)) : next;
      if (own == kDead) continue;
      rest = plan(own, false);
      by_length[rest ? static_cast<uint32_t>(rest->size()) : kUnknown].push_back(token);
    }
  }
  auto fresh = std::make_unique<Lengths>();
  std::size_t bytes = sizeof(Lengths), most = 1;
  const std::vector<uint32_t>* usual = nullptr;
  for (const auto& [length, tokens] : by_length)
    if (tokens.size() > most) {
      most = tokens.size();
      usual = &tokens;
      fresh->usual = length;
    }
  for (auto& [length, tokens] : by_length) {
    fresh->longest = std::max(fresh->longest, length);
    if (&tokens == usual) continue;
    bytes += sizeof(Lengths::Group) + tokens.size() * sizeof(uint32_t);
    fresh->groups.push_back({length, std::move(tokens)});
  }
  return publish(store(first).lengths, state, std::move(fresh), bytes);
}

void Completion::narrow(const Lengths& lengths, bool accepting, uint32_t room, uint32_t planned,
                        uint32_t* words) const {
  if (lengths.longest < room) return;
  auto set = [words](uint32_t token) { words[token >> 5] |= uint32_t{1} << (token & 31); };
  if (!lengths.usual || *lengths.usual < room) {
    for (const Lengths::Group& group : lengths.groups) {
      if (group.length < room) break;
      for (uint32_t token : group.tokens) words[token >> 5] &= ~(uint32_t{1} << (token & 31));
    }
  } else {
    std::fill(words, words + vocabulary_.num_words(), 0u);
    for (const Lengths::Group& group : lengths.groups)
      if (group.length < room)
        for (uint32_t token : group.tokens) set(token);
    if (accepting)
      for (uint32_t eos : vocabulary_.eos_token_ids()) set(eos);
  }
  if (planned != kNoToken) set(planned);
}

}  // namespace guiderail
