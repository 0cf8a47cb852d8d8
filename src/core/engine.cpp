#include "core/engine.h"

#include <algorithm>
#include <tuple>

#include "core/errors.h"
#include "core/growth.h"
#include "core/lexer/munch.h"

namespace guiderail {

uint64_t hash_of(std::span<const Thread> threads) {
  uint64_t h = threads.size();
  auto mix = [&h](uint64_t v) {
    h = (h ^ v) * 0xFF51AFD7ED558CCDull;
    h ^= h >> 29;
  };
  for (const Thread& t : threads) {
    mix((uint64_t{static_cast<uint32_t>(t.group)} << 32) | static_cast<uint32_t>(t.lexeme));
    mix((uint64_t{static_cast<uint32_t>(t.parser)} << 32) | static_cast<uint32_t>(t.competing));
    mix((uint64_t{t.text} << 32) | static_cast<uint32_t>(t.obligation));
    if (t.indentation | t.scope) mix((uint64_t{t.scope} << 32) | t.indentation);
  }
  return h;
}

Engine::Engine(std::shared_ptr<const GrammarSource> source, const Limits& limits)
    : source_(std::move(source)), limits_(limits), symbols_(Lexicon::current()) {
  Lexicon::Budget budget(limits_.lexer_states_per_request);
  grammar_ = source_->open(symbols_);
  if (mixed()) {
    SymbolTable::Parts& parts = symbols_.parts();
    grammar_.lexing = Lexing::kMunch;
    grammar_.modes = parts.modes;
    grammar_.ignored = parts.ignored;
    grammar_.indentation = parts.indentation;
    grammar_.marked = parts.marked;
    grammar_.num_lexers = parts.num_lexers;
  }
  modes_ = LexerModes(grammar_, symbols_);
  parser_ = std::make_unique<Parser>(symbols_, grammar_.start, grammar_.ignored, modes_, mutex_, limits_.grammar_bytes,
                                     grammar_.first_lexer);
  if (grammar_.lexing == Lexing::kMunch) {
    viability_ = std::make_unique<MunchViability>(*parser_, symbols_, modes_, grammar_.marked, grammar_.num_lexers,
                                                  grammar_.shadowed, limits_.munch_states);
  }
  if (grammar_.indentation) { indentation_ = std::make_unique<Indentation>(*grammar_.indentation, symbols_, mutex_); }
  states_.emplace_back(std::vector<Thread>{}, false);
  std::vector<Thread> threads;
  Thread start{kNone, kNone, parser_->initial(), kNone, kAll};
  if (!viability_ || viability_->viable(start.parser, start.obligation)) arrive(start, threads);
  if (whole_as_python()) {
    std::vector<Thread> before(threads);
    threads.clear();
    step(before, '\n', threads);
  }
  initial_ = intern(threads);
  if (initial_ == kDead) throw GrammarError("the language is empty: no text can be lexed and parsed by this grammar");
}

Engine::~Engine() = default;

std::size_t Engine::bytes_used() const {
  return bytes_.load(std::memory_order_relaxed) + scopes_.bytes_used() + parser_->bytes_used() +
         (viability_ ? viability_->bytes_used() : 0);
}

void Engine::check_room() {
  if (bytes_used() > limits_.grammar_bytes)
    throw LimitError("grammar_bytes", "the tables of one compiled grammar are full");
}

bool Engine::thread_accepts(const Thread& t) {
  if (doubtful(t)) return false;
  if (!t.at_boundary() || !(t.obligation == kAll || lexicon().nullable(t.obligation))) return false;
  return in_blocks(t.parser) ? blocks_close(t.parser, t.indentation) : parser_->accepting(t.parser);
}

// At the end of the text one `dedent` follows for each block that is open.
bool Engine::blocks_close(ParserState parser, Indentation::State indentation) {
  std::optional<ParserState> closed = close_blocks(parser, indentation);
  return closed && parser_->accepting(*closed);
}

std::optional<ParserState> Engine::close_blocks(ParserState parser, Indentation::State indentation) {
  bool doubtful = false;  // only captures set it, and grammars with blocks have none
  for (; indentation_->in_block(indentation); indentation = indentation_->close_block(indentation)) {
    const Parser::Expected* dedent = Parser::find(parser_->lookahead(parser), indentation_->dedent(), 0);
    if (!dedent) return {};
    parser = parser_->shift(parser, *dedent, kNoText, doubtful);
  }
  return parser;
}

namespace {

// Set while a line break that is not in the text is read: what it leads to is looked at, and goes no further.
thread_local bool reading_no_text = false;

constexpr std::size_t kMaxBorders = 256;  // crossed at one place of a text

}  // namespace

std::optional<ParserState> Engine::left(const Thread& t) {
  auto leave = [this](ParserState parser) -> std::optional<ParserState> {
    const Parser::Lookahead& look = parser_->lookahead(parser);
    for (uint32_t i : look.borders) {
      if (symbols_.terminal_info(look.expected[i].terminal).border != SymbolTable::Border::kLeave) continue;
      bool doubtful = false;
      return parser_->shift(parser, look.expected[i], kNoText, doubtful);
    }
    return {};
  };
  auto discharged = [this](const Thread& at) {
    return at.at_boundary() && (at.obligation == kAll || lexicon().nullable(at.obligation));
  };
  if (!in_blocks(t.parser)) return discharged(t) ? leave(t.parser) : std::nullopt;
  auto close = [&](const Thread& at) -> std::optional<ParserState> {
    if (!discharged(at)) return {};
    std::optional<ParserState> closed = close_blocks(at.parser, at.indentation);
    return closed ? leave(*closed) : std::nullopt;
  };
  if (!as_python()) return close(t);
  uint64_t hash = hash_of({&t, 1});
  {
    std::lock_guard lock(left_mutex_);
    for (const auto& [thread, known] : left_[hash])
      if (thread == t) return known;
  }
  std::vector<Thread> at_end;
  reading_no_text = true;
  try {
    step({&t, 1}, '\n', at_end);
  } catch (...) {
    reading_no_text = false;
    throw;
  }
  reading_no_text = false;
  std::optional<ParserState> result;
  for (const Thread& at : at_end)
    if (std::optional<ParserState> after = close(at)) result = result ? parser_->unite(*result, *after) : *after;
  constexpr std::size_t kSize = sizeof(Thread) + 64;
  bytes_.fetch_add(kSize, std::memory_order_relaxed);
  growth_of_this_thread += kSize;
  std::lock_guard lock(left_mutex_);
  left_[hash].emplace_back(t, result);
  return result;
}

void Engine::cross_borders(const Thread& from, std::vector<Thread>& out) {
  if (reading_no_text) return;
  std::vector<Thread> work{from};
  for (std::size_t at = 0; at < work.size(); ++at) {
    if (work.size() > kMaxBorders) throw LimitError("threads", "too many parts may be empty at one place of a text");
    const Thread t = work[at];
    auto arrive_after = [&](ParserState parser, Indentation::State indentation, bool begins) {
      Thread next{kNone, kNone, parser, kNone, kAll, kNoText, indentation, t.scope};
      if (!viability_->viable(next.parser, next.obligation)) return;
      std::vector<Thread> arrived{next};
      if (begins && in_blocks(parser) && as_python()) {
        arrived.clear();
        reading_no_text = true;
        try {
          step({&next, 1}, '\n', arrived);
        } catch (...) {
          reading_no_text = false;
          throw;
        }
        reading_no_text = false;
      }
      for (const Thread& thread : arrived) {
        if (std::ranges::find(work, thread) != work.end()) continue;
        work.push_back(thread);
        out.push_back(thread);
      }
    };
    if (std::optional<ParserState> after = left(t))
      arrive_after(*after, in_blocks(t.parser) ? 0 : t.indentation, false);
    if (!t.at_boundary() || !(t.obligation == kAll || lexicon().nullable(t.obligation))) continue;
    const Parser::Lookahead& look = parser_->lookahead(t.parser);
    for (uint32_t i : look.borders) {
      if (symbols_.terminal_info(look.expected[i].terminal).border != SymbolTable::Border::kEnter) continue;
      bool doubtful = false;
      arrive_after(parser_->shift(t.parser, look.expected[i], kNoText, doubtful), t.indentation, true);
    }
  }
}

// An obligation, of texts that begin a comment of Python's and of others.
std::pair<Node, Node> Engine::before_comment(Node obligation) {
  uint32_t of_comment = comments_.find(static_cast<uint32_t>(obligation));
  if (of_comment != PublishedMap::kUnknown)
    return {Node{of_comment}, Node{others_.find(static_cast<uint32_t>(obligation))}};
  Node comment = lexicon().concat(lexicon().bytes(ByteSet::of('#')), kAll);
  Node first = lexicon().both({obligation, comment});
  Node second = lexicon().both({obligation, lexicon().complement(comment)});
  std::lock_guard lock(mutex_);
  std::size_t size = others_.insert(static_cast<uint32_t>(obligation), static_cast<uint32_t>(second));
  size += comments_.insert(static_cast<uint32_t>(obligation), static_cast<uint32_t>(first));
  bytes_.fetch_add(size, std::memory_order_relaxed);
  growth_of_this_thread += size;
  return {first, second};
}

void Engine::end_newline(const Thread& t, Node obligation, std::vector<Thread>& out) {
  if (indentation_->suspended(t.indentation)) {
    Thread next{kNone, kNone, t.parser, kNone, obligation, kNoText, indentation_->forget_width(t.indentation), t.scope};
    if (viability_->viable(next.parser, next.obligation, dropped(next))) arrive(next, out);
    return;
  }
  auto [of_comment, of_code] = owed_before_lines(obligation);
  if (of_comment != kNone) begin_comment_line(t, of_comment, out);
  if (of_code != kNone) begin_line(t, of_code, out);
}

// A line that holds nothing but a comment has no width: the newline before it is dropped, and the one after it is not.
void Engine::begin_comment_line(const Thread& t, Node owed, std::vector<Thread>& out) {
  Thread line{kNone, kNone, t.parser, kNone, owed, kNoText, indentation_->forget_width(t.indentation), t.scope};
  if (viability_->viable(line.parser, line.obligation)) arrive(line, out);
}

void Engine::begin_line(const Thread& t, Node owed, std::vector<Thread>& out) {
  Thread next{kNone, kNone, t.parser, kNone, owed, kNoText, indentation_->forget_width(t.indentation), t.scope};
  bool broken = indentation_->broken(t.indentation);
  if (!broken && grammar_.indentation->needs_line_break) return;
  bool doubtful = false;
  auto shift = [&](Node terminal) {
    const Parser::Expected* expected = Parser::find(parser_->lookahead(next.parser), terminal, 0);
    if (expected) next.parser = parser_->shift(next.parser, *expected, kNoText, doubtful);
    return expected != nullptr;
  };
  if (!shift(t.group)) return;
  auto width = [&] {
    return broken ? indentation_->compare(t.indentation, next.indentation) : Indentation::Width::kSame;
  };
  if (width() == Indentation::Width::kWider) {
    if (!shift(indentation_->indent())) return;
    next.indentation = indentation_->open_block(next.indentation, t.indentation);
  }
  for (; width() == Indentation::Width::kNarrower; next.indentation = indentation_->close_block(next.indentation))
    if (!shift(indentation_->dedent())) return;
  if (width() != Indentation::Width::kSame) return;
  // A block that must begin or end here cannot any more.
  bool goes_on = blocks_close(next.parser, next.indentation);
  for (const Parser::Expected& e : parser_->lookahead(next.parser).expected)
    goes_on = goes_on || (e.num_entries && e.start != indentation_->indent() && e.start != indentation_->dedent());
  if (mixed()) {
    std::optional<ParserState> closed = close_blocks(next.parser, next.indentation);
    goes_on = goes_on || (closed && !parser_->lookahead(*closed).borders.empty());
  }
  if (goes_on && viability_->viable_after(t.group, next.parser, next.obligation)) arrive(next, out);
}

// Threads that are alike but for the parser state have the same future lexemes, so what may follow them is what may follow the union of
// their kernel items. Without this, every way to cut an ambiguous text into lexemes would be a thread of its own.
void Engine::merge(std::vector<Thread>& threads) {
  if (threads.size() < 2) return;
  auto key = [this](const Thread& t) {
    return std::tuple(t.group, t.lexeme, t.competing, t.obligation, t.text, t.indentation, t.scope,
                      parser_->lexer(t.parser));
  };
  std::ranges::sort(threads, {}, [&](const Thread& t) { return std::tuple_cat(key(t), std::tuple(t.parser)); });
  std::size_t kept = 0;
  for (std::size_t i = 0; i < threads.size();) {
    std::size_t j = i + 1;
    while (j < threads.size() && key(threads[j]) == key(threads[i])) ++j;
    Thread t = threads[i];
    for (std::size_t k = i + 1; k < j; ++k) t.parser = parser_->unite(t.parser, threads[k].parser);
    threads[kept++] = t;
    i = j;
  }
  threads.resize(kept);
}

StateId Engine::intern(std::vector<Thread>& threads) {
  merge(threads);
  if (threads.empty()) return kDead;
  if (threads.size() > limits_.threads) throw LimitError("threads", "the text so far has too many readings");
  uint64_t hash = hash_of(threads);
  std::lock_guard lock(mutex_);
  auto [begin, end] = state_ids_.equal_range(hash);
  for (auto it = begin; it != end; ++it)
    if (states_[it->second].threads == threads) return StateId{it->second};
  if (states_.size() >= limits_.states) throw LimitError("states", "too many sequence states in one compiled grammar");
  check_room();
  std::vector<Thread> at_end;
  if (whole_as_python()) step(threads, '\n', at_end);
  bool accepting =
      std::ranges::any_of(whole_as_python() ? at_end : threads, [this](const Thread& t) { return thread_accepts(t); });
  std::size_t size = sizeof(State) + 48 + threads.size() * sizeof(Thread);
  bytes_.fetch_add(size, std::memory_order_relaxed);
  growth_of_this_thread += size;
  uint32_t id = static_cast<uint32_t>(states_.emplace_back(std::vector<Thread>(threads), accepting));
  state_ids_.emplace(hash, id);
  return StateId{id};
}

uint32_t Engine::begin_text(const Thread& boundary) {
  if (boundary.text == kSomeText) return kSomeText;
  if (is_some_text(boundary.text)) return std::min(boundary.text + 1, kDoubtful);
  if (!parser_->may_capture(boundary.parser)) return kNoText;
  return std::max(boundary.text, kEmptyText);
}

std::pair<Node, uint32_t> Engine::begin_scope(const Thread& boundary, Node group) {
  uint32_t scope = boundary.scope;
  if (scope == NameScopes::kOutside || scope == NameScopes::kUntracked) return {group, scope};
  const auto& names = parser_->lookahead(boundary.parser).names;
  auto found = std::ranges::find(names, group, &std::pair<Node, SymbolTable::Name>::first);
  if (found == names.end()) return {group, scope};
  const SymbolTable::Name& name = found->second;
  if (scope == NameScopes::kFresh) return {group, NameScopes::kSome};
  if (scope == NameScopes::kSome) return {group, endless(name.name) ? NameScopes::kSomeNamed : NameScopes::kDoubtful};
  if (!NameScopes::known(scope)) return {group, scope};
  NameScopes::Scope here = scopes_[scope];
  Node lexeme = here.seen == kNone ? group : without_names(name, here.seen);
  // Which name it is matters to nobody: then all further names are doubtful.
  if (NameScopes::forgets(scope)) return {lexeme, NameScopes::kSome};
  return {lexeme, NameScopes::in_new_name(scope)};
}

bool Engine::endless(Node name) {
  std::lock_guard lock(mutex_);
  auto [it, fresh] = endless_.try_emplace(name, false);
  if (fresh) it->second = endless_everywhere(lexicon(), name);
  return it->second;
}

const std::set<Node>& Engine::behind_name(Node group) {
  std::lock_guard lock(mutex_);
  Node after = symbols_.name_info(group)->after;
  auto [it, fresh] = behind_names_.try_emplace(after);
  if (!fresh) return it->second;
  std::vector<Node> open{after};
  while (!open.empty()) {
    Node at = open.back();
    open.pop_back();
    if (!it->second.insert(at).second) continue;
    lexicon().first_bound(at).for_each([&](uint8_t byte) {
      if (Node next = lexicon().step(at, byte); next != kNone) open.push_back(next);
    });
  }
  return it->second;
}

Node Engine::without_names(const SymbolTable::Name& name, Node seen) {
  std::lock_guard lock(mutex_);
  auto [it, fresh] = without_names_.try_emplace({name.before, name.name, name.after, seen}, kNone);
  if (fresh) {
    Node left = lexicon().excluding(name.name, seen);
    if (lexicon().alive(left)) it->second = lexicon().concat(name.before, lexicon().concat(left, name.after));
    bytes_.fetch_add(96, std::memory_order_relaxed);
    growth_of_this_thread += 96;
  }
  return it->second;
}

// In a scope that is not known well, a name that began there is one that may have come before; one that began earlier cannot be.
uint32_t Engine::scope_after(const Thread& t, ScopeRole role) {
  if (NameScopes::in_name(t.scope)) {
    std::lock_guard lock(mutex_);
    auto [text, scope] = scopes_.name(t.scope);
    const SymbolTable::Name* name = symbols_.name_info(t.group);
    return scopes_.with_names(scope, name->provider->with_name(scopes_[scope].seen, text));
  }
  if (t.scope == NameScopes::kSomeNamed) return NameScopes::kDoubtful;
  if (role == ScopeRole::kOpens) return scopes_.opened(t.scope);
  return role == ScopeRole::kCloses ? scopes_.closed(t.scope) : t.scope;
}

template <typename F>
StateId Engine::with(StateId state, uint32_t Thread::* part, F changed) {
  std::vector<Thread> all(threads(state).begin(), threads(state).end());
  bool same = true;
  for (Thread& t : all) {
    uint32_t before = std::exchange(t.*part, changed(t.*part));
    same = same && t.*part == before;
  }
  return same ? state : intern(all);
}

StateId Engine::textless(StateId state) {
  return with(state, &Thread::text,
              [](uint32_t text) { return text == kNoText || is_some_text(text) ? text : kSomeText; });
}

StateId Engine::untracked(StateId state) {
  return with(state, &Thread::scope,
              [](uint32_t scope) { return NameScopes::known(scope) ? NameScopes::kUntracked : scope; });
}

StateId Engine::generalised(StateId state) {
  std::span<const Thread> now = threads(state);
  if (std::ranges::all_of(now, [](const Thread& t) { return t.text == kNoText && !NameScopes::known(t.scope); }))
    return state;
  std::vector<Thread> general(now.begin(), now.end());
  for (Thread& t : general) {
    if (t.text != kNoText) t.text = kSomeText;
    if (!NameScopes::known(t.scope)) continue;
    // Names of which only some can be gone must be looked at where one begins.
    bool confined =
        t.at_boundary() && std::ranges::any_of(parser_->lookahead(t.parser).names,
                                               [this](const auto& name) { return !endless(name.second.name); });
    if (confined) continue;
    // Before a name's first byte it need not be known what it must not be.
    bool named = false;
    bool in_name = NameScopes::in_name(t.scope);
    auto [text, scope] = in_name ? scopes_.name(t.scope) : std::pair(std::string(), t.scope);
    bool fresh = scopes_[scope].seen == kNone;
    if (in_name && !fresh) {
      const SymbolTable::Name& name = *symbols_.name_info(t.group);
      Node before = lexicon().walk(name.before, text);
      named = before != kNone && !lexicon().nullable(before) && endless(name.name);
      if (named) t.lexeme = lexicon().walk(t.group, text);
    }
    t.scope = named ? NameScopes::kSomeNamed : fresh && !in_name ? NameScopes::kFresh : NameScopes::kSome;
  }
  return intern(general);
}

StateId Engine::forgetful(StateId state) {
  std::vector<Thread> all(threads(state).begin(), threads(state).end());
  forget(all);
  return intern(all);
}

StateId Engine::unnamed(StateId state) {
  return with(state, &Thread::scope, [this](uint32_t scope) {
    return NameScopes::in_name(scope) ? scopes_.forgetful(scopes_.name(scope).second) : scope;
  });
}

void Engine::forget(std::span<Thread> threads) {
  for (Thread& t : threads) t.scope = NameScopes::in_name(t.scope) ? NameScopes::kSome : scopes_.forgetful(t.scope);
}

void Engine::begin_all(const Thread& boundary, std::vector<Thread>& out) {
  uint32_t text = begin_text(boundary);
  for (const auto& [group, first] : parser_->lookahead(boundary.parser).groups) {
    auto [lexeme, scope] = begin_scope(boundary, group);
    if (lexeme == kNone) continue;
    out.push_back({group, lexeme, boundary.parser, modes_.competing_with(group), boundary.obligation, text,
                   boundary.indentation, scope});
  }
  if (reads_newline(boundary)) {
    const auto& groups = parser_->lookahead(boundary.parser).groups;
    Node newline = indentation_->newline(parser_->lexer(boundary.parser));
    if (std::ranges::find(groups, newline, &std::pair<Node, ByteSet>::first) == groups.end())
      out.push_back({newline, newline, boundary.parser, modes_.competing_with(newline), boundary.obligation, text,
                     boundary.indentation, boundary.scope});
  }
}

void Engine::end_lexeme(const Thread& t, std::span<const uint32_t> tags, Node competing, Node follow,
                        std::vector<Thread>& out) {
  const Parser::Lookahead& look = parser_->lookahead(t.parser);
  Node obligation = t.obligation;
  if (viability_) obligation = viability_->after_lexeme(obligation, competing, follow);
  if (obligation == kNone) return;
  if (indentation_ && indentation_->is_newline(t.group)) {
    end_newline(t, obligation, out);
    return;
  }
  Indentation::State indentation = indentation_ ? indentation_->after(t.indentation, t.group) : 0;
  if (indentation == Indentation::kNever) return;
  for (uint32_t tag : tags) {
    const Parser::Expected* expected = Parser::find(look, t.group, tag);
    if (!expected) continue;
    bool doubtful = false, asked = false;
    Thread next{kNone,
                kNone,
                parser_->shift(t.parser, *expected, t.text, doubtful, &asked),
                kNone,
                obligation,
                kNoText,
                indentation,
                scope_after(t, expected->role)};
    if (is_some_text(t.text))
      next.text = doubtful ? kDoubtful : asked ? std::max(t.text, kSomeTextAsked) : t.text;
    else if (t.text != kNoText && parser_->capturing(next.parser))
      next.text = t.text;
    if (viability_ && !viability_->viable_after(t.group, next.parser, next.obligation, dropped(next))) continue;
    arrive(next, out);
  }
}

// A lexeme has taken one more byte and `lexeme` is left of it.
void Engine::lexeme_step(const Thread& t, Node lexeme, Node competing, Node obligation, uint32_t text,
                         std::vector<Thread>& out) {
  Thread next{t.group, lexeme, t.parser, competing, obligation, text, t.indentation, t.scope};
  bool nullable = lexicon().nullable(lexeme);
  if (nullable)
    end_lexeme(next, lexicon().tags(lexeme), competing, viability_ ? lexicon().after_marker(lexeme) : kAll, out);
  if (nullable && !lexicon().continues(lexeme)) return;
  if (viability_ && !viability_->viable(next, dropped(next))) return;
  out.push_back(next);
  // A newline that has begun, such as a comment, may be ended by the line break that is not in the text.
  if (mixed() && as_python() && indentation_->is_newline(t.group)) cross_borders(next, out);
}

void Engine::begin(const Thread& boundary, Node group, uint8_t byte, Node obligation, std::vector<Thread>& out) {
  auto [whole, scope] = begin_scope(boundary, group);
  Node lexeme = lexicon().step(whole, byte);
  if (lexeme == kNone) return;
  if (NameScopes::in_name(scope)) scope = scopes_.longer(scope, byte);
  Node competing = viability_ ? lexicon().step(modes_.competing_with(group), byte) : kNone;
  uint32_t text = parser_->texts().longer(begin_text(boundary), byte);
  Indentation::State indentation = boundary.indentation;
  if (indentation_ && indentation_->is_newline(group)) indentation = indentation_->read(indentation, byte);
  lexeme_step({group, group, boundary.parser, kNone, kAll, kNoText, indentation, scope}, lexeme, competing, obligation,
              text, out);
}

void Engine::step(std::span<const Thread> in, uint8_t byte, std::vector<Thread>& out) {
  for (const Thread& t : in) {
    Node obligation = t.obligation;
    if (obligation != kAll) {
      obligation = lexicon().step(obligation, byte);
      if (obligation == kNone) continue;
    }
    if (t.at_boundary()) {
      const Parser::Lookahead& look = parser_->lookahead(t.parser);
      bool newline = reads_newline(t);
      if (!look.first.has(byte) && !newline) continue;
      for (const auto& [group, first] : look.groups) {
        if (first.has(byte)) begin(t, group, byte, obligation, out);
        newline = newline && !indentation_->is_newline(group);
      }
      if (newline) begin(t, indentation_->newline(parser_->lexer(t.parser)), byte, obligation, out);
    } else {
      Node lexeme = lexicon().step(t.lexeme, byte);
      if (lexeme == kNone) continue;
      Node competing = viability_ ? lexicon().step(t.competing, byte) : kNone;
      uint32_t text = parser_->texts().longer(t.text, byte);
      if (NameScopes::in_name(t.scope)) {
        Thread moved = t;
        moved.scope = scopes_.longer(t.scope, byte);
        lexeme_step(moved, lexeme, competing, obligation, text, out);
      } else if (indentation_ && indentation_->is_newline(t.group)) {
        Thread moved = t;
        moved.indentation = indentation_->read(t.indentation, byte);
        lexeme_step(moved, lexeme, competing, obligation, text, out);
      } else {
        lexeme_step(t, lexeme, competing, obligation, text, out);
      }
    }
  }
}

StateId Engine::advance(StateId state, std::string_view bytes) {
  if (bytes.empty() || state == kDead) return state;
  Lexicon::Budget budget(limits_.lexer_states_per_request);
  std::vector<Thread> now(threads(state).begin(), threads(state).end()), next;
  for (char c : bytes) {
    check_room();
    next.clear();
    step(now, static_cast<uint8_t>(c), next);
    merge(next);
    if (next.empty()) return kDead;
    if (next.size() > limits_.threads) throw LimitError("threads", "the text so far has too many readings");
    std::swap(now, next);
  }
  return intern(now);
}

StateId Engine::advance_special(StateId state, uint32_t index) {
  std::vector<Thread> next;
  for (const Thread& t : threads(state)) {
    if (!t.at_boundary()) continue;
    // Longest match ends where text ends, and a special token is no text: it discharges like the end does.
    if (t.obligation != kAll && !lexicon().nullable(t.obligation)) continue;
    const Parser::Lookahead& look = parser_->lookahead(t.parser);
    for (uint32_t i : look.specials) {
      if (look.expected[i].tag != index) continue;
      bool doubtful = false;
      Thread after{kNone,         kNone,  parser_->shift(t.parser, look.expected[i], t.text, doubtful),
                   kNone,         kAll,   kNoText,
                   t.indentation, t.scope};
      if (parser_->capturing(after.parser)) after.text = std::max(t.text, kEmptyText);
      if (viability_ && !viability_->viable(after.parser, kAll)) continue;
      arrive(after, next);
    }
  }
  return intern(next);
}

ByteSet Engine::first_bound(const Thread& t) {
  ByteSet set = t.at_boundary() ? parser_->lookahead(t.parser).first : lexicon().first_bound(t.lexeme);
  if (t.at_boundary() && reads_newline(t))
    set = set | lexicon().first_bound(indentation_->newline(parser_->lexer(t.parser)));
  if (t.obligation != kAll) set = set & lexicon().first_bound(t.obligation);
  return set;
}

ByteSet Engine::next_bytes(StateId state) {
  ByteSet bound, result;
  for (const Thread& t : threads(state)) bound = bound | first_bound(t);
  std::vector<Thread> out;
  bound.for_each([&](uint8_t byte) {
    out.clear();
    step(threads(state), byte, out);
    if (!out.empty()) result.add(byte);
  });
  return result;
}

bool Engine::always_viable(const Thread& t) {
  return !viability_ || viability_->always_viable(t.group, t.parser, dropped(t));
}

}  // namespace guiderail
