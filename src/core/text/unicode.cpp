#include "core/text/unicode.h"

#include <algorithm>
#include <array>
#include <span>

#include "core/errors.h"

namespace guiderail {
namespace {

struct NamedSet {
  std::string_view name;  // lower case, without separators; sorted
  uint32_t offset;        // into kSetData
  uint32_t count;         // ranges
};

#include "core/text/unicode_tables.inc"

uint32_t read_base128(const uint8_t*& at) {
  uint32_t value = 0;
  for (unsigned shift = 0;; shift += 7) {
    uint8_t byte = *at++;
    value |= static_cast<uint32_t>(byte & 0x7F) << shift;
    if (!(byte & 0x80)) return value;
  }
}

std::optional<CodePoints> named_set(std::string_view name) {
  const NamedSet* entry = std::lower_bound(std::begin(kNamedSets), std::end(kNamedSets), name,
                                           [](const NamedSet& e, std::string_view n) { return e.name < n; });
  if (entry == std::end(kNamedSets) || entry->name != name) return std::nullopt;
  CodePoints set;
  set.reserve(entry->count);
  const uint8_t* at = kSetData + entry->offset;
  uint32_t end = 0;
  for (uint32_t i = 0; i < entry->count; ++i) {
    uint32_t first = end + read_base128(at);
    end = first + read_base128(at);
    set.emplace_back(first, end);
  }
  return set;
}

// Orbits as one array of (member, orbit), sorted by member, and the members of each.
struct OrbitTable {
  std::vector<std::pair<uint32_t, uint32_t>> orbit_of;
  std::vector<std::vector<uint32_t>> members;

  explicit OrbitTable(std::span<const uint8_t> data) {
    const uint8_t* at = data.data();
    uint32_t first = 0;
    while (at != data.data() + data.size()) {
      first += read_base128(at);
      uint32_t others = read_base128(at);
      uint32_t member = first;
      members.emplace_back(1, member);
      while (others--) members.back().push_back(member += read_base128(at));
      for (uint32_t m : members.back()) orbit_of.emplace_back(m, static_cast<uint32_t>(members.size() - 1));
    }
    std::sort(orbit_of.begin(), orbit_of.end());
  }
};

const OrbitTable& orbit_table(CaseOrbits orbits) {
  static constexpr auto kAsciiOrbits = [] {
    std::array<uint8_t, 78> data{};
    for (unsigned i = 0; i < 26; ++i) {
      data[3 * i] = i ? 1 : 'A';
      data[3 * i + 1] = 1;
      data[3 * i + 2] = 'a' - 'A';
    }
    return data;
  }();
  static const OrbitTable python{kPythonOrbits};
  static const OrbitTable ascii{kAsciiOrbits};
  static const OrbitTable ecma{kEcmaOrbits};
  return orbits == CaseOrbits::kPython ? python : orbits == CaseOrbits::kAscii ? ascii : ecma;
}

}  // namespace

const CodePoints& all_code_points() {
  static const CodePoints all{{0, 0xD7FF}, {0xE000, kMaxCodePoint}};
  return all;
}

CodePoints normalise(std::vector<std::pair<uint32_t, uint32_t>> ranges) {
  std::sort(ranges.begin(), ranges.end());
  CodePoints merged;
  for (auto [first, last] : ranges) {
    if (!merged.empty() && first <= merged.back().second + 1)
      merged.back().second = std::max(merged.back().second, last);
    else
      merged.emplace_back(first, last);
  }
  return intersect(merged, all_code_points());
}

CodePoints unite(const CodePoints& a, const CodePoints& b) {
  CodePoints sum = a;
  sum.insert(sum.end(), b.begin(), b.end());
  return normalise(std::move(sum));
}

CodePoints intersect(const CodePoints& a, const CodePoints& b) {
  CodePoints common;
  for (std::size_t i = 0, j = 0; i < a.size() && j < b.size();) {
    uint32_t first = std::max(a[i].first, b[j].first), last = std::min(a[i].second, b[j].second);
    if (first <= last) common.emplace_back(first, last);
    if (a[i].second < b[j].second)
      ++i;
    else
      ++j;
  }
  return common;
}

CodePoints complement(const CodePoints& set) {
  CodePoints gaps;
  uint32_t next = 0;
  for (auto [first, last] : set) {
    if (first > next) gaps.emplace_back(next, first - 1);
    next = last + 1;
  }
  if (next <= kMaxCodePoint) gaps.emplace_back(next, kMaxCodePoint);
  return intersect(gaps, all_code_points());
}

bool contains(const CodePoints& set, uint32_t point) {
  auto after = std::upper_bound(set.begin(), set.end(), std::pair{point, UINT32_MAX});
  return after != set.begin() && std::prev(after)->second >= point;
}

CodePoints python_word() { return *named_set("python:w"); }
CodePoints python_digit() { return *named_set("python:d"); }
CodePoints python_space() { return *named_set("python:s"); }

std::optional<CodePoints> unicode_property(std::string_view name) {
  std::string key, loose;
  for (char ch : name) {
    if (ch == '=' || ch == ':') {
      if (!key.empty()) return std::nullopt;
      key = std::move(loose);
      loose.clear();
    } else if (ch != '_' && ch != '-' && ch != ' ') {
      loose += ch >= 'A' && ch <= 'Z' ? static_cast<char>(ch - 'A' + 'a') : ch;
    }
  }
  if (loose.empty()) return std::nullopt;
  if (key.empty()) {
    for (const char* prefix : {"gc=", "sc=", ""})
      if (auto set = named_set(prefix + loose)) return set;
    return std::nullopt;
  }
  if (key == "gc" || key == "generalcategory") return named_set("gc=" + loose);
  if (key == "sc" || key == "script") return named_set("sc=" + loose);
  if (key == "scx" || key == "scriptextensions") return named_set("scx=" + loose);
  return std::nullopt;
}

CodePoints close_under_case(const CodePoints& set, CaseOrbits orbits) {
  const OrbitTable& table = orbit_table(orbits);
  std::vector<std::pair<uint32_t, uint32_t>> closed = set;
  for (auto [first, last] : set) {
    auto it = std::lower_bound(table.orbit_of.begin(), table.orbit_of.end(), std::pair{first, 0u});
    for (; it != table.orbit_of.end() && it->first <= last; ++it)
      for (uint32_t member : table.members[it->second])
        if (member < first || member > last) closed.emplace_back(member, member);
  }
  return closed.size() == set.size() ? set : normalise(std::move(closed));
}

std::u32string decode_utf8(std::string_view text) {
  std::u32string out;
  out.reserve(text.size());
  for (std::size_t i = 0; i < text.size();) {
    auto byte = [&](std::size_t k) { return static_cast<uint8_t>(text[k]); };
    uint8_t lead = byte(i);
    std::size_t length = lead < 0x80 ? 1 : lead < 0xC2 ? 0 : lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : lead < 0xF5 ? 4 : 0;
    bool valid = length && i + length <= text.size();
    uint32_t point = length == 1 ? lead : length == 0 ? 0 : lead & (0xFFu >> (length + 1));
    for (std::size_t k = 1; valid && k < length; ++k) {
      valid = (byte(i + k) & 0xC0) == 0x80;
      point = point << 6 | (byte(i + k) & 0x3Fu);
    }
    constexpr uint32_t kSmallest[] = {0, 0, 0x80, 0x800, 0x10000};
    if (!valid || point < kSmallest[length] || point > kMaxCodePoint || (point >= 0xD800 && point < 0xE000))
      throw GrammarError("the text is not valid UTF-8", out.size());
    out.push_back(point);
    i += length;
  }
  return out;
}

void append_utf8(std::string& out, uint32_t point) {
  auto put = [&](uint32_t byte) { out.push_back(static_cast<char>(byte)); };
  if (point < 0x80) return put(point);
  if (point < 0x800) {
    put(0xC0 | point >> 6);
  } else {
    if (point < 0x10000) {
      put(0xE0 | point >> 12);
    } else {
      put(0xF0 | point >> 18);
      put(0x80 | (point >> 12 & 0x3F));
    }
    put(0x80 | (point >> 6 & 0x3F));
  }
  put(0x80 | (point & 0x3F));
}

}  // namespace guiderail
