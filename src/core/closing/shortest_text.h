// A short completion of a sequence state, in bytes: what `completion.h` cuts into tokens.
//
// Costs count bytes (a special token counts one) over a given set of bytes, those that are tokens of their own, so that any text found can be
// written in tokens:
//
//   a terminal costs its shortest lexeme, found by a search through the lexicon;
//   a nonterminal the cheapest of its productions (Knuth 1977), on demand: a free-order JSON object has 2^n of them, so one search looks into
//     those met first, another goes down what is needed for a first answer, and some time after that both stop;
//   a parser state the cheapest way through return contexts to acceptance (Dijkstra 1959).
//
// Costs are upper bounds, and each is the length of a text that there is. The symbols' texts one after the other are
// tried on the engine. Under munch they may lex differently; then they are tried with an ignored byte between any two lexemes, and lines as wide as
// the blocks that are open. Where that is no text either, and where what follows a captured text depends on it, the states of the engine are searched,
// the cost above as estimate of what is left (A*; Hart, Nilsson and Raphael 1968).
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <optional>
#include <unordered_map>
#include <vector>

#include "core/closing/reach.h"
#include "core/engine.h"
#include "core/text/byte_set.h"

namespace guiderail {

class ShortestText {
 public:
  static constexpr uint32_t kUnknown = UINT32_MAX;  // a cost: none is known
  // A byte, or kSpecial + the number of a special token of the grammar.
  using Piece = uint32_t;
  static constexpr Piece kSpecial = 256;

  // `preference` lists the bytes that texts may be made of, best first; `special[i]`: may special token i of the grammar be used?
  ShortestText(Engine& engine, std::vector<uint8_t> preference, std::vector<bool> special);

  // What completes the text, nothing if no completion is known. With the parser's mutex held.
  std::optional<std::vector<Piece>> find(StateId state);
  // At most so many pieces complete the text of a state with these threads, kUnknown if that is not known: the symbols' texts one after the other.
  // Only under free lexing; kUnknown where it depends on a captured text. With the parser's mutex held.
  uint32_t bound(std::span<const Thread> threads);
  // As the other, after any token that keeps the lexeme going.
  uint32_t bound(const Reach::Kept& kept);
  // The longest that the shortest rest of a name becomes while it is read, where it must be none of those in `seen`.
  uint32_t longest_rest(const Reach::Name& name, Node seen);

 private:
  struct LexemeStep {
    uint32_t length;  // of the shortest rest
    uint8_t byte;     // its first
  };
  struct Nonterminal {
    bool expanded = false, searched = false;
    uint32_t cost = kUnknown, best = kUnknown;  // best: where its cheapest production starts
    std::vector<uint32_t> used_by;              // productions
    std::vector<uint32_t> needs;                // nonterminals of its productions
  };
  struct Production {
    uint32_t owner, start, terminals;  // terminals: what those cost
    std::vector<uint32_t> nonterminals;
  };
  // The rest of a way: an item to be written, then its context's own way. position kEnd: the text may end.
  struct Way {
    uint32_t cost;
    Parser::Entry next;
  };
  struct Hop {
    Piece piece;
    StateId next;
    uint32_t cost;
  };

  // Does it depend on a captured text how the text written goes on at this position? Not where the generic continuation can end with one lexeme, which
  // then is the cheapest way: what follows any text can as well (SymbolTable::capture).
  bool depends_on_text(uint32_t position);
  // A cost with this bit is that of a text that may turn out not to fit: a captured text decides what follows, or a name is written that may have come
  // before. Others are preferred.
  static constexpr uint32_t kDoubtful = uint32_t{1} << 31;
  static uint32_t length(uint32_t cost) { return cost == kUnknown ? kUnknown : cost & ~kDoubtful; }
  static uint32_t sum(uint32_t a, uint32_t b) {
    if (a == kUnknown || b == kUnknown || length(a) + length(b) >= kMaxCost) return kUnknown;
    return (length(a) + length(b)) | ((a | b) & kDoubtful);
  }
  static constexpr uint32_t kMaxCost = uint32_t{1} << 30;
  static constexpr uint32_t kMaxBytes = 1 << 20;  // of a completion
  static constexpr uint64_t key(Node n, uint32_t tag) { return (uint64_t{static_cast<uint32_t>(n)} << 32) | tag; }
  // f(byte) for one byte of each class of the node that the texts may use, best first, until f returns true.
  template <typename F>
  void for_each_class(Node node, F f);
  // The shortest lexeme with the tag.
  uint32_t lexeme(Node node, uint32_t tag);
  // The tags that texts of `node` may end with; none: there are too many to say.
  const std::vector<uint32_t>& ends(Node node);
  uint32_t multiple(Node node, uint32_t tag);
  void explore(Node root, uint32_t wanted);
  struct LongestRest {
    uint32_t length;
    Node without;  // if that is kUnknown: a remainder that cannot end so, or kNone
  };
  // The longest that the shortest rest may become while `node` is read, over all that can be read; ends with one of `tags`.
  LongestRest longest_rest(Node node, const std::vector<uint32_t>& tags);
  uint32_t rest(Node node, const std::vector<uint32_t>& tags);
  uint32_t terminal(Symbol symbol);
  bool may_be_empty(Symbol terminal);
  uint32_t nonterminal(uint32_t root);
  void expand(uint32_t nonterminal);
  // Can the nonterminal still make something cheaper that needs it?
  bool useful(uint32_t nonterminal);
  bool wanted(uint32_t nonterminal);
  void improve(uint32_t nonterminal, uint32_t cost, uint32_t start);
  Nonterminal& at(uint32_t nonterminal);
  uint32_t cost_from(uint32_t position);
  const Way& boundary(ParserState state);
  const Parser::Continuations& continuations(uint32_t context);
  // The cheapest way on from inside a lexeme: its cost, and the terminal that the lexeme becomes.
  uint32_t inside(const Thread& thread, const Parser::Expected*& best);
  ParserState after(const Thread& thread, const Parser::Expected& end);
  uint32_t cost(const Thread& thread);
  uint32_t cost(StateId state);

  // What is written between lexemes, if anything is, and where that is: whether a newline was the last lexeme, how wide it is already, and the widths of
  // the open blocks.
  struct Spacing {
    bool spaced = false, line = false;
    uint32_t read = 0;
    std::vector<uint32_t> blocks{};
    // Where names must not come twice: the threads after `read_to` pieces of the text.
    std::vector<Thread> threads{};
    std::size_t read_to = 0;
  };
  // A byte that is an ignored lexeme by itself, or kNoGap.
  uint32_t gap();
  void write_lexeme(Node node, uint32_t tag, std::vector<Piece>& out);
  // The lexeme that a name begins with behind the text, the names of its scope left out.
  Node name_behind(Node start, uint32_t tag, Spacing& spacing, const std::vector<Piece>& out);
  void write_terminal(Symbol terminal, Spacing& spacing, std::vector<Piece>& out);
  void write_item(uint32_t position, Spacing& spacing, std::vector<Piece>& out);
  void write(const Thread& thread, bool spaced, std::vector<Piece>& out);
  bool completes(StateId state, const std::vector<Piece>& text);
  std::optional<std::vector<Piece>> search(StateId state);
  void charge(std::size_t bytes);

  Engine& engine_;
  std::vector<uint8_t> preference_;
  ByteSet bytes_;
  std::vector<bool> special_;
  static constexpr uint32_t kNoGap = 256;
  std::optional<uint32_t> gap_;
  std::unordered_map<uint64_t, LexemeStep> lexemes_;  // remainder, tag
  std::unordered_map<uint32_t, std::vector<uint32_t>> ends_;
  uint32_t fruitless_ = 0;                       // searches that ended at their limit
  std::unordered_map<uint64_t, bool> explored_;  // remainder, tag: all there is to know is in lexemes_
  std::vector<Nonterminal> nonterminals_;
  std::vector<Production> productions_;
  std::map<std::pair<Node, std::vector<uint32_t>>, LongestRest> longest_rests_;
  std::unordered_map<uint32_t, Way> states_, contexts_;
  std::unordered_map<uint32_t, Parser::Continuations> continuations_;
  std::unordered_map<uint32_t, bool> ends_at_once_;  // nonterminals: does one lexeme make one?
  std::unordered_map<uint32_t, uint32_t> state_costs_;
  std::unordered_map<uint32_t, Hop> hops_;
};

}  // namespace guiderail
