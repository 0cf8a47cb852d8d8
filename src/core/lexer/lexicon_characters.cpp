// Texts as sequences of characters: what a count of characters says beside other things that are said of the same text.
//
// A pattern and a length, `[a-z]+` and at most 63 characters, are an intersection, and by derivatives alone each place of the text would be a
// state of its own. Where the length only counts what the other part consists of, it can be said there ([a-z]{1,63}), or is already
// said and can be left out; and a text that has shown what it must contain is any text from then on. All of it holds because characters are
// a prefix code: a text falls into them in one way.
#include <algorithm>
#include <optional>
#include <unordered_set>
#include <utility>

#include "core/lexer/lexicon_node.h"

namespace guiderail {

using namespace lexicon_detail;

namespace {

constexpr uint32_t times(uint32_t a, uint32_t b) {
  if (a == 0 || b == 0) return 0;
  return a == kUnbounded || b == kUnbounded || a > (kUnbounded - 1) / b ? kUnbounded : a * b;
}

constexpr uint32_t plus(uint32_t a, uint32_t b) { return a > kUnbounded - b ? kUnbounded : a + b; }

// a - b where a may be without end.
constexpr uint32_t minus(uint32_t a, uint32_t b) { return a == kUnbounded ? a : a > b ? a - b : 0; }

}  // namespace

void Lexicon::declare_character(Node character) {
  constexpr std::size_t kManyStates = 4096;
  std::lock_guard lock(mutex_);
  if (std::ranges::find(characters_, character) != characters_.end()) return;
  // A prefix code: where one may end, it ends.
  std::vector<Node> work{character};
  std::unordered_set<uint32_t> seen{id(character)};
  while (!work.empty()) {
    Node at = work.back();
    work.pop_back();
    if (nullable_in(at, nullptr)) {
      if (at != kEpsilon) return;
      continue;
    }
    for (unsigned byte = 0; byte < 256; ++byte) {
      Node next = step(at, static_cast<uint8_t>(byte));
      if (next != kNone && seen.insert(id(next)).second) work.push_back(next);
    }
    if (seen.size() > kManyStates) return;
  }
  characters_.push_back(character);
}

// A declared character, or one out of some of them.
bool Lexicon::is_character(Node n) {
  if (!(info(n).flags & kFinite)) return false;
  if (std::ranges::find(characters_, n) != characters_.end()) return true;
  auto [it, fresh] = classes_.try_emplace(id(n), false);
  if (!fresh) return it->second;
  bool result = std::ranges::any_of(characters_, [&](Node character) {
    std::optional<Span> span = measure_whole(n, character, character);
    return span && span->min == 1 && span->max == 1;
  });
  return classes_[id(n)] = result;
}

// Is `n` character{min,max} rest, of a character that cannot begin the rest?
bool Lexicon::count_of_characters(Node n, CharacterCount& out) {
  const Info* i = &info(n);
  out.rest = kEpsilon;
  if (i->kind == Kind::kConcat) {
    out.rest = node(i->b);
    i = &infos_[i->a];
  }
  if (i->kind != Kind::kRepeat || !is_character(node(i->a))) return false;
  out.character = node(i->a);
  out.min = i->b;
  out.max = i->c;
  return (first_bound_locked(out.character) & first_bound_locked(out.rest)).empty();
}

// How many characters the texts of `n` consist of, before `rest`; nothing if they may be something else, or it is not obvious.
// `inside` is what is left of a character that was begun before `n`, else the character itself.
std::optional<Lexicon::Span> Lexicon::measure(Node n, Node rest, Node character, Node inside) {
  if (inside == character && n == rest) return Span{0, 0};
  const Info& i = info(n);
  if (i.flags & (kCondHere | kRecursive)) return std::nullopt;
  std::array<uint32_t, 4> key{id(n), id(rest), id(character), id(inside)};
  if (auto it = measured_.find(key); it != measured_.end()) return it->second;
  std::optional<Span> result;
  auto after = [&](uint8_t byte, Node next) -> std::optional<Span> {
    Node left = step(inside, byte);
    if (left == kNone) return std::nullopt;
    if (left != kEpsilon) return measure(next, rest, character, left);
    std::optional<Span> span = measure(next, rest, character, character);
    if (span) span = Span{plus(span->min, 1), plus(span->max, 1)};
    return span;
  };
  auto widen = [&](std::optional<Span> option, bool first) {
    if (!option || (!first && !result)) {
      result.reset();
      return false;
    }
    result = first ? *option : Span{std::min(result->min, option->min), std::max(result->max, option->max)};
    return true;
  };
  switch (i.kind) {
    case Kind::kPrefix: result = after(static_cast<uint8_t>(i.a), node(i.b)); break;
    case Kind::kBranch:
      for (uint32_t k = 0; k < i.num_children; k += 2)
        if (!widen(after(static_cast<uint8_t>(i.children[k]), node(i.children[k + 1])), k == 0)) break;
      break;
    case Kind::kEither:
      for (uint32_t k = 0; k < i.num_children; ++k)
        if (!widen(measure(node(i.children[k]), rest, character, inside), k == 0)) break;
      break;
    case Kind::kBoth:
      for (uint32_t child : i.kids()) {
        std::optional<Span> part = measure(node(child), rest, character, inside);
        if (part && result) part = Span{std::max(part->min, result->min), std::min(part->max, result->max)};
        if (part) result = part;
      }
      if (result && result->min > result->max) result.reset();  // empty: nothing to say
      break;
    case Kind::kConcat: {
      std::optional<Span> first = measure_whole(node(i.a), character, inside);
      if (!first) break;
      std::optional<Span> others = measure(node(i.b), rest, character, character);
      if (others) result = Span{plus(first->min, others->min), plus(first->max, others->max)};
      break;
    }
    default:
      if (rest == kEpsilon) result = measure_whole(n, character, inside);
  }
  constexpr std::size_t kKept = std::size_t{1} << 16;
  if (measured_.size() > kKept) measured_.clear();
  measured_.emplace(key, result);
  return result;
}

// The same for texts with nothing behind them.
std::optional<Lexicon::Span> Lexicon::measure_whole(Node n, Node character, Node inside) {
  const Info& i = info(n);
  if (inside == character && i.kind == Kind::kRepeat) {
    std::optional<Span> body = measure_whole(node(i.a), character, character);
    if (body) body = Span{times(body->min, i.b), times(body->max, i.c)};
    return body;
  }
  if (n == inside) return Span{1, 1};
  if (i.kind == Kind::kConcat || i.kind == Kind::kPrefix || i.kind == Kind::kBranch)
    if (auto span = measure(n, kEpsilon, character, inside)) return span;
  if (i.kind == Kind::kEither && !(i.flags & (kCondHere | kRecursive))) {
    // A class of characters is most often a union of spellings, whose parts need not be whole: tried as one below.
    if (auto span = measure(n, kEpsilon, character, inside)) return span;
  }
  // One character out of some, for sure?
  if (!(i.flags & kFinite) || (i.flags & (kTagged | kCondHere | kRecursive | kBoolean))) return std::nullopt;
  if (decide_alive(make_both({n, make_complement(inside)}))) return std::nullopt;
  return Span{1, 1};
}

// The parts of an intersection, of which one at least counts characters. False: it is empty.
bool Lexicon::join_counts(std::vector<Node>& parts) {
  CharacterCount count, other;
  for (std::size_t at = 0; at < parts.size(); ++at) {
    if (!count_of_characters(parts[at], count)) continue;
    // Several counts are one.
    for (std::size_t k = parts.size(); --k > at;)
      if (count_of_characters(parts[k], other) && other.character == count.character && other.rest == count.rest) {
        count.min = std::max(count.min, other.min);
        count.max = std::min(count.max, other.max);
        parts.erase(parts.begin() + static_cast<std::ptrdiff_t>(k));
      }
    if (count.min > count.max) return false;
    bool implied = false;  // that it is a sequence of characters before `rest`
    for (std::size_t k = 0; k < parts.size(); ++k) {
      if (k == at || info(parts[k]).kind == Kind::kNot) continue;
      std::optional<Span> span = measure(parts[k], count.rest, count.character, count.character);
      if (!span) continue;
      if (span->min > count.max || span->max < count.min) return false;
      implied = true;
      if (Node counted = counted_inside(parts[k], count); counted != kNone) {
        parts[k] = counted;
        count.min = 0;
        count.max = kUnbounded;
      }
      if (span->min >= count.min) count.min = 0;
      if (span->max <= count.max) count.max = kUnbounded;
    }
    if (implied && count.min == 0 && count.max == kUnbounded) {
      parts.erase(parts.begin() + static_cast<std::ptrdiff_t>(at--));
    } else {
      parts[at] = make_concat(make_repeat(count.character, count.min, count.max), count.rest);
    }
  }
  return true;
}

// The part with the count said inside it, if one class of it alone is repeated: [a-z][a-z0-9]* of 2 to 63 characters is [a-z][a-z0-9]{1,62}.
// kNone: not so.
Node Lexicon::counted_inside(Node part, const CharacterCount& count) {
  std::vector<Node> spine;
  std::size_t repeated = SIZE_MAX;
  uint32_t fixed = 0;
  Node at = part;
  while (at != count.rest) {
    const Info& i = info(at);
    Node first = at, rest = kEpsilon;
    if (i.kind == Kind::kConcat) {
      first = node(i.a);
      rest = node(i.b);
    } else if (i.kind == Kind::kPrefix) {
      return kNone;  // a character in pieces
    } else if (count.rest != kEpsilon) {
      return kNone;
    }
    std::optional<Span> span = measure_whole(first, count.character, count.character);
    if (!span) return kNone;
    if (span->min == span->max) {
      fixed = plus(fixed, span->min);
    } else {
      const Info& f = info(first);
      if (repeated != SIZE_MAX || f.kind != Kind::kRepeat) return kNone;
      std::optional<Span> body = measure_whole(node(f.a), count.character, count.character);
      if (!body || body->min != 1 || body->max != 1) return kNone;
      repeated = spine.size();
    }
    spine.push_back(first);
    at = rest;
  }
  if (repeated == SIZE_MAX || fixed > count.max) return kNone;
  const Info& r = info(spine[repeated]);
  uint32_t min = std::max(r.b, minus(count.min, fixed)), max = std::min(r.c, minus(count.max, fixed));
  if (min > max) return kNone;
  spine[repeated] = make_repeat(node(r.a), min, max);
  Node result = count.rest;
  for (std::size_t k = spine.size(); k-- > 0;) result = make_concat(spine[k], result);
  return result;
}

// The options of a union: what a count of characters contains anyway is left out.
void Lexicon::absorb_by_counts(std::vector<Node>& options) {
  CharacterCount count;
  for (std::size_t at = 0; at < options.size(); ++at) {
    if (!count_of_characters(options[at], count)) continue;
    Node keeper = options[at];
    std::erase_if(options, [&](Node n) {
      if (n == keeper) return false;
      std::optional<Span> span = measure(n, count.rest, count.character, count.character);
      return span && span->min >= count.min && span->max <= count.max;
    });
    at = static_cast<std::size_t>(std::ranges::find(options, keeper) - options.begin());
  }
}

bool Lexicon::excluded_at_end(Node n, Node base, Node& characters, uint8_t& last) {
  std::lock_guard lock(mutex_);
  CharacterCount excluded, all;
  if (!count_of_characters(n, excluded) || !count_of_characters(base, all)) return false;
  if (all.rest != excluded.rest || all.min > 0) return false;
  std::optional<uint8_t> end = last_byte_of_endless(base);
  if (!end) return false;
  std::optional<Span> span = measure_whole(excluded.character, all.character, all.character);
  if (!span || span->min != 1 || span->max != 1) return false;
  if (!decide_alive(make_both({all.character, make_complement(excluded.character)}))) return false;
  characters = make_repeat(excluded.character, excluded.min, excluded.max);
  last = *end;
  return true;
}

std::optional<uint8_t> Lexicon::last_byte_of_endless(Node n) {
  std::lock_guard lock(mutex_);
  CharacterCount count;
  if (!count_of_characters(n, count) || count.max != kUnbounded) return std::nullopt;
  const Info& rest = info(count.rest);
  if (rest.kind != Kind::kBytes || set_of(rest.kids()).count() != 1) return std::nullopt;
  return set_of(rest.kids()).first();
}

bool Lexicon::endless_before_last_byte(Node n) {
  std::lock_guard lock(mutex_);
  Node all = n, excluded = kNone;
  if (Exclusion found; exclusion(n, found)) {
    if (found.reference != found.base) return false;
    all = found.base;
    excluded = found.excluded;
  }
  if (!last_byte_of_endless(all)) return false;
  // A finite set takes only finitely many away, and a class of characters leaves all texts with a character that it lacks.
  return std::ranges::all_of(options(excluded), [&](Node option) {
    Node characters;
    uint8_t last;
    return certainly_finite(option) || excluded_at_end(option, all, characters, last);
  });
}

// An intersection without its largest number of characters, if that is so far away that no text shorter than `length` comes near it: whatever
// such a text leaves of the other parts can be completed below it.
Node Lexicon::without_far_maximum(Node n, uint32_t length) {
  if (info(n).flags & (kCondHere | kRecursive)) return n;
  std::vector<Node> others;
  CharacterCount count, found{kNone, kNone, 0, 0};
  for (uint32_t child : info(n).kids()) {
    if (found.character == kNone && count_of_characters(node(child), count) && count.max != kUnbounded)
      found = count;
    else
      others.push_back(node(child));
  }
  if (found.character == kNone || found.min > 0 || found.max <= length) return n;
  Node rest = make_both(others);
  if (!measure(rest, found.rest, found.character, found.character))
    return n;  // it may be something else than characters
  return completion_bound(rest) <= found.max - length ? rest : n;
}

// With how many bytes can whatever is left of a text of `n` be completed? At most; kUnbounded: not known. All that can be left
// is looked at, once.
uint32_t Lexicon::completion_bound(Node start) {
  constexpr std::size_t kManyStates = 1'500, kManyNodes = 20'000;
  if (auto it = completion_bounds_.find(id(start)); it != completion_bounds_.end()) return it->second;
  std::vector<Node> states{start};
  std::unordered_map<uint32_t, uint32_t> places{{id(start), 0}};
  std::vector<std::vector<uint32_t>> before{{}};
  uint32_t bound = 0;
  try {
    Budget budget(kManyNodes);
    for (uint32_t k = 0; k < states.size() && bound == 0; ++k) {
      const Transitions& t = transitions(states[k]);
      std::array<bool, 256> met{};
      for (unsigned byte = 0; byte < 256; ++byte) {
        if (std::exchange(met[t.classes[byte]], true)) continue;
        Node next = step(states[k], static_cast<uint8_t>(byte));
        if (next == kNone) continue;
        auto [it, fresh] = places.try_emplace(id(next), static_cast<uint32_t>(states.size()));
        if (fresh) {
          states.push_back(next);
          before.emplace_back();
        }
        before[it->second].push_back(k);
      }
      if (states.size() > kManyStates) bound = kUnbounded;
    }
  } catch (const LimitError&) { bound = kUnbounded; }
  if (bound == 0) {
    // Backwards from the ends, layer by layer.
    std::vector<bool> seen(states.size());
    std::vector<uint32_t> layer, next_layer;
    for (uint32_t k = 0; k < states.size(); ++k)
      if (nullable_in(states[k], nullptr)) {
        seen[k] = true;
        layer.push_back(k);
      }
    for (; !layer.empty(); std::swap(layer, next_layer)) {
      next_layer.clear();
      for (uint32_t k : layer)
        for (uint32_t b : before[k])
          if (!seen[b]) {
            seen[b] = true;
            next_layer.push_back(b);
          }
      if (!next_layer.empty()) ++bound;
    }
    for (Node state : states) completion_bounds_.emplace(id(state), bound);
  } else {
    completion_bounds_.emplace(id(start), bound);
  }
  return bound;
}

}  // namespace guiderail
