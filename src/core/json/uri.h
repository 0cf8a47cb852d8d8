// Resolving URI references (RFC 3986 section 5.2), as $id and $ref need it.
#pragma once

#include <string>
#include <string_view>
#include <utility>

namespace guiderail {

// `reference` seen from `base`; either may be relative or empty, and so may be the result.
std::string resolve_uri(std::string_view base, std::string_view reference);
// Before and after the first '#'; second is empty where there is none.
std::pair<std::string_view, std::string_view> split_fragment(std::string_view uri);
// %XX decoded; what is not an escape stays.
std::string percent_decode(std::string_view text);

}  // namespace guiderail
