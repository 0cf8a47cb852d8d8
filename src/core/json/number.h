// Languages of decimal texts: the JSON numbers that satisfy bounds, equal a value or are multiples of one.
//
// By value, all JSON number texts are not a regular language (`1500e-2` is an integer, and how far the point moves is unbounded). So a
// number under a constraint is written as a plain decimal `-?(0|[1-9][0-9]*)(\.[0-9]+)?`, of which every constraint of JSON Schema is a
// regular language, exactly. Where only bounds apply, scientific notation with one digit before the point (`1.5e-07`, as Python, JavaScript and C
// print small and large values) is comparable digit by digit as well and stays allowed.
#pragma once

#include <vector>

#include "core/json/decimal.h"
#include "core/lexer/lexicon.h"

namespace guiderail {

class NumberLanguages {
 public:
  explicit NumberLanguages(Lexicon& lexicon);

  enum class Notation : uint8_t { kPlain, kPlainOrScientific };
  enum class Bound : uint8_t { kAtLeast, kGreater, kAtMost, kLess };

  Node all(Notation notation) const;
  // Throws LimitError number_size for bounds that need more than kMaxLength digits in full.
  Node bounded(Bound bound, const Decimal& value, Notation notation) const;
  Node equal_to(const std::vector<Decimal>& values) const;
  // Throws LimitError multiple_of for divisors of more than 18 digits or exponents beyond 300.
  // Without `fractions` only texts without a point; the divisor is an integer then.
  Node multiples_of(const Decimal& divisor, bool fractions = true) const;
  // Those within bounds, known by arithmetic alone. None if the numbers are too long for it, or the divisor so small that automata of the
  // bounds, which texts share, are better.
  std::optional<Node> multiples_within(const Decimal& divisor, std::span<const std::pair<Bound, Decimal>> bounds,
                                       bool fractions) const;
  // Without a fraction: what draft 4 calls an integer.
  Node integer_texts() const { return lexicon_.concat(lexicon_.optional(minus_), whole_); }

  static constexpr std::size_t kMaxLength = 1200;

 private:
  Node concat(Node a, Node b) const { return lexicon_.concat(a, b); }
  // The plain texts of one value of many zeros.
  Node far_from_one(const Decimal& value, Node zeros, Node no_fraction) const;
  // Texts without sign whose value is greater than (less than) `value`, or equal if `equal`.
  Node compare(const Decimal& value, bool greater, bool equal) const;
  Node compare_fraction(const std::string& fraction, bool greater, bool equal) const;
  Node compare_scientific(const Decimal& value, bool greater, bool equal) const;
  // Exponents greater than (less than, equal to) `n`, sign and leading zeros included.
  Node exponents(int64_t n, int order) const;
  Node naturals(const std::string& digits, int order) const;

  Lexicon& lexicon_;
  Node digit_, digits_, minus_, point_, whole_, fraction_, unsigned_, scientific_, e_;
};

}  // namespace guiderail
