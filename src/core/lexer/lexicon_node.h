// What a node of the lexicon is made of; for the files lexicon*.cpp only.
//
//   lexicon.cpp            interning, and the constructors with their normal forms
//   lexicon_automaton.cpp  derivatives, aliveness, tags, transition tables
//   lexicon_shape.cpp      questions that the structure of a node answers without new nodes, and few with
//   lexicon_characters.cpp counts of characters beside other things said of a text
#pragma once

#include <atomic>
#include <cstdint>
#include <cstring>
#include <memory>
#include <span>
#include <unordered_map>
#include <vector>

#include "core/errors.h"
#include "core/growth.h"
#include "core/json/decimal_multiples.h"
#include "core/lexer/lexicon.h"

namespace guiderail::lexicon_detail {

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
constexpr uint8_t kStepsBeforeTable = 8;

// The budget of the calls in progress on this thread (Lexicon::Budget).
inline thread_local std::size_t budget_left = SIZE_MAX;

inline void spend(std::size_t cost) {
  if (budget_left < cost) throw LimitError("lexer_states", "too many lexer states for one request");
  budget_left -= cost;
}

constexpr uint32_t id(Node n) { return static_cast<uint32_t>(n); }
constexpr Node node(uint32_t i) { return Node{i}; }

inline ByteSet set_of(std::span<const uint32_t> words) {
  ByteSet set;
  std::memcpy(set.words.data(), words.data(), sizeof(set.words));
  return set;
}

}  // namespace guiderail::lexicon_detail

namespace guiderail {

struct Lexicon::TagList {
  uint32_t size;
  uint32_t tags[1];
};

// One node. Immutable but for what is computed on demand (atomics, published with release).
//   kAccept: a = tag            kBytes: children = the words of the set     kPrefix: a = byte, b = rest
//   kBranch: children = byte, node, byte, node, ...              kConcat: a, b
//   kEither, kBoth: children    kNot: a                          kRepeat: a = body, b = min, c = max
//   kClassify: children = body, classifiers                      kHole: definition     kCondition: a = tracker, b = positive
//   kTracked: children = body, trackers              kBeforeMarker, kWithoutMarker, kWithMarker: a
//   kMultiples: children = the words of a DecimalMultiples
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

inline Lexicon::Info& Lexicon::info(Node node) { return infos_[static_cast<uint32_t>(node)]; }

}  // namespace guiderail
