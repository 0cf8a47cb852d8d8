#include "core/lexer/lexicon_node.h"

#include <algorithm>
#include <unordered_set>

namespace guiderail {

using namespace lexicon_detail;

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
    case Kind::kMultiples: return DecimalMultiples::of(i.kids()).first_bound();
    case Kind::kAll:
    case Kind::kNot:
    case Kind::kWithoutMarker:
    case Kind::kWithMarker:
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
    case Kind::kBeforeMarker: {
      set = first_bound_locked(node(i.a));
      set.words[kMarker >> 6] &= ~(uint64_t{1} << (kMarker & 63));
      break;
    }
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
  if (i->kind != Kind::kBoth) return false;
  std::vector<Node> kept, excluded;
  for (uint32_t child : i->kids()) {
    bool taken = infos_[child].kind == Kind::kNot && (i->num_children == 2 || certainly_finite(node(infos_[child].a)));
    taken ? excluded.push_back(node(infos_[child].a)) : kept.push_back(node(child));
  }
  if (kept.empty() || excluded.size() != 1) return false;
  out.base = both(kept);
  out.excluded = excluded.front();
  out.reference = rest == kEpsilon ? out.base : concat(out.base, rest);
  return true;
}

Node Lexicon::excluding(Node from, Node what) {
  Exclusion one;
  if (!exclusion(from, one) || one.reference != one.base) return difference(from, what);
  return difference(one.base, either({one.excluded, what}));
}

std::vector<Node> Lexicon::options(Node n) {
  const Info& i = info(n);
  if (i.kind != Kind::kEither) return {n};
  std::vector<Node> result;
  for (uint32_t child : i.kids()) result.push_back(node(child));
  return result;
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

bool Lexicon::ends_with(Node n, std::vector<Node>& parts) {
  const Info& i = info(n);
  if (!(i.flags & kTagged)) return true;
  switch (i.kind) {
    case Kind::kAccept: return true;
    case Kind::kPrefix:
    case Kind::kConcat: parts.push_back(node(i.b)); return true;
    case Kind::kBranch:
      for (uint32_t k = 1; k < i.num_children; k += 2) parts.push_back(node(i.children[k]));
      return true;
    case Kind::kEither:
      for (uint32_t child : i.kids()) parts.push_back(node(child));
      return true;
    case Kind::kBoth:
      for (uint32_t child : i.kids())
        if (infos_[child].kind != Kind::kNot) parts.push_back(node(child));
      return true;
    case Kind::kTracked: parts.push_back(node(i.children[0])); return true;
    default: return false;
  }
}

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
  if (info(n).kind == Kind::kBoth) return without_far_maximum(n, length);
  if (info(n).kind == Kind::kConcat && infos_[info(n).a].kind == Kind::kBoth) {
    Node first = node(info(n).a), nearer = without_far_maximum(first, length);
    return nearer == first ? n : make_concat(nearer, node(info(n).b));
  }
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
    if (i.kind != Kind::kConcat) {
      at = first;  // as it is: a concatenation would lose its tags
      break;
    }
    spine.push_back(first);
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
    case Kind::kBeforeMarker: return "before(" + sub(i.a) + ")";
    case Kind::kWithoutMarker: return "without(" + sub(i.a) + ")";
    case Kind::kWithMarker: return "with(" + sub(i.a) + ")";
    case Kind::kMultiples: {
      DecimalMultiples m = DecimalMultiples::of(i.kids());
      return "multiples of " + std::to_string(m.modulus) + "e-" + std::to_string(m.left) +
             (m.bounded() ? ", bounded" : "") + " after " + std::to_string(static_cast<uint64_t>(m.value % m.modulus));
    }
  }
  return "";
}

std::optional<Lexicon::NearestMultiple> Lexicon::nearest_multiple(Node n) {
  const Info* i = &info(n);
  Node behind = kEpsilon;
  if (i->kind == Kind::kConcat) {
    behind = node(i->b);
    i = &infos_[i->a];
  }
  if (i->kind != Kind::kMultiples) return std::nullopt;
  DecimalMultiples m = DecimalMultiples::of(i->kids());
  std::optional<std::string> text = m.nearest();
  if (!text) return std::nullopt;
  return NearestMultiple{std::move(*text), m.longest_nearest(), behind};
}

}  // namespace guiderail
