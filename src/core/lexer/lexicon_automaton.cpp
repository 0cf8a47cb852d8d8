#include "core/lexer/lexicon_node.h"

#include <algorithm>
#include <array>
#include <deque>
#include <unordered_set>

namespace guiderail {

using namespace lexicon_detail;

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
      case Kind::kBranch: break;
      case Kind::kAccept:
      case Kind::kAll: result = true; break;
      case Kind::kMultiples: result = DecimalMultiples::of(i.kids()).complete(); break;
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
      case Kind::kBeforeMarker: {
        std::lock_guard lock(mutex_);
        result = beyond_marker(node(i.a)) != kNone;
        break;
      }
      case Kind::kWithoutMarker: {
        std::lock_guard lock(mutex_);
        result = nullable_in(beyond_marker(node(i.a)), nullptr);
        break;
      }
      case Kind::kWithMarker: return false;
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

// What may follow the marker. That no second one comes is true of all texts that are ever read, so it need not be said: 'anything' is
// then kAll and no obligation.
Node Lexicon::beyond_marker(Node marked) {
  Node follows = derive_part(marked, kMarker, nullptr);
  return follows != kNone && search_alive(follows) ? without_promise(follows) : kNone;
}

Node Lexicon::without_promise(Node n) {
  const Info& i = info(n);
  Node promise = make_unmarked_texts();
  if (n == promise) return kAll;
  if (i.kind != Kind::kEither && i.kind != Kind::kBoth) return n;
  std::vector<Node> parts;
  for (uint32_t child : i.kids()) parts.push_back(without_promise(node(child)));
  return i.kind == Kind::kEither ? make_either(std::move(parts)) : make_both(std::move(parts));
}

Node Lexicon::after_marker(Node n) {
  const Info& i = info(n);
  if (i.kind != Kind::kBeforeMarker) return kAll;
  std::lock_guard lock(mutex_);
  return beyond_marker(node(i.a));
}

bool Lexicon::nullable(Node n) {
  uint8_t known = info(n).nullable.load(std::memory_order_relaxed);
  return known ? known == 1 : nullable_in(n, nullptr);
}

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
    case Kind::kMultiples: {
      auto next = DecimalMultiples::of(i.kids()).step(byte);
      return next ? intern(Kind::kMultiples, 0, 0, 0, next->words()) : kNone;
    }
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
    case Kind::kBeforeMarker:
      return byte == kMarker ? kNone : make_marked(Kind::kBeforeMarker, derive_part(node(i.a), byte, nullptr));
    case Kind::kWithoutMarker: {
      if (byte == kMarker) return kNone;
      uint32_t marked = i.a;
      Node later = make_marked(Kind::kWithoutMarker, derive_part(node(marked), byte, nullptr));
      Node passed = derive_part(beyond_marker(node(marked)), byte, nullptr);
      return make_either({later, passed});
    }
    case Kind::kWithMarker:
      return byte == kMarker ? node(i.a) : make_marked(Kind::kWithMarker, derive_part(node(i.a), byte, nullptr));
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
  return decide_alive(n);
}

uint8_t Lexicon::alive_by_parts(const Info& i) {
  if (i.flags & (kCondHere | kRecursive)) return 0;  // conditions and references mean nothing by themselves
  auto known = [this](uint32_t part) { return infos_[part].alive.load(std::memory_order_acquire); };
  switch (i.kind) {
    case Kind::kPrefix: return known(i.b);
    case Kind::kConcat:
      if (known(i.a) == 2 || known(i.b) == 2) return 2;
      return known(i.a) == 1 && known(i.b) == 1 ? 1 : 0;
    case Kind::kRepeat:
      if (i.b == 0) return 1;
      return known(i.a);
    case Kind::kEither:
    case Kind::kBranch: {
      bool all_dead = true;
      for (std::size_t k = i.kind == Kind::kBranch ? 1 : 0; k < i.num_children; k += i.kind == Kind::kBranch ? 2 : 1) {
        uint8_t child = known(i.children[k]);
        if (child == 1) return 1;
        all_dead = all_dead && child == 2;
      }
      return all_dead ? 2 : 0;
    }
    default: return 0;
  }
}

// Down to the parts whose aliveness takes a search, so that an intersection at the end of a long text is searched once and not from
// every place before it.
bool Lexicon::decide_alive(Node n) {
  std::vector<uint32_t> spine;  // alive if and only if what follows is
  bool result = false;
  while (true) {
    const Info& i = info(n);
    uint8_t known = i.alive.load(std::memory_order_acquire);
    if (!known) known = alive_by_parts(i);
    if (known) {
      result = known == 1;
      break;
    }
    bool plain = !(i.flags & (kCondHere | kRecursive));
    if (plain && (i.kind == Kind::kPrefix || i.kind == Kind::kConcat)) {
      spine.push_back(id(n));
      if (i.kind == Kind::kConcat && !decide_alive(node(i.a))) break;
      n = node(i.b);
    } else if (plain && i.kind == Kind::kRepeat) {
      spine.push_back(id(n));
      n = node(i.a);
    } else if (plain && (i.kind == Kind::kEither || i.kind == Kind::kBranch)) {
      for (std::size_t k = i.kind == Kind::kBranch ? 1 : 0; !result && k < i.num_children;
           k += i.kind == Kind::kBranch ? 2 : 1)
        result = decide_alive(node(i.children[k]));
      break;
    } else {
      result = search_alive(n);
      break;
    }
  }
  info(n).alive.store(result ? 1 : 2, std::memory_order_release);
  for (uint32_t part : spine) infos_[part].alive.store(result ? 1 : 2, std::memory_order_release);
  return result;
}

// Partitions the byte values by what the parts of a node can tell apart.
class Lexicon::Classes {
 public:
  explicit Classes(Lexicon& lexicon) : lexicon_(lexicon) {
    labels_.fill(0);
    sizes_[0] = 256;
  }

  void refine_by_node(Node n) {
    std::vector<uint32_t> work{id(n)};
    bool top = true;
    while (!work.empty()) {
      uint32_t at = work.back();
      work.pop_back();
      const Info& i = lexicon_.infos_[at];
      if (const Transitions* t = i.transitions.load(std::memory_order_acquire); t && !top) {
        split_by([&](unsigned byte) { return t->classes[byte]; });
        continue;
      }
      top = false;
      switch (i.kind) {
        case Kind::kNone:
        case Kind::kAccept:
        case Kind::kAll:
        case Kind::kCondition: continue;
        case Kind::kPrefix: split_off(static_cast<uint8_t>(i.a)); continue;
        case Kind::kMultiples:
          for (char byte : std::string_view(".0123456789")) split_off(static_cast<uint8_t>(byte));
          continue;
        case Kind::kBytes: {
          ByteSet set = set_of(i.kids());
          if (std::ranges::find(seen_sets_, set) != seen_sets_.end()) continue;
          seen_sets_.push_back(set);
          split_by([&](unsigned byte) { return set.has(static_cast<uint8_t>(byte)) ? 1u : 0u; });
          continue;
        }
        case Kind::kBranch: {
          for (uint32_t k = 0; k < i.num_children; k += 2) split_off(static_cast<uint8_t>(i.children[k]));
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
        case Kind::kWithoutMarker: work.push_back(id(lexicon_.beyond_marker(node(i.a)))); [[fallthrough]];
        case Kind::kBeforeMarker:
        case Kind::kWithMarker: split_off(kMarker); [[fallthrough]];
        case Kind::kNot:
        case Kind::kRepeat: work.push_back(lexicon_.infos_[at].a); break;
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
  // Gives the byte a class of its own.
  void split_off(uint8_t byte) {
    uint8_t old = labels_[byte];
    if (sizes_[old] == 1) return;
    --sizes_[old];
    sizes_[count_] = 1;
    labels_[byte] = static_cast<uint8_t>(count_++);
  }

  // Bytes of different parts (numbers below 256) get different classes. The part met first keeps the class's label.
  template <typename F>
  void split_by(F part_of) {
    constexpr uint16_t kUnmet = 256;
    std::array<uint16_t, 256> first;
    std::fill_n(first.begin(), count_, kUnmet);
    struct Fresh {
      uint8_t old, part, label;
    };
    std::array<Fresh, 256> fresh;
    unsigned num_fresh = 0, last = 0;
    for (unsigned byte = 0; byte < 256; ++byte) {
      uint8_t old = labels_[byte];
      uint8_t part = static_cast<uint8_t>(part_of(byte));
      if (first[old] == kUnmet) first[old] = part;
      if (first[old] == part) continue;
      if (last >= num_fresh || fresh[last].old != old || fresh[last].part != part) {
        for (last = 0; last < num_fresh && (fresh[last].old != old || fresh[last].part != part);) ++last;
        if (last == num_fresh) {
          sizes_[count_] = 0;
          fresh[num_fresh++] = {old, part, static_cast<uint8_t>(count_++)};
        }
      }
      --sizes_[old];
      ++sizes_[fresh[last].label];
      labels_[byte] = fresh[last].label;
    }
  }

  Lexicon& lexicon_;
  std::array<uint8_t, 256> labels_;
  std::array<uint16_t, 256> sizes_;
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
  auto leads_to_life = [&](uint32_t at, uint8_t byte) {
    spend(1);
    return meet(derive(node(visits[at].at), byte, nullptr), at);
  };
  for (bool newest = false; !open.empty(); newest = !newest) {
    uint32_t at = newest ? open.back() : open.front();
    newest ? open.pop_back() : open.pop_front();
    Node n = node(visits[at].at);
    // These lead on most often, and ask for no classes. Not those that led on in other searches: what a search finds within its budget must
    // not depend on what was asked before.
    constexpr std::array<uint8_t, 4> kHopeful{'a', '0', '"', ' '};
    ByteSet bound = first_bound_locked(n);
    for (uint8_t byte : kHopeful) {
      if (!bound.has(byte)) continue;
      if (leads_to_life(at, byte)) return mark_path(at);
    }
    Classes classes(*this);
    classes.refine_by_node(n);
    for (uint8_t byte : classes.representatives())
      if (bound.has(byte) && leads_to_life(at, byte)) return mark_path(at);
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

}  // namespace guiderail
