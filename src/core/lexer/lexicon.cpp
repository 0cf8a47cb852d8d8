#include "core/lexer/lexicon_node.h"

#include <algorithm>
#include <array>
#include <cassert>

namespace guiderail {

using namespace lexicon_detail;

Lexicon::Budget::Budget(std::size_t max_new_nodes) : saved_(budget_left) {
  budget_left = std::min(budget_left, max_new_nodes);
}
Lexicon::Budget::~Budget() { budget_left = saved_; }

Lexicon::Lexicon(std::size_t max_bytes)
    : pool_(std::make_unique<Pool>(bytes_used_)), table_(1024, 0), max_bytes_(max_bytes) {
  infos_.emplace_back(Kind::kNone, kFinite, uint16_t{0}, 0u, 0u, 0u, std::span<const uint32_t>{}, uint64_t{0});
  infos_[0].alive = 2;
  [[maybe_unused]] Node epsilon = intern(Kind::kAccept, 0, 0, 0, {});
  [[maybe_unused]] Node everything = intern(Kind::kAll, 0, 0, 0, {});
  assert(epsilon == kEpsilon && everything == kAll);
}

Lexicon::~Lexicon() = default;

std::shared_ptr<Lexicon> Lexicon::current() {
  static std::mutex mutex;
  static std::shared_ptr<Lexicon> lexicon;
  std::lock_guard lock(mutex);
  if (!lexicon || lexicon->bytes_used() > kGenerationBytes) lexicon = std::make_shared<Lexicon>();
  return lexicon;
}

// --- interning ------------------------------------------------------------------------------------------------------

Node Lexicon::intern(Kind kind, uint32_t a, uint32_t b, uint32_t c, std::span<const uint32_t> children) {
  uint64_t hash = 0x9E3779B97F4A7C15ull + static_cast<uint64_t>(kind);
  auto mix = [&hash](uint64_t v) {
    hash = (hash ^ v) * 0xFF51AFD7ED558CCDull;
    hash ^= hash >> 32;
  };
  mix((uint64_t{a} << 32) | b);
  mix(c);
  for (uint32_t child : children) mix(child);
  std::size_t mask = table_.size() - 1;
  std::size_t slot = hash & mask;
  for (; table_[slot]; slot = (slot + 1) & mask) {
    const Info& other = infos_[table_[slot]];
    if (other.hash == hash && other.kind == kind && other.a == a && other.b == b && other.c == c &&
        other.num_children == children.size() && std::equal(children.begin(), children.end(), other.children))
      return node(table_[slot]);
  }
  std::size_t cost = 1 + children.size() / 4;
  if (bytes_used_.load(std::memory_order_relaxed) > max_bytes_)
    throw LimitError("lexicon_bytes", "the lexer states fill their memory budget");
  spend(cost);

  uint16_t depth = 0;
  auto deepen = [&](uint32_t child) {
    depth = std::max<uint16_t>(depth, static_cast<uint16_t>(infos_[child].depth + 1));
  };
  switch (kind) {
    case Kind::kConcat:
      deepen(a);
      depth = std::max(depth, infos_[b].depth);
      break;
    case Kind::kMultiples:
    case Kind::kBytes: break;  // their children are words of something else
    case Kind::kPrefix: depth = infos_[b].depth; break;
    case Kind::kNot:
    case Kind::kBeforeMarker:
    case Kind::kWithoutMarker:
    case Kind::kWithMarker:
    case Kind::kRepeat: deepen(a); break;
    case Kind::kBranch:
      for (std::size_t i = 1; i < children.size(); i += 2) depth = std::max(depth, infos_[children[i]].depth);
      break;
    default:
      for (uint32_t child : children) deepen(child);
  }
  if (depth > kMaxDepth)
    throw LimitError("regex_nesting", "expression nested more than " + std::to_string(kMaxDepth) + " deep");

  uint16_t flags =
      static_cast<uint16_t>(flags_of(kind, a, b, c, children) | (may_be_tagged(kind, a, b, children) ? kTagged : 0));
  std::span<const uint32_t> kept;
  if (!children.empty()) {
    uint32_t* copy = pool_->allocate<uint32_t>(children.size());
    std::ranges::copy(children, copy);
    kept = {copy, children.size()};
  }
  std::size_t index = infos_.emplace_back(kind, flags, depth, a, b, c, kept, hash);
  bytes_used_.fetch_add(sizeof(Info) + 8, std::memory_order_relaxed);
  growth_of_this_thread += sizeof(Info) + 8;
  if (!(flags & kBoolean)) infos_[index].alive.store(1, std::memory_order_relaxed);
  if ((flags & kInfinite)) infos_[index].alive.store(1, std::memory_order_relaxed);
  if (infos_[index].alive.load(std::memory_order_relaxed) == 0)
    infos_[index].alive.store(alive_by_parts(infos_[index]), std::memory_order_relaxed);
  table_[slot] = static_cast<uint32_t>(index);
  if (infos_.size() * 2 > table_.size()) {
    std::vector<uint32_t> larger(table_.size() * 2, 0);
    for (std::size_t i = 1; i < infos_.size(); ++i) {
      std::size_t s = infos_[i].hash & (larger.size() - 1);
      while (larger[s]) s = (s + 1) & (larger.size() - 1);
      larger[s] = static_cast<uint32_t>(i);
    }
    table_ = std::move(larger);
  }
  return node(static_cast<uint32_t>(index));
}

uint16_t Lexicon::flags_of(Kind kind, uint32_t a, uint32_t b, uint32_t c, std::span<const uint32_t> children) {
  auto f = [this](uint32_t n) { return infos_[n].flags; };
  uint16_t any = 0;  // flags that any part hands up
  switch (kind) {
    case Kind::kNone:
    case Kind::kAccept:
    case Kind::kBytes: return kFinite;
    case Kind::kMultiples: return DecimalMultiples::of(children).endless() ? kInfinite : 0;
    case Kind::kAll: return kInfinite;
    case Kind::kPrefix: return f(b);
    case Kind::kConcat:
      any = static_cast<uint16_t>((f(a) | f(b)) & (kHandedUp));
      if (f(a) & f(b) & kFinite) any |= kFinite;
      if (!any && ((f(a) | f(b)) & kInfinite)) any |= kInfinite;
      return any;
    case Kind::kRepeat:
      any = static_cast<uint16_t>(f(a) & (kHandedUp));
      if (c != kUnbounded && (f(a) & kFinite)) any |= kFinite;
      if (!any && (c == kUnbounded || (f(a) & kInfinite))) any |= kInfinite;
      return any;
    case Kind::kEither:
    case Kind::kBranch: {
      bool finite = true, infinite = false;
      for (std::size_t i = kind == Kind::kBranch ? 1 : 0; i < children.size(); i += kind == Kind::kBranch ? 2 : 1) {
        any |= static_cast<uint16_t>(f(children[i]) & (kHandedUp));
        finite = finite && (f(children[i]) & kFinite);
        infinite = infinite || (f(children[i]) & kInfinite);
      }
      return static_cast<uint16_t>(any | (finite ? kFinite : 0) | (infinite ? kInfinite : 0));
    }
    case Kind::kNot: {
      any = static_cast<uint16_t>((f(a) & (kCondHere | kRecursive)) | kBoolean);
      if (f(a) & kFinite) any |= kInfinite;
      return any;
    }
    case Kind::kBoth: {
      // An infinite language without a finite one is infinite, hence alive.
      bool finite = false, infinite = false, others = false;
      for (uint32_t child : children) {
        any |= static_cast<uint16_t>(f(child) & (kCondHere | kRecursive));
        if (infos_[child].kind == Kind::kNot) {
          others = others || !(f(infos_[child].a) & kFinite);
        } else {
          others = others || infinite || !(f(child) & kInfinite);
          infinite = f(child) & kInfinite;
          finite = finite || (f(child) & kFinite);
        }
      }
      return static_cast<uint16_t>(any | kBoolean | (finite ? kFinite : 0) |
                                   (infinite && !others && !any ? kInfinite : 0));
    }
    case Kind::kClassify: return f(children[0]);
    case Kind::kBeforeMarker:
    case Kind::kWithoutMarker:
    case Kind::kWithMarker: return static_cast<uint16_t>((f(a) & kRecursive) | kBoolean);
    case Kind::kHole: return kHandedUp;
    case Kind::kCondition: return kBoolean | kCondHere | kFinite;
    case Kind::kTracked: return static_cast<uint16_t>((f(children[0]) & (kFinite | kRecursive)) | kBoolean);
  }
  return 0;
}

// As collect_tags goes.
bool Lexicon::may_be_tagged(Kind kind, uint32_t a, uint32_t b, std::span<const uint32_t> children) {
  auto tagged = [this](uint32_t n) { return (infos_[n].flags & kTagged) != 0; };
  switch (kind) {
    case Kind::kAccept: return a != 0;
    case Kind::kPrefix:
    case Kind::kConcat: return tagged(b);
    case Kind::kBranch:
      for (std::size_t i = 1; i < children.size(); i += 2)
        if (tagged(children[i])) return true;
      return false;
    case Kind::kEither: return std::ranges::any_of(children, tagged);
    case Kind::kBoth:
      return std::ranges::any_of(children, [&](uint32_t n) { return infos_[n].kind != Kind::kNot && tagged(n); });
    case Kind::kTracked: return tagged(children[0]);
    case Kind::kClassify:
    case Kind::kHole: return true;
    default: return false;
  }
}

// --- constructors: one lock, then the normal forms ------------------------------------------------------------------

Node Lexicon::accept(uint32_t tag) {
  std::lock_guard lock(mutex_);
  return intern(Kind::kAccept, tag, 0, 0, {});
}
Node Lexicon::bytes(const ByteSet& set) {
  std::lock_guard lock(mutex_);
  return make_bytes(set);
}
Node Lexicon::literal(std::string_view text, Node rest) {
  std::lock_guard lock(mutex_);
  return make_literal(text, rest);
}
Node Lexicon::kept(const std::string& name) {
  std::lock_guard lock(mutex_);
  auto found = kept_.find(name);
  return found == kept_.end() ? kNone : found->second;
}
void Lexicon::keep(const std::string& name, Node node) {
  std::lock_guard lock(mutex_);
  kept_.emplace(name, node);
}
Node Lexicon::concat(Node first, Node rest) {
  std::lock_guard lock(mutex_);
  return make_concat(first, rest);
}
Node Lexicon::either(std::vector<Node> options) {
  std::lock_guard lock(mutex_);
  return make_either(std::move(options));
}
Node Lexicon::both(std::vector<Node> parts) {
  std::lock_guard lock(mutex_);
  return make_both(std::move(parts));
}
Node Lexicon::complement(Node n) {
  std::lock_guard lock(mutex_);
  return make_complement(n);
}
Node Lexicon::texts_with_a_marker() {
  std::lock_guard lock(mutex_);
  return make_concat(make_unmarked_texts(), make_concat(make_bytes(ByteSet::of(kMarker)), make_unmarked_texts()));
}
Node Lexicon::before_marker(Node marked) {
  std::lock_guard lock(mutex_);
  return make_marked(Kind::kBeforeMarker, marked);
}
Node Lexicon::without_marker(Node marked) {
  std::lock_guard lock(mutex_);
  return make_marked(Kind::kWithoutMarker, marked);
}
Node Lexicon::with_marker(Node plain) {
  std::lock_guard lock(mutex_);
  return make_marked(Kind::kWithMarker, plain);
}
Node Lexicon::repeat(Node body, uint32_t min, uint32_t max) {
  std::lock_guard lock(mutex_);
  return make_repeat(body, min, max);
}
Node Lexicon::branch(std::vector<std::pair<uint8_t, Node>> children) {
  std::lock_guard lock(mutex_);
  return make_branch(std::move(children));
}
Node Lexicon::classify(Node body, std::vector<Node> classifiers) {
  std::lock_guard lock(mutex_);
  return make_classify(body, std::move(classifiers));
}
Node Lexicon::tracked(Node body, std::vector<Node> trackers) {
  std::lock_guard lock(mutex_);
  return make_tracked(body, std::move(trackers));
}
Node Lexicon::condition(uint32_t tracker, bool positive) {
  assert(tracker < 32);
  std::lock_guard lock(mutex_);
  return intern(Kind::kCondition, tracker, positive, 0, {});
}
Node Lexicon::multiples(uint64_t modulus, uint32_t places, bool fractions) {
  assert(modulus > 0 && (fractions || places == 0));
  std::lock_guard lock(mutex_);
  return intern(Kind::kMultiples, 0, 0, 0, DecimalMultiples{modulus, 0, places, {}, fractions}.words());
}
Node Lexicon::multiples(const DecimalMultiples& start) {
  assert(start.fractions || start.left == 0);
  std::lock_guard lock(mutex_);
  return start.completable() ? intern(Kind::kMultiples, 0, 0, 0, start.words()) : kNone;
}
Node Lexicon::hole() {
  std::lock_guard lock(mutex_);
  // Each reference is a node of its own: its number makes it unique.
  return intern(Kind::kHole, static_cast<uint32_t>(infos_.size()), 0, 0, {});
}
void Lexicon::define(Node hole, Node definition) {
  std::lock_guard lock(mutex_);
  assert(info(hole).kind == Kind::kHole);
  // A definition of kNone is stored as 'the empty union', which is kNone too; 0 means 'not defined'.
  info(hole).definition.store(id(definition) + 1, std::memory_order_release);
}
Node Lexicon::literals(std::vector<std::pair<std::string_view, Node>> entries) {
  std::lock_guard lock(mutex_);
  std::ranges::sort(entries, [](const auto& x, const auto& y) { return x.first < y.first; });
  return make_literals(entries);
}

// One level for each place where strings part, on a stack of its own: strings that are prefixes of each other part as often as they are many.
Node Lexicon::make_literals(std::span<std::pair<std::string_view, Node>> entries) {
  struct Level {
    std::span<std::pair<std::string_view, Node>> entries;
    std::size_t depth, common;  // read before, and shared by all
    std::size_t next = 0;       // the entry whose child comes next
    std::vector<Node> ends;
    std::vector<std::pair<uint8_t, Node>> children;
    bool waiting = false;  // for the last child
  };
  std::vector<Level> open;
  Node made = kNone;  // what was closed last
  auto descend = [&](std::span<std::pair<std::string_view, Node>> part, std::size_t depth) {
    if (part.size() <= 1) {
      made = part.empty() ? kNone : make_literal(part[0].first.substr(depth), part[0].second);
      return;
    }
    std::string_view first = part.front().first, last = part.back().first;
    std::size_t common = depth;
    while (common < first.size() && common < last.size() && first[common] == last[common]) ++common;
    Level level{part, depth, common, 0, {}, {}};
    for (; level.next < part.size() && part[level.next].first.size() == common; ++level.next)
      level.ends.push_back(part[level.next].second);
    open.push_back(std::move(level));
  };
  descend(entries, 0);
  while (!open.empty()) {
    Level& level = open.back();
    if (level.waiting) level.children.back().second = made;
    level.waiting = level.next < level.entries.size();
    if (level.waiting) {
      std::size_t begin = level.next;
      char byte = level.entries[begin].first[level.common];
      while (level.next < level.entries.size() && level.entries[level.next].first[level.common] == byte) ++level.next;
      level.children.emplace_back(static_cast<uint8_t>(byte), kNone);
      descend(level.entries.subspan(begin, level.next - begin), level.common + 1);
      continue;
    }
    level.ends.push_back(make_branch(std::move(level.children)));
    std::string_view shared = level.entries.front().first.substr(level.depth, level.common - level.depth);
    made = make_literal(shared, make_either(std::move(level.ends)));
    open.pop_back();
  }
  return made;
}

// make_concat of single bytes, without the detour over sets.
Node Lexicon::make_literal(std::string_view text, Node rest) {
  if (rest == kNone) return kNone;
  for (std::size_t i = text.size(); i-- > 0;) {
    auto byte = static_cast<uint8_t>(text[i]);
    rest = rest == kEpsilon ? make_bytes(ByteSet::of(byte)) : intern(Kind::kPrefix, byte, id(rest), 0, {});
  }
  return rest;
}

Node Lexicon::make_bytes(const ByteSet& set) {
  if (set.empty()) return kNone;
  std::array<uint32_t, 8> words;
  std::memcpy(words.data(), set.words.data(), sizeof(words));
  return intern(Kind::kBytes, 0, 0, 0, words);
}

bool Lexicon::rest_accepts_all(Node first) { return !(info(first).flags & (kCondHere)) && nullable_in(first, nullptr); }

Node Lexicon::make_concat(Node first, Node rest) {
  if (first == kNone || rest == kNone) return kNone;
  auto put_before = [this, &rest](uint32_t part) {
    const Info& i = infos_[part];
    if (i.kind == Kind::kAccept) return;
    if (rest == kEpsilon) {
      rest = node(part);
    } else if (i.kind == Kind::kBytes && set_of(i.kids()).count() == 1) {
      rest = intern(Kind::kPrefix, set_of(i.kids()).first(), id(rest), 0, {});
    } else if (rest == kAll && rest_accepts_all(node(part))) {
      return;
    } else if (i.kind == Kind::kRepeat && i.b == 0 && i.c == kUnbounded &&
               (id(rest) == part || (info(rest).kind == Kind::kConcat && info(rest).a == part))) {
      return;  // r* r* = r*
    } else {
      rest = intern(Kind::kConcat, part, id(rest), 0, {});
    }
  };
  auto on_spine = [this](uint32_t part) {
    return infos_[part].kind == Kind::kConcat || infos_[part].kind == Kind::kPrefix;
  };
  if (!on_spine(id(first))) {
    put_before(id(first));
    return rest;
  }
  // Right-associate: the left operands of `first`'s spine are put before `rest`, last one first.
  std::vector<uint32_t> spine;
  uint32_t at = id(first);
  for (; on_spine(at); at = infos_[at].b)
    spine.push_back(infos_[at].kind == Kind::kConcat ? infos_[at].a
                                                     : id(make_bytes(ByteSet::of(static_cast<uint8_t>(infos_[at].a)))));
  put_before(at);
  for (std::size_t k = spine.size(); k-- > 0;) put_before(spine[k]);
  return rest;
}

Node Lexicon::make_either(std::vector<Node> options) {
  if (options.size() == 1) return options[0];
  std::vector<Node> flat;
  flat.reserve(options.size());
  ByteSet merged;
  std::size_t num_repeats = 0;
  auto add = [&](Node n) {
    const Info& i = info(n);
    if (i.kind == Kind::kNone) return;
    if (i.kind == Kind::kBytes) {
      merged = merged | set_of(i.kids());
      return;
    }
    if (i.kind == Kind::kRepeat || (i.kind == Kind::kConcat && infos_[i.a].kind == Kind::kRepeat)) ++num_repeats;
    flat.push_back(n);
  };
  for (Node n : options) {
    if (info(n).kind == Kind::kEither)
      for (uint32_t child : info(n).kids()) add(node(child));
    else
      add(n);
  }
  if (!merged.empty()) flat.push_back(make_bytes(merged));
  if (num_repeats > 1) merge_repeats(flat);
  std::ranges::sort(flat);
  flat.erase(std::ranges::unique(flat).begin(), flat.end());
  if (flat.empty()) return kNone;
  if (flat.size() == 1) return flat[0];
  if (std::ranges::binary_search(flat, kAll)) return kAll;
  if (num_repeats && !characters_.empty()) {
    absorb_by_counts(flat);
    if (flat.size() == 1) return flat[0];
  }
  if (std::ranges::any_of(flat,
                          [this](Node n) { return info(n).kind == Kind::kBoth && (info(n).flags & kRecursive); })) {
    absorb(flat);
    if (flat.size() == 1) return flat[0];
  }
  return intern(Kind::kEither, 0, 0, 0, {reinterpret_cast<const uint32_t*>(flat.data()), flat.size()});
}

// The parts of an intersection, complements of unions taken apart; a complement is its operand with the top bit set.
std::vector<uint32_t> Lexicon::conjuncts(Node n) {
  constexpr uint32_t kNegated = uint32_t{1} << 31;
  std::vector<uint32_t> out;
  auto add = [&](uint32_t part) {
    if (infos_[part].kind != Kind::kNot) {
      out.push_back(part);
    } else if (const Info& operand = infos_[infos_[part].a]; operand.kind == Kind::kEither) {
      for (uint32_t child : operand.kids()) out.push_back(child | kNegated);
    } else {
      out.push_back(infos_[part].a | kNegated);
    }
  };
  if (info(n).kind == Kind::kBoth)
    for (uint32_t child : info(n).kids()) add(child);
  else
    add(id(n));
  std::ranges::sort(out);
  return out;
}

// x | (x & y) = x.
void Lexicon::absorb(std::vector<Node>& options) {
  std::vector<std::vector<uint32_t>> parts;
  for (Node n : options) parts.push_back(conjuncts(n));
  std::vector<Node> kept;
  for (std::size_t i = 0; i < options.size(); ++i) {
    bool absorbed = false;
    for (std::size_t j = 0; j < options.size() && !absorbed; ++j)
      absorbed = i != j && parts[j].size() < parts[i].size() && std::ranges::includes(parts[i], parts[j]);
    if (!absorbed) kept.push_back(options[i]);
  }
  options = std::move(kept);
}

// r{2,5} k | r{3,7} k = r{2,7} k: without this, nested counters multiply their positions.
void Lexicon::merge_repeats(std::vector<Node>& options) {
  struct Counted {
    uint32_t body, rest, min, max;
    auto operator<=>(const Counted&) const = default;
  };
  std::vector<Counted> counted;
  std::erase_if(options, [&](Node n) {
    const Info* i = &info(n);
    Node rest = kEpsilon;
    if (i->kind == Kind::kConcat) {
      rest = node(i->b);
      i = &infos_[i->a];
    }
    if (i->kind != Kind::kRepeat) return false;
    counted.push_back({i->a, id(rest), i->b, i->c});
    return true;
  });
  std::ranges::sort(counted);
  for (std::size_t k = 0; k < counted.size();) {
    Counted all = counted[k++];
    while (k < counted.size() && counted[k].body == all.body && counted[k].rest == all.rest &&
           (all.max == kUnbounded || counted[k].min <= all.max + 1)) {
      all.max = std::max(all.max, counted[k].max);
      ++k;
    }
    options.push_back(make_concat(make_repeat(node(all.body), all.min, all.max), node(all.rest)));
  }
}

Node Lexicon::make_both(std::vector<Node> parts) {
  std::vector<Node> flat, negative;
  ByteSet merged = ByteSet::all();
  bool some_bytes = false;
  auto add = [&](Node n) {
    const Info& i = info(n);
    if (i.kind == Kind::kAll) return;
    if (i.kind == Kind::kNot) {
      negative.push_back(node(i.a));
    } else if (i.kind == Kind::kBytes) {
      merged = merged & set_of(i.kids());
      some_bytes = true;
    } else {
      flat.push_back(n);
    }
  };
  for (Node n : parts) {
    if (info(n).kind == Kind::kBoth)
      for (uint32_t child : info(n).kids()) add(node(child));
    else
      add(n);
  }
  if (some_bytes) flat.push_back(make_bytes(merged));
  bool recursive = std::ranges::any_of(parts, [this](Node n) { return info(n).flags & kRecursive; });
  if (recursive) {
    // (a | b) & c = (a & c) | (b & c), one union at a time; what comes back in is distributed further.
    auto either = std::ranges::find_if(flat, [this](Node n) { return info(n).kind == Kind::kEither; });
    if (either != flat.end()) {
      Node options = *either;
      flat.erase(either);
      for (Node n : negative) flat.push_back(make_complement(n));
      std::vector<Node> terms;
      for (uint32_t option : info(options).kids()) {
        std::vector<Node> term = flat;
        term.push_back(node(option));
        terms.push_back(make_both(std::move(term)));
        if (terms.size() > kMaxTerms)
          throw LimitError("lexer_states", "lookarounds inside loops multiply beyond the limit");
      }
      return make_either(std::move(terms));
    }
  }
  std::ranges::sort(flat);
  flat.erase(std::ranges::unique(flat).begin(), flat.end());
  if (!flat.empty() && flat[0] == kNone) return kNone;
  if (!negative.empty()) {
    Node banned = make_either(std::move(negative));  // not a and not b = not (a or b)
    if (banned == kAll) return kNone;
    if (std::ranges::binary_search(flat, banned)) return kNone;
    if (banned != kNone) flat.push_back(make_complement(banned));
  }
  if (flat.empty()) return kAll;
  if (flat.size() > 1 && !characters_.empty() && !recursive && !join_counts(flat)) return kNone;
  if (flat.size() == 1) return flat[0];
  // One part that is only the empty string decides.
  for (Node n : flat) {
    if (info(n).kind != Kind::kAccept) continue;
    bool all_nullable = true, certain = true;
    for (Node other : flat) {
      if (info(other).flags & kCondHere)
        certain = false;
      else if (!nullable_in(other, nullptr))
        all_nullable = false;
    }
    if (!all_nullable) return kNone;
    if (certain) return n;
  }
  std::ranges::sort(flat);
  return intern(Kind::kBoth, 0, 0, 0, {reinterpret_cast<const uint32_t*>(flat.data()), flat.size()});
}

Node Lexicon::make_complement(Node n) {
  if (n == kNone) return kAll;
  if (n == kAll) return kNone;
  if (info(n).kind == Kind::kNot) return node(info(n).a);
  return intern(Kind::kNot, id(n), 0, 0, {});
}

Node Lexicon::make_unmarked_texts() {
  ByteSet set = ByteSet::all();
  set.words[kMarker >> 6] &= ~(uint64_t{1} << (kMarker & 63));
  return make_repeat(make_bytes(set), 0, kUnbounded);
}

Node Lexicon::make_marked(Kind kind, Node operand) {
  return operand == kNone ? kNone : intern(kind, id(operand), 0, 0, {});
}

Node Lexicon::make_repeat(Node body, uint32_t min, uint32_t max) {
  assert(min <= max);
  if (max == 0) return kEpsilon;
  if (body == kNone) return min == 0 ? kEpsilon : kNone;
  const Info& i = info(body);
  if (i.kind == Kind::kAccept) return kEpsilon;
  if (body == kAll) return kAll;
  if (!(i.flags & kCondHere) && nullable_in(body, nullptr)) min = 0;
  if (i.kind == Kind::kRepeat && i.b == 0 && i.c == kUnbounded) return body;
  if (min == 1 && max == 1) return body;
  if (i.kind == Kind::kRepeat && i.b <= 1 && i.c == kUnbounded && max == kUnbounded)
    return make_repeat(node(i.a), i.b * min, kUnbounded);
  return intern(Kind::kRepeat, id(body), min, max, {});
}

Node Lexicon::make_branch(std::vector<std::pair<uint8_t, Node>> children) {
  std::erase_if(children, [](const auto& c) { return c.second == kNone; });
  std::ranges::sort(children);
  if (children.empty()) return kNone;
  if (children.size() == 1) return make_concat(make_bytes(ByteSet::of(children[0].first)), children[0].second);
  std::vector<uint32_t> flat;
  for (auto [byte, child] : children) {
    assert(flat.empty() || flat[flat.size() - 2] != byte);
    flat.push_back(byte);
    flat.push_back(id(child));
  }
  return intern(Kind::kBranch, 0, 0, 0, flat);
}

Node Lexicon::make_classify(Node body, std::vector<Node> classifiers) {
  assert(classifiers.size() <= 32);
  if (body == kNone) return kNone;
  if (std::ranges::all_of(classifiers, [](Node n) { return n == kNone; })) return body;
  std::vector<uint32_t> flat{id(body)};
  for (Node n : classifiers) flat.push_back(id(n));
  return intern(Kind::kClassify, 0, 0, 0, flat);
}

Node Lexicon::make_tracked(Node body, std::vector<Node> trackers) {
  assert(trackers.size() <= 32);
  if (!(info(body).flags & kCondHere)) return body;
  std::vector<uint32_t> flat{id(body)};
  for (Node n : trackers) flat.push_back(id(n));
  return intern(Kind::kTracked, 0, 0, 0, flat);
}

}  // namespace guiderail
