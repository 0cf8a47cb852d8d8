// Plain decimals whose value is a multiple of a decimal, as an automaton that is never written down.
//
// The multiples of modulus · 10^-places among the texts 0, 120, 0.5, 12.50, … (or among those without a point): what has been read is known by its remainder, so a state is a
// few numbers and the next one an expression. A divisor such as 0.123456789 has a hundred million states, of which a text visits one per digit.
// A state is only ever reached if it can be completed: any remainder can before the point (more digits reach any multiple), and with n
// places left after it those whose distance to the next multiple is less than 10^n.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <span>

#include "core/text/byte_set.h"

namespace guiderail {

struct DecimalMultiples {
  enum class Stage : uint32_t { kStart, kZero, kWhole, kPoint, kFraction };
  uint64_t modulus = 1;
  uint64_t remainder = 0;  // of the digits read
  uint32_t left = 0;       // places that may still decide; beyond them only zeros
  Stage stage = Stage::kStart;
  bool fractions = true;  // may there be a point?

  // Is what has been read a multiple, zeros put for the places left?
  bool complete() const { return stage != Stage::kStart && stage != Stage::kPoint && scaled() == 0; }

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
    next.remainder = times(remainder, 10, digit);
    return next.stage == Stage::kWhole || next.completable() ? std::optional(next) : std::nullopt;
  }

  ByteSet first_bound() const {
    if (stage == Stage::kZero) return fractions ? ByteSet::of('.') : ByteSet{};
    ByteSet set = ByteSet::range('0', '9');
    if (stage == Stage::kWhole && fractions) set.add('.');
    return set;
  }

  using Words = std::array<uint32_t, 6>;
  Words words() const {
    return {static_cast<uint32_t>(modulus),
            static_cast<uint32_t>(modulus >> 32),
            static_cast<uint32_t>(remainder),
            static_cast<uint32_t>(remainder >> 32),
            left,
            static_cast<uint32_t>(stage) | (fractions ? 0 : kNoFractions)};
  }
  static DecimalMultiples of(std::span<const uint32_t> words) {
    return {words[0] | uint64_t{words[1]} << 32, words[2] | uint64_t{words[3]} << 32, words[4],
            Stage{words[5] & ~kNoFractions}, !(words[5] & kNoFractions)};
  }

 private:
  static constexpr uint32_t kNoFractions = 8;

  // (a · factor + more) modulo the modulus.
  uint64_t times(uint64_t a, uint64_t factor, uint64_t more) const {
    __extension__ using Wide = unsigned __int128;
    return static_cast<uint64_t>((Wide{a} * factor + more) % modulus);
  }
  uint64_t scaled() const {
    uint64_t result = remainder % modulus;
    for (uint32_t i = 0; i < left && result; ++i) result = times(result, 10, 0);
    return result;
  }
  bool completable() const {
    uint64_t value = scaled();
    if (value == 0) return true;
    uint64_t distance = modulus - value, reach = 1;
    for (uint32_t i = 0; i < left && reach <= distance; ++i) reach *= 10;
    return distance < reach;
  }
};

}  // namespace guiderail
