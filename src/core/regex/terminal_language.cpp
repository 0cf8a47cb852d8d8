#include "core/regex/terminal_language.h"

#include <charconv>
#include <string>
#include <utility>
#include <vector>

#include "core/errors.h"
#include "core/json/value.h"

namespace guiderail {

namespace {

class Reader {
 public:
  Reader(Lexicon& lexicon, const JsonStore& store) : lexicon_(lexicon), store_(store) {}

  Node read(JsonId tree) {
    if (!store_.is_array(tree) || store_.size(tree) == 0) throw malformed();
    std::string_view kind = text(tree, 0);
    if (kind == "lit") return lexicon_.literal(text(tree, 1));
    if (kind == "re") return expression(text(tree, 1), static_cast<int>(number(tree, 2)));
    if (kind == "factor") return factor(tree);
    if (kind == "not")
      return lexicon_.both({lexicon_.complement(read(child(tree, 1))), lexicon_.repeat(character(), 0, kUnbounded)});
    if (kind == "rep") {
      bool bounded = store_.type(child(tree, 3)) != JsonType::kNull;
      return lexicon_.repeat(read(child(tree, 1)), number(tree, 2), bounded ? number(tree, 3) : kUnbounded);
    }
    std::vector<Node> parts;
    for (uint32_t i = 1; i < store_.size(tree); ++i) parts.push_back(read(store_.item(tree, i)));
    if (kind == "or") return lexicon_.either(std::move(parts));
    if (kind == "and") return lexicon_.both(std::move(parts));
    if (kind != "seq") throw malformed();
    Node sequence = kEpsilon;
    for (std::size_t k = parts.size(); k-- > 0;) sequence = lexicon_.concat(parts[k], sequence);
    return sequence;
  }

 private:
  static GrammarError malformed() { return GrammarError("a terminal's tree is malformed"); }

  JsonId child(JsonId tree, uint32_t i) const {
    if (i >= store_.size(tree)) throw malformed();
    return store_.item(tree, i);
  }
  std::string_view text(JsonId tree, uint32_t i) const {
    JsonId id = child(tree, i);
    if (!store_.is_string(id)) throw malformed();
    return store_.text(id);
  }
  uint32_t number(JsonId tree, uint32_t i) const {
    JsonId id = child(tree, i);
    if (store_.type(id) != JsonType::kNumber) throw malformed();
    std::string_view digits = store_.text(id);
    uint32_t value = 0;
    auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), value);
    if (error != std::errc{} || end != digits.data() + digits.size() || value == kUnbounded) throw malformed();
    return value;
  }

  Node character() { return encode_utf8(lexicon_, {{0, 0xD7FF}, {0xE000, 0x10FFFF}}); }

  Node expression(std::string_view pattern, int bits) {
    RegexFlags flags{.ignore_case = (bits & 2) != 0,
                     .multiline = (bits & 8) != 0,
                     .dot_all = (bits & 16) != 0,
                     .verbose = (bits & 64) != 0,
                     .ascii = (bits & 256) != 0};
    auto tree = parse_regex(pattern, RegexDialect::kPython, flags);
    if (looks_past_its_end(*tree) || looks_before_its_start(*tree))
      throw GrammarError("/" + std::string(pattern) +
                         "/: what looks beyond its match cannot be combined with '&', '~' or %regex");
    return lower_regex(lexicon_, *tree, RegexMatch::kFull, encode_utf8);
  }

  // From place i on: nothing, or the chunk there and what can follow it.
  Node factor(JsonId tree) {
    std::vector<Node> from;
    Node rest = kEpsilon;
    for (uint32_t i = store_.size(tree); i-- > 1;) {
      rest = lexicon_.optional(lexicon_.literal(text(tree, i), rest));
      from.push_back(rest);
    }
    return from.empty() ? kEpsilon : lexicon_.either(std::move(from));
  }

  Lexicon& lexicon_;
  const JsonStore& store_;
};

}  // namespace

Node terminal_language(Lexicon& lexicon, std::string_view json) {
  JsonStore store;
  JsonId root = store.parse(json);
  return Reader(lexicon, store).read(root);
}

}  // namespace guiderail
