// Regular expressions: bytes → options, pattern, text. Whatever the pattern is, parsing ends in a tree or a GrammarError, lowering
// in a node or a LimitError; along the text, alive, nullable and step agree with each other; and what `kOrdered` takes, `kFull` takes.
#include <algorithm>
#include <memory>
#include <string_view>

#include "core/errors.h"
#include "core/lexer/lexicon.h"
#include "core/regex/regex.h"
#include "tiny_vocabulary.h"

using namespace guiderail;

namespace {

constexpr std::size_t kNodes = 20'000;  // a small budget: large ones are slow, not different

// `whole`: a larger language, or null.
void follow(Lexicon& lexicon, Node node, const Node* whole, std::string_view text) {
  Node larger = whole ? *whole : kNone;
  for (char c : text) {
    node = lexicon.step(node, static_cast<uint8_t>(c));
    if (whole) larger = lexicon.step(larger, static_cast<uint8_t>(c));
    if (node == kNone) return;
    fuzz::law(lexicon.alive(node), "a remainder that step returned is alive");
    if (whole) fuzz::law(!lexicon.nullable(node) || lexicon.nullable(larger), "what is matched in order is matched");
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, std::size_t size) {
  if (size < 2) return 0;
  std::string_view rest(reinterpret_cast<const char*>(data) + 2, size - 2);
  std::string_view pattern = rest.substr(0, data[1] % (rest.size() + 1)), text = rest.substr(pattern.size());
  RegexFlags flags{.ignore_case = (data[0] & 2) != 0,
                   .multiline = (data[0] & 4) != 0,
                   .dot_all = (data[0] & 8) != 0,
                   .verbose = (data[0] & 16) != 0,
                   .ascii = (data[0] & 32) != 0};
  try {
    auto tree = parse_regex(pattern, data[0] & 1 ? RegexDialect::kEcma : RegexDialect::kPython, flags);
    Lexicon lexicon(std::size_t{1} << 26);
    Lexicon::Budget budget(kNodes);
    Node full = lower_regex(lexicon, *tree, RegexMatch::kFull, encode_utf8);
    follow(lexicon, full, nullptr, text);
    if (data[0] & 64) follow(lexicon, lower_regex(lexicon, *tree, RegexMatch::kSearch, encode_utf8), nullptr, text);
    if (data[0] & 128) follow(lexicon, lower_regex(lexicon, *tree, RegexMatch::kOrdered, encode_utf8), &full, text);
  } catch (const GrammarError&) {
  } catch (const LimitError&) {}
  return 0;
}
