#include "core/masks/shape_tokens.h"

#include <algorithm>

#include "core/growth.h"
#include "core/lexer/munch.h"

namespace guiderail {

namespace {

// A token has few readings, but a grammar with many terminals for the same texts may lead to a new state with each sequence of them.
constexpr std::size_t kMaxAnswers = 20'000;
// Of a key; states that need more are walked byte by byte.
constexpr unsigned kPlaceBits = 27, kShapeBits = 20, kBracketBits = 16;
static_assert(1 + kPlaceBits + kShapeBits + kBracketBits == 64);

// Answers that one question has led to.
thread_local std::size_t answers_made = 0;
thread_local int depth = 0;

struct Depth {
  Depth() {
    if (depth++ == 0) answers_made = 0;
    if (++answers_made > kMaxAnswers) {
      --depth;
      throw ShapeTokens::TooMany();
    }
  }
  ~Depth() { --depth; }
  Depth(const Depth&) = delete;
};

}  // namespace

void ShapeTokens::charge(std::size_t bytes) {
  bytes_.fetch_add(bytes, std::memory_order_relaxed);
  growth_of_this_thread += bytes;
}

uint64_t ShapeTokens::key(bool exits, uint32_t where, uint32_t shape, Indentation::State indentation) const {
  uint64_t brackets = engine_.indentation() ? engine_.indentation()->brackets(indentation) : 0;
  if (where >> kPlaceBits || shape >> kShapeBits || (brackets + 1) >> kBracketBits) throw TooMany();
  return (uint64_t{exits} << 63) | (uint64_t{where} << (kShapeBits + kBracketBits)) |
         (uint64_t{shape} << kBracketBits) | brackets;
}

const ShapeTokens::Answer* ShapeTokens::known(uint64_t key) const {
  uint32_t found = answer_ids_.find(key);
  return found == PublishedMap::kUnknown ? nullptr : &answers_[found];
}

const ShapeTokens::Answer& ShapeTokens::keep(uint64_t key, Making& made) {
  Answer fresh;
  fresh.tokens = TokenSet::of(made.sets, readings_.vocabulary().num_words());
  for (auto& [where, arrivals] : made.returns)
    fresh.returns.push_back({where.first, where.second, exits(std::move(arrivals))});
  fresh.questions = std::move(made.questions);
  std::size_t size = sizeof(Answer) + fresh.tokens.bytes_used() + fresh.returns.size() * sizeof(Return);
  for (const Question& q : fresh.questions) size += sizeof(q) + q.path.size() * sizeof(Step);
  std::lock_guard lock(mutex_);
  if (const Answer* answer = known(key)) return *answer;  // two threads may make the same, the first one stays
  auto index = static_cast<uint32_t>(answers_.emplace_back(std::move(fresh)));
  charge(size + answer_ids_.insert(key, index));
  return answers_[index];
}

ShapeTokens::ExitsId ShapeTokens::exits(std::vector<Arrival> arrivals) {
  std::ranges::sort(arrivals);
  arrivals.erase(std::ranges::unique(arrivals).begin(), arrivals.end());
  std::lock_guard lock(mutex_);
  auto [it, fresh] = exits_ids_.try_emplace(arrivals, 0);
  if (!fresh) return it->second;
  std::size_t size = 2 * arrivals.size() * sizeof(Arrival) + 128;
  charge(size);
  return it->second = static_cast<ExitsId>(exits_.emplace_back(std::move(arrivals)));
}

ShapeTokens::ExitsId ShapeTokens::together(const Newline& newline,
                                           std::span<const TokenReadings::LineBreak* const> breaks, Node owed) {
  auto exit = std::make_unique<const TokenReadings::Exit>(readings_.together(*newline.trie, breaks, owed));
  if (exit->here.empty() && exit->next.empty()) return kNoExits;
  ExitsId result = exits({{exit.get(), newline.group}});
  charge(sizeof(*exit) + exit->here.bytes_used());
  std::lock_guard lock(mutex_);
  owned_exits_.push_back(std::move(exit));
  return result;
}

const std::vector<ShapeTokens::Newline>& ShapeTokens::newlines(const TokenReadings::Reading& reading, Node group) {
  std::pair which{&reading, group};
  {
    std::lock_guard lock(mutex_);
    auto known = newlines_.find(which);
    if (known != newlines_.end()) return *known->second;
  }
  auto fresh = std::make_unique<std::vector<Newline>>();
  std::map<Node, std::size_t> by_obligation;
  for (const TokenReadings::LineBreak& b : reading.breaks) {
    auto [it, added] = by_obligation.try_emplace(b.obligation, fresh->size());
    if (added) {
      auto [of_comment, of_line] = engine_.owed_before_lines(b.obligation);
      fresh->push_back({group, reading.trie, of_comment, of_line, 0, {}});
    }
    (*fresh)[it->second].breaks.push_back(&b);
  }
  for (Newline& newline : *fresh) {
    if (newline.before_comment != kNone) newline.behind_any = together(newline, newline.breaks, newline.before_comment);
    if (newline.before_line == kNone) newline.breaks.clear();
    const ByteSet first = readings_.first_of(newline.before_line);
    std::erase_if(newline.breaks, [&](const TokenReadings::LineBreak* b) {
      return b->here.empty() && std::ranges::none_of(b->roots, [&](uint32_t root) {
               return std::ranges::any_of(reading.trie->children(root),
                                          [&](const TrieNode& child) { return first.has(child.byte); });
             });
    });
    const Indentation& indentation = *engine_.indentation();
    std::ranges::sort(newline.breaks, {}, [&](const auto* b) { return indentation.columns(b->width); });
  }
  std::erase_if(*fresh, [](const Newline& n) { return n.behind_any == kNoExits && n.breaks.empty(); });
  std::size_t size = 128;
  for (const Newline& newline : *fresh) size += sizeof(Newline) + newline.breaks.size() * sizeof(void*);
  std::lock_guard lock(mutex_);
  auto [it, added] = newlines_.try_emplace(which, std::move(fresh));
  if (added) charge(size);
  return *it->second;
}

ShapeTokens::ExitsId ShapeTokens::behind(const Newline& newline, const TokenReadings::LineBreak& line_break) {
  std::pair which{&line_break, newline.before_line};
  {
    std::lock_guard lock(mutex_);
    auto known = behind_.find(which);
    if (known != behind_.end()) return known->second;
  }
  const TokenReadings::LineBreak* one[] = {&line_break};
  ExitsId result = together(newline, one, newline.before_line);
  std::lock_guard lock(mutex_);
  return behind_.try_emplace(which, result).first->second;
}

const ShapeTokens::Wider& ShapeTokens::wider(const Newline& newline, Indentation::State than) {
  const Indentation& indentation = *engine_.indentation();
  std::pair which{&newline, than};
  {
    std::lock_guard lock(mutex_);
    auto known = wider_.find(which);
    if (known != wider_.end()) return *known->second;
  }
  auto fresh = std::make_unique<Wider>();
  for (const TokenReadings::LineBreak* b : newline.breaks)
    if (indentation.broken(b->width) && indentation.is_wider(b->width, than)) fresh->breaks.push_back(b);
  if (!fresh->breaks.empty()) fresh->behind = together(newline, fresh->breaks, newline.before_line);
  std::size_t size = sizeof(Wider) + fresh->breaks.size() * sizeof(void*) + 128;
  std::lock_guard lock(mutex_);
  auto [it, added] = wider_.try_emplace(which, std::move(fresh));
  if (added) charge(size);
  return *it->second;
}

const ShapeTokens::Answer& ShapeTokens::answer(TokenReadings::PlaceId place, ParserState parser,
                                               Indentation::State indentation) {
  const Parser::Lookahead& look = engine_.parser().lookahead(parser);
  const Thread boundary{kNone, kNone, parser, kNone, kAll, kNoText, indentation};
  if ((look.first & readings_[place].first).empty() && !engine_.reads_newline(boundary)) return nothing_;
  uint64_t which = key(false, place, look.number, indentation);
  if (const Answer* answer = known(which)) return *answer;
  Depth depth;
  Making made{engine_.parser().opened(parser), {}, {}, {}};
  read(place, engine_.indentation() ? engine_.indentation()->brackets_alone(indentation) : 0, made);
  return keep(which, made);
}

const ShapeTokens::Answer& ShapeTokens::answer_behind(ExitsId exits, ParserState parser,
                                                      Indentation::State indentation) {
  const Parser::Lookahead& look = engine_.parser().lookahead(parser);
  uint64_t which = key(true, exits, look.number, indentation);
  if (const Answer* answer = known(which)) return *answer;
  Depth depth;
  Making made{engine_.parser().opened(parser), {}, {}, {}};
  Indentation::State brackets = engine_.indentation() ? engine_.indentation()->brackets_alone(indentation) : 0;
  for (const Arrival& arrival : exits_[exits]) arrive(arrival, made.state, brackets, {}, made);
  return keep(which, made);
}

void ShapeTokens::read(TokenReadings::PlaceId place, Indentation::State brackets, Making& to) {
  const ByteSet first = readings_[place].first;
  const Parser::Lookahead& look = engine_.parser().lookahead(to.state);
  const Thread boundary{kNone, kNone, to.state, kNone, kAll, kNoText, brackets};
  Node newline =
      engine_.reads_newline(boundary) ? engine_.indentation()->newline(engine_.parser().lexer(to.state)) : kNone;
  for (const auto& [group, bound] : look.groups) {
    if (group == newline) newline = kNone;
    if (!(bound & first).empty()) read(place, group, brackets, to);
  }
  if (newline != kNone && !(engine_.lexicon().first_bound(newline) & first).empty()) read(place, newline, brackets, to);
}

void ShapeTokens::add(const TokenSet& tokens, Making& to) {
  if (!tokens.empty()) to.sets.push_back(&tokens);
}

// One lexeme of the group.
void ShapeTokens::read(TokenReadings::PlaceId place, Node group, Indentation::State brackets, Making& to) {
  using Kind = TokenReadings::Lexeme::Kind;
  Parser& parser = engine_.parser();
  const Parser::Lookahead& look = parser.lookahead(to.state);
  const TokenReadings::Reading& reading = readings_.reading_of(place, group, brackets);
  add(reading.inside, to);
  for (const TokenReadings::Reading::Doubtful& inside : reading.doubtful) {
    // Is it known, and always the same, what is expected after the lexeme?
    std::optional<ParserState> after = to.state;
    if (reading.kind != Kind::kDropped) {
      const Parser::Expected* expected = Parser::find(look, group, 0);
      after = expected ? parser.shift_opened(to.state, *expected).known : std::nullopt;
    }
    if (after && readings_.surely_good(parser.lookahead(*after), inside, engine_.dropped(to.state, brackets)))
      add(inside.tokens, to);
    else
      to.questions.push_back({Question::What::kInside, group, brackets, nullptr, &inside, nullptr, {}});
  }
  if (reading.kind == Kind::kMeasured) {
    if (!reading.breaks.empty() && !newlines(reading, group).empty())
      to.questions.push_back(
          {Question::What::kNewline, group, brackets, nullptr, nullptr, &newlines(reading, group), {}});
    return;
  }
  if (reading.kind == Kind::kDropped) {
    for (const TokenReadings::Exit& exit : reading.exits) arrive({&exit, group}, to.state, brackets, {}, to);
    return;
  }
  if (reading.exits.empty()) return;
  if (engine_.indentation()) brackets = engine_.indentation()->after(brackets, group);
  if (brackets == Indentation::kNever) return;
  for (const TokenReadings::Exit& exit : reading.exits) {
    for (uint32_t tag : exit.tags) {
      const Parser::Expected* expected = Parser::find(look, group, tag);
      if (!expected) continue;
      const Parser::Partial& after = parser.shift_opened(to.state, *expected);
      Path path;
      if (expected->num_entries) path.push_back({group, tag});
      if (after.known) arrive({&exit, group}, *after.known, brackets, path, to);
      for (uint32_t item : after.open) to.returns[{item, brackets}].push_back({&exit, group});
    }
  }
}

// The arrival is in the state `at`, to which the path leads from that of the answer that is made.
void ShapeTokens::arrive(const Arrival& arrival, ParserState at, Indentation::State brackets, const Path& path,
                         Making& to) {
  const TokenReadings::Exit& exit = *arrival.exit;
  if (!exit.certain &&
      !readings_.surely_good(engine_.parser().lookahead(at), exit.obligation, engine_.dropped(at, brackets))) {
    to.questions.push_back({Question::What::kArrival, arrival.group, brackets, &exit, nullptr, nullptr, path});
    return;
  }
  add(exit.here, to);
  for (TokenReadings::PlaceId next : exit.next) absorb(answer(next, at, brackets), at, path, to);
}

void ShapeTokens::absorb(const Answer& answer, ParserState at, const Path& path, Making& to) {
  add(answer.tokens, to);
  for (const Question& question : answer.questions) {
    to.questions.push_back(question);
    Path& whole = to.questions.back().path;
    whole.insert(whole.begin(), path.begin(), path.end());
  }
  for (const Return& r : answer.returns) {
    auto open_at = [&](uint32_t item) -> std::vector<Arrival>& { return to.returns[{item, r.brackets}]; };
    const std::vector<Arrival>& arrivals = exits_[r.exits];
    if (at == to.state) {
      open_at(r.item).insert(open_at(r.item).end(), arrivals.begin(), arrivals.end());
      continue;
    }
    const Parser::Partial& after = engine_.parser().returned(at, r.item);
    for (uint32_t item : after.open) open_at(item).insert(open_at(item).end(), arrivals.begin(), arrivals.end());
    if (!after.known) continue;
    Path longer = path;
    longer.push_back({kNone, r.item});
    absorb(answer_behind(r.exits, *after.known, r.brackets), *after.known, longer, to);
  }
}

}  // namespace guiderail
