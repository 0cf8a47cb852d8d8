#include "core/json/decimal.h"

#include <algorithm>
#include <numeric>

#include "core/errors.h"

namespace guiderail {
namespace {

std::strong_ordering compare_magnitudes(const Decimal& a, const Decimal& b) {
  if (a.is_zero() || b.is_zero()) return !a.is_zero() <=> !b.is_zero();
  if (auto order = a.magnitude() <=> b.magnitude(); order != 0) return order;
  int order = a.digits.compare(b.digits);  // both are 0.digits · 10^magnitude; a prefix is smaller
  return order <=> 0;
}

}  // namespace

Decimal Decimal::parse(std::string_view text) {
  Decimal result;
  std::size_t i = 0;
  if (i < text.size() && text[i] == '-') {
    result.negative = true;
    ++i;
  }
  bool fraction = false;
  for (; i < text.size() && text[i] != 'e' && text[i] != 'E'; ++i) {
    if (text[i] == '.') {
      fraction = true;
      continue;
    }
    if (!result.digits.empty() || text[i] != '0') result.digits.push_back(text[i]);
    if (fraction) --result.exponent;
  }
  if (result.digits.size() > kMaxDigits) throw LimitError("number_size", "a number of the schema has too many digits");
  if (i < text.size()) {
    ++i;
    bool negative = i < text.size() && text[i] == '-';
    if (i < text.size() && (text[i] == '-' || text[i] == '+')) ++i;
    int64_t exponent = 0;
    for (; i < text.size(); ++i) {
      exponent = exponent * 10 + (text[i] - '0');
      if (exponent > 1'000'000'000'000'000) {
        if (result.digits.empty()) break;  // zero, whatever the exponent
        throw LimitError("number_size", "the exponent of a number has more than 15 digits");
      }
    }
    result.exponent += negative ? -exponent : exponent;
  }
  std::size_t last = result.digits.find_last_not_of('0');
  std::size_t kept = last == std::string::npos ? 0 : last + 1;
  result.exponent += static_cast<int64_t>(result.digits.size() - kept);
  result.digits.resize(kept);
  if (result.digits.empty()) return Decimal{};
  return result;
}

std::strong_ordering Decimal::operator<=>(const Decimal& other) const {
  if (negative != other.negative) return negative ? std::strong_ordering::less : std::strong_ordering::greater;
  auto order = compare_magnitudes(*this, other);
  return negative ? 0 <=> order : order;
}

bool Decimal::is_multiple_of(const Decimal& divisor) const {
  if (is_zero()) return true;
  // digits · 10^exponent / (d · 10^e): remove common powers of ten, then a long division by d.
  int64_t shift = exponent - divisor.exponent;
  if (divisor.digits == "1") return shift >= 0;
  if (divisor.digits.size() > 18) throw LimitError("multiple_of", "the divisor of multipleOf has more than 18 digits");
  unsigned __int128 modulus = std::stoull(divisor.digits);
  // A negative shift leaves a factor 10^-shift in the denominator beside d, and digits does not end in 0: it would have to be
  // divisible by 10 for the quotient to be an integer.
  if (shift < 0) return false;
  unsigned __int128 remainder = 0;
  for (char c : digits) remainder = (remainder * 10 + static_cast<unsigned>(c - '0')) % modulus;
  // Multiply by 10^shift; powers of ten modulo d by squaring.
  unsigned __int128 power = 10 % modulus;
  for (auto n = static_cast<uint64_t>(shift); n; n >>= 1) {
    if (n & 1) remainder = remainder * power % modulus;
    power = power * power % modulus;
  }
  return remainder == 0;
}

std::optional<Decimal> Decimal::common_multiple(const Decimal& a, const Decimal& b) {
  constexpr uint64_t kLimit = 1'000'000'000'000'000'000;
  int64_t exponent = std::min(a.exponent, b.exponent);
  auto scaled = [&](const Decimal& value) -> uint64_t {  // 0: too large
    if (value.digits.size() > 18 || value.exponent - exponent > 18) return 0;
    uint64_t n = std::stoull(value.digits);
    for (int64_t i = exponent; i < value.exponent; ++i) {
      if (n >= kLimit / 10) return 0;
      n *= 10;
    }
    return n;
  };
  uint64_t x = scaled(a), y = scaled(b);
  if (!x || !y) return std::nullopt;
  y /= std::gcd(x, y);
  if (y >= kLimit / x) return std::nullopt;
  return parse(std::to_string(x * y) + "e" + std::to_string(exponent));
}

std::string Decimal::plain() const {
  if (is_zero()) return "0";
  std::string text = negative ? "-" : "";
  if (exponent >= 0) return text + digits + std::string(static_cast<std::size_t>(exponent), '0');
  int64_t whole = magnitude();
  if (whole <= 0) return text + "0." + std::string(static_cast<std::size_t>(-whole), '0') + digits;
  auto split = static_cast<std::size_t>(whole);
  return text + digits.substr(0, split) + "." + digits.substr(split);
}

std::string Decimal::canonical() const {
  if (is_zero()) return "0";
  return (negative ? "-" : "") + digits + "e" + std::to_string(exponent);
}

uint64_t Decimal::to_count() const {
  if (negative || is_zero() || exponent < 0) return 0;
  if (magnitude() > 19) return UINT64_MAX;
  return std::stoull(plain());
}

}  // namespace guiderail
