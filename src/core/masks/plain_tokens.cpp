#include "core/masks/plain_tokens.h"

#include <string_view>
#include <utility>

#include "core/lexer/lexeme_stretch.h"
#include "core/masks/vocabulary.h"
#include "core/text/utf8_lead.h"

namespace guiderail {

namespace {

// Plain characters, of which the last may be cut off.
bool is_plain(std::string_view text) {
  for (std::size_t i = 0; i < text.size();) {
    const auto byte = static_cast<uint8_t>(text[i++]);
    const Utf8Lead* lead = utf8_lead(byte);
    if ((byte >= 0x80 && !lead) || !LexemeStretches::plain_characters().has(byte)) return false;
    if (!lead) continue;
    for (int more = lead->more; more > 0 && i < text.size(); --more) {
      const auto next = static_cast<uint8_t>(text[i++]);
      const bool second = more == lead->more;
      if (next < (second ? lead->first : 0x80) || next > (second ? lead->last : 0xBF)) return false;
    }
  }
  return true;
}

}  // namespace

PlainTokens::PlainTokens(const Vocabulary& vocabulary) : tokens_(vocabulary.num_words(), 0) {
  std::vector<std::pair<std::string_view, uint32_t>> others;
  for (uint32_t token : vocabulary.trie().all_tokens())
    if (std::string_view text = vocabulary.token(token); is_plain(text))
      tokens_[token >> 5] |= uint32_t{1} << (token & 31);
    else
      others.emplace_back(text, token);
  others_ = TokenTrie::build(others);
}

}  // namespace guiderail
