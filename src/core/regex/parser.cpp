// Text of a regular expression → RegexTree, for two dialects.
//
// Python: `re` of 3.11 to 3.13 for str patterns, plus \p{...} and lookbehinds of any width. ECMA-262: what `new RegExp(p, "u")` means,
// read leniently where real JSON Schemas are not valid under `u` and the older rules (Annex B) leave no doubt: identity escapes of
// punctuation, lone braces, octal escapes. Python's leading flags and (?P<name>...) are taken there too, since they cannot mean
// anything else. Escaped letters without a meaning (\A, \Z, \h) are errors in both: reading \A as 'A' would be silently wrong.
//
// One loop over the pattern with an explicit stack of open groups, so that depth costs heap and not stack.
#include <set>
#include <string>
#include <vector>

#include "core/errors.h"
#include "core/regex/regex.h"
#include "core/regex/tree.h"

namespace guiderail {
namespace {

constexpr uint32_t kEndOfPattern = UINT32_MAX;

bool is_digit(uint32_t c) { return c >= '0' && c <= '9'; }
bool is_octal(uint32_t c) { return c >= '0' && c <= '7'; }
bool is_letter(uint32_t c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }

int hex_value(uint32_t c) {
  if (is_digit(c)) return static_cast<int>(c - '0');
  if (c >= 'a' && c <= 'f') return static_cast<int>(c - 'a' + 10);
  if (c >= 'A' && c <= 'F') return static_cast<int>(c - 'A' + 10);
  return -1;
}

CodePoints one(uint32_t point) { return normalise({{point, point}}); }

const CodePoints& ascii_word() {
  static const CodePoints set{{'0', '9'}, {'A', 'Z'}, {'_', '_'}, {'a', 'z'}};
  return set;
}

const CodePoints& ecma_line_terminators() {
  static const CodePoints set{{'\n', '\n'}, {'\r', '\r'}, {0x2028, 0x2029}};
  return set;
}

class RegexParser {
 public:
  RegexParser(std::string_view pattern, RegexDialect dialect, RegexFlags flags)
      : text_(decode_utf8(pattern)), python_(dialect == RegexDialect::kPython), flags_(flags) {}

  std::shared_ptr<const RegexTree> parse();

 private:
  // What a quantifier would apply to.
  enum class Last : uint8_t { kNothing, kItem, kRepeated, kAssertion };

  struct Group {
    enum class Kind : uint8_t { kPlain, kAtomic, kLook } kind = Kind::kPlain;
    bool behind = false, negative = false;
    std::size_t offset = 0;
    RegexFlags outer_flags;
    std::vector<uint32_t> options, parts;
    Last last = Last::kNothing;
  };

  // An escape sequence: one code point, or a set of them.
  struct Escape {
    bool single = true;
    uint32_t point = 0;
    CodePoints set;
  };

  [[noreturn]] void fail(const std::string& message, std::size_t offset) const { throw GrammarError(message, offset); }

  uint32_t peek(std::size_t ahead = 0) const { return at_ + ahead < text_.size() ? text_[at_ + ahead] : kEndOfPattern; }
  bool take(uint32_t c) {
    if (peek() != c) return false;
    ++at_;
    return true;
  }
  bool take(std::u32string_view word) {
    if (std::u32string_view(text_).substr(at_, word.size()) != word) return false;
    at_ += word.size();
    return true;
  }

  void parse_one();
  void skip_comment();
  void append(uint32_t node, Last last) {
    stack_.back().parts.push_back(node);
    stack_.back().last = last;
  }
  void append_literal(uint32_t point) { append(tree_->add_class(fold(one(point))), Last::kItem); }
  uint32_t finish(Group& group);

  void open_group();
  void close_group();
  bool open_flags();
  void open(Group group) {
    group.outer_flags = flags_;
    stack_.push_back(std::move(group));
  }
  void read_name(uint32_t end);

  bool read_count(uint32_t& count);
  bool read_quantifier(uint32_t& min, uint32_t& max);
  void quantify(std::size_t offset, uint32_t min, uint32_t max);

  void parse_escape();
  bool parse_assertion_escape(uint32_t c, std::size_t offset);
  Escape read_escape(bool in_class);
  Escape read_number_escape(uint32_t first, bool in_class, std::size_t offset);
  Escape read_property(bool negated, std::size_t offset);
  uint32_t read_hex(unsigned digits, std::size_t offset);
  uint32_t read_ecma_unicode(std::size_t offset);
  bool class_escape(uint32_t c, CodePoints& set) const;
  uint32_t parse_class();

  CaseOrbits orbits() const {
    return !python_ ? CaseOrbits::kEcma : flags_.ascii ? CaseOrbits::kAscii : CaseOrbits::kPython;
  }
  CodePoints fold(CodePoints set) const { return flags_.ignore_case ? close_under_case(set, orbits()) : set; }
  CodePoints word() const { return python_ && !flags_.ascii ? python_word() : ascii_word(); }
  CodePoints line_terminators() const { return python_ ? one('\n') : ecma_line_terminators(); }
  uint32_t count_groups() const;

  std::u32string text_;
  std::size_t at_ = 0;
  bool python_;
  RegexFlags flags_;
  std::shared_ptr<RegexTree> tree_ = std::make_shared<RegexTree>();
  std::vector<Group> stack_;
  std::set<std::u32string> names_;
  bool started_ = false;  // something other than comments and flags has been read
};

std::shared_ptr<const RegexTree> RegexParser::parse() {
  open(Group{});
  while (at_ < text_.size()) parse_one();
  if (stack_.size() > 1) fail("this group is never closed", stack_.back().offset);
  tree_->root = finish(stack_.back());
  return tree_;
}

// Reads one alternative bar, parenthesis, quantifier or item.
void RegexParser::parse_one() {
  std::size_t offset = at_;
  uint32_t c = text_[at_++];
  if (flags_.verbose) {
    if (c == ' ' || (c >= '\t' && c <= '\r')) return;
    if (c == '#') return skip_comment();
  }
  if (c == '(') return open_group();
  started_ = true;
  Group& group = stack_.back();
  uint32_t min = 0, max = 0;
  switch (c) {
    case '|':
      group.options.push_back(tree_->add_concat(std::move(group.parts)));
      group.parts.clear();
      group.last = Last::kNothing;
      return;
    case ')': return close_group();
    case '*': return quantify(offset, 0, kUnbounded);
    case '+': return quantify(offset, 1, kUnbounded);
    case '?': return quantify(offset, 0, 1);
    case '{':
      if (read_quantifier(min, max)) return quantify(offset, min, max);
      return append_literal(c);
    case '.':
      return append(tree_->add_class(flags_.dot_all ? all_code_points() : complement(line_terminators())), Last::kItem);
    case '^':
      if (flags_.multiline)
        return append(tree_->add_assertion(RegexKind::kLineStart, tree_->class_id(line_terminators())),
                      Last::kAssertion);
      return append(tree_->add_assertion(RegexKind::kTextStart), Last::kAssertion);
    case '$':
      if (flags_.multiline)
        return append(tree_->add_assertion(RegexKind::kLineEnd, tree_->class_id(line_terminators())), Last::kAssertion);
      if (python_)
        return append(tree_->add_assertion(RegexKind::kFinalLineEnd, tree_->class_id(one('\n'))), Last::kAssertion);
      return append(tree_->add_assertion(RegexKind::kTextEnd), Last::kAssertion);
    case '[': return append(parse_class(), Last::kItem);
    case '\\': return parse_escape();
    default: return append_literal(c);
  }
}

void RegexParser::skip_comment() {
  while (at_ < text_.size() && text_[at_++] != '\n') {}
}

uint32_t RegexParser::finish(Group& group) {
  group.options.push_back(tree_->add_concat(std::move(group.parts)));
  return tree_->add_alternate(std::move(group.options));
}

// --- groups -----------------------------------------------------------------------------------------------------------

// After '('. Everything that begins with a question mark is decided here.
void RegexParser::open_group() {
  Group group;
  group.offset = at_ - 1;
  bool first = !started_;
  auto start = [&] {
    started_ = true;
    open(std::move(group));
  };
  if (!take('?')) return start();
  if (take(':')) return start();
  if (take('#')) {
    while (!take(')')) {
      if (at_ == text_.size()) fail("this comment is never closed", group.offset);
      ++at_;
    }
    return;
  }
  if (take('=') || take('!')) {
    group.kind = Group::Kind::kLook;
    group.negative = text_[at_ - 1] == '!';
    return start();
  }
  if (take(U"<=") || take(U"<!")) {
    group.kind = Group::Kind::kLook;
    group.behind = true;
    group.negative = text_[at_ - 1] == '!';
    return start();
  }
  if (take('>')) {
    if (!python_) fail("atomic groups (?>...) are not part of ECMA-262", group.offset);
    group.kind = Group::Kind::kAtomic;
    return start();
  }
  if (take(U"P<")) {
    read_name('>');
    return start();
  }
  if (take(U"P=")) fail("backreferences are not supported: (?P=name)", group.offset);
  if (take(U"P>") || peek() == 'R' || peek() == '&' || is_digit(peek()) || (peek() == '+' && is_digit(peek(1))) ||
      (peek() == '-' && is_digit(peek(1))))
    fail("recursion into a group is not supported", group.offset);
  if (take('(')) fail("conditional groups (?(...)yes|no) are not supported", group.offset);
  if (take('<')) {
    if (python_) fail("unknown group (?<; Python writes a named group as (?P<name>...)", group.offset);
    read_name('>');
    return start();
  }
  RegexFlags outer = flags_;
  if (open_flags()) {
    started_ = true;
    group.outer_flags = outer;
    stack_.push_back(std::move(group));
  } else if (!first) {
    fail("flags that are not limited to a group, as (?i), must stand at the start of the pattern", group.offset);
  }
}

// After '(?': flags, then ')' (false) or ':' (true, a group follows).
bool RegexParser::open_flags() {
  std::size_t offset = at_ - 2;
  bool on = true, any = false, any_off = false, ascii = false, unicode = false;
  RegexFlags flags = flags_;
  for (;; any = true) {
    uint32_t c = peek();
    ++at_;
    if (c == 'i') {
      flags.ignore_case = on;
    } else if (c == 'm') {
      flags.multiline = on;
    } else if (c == 's') {
      flags.dot_all = on;
    } else if (c == 'x' && python_) {
      flags.verbose = on;
    } else if ((c == 'a' || c == 'u') && python_ && on) {
      (c == 'a' ? ascii : unicode) = true;
      flags.ascii = c == 'a';
    } else if (c == 'L' && python_) {
      fail("the flag L works on bytes patterns only", offset);
    } else if (c == '-' && on) {
      on = false;
      any_off = true;
    } else if ((c == ':' || (c == ')' && !any_off)) && any) {
      if (any_off && text_[at_ - 2] == '-' && python_) fail("a flag must follow '-'", offset);
      if (ascii && unicode) fail("the flags a and u exclude each other", offset);
      flags_ = flags;
      return c == ':';
    } else {
      fail("unknown kind of group after (?", offset);
    }
  }
}

void RegexParser::close_group() {
  if (stack_.size() == 1) fail("unbalanced parenthesis", at_ - 1);
  Group group = std::move(stack_.back());
  stack_.pop_back();
  uint32_t node = finish(group);
  Last last = Last::kItem;
  if (group.kind == Group::Kind::kAtomic) {
    node = tree_->add_atomic(node);
  } else if (group.kind == Group::Kind::kLook) {
    node = tree_->add_look(node, group.behind, group.negative);
    if (!python_ && group.behind) last = Last::kAssertion;
  }
  flags_ = group.outer_flags;
  append(node, last);
}

void RegexParser::read_name(uint32_t end) {
  static const CodePoints start = *unicode_property("XID_Start"), rest = *unicode_property("XID_Continue");
  std::size_t offset = at_;
  std::u32string name;
  while (peek() != end) {
    if (peek() == kEndOfPattern) fail("this group name is never closed", offset);
    uint32_t c = text_[at_++];
    if (c != '_' && (python_ || c != '$') && !contains(name.empty() ? start : rest, c))
      fail("bad character in a group name", at_ - 1);
    name += static_cast<char32_t>(c);
  }
  if (name.empty()) fail("missing group name", offset);
  ++at_;
  // ECMA-262 allows the same name in different alternatives; names bind nothing here, so it need not be checked there.
  if (!names_.insert(name).second && python_) fail("this group name is already taken", offset);
}

// Capturing groups in the whole pattern, for telling an ECMA-262 backreference from a legacy octal escape.
uint32_t RegexParser::count_groups() const {
  uint32_t count = 0;
  bool in_class = false;
  for (std::size_t i = 0; i < text_.size(); ++i) {
    if (text_[i] == '\\') {
      ++i;
    } else if (in_class) {
      in_class = text_[i] != ']';
    } else if (text_[i] == '[') {
      in_class = true;
    } else if (text_[i] == '(') {
      auto next = [&](std::size_t k) { return i + k < text_.size() ? text_[i + k] : U'\0'; };
      count += next(1) != '?' || (next(2) == '<' && next(3) != '=' && next(3) != '!') || next(2) == 'P';
    }
  }
  return count;
}

// --- quantifiers ------------------------------------------------------------------------------------------------------

bool RegexParser::read_count(uint32_t& count) {
  std::size_t offset = at_;
  uint64_t value = 0;
  while (is_digit(peek())) value = std::min<uint64_t>(value * 10 + (text_[at_++] - '0'), kUnbounded);
  if (at_ == offset) return false;
  if (value == kUnbounded) throw LimitError("regex_repeat", "a repeat count is greater than 2^32 - 2");
  count = static_cast<uint32_t>(value);
  return true;
}

// After '{'. False, with nothing consumed: an ordinary brace.
bool RegexParser::read_quantifier(uint32_t& min, uint32_t& max) {
  std::size_t start = at_;
  min = 0, max = kUnbounded;
  bool has_min = read_count(min), has_comma = take(',');
  if (has_comma)
    read_count(max);
  else
    max = min;
  // Python reads {,5} and {,} as quantifiers, but {} as text; ECMA-262 wants a lower bound.
  if ((has_min || (has_comma && python_)) && take('}')) {
    if (max < min) fail("the least number of repeats is greater than the greatest", start - 1);
    return true;
  }
  at_ = start;
  return false;
}

void RegexParser::quantify(std::size_t offset, uint32_t min, uint32_t max) {
  Group& group = stack_.back();
  if (group.last == Last::kRepeated) fail("multiple repeat", offset);
  if (group.last != Last::kItem) fail("nothing to repeat", offset);
  RegexGreed greed = RegexGreed::kGreedy;
  if (take('?'))
    greed = RegexGreed::kLazy;
  else if (python_ && take('+'))
    greed = RegexGreed::kPossessive;
  else if (!python_ && peek() == '+')
    fail("possessive quantifiers are not part of ECMA-262", offset);
  group.parts.back() = tree_->add_repeat(group.parts.back(), min, max, greed);
  group.last = Last::kRepeated;
}

// --- escapes ----------------------------------------------------------------------------------------------------------

void RegexParser::parse_escape() {
  std::size_t offset = at_ - 1;
  uint32_t c = peek();
  if (parse_assertion_escape(c, offset)) return;
  Escape escape = read_escape(false);
  if (escape.single)
    append_literal(escape.point);
  else
    append(tree_->add_class(std::move(escape.set)), Last::kItem);
}

bool RegexParser::parse_assertion_escape(uint32_t c, std::size_t offset) {
  RegexKind kind;
  if (c == 'b')
    kind = RegexKind::kWordBoundary;
  else if (c == 'B')
    kind = python_ ? RegexKind::kNotWordBoundaryPy : RegexKind::kNotWordBoundary;
  else if (c == 'A' && python_)
    kind = RegexKind::kTextStart;
  else if (c == 'Z' && python_)
    kind = RegexKind::kTextEnd;
  else if (c == 'k' && !python_ && peek(1) == '<')
    fail("backreferences are not supported: \\k<name>", offset);
  else
    return false;
  ++at_;
  bool boundary = c == 'b' || c == 'B';
  append(tree_->add_assertion(kind, boundary ? tree_->class_id(word()) : 0), Last::kAssertion);
  return true;
}

// \d \D \s \S \w \W.
bool RegexParser::class_escape(uint32_t c, CodePoints& set) const {
  static const CodePoints ascii_digit{{'0', '9'}}, ascii_space{{'\t', '\r'}, {' ', ' '}};
  static const CodePoints ecma_space = normalise({{'\t', '\r'},
                                                  {' ', ' '},
                                                  {0xA0, 0xA0},
                                                  {0x1680, 0x1680},
                                                  {0x2000, 0x200A},
                                                  {0x2028, 0x2029},
                                                  {0x202F, 0x202F},
                                                  {0x205F, 0x205F},
                                                  {0x3000, 0x3000},
                                                  {0xFEFF, 0xFEFF}});
  bool unicode = python_ && !flags_.ascii;
  switch (c | 0x20) {
    case 'd': set = unicode ? python_digit() : ascii_digit; break;
    case 's': set = unicode ? python_space() : python_ ? ascii_space : ecma_space; break;
    case 'w':
      set = unicode ? python_word() : ascii_word();
      if (!python_) set = fold(std::move(set));
      break;
    default: return false;
  }
  if (!(c & 0x20)) set = complement(set);
  return true;
}

// After the backslash.
RegexParser::Escape RegexParser::read_escape(bool in_class) {
  std::size_t offset = at_ - 1;
  uint32_t c = peek();
  if (c == kEndOfPattern) fail("the pattern ends inside an escape", offset);
  ++at_;
  Escape escape;
  escape.point = c;
  if (is_letter(c) && class_escape(c, escape.set)) {
    escape.single = false;
    return escape;
  }
  if (is_digit(c)) return read_number_escape(c, in_class, offset);
  switch (c) {
    case 'p':
    case 'P': return read_property(c == 'P', offset);
    case 'f': escape.point = '\f'; return escape;
    case 'n': escape.point = '\n'; return escape;
    case 'r': escape.point = '\r'; return escape;
    case 't': escape.point = '\t'; return escape;
    case 'v': escape.point = '\v'; return escape;
    case 'x': escape.point = read_hex(2, offset); return escape;
    case 'u': escape.point = python_ ? read_hex(4, offset) : read_ecma_unicode(offset); return escape;
    case 'b':
      if (!in_class) break;
      escape.point = '\b';
      return escape;
    case 'a':
      if (!python_) break;
      escape.point = '\a';
      return escape;
    case 'U':
      if (!python_) break;
      escape.point = read_hex(8, offset);
      if (escape.point > kMaxCodePoint) fail("\\U stands for no code point", offset);
      return escape;
    case 'N':
      if (python_) fail("character names are not supported: \\N{...}", offset);
      break;
    case 'c':
      if (python_) break;
      if (!is_letter(peek())) fail("a letter must follow \\c", offset);
      escape.point = text_[at_++] & 0x1F;
      return escape;
    default: break;
  }
  if (is_letter(c)) fail(std::string("bad escape \\") + static_cast<char>(c), offset);
  return escape;
}

// \0, \12, \377: octal, or a reference to a group, which is refused.
RegexParser::Escape RegexParser::read_number_escape(uint32_t first, bool in_class, std::size_t offset) {
  Escape escape;
  auto octal = [&](unsigned max_digits) {
    uint32_t value = first - '0';
    for (unsigned i = 1; i < max_digits && is_octal(peek()); ++i) value = value * 8 + (text_[at_++] - '0');
    if (value > 0377) fail("octal escape outside of range 0-0o377", offset);
    escape.point = value;
    return escape;
  };
  if (python_) {
    if (first == '0' || (in_class && is_octal(first))) return octal(3);
    if (in_class) fail(std::string("bad escape \\") + static_cast<char>(first), offset);
    if (is_octal(first) && is_octal(peek()) && is_octal(peek(1))) return octal(3);
    fail("backreferences are not supported", offset);
  }
  if (!in_class && first != '0') {
    uint64_t number = first - '0';
    for (std::size_t i = 0; is_digit(peek(i)); ++i)
      number = std::min<uint64_t>(number * 10 + (peek(i) - '0'), kUnbounded);
    if (number <= count_groups()) fail("backreferences are not supported", offset);
  }
  if (is_octal(first)) return octal(first <= '3' ? 3 : 2);
  escape.point = first;  // \8 and \9
  return escape;
}

RegexParser::Escape RegexParser::read_property(bool negated, std::size_t offset) {
  std::string name;
  if (take('{')) {
    if (take('^')) negated = !negated;
    for (uint32_t c = peek(); c != '}'; c = peek()) {
      if (c == kEndOfPattern) fail("this property name is never closed", offset);
      if (c >= 0x80) fail("a property name is plain ASCII", at_);
      name += static_cast<char>(c);
      ++at_;
    }
    ++at_;
  } else if (is_letter(peek())) {
    name = static_cast<char>(text_[at_++]);  // \pL
  } else {
    fail("a property in braces must follow \\p", offset);
  }
  std::optional<CodePoints> set = unicode_property(name);
  if (!set) fail("unknown Unicode property '" + name + "'", offset);
  Escape escape;
  escape.single = false;
  escape.set = fold(std::move(*set));
  if (negated) escape.set = complement(escape.set);
  return escape;
}

uint32_t RegexParser::read_hex(unsigned digits, std::size_t offset) {
  uint32_t value = 0;
  for (unsigned i = 0; i < digits; ++i) {
    int digit = hex_value(peek());
    if (digit < 0) fail("incomplete escape: " + std::to_string(digits) + " hexadecimal digits are needed", offset);
    value = value << 4 | static_cast<uint32_t>(digit);
    ++at_;
  }
  return value;
}

// \uXXXX, a pair \uD83D\uDE00, or \u{X...}.
uint32_t RegexParser::read_ecma_unicode(std::size_t offset) {
  if (take('{')) {
    uint32_t value = 0;
    std::size_t start = at_;
    for (int digit; (digit = hex_value(peek())) >= 0; ++at_) {
      value = value << 4 | static_cast<uint32_t>(digit);
      if (value > kMaxCodePoint) fail("\\u{...} stands for no code point", offset);
    }
    if (at_ == start || !take('}')) fail("bad escape \\u{...}", offset);
    return value;
  }
  uint32_t lead = read_hex(4, offset);
  if (lead < 0xD800 || lead > 0xDBFF || peek() != '\\' || peek(1) != 'u') return lead;
  uint32_t trail = 0;
  for (std::size_t i = 2; i < 6; ++i) {
    int digit = hex_value(peek(i));
    if (digit < 0) return lead;
    trail = trail << 4 | static_cast<uint32_t>(digit);
  }
  if (trail < 0xDC00 || trail > 0xDFFF) return lead;
  at_ += 6;
  return 0x10000 + ((lead - 0xD800) << 10) + (trail - 0xDC00);
}

// --- classes ----------------------------------------------------------------------------------------------------------

// After '['.
uint32_t RegexParser::parse_class() {
  std::size_t offset = at_ - 1;
  bool negated = take('^');
  std::vector<std::pair<uint32_t, uint32_t>> literal;  // subject to case folding
  std::vector<std::pair<uint32_t, uint32_t>> sets;     // \w, \p{...}: folded already
  auto read_atom = [&] {
    if (at_ >= text_.size()) fail("this character class is never closed", offset);
    Escape atom;
    atom.point = text_[at_++];
    return atom.point == '\\' ? read_escape(true) : atom;
  };
  auto add = [&](const Escape& atom) {
    if (atom.single)
      literal.emplace_back(atom.point, atom.point);
    else
      sets.insert(sets.end(), atom.set.begin(), atom.set.end());
  };
  for (bool first = true; (python_ && first) || peek() != ']'; first = false) {  // Python: [] and [^] begin with a ']'
    std::size_t atom_offset = at_;
    Escape low = read_atom();
    if (peek() != '-' || peek(1) == ']') {
      add(low);
      continue;
    }
    ++at_;
    Escape high = read_atom();
    if (low.single && high.single) {
      if (high.point < low.point) fail("the character range is in reverse order", atom_offset);
      literal.emplace_back(low.point, high.point);
      continue;
    }
    if (python_) fail("a character range cannot begin or end with a class", atom_offset);
    add(low);  // Annex B: [\w-.] is \w, '-' and '.'
    add(high);
    literal.emplace_back('-', '-');
  }
  ++at_;
  CodePoints set = fold(normalise(std::move(literal)));
  if (!sets.empty()) {
    sets.insert(sets.end(), set.begin(), set.end());
    set = normalise(std::move(sets));
  }
  return tree_->add_class(negated ? complement(set) : std::move(set));
}

}  // namespace

std::shared_ptr<const RegexTree> parse_regex(std::string_view utf8_pattern, RegexDialect dialect, RegexFlags flags) {
  return RegexParser(utf8_pattern, dialect, flags).parse();
}

}  // namespace guiderail
