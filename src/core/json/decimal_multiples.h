// Plain decimals whose value is a multiple of a decimal, perhaps between two bounds, as an automaton that is never written down.
//
// The multiples of modulus · 10^-places among the texts 0, 120, 0.5, 12.50, … (or among those without a point): what has been read is known by its remainder, so a state is a
// few numbers and the next one an expression. A divisor such as 0.123456789 has a hundred million states, of which a text visits one per digit. Beside
// an automaton of its own for each bound, an end would have to be searched among the products of their states; here the bounds are part of the
// arithmetic, and what has been read is known by its value while a bound may still decide.
// A state is only ever reached if it can be completed: if one of the numbers that begin like this is a multiple within the bounds. `nearest`
// is the shortest text that completes it.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <numeric>
#include <optional>
#include <span>
#include <string>

#include "core/text/byte_set.h"

namespace guiderail {

struct DecimalMultiples {
  __extension__ using Wide = unsigned __int128;
  enum class Stage : uint32_t { kStart, kZero, kWhole, kPoint, kFraction };
  static constexpr uint32_t kMaxDigits = 36;  // of bounds and of what has been read beside them
  static constexpr uint32_t kMaxPlaces = 18;  // beside bounds, and for `nearest`
  static constexpr Wide kNoLimit = ~Wide{0};

  uint64_t modulus = 1;  // below 10^18
  Wide value = 0;        // of the digits read; modulo the modulus where no bound can decide any more
  uint32_t left = 0;     // places that may still decide; beyond them only zeros
  Stage stage = Stage::kStart;
  bool fractions = true;  // may there be a point?
  // Bounds in units of the last place, both included, below 10^kMaxDigits.
  Wide least = 0, most = kNoLimit;

  bool bounded() const { return least > 0 || most != kNoLimit; }
  // Are there infinitely many texts? From every state, if there are any.
  bool endless() const { return fractions || most == kNoLimit; }
  // Is what has been read a multiple, zeros put for the places left?
  bool complete() const { return stage != Stage::kStart && stage != Stage::kPoint && text_of(0, 0); }

  std::optional<DecimalMultiples> step(uint8_t byte) const {
    DecimalMultiples next = *this;
    if (byte == '.') {
      if (!fractions || (stage != Stage::kZero && stage != Stage::kWhole)) return std::nullopt;
      next.stage = Stage::kPoint;
      return next.completable() ? std::optional(next) : std::nullopt;
    }
    if (byte < '0' || byte > '9' || stage == Stage::kZero) return std::nullopt;
    uint64_t digit = byte - static_cast<uint64_t>('0');
    if (stage == Stage::kStart) {
      next.stage = digit == 0 ? Stage::kZero : Stage::kWhole;
    } else if (stage == Stage::kPoint || stage == Stage::kFraction) {
      next.stage = Stage::kFraction;
      if (left == 0) return digit == 0 ? std::optional(next) : std::nullopt;
      --next.left;
    }
    next.value = value * 10 + digit;
    // No limit above, and large enough already.
    if (next.most == kNoLimit && (next.least == 0 || next.value >= next.least / ten_to(next.left) + 1)) {
      next.least = 0;
      next.value %= modulus;
    }
    return next.completable() ? std::optional(next) : std::nullopt;
  }

  ByteSet first_bound() const {
    if (stage == Stage::kZero) return fractions ? ByteSet::of('.') : ByteSet{};
    ByteSet set = ByteSet::range('0', '9');
    if (stage == Stage::kWhole && fractions) set.add('.');
    return set;
  }

  // Of the texts that complete this one, a shortest; none if that is not known.
  std::optional<std::string> nearest() const {
    if (left > kMaxPlaces) return std::nullopt;
    bool whole = stage == Stage::kStart || stage == Stage::kWhole, point = whole || stage == Stage::kZero;
    for (uint32_t length = 0; length <= kMaxDigits + kMaxPlaces + 1; ++length) {
      for (uint32_t rest = whole ? 0 : length; rest <= length; ++rest) {
        // `digits` before the point, and behind them perhaps the point and `places`.
        uint32_t digits = length - rest, places = point && rest > 0 ? rest - 1 : rest;
        if ((point && rest == 1) || (places > 0 && !fractions) || places > std::max(left, 1u)) continue;
        if ((stage == Stage::kStart && digits == 0) || (stage == Stage::kPoint && places == 0)) continue;
        std::optional<Wide> more = text_of(digits, std::min(places, left));
        if (!more) continue;
        std::string text = padded(*more, digits + left);
        std::string fraction = places > left ? "0" : text.substr(digits, places);
        return text.substr(0, digits) + (point && places > 0 ? "." : "") + fraction;
      }
    }
    return std::nullopt;
  }
  // No `nearest` of a state that can be reached from here is longer.
  uint32_t longest_nearest() const {
    auto digits = [](Wide number) {
      uint32_t count = 1;
      while (number >= 10) number /= 10, ++count;
      return count;
    };
    return (most == kNoLimit ? digits(modulus) + digits(least) : digits(most)) + left + 3;
  }

  using Words = std::array<uint32_t, 16>;
  Words words() const {
    Words out{};
    std::size_t at = 0;
    auto put = [&](Wide number, unsigned count) {
      for (unsigned i = 0; i < count; ++i, number >>= 32) out[at++] = static_cast<uint32_t>(number);
    };
    put(modulus, 2);
    put(value, 4);
    put(least, 4);
    put(most, 4);
    put(left, 1);
    put(static_cast<uint32_t>(stage) | (fractions ? 0 : kNoFractions), 1);
    return out;
  }
  static DecimalMultiples of(std::span<const uint32_t> words) {
    std::size_t end = words.size();
    auto take = [&](unsigned count) {
      Wide number = 0;
      for (unsigned i = 0; i < count; ++i) number = number << 32 | words[--end];
      return number;
    };
    DecimalMultiples m;
    auto last = static_cast<uint32_t>(take(1));
    m.stage = Stage{last & ~kNoFractions};
    m.fractions = !(last & kNoFractions);
    m.left = static_cast<uint32_t>(take(1));
    m.most = take(4);
    m.least = take(4);
    m.value = take(4);
    m.modulus = static_cast<uint64_t>(take(2));
    return m;
  }

  // Can anything be completed from here?
  bool completable() const {
    if (stage == Stage::kStart) {
      for (uint8_t byte = '0'; byte <= '9'; ++byte)
        if (step(byte)) return true;
      return false;
    }
    if (!bounded()) {
      if (stage == Stage::kWhole) return true;
      uint64_t rest = scaled();
      if (rest == 0) return true;
      uint64_t distance = modulus - rest, reach = 1;
      for (uint32_t i = 0; i < left && reach <= distance; ++i) reach *= 10;
      return distance < reach;
    }
    if (most == kNoLimit && stage == Stage::kWhole) return true;
    for (uint32_t digits = 0; digits + left <= kMaxDigits; ++digits) {
      Wide width = ten_to(digits + left);
      if (value > most / width) return false;
      Wide from = std::max(least, value * width), to = std::min(most, value * width + width - 1);
      if (from <= to && to / modulus * modulus >= from) return true;
      if (stage != Stage::kWhole) return false;
    }
    return false;
  }

 private:
  static constexpr uint32_t kNoFractions = 8;

  static Wide ten_to(uint32_t exponent) {
    Wide power = 1;
    while (exponent--) power *= 10;
    return power;
  }
  static std::string padded(Wide number, uint32_t size) {
    std::string text(size, '0');
    for (uint32_t i = size; i-- > 0; number /= 10) text[i] = static_cast<char>('0' + static_cast<int>(number % 10));
    return text;
  }
  // value · 10^left modulo the modulus.
  uint64_t scaled() const { return shifted(left); }
  uint64_t shifted(uint32_t places) const {
    auto result = static_cast<uint64_t>(value % modulus);
    for (uint32_t i = 0; i < places && result; ++i) result = static_cast<uint64_t>(Wide{result} * 10 % modulus);
    return result;
  }

  // What `digits` more digits before the point and `places` behind it can add, in units of the last place, so that the number is a multiple
  // within the bounds: the least. Zeros stand at the places that are left.
  std::optional<Wide> text_of(uint32_t digits, uint32_t places) const {
    if (left > kMaxPlaces) {
      if (digits == 0 && places == 0 && scaled() == 0) return Wide{0};
      return std::nullopt;
    }
    if (digits + left > kMaxDigits) return std::nullopt;
    // more ≡ 0 modulo grain, more ≡ -value · 10^(digits + left) modulo the modulus: more = grain · s.
    Wide width = ten_to(digits + left);
    auto grain = static_cast<uint64_t>(ten_to(left - places));
    uint64_t common = std::gcd(grain, modulus);
    uint64_t target = (modulus - shifted(digits + left)) % modulus;
    if (target % common) return std::nullopt;
    uint64_t cycle = modulus / common;
    Wide s = Wide{target / common} * inverse(grain / common % cycle, cycle) % cycle;
    Wide more = Wide{grain} * s, period = Wide{grain} * cycle;
    // Within what so many digits can say, without a zero in front.
    Wide from = stage == Stage::kStart && digits > 1 ? width / 10 : 0;
    if (bounded()) {
      if (value > std::min(most, ten_to(kMaxDigits + 1)) / width) return std::nullopt;
      Wide base = value * width;
      if (least > base) from = std::max(from, least - base);
      width = std::min(width, most - base + (most == kNoLimit ? 0 : 1));
    }
    if (more < from) more += (from - more + period - 1) / period * period;
    return more < width ? std::optional(more) : std::nullopt;
  }
  // b with a · b ≡ 1 modulo m, where a and m have no common divisor.
  static uint64_t inverse(uint64_t a, uint64_t m) {
    __extension__ using Signed = __int128;
    Signed x = 0, next = 1, r = m, rest = a;
    while (rest) {
      Signed q = r / rest, t = x - q * next;
      x = next, next = t;
      t = r - q * rest;
      r = rest, rest = t;
    }
    return m == 1 ? 0 : static_cast<uint64_t>((x % m + m) % m);
  }
};

}  // namespace guiderail
