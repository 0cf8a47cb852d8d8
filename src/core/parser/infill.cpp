#include "core/parser/infill.h"

#include <algorithm>
#include <string_view>
#include <utility>

#include "core/errors.h"
#include "core/growth.h"

namespace guiderail {

namespace {

constexpr std::size_t kMasksKept = 512;

}  // namespace

Infill::Infill(Engine& engine, const Vocabulary& vocabulary, std::string suffix)
    : engine_(engine), vocabulary_(vocabulary), suffix_(std::move(suffix)) {
  if (engine_.mixed())
    throw GrammarError("a suffix is not supported where parts of a grammar are lexed in different ways");
  refuse_captures();
  for (const std::string& text : engine_.symbols().special_tokens()) special_.push_back(vocabulary_.special(text) >= 0);
  if (vocabulary_.byte_complete()) {
    exact_.before = kAll;
    return;
  }
  Lexicon& lexicon = engine_.lexicon();
  auto any_number = [&](const ByteSet& bytes) {
    return bytes.empty() ? kEpsilon : lexicon.repeat(lexicon.bytes(bytes), 0, kUnbounded);
  };
  ByteSet single, any;
  for (const TrieNode& child : vocabulary_.trie().children(TokenTrie::kRoot))
    if (child.num_tokens) single.add(child.byte);
  for (uint32_t i = 1; i < vocabulary_.trie().size(); ++i) any.add(vocabulary_.trie().node(i).byte);
  if (single == any) {
    exact_.before = any_number(any);
    return;
  }
  enough_.before = any_number(single);
  needed_.before = any_number(any);
  std::vector<std::pair<std::string_view, Node>> tokens;
  for (uint32_t i = 0; i < vocabulary_.size(); ++i)
    if (vocabulary_.is_text(i)) tokens.emplace_back(vocabulary_.token(i), kEpsilon);
  exact_.before = lexicon.repeat(lexicon.literals(std::move(tokens)), 0, kUnbounded);
}

Infill::~Infill() = default;

// Productions are asked for on demand, so a capture may come up late.
void Infill::refuse_captures() const {
  if (engine_.symbols().has_captures())
    throw GrammarError("a suffix is not supported where what may follow depends on the text before (uniqueItems)");
}

bool Infill::leads_to_suffix(const Thread& thread, Question& question) {
  Lexicon& lexicon = engine_.lexicon();
  std::lock_guard lock(engine_.parser().mutex());
  if (engine_.indentation()) {
    InfillBlocks::Widths widths = InfillBlocks::enough(engine_, suffix_, thread);
    std::unique_ptr<InfillBlocks>& blocks = question.blocks[widths];
    if (!blocks) blocks = std::make_unique<InfillBlocks>(engine_, question.before, special_, suffix_, widths);
    return blocks->viable(thread);
  }
  if (!question.viability) {
    question.language = lexicon.concat(question.before, lexicon.literal(suffix_));
    question.viability = std::make_unique<MunchViability>(engine_.parser(), engine_.symbols(), engine_.modes(),
                                                          engine_.marked(), engine_.num_lexers(), engine_.shadowed(),
                                                          engine_.limits().munch_states, question.language, special_);
  }
  Thread t = thread;
  t.obligation = lexicon.both({t.obligation, question.language});
  if (t.obligation == kNone || !lexicon.alive(t.obligation)) return false;
  return t.at_boundary() ? question.viability->viable(t.parser, t.obligation) : question.viability->viable(t);
}

// A lexeme that ends here, before the suffix, has a boundary thread of its own.
bool Infill::possible(StateId state) {
  state = engine_.untracked(state);
  if (uint32_t known = possible_.find(static_cast<uint32_t>(state)); known != PublishedMap::kUnknown) return known == 1;
  Lexicon::Budget budget(engine_.limits().lexer_states_per_request);
  bool result = std::ranges::any_of(engine_.threads(state), [this](const Thread& t) {
    if (enough_.before != kNone) {
      if (leads_to_suffix(t, enough_)) return true;
      if (!leads_to_suffix(t, needed_)) return false;
    }
    return leads_to_suffix(t, exact_);
  });
  std::lock_guard lock(mutex_);
  growth_of_this_thread += possible_.insert(static_cast<uint32_t>(state), result ? 1 : 0);
  return result;
}

bool Infill::complete(StateId state) {
  if (uint32_t known = complete_.find(static_cast<uint32_t>(state)); known != PublishedMap::kUnknown) return known == 1;
  StateId end = engine_.advance(state, suffix_);
  bool result = end != kDead && engine_.accepting(end);
  if (!result) {
    end = engine_.advance(engine_.untracked(state), suffix_);
    if (end != kDead && engine_.accepting(end))
      throw GrammarError(
          "the suffix brings a property name, or an item, that must not come twice and stands in the text before it");
  }
  std::lock_guard lock(mutex_);
  growth_of_this_thread += complete_.insert(static_cast<uint32_t>(state), result ? 1 : 0);
  return result;
}

void Infill::fill(StateId state, bool first, Completion& completion, uint32_t* words, std::size_t num_words) {
  uint64_t key = (uint64_t{static_cast<uint32_t>(state)} << 1) | (first ? 1 : 0);
  {
    std::lock_guard lock(mutex_);
    if (auto known = masks_.find(key); known != masks_.end()) {
      std::ranges::copy(known->second, words);
      return;
    }
  }
  refuse_captures();
  std::vector<uint32_t> mask(num_words, 0);
  auto allow = [&](uint32_t token) { mask[token / 32] |= uint32_t{1} << (token % 32); };
  for (const Completion::Successor& successor : completion.successors(state, first))
    if (completion.takes(state, successor.tokens.front(), first) && possible(successor.next))
      std::ranges::for_each(successor.tokens, allow);
  if (complete(state)) std::ranges::for_each(vocabulary_.eos_token_ids(), allow);
  std::ranges::copy(mask, words);
  std::lock_guard lock(mutex_);
  if (masks_.size() >= kMasksKept) masks_.clear();
  masks_.emplace(key, std::move(mask));
}

}  // namespace guiderail
