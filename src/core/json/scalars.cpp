// Formulas of strings and numbers → lexical languages.
//
// Where a formula admits finitely many values (an enum under any other keywords), the values are filtered one by one and written as
// declared; otherwise the language is the Boolean combination of the languages of its atoms, each closed under all spellings of a character.
#include <algorithm>
#include <optional>
#include <utility>

#include "core/errors.h"
#include "core/json/algebra.h"
#include "core/json/format.h"
#include "core/regex/tree.h"

namespace guiderail {
namespace {

std::size_t count_characters(std::string_view text) {
  return static_cast<std::size_t>(std::ranges::count_if(text, [](char c) { return (c & 0xC0) != 0x80; }));
}

}  // namespace

// Candidates that include every value of `f`, if they are finitely many.
bool JsonAlgebra::finite_values(Formula f, FormulaKind kind, std::vector<ValueId>& out) {
  FormulaKind k = formulas_.kind(f);
  if (k == kind) {
    const auto& values = value_sets_[formulas_.a(f)];
    out.insert(out.end(), values.begin(), values.end());
    return true;
  }
  if (f == kFalse) return true;
  if (k == FormulaKind::kAnd) {
    for (Formula child : formulas_.children(f)) {
      std::size_t size = out.size();
      if (finite_values(child, kind, out)) return true;
      out.resize(size);
    }
    return false;
  }
  if (k != FormulaKind::kOr && k != FormulaKind::kOne) return false;
  for (Formula child : formulas_.children(f))
    if (!finite_values(child, kind, out)) return false;
  return true;
}

Formula JsonAlgebra::simplify_strings(Formula f) {
  std::vector<ValueId> values, kept;
  if (f == kTrue || f == kFalse || formulas_.kind(f) == FormulaKind::kStrings) return f;
  if (!finite_values(f, FormulaKind::kStrings, values)) return merge_lengths(f);
  for (ValueId value : values)
    if (string_satisfies(f, schemas_->store().text(schemas_->value(value)))) kept.push_back(value);
  return kept.empty() ? kFalse : formulas_.atom(FormulaKind::kStrings, value_set(std::move(kept)));
}

// Bounds of length in a conjunction become one, and so do excluded strings. A complement of lengths is lengths again: proving from the
// automaton that more than 30,000 characters are possible would walk all of them.
Formula JsonAlgebra::merge_lengths(Formula f) {
  uint64_t least = 0, most = kUnbounded;
  std::vector<ValueId> excluded;
  std::size_t exclusions = 0;
  std::vector<Formula> kept, parts{f};
  if (formulas_.kind(f) == FormulaKind::kAnd) parts.assign(formulas_.children(f).begin(), formulas_.children(f).end());
  for (Formula part : parts) {
    Formula inner = formulas_.kind(part) == FormulaKind::kNot ? formulas_.child(part) : part;
    if (inner != part && formulas_.kind(inner) == FormulaKind::kStrings) {
      const auto& values = value_sets_[formulas_.a(inner)];
      excluded.insert(excluded.end(), values.begin(), values.end());
      ++exclusions;
      continue;
    }
    if (inner != part && formulas_.kind(inner) == FormulaKind::kOr &&
        std::ranges::all_of(formulas_.children(inner),
                            [this](Formula g) { return formulas_.kind(g) == FormulaKind::kStrings; })) {
      for (Formula g : formulas_.children(inner)) {
        const auto& values = value_sets_[formulas_.a(g)];
        excluded.insert(excluded.end(), values.begin(), values.end());
      }
      exclusions += 2;
      continue;
    }
    if (formulas_.kind(inner) != FormulaKind::kLength) {
      kept.push_back(part);
    } else if (inner == part) {
      least = std::max<uint64_t>(least, formulas_.a(inner));
      most = std::min(most, formulas_.b(inner));
    } else if (formulas_.a(inner) == 0) {
      least = std::max(least, formulas_.b(inner) + 1);
    } else if (formulas_.b(inner) == kUnbounded) {
      most = std::min<uint64_t>(most, formulas_.a(inner) - 1);
    } else {
      Formula shorter = formulas_.atom(FormulaKind::kLength, 0, formulas_.a(inner) - 1);
      Formula longer = formulas_.atom(FormulaKind::kLength, static_cast<uint32_t>(formulas_.b(inner) + 1), kUnbounded);
      kept.push_back(formulas_.any({shorter, longer}));
    }
  }
  if (exclusions < 2 && kept.size() + exclusions == parts.size() && least == 0 && most == kUnbounded &&
      formulas_.kind(f) != FormulaKind::kNot)
    return f;
  if (least > most) return kFalse;
  if (!excluded.empty())
    kept.push_back(formulas_.negation(formulas_.atom(FormulaKind::kStrings, value_set(std::move(excluded)))));
  if (least > 0 || most != kUnbounded)
    kept.push_back(formulas_.atom(FormulaKind::kLength, static_cast<uint32_t>(least), most));
  return formulas_.all(std::move(kept));
}

Formula JsonAlgebra::simplify_numbers(Formula f) {
  std::vector<ValueId> values, kept;
  if (f == kTrue || f == kFalse || formulas_.kind(f) == FormulaKind::kNumbers) return f;
  // Draft 4's integers are texts, not values.
  if (!finite_values(f, FormulaKind::kNumbers, values)) return f;
  for (ValueId value : values)
    if (number_satisfies(f, Decimal::parse(schemas_->store().text(schemas_->value(value))))) kept.push_back(value);
  return kept.empty() ? kFalse : formulas_.atom(FormulaKind::kNumbers, value_set(std::move(kept)));
}

bool JsonAlgebra::string_satisfies(Formula f, std::string_view text) {
  switch (formulas_.kind(f)) {
    case FormulaKind::kTrue: return true;
    case FormulaKind::kFalse: return false;
    case FormulaKind::kNot: return !string_satisfies(formulas_.child(f), text);
    case FormulaKind::kAnd:
      return std::ranges::all_of(formulas_.children(f), [&](Formula c) { return string_satisfies(c, text); });
    case FormulaKind::kOr:
      return std::ranges::any_of(formulas_.children(f), [&](Formula c) { return string_satisfies(c, text); });
    case FormulaKind::kOne:
      return std::ranges::count_if(formulas_.children(f), [&](Formula c) { return string_satisfies(c, text); }) == 1;
    case FormulaKind::kLength: {
      std::size_t length = count_characters(text);
      return length >= formulas_.a(f) && (formulas_.b(f) == kUnbounded || length <= formulas_.b(f));
    }
    case FormulaKind::kStrings:
      return std::ranges::any_of(value_sets_[formulas_.a(f)],
                                 [&](ValueId v) { return schemas_->store().text(schemas_->value(v)) == text; });
    default: {
      std::string spelled = json_quote(text);
      return lexicon_.nullable(lexicon_.walk(string_tail(f), std::string_view(spelled).substr(1)));
    }
  }
}

bool JsonAlgebra::number_satisfies(Formula f, const Decimal& value) {
  switch (formulas_.kind(f)) {
    case FormulaKind::kTrue: return true;
    case FormulaKind::kFalse: return false;
    case FormulaKind::kNot: return !number_satisfies(formulas_.child(f), value);
    case FormulaKind::kAnd:
      return std::ranges::all_of(formulas_.children(f), [&](Formula c) { return number_satisfies(c, value); });
    case FormulaKind::kOr:
      return std::ranges::any_of(formulas_.children(f), [&](Formula c) { return number_satisfies(c, value); });
    case FormulaKind::kOne:
      return std::ranges::count_if(formulas_.children(f), [&](Formula c) { return number_satisfies(c, value); }) == 1;
    case FormulaKind::kBound: {
      auto order = value <=> schemas_->decimal(DecimalId{static_cast<uint32_t>(formulas_.b(f))});
      switch (static_cast<NumberLanguages::Bound>(formulas_.a(f))) {
        case NumberLanguages::Bound::kAtLeast: return order >= 0;
        case NumberLanguages::Bound::kGreater: return order > 0;
        case NumberLanguages::Bound::kAtMost: return order <= 0;
        case NumberLanguages::Bound::kLess: return order < 0;
      }
      return false;
    }
    case FormulaKind::kMultiple:
      return value.is_multiple_of(schemas_->decimal(DecimalId{static_cast<uint32_t>(formulas_.b(f))}));
    case FormulaKind::kInteger:
    case FormulaKind::kIntegerText: return value.is_integer();
    case FormulaKind::kNumbers:
      return std::ranges::any_of(value_sets_[formulas_.a(f)], [&](ValueId v) {
        return Decimal::parse(schemas_->store().text(schemas_->value(v))) == value;
      });
    default: return false;
  }
}

// --- languages ----------------------------------------------------------------------------------------------------------

// Is there a string for sure, without building anything?
bool JsonAlgebra::strings_certain(Formula f) {
  switch (formulas_.kind(f)) {
    case FormulaKind::kTrue:
    case FormulaKind::kStrings:
    case FormulaKind::kFormat:
    case FormulaKind::kLength: return true;
    case FormulaKind::kPattern: return schemas_->certainly_matches(PatternId{formulas_.a(f)});
    case FormulaKind::kNot: return formulas_.kind(formulas_.child(f)) == FormulaKind::kStrings;
    case FormulaKind::kOr:
      return std::ranges::any_of(formulas_.children(f), [&](Formula c) { return strings_certain(c); });
    default: return false;
  }
}

Node JsonAlgebra::pattern_body(PatternId id) {
  auto found = pattern_bodies_.find(static_cast<uint32_t>(id));
  if (found != pattern_bodies_.end()) return found->second;
  Node node = lower_regex(lexicon_, schemas_->pattern(id), RegexMatch::kSearch, json_string_encoder);
  pattern_bodies_.emplace(static_cast<uint32_t>(id), node);
  return node;
}

Node JsonAlgebra::every_spelling(ValueId string) {
  auto [it, fresh] = spellings_.try_emplace(static_cast<uint32_t>(string), kNone);
  if (fresh) it->second = text_.spelled(schemas_->store().text(schemas_->value(string)), lexicon_.literal("\""));
  return it->second;
}

// Does a conjunction leave nothing even if formats of many states are taken without their lengths? Searched with them, `hostname` beside a pattern that no
// host name matches is a hundred thousand states.
bool JsonAlgebra::contradicts_wide_formats(Formula conjunction, bool all_spellings) {
  bool widened = false;
  Node wide = wide_tail(conjunction, all_spellings, widened);
  return widened && !lexicon_.alive(wide);
}

// Contains string_tail.
Node JsonAlgebra::wide_tail(Formula f, bool all_spellings, bool& widened) {
  const FormulaKind kind = formulas_.kind(f);
  if (kind == FormulaKind::kAnd || kind == FormulaKind::kOr) {
    const std::vector<Formula> parts(formulas_.children(f).begin(), formulas_.children(f).end());
    std::vector<Node> nodes;
    for (Formula part : parts)
      if (kind == FormulaKind::kOr || formulas_.kind(part) != FormulaKind::kLength)
        nodes.push_back(wide_tail(part, all_spellings, widened));
    if (nodes.empty()) nodes.push_back(lexicon_.concat(text_.characters(), lexicon_.literal("\"")));
    return kind == FormulaKind::kAnd ? lexicon_.both(std::move(nodes)) : lexicon_.either(std::move(nodes));
  }
  if (kind == FormulaKind::kFormat)
    if (Node wide = wide_format_language(text_, formats_[formulas_.a(f)]); wide != kNone) {
      widened = true;
      return lexicon_.concat(wide, lexicon_.literal("\""));
    }
  return string_tail(f, all_spellings);
}

// Values that a schema lists are written as declared. What is forbidden is forbidden in every spelling, however deep below the negation it stands.
Node JsonAlgebra::string_tail(Formula f, bool all_spellings) {
  uint64_t key = uint64_t{static_cast<uint32_t>(f)} << 1 | (all_spellings ? 1 : 0);
  auto found = string_tails_.find(key);
  if (found != string_tails_.end()) return found->second;
  Node end = lexicon_.literal("\"");
  Node any = lexicon_.concat(text_.characters(), end);
  Node node = kNone;
  auto tails = [&](std::span<const Formula> children) {
    std::vector<Formula> copy(children.begin(), children.end());
    std::vector<Node> nodes;
    for (Formula child : copy) nodes.push_back(string_tail(child, all_spellings));
    return nodes;
  };
  switch (formulas_.kind(f)) {
    case FormulaKind::kTrue: node = any; break;
    case FormulaKind::kFalse: break;
    case FormulaKind::kNot: {
      node = lexicon_.difference(any, string_tail(formulas_.child(f), true));
      break;
    }
    case FormulaKind::kAnd:
      if (!contradicts_wide_formats(f, all_spellings)) node = lexicon_.both(tails(formulas_.children(f)));
      break;
    case FormulaKind::kOr: node = lexicon_.either(tails(formulas_.children(f))); break;
    case FormulaKind::kOne: {
      std::vector<Formula> children(formulas_.children(f).begin(), formulas_.children(f).end());
      std::vector<Node> options;
      for (Formula child : children) {
        std::vector<Formula> parts{child};
        for (Formula other : children)
          if (other != child) parts.push_back(formulas_.negation(other));
        options.push_back(string_tail(simplify_strings(formulas_.all(std::move(parts))), all_spellings));
      }
      node = lexicon_.either(std::move(options));
      break;
    }
    case FormulaKind::kLength: {
      auto most = static_cast<uint32_t>(formulas_.b(f));
      node = lexicon_.concat(lexicon_.repeat(text_.character(), formulas_.a(f), most), end);
      break;
    }
    case FormulaKind::kPattern: node = lexicon_.concat(pattern_body(PatternId{formulas_.a(f)}), end); break;
    case FormulaKind::kFormat: node = lexicon_.concat(format_language(text_, formats_[formulas_.a(f)]), end); break;
    case FormulaKind::kStrings: {
      if (all_spellings) {
        std::vector<Node> closed;
        for (ValueId v : value_sets_[formulas_.a(f)]) closed.push_back(every_spelling(v));
        node = lexicon_.either(std::move(closed));
        break;
      }
      std::vector<std::string> spellings;
      for (ValueId v : value_sets_[formulas_.a(f)]) {
        std::string_view string = schemas_->store().text(schemas_->value(v));
        std::string raw = json_quote(string), ascii = json_quote(string, true);
        if (ascii != raw) spellings.push_back(ascii.substr(1));
        spellings.push_back(raw.substr(1));
      }
      std::vector<std::pair<std::string_view, Node>> entries;
      for (const std::string& spelling : spellings) entries.emplace_back(spelling, kEpsilon);
      node = lexicon_.literals(std::move(entries));
      break;
    }
    default: break;
  }
  FormulaKind kind = formulas_.kind(f);
  bool in_any_spelling = kind == FormulaKind::kPattern || kind == FormulaKind::kFormat || kind == FormulaKind::kStrings;
  if (in_any_spelling && !all_spellings && text_.escapes() != EscapePolicy::kAny) node = lexicon_.both({node, any});
  string_tails_.emplace(key, node);
  return node;
}

Node JsonAlgebra::number_text(Formula f) {
  auto found = number_texts_.find(static_cast<uint32_t>(f));
  if (found != number_texts_.end()) return found->second;
  // Scientific notation stays where nothing but bounds is asked.
  bool only_bounds = true;
  std::vector<Formula> open{f};
  while (!open.empty()) {
    Formula at = open.back();
    open.pop_back();
    FormulaKind kind = formulas_.kind(at);
    if (kind > FormulaKind::kOne && kind != FormulaKind::kBound) only_bounds = false;
    if (kind <= FormulaKind::kOne)
      open.insert(open.end(), formulas_.children(at).begin(), formulas_.children(at).end());
  }
  auto notation = only_bounds ? NumberLanguages::Notation::kPlainOrScientific : NumberLanguages::Notation::kPlain;
  auto build = [&](auto&& self, Formula g) -> Node {
    std::vector<Formula> children(formulas_.children(g).begin(), formulas_.children(g).end());
    std::vector<Node> nodes;
    switch (formulas_.kind(g)) {
      case FormulaKind::kTrue: return numbers_.all(notation);
      case FormulaKind::kNot: return lexicon_.difference(numbers_.all(notation), self(self, children.front()));
      case FormulaKind::kAnd: {
        // Multiples of several numbers are multiples of one: remainders side by side would have to be searched for one that is zero in all.
        bool texts = std::ranges::any_of(
            children, [this](Formula child) { return formulas_.kind(child) == FormulaKind::kIntegerText; });
        std::optional<Decimal> divisor;
        std::vector<std::pair<NumberLanguages::Bound, Decimal>> bounds;
        std::vector<Node> bounded;
        for (Formula child : children) {
          std::optional<Decimal> one;
          if (formulas_.kind(child) == FormulaKind::kBound) {
            bounds.emplace_back(static_cast<NumberLanguages::Bound>(formulas_.a(child)),
                                schemas_->decimal(DecimalId{static_cast<uint32_t>(formulas_.b(child))}));
            bounded.push_back(self(self, child));
            continue;
          }
          if (formulas_.kind(child) == FormulaKind::kInteger || formulas_.kind(child) == FormulaKind::kIntegerText)
            one = Decimal::parse("1");
          if (formulas_.kind(child) == FormulaKind::kMultiple)
            one = schemas_->decimal(DecimalId{static_cast<uint32_t>(formulas_.b(child))});
          std::optional<Decimal> merged = one && divisor ? Decimal::common_multiple(*divisor, *one) : one;
          if (merged)
            divisor = merged;
          else
            nodes.push_back(self(self, child));
        }
        bool fractions = !texts || (divisor && !divisor->is_integer());
        std::optional<Node> within;
        if (divisor && !bounds.empty()) within = numbers_.multiples_within(*divisor, bounds, fractions);
        if (within) {
          nodes.push_back(*within);
        } else {
          nodes.insert(nodes.end(), bounded.begin(), bounded.end());
          if (divisor) nodes.push_back(numbers_.multiples_of(*divisor, fractions));
        }
        return lexicon_.both(std::move(nodes));
      }
      case FormulaKind::kOr:
        for (Formula child : children) nodes.push_back(self(self, child));
        return lexicon_.either(std::move(nodes));
      case FormulaKind::kOne:
        for (Formula child : children) {
          std::vector<Node> parts{self(self, child)};
          for (Formula other : children)
            if (other != child) parts.push_back(lexicon_.complement(self(self, other)));
          nodes.push_back(lexicon_.both(std::move(parts)));
        }
        return lexicon_.either(std::move(nodes));
      case FormulaKind::kBound:
        return numbers_.bounded(static_cast<NumberLanguages::Bound>(formulas_.a(g)),
                                schemas_->decimal(DecimalId{static_cast<uint32_t>(formulas_.b(g))}), notation);
      case FormulaKind::kMultiple:
        return numbers_.multiples_of(schemas_->decimal(DecimalId{static_cast<uint32_t>(formulas_.b(g))}));
      case FormulaKind::kInteger: return numbers_.multiples_of(Decimal::parse("1"));
      case FormulaKind::kIntegerText: return numbers_.integer_texts();
      case FormulaKind::kNumbers: {
        std::vector<Decimal> values;
        for (ValueId v : value_sets_[formulas_.a(g)])
          values.push_back(Decimal::parse(schemas_->store().text(schemas_->value(v))));
        return numbers_.equal_to(values);
      }
      default: return kNone;
    }
  };
  Node node = f == kTrue ? rfc8259_number(lexicon_) : build(build, f);
  number_texts_.emplace(static_cast<uint32_t>(f), node);
  return node;
}

}  // namespace guiderail
