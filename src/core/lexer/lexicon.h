// Lexical automata, built on demand from an algebra of byte languages.
//
// A `Node` names a language of byte strings. Nodes are hash-consed, so the derivative of a node by a byte (Brzozowski 1964;
// Owens, Reppy, Turon 2009) is again a node and the set of nodes is a deterministic automaton that exists only as far as
// somebody has walked it: `step(node, b)` is its transition function, memoised per byte class, `tags(node)` its accepting
// labels. Union, intersection and complement are nodes like any other, so no product is ever built ahead of need, a counter
// `r{0,100000}` is one node, and equal remainders of different expressions, of different grammars even, are the
// same node: whatever a vocabulary computes for a node (see lex_row.h) is computed once for all of them.
//
// 'Alive' means 'completable': `step` returns kNone unless some continuation is accepted. Expressions without
// intersection, complement or conditions are alive by construction; for the others `alive` searches.
//
// Thread safety: any number of threads may call anything. Growth takes one lock, reads of known transitions none.
// A lexicon only grows. `Lexicon::current()` hands out the process-wide one and starts a fresh generation when
// the last has passed its budget; grammars keep the generation they were built in alive.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "core/stable_vector.h"
#include "core/text/byte_set.h"

namespace guiderail {

enum class Node : uint32_t {};
inline constexpr Node kNone{0};     // the empty language
inline constexpr Node kEpsilon{1};  // the empty string, tag 0
inline constexpr Node kAll{2};      // all byte strings
inline constexpr uint32_t kUnbounded = UINT32_MAX;

struct DecimalMultiples;

class Lexicon {
 public:
  explicit Lexicon(std::size_t max_bytes = kDefaultMaxBytes);
  ~Lexicon();
  Lexicon(const Lexicon&) = delete;
  Lexicon& operator=(const Lexicon&) = delete;

  static constexpr std::size_t kDefaultMaxBytes = std::size_t{1} << 30;
  // Of what a generation is handed out with. Far below the budget: what is left of it belongs to the grammars that have begun.
  static constexpr std::size_t kGenerationBytes = std::size_t{1} << 26;
  static std::shared_ptr<Lexicon> current();

  // --- languages ------------------------------------------------------------------------------------------------
  // The empty string, reported as `tag` when accepted. Put it at the right end of a concatenation, under unions.
  Node accept(uint32_t tag);
  Node bytes(const ByteSet& set);  // one byte out of `set`
  Node literal(std::string_view text, Node rest = kEpsilon);
  Node concat(Node first, Node rest);
  Node either(std::vector<Node> options);  // union
  Node both(std::vector<Node> parts);      // intersection; tags are those of the parts
  Node complement(Node node);              // all byte strings that `node` does not contain; `node` carries no tags
  Node difference(Node from, Node what) { return both({from, complement(what)}); }
  Node repeat(Node body, uint32_t min, uint32_t max);  // max may be kUnbounded
  Node optional(Node node) { return either({kEpsilon, node}); }
  // One child per byte: a deterministic branch, the step of a trie. Children of kNone are dropped.
  Node branch(std::vector<std::pair<uint8_t, Node>> children);
  // The union of byte strings, each followed by its own rest: a trie. Equal strings: rests are united.
  Node literals(std::vector<std::pair<std::string_view, Node>> entries);
  // Accepts what `body` accepts; its tag is the bit set of those `classifiers` (at most 32) that accept too.
  Node classify(Node body, std::vector<Node> classifiers);

  // The plain decimals without sign that are multiples of modulus · 10^-places (decimal_multiples.h); modulus at least 1, below 10^18.
  // Without `fractions` none of them has a point; then places is 0.
  Node multiples(uint64_t modulus, uint32_t places, bool fractions = true);
  // The same between bounds, which are part of `start`.
  Node multiples(const DecimalMultiples& start);
  // Where the node is what is left of multiples and something behind them: a shortest text after which that may begin, and a length that none of
  // those from any place of the same multiples exceeds. Empty if it is something else, or that is not known.
  struct NearestMultiple {
    std::string text;
    uint32_t longest;
    Node behind;
  };
  std::optional<NearestMultiple> nearest_multiple(Node node);

  // From now on texts are seen as sequences of these where that helps (lexicon_characters.cpp). No effect unless it is a finite prefix code.
  void declare_character(Node character);

  // Recursive definitions, for lookarounds inside loops: `hole` makes a reference, `define` says once what it stands for.
  // Every cycle through references must consume a byte.
  Node hole();
  void define(Node hole, Node definition);

  // Lookbehind. `tracked(body, trackers)` walks the trackers over the text beside the body, from its first byte;
  // `condition(i, positive)` inside the body is the empty string where tracker i accepts (does not accept) the text so
  // far, else nothing. Trackers contain no conditions of their own.
  Node condition(uint32_t tracker, bool positive);
  Node tracked(Node body, std::vector<Node> trackers);

  // Marked languages: texts u # r in which kMarker, a byte that no encoding uses, stands between a lexeme and what follows it in the text
  // (longest match with terminals that look past their end, munch.h). Every text of `marked` contains it once, which is what
  // intersection with texts_with_a_marker() is for.
  static constexpr uint8_t kMarker = 0xFF;
  Node texts_with_a_marker();
  Node before_marker(Node marked);   // { u : u # r for some r }
  Node without_marker(Node marked);  // { u r : u # r }
  Node with_marker(Node plain);      // { u # r : u r in plain }
  // Of a remainder of before_marker(m): the texts r that may follow if the lexeme ends here. kAll for other nodes.
  Node after_marker(Node lexeme);

  // Nodes kept under a name, for languages that every grammar of a kind would build alike (a format, the spellings of a character). Names
  // are few: nothing is ever dropped. kNone if nobody has kept one.
  Node kept(const std::string& name);
  void keep(const std::string& name, Node node);

  // --- automaton ------------------------------------------------------------------------------------------------
  // The remainder after one byte: kNone if nothing can follow.
  Node step(Node node, uint8_t byte);
  Node walk(Node node, std::string_view text);
  bool nullable(Node node);
  bool alive(Node node);
  // Tags of the empty string in `node`, sorted; empty if it is not nullable.
  std::span<const uint32_t> tags(Node node);
  ByteSet first_bytes(Node node);
  // A superset of first_bytes, read off the structure: cheap, memoised, no new nodes.
  ByteSet first_bound(Node node);
  // False if nothing but the empty string is left, as far as the structure tells.
  bool continues(Node node);
  // Is `node` = (r without x) k for some r, x, k? Then it differs from reference = r k only while a text is inside x.
  struct Exclusion {
    Node reference, base, excluded;  // r k, r, x
  };
  bool exclusion(Node node, Exclusion& out);
  // `from` without `what`, as an exclusion wherever `from` is one already.
  Node excluding(Node from, Node what);
  // Is every text that `node` and `base` share one of `characters` and then `last`, after which neither goes on, and can a text of `base` go on to be
  // none of `node` as long as `last` has not come? So it is of names that a pattern forbids.
  bool excluded_at_end(Node node, Node base, Node& characters, uint8_t& last);
  // The last byte of every text of `n`, if as long as a text has not come to it there are endlessly many ways to go on: characters of one kind, any
  // number of them, and then that byte.
  std::optional<uint8_t> last_byte_of_endless(Node n);
  // Is `node` all texts of characters before a last byte but for some, so few that whatever has been read without that byte can go on to endlessly
  // many of them? False also means 'not known'.
  bool endless_before_last_byte(Node node);
  // The union's options, or the node alone.
  std::vector<Node> options(Node node);
  // Takes a node apart at its first place: a literal byte or a branch of them; `first` · `rest`; or neither.
  enum class Shape : uint8_t { kLiteral, kSequence, kOther };
  Shape shape(Node node, Node& first, Node& rest);
  // Is `node` = body{min,max}?
  bool counted(Node node, Node& body, uint32_t& min, uint32_t& max);
  // Does every text of `node` end with one of `target`, after at least one byte that does not belong to it? Structural: false also means
  // 'not known'.
  bool leads_to(Node node, Node target);
  // Certain properties, read off the structure; false means 'not known'. Untagged: no tag other than 0.
  bool untagged(Node node);
  // Appends the nodes whose tags are, together, all that `node` may end with; false if the structure does not tell. One that ends all by itself
  // (accept, or untagged) has none.
  bool ends_with(Node node, std::vector<Node>& parts);
  bool certainly_infinite(Node node);
  bool certainly_finite(Node node);
  // A node that no text shorter than `length` bytes can tell from `node` (aliveness and tags after each byte alike): counters beyond the
  // horizon are made equal.
  Node saturate(Node node, uint32_t length);

  // For hot loops: the transition row of a node. `classes[b]` indexes `next`; a slot holds kUnknown until somebody steps.
  static constexpr uint32_t kUnknown = UINT32_MAX;
  struct Transitions {
    const uint8_t* classes;  // 256 entries
    std::atomic<uint32_t>* next;
    uint32_t num_classes;
  };
  const Transitions& transitions(Node node);

  std::size_t size() const { return infos_.size(); }
  std::size_t bytes_used() const { return bytes_used_.load(std::memory_order_relaxed); }
  bool over_budget() const { return bytes_used() > max_bytes_; }
  std::string describe(Node node, int depth = 6);  // for people: tests, error messages

  // Budgets of one call on behalf of one caller: new nodes made since the guard's construction. Nests; thread-local.
  class Budget {
   public:
    explicit Budget(std::size_t max_new_nodes);
    ~Budget();
    Budget(const Budget&) = delete;

   private:
    std::size_t saved_;
  };

 private:
  enum class Kind : uint8_t {
    kNone,
    kAccept,
    kAll,
    kBytes,
    kPrefix,
    kBranch,
    kConcat,
    kEither,
    kBoth,
    kNot,
    kRepeat,
    kClassify,
    kHole,
    kCondition,
    kTracked,
    kBeforeMarker,
    kWithoutMarker,
    kWithMarker,
    kMultiples
  };
  struct Info;
  struct TagList;
  class Pool;
  class Classes;

  Node intern(Kind kind, uint32_t a, uint32_t b, uint32_t c, std::span<const uint32_t> children);
  uint16_t flags_of(Kind kind, uint32_t a, uint32_t b, uint32_t c, std::span<const uint32_t> children);
  bool may_be_tagged(Kind kind, uint32_t a, uint32_t b, std::span<const uint32_t> children);
  Node make_bytes(const ByteSet& set);
  Node make_literal(std::string_view text, Node rest);
  Node make_concat(Node first, Node rest);
  Node make_either(std::vector<Node> options);
  Node make_both(std::vector<Node> parts);
  Node make_complement(Node node);
  Node make_marked(Kind kind, Node operand);
  Node make_unmarked_texts();
  Node beyond_marker(Node marked);
  Node without_promise(Node node);
  Node make_repeat(Node body, uint32_t min, uint32_t max);
  Node make_branch(std::vector<std::pair<uint8_t, Node>> children);
  Node make_tracked(Node body, std::vector<Node> trackers);
  Node make_classify(Node body, std::vector<Node> classifiers);
  Node make_literals(std::span<std::pair<std::string_view, Node>> entries);
  void merge_repeats(std::vector<Node>& options);
  // Texts as sequences of characters.
  struct Span {
    uint32_t min, max;
  };
  struct CharacterCount {
    Node character, rest;
    uint32_t min, max;
  };
  bool is_character(Node node);
  bool count_of_characters(Node node, CharacterCount& out);
  std::optional<Span> measure(Node node, Node rest, Node character, Node inside);
  std::optional<Span> measure_whole(Node node, Node character, Node inside);
  bool join_counts(std::vector<Node>& parts);
  Node counted_inside(Node part, const CharacterCount& count);
  void absorb_by_counts(std::vector<Node>& options);
  Node without_far_maximum(Node both, uint32_t length);
  uint32_t completion_bound(Node start);

  Node step_slow(Node node, uint8_t byte);
  // The derivative without the check that it is alive. `scope` says, inside trackers, which of them accept now; else null.
  struct Scope;
  Node derive(Node node, uint8_t byte, Scope* scope);
  Node derive_part(Node node, uint8_t byte, Scope* scope);
  bool nullable_in(Node node, Scope* scope);
  uint32_t environment(const Info& tracked);
  const Transitions& build_transitions(Node node);
  bool search_alive(Node node);
  // From what is known of the parts: 0 unknown, 1 alive, 2 dead.
  uint8_t alive_by_parts(const Info& info);
  bool decide_alive(Node node);
  void collect_tags(Node node, Scope* scope, std::vector<uint32_t>& out);
  std::vector<uint32_t> conjuncts(Node node);
  void absorb(std::vector<Node>& options);
  bool rest_accepts_all(Node first);
  ByteSet first_bound_locked(Node node);

  Info& info(Node node);

  std::recursive_mutex mutex_;
  StableVector<Info> infos_;
  std::unique_ptr<Pool> pool_;
  std::vector<uint32_t> table_;  // open addressing over infos_
  std::unordered_map<std::string, Node> kept_;
  std::vector<Node> characters_;                // declared
  std::unordered_map<uint32_t, bool> classes_;  // of them?
  std::unordered_map<uint32_t, uint32_t> completion_bounds_;
  struct MeasureHash {
    std::size_t operator()(const std::array<uint32_t, 4>& key) const {
      std::size_t hash = 0;
      for (uint32_t part : key) hash = (hash ^ part) * 0x9E3779B97F4A7C15ull;
      return hash;
    }
  };
  std::unordered_map<std::array<uint32_t, 4>, std::optional<Span>, MeasureHash> measured_;
  std::unordered_map<uint64_t, Node> raw_;  // derivatives of parts that may be dead
  std::atomic<std::size_t> bytes_used_{0};
  std::size_t max_bytes_;
};

}  // namespace guiderail
