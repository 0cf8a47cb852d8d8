#include "core/masks/token_readings.h"

#include <algorithm>
#include <array>
#include <deque>
#include <map>
#include <tuple>

#include "core/growth.h"
#include "core/lexer/munch.h"

namespace guiderail {

namespace {

constexpr uint64_t key(uint32_t a, uint32_t b) { return (uint64_t{a} << 32) | b; }
constexpr uint32_t id(Node n) { return static_cast<uint32_t>(n); }

using Tokens = std::vector<uint32_t>;

void append(Tokens& to, std::span<const uint32_t> tokens) { to.insert(to.end(), tokens.begin(), tokens.end()); }

// A node with more below it is a place of its own: what is there is not copied for each set of nodes that it is part of.
constexpr uint32_t kManyNodes = 2'000;

}  // namespace

// Lexing does not depend on the parser if one lexer reads everything, no lexeme is remembered for what it says, and longest match seldom asks.
bool TokenReadings::usable(Engine& engine, MunchViability* live) {
  return engine.viability() && !engine.mixed() && engine.num_lexers() == 1 && !engine.symbols().has_captures() &&
         (live ? live : engine.viability())->tells_ends();
}

Node TokenReadings::within_rests(Node obligation) {
  if (sure_.rests() == kAll) return obligation;
  if (uint32_t known = within_rests_.find(id(obligation)); known != PublishedMap::kUnknown) return Node{known};
  Node both = engine_.lexicon().both({obligation, sure_.rests()});
  if (both != kNone && !engine_.lexicon().alive(both)) both = kNone;
  std::lock_guard lock(mutex_);
  charge(within_rests_.insert(id(obligation), id(both)));
  return both;
}

bool TokenReadings::surely_good(const Parser::Lookahead& look, Node obligation, MunchViability::Dropped newline) {
  return sure_.viable_in_shape(look, within_rests(obligation), newline);
}

bool TokenReadings::surely_good(const Parser::Lookahead& after, const Reading::Doubtful& inside,
                                MunchViability::Dropped newline) {
  Node obligation = within_rests(inside.obligation);
  return obligation != kNone && sure_.viable_before_shape(after, inside.lexeme, inside.competing, obligation, newline);
}

void TokenReadings::charge(std::size_t bytes) {
  bytes_.fetch_add(bytes, std::memory_order_relaxed);
  growth_of_this_thread += bytes;
}

ByteSet TokenReadings::first_of(Node obligation) {
  if (obligation == kAll) return ByteSet::all();
  {
    std::lock_guard lock(mutex_);
    auto known = firsts_.find(obligation);
    if (known != firsts_.end()) return known->second;
  }
  ByteSet first;
  engine_.lexicon().first_bound(obligation).for_each([&](uint8_t byte) {
    if (engine_.lexicon().step(obligation, byte) != kNone) first.add(byte);
  });
  std::lock_guard lock(mutex_);
  charge(sizeof(ByteSet) + 64);
  return firsts_.try_emplace(obligation, first).first->second;
}

TokenReadings::PlaceId TokenReadings::place(const TokenTrie& trie, uint32_t node, Node obligation) {
  PlaceKey key{&trie, node, obligation};
  {
    std::lock_guard lock(mutex_);
    auto known = place_ids_.find(key);
    if (known != place_ids_.end()) return known->second;
  }
  ByteSet first;
  for (const TrieNode& child : trie.children(node)) first.add(child.byte);
  first = first & first_of(obligation);
  std::lock_guard lock(mutex_);
  auto known = place_ids_.find(key);
  if (known != place_ids_.end()) return known->second;
  PlaceId fresh = static_cast<PlaceId>(places_.emplace_back(Place{&trie, node, obligation, first}));
  place_ids_.emplace(key, fresh);
  charge(sizeof(Place) + 64);
  return fresh;
}

std::vector<TokenReadings::PlaceId> TokenReadings::below(const TokenTrie& trie, std::vector<uint32_t> roots,
                                                         Node obligation) {
  const ByteSet first = first_of(obligation);
  std::vector<PlaceId> places;
  std::erase_if(roots, [&](uint32_t root) {
    if (std::ranges::none_of(trie.children(root), [&](const TrieNode& child) { return first.has(child.byte); }))
      return true;
    if (trie.subtree_size(root) < kManyNodes) return false;
    places.push_back(place(trie, root, obligation));
    return true;
  });
  if (roots.size() == 1) places.push_back(place(trie, roots[0], obligation));
  if (roots.size() <= 1) return places;
  std::ranges::sort(roots);
  uint64_t hash = reinterpret_cast<uintptr_t>(&trie);
  for (uint32_t root : roots) hash = (hash ^ root) * 0x9E3779B97F4A7C15ull, hash ^= hash >> 29;
  auto find = [&]() -> const TokenTrie* {
    auto [begin, end] = merged_.equal_range(hash);
    for (auto it = begin; it != end; ++it)
      if (it->second.of == &trie && it->second.first == first && it->second.roots == roots)
        return it->second.trie.get();
    return nullptr;
  };
  const TokenTrie* known = nullptr;
  {
    std::lock_guard lock(mutex_);
    known = find();
  }
  if (!known) {
    auto fresh = std::make_unique<const TokenTrie>(TokenTrie::merge(trie, roots, first));
    std::lock_guard lock(mutex_);
    known = find();
    if (!known) {
      charge(fresh->bytes_used() + roots.size() * 4 + sizeof(Merged));
      known = fresh.get();
      merged_.emplace(hash, Merged{&trie, std::move(roots), first, std::move(fresh)});
    }
  }
  places.push_back(place(*known, TokenTrie::kRoot, obligation));
  return places;
}

TokenReadings::Lexeme TokenReadings::beginning(Node group, Indentation::State indentation) const {
  Lexeme begun{group, group, engine_.modes().competing_with(group), Lexeme::Kind::kPlain, 0};
  const Indentation* blocks = engine_.indentation();
  if (blocks && blocks->is_newline(group))
    begun.kind = blocks->suspended(indentation) ? Lexeme::Kind::kDropped : Lexeme::Kind::kMeasured;
  return begun;
}

TokenReadings::Lexeme TokenReadings::going_on(const Thread& t) const {
  Lexeme read = beginning(t.group, t.indentation);
  read.lexeme = t.lexeme;
  read.competing = t.competing;
  if (read.kind == Lexeme::Kind::kMeasured) read.width = engine_.indentation()->width_alone(t.indentation);
  return read;
}

// Is nothing owed any more, whichever byte the lexeme reads next?
bool TokenReadings::met_by_first_byte(Node obligation, Node lexeme) {
  bool met = true;
  engine_.lexicon().first_bound(lexeme).for_each(
      [&](uint8_t byte) { met = met && engine_.lexicon().step(obligation, byte) == kAll; });
  return met;
}

const TokenReadings::Reading& TokenReadings::reading(PlaceId place, const Lexeme& lexeme) {
  ReadingKey which{place, lexeme};
  {
    std::lock_guard lock(mutex_);
    auto known = readings_.find(which);
    if (known != readings_.end()) return *known->second;
  }
  const Place& at = places_[place];
  const Reading* result = nullptr;
  std::unique_ptr<const Reading> fresh;
  if (at.obligation != kAll && met_by_first_byte(at.obligation, lexeme.lexeme)) {
    result = &reading(this->place(*at.trie, at.node, kAll), lexeme);
  } else {
    // Made without the lock: two threads may make the same, the first one stays.
    fresh = read(at, lexeme);
  }
  std::lock_guard lock(mutex_);
  auto [it, added] = readings_.try_emplace(which, fresh ? fresh.get() : result);
  if (added && fresh) {
    std::size_t size = sizeof(Reading) + 96 + fresh->inside.bytes_used();
    for (const auto& d : fresh->doubtful) size += sizeof(d) + d.tokens.bytes_used();
    for (const auto& e : fresh->exits) size += sizeof(e) + e.here.bytes_used();
    for (const auto& b : fresh->breaks) size += sizeof(b) + b.here.bytes_used() + b.roots.size() * sizeof(uint32_t);
    charge(size);
    owned_.push_back(std::move(fresh));
  }
  return *it->second;
}

const TokenReadings::Reading& TokenReadings::reading_of(PlaceId place, Node group, Indentation::State indentation) {
  const Indentation* blocks = engine_.indentation();
  uint64_t dropped = blocks && blocks->suspended(indentation);
  uint64_t which = key(place, id(group)) | dropped << 31;  // beyond all nodes
  if (uint32_t known = begun_ids_.find(which); known != PublishedMap::kUnknown) return *begun_[known];
  const Reading& result = reading(place, beginning(group, indentation));
  std::lock_guard lock(mutex_);
  if (begun_ids_.find(which) == PublishedMap::kUnknown) {
    auto index = static_cast<uint32_t>(begun_.emplace_back(&result));
    charge(sizeof(&result) + begun_ids_.insert(which, index));
  }
  return result;
}

std::unique_ptr<const TokenReadings::Reading> TokenReadings::read(const Place& place, const Lexeme& start) {
  Lexicon& lexicon = engine_.lexicon();
  MunchViability& viability = *engine_.viability();
  const TokenTrie& trie = *place.trie;
  const Node group = start.group;
  const bool measured = start.kind == Lexeme::Kind::kMeasured, dropped = start.kind == Lexeme::Kind::kDropped;
  struct OpenExit {
    std::vector<uint32_t> tags;
    Node obligation;
    Indentation::State width;
    Tokens here;
    std::vector<uint32_t> roots;
  };
  constexpr std::size_t kNo = SIZE_MAX;
  constexpr uint32_t kDeadEnd = UINT32_MAX;
  // What is left of the lexeme, of its rivals and of the obligation.
  struct State {
    Node lexeme, competing, obligation;
    Indentation::State width;
    ByteSet first;  // what may come next
    bool goes_on = true, certain = false;
    std::size_t exit = kNo, doubtful = kNo;
    std::array<uint32_t, 256> next{};  // by byte, the number of the state after it; 0: not asked yet
  };
  std::deque<State> states;
  std::map<std::tuple<Node, Node, Node, Indentation::State>, std::size_t> numbers;
  std::vector<OpenExit> exits;
  std::vector<Tokens> doubtful;
  std::vector<std::size_t> doubtful_states;
  Tokens inside;
  auto number = [&](Node lexeme, Node competing, Node obligation, Indentation::State width) {
    auto [it, fresh] = numbers.try_emplace({lexeme, competing, obligation, width}, states.size());
    if (!fresh) return it->second;
    State& s = states.emplace_back();
    s.lexeme = lexeme;
    s.competing = competing;
    s.obligation = obligation;
    s.width = width;
    s.first = lexicon.first_bound(lexeme);
    if (obligation != kAll) s.first = s.first & lexicon.first_bound(obligation);
    if (lexicon.nullable(lexeme)) {
      s.goes_on = lexicon.continues(lexeme);
      Node left = viability.after_lexeme(obligation, competing, lexicon.after_marker(lexeme));
      if (left != kNone) {
        auto tags = lexicon.tags(lexeme);
        auto same = std::ranges::find_if(exits, [&](const OpenExit& e) {
          return e.obligation == left && e.width == width && std::ranges::equal(e.tags, tags);
        });
        s.exit = static_cast<std::size_t>(same - exits.begin());
        if (same == exits.end()) exits.push_back({{tags.begin(), tags.end()}, left, width, {}, {}});
      }
    }
    if (s.goes_on && !dropped)
      if (Node owed = within_rests(obligation); owed != kNone)
        s.certain = sure_.surely_viable(group, lexeme, competing, owed);
    return states.size() - 1;
  };
  auto step = [&](State& from, uint8_t byte) {
    uint32_t& known = from.next[byte];
    if (known) return known;
    known = kDeadEnd;
    Node lexeme = lexicon.step(from.lexeme, byte);
    if (lexeme == kNone) return known;
    Node obligation = from.obligation == kAll ? kAll : lexicon.step(from.obligation, byte);
    if (obligation == kNone) return known;
    Indentation::State width = measured ? engine_.indentation()->read(from.width, byte) : 0;
    known = static_cast<uint32_t>(number(lexeme, lexicon.step(from.competing, byte), obligation, width));
    return known;
  };
  // The first state is where the lexeme stands; nothing returns to it by its number, since it has read nothing here.
  State& first = states.emplace_back();
  first.lexeme = start.lexeme;
  first.competing = start.competing;
  first.obligation = place.obligation;
  first.width = start.width;
  first.first = lexicon.first_bound(start.lexeme);
  if (place.obligation != kAll) first.first = first.first & lexicon.first_bound(place.obligation);
  struct Frame {
    uint32_t node;
    uint32_t state;
  };
  std::vector<Frame> work{{place.node, 0}};
  while (!work.empty()) {
    Frame f = work.back();
    work.pop_back();
    State& from = states[f.state];
    uint32_t begin = trie.node(f.node).first_child, end = begin + trie.node(f.node).num_children;
    for (uint32_t child = begin; child < end; ++child) {
      uint8_t byte = trie.node(child).byte;
      if (!from.first.has(byte)) continue;
      uint32_t which = step(from, byte);
      if (which == kDeadEnd) continue;
      State& s = states[which];
      const TrieNode& node = trie.node(child);
      if (node.num_tokens) {
        if (s.certain) {
          append(inside, trie.tokens(child));
        } else {
          if (s.exit != kNo) append(exits[s.exit].here, trie.tokens(child));
          if (s.goes_on) {
            if (s.doubtful == kNo) {
              s.doubtful = doubtful.size();
              doubtful.emplace_back();
              doubtful_states.push_back(which);
            }
            append(doubtful[s.doubtful], trie.tokens(child));
          }
        }
      }
      if (node.num_children == 0) continue;
      if (s.exit != kNo) exits[s.exit].roots.push_back(child);
      if (s.goes_on) work.push_back({child, which});
    }
  }
  auto result = std::make_unique<Reading>();
  result->trie = &trie;
  result->kind = start.kind;
  uint32_t words = vocabulary_.num_words();
  result->inside = TokenSet::of(std::move(inside), words);
  for (std::size_t i = 0; i < doubtful.size(); ++i) {
    const State& s = states[doubtful_states[i]];
    result->doubtful.push_back({s.lexeme, s.competing, s.obligation, TokenSet::of(std::move(doubtful[i]), words)});
  }
  for (OpenExit& e : exits) {
    if (measured) {
      e.roots.shrink_to_fit();
      result->breaks.push_back({e.width, e.obligation, TokenSet::of(std::move(e.here), words), std::move(e.roots)});
      continue;
    }
    std::vector<PlaceId> next = below(trie, std::move(e.roots), e.obligation);
    if (next.empty() && e.here.empty()) continue;
    bool certain = start.kind == Lexeme::Kind::kPlain && sure_.surely_viable_after(group, within_rests(e.obligation));
    result->exits.push_back(
        {std::move(e.tags), e.obligation, certain, TokenSet::of(std::move(e.here), words), std::move(next)});
  }
  return result;
}

TokenReadings::Exit TokenReadings::together(const TokenTrie& trie, std::span<const LineBreak* const> breaks,
                                            Node obligation) {
  std::vector<const TokenSet*> here;
  std::vector<uint32_t> roots;
  for (const LineBreak* b : breaks) {
    here.push_back(&b->here);
    roots.insert(roots.end(), b->roots.begin(), b->roots.end());
  }
  return {{}, obligation, true, TokenSet::of(here, vocabulary_.num_words()), below(trie, std::move(roots), obligation)};
}

const std::vector<TokenReadings::Exit>& TokenReadings::exits(const LexRow& row, Node group) {
  std::pair which{&row, group};
  {
    std::lock_guard lock(mutex_);
    auto known = row_exits_.find(which);
    if (known != row_exits_.end()) return *known->second;
  }
  MunchViability& viability = *engine_.viability();
  struct OpenExit {
    std::vector<uint32_t> tags;
    Node obligation;
    std::vector<uint32_t> roots;
  };
  std::vector<OpenExit> open;
  for (const auto& exit : row.exits()) {
    Node left = viability.after_lexeme(kAll, exit->competing, exit->follow);
    if (left == kNone) continue;
    auto same =
        std::ranges::find_if(open, [&](const OpenExit& e) { return e.obligation == left && e.tags == exit->tags; });
    if (same == open.end()) same = open.insert(open.end(), {exit->tags, left, {}});
    for (const LexRow::Exit::Place& place : exit->places) same->roots.push_back(place.node);
  }
  auto fresh = std::make_unique<std::vector<Exit>>();
  for (OpenExit& e : open) {
    std::vector<PlaceId> next = below(vocabulary_.trie(), std::move(e.roots), e.obligation);
    if (next.empty()) continue;
    bool certain = sure_.surely_viable_after(group, within_rests(e.obligation));
    fresh->push_back({std::move(e.tags), e.obligation, certain, {}, std::move(next)});
  }
  std::lock_guard lock(mutex_);
  charge(sizeof(*fresh) + fresh->size() * sizeof(Exit) + 64);
  return *row_exits_.try_emplace(which, std::move(fresh)).first->second;
}

}  // namespace guiderail
