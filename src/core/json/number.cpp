#include "core/json/number.h"

#include <algorithm>
#include <string>
#include <utility>

#include "core/errors.h"
#include "core/json/decimal_multiples.h"

namespace guiderail {
namespace {

struct Split {
  std::string whole, fraction;  // 12.5 → "12", "5"
};

Split whole_and_fraction(const Decimal& value) {
  std::string text = value.absolute().plain();
  std::size_t point = text.find('.');
  if (point == text.npos) return {text, ""};
  return {text.substr(0, point), text.substr(point + 1)};
}

Split split(const Decimal& value) {
  auto size = static_cast<int64_t>(value.digits.size());
  if (std::max(value.magnitude(), size) - std::min<int64_t>(value.exponent, 0) >
      static_cast<int64_t>(NumberLanguages::kMaxLength))
    throw LimitError("number_size", "a bound or value of the schema has too many digits when written in full");
  return whole_and_fraction(value);
}

}  // namespace

NumberLanguages::NumberLanguages(Lexicon& lexicon) : lexicon_(lexicon) {
  digit_ = lexicon.bytes(ByteSet::range('0', '9'));
  digits_ = lexicon.repeat(digit_, 0, kUnbounded);
  minus_ = lexicon.literal("-");
  point_ = lexicon.literal(".");
  e_ = lexicon.either({lexicon.literal("e"), lexicon.literal("E")});
  Node nonzero = lexicon.bytes(ByteSet::range('1', '9'));
  whole_ = lexicon.either({lexicon.literal("0"), concat(nonzero, digits_)});
  Node some_fraction = concat(point_, lexicon.repeat(digit_, 1, kUnbounded));
  fraction_ = lexicon.optional(some_fraction);
  unsigned_ = concat(whole_, fraction_);
  Node sign = lexicon.optional(lexicon.either({lexicon.literal("+"), minus_}));
  scientific_ = concat(concat(nonzero, fraction_), concat(e_, concat(sign, concat(digit_, digits_))));
}

Node NumberLanguages::all(Notation notation) const {
  Node unsigned_texts = notation == Notation::kPlain ? unsigned_ : lexicon_.either({unsigned_, scientific_});
  return concat(lexicon_.optional(minus_), unsigned_texts);
}

Node NumberLanguages::compare_fraction(const std::string& fraction, bool greater, bool equal) const {
  // After the whole part equalled the value's: the end of the text, or a point and digits compared one by one.
  Node zeros = lexicon_.repeat(lexicon_.literal("0"), 0, kUnbounded);
  Node above = concat(zeros, concat(lexicon_.bytes(ByteSet::range('1', '9')), digits_));
  bool none = fraction.empty();
  Node node =
      lexicon_.either({greater ? above : kNone, equal ? (none ? concat(lexicon_.literal("0"), zeros) : zeros) : kNone});
  for (std::size_t j = fraction.size(); j-- > 0;) {
    std::vector<std::pair<uint8_t, Node>> children;
    for (char c = '0'; c <= '9'; ++c) {
      if (c == fraction[j])
        children.emplace_back(static_cast<uint8_t>(c), node);
      else if ((c > fraction[j]) == greater)
        children.emplace_back(static_cast<uint8_t>(c), digits_);
    }
    Node here = lexicon_.branch(std::move(children));
    node = j > 0 && !greater ? lexicon_.optional(here) : here;
  }
  bool end_accepts = none ? equal : !greater;
  Node after_point = node == kNone ? kNone : concat(point_, node);
  return lexicon_.either({end_accepts ? kEpsilon : kNone, after_point});
}

Node NumberLanguages::compare(const Decimal& value, bool greater, bool equal) const {
  auto [whole, fraction] = split(value);
  auto n = static_cast<uint32_t>(whole.size());
  Node nonzero = lexicon_.bytes(ByteSet::range('1', '9'));
  Node node = compare_fraction(fraction, greater, equal);
  for (uint32_t i = n; i-- > 0;) {
    Node free = concat(lexicon_.repeat(digit_, n - 1 - i, n - 1 - i), fraction_);
    std::vector<std::pair<uint8_t, Node>> children;
    for (char c = i == 0 && n > 1 ? '1' : '0'; c <= '9'; ++c) {
      if (c == whole[i])
        children.emplace_back(static_cast<uint8_t>(c), node);
      else if ((c > whole[i]) == greater)
        children.emplace_back(static_cast<uint8_t>(c), free);
    }
    node = lexicon_.branch(std::move(children));
  }
  Node other_lengths = kNone;
  if (greater)
    other_lengths = concat(concat(nonzero, lexicon_.repeat(digit_, n, kUnbounded)), fraction_);
  else if (n > 1)
    other_lengths =
        concat(lexicon_.either({lexicon_.literal("0"), concat(nonzero, lexicon_.repeat(digit_, 0, n - 2))}), fraction_);
  return lexicon_.either({node, other_lengths});
}

Node NumberLanguages::naturals(const std::string& digits, int order) const {
  // Leading zeros are skipped first, so lengths compare.
  Node zeros = lexicon_.repeat(lexicon_.literal("0"), 0, kUnbounded);
  Node nonzero = lexicon_.bytes(ByteSet::range('1', '9'));
  if (digits == "0") {
    if (order == 0) return concat(lexicon_.literal("0"), zeros);
    return order > 0 ? concat(zeros, concat(nonzero, digits_)) : kNone;
  }
  auto n = static_cast<uint32_t>(digits.size());
  Node node = order == 0 ? kEpsilon : kNone;
  for (uint32_t i = n; i-- > 0;) {
    Node free = lexicon_.repeat(digit_, n - 1 - i, n - 1 - i);
    std::vector<std::pair<uint8_t, Node>> children;
    for (char c = i == 0 ? '1' : '0'; c <= '9'; ++c) {
      if (c == digits[i] && node != kNone)
        children.emplace_back(static_cast<uint8_t>(c), node);
      else if (c != digits[i] && order != 0 && (c > digits[i]) == (order > 0))
        children.emplace_back(static_cast<uint8_t>(c), free);
    }
    node = children.empty() ? kNone : lexicon_.branch(std::move(children));
  }
  if (node != kNone) node = concat(zeros, node);
  Node others = kNone;
  if (order > 0) others = concat(zeros, concat(nonzero, lexicon_.repeat(digit_, n, kUnbounded)));
  if (order < 0)
    others = lexicon_.either({concat(lexicon_.literal("0"), zeros),
                              n > 1 ? concat(zeros, concat(nonzero, lexicon_.repeat(digit_, 0, n - 2))) : kNone});
  return lexicon_.either({node, others});
}

Node NumberLanguages::exponents(int64_t n, int order) const {
  Node plus = lexicon_.optional(lexicon_.literal("+"));
  Node any = concat(digit_, digits_);
  std::string magnitude = std::to_string(n < 0 ? -n : n);
  if (n > 0) {
    Node positive = naturals(magnitude, order);
    Node node = positive == kNone ? kNone : concat(plus, positive);
    return order < 0 ? lexicon_.either({node, concat(minus_, any)}) : node;
  }
  if (n < 0) {
    Node negative = naturals(magnitude, -order);
    Node node = negative == kNone ? kNone : concat(minus_, negative);
    return order > 0 ? lexicon_.either({node, concat(plus, any)}) : node;
  }
  Node zero = naturals("0", 0), positive = naturals("0", 1);
  if (order == 0) return concat(lexicon_.optional(lexicon_.either({lexicon_.literal("+"), minus_})), zero);
  return order > 0 ? concat(plus, positive) : concat(minus_, positive);
}

Node NumberLanguages::compare_scientific(const Decimal& value, bool greater, bool equal) const {
  Node nonzero = lexicon_.bytes(ByteSet::range('1', '9'));
  if (value.is_zero()) return greater ? scientific_ : kNone;
  Decimal mantissa{false, value.digits, 1 - static_cast<int64_t>(value.digits.size())};
  int64_t exponent = value.magnitude() - 1;
  // One digit before the point and equal exponents: compare mantissas, of which those of two or more digits are no texts here.
  Node one_digit = concat(nonzero, fraction_);
  Node mantissas = lexicon_.both({compare(mantissa, greater, equal), one_digit});
  Node beyond = exponents(exponent, greater ? 1 : -1);
  Node same = concat(mantissas, concat(e_, exponents(exponent, 0)));
  return lexicon_.either({same, beyond == kNone ? kNone : concat(one_digit, concat(e_, beyond))});
}

Node NumberLanguages::bounded(Bound bound, const Decimal& value, Notation notation) const {
  bool lower = bound == Bound::kAtLeast || bound == Bound::kGreater;
  bool equal = bound == Bound::kAtLeast || bound == Bound::kAtMost;
  auto compared = [&](bool greater) {
    Node plain = compare(value.absolute(), greater, equal);
    if (notation == Notation::kPlain) return plain;
    return lexicon_.either({plain, compare_scientific(value.absolute(), greater, equal)});
  };
  auto negated = [&](Node node) { return node == kNone ? kNone : concat(minus_, node); };
  Node any = notation == Notation::kPlain ? unsigned_ : lexicon_.either({unsigned_, scientific_});
  if (value.is_zero()) {
    // -0 equals 0.
    Node zero = compare(value, false, true);
    Node side = lower ? compared(true) : negated(compared(true));
    return equal ? lexicon_.either({side, zero, negated(zero)}) : side;
  }
  if (lower) return value.negative ? lexicon_.either({any, negated(compared(false))}) : compared(true);
  return value.negative ? negated(compared(true)) : lexicon_.either({negated(any), compared(false)});
}

Node NumberLanguages::equal_to(const std::vector<Decimal>& values) const {
  Node zeros = lexicon_.repeat(lexicon_.literal("0"), 0, kUnbounded);
  Node no_fraction = lexicon_.optional(concat(point_, concat(lexicon_.literal("0"), zeros)));
  std::vector<std::string> texts;
  std::vector<Node> rests, far;
  for (const Decimal& value : values) {
    if (std::max(value.exponent, -value.magnitude()) > static_cast<int64_t>(kMaxLength)) {
      far.push_back(far_from_one(value, zeros, no_fraction));
      continue;
    }
    auto [whole, fraction] = whole_and_fraction(value);
    std::string text = fraction.empty() ? whole : whole + "." + fraction;
    Node rest = fraction.empty() ? no_fraction : zeros;
    if (value.is_zero() || !value.negative) {
      texts.push_back(text);
      rests.push_back(rest);
    }
    if (value.is_zero() || value.negative) {
      texts.push_back("-" + text);
      rests.push_back(rest);
    }
  }
  std::vector<std::pair<std::string_view, Node>> entries;
  for (std::size_t i = 0; i < texts.size(); ++i) entries.emplace_back(texts[i], rests[i]);
  far.push_back(lexicon_.literals(std::move(entries)));
  return lexicon_.either(std::move(far));
}

// Its many zeros are counted, by the billion if need be.
Node NumberLanguages::far_from_one(const Decimal& value, Node zeros, Node no_fraction) const {
  int64_t count = value.exponent > 0 ? value.exponent : -value.magnitude();
  constexpr int64_t kBillion = 1'000'000'000;
  auto times = [this](Node body, int64_t number) {
    return lexicon_.repeat(body, static_cast<uint32_t>(number), static_cast<uint32_t>(number));
  };
  Node zero = lexicon_.literal("0");
  Node between = concat(times(times(zero, kBillion), count / kBillion), times(zero, count % kBillion));
  Node digits = lexicon_.literal(value.digits);
  Node text = value.exponent > 0 ? concat(digits, concat(between, no_fraction))
                                 : concat(lexicon_.literal("0."), concat(between, concat(digits, zeros)));
  return value.negative ? concat(minus_, text) : text;
}

Node NumberLanguages::multiples_of(const Decimal& divisor, bool fractions) const {
  if (divisor.digits.size() > 18) throw LimitError("multiple_of", "the divisor of multipleOf has more than 18 digits");
  if (divisor.exponent < -300 || divisor.exponent > 300)
    throw LimitError("multiple_of", "the exponent of the divisor of multipleOf is beyond 300");
  uint64_t modulus = std::stoull(divisor.digits);
  Node node;
  if (divisor.exponent <= 0) {
    node = lexicon_.multiples(modulus, static_cast<uint32_t>(-divisor.exponent), fractions);
  } else {
    // d · 10^e: the multiples of d with e zeros appended, and zero.
    Node zeros = lexicon_.repeat(lexicon_.literal("0"), 0, kUnbounded);
    Node no_fraction = fractions ? lexicon_.optional(concat(point_, concat(lexicon_.literal("0"), zeros))) : kEpsilon;
    // From 1 on by arithmetic: as an intersection with the texts that begin with no zero, a multiple would have to be searched for.
    DecimalMultiples positive{modulus, 0, 0, {}, false, 1};
    Node shifted = concat(lexicon_.multiples(positive),
                          lexicon_.literal(std::string(static_cast<std::size_t>(divisor.exponent), '0')));
    node = concat(lexicon_.either({lexicon_.literal("0"), shifted}), no_fraction);
  }
  return concat(lexicon_.optional(minus_), node);
}

std::optional<Node> NumberLanguages::multiples_within(const Decimal& divisor,
                                                      std::span<const std::pair<Bound, Decimal>> bounds,
                                                      bool fractions) const {
  using Wide = DecimalMultiples::Wide;
  __extension__ using Signed = __int128;
  constexpr uint64_t kLeastModulus = 256;
  int64_t places = std::max<int64_t>(0, -divisor.exponent);
  for (const auto& [bound, value] : bounds) places = std::max(places, -value.exponent);
  if (places > DecimalMultiples::kMaxPlaces || (places > 0 && !fractions)) return std::nullopt;
  // In units of the last place; none beyond so many digits.
  auto units = [places](const Decimal& value, int64_t most_digits) -> std::optional<Signed> {
    if (value.magnitude() + places > most_digits) return std::nullopt;
    Signed number = 0;
    for (char c : value.digits) number = number * 10 + (c - '0');
    if (!value.is_zero())
      for (int64_t i = 0; i < value.exponent + places; ++i) number *= 10;
    return value.negative ? -number : number;
  };
  std::optional<Signed> modulus = units(divisor, 18);
  if (!modulus || *modulus < kLeastModulus) return std::nullopt;
  std::optional<Signed> least, most;
  for (const auto& [bound, value] : bounds) {
    std::optional<Signed> at = units(value, DecimalMultiples::kMaxDigits);
    if (!at) return std::nullopt;
    if (bound == Bound::kAtLeast || bound == Bound::kGreater) {
      Signed here = *at + (bound == Bound::kGreater ? 1 : 0);
      least = least ? std::max(*least, here) : here;
    } else {
      Signed here = *at - (bound == Bound::kLess ? 1 : 0);
      most = most ? std::min(*most, here) : here;
    }
  }
  auto between = [&](std::optional<Signed> from, std::optional<Signed> to) {
    if (to && *to < 0) return kNone;
    DecimalMultiples start{static_cast<uint64_t>(*modulus), 0, static_cast<uint32_t>(places), {}, fractions};
    if (from && *from > 0) start.least = static_cast<Wide>(*from);
    if (to) start.most = static_cast<Wide>(*to);
    return lexicon_.multiples(start);
  };
  auto negated = [](std::optional<Signed> number) { return number ? std::optional(-*number) : std::nullopt; };
  Node negative = between(negated(most), negated(least));
  return lexicon_.either({between(least, most), negative == kNone ? kNone : concat(minus_, negative)});
}

}  // namespace guiderail
