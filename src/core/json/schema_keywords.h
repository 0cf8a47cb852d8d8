// Keywords of JSON Schema by what their values hold.
#pragma once

#include <cstdint>
#include <string_view>
#include <unordered_map>

namespace guiderail {

// Where schemas stand inside a schema: as the value, in an array, or as the values of an object.
enum class Holds : uint8_t { kSchema, kArray, kMap };

const std::unordered_map<std::string_view, Holds>& subschema_keywords();

}  // namespace guiderail
