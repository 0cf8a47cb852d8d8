#include "core/masks/shape_tokens.h"

#include <algorithm>

#include "core/growth.h"
#include "core/lexer/munch.h"

namespace guiderail {

namespace {

// A token has few readings, but a grammar with many terminals for the same texts may lead to a new state with each sequence of them.
constexpr std::size_t kMaxAnswers = 20'000;
constexpr uint64_t kBehindExits = uint64_t{1} << 32;  // beyond all places

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

const ShapeTokens::Answer* ShapeTokens::known(const Key& key) {
  std::lock_guard lock(mutex_);
  auto found = answers_.find(key);
  return found == answers_.end() ? nullptr : found->second.get();
}

const ShapeTokens::Answer& ShapeTokens::keep(const Key& key, Making& made) {
  auto fresh = std::make_unique<Answer>();
  fresh->tokens = TokenSet::of(made.sets, readings_.vocabulary().num_words());
  for (auto& [where, arrivals] : made.returns)
    fresh->returns.push_back({where.first, where.second, exits(std::move(arrivals))});
  fresh->questions = std::move(made.questions);
  std::size_t size = sizeof(Answer) + 96 + fresh->tokens.bytes_used() + fresh->returns.size() * sizeof(Return);
  for (const Question& q : fresh->questions) size += sizeof(q) + q.path.size() * sizeof(Step);
  std::lock_guard lock(mutex_);
  // Two threads may make the same, the first one stays.
  auto [it, added] = answers_.try_emplace(key, std::move(fresh));
  if (added) {
    bytes_.fetch_add(size, std::memory_order_relaxed);
    growth_of_this_thread += size;
  }
  return *it->second;
}

ShapeTokens::ExitsId ShapeTokens::exits(std::vector<Arrival> arrivals) {
  std::ranges::sort(arrivals);
  arrivals.erase(std::ranges::unique(arrivals).begin(), arrivals.end());
  std::lock_guard lock(mutex_);
  auto [it, fresh] = exits_ids_.try_emplace(arrivals, 0);
  if (!fresh) return it->second;
  std::size_t size = 2 * arrivals.size() * sizeof(Arrival) + 128;
  bytes_.fetch_add(size, std::memory_order_relaxed);
  growth_of_this_thread += size;
  return it->second = static_cast<ExitsId>(exits_.emplace_back(std::move(arrivals)));
}

ShapeTokens::ExitsId ShapeTokens::owing(ExitsId which, Node obligation) {
  {
    std::lock_guard lock(mutex_);
    auto known = owing_.find({which, obligation});
    if (known != owing_.end()) return known->second;
  }
  std::vector<Arrival> arrivals;
  std::vector<std::unique_ptr<const TokenReadings::Exit>> fresh;
  for (const Arrival& a : exits_[which]) {
    auto exit = std::make_unique<TokenReadings::Exit>(*a.exit);
    exit->obligation = obligation;
    exit->certain = true;
    for (TokenReadings::PlaceId& next : exit->next) {
      const TokenReadings::Place place = readings_[next];
      next = readings_.place(*place.trie, place.node, obligation);
    }
    std::erase_if(exit->next, [this](TokenReadings::PlaceId next) { return readings_[next].first.empty(); });
    arrivals.push_back({exit.get(), a.group});
    fresh.push_back(std::move(exit));
  }
  ExitsId result = exits(std::move(arrivals));
  std::lock_guard lock(mutex_);
  for (auto& exit : fresh) {
    bytes_.fetch_add(sizeof(*exit) + exit->here.bytes_used(), std::memory_order_relaxed);
    growth_of_this_thread += sizeof(*exit) + exit->here.bytes_used();
    owned_exits_.push_back(std::move(exit));
  }
  return owing_.try_emplace({which, obligation}, result).first->second;
}

const ShapeTokens::Answer& ShapeTokens::answer(TokenReadings::PlaceId place, ParserState parser,
                                               Indentation::State indentation) {
  const Parser::Lookahead& look = engine_.parser().lookahead(parser);
  const Thread boundary{kNone, kNone, parser, kNone, kAll, kNoText, indentation};
  if ((look.first & readings_[place].first).empty() && !engine_.reads_newline(boundary)) return nothing_;
  Key key{place, look.number, engine_.indentation() ? engine_.indentation()->brackets_alone(indentation) : 0};
  if (const Answer* answer = known(key)) return *answer;
  Depth depth;
  Making made{engine_.parser().opened(parser), {}, {}, {}};
  read(place, key.brackets, made);
  return keep(key, made);
}

const ShapeTokens::Answer& ShapeTokens::answer_behind(ExitsId exits, ParserState parser,
                                                      Indentation::State indentation) {
  const Parser::Lookahead& look = engine_.parser().lookahead(parser);
  Key key{exits | kBehindExits, look.number,
          engine_.indentation() ? engine_.indentation()->brackets_alone(indentation) : 0};
  if (const Answer* answer = known(key)) return *answer;
  Depth depth;
  Making made{engine_.parser().opened(parser), {}, {}, {}};
  for (const Arrival& arrival : exits_[exits]) arrive(arrival, made.state, key.brackets, {}, made);
  return keep(key, made);
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
  const TokenReadings::Lexeme lexeme = readings_.beginning(group, brackets);
  const TokenReadings::Reading& reading = readings_.reading(place, lexeme);
  add(reading.inside, to);
  for (const TokenReadings::Reading::Doubtful& inside : reading.doubtful) {
    // Is it known, and always the same, what is expected after the lexeme?
    std::optional<ParserState> after = to.state;
    if (lexeme.kind != Kind::kDropped) {
      const Parser::Expected* expected = Parser::find(look, group, 0);
      after = expected ? parser.shift_opened(to.state, *expected).known : std::nullopt;
    }
    if (after && engine_.viability()->viable_before_shape(parser.lookahead(*after), inside.lexeme, inside.competing,
                                                          inside.obligation))
      add(inside.tokens, to);
    else
      to.questions.push_back({Question::What::kInside, group, brackets, nullptr, &inside, 0, kAll, 0, {}});
  }
  if (lexeme.kind == Kind::kMeasured) {
    std::map<std::pair<Indentation::State, Node>, std::vector<Arrival>> by_width;
    for (const TokenReadings::Exit& exit : reading.exits)
      by_width[{exit.width, exit.obligation}].push_back({&exit, group});
    for (auto& [key, arrivals] : by_width)
      to.questions.push_back({Question::What::kNewline,
                              group,
                              brackets,
                              nullptr,
                              nullptr,
                              key.first,
                              key.second,
                              exits(std::move(arrivals)),
                              {}});
    return;
  }
  if (lexeme.kind == Kind::kDropped) {
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
  if (!exit.certain && !engine_.viability()->viable_in_shape(engine_.parser().lookahead(at), exit.obligation)) {
    to.questions.push_back({Question::What::kArrival, arrival.group, brackets, &exit, nullptr, 0, kAll, 0, path});
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
