#include "core/json/value.h"

#include <algorithm>
#include <functional>

#include "core/errors.h"
#include "core/json/decimal.h"
#include "core/text/unicode.h"

namespace guiderail {
namespace {

constexpr uint32_t kLargeObject = 12;  // members; below, a linear search wins

uint64_t member_hash(JsonId object, std::string_view key) {
  return std::hash<std::string_view>{}(key) * 0x9E3779B97F4A7C15u + static_cast<uint32_t>(object);
}

}  // namespace

uint32_t next_code_point(std::string_view text, std::size_t& offset) {
  auto byte = [&](std::size_t i) { return static_cast<uint32_t>(static_cast<uint8_t>(text[offset + i])); };
  uint32_t lead = byte(0);
  if (lead < 0x80) {
    ++offset;
    return lead;
  }
  unsigned length = lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4;
  uint32_t point = lead & (0xFFu >> (length + 1));
  for (unsigned i = 1; i < length; ++i) point = (point << 6) | (byte(i) & 0x3F);
  offset += length;
  return point;
}

std::string json_quote(std::string_view text, bool ascii) {
  static constexpr char kHex[] = "0123456789abcdef";
  std::string out = "\"";
  auto unicode_escape = [&](uint32_t unit) {
    out += "\\u";
    for (int shift = 12; shift >= 0; shift -= 4) out.push_back(kHex[(unit >> shift) & 15]);
  };
  for (std::size_t i = 0; i < text.size();) {
    uint32_t c = next_code_point(text, i);
    switch (c) {
      case '"': out += "\\\""; break;
      case '\\': out += "\\\\"; break;
      case '\b': out += "\\b"; break;
      case '\f': out += "\\f"; break;
      case '\n': out += "\\n"; break;
      case '\r': out += "\\r"; break;
      case '\t': out += "\\t"; break;
      default:
        if (c < 0x20 || (ascii && c >= 0x7F && c < 0x10000)) {
          unicode_escape(c);
        } else if (ascii && c >= 0x10000) {
          unicode_escape(0xD800 + ((c - 0x10000) >> 10));
          unicode_escape(0xDC00 + ((c - 0x10000) & 0x3FF));
        } else {
          append_utf8(out, c);
        }
    }
  }
  out.push_back('"');
  return out;
}

// --- parser -------------------------------------------------------------------------------------------------------------

class JsonStore::Parser {
 public:
  Parser(JsonStore& store, std::string_view text) : store_(store), text_(text), out_(store.texts_.emplace_back()) {
    out_.reserve(text.size());  // decoding never lengthens
  }

  JsonId document() {
    JsonId root = value(kNoJson, 0);
    space();
    if (at_ != text_.size()) fail("text after the end of the value");
    return root;
  }

 private:
  [[noreturn]] void fail(const std::string& what) const {
    throw SchemaError("not a JSON text: " + what + " at byte " + std::to_string(at_), "");
  }
  void space() {
    while (at_ < text_.size() && (text_[at_] == ' ' || text_[at_] == '\n' || text_[at_] == '\t' || text_[at_] == '\r'))
      ++at_;
  }
  char peek() const { return at_ < text_.size() ? text_[at_] : '\0'; }
  void expect(char c) {
    if (at_ >= text_.size() || text_[at_] != c) fail(std::string("expected '") + c + "'");
    ++at_;
  }

  JsonId add(JsonType type, JsonId parent, std::string_view text = {}) {
    if (store_.nodes_.size() >= UINT32_MAX - 1 || text.size() >= UINT32_MAX)
      throw LimitError("json_size", "JSON document too large");
    store_.nodes_.push_back({type, 0, static_cast<uint32_t>(text.size()), parent, text.data()});
    return JsonId{static_cast<uint32_t>(store_.nodes_.size() - 1)};
  }

  JsonId value(JsonId parent, unsigned depth) {
    if (depth > kMaxDepth)
      throw LimitError("json_depth", "JSON nested deeper than " + std::to_string(kMaxDepth) + " levels");
    space();
    switch (peek()) {
      case '{': return object(parent, depth);
      case '[': return array(parent, depth);
      case '"': return add(JsonType::kString, parent, string());
      case 't': return word("true", JsonType::kTrue, parent);
      case 'f': return word("false", JsonType::kFalse, parent);
      case 'n': return word("null", JsonType::kNull, parent);
      default: return number(parent);
    }
  }

  JsonId word(std::string_view word, JsonType type, JsonId parent) {
    if (text_.substr(at_, word.size()) != word) fail("unknown word");
    at_ += word.size();
    return add(type, parent);
  }

  JsonId number(JsonId parent) {
    std::size_t start = at_;
    auto digits = [&] {
      std::size_t before = at_;
      while (peek() >= '0' && peek() <= '9') ++at_;
      if (at_ == before) fail("expected a value");
    };
    if (peek() == '-') ++at_;
    if (peek() == '0')
      ++at_;
    else
      digits();
    if (peek() == '.') {
      ++at_;
      digits();
    }
    if (peek() == 'e' || peek() == 'E') {
      ++at_;
      if (peek() == '+' || peek() == '-') ++at_;
      digits();
    }
    std::size_t first = out_.size();
    out_.append(text_.substr(start, at_ - start));
    return add(JsonType::kNumber, parent, std::string_view(out_).substr(first));
  }

  uint32_t hex4() {
    uint32_t unit = 0;
    for (int i = 0; i < 4; ++i, ++at_) {
      char c = peek();
      uint32_t digit = c >= '0' && c <= '9'   ? static_cast<uint32_t>(c - '0')
                       : c >= 'a' && c <= 'f' ? static_cast<uint32_t>(c - 'a' + 10)
                       : c >= 'A' && c <= 'F' ? static_cast<uint32_t>(c - 'A' + 10)
                                              : 16;
      if (digit == 16) fail("bad \\u escape");
      unit = unit * 16 + digit;
    }
    return unit;
  }

  // One raw character that is not ASCII: checks that it is UTF-8 and copies it.
  void raw_character() {
    auto byte = [&](std::size_t i) {
      return at_ + i < text_.size() ? static_cast<uint8_t>(text_[at_ + i]) : uint8_t{0};
    };
    uint8_t lead = byte(0);
    unsigned length = lead >= 0xC2 && lead < 0xE0   ? 2
                      : lead >= 0xE0 && lead < 0xF0 ? 3
                      : lead >= 0xF0 && lead < 0xF5 ? 4
                                                    : 0;
    bool valid = length != 0;
    for (unsigned i = 1; i < length; ++i) valid = valid && (byte(i) & 0xC0) == 0x80;
    if (valid) {
      std::size_t offset = at_;
      uint32_t point = next_code_point(text_, offset);
      valid = !(length == 3 && (point < 0x800 || (point >= 0xD800 && point < 0xE000))) &&
              !(length == 4 && (point < 0x10000 || point > 0x10FFFF));
    }
    if (!valid) fail("invalid UTF-8");
    out_.append(text_.substr(at_, length));
    at_ += length;
  }

  std::string_view string() {
    expect('"');
    std::string& out = out_;
    std::size_t first = out.size();
    while (true) {
      if (at_ >= text_.size()) fail("unterminated string");
      auto c = static_cast<uint8_t>(text_[at_]);
      if (c == '"') break;
      if (c < 0x20) fail("control character in a string");
      if (c >= 0x80) {
        raw_character();
        continue;
      }
      ++at_;
      if (c != '\\') {
        out.push_back(static_cast<char>(c));
        continue;
      }
      char escape = peek();
      ++at_;
      switch (escape) {
        case '"':
        case '\\':
        case '/': out.push_back(escape); break;
        case 'b': out.push_back('\b'); break;
        case 'f': out.push_back('\f'); break;
        case 'n': out.push_back('\n'); break;
        case 'r': out.push_back('\r'); break;
        case 't': out.push_back('\t'); break;
        case 'u': {
          uint32_t unit = hex4();
          if (unit >= 0xDC00 && unit < 0xE000) fail("unpaired surrogate");
          if (unit >= 0xD800 && unit < 0xDC00) {
            if (text_.substr(at_, 2) != "\\u") fail("unpaired surrogate");
            at_ += 2;
            uint32_t low = hex4();
            if (low < 0xDC00 || low >= 0xE000) fail("unpaired surrogate");
            unit = 0x10000 + ((unit - 0xD800) << 10) + (low - 0xDC00);
          }
          append_utf8(out, unit);
          break;
        }
        default: fail("unknown escape");
      }
    }
    ++at_;
    return std::string_view(out).substr(first);
  }

  JsonId array(JsonId parent, unsigned depth) {
    JsonId self = add(JsonType::kArray, parent);
    expect('[');
    std::size_t base = pending_.size();
    space();
    if (peek() == ']') {
      ++at_;
    } else {
      while (true) {
        JsonId item = value(self, depth + 1);
        pending_.push_back({nullptr, 0, item});
        space();
        if (peek() == ']') break;
        expect(',');
      }
      ++at_;
    }
    finish(self, base);
    return self;
  }

  JsonId object(JsonId parent, unsigned depth) {
    JsonId self = add(JsonType::kObject, parent);
    expect('{');
    std::size_t base = pending_.size();
    std::unordered_map<std::string, std::size_t> places;  // only for large objects
    space();
    if (peek() == '}') {
      ++at_;
    } else {
      while (true) {
        space();
        std::string_view key = string();
        space();
        expect(':');
        JsonId member = value(self, depth + 1);
        insert(base, places, {key.data(), static_cast<uint32_t>(key.size()), member});
        space();
        if (peek() == '}') break;
        expect(',');
      }
      ++at_;
    }
    finish(self, base);
    return self;
  }

  // Of equal keys the last value counts; it stands where the first stood, as in a Python dict.
  void insert(std::size_t base, std::unordered_map<std::string, std::size_t>& places, Child child) {
    std::string_view key(child.key, child.key_length);
    std::size_t count = pending_.size() - base;
    if (count < kLargeObject) {
      for (std::size_t i = base; i < pending_.size(); ++i)
        if (std::string_view(pending_[i].key, pending_[i].key_length) == key) {
          pending_[i].value = child.value;
          return;
        }
    } else {
      if (places.empty())
        for (std::size_t i = base; i < pending_.size(); ++i)
          places.emplace(std::string(pending_[i].key, pending_[i].key_length), i);
      auto [it, fresh] = places.try_emplace(std::string(key), pending_.size());
      if (!fresh) {
        pending_[it->second].value = child.value;
        return;
      }
    }
    pending_.push_back(child);
  }

  void finish(JsonId self, std::size_t base) {
    Node& node = store_.nodes_[static_cast<uint32_t>(self)];
    node.first = static_cast<uint32_t>(store_.children_.size());
    node.count = static_cast<uint32_t>(pending_.size() - base);
    store_.children_.insert(store_.children_.end(), pending_.begin() + static_cast<std::ptrdiff_t>(base),
                            pending_.end());
    pending_.resize(base);
    if (node.type == JsonType::kObject && node.count > kLargeObject)
      for (uint32_t i = 0; i < node.count; ++i) store_.large_.emplace(member_hash(self, store_.key(self, i)), i);
  }

  JsonStore& store_;
  std::string_view text_;
  std::string& out_;
  std::size_t at_ = 0;
  std::vector<Child> pending_;  // children of the values that are still open
};

JsonId JsonStore::parse(std::string_view text) { return Parser(*this, text).document(); }

JsonId JsonStore::find(JsonId object, std::string_view key) const {
  const Node& n = node(object);
  if (n.type != JsonType::kObject) return kNoJson;
  if (n.count > kLargeObject) {
    auto [begin, end] = large_.equal_range(member_hash(object, key));
    for (auto it = begin; it != end; ++it)
      if (it->second < n.count && this->key(object, it->second) == key) return item(object, it->second);
    return kNoJson;
  }
  for (uint32_t i = 0; i < n.count; ++i)
    if (this->key(object, i) == key) return item(object, i);
  return kNoJson;
}

JsonId JsonStore::root(JsonId id) const {
  while (node(id).parent != kNoJson) id = node(id).parent;
  return id;
}

std::string_view JsonStore::key_or_empty(JsonId id) const {
  JsonId up = node(id).parent;
  if (up == kNoJson || type(up) != JsonType::kObject) return {};
  for (uint32_t i = 0; i < size(up); ++i)
    if (item(up, i) == id) return key(up, i);
  return {};
}

std::string JsonStore::pointer(JsonId id) const {
  std::vector<std::string> parts;
  for (JsonId up = node(id).parent; up != kNoJson; id = up, up = node(id).parent) {
    for (uint32_t i = 0; i < size(up); ++i) {
      if (item(up, i) != id) continue;
      std::string part;
      if (is_array(up)) {
        part = std::to_string(i);
      } else {
        for (char c : key(up, i)) c == '~' ? part += "~0" : c == '/' ? part += "~1" : part += c;
      }
      parts.push_back(std::move(part));
      break;
    }
  }
  std::string out;
  for (auto it = parts.rbegin(); it != parts.rend(); ++it) out += "/" + *it;
  return out;
}

std::string JsonStore::canonical(JsonId id) const {
  switch (type(id)) {
    case JsonType::kNull: return "null";
    case JsonType::kFalse: return "false";
    case JsonType::kTrue: return "true";
    case JsonType::kNumber: return Decimal::parse(text(id)).canonical();
    case JsonType::kString: return json_quote(text(id));
    case JsonType::kArray: {
      std::string out = "[";
      for (uint32_t i = 0; i < size(id); ++i) out += (i ? "," : "") + canonical(item(id, i));
      return out + "]";
    }
    case JsonType::kObject: break;
  }
  std::vector<std::string> members;
  for (uint32_t i = 0; i < size(id); ++i) members.push_back(json_quote(key(id, i)) + ":" + canonical(item(id, i)));
  std::ranges::sort(members);
  std::string out = "{";
  for (std::size_t i = 0; i < members.size(); ++i) out += (i ? "," : "") + members[i];
  return out + "}";
}

}  // namespace guiderail
