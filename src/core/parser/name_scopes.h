// Names that must not come twice within a scope: the property names of an object, declared or not.
//
// A grammar says which terminals open a scope, which close it, and which are names (grammar.h). A thread carries the number of the scope it is in:
// the scopes around it and, of each, the language of the names read there. A name's lexeme begins as its terminal without that language, so what is
// excluded is part of the lexeme, dead ends included, and rows of the unrestricted lexeme serve it. While a name is being read the scope
// remembers its text.
//
// Some numbers stand for scopes of which less is known. kSome: masks are built for it once and serve all scopes in which the same lexeme is read
// in the same parser state. There a name that begins and ends inside one token may have come before: tokens that do so end up in kDoubtful, and
// are read with the thread's own scope. kFresh is the same for a scope without names so far: the first cannot have come before.
#pragma once

#include <atomic>
#include <cstdint>
#include <mutex>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "core/growth.h"
#include "core/lexer/lexicon.h"

namespace guiderail {

// Are there infinitely many ways to end a name of this language, however it has begun? False if that takes too long to find out.
bool endless_everywhere(Lexicon& lexicon, Node name);

class NameScopes {
 public:
  static constexpr uint32_t kOutside = 0;    // in no scope
  static constexpr uint32_t kUntracked = 1;  // nobody asks
  static constexpr uint32_t kSome = 2;
  static constexpr uint32_t kSomeNamed = 3;  // the same, in a name whose lexeme does not know what it must not be
  static constexpr uint32_t kDoubtful = 4;
  static constexpr uint32_t kFresh = 5;
  static constexpr bool is_some(uint32_t scope) { return scope >= kSome && scope <= kFresh; }
  static constexpr bool known(uint32_t scope) { return scope > kFresh; }
  // Is the text that is being read a name's?
  static constexpr bool in_name(uint32_t scope) { return scope & kInName; }
  // Does the scope know its names, but takes no note of further ones?
  static constexpr bool forgets(uint32_t scope) { return known(scope) && (scope & kForgets); }

  static constexpr uint32_t kNoByte = 256;
  struct Scope {
    uint32_t parent = kOutside;
    Node seen = kNone;  // the names read
    // While a name is being read: its last byte, and `parent` is the number before that, and so on up to the scope it began in.
    uint32_t byte = kNoByte;
    bool operator==(const Scope&) const = default;
  };

  uint32_t opened(uint32_t scope) {
    if (scope == kOutside || known(scope)) return intern({scope, kNone}, forgets(scope) ? kForgets : 0);
    return scope == kSome ? kFresh : scope;
  }
  uint32_t closed(uint32_t scope) const {
    if (scope == kFresh) return kSome;
    return known(scope) ? (*this)[scope].parent : scope;
  }
  static constexpr uint32_t in_new_name(uint32_t scope) { return scope | kInName; }
  // One byte more of a name.
  uint32_t longer(uint32_t scope, uint8_t byte) { return intern({scope, kNone, byte}, kInName); }
  // The text of the name being read, and the scope it began in.
  std::pair<std::string, uint32_t> name(uint32_t scope) const {
    std::lock_guard lock(mutex_);
    std::string text;
    const Scope* at = &scopes_[scope & ~kFlags];
    for (; at->byte != kNoByte; at = &scopes_[scope & ~kFlags]) {
      text.push_back(static_cast<char>(at->byte));
      scope = at->parent;
    }
    return {{text.rbegin(), text.rend()}, scope & ~kInName};
  }
  uint32_t with_names(uint32_t scope, Node seen) { return intern({(*this)[scope].parent, seen}, 0); }
  // The same names, no further ones.
  uint32_t forgetful(uint32_t scope) {
    if (!known(scope) || forgets(scope)) return scope;
    Scope s = (*this)[scope];
    return intern({forgetful(s.parent), s.seen}, kForgets);
  }
  Scope operator[](uint32_t scope) const {
    std::lock_guard lock(mutex_);
    return scopes_[scope & ~kFlags];
  }

  std::size_t bytes_used() const { return bytes_.load(std::memory_order_relaxed); }

 private:
  static constexpr uint32_t kInName = uint32_t{1} << 31, kForgets = uint32_t{1} << 30, kFlags = kInName | kForgets;
  static constexpr std::size_t kBytesEach = 64;
  struct Hash {
    std::size_t operator()(const Scope& s) const {
      uint64_t h = (uint64_t{s.parent} << 32 | s.byte) * 0x9E3779B97F4A7C15ull;
      h = (h ^ h >> 29 ^ static_cast<uint32_t>(s.seen)) * 0xFF51AFD7ED558CCDull;
      return h ^ h >> 32;
    }
  };
  uint32_t intern(const Scope& scope, uint32_t flags) {
    std::lock_guard lock(mutex_);
    auto [it, fresh] = ids_.try_emplace(scope, static_cast<uint32_t>(scopes_.size()));
    if (fresh) {
      scopes_.push_back(scope);
      growth_of_this_thread += kBytesEach;
      bytes_.fetch_add(kBytesEach, std::memory_order_relaxed);
    }
    return it->second | flags;
  }

  mutable std::mutex mutex_;
  std::vector<Scope> scopes_ = std::vector<Scope>(kFresh + 1);
  std::unordered_map<Scope, uint32_t, Hash> ids_;
  std::atomic<std::size_t> bytes_{0};
};

}  // namespace guiderail
