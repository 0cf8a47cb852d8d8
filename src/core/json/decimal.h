// Exact decimal numbers: bounds, multipleOf and equality of JSON numbers never pass through binary floating point.
#pragma once

#include <compare>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace guiderail {

// (-1)^negative · digits · 10^exponent; digits has no leading and no trailing zero, zero is "" with exponent 0.
struct Decimal {
  bool negative = false;
  std::string digits;
  int64_t exponent = 0;

  // Of a JSON number. Throws LimitError number_size beyond kMaxDigits digits or exponents of 18 digits.
  static Decimal parse(std::string_view text);
  static constexpr std::size_t kMaxDigits = 100000;

  bool is_zero() const { return digits.empty(); }
  bool is_integer() const { return exponent >= 0; }
  // Position of the most significant digit: value is in [10^(magnitude-1), 10^magnitude).
  int64_t magnitude() const { return static_cast<int64_t>(digits.size()) + exponent; }
  Decimal absolute() const { return Decimal{false, digits, exponent}; }
  // Is this an integer multiple of `divisor` (positive)?
  bool is_multiple_of(const Decimal& divisor) const;
  // The least positive number that is a multiple of both (positive); none if it has more than 18 digits, or one of them has.
  static std::optional<Decimal> common_multiple(const Decimal& a, const Decimal& b);
  // As plain digits: "-12.5", "0", "1200".
  std::string plain() const;
  // One text per value: "125e-1".
  std::string canonical() const;
  // Values beyond 2^64 saturate; negative and fractional ones throw nothing and return 0 (the caller checked).
  uint64_t to_count() const;

  bool operator==(const Decimal&) const = default;
  std::strong_ordering operator<=>(const Decimal& other) const;
};

}  // namespace guiderail
