// Each format is written as a regular expression after the grammar of its RFC, and lowered over JSON string characters.
//
// Not regular by nature, and therefore narrower than their RFC (reported as approximated): `regex`, whose groups nest; here to a fixed depth.
// A-labels ("xn--...") of host names encode other names by an arithmetic code; they are not offered, so what is accepted is always valid.
// U-labels of `idn-hostname` are offered for the commonest scripts, and only as long as their A-labels are short enough in every case.
#include "core/json/format.h"

#include <functional>
#include <initializer_list>
#include <iterator>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

namespace guiderail {
namespace {

std::string group(const std::string& text) { return "(?:" + text + ")"; }

// --- RFC 3339 and ISO 8601 ----------------------------------------------------------------------------------------------

const char* const kDate =
    "(?:\\d{4}-(?:(?:0[13578]|1[02])-(?:0[1-9]|[12]\\d|3[01])|(?:0[469]|11)-(?:0[1-9]|[12]\\d|30)|02-(?:0[1-9]|1\\d|2["
    "0-8]))"
    "|(?:\\d\\d(?:0[48]|[2468][048]|[13579][26])|(?:[02468][048]|[13579][26])00)-02-29)";
const char* const kTime = "(?:[01]\\d|2[0-3]):[0-5]\\d:[0-5]\\d(?:\\.\\d+)?(?:[Zz]|[+-](?:[01]\\d|2[0-3]):[0-5]\\d)";

std::string two_digits(int n) { return {static_cast<char>('0' + n / 10), static_cast<char>('0' + n % 10)}; }

// A leap second is 23:59:60 in UTC. Minutes and hours of the local time and of its offset are related separately, and what must hold of both
// is their intersection: 60 and 48 cases instead of 1,440.
std::pair<std::string, std::string> leap_second() {
  std::string minutes, hours;
  const std::string seconds = ":60(?:\\.\\d+)?";
  for (int m = 0; m < 60; ++m) {
    minutes += std::string(m ? "|" : "") + "\\d\\d:" + two_digits(m) + seconds +
               "(?:\\+\\d\\d:" + two_digits((m + 1) % 60) + "|-\\d\\d:" + two_digits(59 - m) +
               (m == 59 ? "|[Zz])" : ")");
  }
  for (int h = 0; h < 24; ++h) {
    hours += std::string(h ? "|" : "") + two_digits(h) + ":(?:[0-5]\\d" + seconds + "-" + two_digits(23 - h) +
             ":\\d\\d|" + "(?!59)\\d\\d" + seconds + "\\+" + two_digits(h) + ":\\d\\d|59" + seconds + "(?:\\+" +
             two_digits((h + 1) % 24) + ":\\d\\d" + (h == 23 ? "|[Zz]" : "") + "))";
  }
  return {minutes, hours};
}

const char* const kDurationTime = "T(?:\\d+H(?:\\d+M(?:\\d+S)?)?|\\d+M(?:\\d+S)?|\\d+S)";
std::string duration() {
  std::string date = "(?:\\d+Y(?:\\d+M(?:\\d+D)?)?|\\d+M(?:\\d+D)?|\\d+D)";
  return "P(?:\\d+W|" + date + group(kDurationTime) + "?|" + kDurationTime + ")";
}

// --- addresses ----------------------------------------------------------------------------------------------------------

const char* const kOctet = "(?:25[0-5]|2[0-4]\\d|1\\d\\d|[1-9]?\\d)";
std::string ipv4() { return std::string(kOctet) + "(?:\\." + kOctet + "){3}"; }

std::string ipv6() {
  std::string h = "[0-9A-Fa-f]{1,4}", last = "(?:" + h + ":" + h + "|" + ipv4() + ")", text;
  auto some = [&](int n) { return "(?:" + h + ":){" + std::to_string(n) + "}"; };
  text = some(6) + last;
  for (int before = 0; before <= 7; ++before) {
    std::string left = before == 0 ? "" : "(?:(?:" + h + ":){0," + std::to_string(before - 1) + "}" + h + ")?";
    int after = 7 - before;  // groups that may stand after `::` when `before` stand before it, at most
    std::string right = after >= 2 ? some(after - 2) + last : after == 1 ? h : "";
    text += "|" + left + "::" + right;
  }
  return group(text);
}

// RFC 1123 labels; the third and fourth character are not both hyphens, which RFC 5890 reserves. Spelled out, up to four characters and from five
// on: a lookahead inside the loop over labels would make each place of a name a state of its own.
const char* const kLabel =
    "(?:[A-Za-z0-9](?:[A-Za-z0-9-]{0,2}[A-Za-z0-9])?"
    "|[A-Za-z0-9][A-Za-z0-9-](?:[A-Za-z0-9][A-Za-z0-9-]|-[A-Za-z0-9])[A-Za-z0-9-]{0,58}[A-Za-z0-9])";
std::string hostname() { return std::string("(?=.{1,253}$)") + kLabel + "(?:\\." + kLabel + ")*"; }

std::string email(bool international) {
  std::string other = international ? "\\u0080-\\u{10FFFF}" : "";
  std::string atext = "[A-Za-z0-9!#$%&'*+/=?^_`{|}~" + other + "-]";
  std::string quoted = "\"(?:[ !#-\\[\\]-~" + other + "]|\\\\[ -~])*\"";
  std::string local = "(?:" + atext + "+(?:\\." + atext + "+)*|" + quoted + ")";
  std::string label = "[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?";
  if (international) label = "[A-Za-z0-9" + other + "](?:[A-Za-z0-9" + other + "-]{0,61}[A-Za-z0-9" + other + "])?";
  std::string literal = "\\[(?:" + ipv4() + "|IPv6:" + ipv6() + ")\\]";
  return "(?=[^@]{1,64}@|\")" + local + "@(?:(?:" + label + ")(?:\\.(?:" + label + "))*|" + literal + ")";
}

// --- RFC 3986 and 3987 --------------------------------------------------------------------------------------------------

struct UriParts {
  std::string uri, reference;
};

UriParts uri(bool international) {
  std::string ucs =
      international
          ? "\\u00A0-\\uD7FF\\uF900-\\uFDCF\\uFDF0-\\uFFEF\\u{10000}-\\u{1FFFD}\\u{20000}-\\u{2FFFD}\\u{30000}-"
            "\\u{3FFFD}\\u{40000}-\\u{4FFFD}\\u{50000}-\\u{5FFFD}\\u{60000}-\\u{6FFFD}\\u{70000}-\\u{7FFFD}"
            "\\u{80000}-\\u{8FFFD}\\u{90000}-\\u{9FFFD}\\u{A0000}-\\u{AFFFD}\\u{B0000}-\\u{BFFFD}\\u{C0000}-"
            "\\u{CFFFD}\\u{D0000}-\\u{DFFFD}\\u{E1000}-\\u{EFFFD}"
          : "";
  std::string private_use = international ? "\\uE000-\\uF8FF\\u{F0000}-\\u{FFFFD}\\u{100000}-\\u{10FFFD}" : "";
  std::string percent = "%[0-9A-Fa-f]{2}", plain = "A-Za-z0-9._~" + ucs, sub = "!$&'()*+,;=";
  auto characters = [&](const std::string& extra) { return "(?:[" + plain + sub + extra + "-]|" + percent + ")"; };
  std::string pchar = characters(":@"), segment = pchar + "*", some = pchar + "+", no_colon = characters("@") + "+";
  std::string literal = "\\[(?:" + ipv6() + "|[Vv][0-9A-Fa-f]+\\.[A-Za-z0-9._~!$&'()*+,;=:-]+)\\]";
  std::string authority = "(?:" + characters(":") + "*@)?(?:" + literal + "|" + characters("") + "*)(?::\\d*)?";
  std::string abempty = "(?:/" + segment + ")*", absolute = "/(?:" + some + abempty + ")?";
  std::string query = "(?:\\?" + characters(":@/?" + private_use) + "*)?",
              fragment = "(?:#" + characters(":@/?") + "*)?";
  std::string tail = query + fragment;
  std::string hierarchy = "(?://" + authority + abempty + "|" + absolute + "|" + some + abempty + "|)";
  std::string relative = "(?://" + authority + abempty + "|" + absolute + "|" + no_colon + abempty + "|)";
  UriParts parts;
  parts.uri = "[A-Za-z][A-Za-z0-9+.-]*:" + hierarchy + tail;
  parts.reference = parts.uri + "|" + relative + tail;
  return parts;
}

std::string uri_template() {
  std::string percent = "%[0-9A-Fa-f]{2}";
  std::string ucs =
      "\\u00A0-\\uD7FF\\uE000-\\uFDCF\\uFDF0-\\uFFEF\\u{10000}-\\u{1FFFD}\\u{20000}-\\u{2FFFD}\\u{30000}-\\u{3FFFD}"
      "\\u{40000}-\\u{4FFFD}\\u{50000}-\\u{5FFFD}\\u{60000}-\\u{6FFFD}\\u{70000}-\\u{7FFFD}\\u{80000}-\\u{8FFFD}"
      "\\u{90000}-\\u{9FFFD}\\u{A0000}-\\u{AFFFD}\\u{B0000}-\\u{BFFFD}\\u{C0000}-\\u{CFFFD}\\u{D0000}-\\u{DFFFD}"
      "\\u{E1000}-\\u{EFFFD}\\u{F0000}-\\u{FFFFD}\\u{100000}-\\u{10FFFD}";
  std::string literal = "(?:[!#$&(-;=?-\\[\\]_a-z~" + ucs + "]|" + percent + ")";
  std::string varchar = "(?:[A-Za-z0-9_]|" + percent + ")", name = varchar + "(?:\\.?" + varchar + ")*";
  std::string variable = name + "(?::[1-9]\\d{0,3}|\\*)?";
  return "(?:" + literal + "|\\{[+#./;?&=,!@|]?" + variable + "(?:," + variable + ")*\\})*";
}

// --- pointers and patterns ----------------------------------------------------------------------------------------------

const char* const kPointer = "(?:/(?:[^~/]|~[01])*)*";

// ECMA-262 patterns in Unicode mode with groups nested to `depth`, without back references and property escapes.
std::string ecma_pattern(int depth) {
  std::string hex = "[0-9A-Fa-f]";
  std::string escape = "\\\\(?:[dDsSwWfnrtv0^$\\\\.*+?()\\[\\]{}|/]|c[A-Za-z]|x" + hex + "{2}|u" + hex + "{4})";
  std::string class_atom = "(?:[^\\\\\\]-]|" + escape + "|\\\\b|\\\\-)";
  std::string klass = "\\[\\^?(?:" + class_atom + ")*\\]";
  std::string quantifier =
      "(?:(?:[*+?]|\\{\\d{1,2}(?:,)?\\})"
      "\\?"
      "?)?";
  std::string atom = "[^\\\\^$.*+?()\\[\\]{}|]|\\.|" + escape + "|" + klass;
  if (depth > 0) atom += "|\\((?:\\?:)?" + ecma_pattern(depth - 1) + "\\)";
  std::string assertion = "[\\^$]|\\\\[bB]";
  if (depth > 0) assertion += "|\\(\\?<?[=!]" + ecma_pattern(depth - 1) + "\\)";
  std::string alternative = "(?:" + assertion + "|(?:" + atom + ")" + quantifier + ")*";
  return alternative + "(?:\\|" + alternative + ")*";
}

using Builder = std::function<std::string()>;
const std::unordered_map<std::string_view, Builder>& formats() {
  static const std::unordered_map<std::string_view, Builder> table{
      {"date", [] { return std::string(kDate); }},
      {"time", [] { return std::string(kTime); }},
      {"date-time", [] { return std::string(kDate) + "[Tt]" + kTime; }},
      {"duration", duration},
      {"ipv4", ipv4},
      {"ip-address", ipv4},  // draft 3's name, still in use
      {"ipv6", ipv6},
      {"hostname", hostname},
      {"host-name", hostname},
      {"idn-hostname", hostname},  // and international_hostname
      {"email", [] { return email(false); }},
      {"idn-email", [] { return email(true); }},
      {"uri", [] { return uri(false).uri; }},
      {"uri-reference", [] { return uri(false).reference; }},
      {"iri", [] { return uri(true).uri; }},
      {"iri-reference", [] { return uri(true).reference; }},
      {"uri-template", uri_template},
      {"uuid", [] { return std::string("[0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}"); }},
      {"json-pointer", [] { return std::string(kPointer); }},
      {"relative-json-pointer",
       [] { return std::string("(?:0|[1-9]\\d*)(?:[+-](?:0|[1-9]\\d*))?(?:#|") + kPointer + ")"; }},
      {"regex", [] { return ecma_pattern(2); }}};
  return table;
}

Node lower(const JsonText& text, const std::string& pattern) {
  auto tree = parse_regex("^(?:" + pattern + ")$", RegexDialect::kEcma);
  return lower_regex(text.lexicon(), *tree, RegexMatch::kFull, json_string_encoder);
}

// --- RFC 5890 to 5893 ---------------------------------------------------------------------------------------------------

// Names with U-labels, in lower case as RFC 5892 has them. The characters are PVALID, stable under NFC in any order, and none of the left
// scripts is R, AL or AN: RFC 5893 asks nothing of a name without these, and of the others that each label passes its rule.
// Lengths: with code points below U+10000, the worst A-label of n characters, k of them not ASCII, has at most 63 octets if n <= 11 or k <= 4
// and n <= 38 (RFC 3492: n deltas that sum to at most 65408 (n + 1) + n, in the digits that the least favourable bias asks for), and never more
// than 36/7 (n + 1) - 1, so that 48 characters make at most 253.
Node international_hostname(const JsonText& text) {
  Lexicon& lexicon = text.lexicon();
  const std::string digits = "0-9", eastern = "\\u06F0-\\u06F9", arabic_indic = "\\u0660-\\u0669";
  const std::string greek = "\\u03AC-\\u03CE", virama = "\\u094D", joiners = "\\u200C\\u200D";
  const std::string marks = "\\u0901-\\u0903\\u093E-\\u094D";
  const std::string kana_han = "\\u3041-\\u3096\\u30A1-\\u30FA\\u4E00-\\u9FFF\\u3005\\u3007";
  const std::string latin =
      "\\u00DF-\\u00F6\\u00F8-"
      "\\u00FF\\u0101\\u0103\\u0105\\u0107\\u0109\\u010B\\u010D\\u010F\\u0111\\u0113\\u0115\\u0117"
      "\\u0119\\u011B\\u011D\\u011F\\u0121\\u0123\\u0125\\u0127\\u0129\\u012B\\u012D\\u012F\\u0131\\u0135\\u0137\\u0138"
      "\\u013A\\u013C\\u013E\\u0142\\u0144\\u0146\\u0148\\u014B\\u014D\\u014F\\u0151\\u0153\\u0155\\u0157\\u0159\\u015B"
      "\\u015D\\u015F\\u0161\\u0163\\u0165\\u0167\\u0169\\u016B\\u016D\\u016F\\u0171\\u0173\\u0175\\u0177\\u017A\\u017C"
      "\\u017E";
  const std::string left =
      "a-z" + latin + greek + "\\u0430-\\u045F\\u0904-\\u0939\\u0F0B\\u30FC\\uAC00-\\uD7A3" + kana_han;
  const std::string hebrew = "\\u05D0-\\u05EA";
  // Joining_Type D, and R or D: between them a ZERO WIDTH NON-JOINER may stand.
  const std::string dual =
      "\\u0628\\u062A-\\u062E\\u0633-\\u063A\\u0641-\\u0647\\u0649\\u064A\\u067E\\u0686\\u06A9\\u06AF\\u06CC";
  const std::string joining = dual + "\\u0627\\u0629\\u062F-\\u0632\\u0648";
  const std::string right = hebrew + "\\u0621-\\u063F\\u0641-\\u064A\\u0679-\\u06D3\\u06D5\\u06FD\\u06FE";

  Node short_enough = lexicon.either(
      {lower(text, ".{1,11}"), lexicon.both({lower(text, ".{1,38}"), lower(text, "[ -~]*(?:[^ -~][ -~]*){0,4}")})});
  Node hyphens = lower(text, "(?!-|..--)(?:.*[^-])");
  auto label = [&](std::vector<Node> conditions) {
    conditions.push_back(short_enough);
    conditions.push_back(hyphens);
    return lexicon.both(std::move(conditions));
  };
  Node left_label = label({
      lower(text, "(?![" + marks + "])(?:[" + left + marks + digits + eastern + "\\u30FB-]|l(?:\\u00B7l)+|\\u0375[" +
                      greek + "]|" + virama + "[" + joiners + "])+"),
      lower(text, "[^\\u30FB]*|.*[" + kana_han + "].*"),
  });
  auto right_label = [&](const std::string& numbers) {
    return label(
        {lower(text, "(?:[" + right + "]|[" + hebrew + "][\\u05F3\\u05F4]|[" + dual + "](?:\\u200C[" + dual +
                         "])*\\u200C[" + joining + "])(?:[" + right + numbers + "-]|[" + hebrew +
                         "][\\u05F3\\u05F4]|[" + dual + "](?:\\u200C[" + dual + "])*\\u200C[" + joining + "])*")});
  };
  Node ascii_label = lower(text, kLabel);
  Node letter_first = lower(text, std::string("(?=[A-Za-z])") + kLabel);
  Node dot = lower(text, "[.\\u3002\\uFF0E\\uFF61]");
  auto name = [&](Node part) { return lexicon.concat(part, lexicon.repeat(lexicon.concat(dot, part), 0, kUnbounded)); };
  return lexicon.both(
      {lower(text, ".{1,48}"), lexicon.either({name(lexicon.either({ascii_label, left_label})),
                                               name(lexicon.either({letter_first, right_label(digits + eastern),
                                                                    right_label(arabic_indic)}))})});
}

Node json_in_string(const JsonText& text) {
  Lexicon& lexicon = text.lexicon();
  auto in_order = [&](std::initializer_list<Node> parts) {
    Node all = kEpsilon;
    for (auto part = std::rbegin(parts); part != std::rend(parts); ++part) all = lexicon.concat(*part, all);
    return all;
  };
  Node space = lower(text, "[ \\t\\n\\r]*"), comma = lower(text, "[ \\t\\n\\r]*,[ \\t\\n\\r]*");
  Node string = lower(text, "\"(?:[^\"\\\\\\x00-\\x1f]|\\\\(?:[\"\\\\/bfnrt]|u[0-9A-Fa-f]{4}))*\"");
  Node scalar =
      lexicon.either({string, lower(text, "-?(?:0|[1-9]\\d*)(?:\\.\\d+)?(?:[eE][+-]?\\d+)?|true|false|null")});
  Node key = in_order({string, space, lower(text, ":"), space}), value = scalar;
  for (int depth = 0; depth < 4; ++depth) {
    auto list = [&](const char* open, Node one, const char* close) {
      Node more = lexicon.repeat(lexicon.concat(comma, one), 0, kUnbounded);
      return in_order({lower(text, open), space, lexicon.optional(in_order({one, more, space})), lower(text, close)});
    };
    value = lexicon.either({scalar, list("\\[", value, "\\]"), list("\\{", lexicon.concat(key, value), "\\}")});
  }
  return in_order({space, value, space});
}

Node build_format(const JsonText& text, std::string_view name) {
  if (name == kContentJson) return json_in_string(text);
  if (name == kContentBase64)
    return lower(text, "(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/][AQgw]==|[A-Za-z0-9+/]{2}[AEIMQUYcgkosw048]=)?");
  Node node = lower(text, formats().at(name)());
  if (name == "idn-hostname") return text.lexicon().either({node, international_hostname(text)});
  if (name != "time" && name != "date-time") return node;
  auto [minutes, hours] = leap_second();
  Node leap = text.lexicon().both({lower(text, minutes), lower(text, hours)});
  if (name == "date-time") leap = text.lexicon().concat(lower(text, std::string(kDate) + "[Tt]"), leap);
  return text.lexicon().either({node, leap});
}

}  // namespace

FormatStatus format_status(std::string_view name, std::string& reason) {
  if (!formats().contains(name)) return FormatStatus::kUnknown;
  if (name == "regex") {
    reason = "groups nest to depth 2 only; no back references, no property escapes";
    return FormatStatus::kApproximated;
  }
  if (name == "hostname" || name == "host-name") {
    reason = "A-labels (xn--) are not offered";
    return FormatStatus::kApproximated;
  }
  if (name == "idn-hostname") {
    reason =
        "no A-labels (xn--); U-labels in Latin, Greek, Cyrillic, Hebrew, Arabic, Devanagari, Hangul, Kana and Han, of "
        "at most 11 "
        "characters (38 if at most 4 are not ASCII), in names of at most 48";
    return FormatStatus::kApproximated;
  }
  return FormatStatus::kEnforced;
}

Node format_language(const JsonText& text, std::string_view name) {
  const std::string kept = "JSON format " + std::string(name);
  Node node = text.lexicon().kept(kept);
  if (node == kNone) text.lexicon().keep(kept, node = build_format(text, name));
  return node;
}

Node wide_format_language(const JsonText& text, std::string_view name) {
  if (name != "hostname" && name != "host-name") return kNone;
  return lower(text, "[A-Za-z0-9-]+(?:\\.[A-Za-z0-9-]+)*");
}

}  // namespace guiderail
