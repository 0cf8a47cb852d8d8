// Longest match, and what it makes impossible.
//
// Under munch, productive rules are not enough: `NAME NAME` with nothing between has no text at all, because any second
// NAME would extend the first. A parser state p under an obligation o (obligations.h) is *viable* if some sequence of
// lexemes leads from p to acceptance while every obligation on the way is met. There are finitely many obligations, so
// this is the emptiness of a context-free language intersected with a regular one (Bar-Hillel, Perles, Shamir 1961): a
// least fixpoint over
//
//   ends(X, o)   the obligations that can be left when a symbol X, read from o on, is complete
//   suffix(i, o) the same for what is left of a production from position i on
//
// where a terminal's ends come from the product in lexeme_ends.h after any number of ignored lexemes, followed by a
// search through return contexts, (context, obligation) to (context, obligation), for acceptance with an obligation
// that the end of the text discharges. All of it on demand and kept. Of two obligations where one implies the other
// only the weaker is followed, which leaves one or two per symbol in ordinary languages.
//
// Most grammars need none of that. Call an obligation s a *separator* if the empty string meets it and every terminal,
// read from s on, has an end after which ignored lexemes lead back to s (or to something weaker); an obligation is
// *clean* if they lead from it to s. Then every productive rule can be completed from every clean obligation, whatever
// the parser state: one lookup. With ignored spaces, s is 'no further space'.
//
// Where there is no such s, the same is asked terminal by terminal. An obligation is *safe* after the terminal T if every terminal that some rule
// lets follow T can be read from it on, ignored lexemes before it included, to an end that is safe after it, and the end of the text meets the
// obligation if T may be the last. That is a greatest fixpoint over terminals and obligations, whatever the parser state, and again each way in which
// productive rules could complete the text can be lexed.
//
// Where several lexers read in turn (Lexing::kOrdered), the terminal read last says which one is next, so an obligation
// comes with a lexer everywhere above: a *situation*.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <span>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "core/lexer/lexeme_ends.h"
#include "core/lexer/lexer_modes.h"
#include "core/lexer/lexicon.h"
#include "core/lexer/obligations.h"
#include "core/parser/parser.h"
#include "core/published_map.h"

namespace guiderail {

struct Thread;

// Any thread may call anything; answers given before take no lock, others the engine's.
class MunchViability {
 public:
  // Every terminal of the grammar is registered in `symbols` by now. `marked`: some look past their end (OpenGrammar). `max_states` bounds a single question (LimitError
  // `munch_states`). `rests`: what the text after a special token must lie in, for obligations that say so of all other
  // text (see liveness.h). `special[i]`: may special token i be used? Those beyond the list may. `surveys`: is it worth while to look for separators
  // and safe ends, which takes `rests` through all terminals?
  MunchViability(Parser& parser, SymbolTable& symbols, const LexerModes& modes, bool marked, uint32_t num_lexers,
                 bool shadowed, std::size_t max_states, Node rests = kAll, std::vector<bool> special = {},
                 bool surveys = true);

  // What the text after a lexeme must not do: complete a longer match from `competing`, the remainder of all terminals
  // of the lexeme's mode.
  // Equal languages are the same node.
  Node no_longer_match(Node competing) { return obligations_.no_longer_match(competing); }
  // The obligation at the boundary that a lexeme's end creates; kNone if there can be none. `follow`: what the terminal
  // itself demands of the text behind it (Lexicon::after_marker).
  Node after_lexeme(Node obligation, Node competing, Node follow) {
    return obligations_.after(obligation, competing, follow);
  }

  // Where newlines are dropped (indentation.h), the newline terminal's start, else kNone. What follows may then begin after a newline.
  using Dropped = Node;

  // Can the boundary be continued (by nothing, perhaps) to a text of the language?
  bool viable(ParserState parser, Node obligation, Dropped newline = kNone);
  // The same for the boundary that the end of a lexeme of `group` has led to.
  bool viable_after(Node group, ParserState parser, Node obligation, Dropped newline = kNone) {
    return safe_after(group, obligation) || viable(parser, obligation, newline);
  }
  // Can the lexeme be continued, by one byte at least, to an end that is viable?
  bool viable(const Thread& inside_lexeme, Dropped newline = kNone);
  // The last two, whatever the parser state and under the one lexer there is: false means 'not known'.
  bool surely_viable_after(Node group, Node obligation);
  bool surely_viable(Node group, Node lexeme, Node competing, Node obligation);
  // Is there a lexeme whose ends are all known to go on, whatever the parser state?
  bool tells_ends();
  // Is every parser state viable under the obligation that expects this? And every lexeme after which what is expected is this? Of grammars with one
  // lexer; false means 'not known'.
  bool viable_in_shape(const Parser::Lookahead& look, Node obligation, Dropped newline = kNone);
  bool viable_before_shape(const Parser::Lookahead& after, Node lexeme, Node competing, Node obligation,
                           Dropped newline = kNone);
  // What all obligations say.
  Node rests() const { return rests_; }
  // Is every thread that reads a lexeme of `group`, begun under no obligation, viable, and every boundary after it?
  // False also means 'not known'.
  bool always_viable(Node group, ParserState parser, Dropped newline = kNone);

  std::size_t bytes_used() const { return effort_.bytes_used(); }

 private:
  // An obligation and the lexer that reads on under it. Under lexer 0 the number is that of the obligation.
  enum class Situation : uint32_t {};
  static constexpr uint32_t kOtherLexer = uint32_t{1} << 31;  // beyond all nodes; below: an index into situations_
  Situation situation(Node obligation, uint32_t lexer);
  Node obligation_of(Situation s) const {
    uint32_t number = static_cast<uint32_t>(s);
    return number & kOtherLexer ? situations_[number & ~kOtherLexer].first : Node{number};
  }
  uint32_t lexer_of(Situation s) const {
    uint32_t number = static_cast<uint32_t>(s);
    return number & kOtherLexer ? situations_[number & ~kOtherLexer].second : 0;
  }
  // Does what follows the stronger one follow the weaker one, too?
  bool implies(Situation stronger, Situation weaker) {
    return lexer_of(stronger) == lexer_of(weaker) &&
           obligations_.implies(obligation_of(stronger), obligation_of(weaker));
  }

  // Sets of situations that grow until they obey all edges.
  struct Variable {
    uint64_t what;  // symbol or position, situation
    bool is_symbol;
    bool started = false, queued = false;
    struct Edge {
      uint32_t position;  // kCopy, or: values go on through suffix(position, value)
      uint32_t target;
      uint32_t done = 0;  // values already handed on
    };
    std::vector<Situation> values;
    std::vector<Edge> edges;
  };
  static constexpr uint32_t kCopy = UINT32_MAX;
  static constexpr uint32_t kNoSeparator = UINT32_MAX;
  static constexpr uint64_t key(uint32_t a, uint32_t b) { return (uint64_t{a} << 32) | b; }

  bool is_ignored(Symbol terminal) const;
  uint32_t lexer_after(const Thread& inside_lexeme);
  void keep_weakest(std::vector<Situation>& set, Situation situation);
  const std::vector<Situation>& after_ignored(Situation situation);
  const std::vector<Situation>& after_terminal(Symbol terminal, Situation situation);
  void ends_of(Symbol terminal, Situation situation, std::vector<Situation>& out);
  bool may_end(Situation situation);

  void find_separator();
  bool separates(uint32_t candidate);
  bool clean(uint32_t candidate, Situation situation);
  bool known_clean(Node obligation, uint32_t lexer) const;

  // What may stand behind what: sets of terminals, by index, as bits.
  using Terminals = std::vector<uint64_t>;
  void find_followers();
  // False also where nobody knows what may follow what.
  bool safe_after(Node group, Node obligation);
  bool safe(uint32_t terminal, Node obligation);
  // What is owed behind a newline that the parser will not see.
  std::vector<Situation> after_dropped(Situation situation, Node newline);
  bool leads_into_shape(const Parser::Lookahead& after, uint32_t state, Dropped newline);
  bool shapes_tell() const { return surveys_ && num_lexers_ == 1 && !mixed_ && no_tags_; }
  // Does the state of `ends_`, inside a lexeme of `group`, lead to a safe end?
  bool leads_to_safe_end(Node group, uint32_t state);

  uint32_t symbol_variable(uint32_t symbol, Situation situation) {
    return variable(symbol_variables_, symbol, situation, true);
  }
  uint32_t suffix_variable(uint32_t position, Situation situation) {
    return variable(suffix_variables_, position, situation, false);
  }
  uint32_t variable(std::unordered_map<uint64_t, uint32_t>& table, uint32_t which, Situation situation, bool is_symbol);
  void enqueue(uint32_t variable);
  void add(uint32_t variable, Situation value);
  void connect(uint32_t from, uint32_t to);
  void start(uint32_t variable);
  void propagate(uint32_t variable);
  const std::vector<Situation>& suffix(uint32_t position, Situation situation);

  bool decide(ParserState parser, Situation situation);
  bool returns_to_acceptance(const std::vector<uint64_t>& roots);
  const Parser::Continuations& continuations(uint32_t context);

  Parser& parser_;
  SymbolTable& symbols_;
  Lexicon& lexicon_;
  const LexerModes& modes_;
  Node rests_;
  uint32_t num_lexers_;
  bool mixed_;    // a grammar with parts that are lexed in different ways
  bool surveys_;  // and all terminals are known
  std::vector<bool> special_;
  MunchEffort effort_;
  Obligations obligations_;
  LexemeEnds ends_;

  bool no_tags_ = true;  // a lexeme has one tag: an end is an end
  std::vector<std::pair<Node, uint32_t>> situations_;
  std::unordered_map<uint64_t, Situation> situation_ids_;
  std::unordered_map<uint32_t, std::vector<Situation>> after_ignored_;
  std::unordered_map<uint64_t, std::vector<Situation>> after_terminal_;

  std::vector<Node> candidates_;  // for the separator
  uint32_t separator_ = kNoSeparator;
  std::vector<uint32_t> separator_questions_;  // by the lexer that is next
  PublishedMap clean_;                         // candidate and lexer, obligation → 0, 1

  std::unordered_map<uint32_t, uint32_t>
      terminal_of_;                   // start of a group → index of its terminal; empty: nothing is safe
  std::vector<Terminals> followers_;  // by index of a terminal
  std::vector<bool> last_;            // may it be the last?
  PublishedMap safe_;                 // terminal, obligation → 0, 1
  PublishedMap safe_questions_;       // group → question for `ends_`: does it lead to a safe end?

  std::deque<Variable> variables_;
  std::unordered_map<uint64_t, uint32_t> symbol_variables_, suffix_variables_;
  std::unordered_set<uint64_t> copies_;  // copy edges there are
  std::vector<uint32_t> queue_;

  std::unordered_map<uint32_t, Parser::Continuations> continuations_;
  std::unordered_map<uint64_t, bool> returns_;  // context, situation → acceptance can be reached
  PublishedMap boundaries_[2];                  // newlines seen, dropped: parser state, obligation → 0, 1
  PublishedMap questions_[2];                   // the same: parser state, group → question for `ends_`
  PublishedMap shape_boundaries_[2];            // the same: number of a shape, obligation → 0, 1
  PublishedMap shape_questions_[2];             // the same: number of a shape → question for `ends_`
  uint32_t num_questions_ = 0;
  PublishedMap always_[2];  // the same: parser state, group → 0, 1
  struct GroupEnds {
    bool known, clean;
    std::vector<LexemeEnds::End> ends;
  };
  std::unordered_map<uint32_t, GroupEnds> group_ends_;
  const GroupEnds& group_ends(Node group);
  bool every_state_ends(Node group);
  // Does a lexeme of the group, begun in the state, belong to what is lexed freely in a grammar with parts?
  bool lexed_freely(Node group, ParserState parser) const {
    return mixed_ && parser_.lexer(parser) == 0 && modes_.competing_with(group) == kNone;
  }
};

}  // namespace guiderail
