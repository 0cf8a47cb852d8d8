#include "core/json/text.h"

#include <algorithm>
#include <array>
#include <initializer_list>
#include <iterator>
#include <utility>
#include <vector>

#include "core/errors.h"
#include "core/growth.h"
#include "core/json/value.h"

namespace guiderail {
namespace {

constexpr uint32_t kFirstSupplementary = 0x10000;

bool has_point(const CodePoints& points, uint32_t point) {
  auto range = std::ranges::lower_bound(points, point, {}, [](const auto& r) { return r.second; });
  return range != points.end() && range->first <= point;
}

// \uXXXX and surrogate pairs of a set of code points: a trie over hexadecimal digits, top down, whose full blocks are shared.
class EscapeEncoder {
 public:
  EscapeEncoder(Lexicon& lexicon, const CodePoints& points) : lexicon_(lexicon), points_(points) {}

  // What may follow the `u` of the first escape.
  Node encode() {
    Node basic = block(0, 0, 0);
    Node pairs = block(kFirstSupplementary, 0, 1);
    return lexicon_.either({basic, pairs});
  }

 private:
  struct Digit {
    unsigned bits;       // of the value that this digit carries
    uint32_t offset;     // added to those bits
    const char* before;  // fixed text before the digit
  };
  // D800-DBFF carry the upper ten bits of a code point above U+FFFF, DC00-DFFF the lower ten.
  static constexpr std::array<Digit, 4> kBasic{{{4, 0, ""}, {4, 0, ""}, {4, 0, ""}, {4, 0, ""}}};
  static constexpr std::array<Digit, 6> kPair{
      {{2, 8, "D"}, {4, 0, ""}, {4, 0, ""}, {2, 12, "\\uD"}, {4, 0, ""}, {4, 0, ""}}};

  Node block(uint32_t base, std::size_t position, int layout) {
    std::size_t count = layout ? kPair.size() : kBasic.size();
    const Digit* digits = layout ? kPair.data() : kBasic.data();
    if (position == count) return has_point(points_, base) ? kEpsilon : kNone;
    unsigned bits = 0;
    for (std::size_t i = position; i < count; ++i) bits += digits[i].bits;
    uint32_t last = base + (uint32_t{1} << bits) - 1;
    auto range = std::ranges::lower_bound(points_, base, {}, [](const auto& r) { return r.second; });
    if (range == points_.end() || range->first > last) return kNone;
    bool full = range->first <= base && range->second >= last;
    Node& known = full_[static_cast<std::size_t>(layout)][position];
    if (full && known != kNone) return known;
    const Digit& digit = digits[position];
    unsigned rest_bits = bits - digit.bits;
    std::vector<std::pair<uint8_t, Node>> children;
    for (uint32_t v = 0; v < (1u << digit.bits); ++v) {
      Node rest = block(base + (v << rest_bits), position + 1, layout);
      if (rest == kNone) continue;
      uint32_t hex = v + digit.offset;
      if (hex < 10) {
        children.emplace_back(static_cast<uint8_t>('0' + hex), rest);
      } else {
        children.emplace_back(static_cast<uint8_t>('A' + hex - 10), rest);
        children.emplace_back(static_cast<uint8_t>('a' + hex - 10), rest);
      }
    }
    if (children.empty()) return kNone;
    Node node = lexicon_.branch(std::move(children));
    std::string_view before = digit.before;
    for (std::size_t i = before.size(); i-- > 0;) {
      auto c = static_cast<uint8_t>(before[i]);
      std::vector<std::pair<uint8_t, Node>> fixed{{c, node}};
      if (c == 'D') fixed.emplace_back('d', node);
      node = lexicon_.branch(std::move(fixed));
    }
    if (full) known = node;
    return node;
  }

  Lexicon& lexicon_;
  const CodePoints& points_;
  std::array<std::array<Node, 6>, 2> full_{};  // value-initialised: kNone
};

constexpr std::array<std::pair<char, uint32_t>, 8> kShortEscapes{
    {{'"', '"'}, {'\\', '\\'}, {'/', '/'}, {'b', 8}, {'f', 12}, {'n', 10}, {'r', 13}, {'t', 9}}};

Node space_characters(Lexicon& lexicon) {
  ByteSet set;
  for (char c : {' ', '\t', '\n', '\r'}) set.add(static_cast<uint8_t>(c));
  return lexicon.bytes(set);
}

}  // namespace

Node json_string_encoder(Lexicon& lexicon, const CodePoints& points) {
  CodePoints raw;
  auto keep = [&](uint32_t first, uint32_t last, const std::pair<uint32_t, uint32_t>& range) {
    uint32_t from = std::max(first, range.first), to = std::min(last, range.second);
    if (from <= to) raw.emplace_back(from, to);
  };
  CodePoints scalars;  // surrogates are no characters
  for (const auto& range : points) {
    keep(0x20, 0x21, range);
    keep(0x23, 0x5B, range);
    keep(0x5D, 0xD7FF, range);
    keep(0xE000, 0x10FFFF, range);
    if (range.first < 0xD800) scalars.emplace_back(range.first, std::min(range.second, 0xD7FFu));
    if (range.second > 0xDFFF) scalars.emplace_back(std::max(range.first, 0xE000u), range.second);
  }
  std::vector<std::pair<uint8_t, Node>> escapes;
  for (auto [letter, point] : kShortEscapes)
    if (has_point(scalars, point)) escapes.emplace_back(static_cast<uint8_t>(letter), kEpsilon);
  Node hexadecimal = EscapeEncoder(lexicon, scalars).encode();
  if (hexadecimal != kNone) escapes.emplace_back(static_cast<uint8_t>('u'), hexadecimal);
  Node escaped = escapes.empty() ? kNone : lexicon.literal("\\", lexicon.branch(std::move(escapes)));
  return lexicon.either({raw.empty() ? kNone : encode_utf8(lexicon, raw), escaped});
}

// --- policies -----------------------------------------------------------------------------------------------------------

EscapePolicy parse_escapes(std::string_view text) {
  if (text == "any") return EscapePolicy::kAny;
  if (text == "needed") return EscapePolicy::kNeeded;
  if (text == "ascii") return EscapePolicy::kAscii;
  throw GrammarError("escapes is 'any', 'needed' or 'ascii', got '" + std::string(text) + "'");
}

namespace {

// A character in the one way that json.dumps writes it.
Node dumped_character(Lexicon& lexicon, EscapePolicy escapes) {
  auto hex = [&](std::string_view digits) {
    ByteSet set;
    for (char c : digits) set.add(static_cast<uint8_t>(c));
    return lexicon.bytes(set);
  };
  auto sequence = [&](std::initializer_list<Node> parts) {
    Node node = kEpsilon;
    for (auto part = std::rbegin(parts); part != std::rend(parts); ++part) node = lexicon.concat(*part, node);
    return node;
  };
  Node any = hex("0123456789abcdef"), zero = hex("0");
  // Control characters that have no letter of their own.
  std::vector<Node> units{sequence({zero, zero, zero, hex("01234567bef")}), sequence({zero, zero, hex("1"), any})};
  CodePoints raw{{0x20, 0x21}, {0x23, 0x5B}};
  if (escapes == EscapePolicy::kAscii) {
    raw.emplace_back(0x5D, 0x7E);
    units.push_back(lexicon.literal("007f"));
    units.push_back(sequence({zero, zero, hex("89abcdef"), any}));
    units.push_back(sequence({zero, hex("123456789abcdef"), any, any}));
    units.push_back(sequence({hex("123456789abcef"), any, any, any}));
    units.push_back(sequence({hex("d"), hex("01234567"), any, any}));
    units.push_back(
        sequence({hex("d"), hex("89ab"), any, any, lexicon.literal("\\u"), hex("d"), hex("cdef"), any, any}));
  } else {
    raw.emplace_back(0x5D, 0xD7FF);
    raw.emplace_back(0xE000, 0x10FFFF);
  }
  Node escaped = lexicon.either({hex("\"\\bfnrt"), lexicon.literal("u", lexicon.either(std::move(units)))});
  return lexicon.either({encode_utf8(lexicon, raw), lexicon.literal("\\", escaped)});
}

}  // namespace

WhitespacePolicy WhitespacePolicy::parse(std::string_view text) {
  WhitespacePolicy policy;
  if (text == "flexible") return policy;
  if (text == "compact") {
    policy.kind = Kind::kCompact;
    return policy;
  }
  if (text.starts_with("indent=")) {
    std::string_view number = text.substr(7);
    if (number.empty() || number.size() > 2 || number.find_first_not_of("0123456789") != number.npos)
      throw GrammarError("whitespace='indent=N' needs a number from 0 to 99");
    policy.kind = Kind::kIndent;
    policy.indent = static_cast<uint32_t>(std::stoul(std::string(number)));
    return policy;
  }
  policy.kind = Kind::kPattern;
  policy.pattern = parse_regex(text, RegexDialect::kPython);
  return policy;
}

// --- pieces -------------------------------------------------------------------------------------------------------------

JsonText::JsonText(Lexicon& lexicon, const WhitespacePolicy& policy, EscapePolicy escapes)
    : lexicon_(lexicon), policy_(policy), escapes_(escapes) {
  Node spaces = space_characters(lexicon);
  switch (policy.kind) {
    case WhitespacePolicy::Kind::kFlexible: space_ = lexicon.repeat(spaces, 0, WhitespacePolicy::kMaxSpace); break;
    case WhitespacePolicy::Kind::kCompact:
    case WhitespacePolicy::Kind::kIndent: space_ = kEpsilon; break;
    case WhitespacePolicy::Kind::kPattern:
      space_ = lower_regex(lexicon, *policy.pattern, RegexMatch::kFull, encode_utf8);
      if (!lexicon.alive(space_)) throw GrammarError("the white space pattern matches nothing");
      if (lexicon.alive(lexicon.difference(space_, lexicon.repeat(spaces, 0, kUnbounded))))
        throw GrammarError("the white space pattern matches more than space, tab, line feed and carriage return");
      break;
  }
  quote_ = lexicon.literal("\"");
  const std::string name = escapes == EscapePolicy::kAny      ? "any JSON character"
                           : escapes == EscapePolicy::kNeeded ? "JSON character, escaped where needed"
                                                              : "JSON character, ASCII";
  character_ = lexicon.kept(name);
  if (character_ == kNone)
    lexicon.keep(name, character_ = escapes == EscapePolicy::kAny ? json_string_encoder(lexicon, {{0, 0x10FFFF}})
                                                                  : dumped_character(lexicon, escapes));
  lexicon.declare_character(character_);
  characters_ = lexicon.repeat(character_, 0, kUnbounded);
  any_string_ = quoted(characters_);
  colon_ = concat(space_, lexicon.literal(":"));
}

Node JsonText::lengths(uint32_t min, uint32_t max) const { return quoted(lexicon_.repeat(character_, min, max)); }

Node JsonText::spelled(std::string_view text, Node rest) const {
  std::vector<uint32_t> points;
  for (std::size_t i = 0; i < text.size();) points.push_back(next_code_point(text, i));
  for (std::size_t i = points.size(); i-- > 0;) rest = concat(spellings_of(points[i]), rest);
  return rest;
}

Node JsonText::with_spelled(SymbolTable::NameSets& known, Node names, std::string_view text) {
  using Names = SymbolTable::NameSet;
  std::vector<std::pair<uint32_t, Names>> path;  // a character and what it stands in
  Node at = names;
  for (std::size_t i = 0; i < text.size();) {
    uint32_t point = next_code_point(text, i);
    Names here = at == kNone ? Names{} : known.at(static_cast<uint32_t>(at));
    auto found = here.next.find(point);
    at = found == here.next.end() ? kNone : found->second;
    path.emplace_back(point, std::move(here));
  }
  Names last = at == kNone ? Names{} : known.at(static_cast<uint32_t>(at));
  last.ends = true;
  auto keep = [&](Names here) {
    std::vector<Node> options;
    if (here.ends) options.push_back(quote_);
    for (auto [point, next] : here.next) options.push_back(concat(spellings_of(point), next));
    Node language = lexicon_.either(std::move(options));
    growth_of_this_thread += 96 + 48 * here.next.size();
    known.try_emplace(static_cast<uint32_t>(language), std::move(here));
    return language;
  };
  at = keep(std::move(last));
  for (; !path.empty(); path.pop_back()) {
    path.back().second.next[path.back().first] = at;
    at = keep(std::move(path.back().second));
  }
  return at;
}

Node JsonText::spellings_of(uint32_t point) const {
  auto [it, fresh] = spellings_.try_emplace(point, kNone);
  if (!fresh) return it->second;
  const std::string name = "JSON character " + std::to_string(point);
  it->second = lexicon_.kept(name);
  if (it->second == kNone) {
    it->second = json_string_encoder(lexicon_, {{point, point}});
    if (point < 0x250) lexicon_.keep(name, it->second);
  }
  return it->second;
}

Node JsonText::declared(std::string_view text, Node rest) const {
  std::string raw = json_quote(text), ascii = json_quote(text, true);
  Node node = lexicon_.literal(std::string_view(raw).substr(1, raw.size() - 2), rest);
  if (ascii == raw) return node;
  return lexicon_.either({node, lexicon_.literal(std::string_view(ascii).substr(1, ascii.size() - 2), rest)});
}

Node JsonText::newline(uint32_t depth) const {
  return lexicon_.literal("\n" + std::string(std::size_t{depth} * policy_.indent, ' '));
}

JsonPlace JsonText::member_place(JsonPlace object) const {
  if (policy_.kind == WhitespacePolicy::Kind::kIndent) return {JsonPlace::Kind::kMember, object.depth + 1};
  return {policy_.kind == WhitespacePolicy::Kind::kPattern ? JsonPlace::Kind::kMember : JsonPlace::Kind::kTop, 0};
}

JsonPlace JsonText::item_place(JsonPlace array) const {
  if (policy_.kind == WhitespacePolicy::Kind::kIndent) return {JsonPlace::Kind::kItem, array.depth + 1};
  return member_place(array);
}

Node JsonText::lead(JsonPlace place) const {
  switch (policy_.kind) {
    case WhitespacePolicy::Kind::kFlexible: return space_;
    case WhitespacePolicy::Kind::kCompact: return kEpsilon;
    case WhitespacePolicy::Kind::kPattern: return place.kind == JsonPlace::Kind::kTop ? kEpsilon : space_;
    case WhitespacePolicy::Kind::kIndent: break;
  }
  if (place.kind == JsonPlace::Kind::kTop) return kEpsilon;
  return place.kind == JsonPlace::Kind::kMember ? lexicon_.literal(" ") : newline(place.depth);
}

Node JsonText::before_key(JsonPlace object, bool first) const {
  Node rest = quote_;
  if (policy_.kind == WhitespacePolicy::Kind::kIndent) {
    rest = concat(newline(object.depth + 1), rest);
    return first ? rest : lexicon_.literal(",", rest);
  }
  rest = concat(space_, rest);
  return first ? rest : concat(space_, lexicon_.literal(",", rest));
}

Node JsonText::comma(JsonPlace) const { return concat(space_, lexicon_.literal(",")); }

Node JsonText::close(JsonPlace container, bool empty, char bracket) const {
  Node end = lexicon_.literal(std::string_view(&bracket, 1));
  if (policy_.kind == WhitespacePolicy::Kind::kIndent) return empty ? end : concat(newline(container.depth), end);
  return concat(space_, end);
}

Node rfc8259_number(Lexicon& lexicon) {
  Node digit = lexicon.bytes(ByteSet::range('0', '9'));
  Node digits = lexicon.repeat(digit, 1, kUnbounded);
  Node exponent = lexicon.concat(
      lexicon.either({lexicon.literal("e"), lexicon.literal("E")}),
      lexicon.concat(lexicon.optional(lexicon.either({lexicon.literal("+"), lexicon.literal("-")})), digits));
  Node rest = lexicon.concat(lexicon.optional(lexicon.literal(".", digits)), lexicon.optional(exponent));
  Node whole = lexicon.either({lexicon.literal("0"), lexicon.concat(lexicon.bytes(ByteSet::range('1', '9')),
                                                                    lexicon.repeat(digit, 0, kUnbounded))});
  return lexicon.concat(lexicon.optional(lexicon.literal("-")), lexicon.concat(whole, rest));
}

// --- RFC 8259 -----------------------------------------------------------------------------------------------------------

namespace {

class Rfc8259Rules : public RuleProvider {
 public:
  enum Local : uint32_t { kText, kValue, kMembers, kMoreMembers, kItems, kMoreItems, kCount };

  explicit Rfc8259Rules(SymbolTable& symbols) {
    Lexicon& lexicon = symbols.lexicon();
    Node space = lexicon.repeat(space_characters(lexicon), 0, kUnbounded);
    auto spaced = [&](Node node) { return lexicon.concat(space, node); };
    ByteSet hex = ByteSet::range('0', '9') | ByteSet::range('a', 'f') | ByteSet::range('A', 'F');
    // Any \uXXXX, unpaired surrogates included: RFC 8259 section 8.2 leaves their meaning open but not their syntax.
    Node unit = lexicon.literal("u", lexicon.repeat(lexicon.bytes(hex), 4, 4));
    ByteSet shorts;
    for (auto [letter, point] : kShortEscapes) shorts.add(static_cast<uint8_t>(letter));
    Node escape = lexicon.literal("\\", lexicon.either({lexicon.bytes(shorts), unit}));
    Node raw = encode_utf8(lexicon, {{0x20, 0x21}, {0x23, 0x5B}, {0x5D, 0xD7FF}, {0xE000, 0x10FFFF}});
    Node body = lexicon.repeat(lexicon.either({raw, escape}), 0, kUnbounded);
    Node end = lexicon.literal("\"");
    Node string = lexicon.literal("\"", lexicon.concat(body, end));
    Node start = spaced(lexicon.either(
        {lexicon.concat(string, lexicon.accept(1)), lexicon.concat(rfc8259_number(lexicon), lexicon.accept(2)),
         lexicon.literals({{"true", lexicon.accept(3)}, {"false", lexicon.accept(3)}, {"null", lexicon.accept(3)}}),
         lexicon.literal("{", lexicon.accept(4)), lexicon.literal("[", lexicon.accept(5))}));
    string_ = symbols.terminal(start, 1, "string");
    number_ = symbols.terminal(start, 2, "number");
    word_ = symbols.terminal(start, 3, "true, false or null");
    open_object_ = symbols.terminal(start, 4, "{");
    open_array_ = symbols.terminal(start, 5, "[");
    Node key = lexicon.concat(string, spaced(lexicon.literal(":")));
    key_ = symbols.terminal(spaced(key), 0, "key");
    next_key_ = symbols.terminal(spaced(lexicon.literal(",", spaced(key))), 0, ", key");
    comma_ = symbols.terminal(spaced(lexicon.literal(",")), 0, ",");
    close_object_ = symbols.terminal(spaced(lexicon.literal("}")), 0, "}");
    close_array_ = symbols.terminal(spaced(lexicon.literal("]")), 0, "]");
    trailing_ = symbols.terminal(lexicon.repeat(space_characters(lexicon), 1, kUnbounded), 0, "white space");
    for (uint32_t local = 0; local < kCount; ++local) rules_[local] = symbols.nonterminal(this, local);
  }

  Symbol start() const { return rules_[kText]; }

  void productions(uint32_t local, Productions& out) override {
    switch (static_cast<Local>(local)) {
      case kText:
        out.add({rules_[kValue]});
        out.add({rules_[kValue], trailing_});
        return;
      case kValue:
        for (Symbol scalar : {string_, number_, word_}) out.add({scalar});
        out.add({open_object_, rules_[kMembers]});
        out.add({open_array_, rules_[kItems]});
        return;
      case kMembers:
      case kMoreMembers:
        out.add({close_object_});
        out.add({local == kMembers ? key_ : next_key_, rules_[kValue], rules_[kMoreMembers]});
        return;
      case kItems:
        out.add({close_array_});
        out.add({rules_[kValue], rules_[kMoreItems]});
        return;
      case kMoreItems:
        out.add({close_array_});
        out.add({comma_, rules_[kValue], rules_[kMoreItems]});
        return;
      case kCount: return;
    }
  }

  std::string name(uint32_t local) const override {
    static constexpr std::array<const char*, kCount> kNames{"JSON text",    "value", "members",
                                                            "more members", "items", "more items"};
    return kNames[local];
  }

 private:
  Symbol string_, number_, word_, open_object_, open_array_, key_, next_key_, comma_, close_object_, close_array_,
      trailing_;
  std::array<Symbol, kCount> rules_{};
};

class Rfc8259Source : public GrammarSource {
 public:
  OpenGrammar open(SymbolTable& symbols) const override {
    auto rules = std::make_unique<Rfc8259Rules>(symbols);
    OpenGrammar grammar;
    grammar.start = rules->start();
    grammar.providers.push_back(std::move(rules));
    return grammar;
  }
};

}  // namespace

std::shared_ptr<const GrammarSource> json_rfc8259_source() {
  static const std::shared_ptr<const GrammarSource> source = std::make_shared<Rfc8259Source>();
  return source;
}

}  // namespace guiderail
