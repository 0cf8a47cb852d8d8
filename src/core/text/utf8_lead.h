// The first bytes of UTF-8 characters beyond ASCII (RFC 3629, section 4): how many bytes follow, and which may come second.
#pragma once

#include <cstdint>

namespace guiderail {

struct Utf8Lead {
  uint8_t lead_first, lead_last;
  uint8_t more;         // bytes after the first
  uint8_t first, last;  // of the second byte; those after it are 0x80 to 0xBF
};

inline constexpr Utf8Lead kUtf8Leads[] = {
    {0xC2, 0xDF, 1, 0x80, 0xBF}, {0xE0, 0xE0, 2, 0xA0, 0xBF}, {0xE1, 0xEC, 2, 0x80, 0xBF}, {0xED, 0xED, 2, 0x80, 0x9F},
    {0xEE, 0xEF, 2, 0x80, 0xBF}, {0xF0, 0xF0, 3, 0x90, 0xBF}, {0xF1, 0xF3, 3, 0x80, 0xBF}, {0xF4, 0xF4, 3, 0x80, 0x8F},
};

// Null if no character begins with the byte.
constexpr const Utf8Lead* utf8_lead(uint8_t byte) {
  for (const Utf8Lead& lead : kUtf8Leads)
    if (byte >= lead.lead_first && byte <= lead.lead_last) return &lead;
  return nullptr;
}

}  // namespace guiderail
