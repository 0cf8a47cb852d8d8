// The formats of JSON Schema as languages of JSON string bodies, exactly as their RFCs define them.
#pragma once

#include <string_view>

#include "core/json/text.h"

namespace guiderail {

enum class FormatStatus : uint8_t { kUnknown, kEnforced, kApproximated };
// Approximated: what is accepted is valid, but not all that is valid is accepted (the reason says what is not).
FormatStatus format_status(std::string_view name, std::string& reason);

// The bodies (between the quotes) that have the format `name`, which must be known.
Node format_language(const JsonText& text, std::string_view name);

}  // namespace guiderail
