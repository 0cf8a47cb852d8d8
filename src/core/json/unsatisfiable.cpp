// Which parts of a schema no value satisfies, and why: rows of the report.
#include <algorithm>
#include <set>

#include "core/errors.h"
#include "core/json/algebra.h"

namespace guiderail {

namespace {
constexpr std::size_t kMaxParts = 5000;
}

void JsonAlgebra::report_unsatisfiable(std::vector<SchemaReportRow>& rows) {
  std::set<std::pair<std::string, std::string>> told;
  auto tell = [&](const std::string& place, const std::string& why) {
    if (told.emplace(place, why).second) rows.push_back({place, "unsatisfiable", why});
  };
  std::size_t parts = schemas_->size();
  for (uint32_t i = 0; i < std::min(parts, kMaxParts); ++i) {
    SchemaId id{i};
    // `false` says what it means.
    if (!schemas_->store().is_object((*schemas_)[id].json)) continue;
    const Schema schema = (*schemas_)[id];  // a copy: the set may be replaced by a private one
    std::string pointer = schemas_->pointer(id);
    try {
      Formula value = of_schema(id);
      bool alive = satisfiable(value);
      std::string why = why_unsatisfiable(schema);
      Formula members = restricted(value, JsonType::kObject);
      if (members != kFalse) {
        ObjectState object = open_object(members, value);
        auto possible = [&](KeyId key) {
          for (const ValueCase& one : member_cases(members, {&plan(object.plan), key, nullptr}))
            if (satisfiable(one.value)) return true;
          return false;
        };
        for (KeyId key : schema.required) {
          if (possible(key)) continue;
          std::string missing = "\"" + schemas_->key(key) + "\" is required, and nothing can be its value";
          tell(pointer + "/required", missing);
          if (why.empty()) why = missing;
        }
        for (auto [key, child] : schema.properties)
          if (alive && schemas_->store().is_object((*schemas_)[child].json) && satisfiable(of_schema(child)) &&
              !possible(key))
            tell(schemas_->pointer(child), "beside what else is said of this property, no value satisfies it");
      }
      if (!alive) tell(pointer, why.empty() ? "its keywords contradict each other" : why);
      for (const auto* branches : {&schema.any_of, &schema.one_of})
        for (SchemaId branch : *branches)
          if (alive && schemas_->store().is_object((*schemas_)[branch].json) && satisfiable(of_schema(branch)) &&
              !satisfiable(formulas_.both(value, of_schema(branch))))
            tell(schemas_->pointer(branch), "no value satisfies it and the schema that it is a branch of");
    } catch (const LimitError&) {
    } catch (const SchemaError&) {  // is the caller's business when the part is used
    }
  }
  if (parts > kMaxParts)
    rows.push_back({"", "annotation", "parts after the first 5,000 were not tried for satisfiability"});
}

std::string JsonAlgebra::why_unsatisfiable(const Schema& schema) {
  auto impossible = [this](SchemaId child) { return !satisfiable(of_schema(child)); };
  for (const auto* needed : {&schema.references, &schema.all_of})
    for (SchemaId child : *needed)
      if (impossible(child)) return "no value satisfies " + schemas_->pointer(child) + ", which it needs";
  for (const auto* branches : {&schema.any_of, &schema.one_of})
    if (!branches->empty() && std::ranges::all_of(*branches, impossible)) return "no branch can be satisfied";
  return "";
}

}  // namespace guiderail
