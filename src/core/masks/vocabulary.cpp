#include "core/masks/vocabulary.h"

#include <algorithm>
#include <array>
#include <charconv>

#include "core/errors.h"
#include "core/masks/lex_row.h"
#include "core/masks/plain_tokens.h"

namespace guiderail {

namespace {
// Of cached lexeme rows. A fuller cache lives on with the grammars that use it.
constexpr std::size_t kMaxRowBytes = std::size_t{1} << 26;
}  // namespace

Vocabulary::Vocabulary(std::string bytes, std::vector<uint32_t> offsets, std::vector<uint8_t> kinds,
                       std::unordered_map<std::string, uint32_t> special_tokens, std::vector<uint32_t> eos_token_ids)
    : bytes_(std::move(bytes)), offsets_(std::move(offsets)), kinds_(std::move(kinds)),
      special_(std::move(special_tokens)), eos_(std::move(eos_token_ids)) {
  if (offsets_.size() != kinds_.size() + 1 || offsets_.front() != 0 || offsets_.back() != bytes_.size() ||
      !std::ranges::is_sorted(offsets_))
    throw GrammarError("vocabulary: offsets do not fit the bytes");
  for (uint32_t id : eos_)
    if (id >= size()) throw GrammarError("vocabulary: end-of-sequence id " + std::to_string(id) + " is out of range");
  for (const auto& [text, id] : special_)
    if (id >= size()) throw GrammarError("vocabulary: id of special token '" + text + "' is out of range");
  std::vector<std::pair<std::string_view, uint32_t>> entries;
  entries.reserve(size());
  std::array<bool, 256> single{};
  for (uint32_t id = 0; id < size(); ++id) {
    if (!is_text(id)) continue;
    std::string_view text = token(id);
    entries.emplace_back(text, id);
    longest_ = std::max(longest_, static_cast<uint32_t>(text.size()));
    if (text.size() == 1) single[static_cast<uint8_t>(text[0])] = true;
  }
  byte_complete_ = std::ranges::all_of(single, [](bool b) { return b; });
  trie_ = TokenTrie::build(entries);
  trie_.summarize();
  ranks_.assign(size(), 0);
  for (uint32_t rank = 0; rank < trie_.all_tokens().size(); ++rank) ranks_[trie_.all_tokens()[rank]] = rank;
}

Vocabulary::~Vocabulary() = default;

bool Vocabulary::is_eos(uint32_t id) const { return std::ranges::find(eos_, id) != eos_.end(); }

int64_t Vocabulary::special(const std::string& text) const {
  if (is_token_id(text)) {
    uint32_t id = 0;
    std::from_chars(text.data() + 2, text.data() + text.size() - 2, id);
    return id < size() ? int64_t{id} : -1;
  }
  auto it = special_.find(text);
  return it == special_.end() ? -1 : int64_t{it->second};
}

bool Vocabulary::is_token_id(std::string_view text) {
  return text.size() > 4 && text.size() < 14 && text.starts_with("<[") && text.ends_with("]>") &&
         std::ranges::all_of(text.substr(2, text.size() - 4), [](char c) { return c >= '0' && c <= '9'; });
}

const PlainTokens& Vocabulary::plain() const {
  std::lock_guard lock(mutex_);
  if (!plain_) plain_ = std::make_unique<PlainTokens>(*this);
  return *plain_;
}

std::shared_ptr<LexRowCache> Vocabulary::rows(const std::shared_ptr<Lexicon>& lexicon) const {
  std::lock_guard lock(mutex_);
  if (!rows_ || generation_.lock() != lexicon || rows_->bytes_used() > kMaxRowBytes) {
    rows_ = std::make_shared<LexRowCache>(*this, *lexicon);
    generation_ = lexicon;
  }
  return rows_;
}

}  // namespace guiderail
