// Rules that are known from the start, as a table.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "core/parser/grammar.h"

namespace guiderail {

class TableRules : public RuleProvider {
 public:
  std::vector<std::vector<std::vector<Symbol>>> productions_of;
  std::vector<std::string> names;

  void productions(uint32_t local, Productions& out) override {
    for (const auto& alternative : productions_of[local]) out.add(alternative);
  }
  std::string name(uint32_t local) const override { return names[local]; }
};

}  // namespace guiderail
