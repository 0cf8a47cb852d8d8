// Syntax tree → language, by continuation passing.
//
// Without lookarounds a regular expression is an expression of the lexicon: concat, either, repeat. A lookahead constrains
// what *follows* it, and what follows is known if expressions are lowered from the right: let K be the language of everything
// after a position, up to the end of the text. Then
//
//     (?=X) before K   =   X Σ*  ∩  K              (?!X) before K   =   K \ X Σ*
//     AB before K      =   A before (B before K)   A* before K      =   H, where H = K ∪ (A before H)
//
// which is exact whatever A and X are. Worked example: `(?!ab)[a-c]+` against the end of the text, K = {ε}, is [a-c]+ \ ab Σ*.
//
// A lookbehind constrains what was read, which a derivative has forgotten. So a second automaton (a tracker) reads the
// text from its start beside the expression, and a condition asks it (Lexicon::tracked). Trackers cost; most are
// avoided by looking at the neighbours: `^` at the start of the match, `\b` between a letter class and a comma, and so on are decided
// here, from which classes of characters can stand before and after a position.
//
// A loop whose body can be empty only repeats where it consumed something: lowering takes two continuations, one for an
// empty match and one for others, and a loop passes 'nothing' for the empty one. What it loses it already has.
#include "core/regex/lowering.h"

#include <algorithm>
#include <string>

#include "core/errors.h"
#include "core/regex/order.h"

namespace guiderail {
namespace {

// A memo slot that is not filled. No node has this number: the lexicon's budget ends long before.
constexpr Node kUnset{UINT32_MAX};

bool is_utf8(const Encoder& encoder) {
  auto* target = encoder.target<Node (*)(Lexicon&, const CodePoints&)>();
  return target && *target == &encode_utf8;
}

}  // namespace

RegexLowering::RegexLowering(Lexicon& lexicon, const RegexTree& tree, const Encoder& encoder, unsigned markers)
    : lexicon_(lexicon), tree_(tree), encoder_(encoder), markers_(markers), utf8_(markers == 0 && is_utf8(encoder)),
      class_nodes_(tree.classes.size(), kUnset), plain_(tree.nodes.size(), kUnset),
      nonempty_(tree.nodes.size(), kUnset) {
  // Inside a lookbehind that needs it, one marker may stand before any character or at the end (regex/lookbehind.cpp).
  end_ = kEpsilon;
  for (unsigned i = 0; i < markers; ++i)
    end_ = lexicon.concat(lexicon.optional(lexicon.bytes(ByteSet::of(static_cast<uint8_t>(0xFF - i)))), end_);
  any_ = lexicon.concat(lexicon.repeat(lexicon.concat(end_, encoder(lexicon, all_code_points())), 0, kUnbounded), end_);
  if (looks(tree.root)) find_neighbours();
}

void RegexLowering::visit() {
  if (++visits_ > kMaxVisits)
    throw LimitError("regex_size",
                     "the regular expression grows to more than 2,000,000 parts where it looks around itself");
}

// --- classes and plain expressions --------------------------------------------------------------------------------------

Node RegexLowering::class_node(uint32_t class_id) {
  Node& memo = class_nodes_[class_id];
  if (memo == kUnset) memo = lexicon_.concat(end_, encoder_(lexicon_, tree_.classes[class_id]));
  return memo;
}

Node RegexLowering::plain(uint32_t index) {
  if (plain_[index] != kUnset) return plain_[index];
  const RegexNode& node = tree_[index];
  Node result = kEpsilon;
  if (node.kind == RegexKind::kClass) {
    result = class_node(node.a);
  } else if (node.kind == RegexKind::kRepeat) {
    result = lexicon_.repeat(plain(node.a), node.min, node.max);
  } else if (node.kind == RegexKind::kAlternate) {
    auto options = tree_.children_of(node);
    result = plain_alternatives({options.begin(), options.end()});
  } else {
    result = plain_concat(tree_.children_of(node));
  }
  return plain_[index] = result;
}

// a?a?a? and aa*a are one counter each: as separate parts, n of them would leave up to n remainders at a time.
Node RegexLowering::plain_concat(std::span<const uint32_t> parts) {
  auto counted = [&](uint32_t part) { return tree_[part].kind == RegexKind::kRepeat; };
  auto repeated = [&](uint32_t part) { return counted(part) ? tree_[part].a : part; };
  auto add = [](uint32_t a, uint32_t b) { return a > kUnbounded - b ? kUnbounded : a + b; };
  Node result = kEpsilon;
  for (std::size_t end = parts.size(); end > 0;) {
    std::size_t begin = end - 1;
    uint32_t min = 0, max = 0;
    bool any_counted = false, unbounded = false;
    auto take = [&](uint32_t part) {
      any_counted = any_counted || counted(part);
      unbounded = unbounded || (counted(part) && tree_[part].max == kUnbounded);
      min = add(min, counted(part) ? tree_[part].min : 1);
      max = add(max, counted(part) ? tree_[part].max : 1);
    };
    take(parts[begin]);
    while (begin > 0 && repeated(parts[begin - 1]) == repeated(parts[begin])) take(parts[--begin]);
    if (any_counted && end - begin > 1 && min < kUnbounded && unbounded == (max == kUnbounded)) {
      result = lexicon_.concat(lexicon_.repeat(plain(repeated(parts[begin])), min, max), result);
    } else {
      for (std::size_t i = end; i-- > begin;) result = lexicon_.concat(plain(parts[i]), result);
    }
    end = begin;
  }
  return result;
}

// plain(index) without the empty string.
Node RegexLowering::plain_nonempty(uint32_t index) {
  if (!tree_.nullable(index)) return plain(index);
  if (nonempty_[index] != kUnset) return nonempty_[index];
  const RegexNode& node = tree_[index];
  Node result = kNone;
  if (node.kind == RegexKind::kRepeat) {
    Node more = lexicon_.repeat(plain(node.a), 0, node.max == kUnbounded ? kUnbounded : node.max - 1);
    result = lexicon_.concat(plain_nonempty(node.a), more);
  } else if (node.kind == RegexKind::kAlternate) {
    std::vector<Node> options;
    for (uint32_t option : tree_.children_of(node)) options.push_back(plain_nonempty(option));
    result = lexicon_.either(std::move(options));
  } else if (node.kind == RegexKind::kConcat) {
    auto parts = tree_.children_of(node);  // all nullable
    Node rest = kEpsilon;
    for (std::size_t i = parts.size(); i-- > 0;) {
      result = lexicon_.either({lexicon_.concat(plain_nonempty(parts[i]), rest), result});
      rest = lexicon_.concat(plain(parts[i]), rest);
    }
  }
  return nonempty_[index] = result;
}

// The classes that `node` begins with, one after another; returns how many children of a concatenation that takes.
std::size_t RegexLowering::literal_prefix(uint32_t index, std::vector<uint32_t>& class_ids) const {
  const RegexNode& node = tree_[index];
  if (node.kind == RegexKind::kClass) {
    class_ids.push_back(node.a);
    return 1;
  }
  if (node.kind != RegexKind::kConcat) return 0;
  auto parts = tree_.children_of(node);
  std::size_t taken = 0;
  for (; taken < parts.size() && tree_[parts[taken]].kind == RegexKind::kClass; ++taken)
    class_ids.push_back(tree_[parts[taken]].a);
  return taken;
}

// Alternatives share their prefixes, so that ten thousand words cost the letters they differ in.
Node RegexLowering::plain_alternatives(const std::vector<uint32_t>& options) {
  std::vector<std::pair<std::vector<uint32_t>, Node>> entries;
  entries.reserve(options.size());
  for (uint32_t option : options) {
    std::vector<uint32_t> prefix;
    std::size_t taken = literal_prefix(option, prefix);
    const RegexNode& node = tree_[option];
    Node rest = kEpsilon;
    if (node.kind == RegexKind::kConcat) {
      rest = plain_concat(tree_.children_of(node).subspan(taken));
    } else if (taken == 0) {
      rest = plain(option);
    }
    entries.emplace_back(std::move(prefix), rest);
  }
  return trie(entries);
}

// The union of sequences of classes, each with its own continuation.
Node RegexLowering::trie(std::vector<std::pair<std::vector<uint32_t>, Node>>& entries) {
  auto is_single = [&](uint32_t class_id) {
    const CodePoints& set = tree_.classes[class_id];
    return set.size() == 1 && set[0].first == set[0].second;
  };
  bool literal =
      utf8_ && std::ranges::all_of(entries, [&](const auto& e) { return std::ranges::all_of(e.first, is_single); });
  if (!literal) {
    std::ranges::sort(entries);
    return trie_range(entries, 0, entries.size(), 0);
  }
  std::vector<std::string> texts(entries.size());
  std::vector<std::pair<std::string_view, Node>> words;
  for (std::size_t i = 0; i < entries.size(); ++i) {
    for (uint32_t class_id : entries[i].first) append_utf8(texts[i], tree_.classes[class_id][0].first);
    words.emplace_back(texts[i], entries[i].second);
  }
  return lexicon_.literals(std::move(words));
}

// Entries begin..end agree on their first `depth` classes. Recurses only where sequences part.
Node RegexLowering::trie_range(const std::vector<std::pair<std::vector<uint32_t>, Node>>& entries, std::size_t begin,
                               std::size_t end, std::size_t depth) {
  const auto &low = entries[begin].first, &high = entries[end - 1].first;
  std::size_t common = depth;
  while (common < low.size() && common < high.size() && low[common] == high[common]) ++common;
  std::vector<Node> options;
  for (; begin < end && entries[begin].first.size() == common; ++begin) options.push_back(entries[begin].second);
  while (begin < end) {
    std::size_t next = begin + 1;
    while (next < end && entries[next].first[common] == entries[begin].first[common]) ++next;
    options.push_back(
        lexicon_.concat(class_node(entries[begin].first[common]), trie_range(entries, begin, next, common + 1)));
    begin = next;
  }
  Node result = lexicon_.either(std::move(options));
  for (std::size_t i = common; i-- > depth;) result = lexicon_.concat(class_node(low[i]), result);
  return result;
}

// --- continuation passing -----------------------------------------------------------------------------------------------

Node RegexLowering::lower(uint32_t index, Neighbours prev, const Continuation& empty, const Continuation& rest) {
  visit();
  const RegexNode& node = tree_[index];
  if (!looks(index)) {
    if (!tree_.nullable(index) || empty.node == rest.node) return lexicon_.concat(plain(index), rest.node);
    return lexicon_.either({empty.node, lexicon_.concat(plain_nonempty(index), rest.node)});
  }
  switch (node.kind) {
    case RegexKind::kConcat: return lower_concat(node, prev, empty, rest);
    case RegexKind::kAlternate: return lower_alternate(node, prev, empty, rest);
    case RegexKind::kRepeat: return lower_repeat(index, prev, empty, rest);
    case RegexKind::kAtomic: return lower_atomic(node.a, prev, empty, rest);
    case RegexKind::kLook: return node.behind ? lookbehind(node, prev, empty) : lookahead(node, prev, empty);
    default: return assertion(node, prev, empty);
  }
}

Node RegexLowering::lower_concat(const RegexNode& node, Neighbours prev, const Continuation& empty,
                                 const Continuation& rest) {
  auto parts = tree_.children_of(node);
  std::vector<Neighbours> before(parts.size());
  for (std::size_t i = 0; i < parts.size(); ++i) {
    before[i] = prev;
    prev = after(parts[i], prev);
  }
  Continuation so_far_empty = empty, consumed = rest;
  for (std::size_t i = parts.size(); i-- > 0;) {
    bool same = so_far_empty.node == consumed.node;
    Node node_if_empty = lower(parts[i], before[i], so_far_empty, consumed);
    Node node_if_consumed = same || i == 0 ? node_if_empty : lower(parts[i], before[i], consumed, consumed);
    so_far_empty = {node_if_empty,
                    tree_.nullable(parts[i]) ? first_[parts[i]] | so_far_empty.next | consumed.next : first_[parts[i]]};
    consumed = {node_if_consumed, first(parts[i], consumed.next)};
  }
  return so_far_empty.node;
}

Node RegexLowering::lower_alternate(const RegexNode& node, Neighbours prev, const Continuation& empty,
                                    const Continuation& rest) {
  std::vector<uint32_t> together;  // plain alternatives share their prefixes
  std::vector<Node> options;
  for (uint32_t option : tree_.children_of(node)) {
    if (!looks(option) && (!tree_.nullable(option) || empty.node == rest.node))
      together.push_back(option);
    else
      options.push_back(lower(option, prev, empty, rest));
  }
  if (!together.empty()) options.push_back(lexicon_.concat(plain_alternatives(together), rest.node));
  return lexicon_.either(std::move(options));
}

Node RegexLowering::lower_repeat(uint32_t index, Neighbours prev, const Continuation& empty, const Continuation& rest) {
  const RegexNode& node = tree_[index];
  uint32_t body = node.a, min = node.min, max = node.max;
  if (node.greed == RegexGreed::kPossessive) return lower_atomic(index, prev, empty, rest);
  Neighbours prev_in_loop = last_[body] | (tree_.nullable(body) ? prev : 0);
  bool body_empty = tree_.nullable(body);
  Neighbours next_in_loop = first_[body] | rest.next;
  Neighbours prev_at_entry = min ? prev_in_loop : prev;  // of the part after the least number of rounds

  if (!tree_[body].looks_ahead && !body_empty) {
    // Conditions on the past alone need no continuation: the repetition stays a counter of the lexicon.
    auto once = [&](Neighbours before) { return lower(body, before, {kEpsilon, rest.next}); };
    Node further = once(prev_in_loop);
    auto repeated = [&](uint32_t least) {
      if (max == 0) return kEpsilon;
      uint32_t most = max == kUnbounded ? kUnbounded : max - 1;
      return lexicon_.concat(once(prev), lexicon_.repeat(further, least ? least - 1 : 0, most));
    };
    Node result = lexicon_.concat(repeated(min), rest.node);
    return min == 0 ? lexicon_.either({empty.node, result}) : result;
  }

  Continuation loop_empty = empty, loop = rest;
  if (max == kUnbounded) {
    Node hole = lexicon_.hole();
    Continuation again{hole, next_in_loop};
    ++open_holes_;
    Node more = lower(body, prev_in_loop, {kNone, 0}, again);
    --open_holes_;
    lexicon_.define(hole, lexicon_.either({rest.node, more}));
    Node first_round = prev_at_entry == prev_in_loop ? more : lower(body, prev_at_entry, {kNone, 0}, again);
    loop_empty = {lexicon_.either({empty.node, first_round}), next_in_loop | empty.next};
    loop = {hole, next_in_loop};
  } else {
    for (uint32_t i = min; i < max; ++i) {
      Neighbours before = i + 1 < max ? prev_in_loop : prev_at_entry;
      Node more = lower(body, before, {kNone, 0}, loop);
      loop_empty = {lexicon_.either({empty.node, more}), next_in_loop | empty.next};
      loop = {lexicon_.either({rest.node, more}), next_in_loop};
    }
  }
  for (uint32_t i = min; i-- > 0;) {
    Neighbours before = i == 0 ? prev : prev_in_loop;
    Node node_if_empty = lower(body, before, loop_empty, loop);
    Node node_if_consumed = !body_empty || i == 0 ? node_if_empty : lower(body, before, loop, loop);
    loop_empty = {node_if_empty, next_in_loop | empty.next};
    loop = {node_if_consumed, next_in_loop};
  }
  return loop_empty.node;
}

// --- assertions ---------------------------------------------------------------------------------------------------------

// `rest` and the language both; languages that end in tail_for(rest) are parts of `any` where `rest` is all of it.
Node RegexLowering::restrict_to(Node language, const Continuation& rest) {
  if (rest.node == any_ || language == kNone) return language;
  return lexicon_.both({rest.node, language});
}

Node RegexLowering::condition(Node tracker, bool positive) {
  auto it = std::ranges::find(trackers_, tracker);
  if (it == trackers_.end()) {
    if (trackers_.size() == kMaxTrackers)
      throw LimitError("regex_lookbehinds",
                       "more than 32 different lookbehinds or boundaries in one regular expression");
    it = trackers_.insert(it, tracker);
  }
  return lexicon_.condition(static_cast<uint32_t>(it - trackers_.begin()), positive);
}

// The next character is (is not, if not positive) in the class, or, with or_end, there is none.
Node RegexLowering::next_in(uint32_t class_id, bool or_end, bool positive, const Continuation& rest) {
  Neighbours may = may_be(class_id) | (or_end ? kEdge : 0), must = must_be(class_id) | (or_end ? kEdge : 0);
  if (!(rest.next & ~must)) return positive ? rest.node : kNone;
  if (!(rest.next & may)) return positive ? kNone : rest.node;
  Node inside =
      positive ? class_node(class_id) : lexicon_.concat(end_, encoder_(lexicon_, complement(tree_.classes[class_id])));
  Node language = lexicon_.concat(inside, tail_for(rest));
  if (or_end == positive) language = lexicon_.either({end_, language});
  return restrict_to(language, rest);
}

// The same about the character before, and the start of the text.
Node RegexLowering::prev_in(uint32_t class_id, bool or_start, bool positive, Neighbours prev,
                            const Continuation& rest) {
  Neighbours may = may_be(class_id) | (or_start ? kEdge : 0), must = must_be(class_id) | (or_start ? kEdge : 0);
  if (!(prev & ~must)) return positive ? rest.node : kNone;
  if (!(prev & may)) return positive ? kNone : rest.node;
  Node tracker = lexicon_.concat(any_, class_node(class_id));
  if (or_start) tracker = lexicon_.either({end_, tracker});
  return lexicon_.concat(condition(tracker, positive), rest.node);
}

Node RegexLowering::assertion(const RegexNode& node, Neighbours prev, const Continuation& rest) {
  switch (node.kind) {
    case RegexKind::kTextStart:
      if (!(prev & kEdge)) return kNone;
      return prev == kEdge ? rest.node : lexicon_.concat(condition(end_, true), rest.node);
    case RegexKind::kLineStart: return prev_in(node.a, true, true, prev, rest);
    case RegexKind::kTextEnd:
      if (!(rest.next & kEdge)) return kNone;
      return rest.next == kEdge ? rest.node : restrict_to(end_, rest);
    case RegexKind::kLineEnd: return next_in(node.a, true, true, rest);
    case RegexKind::kFinalLineEnd: {
      if (rest.next == kEdge) return rest.node;
      if (!(rest.next & (kEdge | may_be(node.a)))) return kNone;
      return restrict_to(lexicon_.either({end_, lexicon_.concat(class_node(node.a), end_)}), rest);
    }
    default: return word_boundary(node, prev, rest);
  }
}

// Three kinds of place, by what is before: the start of the text, a word character, another one. Each asks something else of
// what comes next.
Node RegexLowering::word_boundary(const RegexNode& node, Neighbours prev, const Continuation& rest) {
  uint32_t word = node.a;
  bool boundary = node.kind == RegexKind::kWordBoundary;
  Node tail = tail_for(rest);
  auto next = [&](bool is_word, bool or_end) -> Node {  // as a language to intersect with
    Neighbours wanted = (is_word ? must_be(word) : anywhere_ & ~may_be(word) & ~kEdge) | (or_end ? kEdge : 0);
    if (!(rest.next & ~wanted)) return tail;
    Neighbours possible = (is_word ? may_be(word) : anywhere_ & ~must_be(word) & ~kEdge) | (or_end ? kEdge : 0);
    if (!(rest.next & possible)) return kNone;
    Node one = is_word ? class_node(word) : lexicon_.concat(end_, encoder_(lexicon_, complement(tree_.classes[word])));
    Node language = lexicon_.concat(one, tail);
    return or_end ? lexicon_.either({end_, language}) : language;
  };
  Node after_word = next(!boundary, boundary);
  Node after_other = next(boundary, !boundary);
  Node after_start = node.kind == RegexKind::kNotWordBoundaryPy ? next(false, false) : after_other;

  bool may_start = prev & kEdge, may_word = prev & may_be(word), may_other = prev & ~must_be(word) & ~kEdge;
  Node behind_word = kNone, behind_start = kNone;
  if (may_word && (may_start || may_other)) behind_word = lexicon_.concat(any_, class_node(word));
  if (may_start && (may_word || may_other) && (after_start != after_other || !may_other)) behind_start = end_;
  std::vector<Node> options;
  if (may_word) {
    Node here = may_start || may_other ? condition(behind_word, true) : kEpsilon;
    options.push_back(lexicon_.concat(here, after_word));
  }
  if (may_start && (after_start != after_other || !may_other)) {
    Node here = may_word || may_other ? condition(behind_start, true) : kEpsilon;
    options.push_back(lexicon_.concat(here, after_start));
  }
  if (may_other) {
    Node here = may_word ? condition(behind_word, false) : kEpsilon;
    if (may_start && after_start != after_other) here = lexicon_.concat(here, condition(behind_start, false));
    options.push_back(lexicon_.concat(here, after_other));
  }
  Node language = lexicon_.either(std::move(options));
  return language == tail ? rest.node : restrict_to(language, rest);
}

Node RegexLowering::lookahead(const RegexNode& node, Neighbours prev, const Continuation& rest) {
  const RegexNode& body = tree_[node.a];
  if (rest.node == kNone) return kNone;
  if (body.kind == RegexKind::kClass) return next_in(body.a, false, !node.negative, rest);
  if (tree_.nullable(node.a) && !looks(node.a)) return node.negative ? kNone : rest.node;
  Node tail = node.negative ? kAll : tail_for(rest);
  Node language = lower(node.a, prev, {tail, anywhere_});
  if (language == kNone) return node.negative ? rest.node : kNone;
  if (language == tail) return node.negative ? kNone : rest.node;
  return node.negative ? lexicon_.both({rest.node, lexicon_.complement(language)}) : restrict_to(language, rest);
}

// --- neighbours ---------------------------------------------------------------------------------------------------------

// Splits the code points by the classes that assertions ask about.
void RegexLowering::find_cells() {
  cells_.push_back(all_code_points());
  for (const RegexNode& node : tree_.nodes) {
    uint32_t class_id = node.a;
    if (node.kind == RegexKind::kLook || (node.kind == RegexKind::kRepeat && node.greed == RegexGreed::kPossessive)) {
      if (tree_[node.a].kind != RegexKind::kClass) continue;
      class_id = tree_[node.a].a;
    } else if (node.kind < RegexKind::kLineStart) {
      continue;
    }
    std::vector<CodePoints> refined;
    CodePoints inside = tree_.classes[class_id], outside = complement(inside);
    for (const CodePoints& cell : cells_)
      for (const CodePoints& part : {intersect(cell, inside), intersect(cell, outside)})
        if (!part.empty()) refined.push_back(part);
    if (refined.size() > kMaxCells) break;
    cells_ = std::move(refined);
  }
  class_cells_.assign(tree_.classes.size(), {0, 0});
  anywhere_ = (Neighbours{2} << cells_.size()) - 1;
}

Neighbours RegexLowering::may_be(uint32_t class_id) {
  auto& [may, must] = class_cells_[class_id];
  if (may == 0) {
    const CodePoints& set = tree_.classes[class_id];
    for (std::size_t c = 0; c < cells_.size(); ++c) {
      CodePoints common = intersect(cells_[c], set);
      if (common.empty()) continue;
      may |= Neighbours{2} << c;
      if (common == cells_[c]) must |= Neighbours{2} << c;
    }
  }
  return may;
}

Neighbours RegexLowering::must_be(uint32_t class_id) {
  may_be(class_id);
  return class_cells_[class_id].second;
}

// Children stand before their parents, so one pass suffices.
void RegexLowering::find_neighbours() {
  find_cells();
  first_.resize(tree_.nodes.size());
  last_.resize(tree_.nodes.size());
  for (uint32_t i = 0; i < tree_.nodes.size(); ++i) {
    const RegexNode& node = tree_[i];
    switch (node.kind) {
      case RegexKind::kClass: first_[i] = last_[i] = may_be(node.a); break;
      case RegexKind::kRepeat:
      case RegexKind::kAtomic:
        first_[i] = first_[node.a];
        last_[i] = last_[node.a];
        break;
      case RegexKind::kConcat: {
        auto parts = tree_.children_of(node);
        for (uint32_t part : parts) last_[i] = after(part, last_[i]);
        for (std::size_t k = parts.size(); k-- > 0;) first_[i] = first(parts[k], first_[i]);
        break;
      }
      case RegexKind::kAlternate:
        for (uint32_t option : tree_.children_of(node)) {
          first_[i] |= first_[option];
          last_[i] |= last_[option];
        }
        break;
      default: break;  // matches nothing but the empty string
    }
  }
}

// --- the whole ----------------------------------------------------------------------------------------------------------

// The texts that begin with anything, after which `node` matches, and then `rest`.
Node RegexLowering::lower_anywhere(uint32_t node, const Continuation& rest) {
  if (!tree_[node].looks_behind) return lexicon_.concat(any_, lower(node, anywhere_, rest));
  // What the expression sees behind its start is the start of the text or a character of one of the cells. Lowered for each, most
  // of its assertions are decided: `\bfoo` is foo at the start, foo after a non-word character, nothing after a word character.
  Node at_start = lower(node, kEdge, rest);
  std::vector<std::pair<Node, CodePoints>> after_cells;
  bool all_equal = true;
  for (std::size_t c = 0; c < cells_.size(); ++c) {
    Node here = lower(node, Neighbours{2} << c, rest);
    all_equal = all_equal && here == at_start;
    auto same = std::ranges::find_if(after_cells, [&](const auto& entry) { return entry.first == here; });
    if (same == after_cells.end())
      after_cells.emplace_back(here, cells_[c]);
    else
      same->second = unite(same->second, cells_[c]);
  }
  if (all_equal) return lexicon_.concat(any_, at_start);
  std::vector<Node> options;
  bool start_shared = false;
  for (const auto& [here, cells] : after_cells) {
    Node behind = lexicon_.concat(any_, lexicon_.concat(end_, encoder_(lexicon_, cells)));
    if (here == at_start) {
      behind = lexicon_.optional(behind);
      start_shared = true;
    }
    options.push_back(lexicon_.concat(behind, here));
  }
  if (!start_shared) options.push_back(at_start);
  return lexicon_.either(std::move(options));
}

// What a leftmost-first matcher would take as a whole if the text ended there: the language of (?>...) before the end. Where the
// order of preference changes nothing, the plain expression says the same with smaller remainders.
Node RegexLowering::lower_ordered() {
  if (longest_is_preferred(tree_)) return lower(tree_.root, kEdge, {end_, kEdge});
  if (first_.empty()) find_neighbours();
  Continuation at_end{end_, kEdge};
  Node ordered = lower_atomic(tree_.root, kEdge, at_end, at_end);
  Node full = lower(tree_.root, kEdge, at_end);
  if (ordered == full) return full;
  try {
    Lexicon::Budget budget(kMaxComparison);
    Node lost = lexicon_.both({full, lexicon_.complement(ordered)});
    if (!trackers_.empty()) lost = lexicon_.tracked(lost, trackers_);
    if (!lexicon_.alive(lost)) return full;
  } catch (const LimitError&) {
    // Not proven equal in reasonable time: `ordered` is right in any case.
  }
  return ordered;
}

// The preferred match goes on to the marker. Every class admits the marker before its character, so a lookahead sees past it.
Node RegexLowering::lower_marked() {
  RegexLowering inside(lexicon_, tree_, encoder_, 1);
  if (inside.first_.empty()) inside.find_neighbours();
  Node cut = lexicon_.concat(lexicon_.bytes(ByteSet::of(Lexicon::kMarker)), kAll);
  AtomicContinuation end{kAll, cut, inside.anywhere_};
  Node taken = inside.ordered(tree_.root, kEdge, end, end).taken;
  if (!inside.trackers_.empty()) taken = lexicon_.tracked(taken, inside.trackers_);
  return lexicon_.both({taken, lexicon_.texts_with_a_marker()});
}

Node RegexLowering::lower(RegexMatch match) {
  if (match == RegexMatch::kMarked) return lower_marked();
  Node body = match == RegexMatch::kFull     ? lower(tree_.root, kEdge, {end_, kEdge})
              : match == RegexMatch::kSearch ? lower_anywhere(tree_.root, {any_, anywhere_})
                                             : lower_ordered();
  return trackers_.empty() ? body : lexicon_.tracked(body, trackers_);
}

Node lower_regex(Lexicon& lexicon, const RegexTree& tree, RegexMatch match, const Encoder& encoder) {
  return RegexLowering(lexicon, tree, encoder).lower(match);
}

}  // namespace guiderail
