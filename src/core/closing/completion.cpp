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

constexpr std::size_t kMaxAsked = 4'096;  // tokens, of a state, whose texts decide

std::size_t bytes_of(const Completion::Plan& plan) { return 64 + (plan ? plan->size() * sizeof(uint32_t) : 0); }

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
  for (std::size_t i = 0; i < textless.size(); ++i) delete textless[i].load(std::memory_order_relaxed);
  for (std::size_t i = 0; i < shared.size(); ++i) delete shared[i].load(std::memory_order_relaxed);
  for (std::size_t i = 0; i < named.size(); ++i) delete named[i].load(std::memory_order_relaxed);
  for (std::size_t i = 0; i < lengths.size(); ++i) delete lengths[i].load(std::memory_order_relaxed);
}

Completion::Completion(Engine& engine, const Vocabulary& vocabulary, const Vocabulary* first, After after)
    : engine_(engine), vocabulary_(vocabulary), first_(first), after_(std::move(after)),
      special_(special_ids(engine, vocabulary)), shortest_(engine, bytes_by_preference(vocabulary), known(special_)) {}

Completion::~Completion() = default;

template <typename T>
const T* Completion::look_up(const StableVector<std::atomic<const T*>>& table, StateId state) {
  std::size_t index = static_cast<std::size_t>(state);
  return index < table.size() ? table[index].load(std::memory_order_acquire) : nullptr;
}

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
  if (const Plan* there = look_up(table, state)) return *there;
  StateId textless = first ? state : without_texts(state);
  Plan fresh;
  if (textless == state) {
    fresh = nameless_plan(state, first);
  } else if (const Plan* there = look_up(main_store_.textless, textless)) {
    fresh = *there;
  } else {
    fresh = nameless_plan(state, first);
    fresh = publish(main_store_.textless, textless, std::make_unique<Plan>(fresh), sizeof(Plan) + bytes_of(fresh));
  }
  std::size_t bytes = sizeof(Plan) + bytes_of(fresh);
  return publish(table, state, std::make_unique<Plan>(std::move(fresh)), bytes);
}

StateId Completion::without_texts(StateId state) {
  if (!can_estimate()) return state;
  StateId textless = engine_.textless(state);
  if (textless == state) return state;
  Lexicon::Budget budget(engine_.limits().lexer_states_per_request);
  std::lock_guard lock(engine_.parser().mutex());
  return shortest_.bound(engine_.threads(textless)) == kUnknown ? state : textless;
}

Completion::Plan Completion::nameless_plan(StateId state, bool first) {
  StateId nameless = first ? state : engine_.untracked(state);
  return nameless != state ? shared_plan(state, nameless) : make_plan(state, first);
}

Completion::Plan Completion::shared_plan(StateId state, StateId nameless) {
  const Shared* shared = look_up(main_store_.shared, nameless);
  if (shared && shared->any) return shared->plan;
  StateId unnamed = engine_.unnamed(state);
  if (shared && unnamed != state)
    if (const Named* named = look_up(main_store_.named, unnamed))
      return named->plan && !repeats(state, named->names) ? named->plan : make_plan(state, false);
  Plan mine = make_plan(state, false);
  std::optional<Names> names = mine ? names_of(state, *mine) : std::nullopt;
  if (!shared) {
    auto fresh = std::make_unique<Shared>(Shared{mine, names && names->further.empty()});
    shared = &publish(main_store_.shared, nameless, std::move(fresh), sizeof(Shared) + bytes_of(mine));
    if (shared->any) return shared->plan;
  }
  if (unnamed == state || !names) return mine;
  std::size_t bytes = sizeof(Named) + bytes_of(mine) + (names->rest ? names->rest->size() : 0);
  for (const std::string& name : names->further) bytes += sizeof(std::string) + name.size();
  const Named& named =
      publish(main_store_.named, unnamed, std::make_unique<Named>(Named{mine, std::move(*names)}), bytes);
  return named.plan == mine || repeats(state, named.names) ? mine : named.plan;
}

Completion::Plan Completion::plan_within(StateId state, bool first, uint32_t room) {
  Plan kept = plan(state, first);
  if (kept && kept->size() <= room) return kept;
  Plan fresh = make_plan(state, first && first_);
  return fresh && (!kept || fresh->size() < kept->size()) ? fresh : kept;
}

// Nothing if that is not known.
std::optional<Completion::Names> Completion::names_of(StateId state, const std::vector<uint32_t>& plan) {
  NameScopes& scopes = engine_.scopes();
  auto depth = [&](uint32_t scope) {
    uint32_t depth = 0;
    for (; NameScopes::known(scope); scope = scopes[scope].parent) ++depth;
    return depth;
  };
  Names names;
  std::vector<Thread> now(engine_.threads(state).begin(), engine_.threads(state).end()), next;
  // A lexeme that may be a name: where it began, what has been written of it, and whether it is the one that was begun before.
  struct Reading {
    uint32_t scope;
    std::string text;
    bool before;
    RuleProvider* provider;
  };
  std::optional<Reading> reading;
  uint32_t open = UINT32_MAX;  // the depth of the innermost scope that is still open of those of the beginning
  auto look_at = [&](bool before, std::string text) {
    bool in_name = false;
    for (const Thread& t : now) {
      uint32_t scope = NameScopes::in_name(t.scope) ? scopes.name(t.scope).second : t.scope;
      uint32_t deep = depth(scope);
      if (NameScopes::in_name(t.scope)) {
        in_name = true;
        if (!reading && (before || deep <= open))
          reading = Reading{scope, text, before, engine_.symbols().name_info(t.group)->provider};
      } else if (reading && scope != reading->scope && deep == depth(reading->scope)) {
        // Its scope knows the name now.
        if (reading->before)
          names.rest = std::move(reading->text);
        else
          names.further.push_back(reading->provider->name_of(reading->text));
        reading.reset();
      }
      if (!NameScopes::in_name(t.scope) || before) open = std::min(open, deep);
    }
    if (!in_name) reading.reset();
  };
  look_at(true, "");
  for (uint32_t token : plan) {
    if (!vocabulary_.is_text(token)) return std::nullopt;
    for (char byte : vocabulary_.token(token)) {
      next.clear();
      engine_.step(now, static_cast<uint8_t>(byte), next);
      engine_.merge(next);
      now.swap(next);
      if (now.empty()) return std::nullopt;
      if (reading) reading->text.push_back(byte);
      look_at(false, {byte});
    }
  }
  return names;
}

// Is the name that is being read, once it has ended so, one of those that follow?
bool Completion::repeats(StateId state, const Names& names) {
  return names.rest && std::ranges::any_of(engine_.threads(state), [&](const Thread& t) {
           if (!NameScopes::in_name(t.scope)) return false;
           std::string name = engine_.symbols().name_info(t.group)->provider->name_of(
               engine_.scopes().name(t.scope).first + *names.rest);
           return std::ranges::find(names.further, name) != names.further.end();
         });
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
  for (const Successor& successor : successors(state, true)) {
    Plan rest = plan(successor.next, false);
    if (!rest || (best && best->size() <= rest->size())) continue;
    best = rest;
    begin = successor.tokens.front();
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
  auto of_plan = [](const Plan& plan) { return plan ? static_cast<uint32_t>(plan->size()) : kUnknown; };
  if (const Plan* made = look_up(main_store_.plans, state)) return of_plan(*made);
  auto& costs = main_store_.costs;
  std::optional<uint32_t> cost = read(costs, state);
  if (!cost) {
    StateId nameless = engine_.untracked(state);
    if (nameless != state)
      if (const Shared* shared = look_up(main_store_.shared, nameless))
        return shared->any ? of_plan(shared->plan) : kUnknown;
    cost = read(costs, nameless);
    if (!cost) {
      Lexicon::Budget budget(engine_.limits().lexer_states_per_request);
      std::lock_guard lock(engine_.parser().mutex());
      cost = shortest_.bound(engine_.threads(state));
      write(costs, nameless, *cost);
    }
    if (nameless != state) write(costs, state, *cost);
  }
  return *cost >= kTooLong ? kUnknown : *cost;
}

std::optional<uint32_t> Completion::known_most_after(StateId state, bool first) const {
  std::optional<uint32_t> known = read(store(first).most_after, state);
  return known && *known >= kTooLong ? kUnknown : known;
}

uint32_t Completion::most_after(StateId state, bool first, const Reach& reach) {
  uint32_t most = can_estimate() ? 0 : kUnknown;
  std::vector<uint32_t> asked;
  if (can_estimate()) {
    std::lock_guard lock(engine_.parser().mutex());
    for (const Reach::Kept& kept : reach.kept())
      if (most != kUnknown) most = std::max(most, shortest_.bound(kept));
    for (std::size_t i = 0; i < reach.size() && most != kUnknown; ++i) {
      uint32_t here = shortest_.bound(reach.set(i));
      if (here == kUnknown && !reach.tokens(i).empty())
        asked.insert(asked.end(), reach.tokens(i).begin(), reach.tokens(i).end());
      else
        most = std::max(most, here);
    }
  }
  std::vector<Reach::Name> names;
  if (most != kUnknown) {
    std::lock_guard lock(engine_.parser().mutex());
    names = open_names(reach);
  }
  if (!names.empty()) {
    std::lock_guard lock(mutex_);
    bytes_.fetch_add(64 + names.size() * sizeof(Reach::Name), std::memory_order_relaxed);
    growth_of_this_thread += 64 + names.size() * sizeof(Reach::Name);
    store(first).names.try_emplace(static_cast<uint32_t>(state), std::move(names));
  }
  if (most != kUnknown && !asked.empty()) {
    if (std::ranges::all_of(engine_.threads(state), &Engine::well_known)) {
      most = std::max(most, most_after_each(state, first, asked));
    } else {
      std::lock_guard lock(mutex_);
      bytes_.fetch_add(64 + asked.size() * sizeof(uint32_t), std::memory_order_relaxed);
      growth_of_this_thread += 64 + asked.size() * sizeof(uint32_t);
      store(first).asked.try_emplace(static_cast<uint32_t>(state), std::move(asked));
    }
  }
  write(store(first).most_after, state, most);
  return most >= kTooLong ? kUnknown : most;
}

uint32_t Completion::most_after(StateId state, bool first, StateId general) {
  uint32_t most = *known_most_after(general, first);
  std::vector<Reach::Name> names;
  std::vector<uint32_t> asked;
  {
    std::lock_guard lock(mutex_);
    const auto& known = store(first).names;
    if (auto found = known.find(static_cast<uint32_t>(general)); found != known.end()) names = found->second;
    const auto& tokens = store(first).asked;
    if (auto found = tokens.find(static_cast<uint32_t>(general)); found != tokens.end()) asked = found->second;
  }
  if (uint32_t more = most == kUnknown ? 0 : more_than_general(state, names); more < kTooLong - most)
    most += more;
  else
    most = kUnknown;
  if (most != kUnknown) most = std::max(most, most_after_each(state, first, asked));
  write(store(first).most_after, state, most);
  return most >= kTooLong ? kUnknown : most;
}

uint32_t Completion::most_after_each(StateId state, bool first, std::span<const uint32_t> tokens) {
  if (tokens.size() > kMaxAsked) return kUnknown;
  uint32_t most = 0;
  for (uint32_t token : tokens) {
    StateId next = after_(state, token, first);
    if (next == kDead) continue;
    uint32_t here = cost(next, false);
    if (here == kUnknown)
      if (Plan rest = plan(next, false)) here = static_cast<uint32_t>(rest->size());
    most = std::max(most, here);
    if (most == kUnknown) break;
  }
  return most;
}

// The names that may be begun after a token in scopes that are not known: the shortest of them may be one that the scope has.
std::vector<Reach::Name> Completion::open_names(const Reach& reach) {
  std::vector<Reach::Name> names;
  auto look_at = [&](const Thread& t) {
    if (t.at_boundary() || (t.scope != NameScopes::kSomeNamed && t.scope != NameScopes::kDoubtful)) return;
    if (!engine_.symbols().name_info(t.group)) return;
    const Parser::Lookahead& look = engine_.parser().lookahead(t.parser);
    auto [expected, last] = std::ranges::equal_range(look.expected, t.group, {}, &Parser::Expected::start);
    for (; expected != last; ++expected)
      if (Reach::Name name{t.group, expected->tag}; std::ranges::find(names, name) == names.end())
        names.push_back(name);
  };
  for (const Reach::Kept& kept : reach.kept()) look_at(kept.thread);
  for (std::size_t i = 0; i < reach.size(); ++i) std::ranges::for_each(reach.set(i), look_at);
  return names;
}

// By how much the names that the state's scopes have had can make a completion longer than one that does not know them.
uint32_t Completion::more_than_general(StateId state, std::span<const Reach::Name> names) {
  if (names.empty()) return 0;
  Lexicon::Budget budget(engine_.limits().lexer_states_per_request);
  std::lock_guard lock(engine_.parser().mutex());
  NameScopes& scopes = engine_.scopes();
  uint32_t more = 0;
  for (const Thread& t : engine_.threads(state)) {
    uint32_t scope = NameScopes::in_name(t.scope) ? scopes.name(t.scope).second : t.scope;
    for (; NameScopes::known(scope); scope = scopes[scope].parent)
      if (Node seen = scopes[scope].seen; seen != kNone)
        for (const Reach::Name& name : names) more = std::max(more, shortest_.longest_rest(name, seen));
  }
  return more;
}

// --- lengths --------------------------------------------------------------------------------------------------------

std::vector<Completion::Successor> Completion::successors(StateId state, bool first) {
  const TokenTrie& trie = (first && first_ ? *first_ : vocabulary_).trie();
  std::vector<Successor> found;
  std::unordered_map<uint64_t, std::size_t> numbers;
  constexpr std::size_t kOpen = SIZE_MAX;
  auto number_of = [&](StateId next, Way way) {
    auto [it, fresh] = numbers.try_emplace(
        uint64_t{static_cast<uint32_t>(next)} << 2 | (way.ended ? 2 : 0) | (way.named ? 1 : 0), found.size());
    if (fresh) found.push_back({next, way, {}});
    return it->second;
  };
  // Scopes that are not known well are those of names that were begun: is one over?
  auto over = [&](const Thread& t) {
    return NameScopes::is_some(t.scope) && (t.at_boundary() || !engine_.symbols().name_info(t.group));
  };
  // Depth first along live branches; threads of a place are stack[begin .. end).
  struct Frame {
    uint32_t place, child;
    std::size_t begin, end, number;
    ByteSet bytes;
    Way way;
  };
  std::vector<Thread> stack(engine_.threads(state).begin(), engine_.threads(state).end()), out;
  std::vector<Frame> frames;
  auto enter = [&](uint32_t place, std::size_t begin, std::size_t number, Way way) {
    ByteSet bytes;
    for (std::size_t i = begin; i < stack.size(); ++i) bytes = bytes | engine_.first_bound(stack[i]);
    frames.push_back({place, trie.node(place).first_child, begin, stack.size(), number, bytes, way});
  };
  enter(TokenTrie::kRoot, 0, kOpen, {});
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
    std::size_t number = same ? f.number : kOpen;  // then the way is the same as well
    Way way = f.way;
    if (!same) {
      way.ended = way.ended || std::ranges::any_of(out, &Thread::at_boundary);
      way.named = way.named || std::ranges::any_of(out, over);
    }
    if (node.num_tokens) {
      if (number == kOpen) {
        std::vector<Thread> threads(out);
        number = number_of(engine_.intern(threads), way);
        if (same) f.number = number;
      }
      auto& tokens = found[number].tokens;
      tokens.insert(tokens.end(), trie.tokens(child).begin(), trie.tokens(child).end());
    }
    if (node.num_children) {
      std::size_t begin = stack.size();
      stack.insert(stack.end(), out.begin(), out.end());
      enter(child, begin, number, way);
    }
  }
  for (const Thread& t : engine_.threads(state)) {
    if (!t.at_boundary()) continue;
    const Parser::Lookahead& look = engine_.parser().lookahead(t.parser);
    for (uint32_t i : look.specials) {
      int64_t token = special_[look.expected[i].tag];
      StateId next = token < 0 ? kDead : engine_.advance_special(state, look.expected[i].tag);
      if (next == kDead) continue;
      auto& tokens = found[number_of(next, {true, false})].tokens;
      if (std::ranges::find(tokens, static_cast<uint32_t>(token)) == tokens.end())
        tokens.push_back(static_cast<uint32_t>(token));
    }
  }
  return found;
}

const Completion::Lengths* Completion::known_lengths(StateId state, bool first) const {
  return look_up(store(first).lengths, state);
}

std::vector<uint32_t> Completion::to_be_asked(Successor& successor, StateId state, bool first) {
  std::span<const Thread> threads = engine_.threads(successor.next);
  if (std::ranges::any_of(threads, [](const Thread& t) { return is_some_text(t.text); })) {
    std::lock_guard lock(engine_.parser().mutex());
    if (shortest_.bound(threads) == kUnknown) return std::exchange(successor.tokens, {});
  }
  auto some = [](const Thread& t) { return NameScopes::is_some(t.scope); };
  if (std::ranges::none_of(threads, some)) return {};
  auto doubtful = [](const Thread& t) { return t.scope == NameScopes::kSomeNamed || t.scope == NameScopes::kDoubtful; };
  StateId one = kDead;
  if (!successor.way.named && std::ranges::none_of(threads, doubtful))
    one = after_(state, successor.tokens.front(), first);
  if (one == kDead) return std::exchange(successor.tokens, {});
  // All tokens go on in a name.
  plan(one, false);
  const Shared* shared = look_up(main_store_.shared, engine_.untracked(one));
  if (shared && shared->any) return {};
  const Named* named = look_up(main_store_.named, engine_.unnamed(one));
  std::span<const Thread> from = engine_.threads(state);
  auto in_name = [](const Thread& t) { return NameScopes::in_name(t.scope); };
  auto reading = std::ranges::find_if(from, in_name);
  if (!named || successor.way.ended || reading == from.end() || std::ranges::count_if(from, in_name) != 1)
    return std::exchange(successor.tokens, {});
  // Without a backslash names are as long as what is written of them, apart from what stands around all of them alike.
  const std::string text = engine_.scopes().name(reading->scope).first;
  const Names& names = named->names;
  if (!names.rest) return {};
  if (text.find('\\') != std::string::npos) return std::exchange(successor.tokens, {});
  RuleProvider& provider = *engine_.symbols().name_info(reading->group)->provider;
  std::vector<uint32_t> ask, rest;
  std::optional<std::size_t> around;
  for (uint32_t token : successor.tokens) {
    std::string_view more = vocabulary_.token(token);
    std::size_t whole = text.size() + more.size() + names.rest->size();
    bool plain = more.find('\\') == std::string_view::npos;
    if (plain && !around) around = whole - provider.name_of(text + std::string(more) + *names.rest).size();
    bool may_repeat = !plain || std::ranges::any_of(names.further, [&](const std::string& name) {
      return name.size() + *around == whole;
    });
    (may_repeat ? ask : rest).push_back(token);
  }
  successor.tokens = std::move(rest);
  return ask;
}

const Completion::Lengths& Completion::lengths(StateId state, bool first) {
  if (const Lengths* there = known_lengths(state, first)) return *there;
  if (bytes_used() > engine_.limits().mask_bytes)
    throw LimitError("mask_bytes", "known completions of one compiled grammar fill the memory budget of its masks");
  Lexicon::Budget budget(engine_.limits().lexer_states_per_request);
  std::map<uint32_t, std::vector<uint32_t>, std::greater<>> by_length;
  auto length = [&](uint32_t token) -> std::optional<uint32_t> {
    StateId next = after_(state, token, first);
    if (next == kDead) return std::nullopt;
    Plan rest = plan(next, false);
    return rest ? static_cast<uint32_t>(rest->size()) : kUnknown;
  };
  auto is_special = [&](uint32_t token) { return std::ranges::find(special_, int64_t{token}) != special_.end(); };
  // Names and captured texts that are being read would make a state of every token.
  StateId known = engine_.forgetful(state);
  for (Successor& successor : successors(can_estimate() ? engine_.textless(known) : known, first)) {
    std::vector<uint32_t>& tokens = successor.tokens;
    // A token that both ends the text and is named by the grammar may always end it.
    if (engine_.accepting(state)) std::erase_if(tokens, [this](uint32_t token) { return vocabulary_.is_eos(token); });
    // A token of text that is also one symbol leads to both.
    std::erase_if(tokens, [&](uint32_t token) {
      if (!is_special(token)) return false;
      if (std::optional<uint32_t> own = length(token)) by_length[*own].push_back(token);
      return true;
    });
    if (tokens.empty()) continue;
    for (uint32_t token : to_be_asked(successor, state, first))
      if (std::optional<uint32_t> own = length(token)) by_length[*own].push_back(token);
    if (tokens.empty()) continue;
    if (std::optional<uint32_t> all = length(tokens.front()))
      by_length[*all].insert(by_length[*all].end(), tokens.begin(), tokens.end());
  }
  for (auto& [length, tokens] : by_length) {
    std::ranges::sort(tokens);
    tokens.erase(std::ranges::unique(tokens).begin(), tokens.end());
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
    std::vector<uint32_t> fits(vocabulary_.num_words(), 0);
    auto fit = [&fits](uint32_t token) { fits[token >> 5] |= uint32_t{1} << (token & 31); };
    for (const Lengths::Group& group : lengths.groups)
      if (group.length < room) std::ranges::for_each(group.tokens, fit);
    if (accepting) std::ranges::for_each(vocabulary_.eos_token_ids(), fit);
    for (std::size_t i = 0; i < fits.size(); ++i) words[i] &= fits[i];
  }
  if (planned != kNoToken) set(planned);
}

}  // namespace guiderail
