// The formats of JSON Schema as languages of JSON string bodies, exactly as their RFCs define them.
#pragma once

#include <string_view>

#include "core/json/text.h"

namespace guiderail {

enum class FormatStatus : uint8_t { kUnknown, kEnforced, kApproximated };
// Approximated: what is accepted is valid, but not all that is valid is accepted (the reason says what is not).
FormatStatus format_status(std::string_view name, std::string& reason);

// What contentEncoding and contentMediaType of draft 7 ask of a string, as languages beside the formats: base64 of RFC 4648, padding bits zero; a JSON
// text whose arrays and objects nest to depth 4.
inline constexpr std::string_view kContentBase64 = "contentEncoding base64", kContentJson = "contentMediaType JSON";

// The bodies (between the quotes) that have the format `name`, which must be known or one of these.
Node format_language(const JsonText& text, std::string_view name);
// A language of few states that contains the format's; kNone where there is none with fewer.
Node wide_format_language(const JsonText& text, std::string_view name);

}  // namespace guiderail
