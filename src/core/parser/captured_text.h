// Texts whose reading decides what may follow, interned: a trie that grows with what is read.
//
// A thread inside a capture (grammar.h) carries the number of the text read since the capture began, or since an outer one did; all other
// threads carry kNoText, and nothing below costs them anything. Five numbers stand for 'some text' and are used where the tokens of a mask
// are decided all at once: what follows is then the capture's generic continuation, and the number counts how many lexemes have begun
// since. From kDoubtful on, the generic answer is no answer and the token is read with its own text.
#pragma once

#include <atomic>
#include <cstdint>
#include <mutex>
#include <string>
#include <unordered_map>
#include <vector>

#include "core/growth.h"

namespace guiderail {

inline constexpr uint32_t kNoText = 0;
inline constexpr uint32_t kEmptyText = 1;
inline constexpr uint32_t kSomeText = 2;       // unknown; no capture has asked for it, so it has decided nothing
inline constexpr uint32_t kSomeTextAsked = 3;  // one has; no lexeme begun since
inline constexpr uint32_t kSomeTextLater = 4;  // one lexeme begun since
inline constexpr uint32_t kSomeTextTwice = 5;  // two: it lives if there are infinitely many ways to end the second
inline constexpr uint32_t kDoubtful = 6;
constexpr bool is_some_text(uint32_t text) { return text >= kSomeText && text <= kDoubtful; }

class CapturedTexts {
 public:
  // The text one byte longer.
  uint32_t longer(uint32_t text, uint8_t byte) {
    if (text == kNoText || is_some_text(text)) return text;
    std::lock_guard lock(mutex_);
    auto [it, fresh] = ids_.try_emplace(uint64_t{text} << 8 | byte, static_cast<uint32_t>(parents_.size()));
    if (fresh) {
      parents_.push_back({text, byte});
      growth_of_this_thread += kBytesEach;
      bytes_.fetch_add(kBytesEach, std::memory_order_relaxed);
    }
    return it->second;
  }

  std::string text(uint32_t id) const {
    std::lock_guard lock(mutex_);
    std::string out;
    for (; id > kDoubtful; id = parents_[id].text) out.push_back(static_cast<char>(parents_[id].byte));
    return {out.rbegin(), out.rend()};
  }

  std::size_t bytes_used() const { return bytes_.load(std::memory_order_relaxed); }

 private:
  struct Parent {
    uint32_t text;
    uint8_t byte;
  };
  static constexpr std::size_t kBytesEach = 48;

  mutable std::mutex mutex_;
  std::vector<Parent> parents_ = std::vector<Parent>(kDoubtful + 1);
  std::unordered_map<uint64_t, uint32_t> ids_;
  std::atomic<std::size_t> bytes_{0};
};

}  // namespace guiderail
