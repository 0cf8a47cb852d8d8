// Atomic groups and possessive quantifiers, exactly.
//
// `(?>A)K`: of all ways in which A matches a beginning of the text, a backtracking matcher tries them in an order (alternatives from the
// left, greedy loops longest first, lazy ones shortest first) and inside an atomic group keeps the first that succeeds, whatever
// becomes of K. So a text is in the language if what follows the *preferred* match of A is in K.
//
// Two languages go from right to left through A (the field's continuation passing, in pairs): S, the texts on which the rest of A
// succeeds at all, and T, those on which its preferred match is followed by something in K. At the end of A, S is everything and T is K.
//
//     a class c:        S' = c S                T' = c T
//     first or second:  S' = S1 ∪ S2            T' = T1 ∪ (T2 \ S1)       the second only where the first fails
//     greedy loop:      the least pair with  (S', T') = body(S', T') or else (S, T);  lazy: the other way around
//     lookaround L:     S' = L ∩ S              T' = L ∩ T
//
// Worked example: (?>a|ab)c against the end: T = a{c} ∪ (ab{c} \ aΣ*) = {ac}. `abc` is not in it: a was preferred.
#include <algorithm>
#include <tuple>

#include "core/errors.h"
#include "core/regex/lowering.h"

namespace guiderail {

Node RegexLowering::without(Node language, Node excluded) {
  if (language == kNone || excluded == kAll || language == excluded) return kNone;
  if (excluded == kNone) return language;
  if (open_holes_ == 0 && !(lexicon_.nullable(language) && lexicon_.nullable(excluded)) &&
      (lexicon_.first_bound(language) & lexicon_.first_bound(excluded)).empty() && trackers_.empty())
    return language;
  return lexicon_.both({language, lexicon_.complement(excluded)});
}

AtomicContinuation RegexLowering::first_of(const AtomicContinuation& preferred, const AtomicContinuation& other) {
  return {lexicon_.either({preferred.success, other.success}),
          lexicon_.either({preferred.taken, without(other.taken, preferred.success)}), preferred.next | other.next};
}

Node RegexLowering::lower_atomic(uint32_t index, Neighbours prev, const Continuation& empty, const Continuation& rest) {
  return ordered(index, prev, {kAll, empty.node, empty.next}, {kAll, rest.node, rest.next}).taken;
}

AtomicContinuation RegexLowering::ordered(uint32_t index, Neighbours prev, const AtomicContinuation& empty,
                                          const AtomicContinuation& rest) {
  for (unsigned cost = 0; cost < 16; ++cost) visit();  // two languages, and unions and complements of them
  const RegexNode& node = tree_[index];
  switch (node.kind) {
    case RegexKind::kEmpty: return empty;
    case RegexKind::kClass: {
      Node one = class_node(node.a);
      return {lexicon_.concat(one, rest.success), lexicon_.concat(one, rest.taken), may_be(node.a)};
    }
    case RegexKind::kConcat: return ordered_concat(node, prev, empty, rest);
    case RegexKind::kAlternate:
      if (auto words = ordered_words(node, rest)) return *words;
      return ordered_alternate(node, prev, empty, rest);
    case RegexKind::kRepeat: return ordered_repeat(node, prev, empty, rest);
    case RegexKind::kAtomic:
      return committed([&](const auto& e, const auto& r) { return ordered(node.a, prev, e, r); }, empty, rest);
    default: {
      auto here = [&](const Continuation& after) {
        if (node.kind != RegexKind::kLook) return assertion(node, prev, after);
        return node.behind ? lookbehind(node, prev, after) : lookahead(node, prev, after);
      };
      return {here({empty.success, anywhere_}), here({empty.taken, empty.next}), empty.next};
    }
  }
}

template <typename F>
AtomicContinuation RegexLowering::committed(F part, const AtomicContinuation& empty, const AtomicContinuation& rest) {
  AtomicContinuation result =
      part(AtomicContinuation{kAll, empty.taken, empty.next}, AtomicContinuation{kAll, rest.taken, rest.next});
  if (empty.success != kAll || rest.success != kAll)
    result.success =
        part(AtomicContinuation{kAll, empty.success, anywhere_}, AtomicContinuation{kAll, rest.success, anywhere_})
            .taken;
  return result;
}

AtomicContinuation RegexLowering::ordered_concat(const RegexNode& node, Neighbours prev,
                                                 const AtomicContinuation& empty, const AtomicContinuation& rest) {
  auto parts = tree_.children_of(node);
  std::vector<Neighbours> before(parts.size());
  for (std::size_t i = 0; i < parts.size(); ++i) {
    before[i] = prev;
    prev = after(parts[i], prev);
  }
  AtomicContinuation so_far_empty = empty, consumed = rest;
  for (std::size_t i = parts.size(); i-- > 0;) {
    bool same = so_far_empty.success == consumed.success && so_far_empty.taken == consumed.taken;
    AtomicContinuation if_empty = ordered(parts[i], before[i], so_far_empty, consumed);
    consumed = same || i == 0 ? if_empty : ordered(parts[i], before[i], consumed, consumed);
    so_far_empty = if_empty;
  }
  return so_far_empty;
}

AtomicContinuation RegexLowering::ordered_alternate(const RegexNode& node, Neighbours prev,
                                                    const AtomicContinuation& empty, const AtomicContinuation& rest) {
  auto options = tree_.children_of(node);
  std::vector<Node> taken;
  Neighbours next = 0;
  Node before = kNone;  // what the options so far succeed on
  for (uint32_t option : options) {
    if (before == kAll) break;
    AtomicContinuation here = ordered(option, prev, empty, rest);
    taken.push_back(without(here.taken, before));
    before = lexicon_.either({before, here.success});
    next |= here.next;
  }
  return {before, lexicon_.either(std::move(taken)), next};
}

// A choice among words. A word is taken unless an earlier one fits too, and of two words that both fit, one is a prefix of the
// other. So a word with an earlier prefix is never taken, and a word with earlier extensions is taken where none of them fits.
std::optional<AtomicContinuation> RegexLowering::ordered_words(const RegexNode& node, const AtomicContinuation& rest) {
  if (rest.success != kAll) return std::nullopt;
  struct Word {
    std::vector<uint32_t> letters;
    std::size_t rank;
    std::vector<std::pair<std::vector<uint32_t>, Node>> longer;  // what the earlier, longer words go on with
  };
  std::vector<Word> words;
  for (uint32_t option : tree_.children_of(node)) {
    Word word{{}, words.size(), {}};
    std::size_t taken = literal_prefix(option, word.letters);
    if (taken == 0 || (tree_[option].kind == RegexKind::kConcat && taken != tree_[option].b)) return std::nullopt;
    for (uint32_t class_id : word.letters) {
      const CodePoints& set = tree_.classes[class_id];
      if (set.size() != 1 || set[0].first != set[0].second) return std::nullopt;
    }
    words.push_back(std::move(word));
  }
  std::ranges::sort(
      words, [](const Word& a, const Word& b) { return std::tie(a.letters, a.rank) < std::tie(b.letters, b.rank); });
  std::vector<std::size_t> prefixes;  // of the word at hand, among those that are taken at all
  std::vector<bool> dropped(words.size());
  for (std::size_t i = 0; i < words.size(); ++i) {
    auto is_prefix = [&](const Word& w) {
      return w.letters.size() <= words[i].letters.size() &&
             std::equal(w.letters.begin(), w.letters.end(), words[i].letters.begin());
    };
    while (!prefixes.empty() && !is_prefix(words[prefixes.back()])) prefixes.pop_back();
    for (std::size_t p : prefixes) dropped[i] = dropped[i] || words[p].rank < words[i].rank;
    if (dropped[i]) continue;
    for (std::size_t p : prefixes)
      words[p].longer.emplace_back(
          std::vector<uint32_t>(words[i].letters.begin() + static_cast<std::ptrdiff_t>(words[p].letters.size()),
                                words[i].letters.end()),
          kAll);
    prefixes.push_back(i);
  }
  std::vector<std::pair<std::vector<uint32_t>, Node>> success, taken;
  Neighbours next = 0;
  for (std::size_t i = 0; i < words.size(); ++i) {
    visit();
    if (dropped[i]) continue;
    Node excluded = words[i].longer.empty() ? kNone : trie(words[i].longer);
    success.emplace_back(words[i].letters, kAll);
    taken.emplace_back(words[i].letters, without(rest.taken, excluded));
    next |= may_be(words[i].letters[0]);
  }
  return AtomicContinuation{trie(success), trie(taken), next};
}

// A loop over one class at the end of the group: c*+ is c* with no further c, c{2,5}+ is five, or fewer with no further c.
std::optional<AtomicContinuation> RegexLowering::ordered_class_loop(const RegexNode& node,
                                                                    const AtomicContinuation& empty,
                                                                    const AtomicContinuation& rest) {
  const RegexNode& body = tree_[node.a];
  if (body.kind != RegexKind::kClass || rest.success != kAll || (node.min == 0 && empty.success != kAll))
    return std::nullopt;
  Node one = class_node(body.a);
  Node success = lexicon_.concat(lexicon_.repeat(one, node.min, node.min), kAll);
  Neighbours next = may_be(body.a) | (node.min ? 0 : empty.next);
  if (node.greed == RegexGreed::kLazy)
    return AtomicContinuation{
        success, node.min ? lexicon_.concat(lexicon_.repeat(one, node.min, node.min), rest.taken) : empty.taken, next};
  std::vector<Node> taken;
  Node no_more = next_in(body.a, false, false, {rest.taken, rest.next});
  uint32_t least = std::max(node.min, 1u);
  if (node.min == 0) taken.push_back(next_in(body.a, false, false, {empty.taken, empty.next}));
  if (node.max == kUnbounded) {
    taken.push_back(lexicon_.concat(lexicon_.repeat(one, least, kUnbounded), no_more));
  } else {
    if (least < node.max) taken.push_back(lexicon_.concat(lexicon_.repeat(one, least, node.max - 1), no_more));
    taken.push_back(lexicon_.concat(lexicon_.repeat(one, node.max, node.max), rest.taken));
  }
  return AtomicContinuation{success, lexicon_.either(std::move(taken)), next};
}

AtomicContinuation RegexLowering::ordered_repeat(const RegexNode& node, Neighbours prev,
                                                 const AtomicContinuation& empty, const AtomicContinuation& rest) {
  auto loop = [&](const AtomicContinuation& e, const AtomicContinuation& r) {
    if (auto result = ordered_class_loop(node, e, r)) return *result;
    return ordered_loop(node, prev, e, r);
  };
  return node.greed == RegexGreed::kPossessive ? committed(loop, empty, rest) : loop(empty, rest);
}

// Rounds that match nothing end the loop: a matcher that comes back to where the round began goes on behind the loop.
AtomicContinuation RegexLowering::ordered_loop(const RegexNode& node, Neighbours prev, const AtomicContinuation& empty,
                                               const AtomicContinuation& rest) {
  uint32_t body = node.a;
  Neighbours prev_in_loop = after(body, prev), prev_at_entry = node.min ? prev_in_loop : prev;
  Neighbours next_in_loop = first_[body] | rest.next;
  auto round = [&](Neighbours before, const AtomicContinuation& e, const AtomicContinuation& r) {
    auto once = [&](const AtomicContinuation& e2, const AtomicContinuation& r2) {
      return ordered(body, before, e2, r2);
    };
    // CPython commits to each round of a possessive loop, also while the least number is not reached.
    return node.greed == RegexGreed::kPossessive ? committed(once, e, r) : once(e, r);
  };
  auto choose = [&](const AtomicContinuation& again, const AtomicContinuation& exit) {
    AtomicContinuation result = node.greed == RegexGreed::kLazy ? first_of(exit, again) : first_of(again, exit);
    result.next = next_in_loop | exit.next;
    return result;
  };
  AtomicContinuation loop_empty = empty, loop = rest;
  bool same = empty.success == rest.success && empty.taken == rest.taken;
  if (node.max == kUnbounded) {
    // Where the exit always succeeds, so does the loop.
    Node success = rest.success == kAll ? kAll : lexicon_.hole();
    AtomicContinuation again{success, lexicon_.hole(), next_in_loop};
    ++open_holes_;
    AtomicContinuation state = choose(round(prev_in_loop, rest, again), rest);
    AtomicContinuation entry =
        same && prev_at_entry == prev_in_loop ? state : choose(round(prev_at_entry, empty, again), empty);
    --open_holes_;
    lexicon_.define(again.taken, state.taken);
    if (success != kAll) lexicon_.define(success, state.success);
    loop_empty = entry;
    loop = again;
  } else {
    for (uint32_t i = node.min; i < node.max; ++i) {
      Neighbours before = i + 1 < node.max ? prev_in_loop : prev_at_entry;
      AtomicContinuation fewer = loop;
      loop_empty = choose(round(before, empty, fewer), empty);
      loop = same ? loop_empty : choose(round(before, rest, fewer), rest);
    }
  }
  for (uint32_t i = node.min; i-- > 0;) {
    Neighbours before = i == 0 ? prev : prev_in_loop;
    AtomicContinuation if_empty = round(before, loop_empty, loop);
    loop = tree_.nullable(body) && i > 0 ? round(before, loop, loop) : if_empty;
    loop_empty = if_empty;
  }
  return loop_empty;
}

}  // namespace guiderail
