// A parser for any context-free grammar: Earley sets as interned states.
//
// Earley's items carry the position where their rule began; ours carry an interned *return context* instead: the set of
// waiters (X, k), read 'when X is complete, advance what waits for X in the closure of kernel item k'. Two positions with the same
// continuations are then the same state, whatever lies to the left of them, so loops cycle through finitely many states and
// only a new nesting context costs a new state. A state is the sorted set of its kernel items (those whose dot has
// moved), and `shift(state, terminal)` is memoised: for a grammar without recursion this is a finite automaton built on demand.
//
//   list: "[" list* "]"      after "[[":   kernel { list → "[" · list* "]"  in context C1 },  C1 = {(list, the same item in the root context)}
//
// Contexts of predictions. A nonterminal X predicted from kernel K gets {(X, k) : k in K reaches X by left corners through
// nullables}; but where k itself waits for X as its last symbol, and nothing else in the closure of k waits for X, k's own context stands in for
// (X, k) (tail inheritance: right recursion stays flat). Completing X in context C groups C by nonterminal; the kernel items of
// a group form a state of their own, whose closure is known, and what waits for X there is advanced.
//
// Contexts that complete to the same kernel items are one context for what is scanned: in  e → t | e "+" t  an operand returns to the same items
// whether it is the first or a later one, so what is nested in it is, too.
//
// References: Earley 1970; Leo 1991 for the flattening of right recursion; McPeak and Necula 2004 on the graph this shares.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <unordered_map>
#include <vector>

#include "core/growth.h"
#include "core/lexer/lexer_modes.h"
#include "core/lexer/lexicon.h"
#include "core/parser/captured_text.h"
#include "core/parser/grammar.h"
#include "core/published_map.h"
#include "core/stable_vector.h"

namespace guiderail {

enum class ParserState : uint32_t {};

class Parser {
 public:
  // `lock` is the engine's growth lock: every slow path takes it. Ignored terminals leave the state as it is and are
  // expected where a terminal is whose mode skips them, and at the end. Tables that are larger than
  // `max_bytes` grow no more: LimitError `grammar_bytes`, from then on.
  Parser(SymbolTable& symbols, Symbol start, std::vector<Symbol> ignored, const LexerModes& modes,
         std::recursive_mutex& lock, std::size_t max_bytes, uint32_t first_lexer = 0);
  ~Parser();

  ParserState initial() const { return initial_; }
  bool accepting(ParserState state) const;
  // Which lexer reads on (SymbolTable::Terminal::next_lexer).
  uint32_t lexer(ParserState state) const { return states_[static_cast<uint32_t>(state)].lexer; }

  // A terminal that may come next.
  struct Expected {
    Symbol terminal;
    Node start;
    uint32_t tag;
    uint32_t first_entry, num_entries;  // what advances, in the shape's entries; none: ignored, the state stays
    ScopeRole role = ScopeRole::kNone;
  };
  // Everything that may come next in a state. States of one shape share it, so it is immutable.
  struct Lookahead {
    std::vector<Expected> expected;                         // sorted by (start, tag)
    std::vector<std::pair<Node, ByteSet>> groups;           // distinct starts with a bound on their first bytes
    std::vector<uint32_t> specials;                         // indices into expected, of special tokens
    std::vector<uint32_t> borders;                          // the same, of beginnings and ends of parts
    ByteSet first;                                          // union of the groups' first bytes
    bool skips = true;                                      // may ignored lexemes come next?
    uint32_t number = 0;                                    // of the shape
    std::vector<std::pair<Node, SymbolTable::Name>> names;  // groups that are names (name_scopes.h)
  };
  const Lookahead& lookahead(ParserState state);
  // `text`: what the thread has captured, the lexeme included. Sets `doubtful` where what follows was decided by a capture whose generic
  // continuation says nothing.
  // `asked`: whether a capture has looked at the text.
  ParserState shift(ParserState state, const Expected& expected, uint32_t text, bool& doubtful, bool* asked = nullptr);
  // May a lexeme that begins in this state be part of a captured text?
  bool may_capture(ParserState state) {
    lookahead(state);
    return states_[static_cast<uint32_t>(state)].may_capture;
  }
  // Is some capture open, so that the text must go on being remembered?
  bool capturing(ParserState state) const { return states_[static_cast<uint32_t>(state)].capturing; }
  CapturedTexts& texts() { return texts_; }
  // The state of the same shape of which no more is known than that: what its rules return to is open. For answers that serve all states of a shape.
  ParserState opened(ParserState state);
  // What follows in an opened state, or in one that it has led to: the state that is known, if any, and the kernel items of the opened state, by place,
  // whose completion leads to more. A state that is not opened has none of these.
  struct Partial {
    std::optional<ParserState> known;
    std::vector<uint32_t> open;
  };
  const Partial& shift_opened(ParserState state, const Expected& expected);
  // What follows when kernel item number `item` of a state is complete, and all that is complete in turn.
  const Partial& returned(ParserState state, uint32_t item);
  // The state whose future is that of both, which must have the same lexer.
  ParserState unite(ParserState a, ParserState b);
  // The entry for the terminal (start, tag), or null if the state does not expect it.
  static const Expected* find(const Lookahead& lookahead, Node start, uint32_t tag);

  std::size_t num_states() const { return states_.size(); }
  std::size_t bytes_used() const { return bytes_.load(std::memory_order_relaxed) + texts_.bytes_used(); }
  void describe(ParserState state, std::vector<std::string>& items);

  static constexpr uint32_t kUnknown = UINT32_MAX;

  // --- for analyses of what can follow; the caller holds `mutex()` -----------------------------------------------------------------
  // An item: what is left of a production, from a position in the pool of symbols on, and the context it returns to.
  struct Entry {
    uint32_t position, context;
    auto operator<=>(const Entry&) const = default;
  };
  static constexpr uint32_t kEnd = UINT32_MAX;  // the symbol behind a production's last one
  std::recursive_mutex& mutex() { return mutex_; }
  const std::vector<Symbol>& ignored() const { return ignored_; }
  // May an ignored lexeme of this terminal stand where the lexer reads on? Each part has its own.
  bool ignores(Symbol terminal, uint32_t lexer) const {
    return !symbols_.parts().mixed() || symbols_.terminal_info(terminal).next_lexer == lexer;
  }
  // A capture stands for its generic continuation.
  uint32_t symbol_at(uint32_t position) const {
    uint32_t symbol = pool_[position];
    if (symbol == kEnd || !is_capture(Symbol{symbol})) return symbol;
    return static_cast<uint32_t>(symbols_.capture_info(Symbol{symbol}).generic);
  }
  bool captures_at(uint32_t position) const { return pool_[position] != kEnd && is_capture(Symbol{pool_[position]}); }
  // Where a capture stands for its generic continuation, or that stands in its place: can what follows depend on the text even if the next
  // lexeme ends the generic continuation? Nothing if no text is asked for here.
  std::optional<bool> doubtful_at(uint32_t position) const {
    if (captures_at(position)) return symbols_.capture_info(Symbol{pool_[position]}).doubtful;
    auto found = generic_.find(position);
    return found == generic_.end() ? std::nullopt : std::optional(found->second);
  }
  // Where the productions of a nonterminal start; empty productions are not among them.
  std::vector<uint32_t> productions(uint32_t nonterminal) { return rules(nonterminal).starts; }
  std::vector<Entry> kernel_items(ParserState state) const;
  // The items that advance when an item in `context` is complete, and whether the whole text may be complete then.
  struct Continuations {
    std::vector<Entry> items;
    bool accepting = false;
  };
  Continuations continuations(uint32_t context);

 private:
  // What follows from the positions of a state's kernel items, whatever their contexts: nearly all of an expansion, shared by the states of
  // all the nestings of a text. `origin` names a context: that of a kernel item (by its place in the state) or, counted on, of a prediction.
  struct Item {
    uint32_t position, origin;
    auto operator<=>(const Item&) const = default;
  };
  struct Prediction {
    uint32_t nonterminal;
    std::vector<uint32_t> waits;     // kernel items that wait for it
    std::vector<uint32_t> inherits;  // kernel items whose own contexts it returns to
  };
  struct Shape {
    std::vector<uint32_t> positions;  // of the kernel items
    uint32_t lexer;
    bool accepting;
    Lookahead lookahead;
    std::vector<Item> entries;
    std::vector<std::pair<uint32_t, std::vector<Item>>> waits;  // nonterminal → what advances when it is complete
    std::vector<Prediction> predicted;
    mutable std::atomic<uint32_t> opened{kUnknown};  // Parser::opened
  };
  // What a state needs once something is shifted or completed in it.
  struct Links {
    std::unique_ptr<std::atomic<uint32_t>[]>
        targets;                     // by place in Lookahead::expected: the state after it, kUnknown until shifted
    std::vector<uint32_t> contexts;  // of predictions; kUnknown until asked for
  };
  struct State {
    std::vector<uint32_t> kernels;  // in the order of their positions
    bool accepting, capturing;
    bool may_capture = false;  // known with the shape
    uint32_t lexer;
    std::atomic<const Shape*> shape{nullptr};
    std::atomic<Links*> links{nullptr};
    State(std::vector<uint32_t> kernels, bool accepting, bool capturing, uint32_t lexer)
        : kernels(std::move(kernels)), accepting(accepting), capturing(capturing), lexer(lexer) {}
    ~State() { delete links.load(); }
  };
  struct Rules {
    std::vector<uint32_t> starts;        // positions of the productions' first symbols
    std::vector<uint32_t> heads;         // nonterminals at left corners, directly
    std::vector<uint32_t> left_corners;  // all nonterminals reachable by left corners, itself included; sorted
    bool known = false, closed = false;
  };
  // What follows when an item in a context is complete, all that is complete in turn included.
  struct Completion {
    std::vector<uint32_t> kernels;
    std::vector<Entry> captures;   // items that stand at a capture
    std::vector<uint32_t> covers;  // contexts, itself included, whose completions are part of this one
    std::vector<uint32_t> open;    // in an opened state: items whose completion is not known
    bool accepting = false;
    bool known = false;
  };

  static constexpr uint64_t kAcceptWaiter = UINT64_MAX;  // in the root context
  // Plus the place of a kernel item: in the context that stands for that item's in an opened state.
  static constexpr uint64_t kOpenWaiter = uint64_t{UINT32_MAX - 1} << 32;

  Rules& rules(uint32_t nonterminal);
  const std::vector<uint32_t>& left_corners(uint32_t nonterminal);
  bool nullable(uint32_t symbol) const;
  bool nullable_from(uint32_t position) const;
  template <typename OnTerminal, typename OnNonterminal>
  void heads(uint32_t position, OnTerminal on_terminal, OnNonterminal on_nonterminal) const;
  uint32_t kernel(uint32_t position, uint32_t context);
  uint32_t context(std::vector<uint64_t> waiters);
  ParserState state(std::vector<uint32_t> kernels, bool accepting, uint32_t lexer = 0);
  const Shape& expand(ParserState state);
  std::unique_ptr<Shape> make_shape(const State& state);
  Links& links(State& state, const Shape& shape);
  // The context that an item's origin names in a state.
  uint32_t context_of(State& state, const Shape& shape, uint32_t origin);
  void advance(const Entry& entry, std::vector<uint32_t>& kernels, std::vector<uint32_t>& completed,
               std::vector<Entry>& captures);
  // Is the item part of a capture, or does it return to one that is?
  bool captures(const Entry& entry) const;
  void mark_captures(State& state, const Shape& shape);
  // The item that goes on where a capture has read `text`.
  uint32_t resume(const Entry& capture, uint32_t text, bool& doubtful);
  // Of the contexts that have the same completion, one.
  uint32_t canonical(uint32_t context);
  std::vector<Entry> waiting(std::vector<uint32_t> group, uint32_t nonterminal);
  const Completion& complete(uint32_t context);
  ParserState after(std::span<const Entry> entries, uint32_t lexer, uint32_t text, bool& captured, bool& doubtful);
  const Partial& keep(PublishedMap& in, uint64_t key, Partial partial);
  Partial partial(std::vector<uint32_t> kernels, std::vector<uint32_t> completed, uint32_t lexer);
  std::vector<Entry> advancing(State& state, const Shape& shape, const Expected& expected);
  // Called before something is built, never in the middle of it: a table is whole or not there.
  void check_room() const;
  void charge(std::size_t bytes) {
    bytes_.fetch_add(bytes, std::memory_order_relaxed);
    growth_of_this_thread += bytes;
  }

  SymbolTable& symbols_;
  std::vector<Symbol> ignored_;
  const LexerModes& modes_;
  std::recursive_mutex& mutex_;

  std::vector<uint32_t> pool_;   // productions one after the other, each ended by kEnd
  std::vector<uint32_t> owner_;  // per pool position: the nonterminal of the production (for descriptions)
  std::vector<Rules> rules_;
  std::vector<Entry> kernels_;  // kernel items: position, context
  std::unordered_map<uint64_t, uint32_t> kernel_ids_;
  std::vector<std::vector<uint64_t>> contexts_;  // waiters, (nonterminal << 32 | kernel), sorted
  std::vector<bool> context_captures_;
  std::unordered_multimap<uint64_t, uint32_t> context_ids_;
  std::vector<std::unique_ptr<Completion>> completions_;
  StableVector<Partial> partials_;
  PublishedMap returned_;            // state, place of a kernel item → index in partials_
  PublishedMap shifted_opened_;      // state, place of a terminal → the same
  std::vector<uint32_t> canonical_;  // by context; kUnknown until asked for
  std::unordered_multimap<uint64_t, uint32_t> by_completion_;
  StableVector<State> states_;
  std::unordered_multimap<uint64_t, std::unique_ptr<const Shape>> shapes_;
  std::unordered_multimap<uint64_t, uint32_t> state_ids_;
  std::unordered_map<uint64_t, uint32_t> unions_;
  std::unordered_map<uint32_t, uint32_t> resumed_;   // nonterminal → position of a production of it alone
  std::unordered_map<uint64_t, uint32_t> captured_;  // (capture, text) → the same
  std::unordered_map<uint32_t, bool> generic_;  // positions that stand for what follows some text: is that doubtful?
  CapturedTexts texts_;
  ParserState initial_{};
  std::atomic<std::size_t> bytes_{0};
  std::size_t max_bytes_;
};

}  // namespace guiderail
