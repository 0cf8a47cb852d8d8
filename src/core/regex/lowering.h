// RegexTree → Node: the private class behind lower_regex, shared by regex/lowering.cpp, regex/atomic.cpp and regex/lookbehind.cpp.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <unordered_map>
#include <utility>
#include <vector>

#include "core/regex/regex.h"
#include "core/regex/tree.h"

namespace guiderail {

// Neighbours: which characters may stand beside a position. Bit 0 is the edge of the text, bit c a cell: the characters that the
// tree's assertions cannot tell apart. A superset of what can really stand there.
using Neighbours = uint64_t;

// What follows in the text up to its end, and which characters can begin it.
struct Continuation {
  Node node;
  Neighbours next;
};

// Continuations of a part of an atomic group, as languages of everything up to the end of the text: `success`, the rest of the
// group can be matched; `taken`, it can, and what follows its preferred match is right too.
struct AtomicContinuation {
  Node success;
  Node taken;
  Neighbours next;  // of taken
};

// True if no lookahead inside `node`, which is followed by at least `after` characters of the same match, can see beyond it.
bool sees_only_itself(const RegexTree& tree, uint32_t node, uint32_t after);

class RegexLowering {
 public:
  RegexLowering(Lexicon& lexicon, const RegexTree& tree, const Encoder& encoder, unsigned markers = 0);

  Node lower(RegexMatch match);

 private:
  // Fixed limits, named in LimitError: visits of tree nodes (regex_size), different lookbehinds (regex_lookbehinds).
  static constexpr std::size_t kMaxVisits = 2'000'000;
  static constexpr std::size_t kMaxTrackers = 32;
  static constexpr std::size_t kMaxCells = 12;
  static constexpr std::size_t kMaxComparison = 20'000;  // nodes of the lexicon, to find out whether order matters
  static constexpr Neighbours kEdge = 1;

  // --- regex/lowering.cpp: classes, plain expressions, continuation passing
  Node class_node(uint32_t class_id);
  Node plain(uint32_t node);
  Node plain_nonempty(uint32_t node);
  Node plain_concat(std::span<const uint32_t> parts);
  Node plain_alternatives(const std::vector<uint32_t>& options);
  std::size_t literal_prefix(uint32_t node, std::vector<uint32_t>& class_ids) const;
  Node trie(std::vector<std::pair<std::vector<uint32_t>, Node>>& entries);
  Node trie_range(const std::vector<std::pair<std::vector<uint32_t>, Node>>& entries, std::size_t begin,
                  std::size_t end, std::size_t depth);

  // The texts that begin with a match of `node` and go on with `empty` if the match is empty, else with `rest`.
  Node lower(uint32_t node, Neighbours prev, const Continuation& empty, const Continuation& rest);
  Node lower(uint32_t node, Neighbours prev, const Continuation& rest) { return lower(node, prev, rest, rest); }
  Node lower_concat(const RegexNode& node, Neighbours prev, const Continuation& empty, const Continuation& rest);
  Node lower_alternate(const RegexNode& node, Neighbours prev, const Continuation& empty, const Continuation& rest);
  Node lower_repeat(uint32_t index, Neighbours prev, const Continuation& empty, const Continuation& rest);
  Node lower_ordered();
  Node lower_marked();
  Node lower_anywhere(uint32_t node, const Continuation& rest);

  // --- assertions and lookarounds: the texts of `rest` that may stand here
  Node assertion(const RegexNode& node, Neighbours prev, const Continuation& rest);
  Node word_boundary(const RegexNode& node, Neighbours prev, const Continuation& rest);
  Node lookahead(const RegexNode& node, Neighbours prev, const Continuation& rest);
  Node next_in(uint32_t class_id, bool or_end, bool positive, const Continuation& rest);
  Node prev_in(uint32_t class_id, bool or_start, bool positive, Neighbours prev, const Continuation& rest);
  Node restrict_to(Node language, const Continuation& rest);
  Node tail_for(const Continuation& rest) const { return rest.node == any_ ? any_ : kAll; }
  Node condition(Node tracker, bool positive);

  // --- regex/lookbehind.cpp
  Node lookbehind(const RegexNode& node, Neighbours prev, const Continuation& rest);
  std::vector<std::pair<Node, Node>> cut_texts(uint32_t index);
  Node lookbehind_past_its_end(const RegexNode& node, const Continuation& rest);
  Node texts_ending_with(uint32_t node, const Continuation& rest);

  // --- regex/atomic.cpp
  Node lower_atomic(uint32_t node, Neighbours prev, const Continuation& empty, const Continuation& rest);
  AtomicContinuation ordered(uint32_t node, Neighbours prev, const AtomicContinuation& empty,
                             const AtomicContinuation& rest);
  AtomicContinuation ordered_alternate(const RegexNode& node, Neighbours prev, const AtomicContinuation& empty,
                                       const AtomicContinuation& rest);
  AtomicContinuation ordered_concat(const RegexNode& node, Neighbours prev, const AtomicContinuation& empty,
                                    const AtomicContinuation& rest);
  AtomicContinuation ordered_repeat(const RegexNode& node, Neighbours prev, const AtomicContinuation& empty,
                                    const AtomicContinuation& rest);
  AtomicContinuation ordered_loop(const RegexNode& node, Neighbours prev, const AtomicContinuation& empty,
                                  const AtomicContinuation& rest);
  // The first match of what `part` lowers is the only one.
  template <typename F>
  AtomicContinuation committed(F part, const AtomicContinuation& empty, const AtomicContinuation& rest);
  std::optional<AtomicContinuation> ordered_words(const RegexNode& node, const AtomicContinuation& rest);
  std::optional<AtomicContinuation> ordered_class_loop(const RegexNode& node, const AtomicContinuation& empty,
                                                       const AtomicContinuation& rest);
  AtomicContinuation first_of(const AtomicContinuation& preferred, const AtomicContinuation& other);
  Node without(Node language, Node excluded);

  // --- neighbours
  void find_cells();
  void find_neighbours();
  Neighbours may_be(uint32_t class_id);   // cells that have a member in the class
  Neighbours must_be(uint32_t class_id);  // cells that are inside the class
  Neighbours first(uint32_t node, Neighbours next) const { return first_[node] | (tree_.nullable(node) ? next : 0); }
  Neighbours after(uint32_t node, Neighbours prev) const { return last_[node] | (tree_.nullable(node) ? prev : 0); }
  bool looks(uint32_t node) const { return tree_[node].looks_ahead || tree_[node].looks_behind; }
  void visit();

  Lexicon& lexicon_;
  const RegexTree& tree_;
  const Encoder& encoder_;       // as given
  unsigned markers_;             // how many lookbehinds with markers we are inside of
  bool utf8_;                    // the encoder is encode_utf8 and there are no markers
  Node any_, end_;               // all texts; the rest of a text at its end
  Neighbours anywhere_ = kEdge;  // all bits in use
  std::size_t visits_ = 0;
  unsigned open_holes_ = 0;  // holes not yet defined: what mentions them cannot be asked anything

  std::vector<Node> class_nodes_, plain_, nonempty_;
  std::vector<CodePoints> cells_;
  std::vector<std::pair<Neighbours, Neighbours>> class_cells_;  // may, must; 0, 0: not computed
  std::vector<Neighbours> first_, last_;
  std::vector<Node> trackers_;
  // By body: (what was read, what must follow); the same tracker wherever the tree is lowered again.
  std::unordered_map<uint32_t, std::vector<std::pair<Node, Node>>> lookbehinds_;
};

}  // namespace guiderail
