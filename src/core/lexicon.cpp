#include "lexicon.h"

#include <algorithm>
#include <cassert>
#include <cstring>
#include <deque>
#include <unordered_set>

#include "errors.h"
#include "growth.h"

namespace guiderail {

namespace {

enum Flag : uint16_t {
  kBoolean = 1,     // contains an intersection, complement or reference: aliveness needs a search
  kCondHere = 2,    // contains a condition (or a reference that may)
  kFinite = 4,      // the language is certainly finite
  kInfinite = 8,    // the language is certainly infinite
  kRecursive = 16,  // contains a reference: kept in disjunctive normal form, or its remainders would nest without end
  kTagged = 32,     // may report a tag other than 0
};

constexpr uint16_t kHandedUp = kBoolean | kCondHere | kRecursive;

// Terms of a disjunctive normal form; beyond it the request is refused.
constexpr std::size_t kMaxTerms = 4096;

// Parts of a node that are worth a state of the budget each time they are derived.
constexpr uint32_t kWideNode = 16;

// Alternatives that may be left of a union after one byte. Counters nested in counters would make a step as slow as it likes.
constexpr std::size_t kMaxOptions = 16'384;

// Nesting of the expression, right spines aside. Derivatives recurse this deep.
constexpr uint16_t kMaxDepth = 1500;
// Steps computed from the structure before a node gets a transition table of its own.
constexpr uint8_t kStepsBeforeTable = 6;

thread_local std::size_t budget_left = SIZE_MAX;

void spend(std::size_t cost) {
  if (budget_left < cost) throw LimitError("lexer_states", "too many lexer states for one request");
  budget_left -= cost;
}

constexpr uint32_t id(Node n) { return static_cast<uint32_t>(n); }
constexpr Node node(uint32_t i) { return Node{i}; }

}  // namespace

Lexicon::Budget::Budget(std::size_t max_new_nodes) : saved_(budget_left) {
  budget_left = std::min(budget_left, max_new_nodes);
}
Lexicon::Budget::~Budget() { budget_left = saved_; }

struct Lexicon::TagList {
  uint32_t size;
  uint32_t tags[1];
};

// One node. Immutable but for what is computed on demand (atomics, published with release).
//   kAccept: a = tag            kBytes: children = the words of the set     kPrefix: a = byte, b = rest
//   kBranch: children = byte, node, byte, node, ...              kConcat: a, b
//   kEither, kBoth: children    kNot: a                          kRepeat: a = body, b = min, c = max
//   kClassify: children = body, classifiers                      kHole: definition     kCondition: a = tracker, b = positive
//   kTracked: children = body, trackers
struct Lexicon::Info {
  Kind kind;
  std::atomic<uint8_t> uses{0};
  uint16_t flags;
  uint16_t depth;
  std::atomic<uint8_t> alive{0};     // 0 unknown, 1 alive, 2 dead
  std::atomic<uint8_t> nullable{0};  // 0 unknown, 1 yes, 2 no; outside trackers
  uint32_t a, b, c;
  uint32_t num_children;
  const uint32_t* children;
  std::atomic<uint32_t> definition{0};  // of a hole; 0 = not yet
  std::atomic<const Transitions*> transitions{nullptr};
  std::atomic<const TagList*> tags{nullptr};
  std::atomic<const ByteSet*> first_bound{nullptr};
  uint64_t hash;

  Info(Kind kind, uint16_t flags, uint16_t depth, uint32_t a, uint32_t b, uint32_t c, std::span<const uint32_t> kids,
       uint64_t hash)
      : kind(kind), flags(flags), depth(depth), a(a), b(b), c(c), num_children(static_cast<uint32_t>(kids.size())),
        children(kids.data()), hash(hash) {}
  std::span<const uint32_t> kids() const { return {children, num_children}; }
};

// What holds at one place of a text inside `tracked`: which trackers accept, and what follows from that (one byte per scope).
struct Lexicon::Scope {
  uint32_t env;
  std::unordered_map<uint32_t, Node> derived;
  std::unordered_map<uint32_t, bool> nullable;
};

Lexicon::Info& Lexicon::info(Node node) { return infos_[static_cast<uint32_t>(node)]; }

// Memory that is given back only with the lexicon: children, tables, tag lists.
class Lexicon::Pool {
 public:
  explicit Pool(std::atomic<std::size_t>& used) : used_(used) {}
  template <typename T>
  T* allocate(std::size_t count) {
    std::size_t size = (count * sizeof(T) + 7) & ~std::size_t{7};
    if (size > kBlock / 4) return reinterpret_cast<T*>(fresh(size));
    if (left_ < size) {
      at_ = fresh(kBlock);
      left_ = kBlock;
    }
    std::byte* result = at_;
    at_ += size;
    left_ -= size;
    return reinterpret_cast<T*>(result);
  }

 private:
  static constexpr std::size_t kBlock = std::size_t{1} << 16;
  std::byte* fresh(std::size_t size) {
    blocks_.push_back(std::make_unique<std::byte[]>(size));
    used_.fetch_add(size, std::memory_order_relaxed);
    growth_of_this_thread += size;
    return blocks_.back().get();
  }
  std::atomic<std::size_t>& used_;
  std::vector<std::unique_ptr<std::byte[]>> blocks_;
  std::byte* at_ = nullptr;
  std::size_t left_ = 0;
};

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
  if (!lexicon || lexicon->bytes_used() > kDefaultMaxBytes / 4) lexicon = std::make_shared<Lexicon>();
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
    case Kind::kBytes: break;  // its children are the words of a set
    case Kind::kPrefix: depth = infos_[b].depth; break;
    case Kind::kNot:
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
  for (std::size_t i = text.size(); i-- > 0;)
    rest = make_concat(make_bytes(ByteSet::of(static_cast<uint8_t>(text[i]))), rest);
  return rest;
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
  return make_literals(entries, 0);
}

Node Lexicon::make_literals(std::span<std::pair<std::string_view, Node>> entries, std::size_t depth) {
  // Recursion only where strings part; the common prefix below is walked by a loop.
  if (entries.empty()) return kNone;
  if (entries.size() == 1) {
    Node rest = entries[0].second;
    std::string_view text = entries[0].first;
    for (std::size_t i = text.size(); i-- > depth;)
      rest = make_concat(make_bytes(ByteSet::of(static_cast<uint8_t>(text[i]))), rest);
    return rest;
  }
  std::string_view first = entries.front().first, last = entries.back().first;
  std::size_t common = depth;
  while (common < first.size() && common < last.size() && first[common] == last[common]) ++common;
  std::vector<Node> ends;
  std::size_t i = 0;
  for (; i < entries.size() && entries[i].first.size() == common; ++i) ends.push_back(entries[i].second);
  std::vector<std::pair<uint8_t, Node>> children;
  while (i < entries.size()) {
    std::size_t j = i;
    while (j < entries.size() && entries[j].first[common] == entries[i].first[common]) ++j;
    children.emplace_back(static_cast<uint8_t>(entries[i].first[common]),
                          make_literals(entries.subspan(i, j - i), common + 1));
    i = j;
  }
  ends.push_back(make_branch(std::move(children)));
  Node rest = make_either(std::move(ends));
  for (std::size_t k = common; k-- > depth;)
    rest = make_concat(make_bytes(ByteSet::of(static_cast<uint8_t>(first[k]))), rest);
  return rest;
}

Node Lexicon::make_bytes(const ByteSet& set) {
  if (set.empty()) return kNone;
  std::array<uint32_t, 8> words;
  std::memcpy(words.data(), set.words.data(), sizeof(words));
  return intern(Kind::kBytes, 0, 0, 0, words);
}

namespace {
ByteSet set_of(std::span<const uint32_t> words) {
  ByteSet set;
  std::memcpy(set.words.data(), words.data(), sizeof(set.words));
  return set;
}
}  // namespace

bool Lexicon::rest_accepts_all(Node first) { return !(info(first).flags & (kCondHere)) && nullable_in(first, nullptr); }

Node Lexicon::make_concat(Node first, Node rest) {
  if (first == kNone || rest == kNone) return kNone;
  // Right-associate: the left operands of `first`'s spine are put before `rest`, last one first.
  std::vector<uint32_t> spine;
  uint32_t at = id(first);
  while (true) {
    const Info& i = infos_[at];
    if (i.kind == Kind::kConcat) {
      spine.push_back(i.a);
      at = i.b;
    } else if (i.kind == Kind::kPrefix) {
      spine.push_back(id(make_bytes(ByteSet::of(static_cast<uint8_t>(i.a)))));
      at = i.b;
    } else {
      spine.push_back(at);
      break;
    }
  }
  for (std::size_t k = spine.size(); k-- > 0;) {
    const Info& i = infos_[spine[k]];
    if (i.kind == Kind::kAccept) continue;
    if (rest == kEpsilon) {
      rest = node(spine[k]);
    } else if (i.kind == Kind::kBytes && set_of(i.kids()).count() == 1) {
      rest = intern(Kind::kPrefix, set_of(i.kids()).first(), id(rest), 0, {});
    } else if (rest == kAll && rest_accepts_all(node(spine[k]))) {
      continue;
    } else if (i.kind == Kind::kRepeat && i.b == 0 && i.c == kUnbounded &&
               (id(rest) == spine[k] || (info(rest).kind == Kind::kConcat && info(rest).a == spine[k]))) {
      continue;  // r* r* = r*
    } else {
      rest = intern(Kind::kConcat, spine[k], id(rest), 0, {});
    }
  }
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

// --- the automaton --------------------------------------------------------------------------------------------------

uint32_t Lexicon::environment(const Info& tracked) {
  uint32_t env = 0;
  for (uint32_t k = 1; k < tracked.num_children; ++k)
    if (nullable_in(node(tracked.children[k]), nullptr)) env |= uint32_t{1} << (k - 1);
  return env;
}

bool Lexicon::nullable_in(Node n, Scope* scope) {
  while (true) {
    Info& i = info(n);
    bool memo = !scope || !(i.flags & kCondHere);
    if (memo) {
      uint8_t known = i.nullable.load(std::memory_order_relaxed);
      if (known) return known == 1;
    } else if (auto it = scope->nullable.find(id(n)); it != scope->nullable.end()) {
      return it->second;
    }
    bool result = false;
    switch (i.kind) {
      case Kind::kNone:
      case Kind::kBytes:
      case Kind::kPrefix:
      case Kind::kBranch: return false;
      case Kind::kAccept:
      case Kind::kAll: return true;
      case Kind::kConcat: {
        // Loop along the right spine; recursion only into left operands.
        Node at = n;
        result = true;
        while (info(at).kind == Kind::kConcat) {
          if (!nullable_in(node(info(at).a), scope)) {
            result = false;
            break;
          }
          at = node(info(at).b);
        }
        if (result) result = nullable_in(at, scope);
        break;
      }
      case Kind::kEither:
        for (uint32_t child : i.kids())
          if (nullable_in(node(child), scope)) {
            result = true;
            break;
          }
        break;
      case Kind::kBoth:
        result = true;
        for (uint32_t child : i.kids())
          if (!nullable_in(node(child), scope)) {
            result = false;
            break;
          }
        break;
      case Kind::kNot: result = !nullable_in(node(i.a), scope); break;
      case Kind::kRepeat: result = i.b == 0 || nullable_in(node(i.a), scope); break;
      case Kind::kClassify: result = nullable_in(node(i.children[0]), scope); break;
      case Kind::kHole: {
        uint32_t definition = i.definition.load(std::memory_order_acquire);
        if (!definition) throw GrammarError("internal: a reference is used before it is defined");
        result = nullable_in(node(definition - 1), scope);
        break;
      }
      case Kind::kCondition: return scope && ((scope->env >> i.a) & 1) == i.b;
      case Kind::kTracked: {
        Scope inner{environment(i), {}, {}};
        result = nullable_in(node(i.children[0]), &inner);
        break;
      }
    }
    if (memo)
      i.nullable.store(result ? 1 : 2, std::memory_order_relaxed);
    else
      scope->nullable.emplace(id(n), result);
    return result;
  }
}

bool Lexicon::nullable(Node n) { return nullable_in(n, nullptr); }

// The derivative of a part. Whether parts are alive is decided for the whole only: asking here would search inside a search.
Node Lexicon::derive_part(Node n, uint8_t byte, Scope* scope) {
  uint16_t flags = info(n).flags;
  if (!(flags & (kBoolean | kCondHere))) return step(n, byte);
  if (scope && (flags & kCondHere)) {
    if (auto it = scope->derived.find(id(n)); it != scope->derived.end()) return it->second;
    Node d = derive(n, byte, scope);
    scope->derived.emplace(id(n), d);
    return d;
  }
  constexpr std::size_t kKept = std::size_t{1} << 18;
  uint64_t key = (uint64_t{id(n)} << 8) | byte;
  if (auto it = raw_.find(key); it != raw_.end()) return it->second;
  Node d = derive(n, byte, nullptr);
  if (raw_.size() > kKept) raw_.clear();
  raw_.emplace(key, d);
  return d;
}

Node Lexicon::derive(Node n, uint8_t byte, Scope* scope) {
  const Info& i = info(n);
  // Parts that lead to known nodes make nothing new, but are work all the same.
  if (i.num_children > kWideNode && i.kind != Kind::kBranch) spend(i.num_children / kWideNode);
  switch (i.kind) {
    case Kind::kNone:
    case Kind::kAccept:
    case Kind::kCondition: return kNone;
    case Kind::kAll: return kAll;
    case Kind::kBytes: return set_of(i.kids()).has(byte) ? kEpsilon : kNone;
    case Kind::kPrefix: return i.a == byte ? node(i.b) : kNone;
    case Kind::kBranch: {
      for (uint32_t lo = 0, hi = i.num_children / 2; lo < hi;) {
        uint32_t mid = (lo + hi) / 2;
        if (i.children[2 * mid] == byte) return node(i.children[2 * mid + 1]);
        if (i.children[2 * mid] < byte)
          lo = mid + 1;
        else
          hi = mid;
      }
      return kNone;
    }
    case Kind::kConcat: {
      // a b c ...: derive a, and while what was passed is nullable, the next one too; a loop along the spine.
      std::vector<Node> options;
      Node at = n;
      while (true) {
        const Info& c = info(at);
        if (c.kind != Kind::kConcat) {
          options.push_back(derive_part(at, byte, scope));
          break;
        }
        Node d = derive_part(node(c.a), byte, scope);
        if (d != kNone) options.push_back(make_concat(d, node(c.b)));
        if (!nullable_in(node(c.a), scope)) break;
        at = node(c.b);
      }
      if (options.empty()) return kNone;
      return make_either(std::move(options));
    }
    case Kind::kEither: {
      std::vector<Node> options;
      for (uint32_t child : i.kids()) {
        Node d = derive_part(node(child), byte, scope);
        if (d != kNone) options.push_back(d);
      }
      if (options.size() > kMaxOptions)
        throw LimitError("lexer_states", "one text has too many readings inside one lexeme");
      return options.empty() ? kNone : make_either(std::move(options));
    }
    case Kind::kBoth: {
      std::vector<Node> parts;
      for (uint32_t child : i.kids()) {
        Node d = derive_part(node(child), byte, scope);
        if (d == kNone) return kNone;
        parts.push_back(d);
      }
      return make_both(std::move(parts));
    }
    case Kind::kNot: return make_complement(derive_part(node(i.a), byte, scope));
    case Kind::kRepeat: {
      Node d = derive_part(node(i.a), byte, scope);
      if (d == kNone) return kNone;
      return make_concat(d, make_repeat(node(i.a), i.b ? i.b - 1 : 0, i.c == kUnbounded ? kUnbounded : i.c - 1));
    }
    case Kind::kClassify: {
      Node body = derive_part(node(i.children[0]), byte, scope);
      if (body == kNone) return kNone;
      std::vector<Node> classifiers;
      for (uint32_t k = 1; k < i.num_children; ++k)
        classifiers.push_back(derive_part(node(i.children[k]), byte, scope));
      return make_classify(body, std::move(classifiers));
    }
    case Kind::kHole: {
      uint32_t definition = i.definition.load(std::memory_order_acquire);
      if (!definition) throw GrammarError("internal: a reference is used before it is defined");
      return derive_part(node(definition - 1), byte, scope);
    }
    case Kind::kTracked: {
      Scope inner{environment(i), {}, {}};
      Node body = derive_part(node(i.children[0]), byte, &inner);
      if (body == kNone) return kNone;
      std::vector<Node> trackers;
      for (uint32_t k = 1; k < i.num_children; ++k) trackers.push_back(step(node(i.children[k]), byte));
      return make_tracked(body, std::move(trackers));
    }
  }
  return kNone;
}

Node Lexicon::step(Node n, uint8_t byte) {
  Info& i = info(n);
  if (const Transitions* t = i.transitions.load(std::memory_order_acquire)) {
    uint32_t next = t->next[t->classes[byte]].load(std::memory_order_acquire);
    if (next != kUnknown) return node(next);
    return step_slow(n, byte);
  }
  switch (i.kind) {
    case Kind::kNone:
    case Kind::kAccept: return kNone;
    case Kind::kAll: return kAll;
    case Kind::kPrefix:
    case Kind::kBranch:
    case Kind::kBytes: {
      Node d = derive(n, byte, nullptr);
      return alive(d) ? d : kNone;
    }
    default: return step_slow(n, byte);
  }
}

Node Lexicon::step_slow(Node n, uint8_t byte) {
  std::lock_guard lock(mutex_);
  Info& i = info(n);
  const Transitions* t = i.transitions.load(std::memory_order_acquire);
  if (!t) {
    uint8_t uses = i.uses.load(std::memory_order_relaxed);
    if (uses >= kStepsBeforeTable)
      t = &build_transitions(n);
    else
      i.uses.store(static_cast<uint8_t>(uses + 1), std::memory_order_relaxed);
  }
  Node d = derive(n, byte, nullptr);
  if (!alive(d)) d = kNone;
  if (t) t->next[t->classes[byte]].store(id(d), std::memory_order_release);
  return d;
}

Node Lexicon::walk(Node n, std::string_view text) {
  for (char c : text) {
    if (n == kNone) break;
    n = step(n, static_cast<uint8_t>(c));
  }
  return n;
}

bool Lexicon::alive(Node n) {
  uint8_t known = info(n).alive.load(std::memory_order_acquire);
  if (known) return known == 1;
  std::lock_guard lock(mutex_);
  return search_alive(n);
}

// Partitions the byte values by what the parts of a node can tell apart.
class Lexicon::Classes {
 public:
  explicit Classes(Lexicon& lexicon) : lexicon_(lexicon) { labels_.fill(0); }

  void refine_by_node(Node n) {
    std::vector<uint32_t> work{id(n)};
    bool top = true;
    while (!work.empty()) {
      uint32_t at = work.back();
      work.pop_back();
      const Info& i = lexicon_.infos_[at];
      if (const Transitions* t = i.transitions.load(std::memory_order_acquire); t && !top) {
        refine([&](unsigned byte) { return t->classes[byte]; });
        continue;
      }
      top = false;
      switch (i.kind) {
        case Kind::kNone:
        case Kind::kAccept:
        case Kind::kAll:
        case Kind::kCondition: continue;
        case Kind::kPrefix: refine([&](unsigned byte) { return byte == i.a ? 1 : 0; }); continue;
        case Kind::kBytes: {
          ByteSet set = set_of(i.kids());
          if (std::ranges::find(seen_sets_, set) != seen_sets_.end()) continue;
          seen_sets_.push_back(set);
          refine([&](unsigned byte) { return set.has(static_cast<uint8_t>(byte)) ? 1 : 0; });
          continue;
        }
        case Kind::kBranch: {
          std::array<uint16_t, 256> which{};
          for (uint32_t k = 0; k < i.num_children; k += 2) which[i.children[k]] = static_cast<uint16_t>(k / 2 + 1);
          refine([&](unsigned byte) { return which[byte]; });
          continue;
        }
        default: break;
      }
      if (!seen_.insert(at).second) continue;
      switch (i.kind) {
        case Kind::kConcat:
          work.push_back(i.a);
          if ((lexicon_.infos_[i.a].flags & kCondHere) || lexicon_.nullable_in(node(i.a), nullptr)) work.push_back(i.b);
          break;
        case Kind::kNot:
        case Kind::kRepeat: work.push_back(i.a); break;
        case Kind::kHole: {
          uint32_t definition = i.definition.load(std::memory_order_acquire);
          if (definition) work.push_back(definition - 1);
          break;
        }
        default:
          for (uint32_t child : i.kids()) work.push_back(child);
      }
    }
  }

  unsigned count() const { return count_; }
  const std::array<uint8_t, 256>& labels() const { return labels_; }
  std::vector<uint8_t> representatives() const {
    std::vector<uint8_t> result(count_);
    for (unsigned byte = 256; byte-- > 0;) result[labels_[byte]] = static_cast<uint8_t>(byte);
    return result;
  }

 private:
  template <typename F>
  void refine(F part_of) {
    // At most 256 classes, so a small association from (old label, part) to new label is enough.
    std::array<uint32_t, 256> keys;
    unsigned fresh = 0;
    std::array<uint8_t, 256> labels;
    for (unsigned byte = 0; byte < 256; ++byte) {
      uint32_t key = (static_cast<uint32_t>(labels_[byte]) << 16) | static_cast<uint32_t>(part_of(byte));
      if (byte && key == keys[labels[byte - 1]]) {
        labels[byte] = labels[byte - 1];
        continue;
      }
      unsigned k = 0;
      while (k < fresh && keys[k] != key) ++k;
      if (k == fresh) keys[fresh++] = key;
      labels[byte] = static_cast<uint8_t>(k);
    }
    labels_ = labels;
    count_ = fresh;
  }

  Lexicon& lexicon_;
  std::array<uint8_t, 256> labels_;
  unsigned count_ = 1;
  std::unordered_set<uint32_t> seen_;
  std::vector<ByteSet> seen_sets_;
};

const Lexicon::Transitions& Lexicon::build_transitions(Node n) {
  Info& i = info(n);
  if (const Transitions* t = i.transitions.load(std::memory_order_acquire)) return *t;
  Classes classes(*this);
  classes.refine_by_node(n);
  uint8_t* labels = pool_->allocate<uint8_t>(256);
  std::ranges::copy(classes.labels(), labels);
  auto* next = pool_->allocate<std::atomic<uint32_t>>(classes.count());
  for (unsigned k = 0; k < classes.count(); ++k) std::construct_at(next + k, kUnknown);
  auto* t = pool_->allocate<Transitions>(1);
  std::construct_at(t, Transitions{labels, next, classes.count()});
  i.transitions.store(t, std::memory_order_release);
  return *t;
}

const Lexicon::Transitions& Lexicon::transitions(Node n) {
  if (const Transitions* t = info(n).transitions.load(std::memory_order_acquire)) return *t;
  std::lock_guard lock(mutex_);
  return build_transitions(n);
}

// Over raw derivatives until something accepts: the next node is taken now from the oldest, now from the newest end of those met, which
// finds both what is near and what is far but easy to reach (a text with each of twenty letters). What the whole search met without
// success is dead.
bool Lexicon::search_alive(Node start) {
  if (uint8_t known = info(start).alive.load(std::memory_order_relaxed)) return known == 1;
  struct Visit {
    uint32_t at, parent;
  };
  std::vector<Visit> visits;
  std::deque<uint32_t> open;
  std::unordered_set<uint32_t> seen;
  auto mark_path = [&](uint32_t visit) {
    while (visit != UINT32_MAX) {
      infos_[visits[visit].at].alive.store(1, std::memory_order_release);
      visit = visits[visit].parent;
    }
    return true;
  };
  // True if found, false if queued or known dead.
  auto meet = [&](Node n, uint32_t parent) {
    uint8_t known = info(n).alive.load(std::memory_order_relaxed);
    if (known == 2) return false;
    if (known == 1) return true;
    if (nullable_in(n, nullptr)) {
      info(n).alive.store(1, std::memory_order_release);
      return true;
    }
    if (seen.insert(id(n)).second) {
      open.push_back(static_cast<uint32_t>(visits.size()));
      visits.push_back({id(n), parent});
    }
    return false;
  };
  if (meet(start, UINT32_MAX)) return true;
  for (bool newest = false; !open.empty(); newest = !newest) {
    uint32_t at = newest ? open.back() : open.front();
    newest ? open.pop_back() : open.pop_front();
    Node n = node(visits[at].at);
    Classes classes(*this);
    classes.refine_by_node(n);
    for (uint8_t byte : classes.representatives()) {
      spend(1);
      Node d = derive(n, byte, nullptr);
      if (meet(d, at)) return mark_path(at);
    }
  }
  for (const Visit& v : visits) infos_[v.at].alive.store(2, std::memory_order_release);
  return false;
}

void Lexicon::collect_tags(Node n, Scope* scope, std::vector<uint32_t>& out) {
  if (!nullable_in(n, scope)) return;
  const Info& i = info(n);
  switch (i.kind) {
    case Kind::kAccept: out.push_back(i.a); break;
    case Kind::kConcat: {
      Node at = n;
      while (info(at).kind == Kind::kConcat) at = node(info(at).b);
      collect_tags(at, scope, out);
      break;
    }
    case Kind::kEither:
      for (uint32_t child : i.kids()) collect_tags(node(child), scope, out);
      break;
    case Kind::kBoth: {
      std::vector<uint32_t> tags;
      for (uint32_t child : i.kids())
        if (infos_[child].kind != Kind::kNot) collect_tags(node(child), scope, tags);
      std::erase(tags, 0u);
      if (tags.empty()) tags.push_back(0);
      out.insert(out.end(), tags.begin(), tags.end());
      break;
    }
    case Kind::kClassify: {
      uint32_t bits = 0;
      for (uint32_t k = 1; k < i.num_children; ++k)
        if (nullable_in(node(i.children[k]), scope)) bits |= uint32_t{1} << (k - 1);
      out.push_back(bits);
      break;
    }
    case Kind::kHole: collect_tags(node(i.definition.load(std::memory_order_acquire) - 1), scope, out); break;
    case Kind::kTracked: {
      Scope inner{environment(i), {}, {}};
      collect_tags(node(i.children[0]), &inner, out);
      break;
    }
    default: out.push_back(0);
  }
}

std::span<const uint32_t> Lexicon::tags(Node n) {
  Info& i = info(n);
  const TagList* list = i.tags.load(std::memory_order_acquire);
  if (!list) {
    std::lock_guard lock(mutex_);
    std::vector<uint32_t> tags;
    collect_tags(n, nullptr, tags);
    std::ranges::sort(tags);
    tags.erase(std::ranges::unique(tags).begin(), tags.end());
    auto* fresh = reinterpret_cast<TagList*>(pool_->allocate<uint32_t>(tags.size() + 1));
    fresh->size = static_cast<uint32_t>(tags.size());
    std::ranges::copy(tags, fresh->tags);
    i.tags.store(fresh, std::memory_order_release);
    list = fresh;
  }
  return {list->tags, list->size};
}

ByteSet Lexicon::first_bytes(Node n) {
  const Info& i = info(n);
  ByteSet set;
  switch (i.kind) {
    case Kind::kPrefix: return ByteSet::of(static_cast<uint8_t>(i.a));
    case Kind::kBytes: return set_of(i.kids());
    case Kind::kBranch:
      for (uint32_t k = 0; k < i.num_children; k += 2) set.add(static_cast<uint8_t>(i.children[k]));
      return set;
    default: break;
  }
  std::array<uint8_t, 256> labels;
  std::vector<uint8_t> representatives;
  {
    std::lock_guard lock(mutex_);
    Classes classes(*this);
    classes.refine_by_node(n);
    labels = classes.labels();
    representatives = classes.representatives();
  }
  std::vector<bool> live(representatives.size());
  for (std::size_t k = 0; k < representatives.size(); ++k) live[k] = step(n, representatives[k]) != kNone;
  for (unsigned byte = 0; byte < 256; ++byte)
    if (live[labels[byte]]) set.add(static_cast<uint8_t>(byte));
  return set;
}

ByteSet Lexicon::first_bound(Node n) {
  Info& i = info(n);
  if (const ByteSet* known = i.first_bound.load(std::memory_order_acquire)) return *known;
  switch (i.kind) {
    case Kind::kNone:
    case Kind::kAccept: return {};
    case Kind::kPrefix: return ByteSet::of(static_cast<uint8_t>(i.a));
    case Kind::kBytes: return set_of(i.kids());
    default: break;
  }
  std::lock_guard lock(mutex_);
  return first_bound_locked(n);
}

ByteSet Lexicon::first_bound_locked(Node n) {
  Info& i = info(n);
  if (const ByteSet* known = i.first_bound.load(std::memory_order_acquire)) return *known;
  ByteSet set;
  switch (i.kind) {
    case Kind::kNone:
    case Kind::kAccept:
    case Kind::kCondition: return set;
    case Kind::kPrefix: return ByteSet::of(static_cast<uint8_t>(i.a));
    case Kind::kBytes: return set_of(i.kids());
    case Kind::kAll:
    case Kind::kNot:
    case Kind::kHole: return ByteSet::all();
    case Kind::kBranch:
      for (uint32_t k = 0; k < i.num_children; k += 2) set.add(static_cast<uint8_t>(i.children[k]));
      break;
    case Kind::kConcat: {
      Node at = n;
      while (true) {
        const Info& c = info(at);
        if (c.kind != Kind::kConcat) {
          set = set | first_bound_locked(at);
          break;
        }
        set = set | first_bound_locked(node(c.a));
        if (!(infos_[c.a].flags & kCondHere) && !nullable_in(node(c.a), nullptr)) break;
        at = node(c.b);
      }
      break;
    }
    case Kind::kEither:
      for (uint32_t child : i.kids()) set = set | first_bound_locked(node(child));
      break;
    case Kind::kBoth:
      set = ByteSet::all();
      for (uint32_t child : i.kids()) set = set & first_bound_locked(node(child));
      break;
    case Kind::kRepeat: set = first_bound_locked(node(i.a)); break;
    case Kind::kClassify:
    case Kind::kTracked: set = first_bound_locked(node(i.children[0])); break;
  }
  ByteSet* memo = pool_->allocate<ByteSet>(1);
  *memo = set;
  i.first_bound.store(memo, std::memory_order_release);
  return set;
}

bool Lexicon::continues(Node n) {
  const Info& i = info(n);
  if (i.kind == Kind::kNone || i.kind == Kind::kAccept) return false;
  if (i.kind != Kind::kEither) return true;
  return !std::ranges::all_of(i.kids(), [this](uint32_t child) { return infos_[child].kind == Kind::kAccept; });
}

bool Lexicon::exclusion(Node n, Exclusion& out) {
  const Info* i = &info(n);
  Node rest = kEpsilon;
  if (i->kind == Kind::kConcat) {
    rest = node(i->b);
    i = &infos_[i->a];
  }
  if (i->kind != Kind::kBoth || i->num_children != 2) return false;
  uint32_t x = i->children[0], y = i->children[1];
  if (infos_[x].kind == Kind::kNot) std::swap(x, y);
  if (infos_[x].kind == Kind::kNot || infos_[y].kind != Kind::kNot) return false;
  out.base = node(x);
  out.excluded = node(infos_[y].a);
  out.reference = rest == kEpsilon ? node(x) : concat(node(x), rest);
  return true;
}

Lexicon::Shape Lexicon::shape(Node n, Node& first, Node& rest) {
  const Info& i = info(n);
  if (i.kind == Kind::kPrefix || i.kind == Kind::kBranch) return Shape::kLiteral;
  if (i.kind != Kind::kConcat || (infos_[i.a].flags & kHandedUp)) return Shape::kOther;
  first = node(i.a);
  rest = node(i.b);
  return Shape::kSequence;
}

bool Lexicon::counted(Node n, Node& body, uint32_t& min, uint32_t& max) {
  const Info& i = info(n);
  if (i.kind != Kind::kRepeat) return false;
  body = node(i.a);
  min = i.b;
  max = i.c;
  return true;
}

bool Lexicon::untagged(Node n) { return !(info(n).flags & kTagged); }
bool Lexicon::leads_to(Node n, Node target) {
  std::vector<uint32_t> work{id(n)};
  std::unordered_set<uint32_t> seen;
  while (!work.empty()) {
    uint32_t at = work.back();
    work.pop_back();
    if (at == id(target)) return false;  // nothing before it
    if (!seen.insert(at).second) continue;
    const Info& i = infos_[at];
    auto follow = [&](uint32_t rest) {
      if (rest != id(target)) work.push_back(rest);
    };
    switch (i.kind) {
      case Kind::kPrefix: follow(i.b); break;
      case Kind::kConcat:
        if ((infos_[i.a].flags & kHandedUp) || nullable_in(node(i.a), nullptr)) return false;
        follow(i.b);
        break;
      case Kind::kBranch:
        for (uint32_t k = 1; k < i.num_children; k += 2) follow(i.children[k]);
        break;
      case Kind::kEither:
        for (uint32_t child : i.kids()) work.push_back(child);
        break;
      default: return false;
    }
  }
  return true;
}

bool Lexicon::certainly_infinite(Node n) { return info(n).flags & kInfinite; }
bool Lexicon::certainly_finite(Node n) { return info(n).flags & kFinite; }

Node Lexicon::saturate(Node n, uint32_t length) {
  std::vector<Node> spine;  // left operands already passed
  Node at = n;
  std::lock_guard lock(mutex_);
  if (info(n).flags & kHandedUp) return n;
  // Only as far as a text shorter than `length` may reach: past operands that can be empty.
  while (true) {
    const Info& i = info(at);
    Node first = i.kind == Kind::kConcat ? node(i.a) : at;
    const Info& f = info(first);
    bool may_pass = true;
    if (f.kind == Kind::kRepeat && (f.b > length || (f.c != kUnbounded && f.c > length))) {
      // Each round takes a byte at least (a nullable body has min 0 and loses nothing by more rounds).
      uint32_t min = std::min(f.b, length);
      uint32_t max = f.c > length ? kUnbounded : f.c;
      may_pass = min == 0;
      first = make_repeat(node(f.a), min, max);
    } else {
      may_pass = nullable_in(first, nullptr);
    }
    spine.push_back(first);
    if (i.kind != Kind::kConcat) {
      at = kEpsilon;
      break;
    }
    at = node(i.b);
    if (!may_pass) break;
  }
  for (std::size_t k = spine.size(); k-- > 0;) at = make_concat(spine[k], at);
  return at;
}

std::string Lexicon::describe(Node n, int depth) {
  const Info& i = info(n);
  auto sub = [&](uint32_t child) { return describe(node(child), depth - 1); };
  if (depth < 0) return "…";
  auto list = [&](const char* separator) {
    std::string out = "(";
    for (uint32_t k = 0; k < i.num_children; ++k) out += (k ? separator : "") + sub(i.children[k]);
    return out + ")";
  };
  auto show = [](uint8_t byte) {
    static const char* hex = "0123456789abcdef";
    if (byte > 32 && byte < 127) return std::string(1, static_cast<char>(byte));
    return std::string("\\x") + hex[byte >> 4] + hex[byte & 15];
  };
  switch (i.kind) {
    case Kind::kNone: return "∅";
    case Kind::kAccept: return i.a ? "ε" + std::to_string(i.a) : "ε";
    case Kind::kAll: return "Σ*";
    case Kind::kBytes: {
      std::string out = "[";
      ByteSet set = set_of(i.kids());
      for (unsigned byte = 0; byte < 256; ++byte) {
        if (!set.has(static_cast<uint8_t>(byte))) continue;
        unsigned last = byte;
        while (last < 255 && set.has(static_cast<uint8_t>(last + 1))) ++last;
        out += show(static_cast<uint8_t>(byte));
        if (last > byte) out += "-" + show(static_cast<uint8_t>(last));
        byte = last;
      }
      return out + "]";
    }
    case Kind::kPrefix: return show(static_cast<uint8_t>(i.a)) + describe(node(i.b), depth);
    case Kind::kBranch: {
      std::string out = "{";
      for (uint32_t k = 0; k < i.num_children; k += 2)
        out += (k ? "|" : "") + show(static_cast<uint8_t>(i.children[k])) + sub(i.children[k + 1]);
      return out + "}";
    }
    case Kind::kConcat: return sub(i.a) + "·" + sub(i.b);
    case Kind::kEither: return list("|");
    case Kind::kBoth: return list("&");
    case Kind::kNot: return "¬" + sub(i.a);
    case Kind::kRepeat:
      return sub(i.a) + "{" + std::to_string(i.b) + "," + (i.c == kUnbounded ? "" : std::to_string(i.c)) + "}";
    case Kind::kClassify: return "classify" + list(";");
    case Kind::kHole: return "#" + std::to_string(i.a);
    case Kind::kCondition: return std::string(i.b ? "" : "!") + "?" + std::to_string(i.a);
    case Kind::kTracked: return "tracked" + list(";");
  }
  return "";
}

}  // namespace guiderail
