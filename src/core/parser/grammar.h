// What a grammar is to the engine: symbols, and a function from a nonterminal to its productions.
//
// The function is called at most once per nonterminal, when the parser first predicts it ("rules on demand"): a static
// grammar answers from a table, JSON Schema from its algebra, and one grammar may mix both, because a nonterminal of
// another provider is an ordinary symbol. So compiling costs what understanding the root costs.
//
// Contract of a provider: every nonterminal it hands out is productive (derives some text), every terminal is
// an alive node without the empty string, and only nonterminals registered as nullable derive the empty string.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "core/lexer/lexicon.h"
#include "core/stable_vector.h"

namespace guiderail {

enum class Symbol : uint32_t {};  // bit 31: terminal; bit 30: capture

constexpr uint32_t kTerminalBit = uint32_t{1} << 31;
constexpr bool is_terminal(Symbol s) { return (static_cast<uint32_t>(s) & kTerminalBit) != 0; }
constexpr uint32_t kCaptureBit = uint32_t{1} << 30;
constexpr bool is_capture(Symbol s) { return (static_cast<uint32_t>(s) & (kTerminalBit | kCaptureBit)) == kCaptureBit; }
constexpr uint32_t index_of(Symbol s) { return static_cast<uint32_t>(s) & ~(kTerminalBit | kCaptureBit); }

// Collects the productions of one nonterminal. An empty list of symbols is the empty production.
class Productions {
 public:
  void add(std::vector<Symbol> symbols) { alternatives_.push_back(std::move(symbols)); }
  const std::vector<std::vector<Symbol>>& alternatives() const { return alternatives_; }

 private:
  std::vector<std::vector<Symbol>> alternatives_;
};

class RuleProvider {
 public:
  virtual ~RuleProvider() = default;
  // Set where the nonterminals are of a part that is lexed freely, inside a grammar that is not: whatever has been read of it, it can be
  // completed, and leaves nothing to be met.
  bool free_part = false;
  // Called under the engine's growth lock, at most once for each `local` that was registered with SymbolTable::nonterminal.
  // May register new symbols. May throw LimitError or SchemaError.
  virtual void productions(uint32_t local, Productions& out) = 0;
  // The nonterminal that follows where a capture registered with this `local` has read `text`, which ends with what the symbol before the
  // capture derived and may begin earlier, at a lexeme. Under the growth lock; the answer is kept. Must not be nullable.
  virtual Symbol captured(uint32_t local, std::string_view text);
  // `seen`: the names of a scope, none of them kNone; with the one that `lexeme` wrote, the text of a terminal registered with `as_name`.
  virtual Node with_name(Node seen, std::string_view lexeme);
  // The name itself: equal for all ways to write it.
  virtual std::string name_of(std::string_view lexeme);
  // A name for people: the rule, the JSON pointer.
  virtual std::string name(uint32_t local) const = 0;
};

// Terminals that open and close scopes in which no name comes twice (name_scopes.h).
enum class ScopeRole : uint8_t { kNone, kOpens, kCloses };

// Blocks by indentation (indentation.h). `indent` and `dedent` match the empty string and stand for no text.
struct IndentationRule {
  Symbol newline{}, indent{}, dedent{};
  std::vector<Symbol> opens, closes;  // brackets
  uint32_t tab_width = 8;
  bool as_python = false;  // see indentation.h
  // What becomes of a newline without a line break, such as a comment that ends the text: no block begins or ends, or the
  // text is refused, as in Lark.
  bool needs_line_break = false;
};

// Terminals that compete with each other for the longest match (lexer_modes.h).
struct LexerMode {
  std::vector<Node> competitors;  // what each terminal matches, whoever wins it
  bool skips = true;              // may ignored lexemes stand before a terminal of this mode?
};

// The symbols of one engine. All calls under the engine's growth lock; lookups by index are lock-free.
class SymbolTable {
 public:
  explicit SymbolTable(std::shared_ptr<Lexicon> lexicon) : lexicon_(std::move(lexicon)) {}

  Lexicon& lexicon() { return *lexicon_; }
  const std::shared_ptr<Lexicon>& shared_lexicon() const { return lexicon_; }

  // A new nonterminal. The provider keeps its own map from what it means to the symbol.
  Symbol nonterminal(RuleProvider* provider, uint32_t local, bool nullable = false);
  // The terminal 'a text of `start` that ends with `tag`'. Interned: same arguments, same symbol. Terminals that share `start` are
  // lexed together, at the cost of one, so key tries with a tag per key are one automaton. The name given first stays.
  // `mode`: see lexer_modes.h. `next_lexer`: as below.
  Symbol terminal(Node start, uint32_t tag = 0, std::string_view name = "", uint32_t mode = 0, uint32_t next_lexer = 0);
  // A terminal under several lexers (Lexing::kOrdered): `starts[i]` is what it matches under lexer i, kNone where that does
  // not know it. A new symbol each time.
  Symbol terminal(std::vector<Node> starts, uint32_t next_lexer, std::string name);
  // The last symbol of a production, after one that is not nullable: what follows depends on the text read for the symbol before it. `generic`
  // follows where the text is not known: it admits a next lexeme exactly if what follows any text does, and if it may be that lexeme alone, so may
  // what follows any text. `doubtful`: not even that.
  Symbol capture(RuleProvider* provider, uint32_t local, Symbol generic, bool doubtful);
  void set_role(Symbol terminal, ScopeRole role) { terminals_[index_of(terminal)].role = role; }
  // The terminal, whose start is before·name·after, writes names: those that the scope has had, as `provider` tells them, are taken out of
  // `name`. `alone`: no name can stand before it in its scope.
  void as_name(Symbol terminal, RuleProvider* provider, Node before, Node name, Node after, bool alone = false);
  // One special token of the vocabulary, by its text; matches as a whole token only. The lexer of what is being opened reads on behind it.
  Symbol special_token(const std::string& text);

  // Where a part that is lexed in another way begins or ends (Parts): stands for no text. A new symbol each time.
  enum class Border : uint8_t { kNone, kEnter, kLeave };
  Symbol border(Border kind, uint32_t next_lexer);

  // Grammars put together from parts that are lexed in different ways (open_part). Their parser states differ in the lexer: 0 for all that is
  // lexed freely, one for each opening of another part.
  struct Parts {
    uint32_t lexer = 0;       // of what is being opened
    uint32_t num_lexers = 1;  // more than one: the grammar is of this kind
    std::vector<LexerMode> modes;
    std::vector<Symbol> ignored;  // each where the lexer is its next_lexer
    std::optional<IndentationRule> indentation;
    uint32_t indentation_lexer = 0;
    bool marked = false;
    bool mixed() const { return num_lexers > 1; }
  };
  Parts& parts() { return parts_; }
  const Parts& parts() const { return parts_; }

  struct Nonterminal {
    RuleProvider* provider;
    uint32_t local;
    bool nullable;
  };
  struct Capture {
    RuleProvider* provider;
    uint32_t local;
    Symbol generic;
    bool doubtful;
  };
  struct Terminal {
    Node start;    // kNone for a special token
    uint32_t tag;  // of a special token: index into special_tokens()
    std::string name;
    std::vector<Node> starts;  // what it matches under each lexer, where there are several; else empty
    uint32_t next_lexer = 0;   // the lexer that reads on behind it
    uint32_t mode = 0;
    Border border = Border::kNone;
    ScopeRole role = ScopeRole::kNone;

    Node start_under(uint32_t lexer) const { return starts.empty() ? start : starts[lexer]; }
  };
  struct Name {
    RuleProvider* provider;
    Node before, name, after;
    bool alone;
  };
  // A set of names as a trie of their characters. Where two providers have the same terminal for a name, one answers for the scopes of both, so they
  // share what is known of such sets, by the node of their spellings (RuleProvider::with_name).
  struct NameSet {
    bool ends = false;
    std::map<uint32_t, Node> next;
  };
  using NameSets = std::unordered_map<uint32_t, NameSet>;
  NameSets& name_sets() { return name_sets_; }
  // What is known of a start node whose terminal writes names, else null.
  const Name* name_info(Node start) const {
    auto found = names_.find(static_cast<uint32_t>(start));
    return found == names_.end() ? nullptr : &found->second;
  }
  const Nonterminal& nonterminal_info(Symbol s) const { return nonterminals_[index_of(s)]; }
  const Capture& capture_info(Symbol s) const { return captures_[index_of(s)]; }
  bool has_captures() const { return captures_.size() > 0; }
  const Terminal& terminal_info(Symbol s) const { return terminals_[index_of(s)]; }
  std::size_t num_nonterminals() const { return nonterminals_.size(); }
  std::size_t num_terminals() const { return terminals_.size(); }
  const std::vector<std::string>& special_tokens() const { return special_tokens_; }

 private:
  std::shared_ptr<Lexicon> lexicon_;
  StableVector<Nonterminal> nonterminals_;
  StableVector<Terminal> terminals_;
  StableVector<Capture> captures_;
  std::unordered_map<uint32_t, Name> names_;
  NameSets name_sets_;
  std::unordered_map<uint64_t, Symbol> terminal_ids_;
  std::map<std::pair<std::string, uint32_t>, Symbol> special_ids_;  // by text and the lexer behind it
  std::vector<std::string> special_tokens_;
  Parts parts_;
};

// How lexemes are cut out of the text (engine.md: lexing disciplines).
enum class Lexing : uint8_t {
  kFree,   // any segmentation the grammar admits
  kMunch,  // the longest match among all terminals, ties by priority
  // Every terminal on its own: where the parser asks for it, it matches what re.match takes, whatever others would match
  // (Lark's Earley parser with lexer="dynamic").
  kDynamic,
  // Terminals are tried in order, the first that re.match takes wins (Lark's basic lexer). With several lexers, the terminal read last
  // decides which one reads on (Lark's contextual lexer).
  kOrdered,
};

// An opened grammar: its providers and start symbol inside one engine's symbol table.
struct OpenGrammar {
  std::vector<std::unique_ptr<RuleProvider>> providers;
  Symbol start{};
  Lexing lexing = Lexing::kFree;
  std::vector<Symbol> ignored;   // terminals that may stand between any two lexemes
  std::vector<LexerMode> modes;  // munch: one or more; the tag of a terminal is its mode
  std::optional<IndentationRule> indentation;
  uint32_t num_lexers = 1;   // the text begins under lexer 0
  bool shadowed = false;     // may a lexer be asked for a terminal that it never gives?
  bool marked = false;       // munch: the modes' competitors hold marked languages (Lexicon::kMarker)
  uint32_t first_lexer = 0;  // of a grammar with parts: the lexer that the text begins under
};

// The immutable description of a grammar, shared by everything built from it. `open` may be called many times (each engine, each
// epoch, each lexicon generation) and from several threads.
class GrammarSource {
 public:
  virtual ~GrammarSource() = default;
  virtual OpenGrammar open(SymbolTable& symbols) const = 0;
  // Whatever its parts are: is what stands outside of them cut into lexemes freely, with nothing ignored?
  virtual bool lexed_freely() const { return true; }
};

// Opens a grammar as a part of the one that is being opened. The symbol stands for its texts, each lexed by itself: a lexeme ends where the part
// does, as it would at the end of a text, and what was read before the part demands nothing of it. Adds to `providers`.
Symbol open_part(const GrammarSource& source, SymbolTable& symbols,
                 std::vector<std::unique_ptr<RuleProvider>>& providers);

}  // namespace guiderail
