// Lookbehinds of any width, with anything inside.
//
// `(?<=X)` holds after the text u if u ends with a match of X: if u is in (everything) X. That language becomes a tracker. Two
// things make it harder. X may itself look behind: then the tracker has trackers. And X may look *ahead*, past its own end: `(?<=foo\b)`,
// `(?<=a(?=b))`. Then u alone does not decide, the rest v does too. Cut the text where the lookbehind stands, with a byte # that no text
// contains: T = { u#v : X matches at the end of u, looking at uv } is lowered as any expression, if every class admits # before its
// character. The automaton of T, walked over all u, falls into finitely many states, and what a state has after # is the language of the v
// that go with it. So the lookbehind is: for one of these languages R, u leads to a state with remainder R, and the rest is in R.
#include <algorithm>
#include <array>
#include <map>

#include "core/errors.h"
#include "core/regex/lowering.h"

namespace guiderail {
namespace {

constexpr unsigned kMaxMarkers = 8;  // 0xF8 to 0xFF are no part of any encoding
constexpr Node kUnset{UINT32_MAX};
constexpr std::size_t kMaxStates = std::size_t{1} << 12;
constexpr std::size_t kMaxNodes = 100'000;  // of the lexicon, while the states are made

// The automaton of a node as far as it can be walked without one byte.
struct Automaton {
  std::vector<Node> states, remainders;
  std::vector<std::vector<std::pair<uint8_t, uint32_t>>> edges;  // byte, state

  Automaton(Lexicon& lexicon, Node start, uint8_t marker) {
    std::map<Node, uint32_t> index;
    auto number = [&](Node node) {
      auto [it, fresh] = index.try_emplace(node, static_cast<uint32_t>(states.size()));
      if (fresh) states.push_back(node);
      return it->second;
    };
    if (lexicon.alive(start)) number(start);
    for (std::size_t at = 0; at < states.size(); ++at) {
      if (states.size() > kMaxStates)
        throw LimitError("regex_size", "a lookbehind that looks past its own end has more than 2^12 states");
      Node node = states[at];
      edges.emplace_back();
      const uint8_t* classes = lexicon.transitions(node).classes;
      std::array<Node, 256> next;  // by byte class
      next.fill(kUnset);
      for (unsigned byte = 0; byte < 256; ++byte) {
        if (byte == marker) continue;
        Node& target = next[classes[byte]];
        if (target == kUnset) target = lexicon.step(node, static_cast<uint8_t>(byte));
        if (target != kNone) edges[at].emplace_back(static_cast<uint8_t>(byte), number(target));
      }
      remainders.push_back(lexicon.step(node, marker));
    }
  }

  // The texts that lead to states with this remainder.
  Node texts_to(Lexicon& lexicon, Node remainder) const {
    std::vector<Node> holes;
    for (std::size_t i = 0; i < states.size(); ++i) holes.push_back(lexicon.hole());
    for (std::size_t i = 0; i < states.size(); ++i) {
      std::vector<std::pair<uint8_t, Node>> children;
      for (auto [byte, state] : edges[i]) children.emplace_back(byte, holes[state]);
      Node accepted = remainders[i] == remainder ? kEpsilon : kNone;
      lexicon.define(holes[i], lexicon.either({accepted, lexicon.branch(std::move(children))}));
    }
    return holes[0];
  }
};

uint32_t plus(uint32_t a, uint32_t b) { return a > kUnbounded - b ? kUnbounded : a + b; }

// The mirror image of sees_only_itself: what stands before `index` in its match has at least `before` characters.
bool sees_nothing_before(const RegexTree& tree, uint32_t index, uint32_t before) {
  const RegexNode& node = tree[index];
  if (!node.looks_behind) return true;
  switch (node.kind) {
    case RegexKind::kConcat:
      for (uint32_t part : tree.children_of(node)) {
        if (!sees_nothing_before(tree, part, before)) return false;
        before = plus(before, tree[part].min_length);
      }
      return true;
    case RegexKind::kAlternate:
      for (uint32_t option : tree.children_of(node))
        if (!sees_nothing_before(tree, option, before)) return false;
      return true;
    case RegexKind::kRepeat:
    case RegexKind::kAtomic: return sees_nothing_before(tree, node.a, before);
    case RegexKind::kLook:
      if (!node.behind) return sees_nothing_before(tree, node.a, before);
      return !tree[node.a].looks_behind && tree[node.a].max_length <= before;
    default: return before >= 1;
  }
}

}  // namespace

bool sees_only_itself(const RegexTree& tree, uint32_t index, uint32_t after) {
  const RegexNode& node = tree[index];
  if (!node.looks_ahead) return true;
  bool fixed = node.min_length == node.max_length;
  switch (node.kind) {
    case RegexKind::kConcat: {
      auto parts = tree.children_of(node);
      for (std::size_t i = parts.size(); i-- > 0; after = plus(after, tree[parts[i]].min_length))
        if (!sees_only_itself(tree, parts[i], after)) return false;
      return true;
    }
    case RegexKind::kAlternate:
      for (uint32_t option : tree.children_of(node))
        if (!sees_only_itself(tree, option, after)) return false;
      return true;
    case RegexKind::kRepeat:
      // Which match is preferred does not matter if all end at the same place.
      return (node.greed != RegexGreed::kPossessive || fixed) && sees_only_itself(tree, node.a, after);
    case RegexKind::kAtomic: return fixed && sees_only_itself(tree, node.a, after);
    case RegexKind::kLook:
      if (node.behind) return sees_only_itself(tree, node.a, 0);
      return !tree[node.a].looks_ahead && tree[node.a].max_length <= after;
    case RegexKind::kFinalLineEnd: return after >= 2;
    default: return after >= 1;
  }
}

bool looks_past_its_end(const RegexTree& tree) { return !sees_only_itself(tree, tree.root, 0); }
bool looks_before_its_start(const RegexTree& tree) { return !sees_nothing_before(tree, tree.root, 0); }

Node RegexLowering::lookbehind(const RegexNode& node, Neighbours prev, const Continuation& rest) {
  const RegexNode& body = tree_[node.a];
  if (rest.node == kNone) return kNone;
  if (body.kind == RegexKind::kClass) return prev_in(body.a, false, !node.negative, prev, rest);
  if (tree_.nullable(node.a) && !looks(node.a)) return node.negative ? kNone : rest.node;
  if (!sees_only_itself(tree_, node.a, 0)) return lookbehind_past_its_end(node, rest);
  if (!lookbehinds_.contains(node.a)) {
    Node texts = texts_ending_with(node.a, {end_, anywhere_});
    lookbehinds_[node.a] = {{texts, kAll}};
  }
  Node tracker = lookbehinds_[node.a][0].first;
  if (tracker == kNone) return node.negative ? rest.node : kNone;
  return lexicon_.concat(condition(tracker, !node.negative), rest.node);
}

// The texts in which the match of `node` is followed by `rest`, with trackers of their own.
Node RegexLowering::texts_ending_with(uint32_t node, const Continuation& rest) {
  std::vector<Node> outer = std::move(trackers_);
  trackers_.clear();
  Node language = lower_anywhere(node, rest);
  if (!trackers_.empty()) language = lexicon_.tracked(language, trackers_);
  trackers_ = std::move(outer);
  return language;
}

// What can be read before the lookbehind whose body is `index`, with what must follow. The former exclude each other.
std::vector<std::pair<Node, Node>> RegexLowering::cut_texts(uint32_t index) {
  if (markers_ == kMaxMarkers)
    throw LimitError("regex_lookbehinds", "more than 8 lookbehinds inside each other that look past their ends");
  visits_ += tree_.nodes.size() / 16;
  visit();
  auto marker = static_cast<uint8_t>(0xFF - markers_);
  RegexLowering inside(lexicon_, tree_, encoder_, markers_ + 1);
  Node cut = lexicon_.concat(lexicon_.bytes(ByteSet::of(marker)), any_);
  Node matched = inside.texts_ending_with(index, {cut, inside.anywhere_});
  Lexicon::Budget budget(kMaxNodes);
  Automaton automaton(lexicon_, lexicon_.both({matched, lexicon_.concat(any_, cut)}), marker);
  std::vector<std::pair<Node, Node>> pairs;
  for (Node remainder : automaton.remainders) {
    if (remainder == kNone || std::ranges::find(pairs, remainder, &std::pair<Node, Node>::second) != pairs.end())
      continue;
    pairs.emplace_back(automaton.texts_to(lexicon_, remainder), remainder);
    if (pairs.size() > kMaxTrackers) break;  // condition() will refuse
  }
  return pairs;
}

Node RegexLowering::lookbehind_past_its_end(const RegexNode& node, const Continuation& rest) {
  auto memo = lookbehinds_.find(node.a);
  if (memo == lookbehinds_.end()) memo = lookbehinds_.emplace(node.a, cut_texts(node.a)).first;
  if (memo->second.empty()) return node.negative ? rest.node : kNone;
  std::vector<Node> options;
  Node nowhere = kEpsilon;  // where no match of the body can end
  for (auto [behind, remainder] : memo->second) {
    Node ahead = node.negative ? lexicon_.both({tail_for(rest), lexicon_.complement(remainder)}) : remainder;
    options.push_back(lexicon_.concat(condition(behind, true), ahead));
    if (node.negative) nowhere = lexicon_.concat(condition(behind, false), nowhere);
  }
  if (node.negative) options.push_back(lexicon_.concat(nowhere, tail_for(rest)));
  return restrict_to(lexicon_.either(std::move(options)), rest);
}

}  // namespace guiderail
