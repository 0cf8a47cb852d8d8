// A vocabulary for fuzz targets: some bytes, some pairs and longer pieces, one end. The laws of masks are checked over it.
#pragma once

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/compiled_grammar.h"
#include "core/masks/vocabulary.h"

namespace guiderail::fuzz {

// Aborts, so that a driver keeps the input; an assertion would vanish from optimised builds.
inline void law(bool holds, const char* what) {
  if (holds) return;
  std::fprintf(stderr, "law broken: %s\n", what);
  std::abort();
}

// Every byte, or only those of `alphabet`, then `pieces`, then the end.
inline std::shared_ptr<const Vocabulary> tiny_vocabulary(std::string_view alphabet, std::vector<std::string> pieces) {
  std::vector<std::string> tokens;
  for (char c : alphabet) tokens.emplace_back(1, c);
  tokens.insert(tokens.end(), pieces.begin(), pieces.end());
  std::string bytes;
  std::vector<uint32_t> offsets{0};
  for (const std::string& token : tokens) {
    bytes += token;
    offsets.push_back(static_cast<uint32_t>(bytes.size()));
  }
  offsets.push_back(offsets.back());  // the end's text is empty
  std::vector<uint8_t> kinds(tokens.size(), Vocabulary::kText);
  kinds.push_back(Vocabulary::kSpecial);
  return std::make_shared<Vocabulary>(std::move(bytes), std::move(offsets), std::move(kinds),
                                      std::unordered_map<std::string, uint32_t>{},
                                      std::vector<uint32_t>{static_cast<uint32_t>(tokens.size())});
}

inline std::string all_bytes() {
  std::string bytes;
  for (int b = 0; b < 256; ++b) bytes += static_cast<char>(b);
  return bytes;
}

inline bool allows(const std::vector<uint32_t>& mask, uint32_t token) {
  return (mask[token / 32] >> token % 32 & 1) != 0;
}

// Follows `choices` through a matcher. At each place: a bit of the mask is set if and only if the token is accepted; the end is allowed
// where the text is complete, and only there; some token is allowed; going back restores the mask.
inline void check_laws(const std::shared_ptr<CompiledGrammar>& compiled, std::span<const uint8_t> choices) {
  const Vocabulary& vocabulary = compiled->vocabulary();
  Matcher matcher(compiled, "");
  std::vector<uint32_t> mask(vocabulary.num_words()), again(vocabulary.num_words());
  for (uint8_t choice : choices) {
    matcher.fill(mask.data());
    std::vector<uint32_t> allowed;
    for (uint32_t token = 0; token < vocabulary.size(); ++token) {
      Matcher copy = matcher;
      bool accepted = copy.accept_token(token);
      law(accepted == allows(mask, token), "mask bit <=> accept_token");
      if (accepted) allowed.push_back(token);
      if (vocabulary.is_eos(token)) law(accepted == matcher.is_accepting(), "end allowed <=> accepting");
    }
    law(!allowed.empty(), "every place can go on or end");
    uint32_t token = allowed[choice % allowed.size()];
    law(matcher.accept_token(token), "an allowed token is accepted");
    matcher.rollback(1);
    matcher.fill(again.data());
    law(mask == again, "rollback undoes accept_token");
    matcher.accept_token(token);
    if (matcher.is_terminated()) return;
  }
}

}  // namespace guiderail::fuzz
