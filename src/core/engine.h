// One grammar at work: lexicon, parser and the interned states of sequences, independent of any vocabulary.
//
// A *thread* is one way to read the text so far: the lexeme being read (which terminal, which remainder of it) and
// the parser state before it; or, at a lexeme boundary, the parser state alone. A *sequence state* is the interned set of threads, almost always one or
// two, so a sequence is one integer: fork copies it, == compares it, and whatever is computed for it (a mask) is computed once.
//
// Under munch a thread also carries what longest match demands: `competing`, the remainder of the union of all terminals
// (who else could still match, longer), and `obligation`, the language that the text to come must belong to so that every lexeme already
// ended stays the longest one. The end of the text discharges an obligation that admits the empty string.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <span>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "core/lexer/indentation.h"
#include "core/lexer/lexer_modes.h"
#include "core/lexer/lexicon.h"
#include "core/parser/grammar.h"
#include "core/parser/name_scopes.h"
#include "core/parser/parser.h"
#include "core/published_map.h"
#include "core/stable_vector.h"

namespace guiderail {

enum class StateId : uint32_t {};
inline constexpr StateId kDead{0};  // the empty set of threads

struct Thread {
  Node group;   // the start node of the lexeme's terminals; kNone at a boundary
  Node lexeme;  // its remainder; kNone at a boundary
  ParserState parser;
  Node competing;                      // munch; else kNone
  Node obligation;                     // munch; else kAll
  uint32_t text = kNoText;             // captured_text.h
  Indentation::State indentation = 0;  // of grammars with blocks by indentation
  uint32_t scope = NameScopes::kOutside;
  bool at_boundary() const { return group == kNone; }
  auto operator<=>(const Thread&) const = default;
};

uint64_t hash_of(std::span<const Thread> threads);

// Limits of one compiled grammar; every field's name is what a LimitError says.
struct Limits {
  std::size_t lexer_states_per_request = 2'000'000;  // new lexicon nodes one call may cause
  std::size_t states = 4'000'000;                    // sequence states alive in one engine
  std::size_t threads = 4'096;                       // readings of one text at once
  std::size_t munch_states = 500'000;  // what one call may need to decide which lexemes may stand side by side
  std::size_t grammar_bytes = std::size_t{1} << 28;  // parser and state tables of one engine
  std::size_t mask_bytes = std::size_t{1} << 28;     // masks of one compiled grammar
  std::size_t request_bytes = std::size_t{1} << 28;  // growth of shared tables that one matcher may cause
};

class MunchViability;

class Engine {
 public:
  Engine(std::shared_ptr<const GrammarSource> source, const Limits& limits);
  ~Engine();

  StateId initial() const { return initial_; }
  // The same state where names may come twice from here on.
  StateId untracked(StateId state);
  // The same state but for captured texts, of which none is known.
  StateId textless(StateId state);
  // The state that stands for all that differ from this one in captured texts and names alone: what it allows they allow, but for tokens that
  // lead to doubtful threads. Itself if there is nothing to forget.
  StateId generalised(StateId state);
  // The same state but for the text of the name that is being read, taking no note of further names.
  StateId forgetful(StateId state);
  void forget(std::span<Thread> threads);
  // The same state but for the text of the name that is being read. Itself if there is none.
  StateId unnamed(StateId state);
  // Was a text or a name that decides whether the thread lives not known?
  bool doubtful(const Thread& t) {
    if (t.text == kSomeTextTwice && (t.at_boundary() || !lexicon().certainly_infinite(t.lexeme))) return true;
    return t.text == kDoubtful || t.scope == NameScopes::kDoubtful ||
           (t.scope == NameScopes::kSomeNamed && behind_name(t.group).contains(t.lexeme));
  }
  // The lexeme of a name that is none of those in `seen`; kNone if there is none.
  Node without_names(const SymbolTable::Name& name, Node seen);
  // What may be left of a name's lexeme once the name is whole.
  const std::set<Node>& behind_name(Node group);
  // Is everything known that may decide about the thread's future?
  static bool well_known(const Thread& t) { return !is_some_text(t.text) && !NameScopes::is_some(t.scope); }
  // kDead if nothing in the language begins this way.
  StateId advance(StateId state, std::string_view bytes);
  // By special token number `index` of symbols().special_tokens().
  StateId advance_special(StateId state, uint32_t index);
  bool accepting(StateId state) const { return states_[static_cast<uint32_t>(state)].accepting; }
  std::span<const Thread> threads(StateId state) const { return states_[static_cast<uint32_t>(state)].threads; }
  StateId intern(std::vector<Thread>& threads);
  // Sorts, and makes one of threads that differ in the parser state alone.
  void merge(std::vector<Thread>& threads);

  // Appends the threads of `in` after one byte to `out`, which is not deduplicated.
  void step(std::span<const Thread> in, uint8_t byte, std::vector<Thread>& out);
  // The threads a lexeme stands for whose last byte has just been read: itself, and what follows if it may end here.
  void settle(const Thread& thread, std::vector<Thread>& out) {
    lexeme_step(thread, thread.lexeme, thread.competing, thread.obligation, thread.text, out);
  }
  // As step, for one lexeme of a boundary thread: begins `group` with `byte`.
  void begin(const Thread& boundary, Node group, uint8_t byte, Node obligation, std::vector<Thread>& out);
  // The lexemes a boundary thread may begin, none of their bytes read yet.
  void begin_all(const Thread& boundary, std::vector<Thread>& out);
  // The boundary threads after the thread's lexeme has ended with one of `tags`, leaving `competing` behind and demanding `follow` of the
  // text to come (Lexicon::after_marker).
  void end_lexeme(const Thread& thread, std::span<const uint32_t> tags, Node competing, Node follow,
                  std::vector<Thread>& out);
  // As end_lexeme, of a newline (indentation.h) that leaves `obligation`.
  void end_newline(const Thread& thread, Node obligation, std::vector<Thread>& out);
  // The two ways in which it ends outside of brackets: before a line that holds nothing but a comment, whatever width has been read, or before one of
  // that width. What is owed then (kNone: there is no such line), and the boundary threads.
  std::pair<Node, Node> owed_before_lines(Node obligation) {
    return as_python() ? before_comment(obligation) : std::pair{kNone, obligation};
  }
  void begin_comment_line(const Thread& newline, Node owed, std::vector<Thread>& out);
  void begin_line(const Thread& newline, Node owed, std::vector<Thread>& out);
  // What bytes may come next.
  ByteSet next_bytes(StateId state);
  // A superset, cheaply.
  ByteSet first_bound(const Thread& thread);

  Lexicon& lexicon() { return symbols_.lexicon(); }
  SymbolTable& symbols() { return symbols_; }
  Parser& parser() { return *parser_; }
  NameScopes& scopes() { return scopes_; }
  // Null unless lexing is munch.
  MunchViability* viability() { return viability_.get(); }
  Lexing lexing() const { return grammar_.lexing; }
  // Where the parser does not see newlines, their start node (MunchViability::Dropped).
  Node dropped(const Thread& t) const { return dropped(t.parser, t.indentation); }
  Node dropped(ParserState parser, Indentation::State indentation) const {
    return in_blocks(parser) && indentation_->suspended(indentation) ? indentation_->newline(parser_->lexer(parser))
                                                                     : kNone;
  }
  // Is a newline, which the parser does not see here, to be read all the same?
  bool reads_newline(const Thread& boundary) const {
    return in_blocks(boundary.parser) && indentation_->suspended(boundary.indentation) &&
           parser_->lookahead(boundary.parser).skips;
  }
  // Is this a grammar with parts that are lexed in different ways?
  bool mixed() const { return symbols_.parts().mixed(); }
  // Null unless the grammar has blocks by indentation.
  Indentation* indentation() const { return indentation_.get(); }
  // What the grammar says of them.
  const IndentationRule& indentation_rule() const { return *grammar_.indentation; }
  // Is the whole text read as if it stood between two line breaks (indentation.h)?
  bool whole_as_python() const { return as_python() && grammar_.first_lexer == symbols_.parts().indentation_lexer; }
  bool marked() const { return grammar_.marked; }              // see OpenGrammar
  uint32_t num_lexers() const { return grammar_.num_lexers; }  // see OpenGrammar
  bool shadowed() const { return grammar_.shadowed; }          // see OpenGrammar
  const LexerModes& modes() const { return modes_; }
  const Limits& limits() const { return limits_; }
  std::size_t num_states() const { return states_.size(); }
  std::size_t bytes_used() const;

  // Under munch: can every lexeme of the thread's group ended in its parser state go on, whatever it leaves behind? Then masks of the lexeme
  // need not look at what follows.
  bool always_viable(const Thread& thread);
  // endless_everywhere, remembered.
  bool endless(Node name);

 private:
  struct State {
    std::vector<Thread> threads;
    bool accepting;
    State(std::vector<Thread> threads, bool accepting) : threads(std::move(threads)), accepting(accepting) {}
  };

  void lexeme_step(const Thread& thread, Node lexeme, Node competing, Node obligation, uint32_t text,
                   std::vector<Thread>& out);
  // What a lexeme that begins at a boundary has captured before its first byte.
  uint32_t begin_text(const Thread& boundary);
  // The lexeme and the scope with which `group` begins at a boundary: names that the scope has had are taken out.
  std::pair<Node, uint32_t> begin_scope(const Thread& boundary, Node group);
  uint32_t scope_after(const Thread& ended, ScopeRole role);
  // The state with one part of each thread changed; itself if none is.
  template <typename F>
  StateId with(StateId state, uint32_t Thread::* part, F changed);
  bool thread_accepts(const Thread& thread);
  bool blocks_close(ParserState parser, Indentation::State indentation);
  // Is this a place where blocks are made by indentation?
  bool in_blocks(ParserState parser) const {
    return indentation_ && (!mixed() || parser_->lexer(parser) == symbols_.parts().indentation_lexer);
  }
  // Is the text read as if it stood between two line breaks (indentation.h)?
  bool as_python() const { return indentation_ && indentation_->as_python(); }
  // A boundary has come up: adds it, and what may go on right here because a part of the grammar begins or ends.
  void arrive(const Thread& boundary, std::vector<Thread>& out) {
    out.push_back(boundary);
    if (mixed()) cross_borders(boundary, out);
  }
  std::pair<Node, Node> before_comment(Node obligation);
  void cross_borders(const Thread& thread, std::vector<Thread>& out);
  // The parser state after the end of the part that the thread stands in, if it may end here; the dedents of blocks that are open included.
  std::optional<ParserState> left(const Thread& thread);
  std::optional<ParserState> close_blocks(ParserState parser, Indentation::State indentation);
  void check_room();

  std::shared_ptr<const GrammarSource> source_;
  Limits limits_;
  std::recursive_mutex mutex_;
  SymbolTable symbols_;
  OpenGrammar grammar_;
  std::unique_ptr<Parser> parser_;
  LexerModes modes_;
  std::unique_ptr<MunchViability> viability_;
  std::unique_ptr<Indentation> indentation_;
  NameScopes scopes_;
  std::map<std::array<Node, 4>, Node> without_names_;
  std::map<Node, bool> endless_;
  PublishedMap comments_, others_;  // before_comment
  std::map<Node, std::set<Node>> behind_names_;
  StableVector<State> states_;
  std::unordered_multimap<uint64_t, uint32_t> state_ids_;
  StateId initial_{};
  std::atomic<std::size_t> bytes_{0};
  // Of threads in a part that is read as if a line break followed: the state that leaving it there leads to.
  std::mutex left_mutex_;
  std::unordered_map<uint64_t, std::vector<std::pair<Thread, std::optional<ParserState>>>> left_;
};

}  // namespace guiderail
