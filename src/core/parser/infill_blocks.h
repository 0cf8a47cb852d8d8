// Infilling where blocks are made by indentation: can a text lead to a suffix whose lines have widths of their own?
//
// The check of longest match (munch.h) reads `indent` and `dedent` as if they were free, because lines that nobody has written yet can be as wide as
// they need to be. Lines of a suffix cannot. So a *situation* here says, beside what must be met, the *frame*: the width of the innermost block, and
// whether brackets are open (then newlines are dropped); and the width of a newline just read, *pending* until the next lexeme says that it is
// the block's, or an `indent` or `dedent` that it is more or less. A least fixpoint as in munch.h says what a symbol can leave, read in a situation.
//
// A situation stands before the suffix, under an obligation, or at a position in it. There everything that is to come is known, so what
// longest match demands is looked up at once, and a situation is little more than its position. A lexeme may begin before the suffix and end in it.
//
// Which frame is outside of the innermost one does not matter to what stands inside. So where a production opens a block or a bracket, what
// follows is asked for up to the symbol that closes it, and what is behind that goes on in the production's own frame. At the ends of productions that were
// begun before, the stack of frames is the one that the text has; it is popped along with the return contexts.
//
// Widths. What is wider than any line of the suffix can be, is one width, kFree: lines that wide are still to be written, or begin in text to be
// written, so they can be what is asked of them. Narrower ones are told apart. Two ways to open a block in a gap between the widths of
// the suffix's lines differ in nothing but the room that they leave below the next width, so only the narrowest is tried.
//
// All this wants rules that close what they open: a nonterminal may open one block or bracket more than it closes, or close one at its
// end, and no more. Others are refused (GrammarError).
#pragma once

#include <array>
#include <compare>
#include <cstdint>
#include <deque>
#include <map>
#include <set>
#include <string>
#include <string_view>
#include <tuple>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "core/engine.h"
#include "core/lexer/indentation.h"
#include "core/lexer/obligations.h"
#include "core/parser/parser.h"

namespace guiderail {

class InfillBlocks {
 public:
  // Which lines to be written are looked at: any, or only those indented by spaces, or only by tabs, which is enough where the suffix and the
  // open blocks are.
  enum class Letters : uint8_t { kAny, kSpaces, kTabs };
  struct Widths {
    Letters letters = Letters::kSpaces;
    uint32_t free = 1;  // lines of so many columns, or more, are kFree
    auto operator<=>(const Widths&) const = default;
  };

  // `before`: what may stand before the suffix. `special`: as in munch.h.
  InfillBlocks(Engine& engine, Node before, std::vector<bool> special, std::string_view suffix, const Widths& widths);

  // What is enough for a suffix and the lines that a thread has read.
  static Widths enough(Engine& engine, std::string_view suffix, const Thread& thread);

  // Can the thread's text be completed so that it ends with the suffix? With the parser's mutex held.
  bool viable(const Thread& thread);

 private:
  using Columns = Indentation::Columns;
  static constexpr uint32_t kFree = UINT32_MAX >> 2;  // a width; others are indices into widths_
  static constexpr uint32_t kChosen = kFree - 1;  // of a newline that is still to be written: whatever is asked of it
  static constexpr uint32_t kNothing = 0,
                            kEnd = 1;  // pending: no newline; the text has ended; others: 2 + index into pendings_
  struct Pending {
    uint32_t width;
    bool closed;  // some block already
    auto operator<=>(const Pending&) const = default;
  };
  // The innermost block's width, and whether brackets are open.
  struct Frame {
    uint32_t width = 0;
    bool brackets = false;
    auto operator<=>(const Frame&) const = default;
  };
  static constexpr uint32_t kBefore = UINT32_MAX;
  struct Situation {
    uint32_t position = kBefore;  // in the suffix
    Node obligation = kAll,
         rest = kAll;  // before it: what longest match demands, and what is left of what may stand there
    uint32_t lexer = 0, pending = kNothing;
    Frame frame;
    auto operator<=>(const Situation&) const = default;
  };
  // Where a lexeme may end: before the suffix or in it.
  struct End {
    uint32_t tag, position;
    Node obligation, rest;
    auto operator<=>(const End&) const = default;
  };
  // What symbols do to frames.
  enum class Effect : uint8_t { kUnknown, kNone, kOpensBlock, kOpensBracket, kClosesBlock, kClosesBracket };
  static bool opens(Effect e) { return e == Effect::kOpensBlock || e == Effect::kOpensBracket; }
  static bool closes(Effect e) { return e == Effect::kClosesBlock || e == Effect::kClosesBracket; }
  static constexpr uint32_t kKeep = UINT32_MAX;  // a value's own frame

  struct Edge {
    enum class Kind : uint8_t { kCopy, kWidth, kGo, kRegion, kClose };
    Kind kind;
    uint32_t position;  // where values go on; kClose: where they are closed
    uint32_t close;     // kRegion: of the symbol that closes
    uint32_t frame;     // index into frames_, or kKeep
    uint32_t target;
    uint32_t done = 0;
  };
  struct Variable {
    uint32_t which, situation;
    bool is_symbol, started = false, queued = false;
    std::vector<uint32_t> values;  // indices into situations_
    std::vector<Edge> edges;
  };
  // Ends of a newline, with its width.
  struct NewlineEnd {
    uint32_t position;
    Node obligation, rest;
    Columns columns;
    bool broken;
    auto operator<=>(const NewlineEnd&) const = default;
  };
  struct Stack {
    uint32_t outer;
    Frame frame;
    auto operator<=>(const Stack&) const = default;
  };
  struct Place {  // an item in a context is complete
    uint32_t context, situation, stack;
    auto operator<=>(const Place&) const = default;
  };

  void find_effects();
  Effect effect_of_production(uint32_t start, bool& known) const;
  Effect effect(uint32_t symbol) const;
  uint32_t closing_position(uint32_t position) const;
  bool unclosed(uint32_t position) const;
  enum class Role : uint8_t { kText, kSpecial, kNewline, kIndent, kDedent, kOpens, kCloses };
  Role role(Symbol terminal) const;
  bool is_ignored(Symbol terminal) const;

  uint32_t intern(const Situation& s);
  uint32_t frame_id(const Frame& f);
  uint32_t width(Columns columns);
  uint32_t pending(const Pending& p);
  uint32_t stack(uint32_t outer, const Frame& frame);
  bool same(uint32_t pending, uint32_t block) const { return pending == block || pending == kChosen; }
  bool wider(uint32_t a, uint32_t b) const;
  bool narrower(uint32_t a, uint32_t b) const;
  // The pending newline is as wide as the block; false if it is not.
  bool resolve(Situation& s) const;
  bool implies(const Situation& stronger, const Situation& weaker);
  void keep_weakest(std::vector<Situation>& set, const Situation& s);

  // Does what is left of the suffix meet an obligation?
  bool meets(Node obligation, std::size_t position);
  const std::vector<End>& ends_in_suffix(Node lexeme, Node competing, uint32_t position);
  const std::vector<End>& ends(Node lexeme, Node competing, Node obligation, Node rest);
  void ends_of(Symbol terminal, const Situation& from, std::vector<Situation>& out);
  // The situation at the suffix's beginning, if what stands before it may end here.
  bool at_suffix(const Situation& from, Situation& out);
  // Where a lexeme may begin: `skips`, after any number of lexemes that the parser does not see.
  std::vector<Situation> beginnings(const Situation& from, bool skips);
  bool may_end(const Situation& from);
  void newline_ends_in_suffix(Node lexeme, Node competing, uint32_t position, Columns columns, bool broken,
                              uint32_t most, std::vector<NewlineEnd>& out);
  std::vector<NewlineEnd> newline_ends(Node lexeme, Node competing, Node obligation, Node rest, Columns columns,
                                       bool broken, uint32_t most);
  const std::vector<NewlineEnd>& newlines(const Situation& from);
  void after_newline(const Situation& from, Node start, uint32_t next_lexer, std::vector<Situation>& out);
  void after_terminal(Symbol terminal, const Situation& from, std::vector<Situation>& out);

  // What may come first, as bits: in a nonterminal, and in a situation inside the suffix.
  using Terminals = std::vector<uint64_t>;
  void find_firsts();
  const Terminals& readable(const Situation& from);
  bool may_begin(uint32_t position, const Situation& from);
  // Is the pending newline one with which a block may begin?
  bool may_indent(const Situation& from) const;

  uint32_t variable(uint32_t which, uint32_t situation, bool is_symbol);
  void enqueue(uint32_t number);
  void add(uint32_t number, uint32_t value);
  void connect(uint32_t from, Edge edge);
  void start(uint32_t number);
  void hand_on(uint32_t value, const Edge& edge);
  void go_on(uint32_t position, uint32_t value, uint32_t target);
  void propagate(uint32_t number);
  std::vector<uint32_t> solve(uint32_t number);

  bool decide(ParserState parser, const Situation& from, uint32_t stack);
  void complete_item(const Parser::Entry& item, uint32_t situation, uint32_t stack, std::vector<Place>& out);
  bool returns_to_acceptance(const std::vector<Place>& roots);
  bool viable_in_newline(const Thread& thread, uint32_t stack);
  uint32_t stack_of(const Indentation::State& state);
  const Parser::Continuations& continuations(uint32_t context);

  Engine& engine_;
  Parser& parser_;
  SymbolTable& symbols_;
  Lexicon& lexicon_;
  const LexerModes& modes_;
  const Indentation& blocks_;
  Node before_;
  std::string suffix_;  // with the line break that Python reads behind a text
  std::vector<bool> special_;
  Widths how_;
  std::vector<uint32_t> choices_;  // widths that kChosen may be, ascending; none where it is not used
  std::vector<uint32_t> lines_;    // columns that lines of the suffix may have, sorted
  MunchEffort effort_;
  Obligations obligations_;
  Node comment_ = kNone, no_comment_ = kNone;  // what stands after a newline that Python drops, or does not

  std::vector<Effect> effects_;  // of nonterminals
  std::vector<bool> has_lines_;  // do newlines, or blocks, occur in it?

  std::vector<Situation> situations_;
  std::map<Situation, uint32_t> situation_ids_;
  std::vector<Frame> frames_;
  std::map<Frame, uint32_t> frame_ids_;
  std::vector<Columns> widths_;
  std::map<Columns, uint32_t> width_ids_;
  std::vector<Pending> pendings_;
  std::map<Pending, uint32_t> pending_ids_;
  std::vector<Stack> stacks_;
  std::map<Stack, uint32_t> stack_ids_;

  std::map<std::tuple<Node, Node, uint32_t>, std::vector<End>> ends_in_suffix_;
  std::map<std::array<Node, 4>, std::vector<End>> ends_;
  std::map<Situation, std::vector<Situation>> beginnings_;
  std::map<Situation, std::vector<NewlineEnd>> newlines_;
  std::map<Node, bool> meets_;  // at the suffix's beginning
  std::vector<Terminals> firsts_;
  Terminals indents_;
  std::map<Situation, Terminals> readable_;
  std::deque<Variable> variables_;
  std::unordered_map<uint64_t, uint32_t> symbol_variables_, suffix_variables_;
  std::set<std::array<uint32_t, 6>> connected_;
  std::vector<uint32_t> queue_;
  std::unordered_map<uint32_t, Parser::Continuations> continuations_;
  std::map<Place, bool> returns_;
};

}  // namespace guiderail
