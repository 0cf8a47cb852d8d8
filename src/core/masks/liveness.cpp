#include "core/masks/liveness.h"

#include <algorithm>
#include <array>
#include <string_view>
#include <utility>

#include "core/growth.h"
#include "core/lexer/munch.h"

namespace guiderail {

namespace {

constexpr uint64_t key(uint32_t a, uint32_t b) { return (uint64_t{a} << 32) | b; }
constexpr uint32_t id(Node n) { return static_cast<uint32_t>(n); }

ByteSet bytes_that_are_tokens(const Vocabulary& vocabulary) {
  ByteSet set;
  for (const TrieNode& child : vocabulary.trie().children(TokenTrie::kRoot))
    if (child.num_tokens) set.add(child.byte);
  return set;
}

ByteSet bytes_of_tokens(const Vocabulary& vocabulary) {
  ByteSet set;
  for (uint32_t i = 1; i < vocabulary.trie().size(); ++i) set.add(vocabulary.trie().node(i).byte);
  return set;
}

std::vector<bool> known_specials(Engine& engine, const Vocabulary& vocabulary) {
  std::vector<bool> known;
  for (const std::string& text : engine.symbols().special_tokens()) known.push_back(vocabulary.special(text) >= 0);
  return known;
}

}  // namespace

Liveness::Liveness(Engine& engine, const Vocabulary& vocabulary)
    : engine_(engine), vocabulary_(vocabulary), single_(bytes_that_are_tokens(vocabulary)),
      any_(bytes_of_tokens(vocabulary)), special_(known_specials(engine, vocabulary)),
      by_single_(engine, single_, special_), by_any_(engine, any_, special_) {
  // 'The rest is a sequence of tokens' would have to be remembered across the borders of parts.
  if (engine_.mixed() && single_ != any_)
    throw GrammarError(
        "a grammar whose parts are lexed in different ways needs a vocabulary in which every byte of a token is a "
        "token");
  if (engine_.viability()) open(singles_, &Liveness::single_bytes);
}

Liveness::~Liveness() = default;

bool Liveness::needed(Engine& engine, const Vocabulary& vocabulary) {
  return !vocabulary.byte_complete() || std::ranges::count(known_specials(engine, vocabulary), false) > 0;
}

bool Liveness::live(std::span<const Thread> threads) {
  return std::ranges::any_of(threads, [this](const Thread& t) { return live(t); });
}

// Whatever the parser state.
bool Liveness::surely_live(const Thread& t) {
  if (!singles_.viability || t.at_boundary()) return false;
  auto number = [](PublishedMap& map, uint64_t k, uint32_t first) {
    if (uint32_t known = map.find(k); known != PublishedMap::kUnknown) return known;
    uint32_t fresh = static_cast<uint32_t>(map.size()) + first;
    growth_of_this_thread += map.insert(k, fresh);
    return fresh;
  };
  uint64_t lexeme_key = key(id(t.group), id(t.lexeme)), demand_key = key(id(t.competing), id(t.obligation));
  uint32_t lexeme = lexemes_.find(lexeme_key), demand = demands_.find(demand_key);
  if (lexeme != PublishedMap::kUnknown && demand != PublishedMap::kUnknown)
    if (uint32_t answer = surely_.find(key(lexeme, demand)); answer != PublishedMap::kUnknown) return answer == 1;
  std::lock_guard lock(engine_.parser().mutex());
  Node obligation = engine_.lexicon().both({t.obligation, singles_.language});
  bool answer = obligation != kNone && engine_.lexicon().alive(obligation) &&
                singles_.viability->surely_viable(t.group, t.lexeme, t.competing, obligation);
  growth_of_this_thread +=
      surely_.insert(key(number(lexemes_, lexeme_key, 0), number(demands_, demand_key, 1)), answer ? 1 : 0);
  return answer;
}

bool Liveness::live(const Thread& t) {
  if (surely_live(t)) return true;
  uint64_t place_key = key(id(t.group), static_cast<uint32_t>(t.parser)),
           demand_key = key(id(t.competing), id(t.obligation));
  uint32_t place = places_.find(place_key), demand = 0;
  if (t.competing != kNone || t.obligation != kAll) demand = demands_.find(demand_key);
  if (place != PublishedMap::kUnknown && demand != PublishedMap::kUnknown)
    if (uint32_t remainder = remainders_.find(key(place, id(t.lexeme))); remainder != PublishedMap::kUnknown)
      if (uint32_t answer = answers_.find(key(remainder, demand)); answer != PublishedMap::kUnknown) return answer == 1;

  std::lock_guard lock(engine_.parser().mutex());
  bool answer = decide(t);
  auto number = [](PublishedMap& map, uint64_t k, uint32_t first) {
    if (uint32_t known = map.find(k); known != PublishedMap::kUnknown) return known;
    uint32_t fresh = static_cast<uint32_t>(map.size()) + first;
    growth_of_this_thread += map.insert(k, fresh);
    return fresh;
  };
  place = number(places_, place_key, 0);
  if (t.competing != kNone || t.obligation != kAll) demand = number(demands_, demand_key, 1);  // 0: no demand
  growth_of_this_thread +=
      answers_.insert(key(number(remainders_, key(place, id(t.lexeme)), 0), demand), answer ? 1 : 0);
  return answer;
}

bool Liveness::decide(const Thread& t) {
  bool same = single_ == any_;
  if (engine_.lexing() == Lexing::kFree) {
    ByteSpelling::Answer answer = by_single_.completable(t);
    if (answer == ByteSpelling::Answer::kYes) return true;
    if ((same ? answer : by_any_.completable(t)) == ByteSpelling::Answer::kNo) return false;
  } else {
    if (completable(t, singles_, &Liveness::single_bytes)) return true;
    if (same || !completable(t, anys_, &Liveness::any_bytes)) return false;
  }
  if (completable(t, short_sequences_, &Liveness::short_token_sequences)) return true;
  return completable(t, sequences_, &Liveness::token_sequences);
}

void Liveness::open(Rests& rests, Node (Liveness::*language)()) {
  rests.language = (this->*language)();
  rests.viability = std::make_unique<MunchViability>(
      engine_.parser(), engine_.symbols(), engine_.modes(), engine_.marked(), engine_.num_lexers(), engine_.shadowed(),
      engine_.limits().munch_states, rests.language, special_, &rests == &singles_);
}

bool Liveness::completable(const Thread& thread, Rests& rests, Node (Liveness::*language)()) {
  Lexicon& lexicon = engine_.lexicon();
  if (!rests.viability) open(rests, language);
  Thread t = thread;
  t.obligation = lexicon.both({t.obligation, rests.language});
  if (t.obligation == kNone || !lexicon.alive(t.obligation)) return false;
  return t.at_boundary() ? rests.viability->viable(t.parser, t.obligation, engine_.dropped(t))
                         : rests.viability->viable(t, engine_.dropped(t));
}

Node Liveness::single_bytes() {
  return single_.empty() ? kEpsilon : engine_.lexicon().repeat(engine_.lexicon().bytes(single_), 0, kUnbounded);
}

Node Liveness::any_bytes() {
  return any_.empty() ? kEpsilon : engine_.lexicon().repeat(engine_.lexicon().bytes(any_), 0, kUnbounded);
}

Node Liveness::short_token_sequences() {
  constexpr std::size_t kTokensPerByte = 16;
  std::vector<std::pair<std::string_view, Node>> tokens;
  std::array<std::vector<std::string_view>, 256> with;  // tokens that hold a byte that is none
  for (uint32_t i = 0; i < vocabulary_.size(); ++i) {
    if (!vocabulary_.is_text(i)) continue;
    if (vocabulary_.token(i).size() == 1) tokens.emplace_back(vocabulary_.token(i), kEpsilon);
    for (char c : vocabulary_.token(i))
      if (auto byte = static_cast<uint8_t>(c); !single_.has(byte)) with[byte].push_back(vocabulary_.token(i));
  }
  for (auto& found : with) {
    std::size_t few = std::min(found.size(), kTokensPerByte);
    std::ranges::partial_sort(found, found.begin() + static_cast<std::ptrdiff_t>(few), {},
                              [](std::string_view text) { return std::pair(text.size(), text); });
    for (std::size_t i = 0; i < few; ++i) tokens.emplace_back(found[i], kEpsilon);
  }
  return engine_.lexicon().repeat(engine_.lexicon().literals(std::move(tokens)), 0, kUnbounded);
}

Node Liveness::token_sequences() {
  std::vector<std::pair<std::string_view, Node>> tokens;
  for (uint32_t i = 0; i < vocabulary_.size(); ++i)
    if (vocabulary_.is_text(i)) tokens.emplace_back(vocabulary_.token(i), kEpsilon);
  return engine_.lexicon().repeat(engine_.lexicon().literals(std::move(tokens)), 0, kUnbounded);
}

}  // namespace guiderail
