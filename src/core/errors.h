// Every failure the core reports, as four exception types. `bindings.cpp` translates each to its Python class once.
#pragma once

#include <cstddef>
#include <stdexcept>
#include <string>
#include <utility>

namespace guiderail {

// The text of a grammar, regular expression or schema is wrong or not supported. `offset` counts code points into that text.
class GrammarError : public std::runtime_error {
 public:
  static constexpr std::size_t kNoOffset = static_cast<std::size_t>(-1);
  explicit GrammarError(const std::string& message, std::size_t offset = kNoOffset)
      : std::runtime_error(message), offset(offset) {}
  std::size_t offset;
};

// A JSON Schema is wrong, not supported or has no instance; `pointer` is the JSON pointer of the place.
class SchemaError : public std::runtime_error {
 public:
  SchemaError(const std::string& message, std::string pointer, bool unsatisfiable = false)
      : std::runtime_error(message), pointer(std::move(pointer)), unsatisfiable(unsatisfiable) {}
  std::string pointer;
  bool unsatisfiable;
};

// The grammar has texts, but the vocabulary cannot write any of them.
class DeadEndError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

// A budget ran out. `limit` is the name of the field of `Limits` (or of the fixed limit) that was exceeded.
class LimitError : public std::runtime_error {
 public:
  LimitError(std::string limit, const std::string& message)
      : std::runtime_error("limit '" + limit + "' exceeded: " + message), limit(std::move(limit)) {}
  std::string limit;
};

}  // namespace guiderail
