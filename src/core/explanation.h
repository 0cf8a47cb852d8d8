// Where a text stands in its grammar, for people: what may come next, with examples, and why a byte may not.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "core/engine.h"

namespace guiderail {

// A terminal that may come next, or is being read.
struct Expectation {
  std::string terminal;
  bool inside;          // its lexeme has begun
  bool ignored;         // white space, comments
  std::string example;  // a short text of it, or of what is left of it; empty if none was found, or for a special token
  auto operator<=>(const Expectation&) const = default;
};

// Sorted, each once.
std::vector<Expectation> expectations(Engine& engine, StateId state);
// Why `byte` cannot come next: a reason for each reading of the text so far. For a byte that can, reasons of other readings.
std::vector<std::string> refusals(Engine& engine, StateId state, uint8_t byte);
// The productions that the text so far is in the middle of, "rule → read · to come".
std::vector<std::string> open_rules(Engine& engine, StateId state);

}  // namespace guiderail
