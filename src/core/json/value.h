// JSON documents as flat arrays: what a schema, a registry or an enumerated value is read into.
//
// One store holds several documents; a value is an index into it and never moves. Strings are decoded to UTF-8, numbers keep their text
// (a schema may say 0.1 or 1e400 and mean it exactly), objects keep the order of their members; of equal keys the last counts, as every
// common parser has it. The parser is RFC 8259, strict: no NaN, no comments, no unpaired surrogates.
#pragma once

#include <cstdint>
#include <deque>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace guiderail {

enum class JsonId : uint32_t {};
inline constexpr JsonId kNoJson{UINT32_MAX};

enum class JsonType : uint8_t { kNull, kFalse, kTrue, kNumber, kString, kArray, kObject };

class JsonStore {
 public:
  static constexpr unsigned kMaxDepth = 512;  // LimitError json_depth beyond

  // The root of a further document. Throws SchemaError with the offset in its message.
  JsonId parse(std::string_view text);

  JsonType type(JsonId id) const { return node(id).type; }
  bool is_object(JsonId id) const { return type(id) == JsonType::kObject; }
  bool is_array(JsonId id) const { return type(id) == JsonType::kArray; }
  bool is_string(JsonId id) const { return type(id) == JsonType::kString; }
  // The text of a number, the decoded text of a string.
  std::string_view text(JsonId id) const { return {node(id).chars, node(id).count}; }
  // Items of an array, members of an object.
  uint32_t size(JsonId id) const { return node(id).count; }
  JsonId item(JsonId id, uint32_t i) const { return children_[node(id).first + i].value; }
  std::string_view key(JsonId id, uint32_t i) const {
    const Child& child = children_[node(id).first + i];
    return {child.key, child.key_length};
  }
  JsonId find(JsonId object, std::string_view key) const;  // kNoJson if absent
  // RFC 6901 pointer from the root of its document.
  std::string pointer(JsonId id) const;
  std::string_view key_or_empty(JsonId id) const;  // the member name under which a value stands
  JsonId parent(JsonId id) const { return node(id).parent; }
  JsonId root(JsonId id) const;
  // A text that is equal for values that JSON Schema calls equal: 1 = 1.0, members unordered.
  std::string canonical(JsonId id) const;
  std::size_t num_values() const { return nodes_.size(); }

 private:
  struct Node {
    JsonType type;
    uint32_t first;  // of an array or object: into children_
    uint32_t count;  // children, or bytes of text
    JsonId parent;
    const char* chars;  // of a number or string
  };
  struct Child {
    const char* key;
    uint32_t key_length;
    JsonId value;
  };
  class Parser;

  const Node& node(JsonId id) const { return nodes_[static_cast<uint32_t>(id)]; }

  std::vector<Node> nodes_;
  std::vector<Child> children_;
  std::deque<std::string> texts_;  // one per document, reserved in full, so that views into it stay valid
  // Members of large objects by key: (object, hash of the key) → index of the member.
  std::unordered_multimap<uint64_t, uint32_t> large_;
};

// `text` as a JSON string token with what must be escaped, escaped; everything else raw (or \uXXXX if `ascii`).
std::string json_quote(std::string_view text, bool ascii = false);
// Decodes one code point of valid UTF-8 and advances.
uint32_t next_code_point(std::string_view text, std::size_t& offset);

}  // namespace guiderail
