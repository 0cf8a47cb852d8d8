// A set of byte values: four machine words, value semantics.
#pragma once

#include <array>
#include <bit>
#include <cstdint>

namespace guiderail {

struct ByteSet {
  std::array<uint64_t, 4> words{};

  static constexpr ByteSet of(uint8_t byte) {
    ByteSet set;
    set.add(byte);
    return set;
  }
  static constexpr ByteSet range(uint8_t first, uint8_t last) {
    ByteSet set;
    for (unsigned byte = first; byte <= last; ++byte) set.add(static_cast<uint8_t>(byte));
    return set;
  }
  static constexpr ByteSet all() {
    ByteSet set;
    set.words.fill(~uint64_t{0});
    return set;
  }

  constexpr void add(uint8_t byte) { words[byte >> 6] |= uint64_t{1} << (byte & 63); }
  constexpr bool has(uint8_t byte) const { return (words[byte >> 6] >> (byte & 63)) & 1; }
  constexpr bool empty() const { return (words[0] | words[1] | words[2] | words[3]) == 0; }
  constexpr int count() const {
    int n = 0;
    for (uint64_t w : words) n += ones(w);
    return n;
  }
  // The smallest member; the set must not be empty.
  constexpr uint8_t first() const {
    for (unsigned i = 0; i < 4; ++i)
      if (words[i]) return static_cast<uint8_t>(i * 64 + static_cast<unsigned>(std::countr_zero(words[i])));
    return 0;
  }
  constexpr ByteSet operator|(const ByteSet& o) const {
    return combine(o, [](uint64_t a, uint64_t b) { return a | b; });
  }
  constexpr ByteSet operator&(const ByteSet& o) const {
    return combine(o, [](uint64_t a, uint64_t b) { return a & b; });
  }
  constexpr ByteSet operator-(const ByteSet& o) const {
    return combine(o, [](uint64_t a, uint64_t b) { return a & ~b; });
  }
  constexpr bool operator==(const ByteSet&) const = default;

  template <typename F>
  void for_each(F f) const {
    for (unsigned i = 0; i < 4; ++i)
      for (uint64_t w = words[i]; w; w &= w - 1)
        f(static_cast<uint8_t>(i * 64 + static_cast<unsigned>(std::countr_zero(w))));
  }

 private:
  // std::popcount is a call where the target has no instruction for it, as plain x86-64 has not.
  static constexpr int ones(uint64_t w) {
    w -= (w >> 1) & 0x5555555555555555;
    w = (w & 0x3333333333333333) + ((w >> 2) & 0x3333333333333333);
    w = (w + (w >> 4)) & 0x0F0F0F0F0F0F0F0F;
    return static_cast<int>((w * 0x0101010101010101) >> 56);
  }
  template <typename F>
  constexpr ByteSet combine(const ByteSet& o, F f) const {
    ByteSet r;
    for (unsigned i = 0; i < 4; ++i) r.words[i] = f(words[i], o.words[i]);
    return r;
  }
};

}  // namespace guiderail
