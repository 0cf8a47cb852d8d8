// A grammar joined with a vocabulary, and the matcher that follows one sequence through it.
//
// A compiled grammar may be shared by threads; a matcher may not. All that grows (parser states, sequence states, mask rows) lives in an
// *epoch*. When an epoch exceeds its limits a fresh one replaces it: new matchers start there, and a live matcher that
// meets the limit moves over by reading its own tokens again, so memory stays bounded by what live matchers stand on. A limit that a
// fresh epoch exceeds too is the request's own and is reported to it as LimitError.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "core/closing/completion.h"
#include "core/engine.h"
#include "core/explanation.h"
#include "core/masks/lex_row.h"
#include "core/masks/liveness.h"
#include "core/masks/mask_builder.h"
#include "core/masks/vocabulary.h"
#include "core/parser/infill.h"

namespace guiderail {

// The tables of one epoch: an engine and its mask store.
class Epoch {
 public:
  // `first` is the vocabulary at the first position of a text, null if it is the same there.
  Epoch(std::shared_ptr<const GrammarSource> source, std::shared_ptr<const Vocabulary> vocabulary,
        std::shared_ptr<const Vocabulary> first, const Limits& limits);
  ~Epoch();

  Engine& engine() { return engine_; }
  const LexRowCache& lex_rows() const { return *main_.lex_rows; }
  // `first`: the state stands at the first position of a text.
  const MaskRow& row(StateId state, bool first);
  // No token that the state allows takes more than this many tokens to complete the text after it; Completion::kUnknown if that cannot be told
  // cheaply.
  uint32_t most_after(StateId state, bool first);
  const MaskRow* known_row(StateId state, bool first) const {
    const Store& store = first && first_ ? *first_ : main_;
    std::size_t index = static_cast<std::size_t>(state);
    return index < store.rows.size() ? store.rows[index].load(std::memory_order_acquire) : nullptr;
  }
  // The state after a token; kDead if the token is not allowed. End-of-sequence tokens are the matcher's business.
  StateId after(StateId state, uint32_t token, bool first);
  // The state after a part of a token's bytes, and the mask of the tokens below a place of the trie (never at a text's first position).
  StateId after_text(StateId state, std::string_view text);
  std::vector<uint32_t> row_below(StateId state, uint32_t place);
  // Can some text of the grammar be written in tokens?
  bool spellable();
  // Made when a sequence with a limit on its tokens first asks.
  Completion& completion();
  std::size_t mask_bytes() const {
    const Completion* made = completion_made_.load(std::memory_order_acquire);
    return mask_bytes_.load(std::memory_order_relaxed) + (made ? made->bytes_used() : 0) +
           (main_.shapes ? main_.shapes->bytes_used() : 0) +
           (first_ && first_->shapes ? first_->shapes->bytes_used() : 0);
  }
  std::size_t num_rows() const { return num_rows_.load(std::memory_order_relaxed); }

 private:
  // The masks of one vocabulary.
  struct Store {
    // `live`: see TokenReadings.
    Store(std::shared_ptr<const Vocabulary> vocabulary, Engine& engine, MunchViability* live)
        : vocabulary(std::move(vocabulary)), lex_rows(this->vocabulary->rows(engine.symbols().shared_lexicon())),
          shapes(TokenReadings::usable(engine, live) ? std::make_unique<ShapeTokens>(engine, *this->vocabulary, live)
                                                     : nullptr) {}
    ~Store();
    std::shared_ptr<const Vocabulary> vocabulary;
    std::shared_ptr<LexRowCache> lex_rows;
    std::unique_ptr<ShapeTokens> shapes;
    StableVector<std::atomic<const MaskRow*>> rows;
  };

  MaskBuilder builder(Store& store) {
    return {engine_, *store.vocabulary, *store.lex_rows, liveness_.get(), store.shapes.get()};
  }
  Store& store(bool first) { return first && first_ ? *first_ : main_; }
  // The state whose mask serves this one (Engine::generalised).
  StateId general(StateId state);
  const MaskRow& publish(Store& store, StateId state, std::unique_ptr<MaskRow> row);

  Engine engine_;
  std::unique_ptr<Liveness> liveness_;  // null if every byte is a token
  Store main_;
  bool prints_ascii_ = true;  // is each printable ASCII character a token?
  std::unique_ptr<Store> first_;
  std::unique_ptr<Completion> completion_;
  std::atomic<Completion*> completion_made_{nullptr};
  std::mutex mutex_;
  std::atomic<std::size_t> mask_bytes_{0}, num_rows_{0};
};

class CompiledGrammar : public std::enable_shared_from_this<CompiledGrammar> {
 public:
  // `first`: the vocabulary at the first position of a text where its bytes differ there (SentencePiece, WordPiece), else null.
  CompiledGrammar(std::shared_ptr<const GrammarSource> source, std::shared_ptr<const Vocabulary> vocabulary,
                  std::shared_ptr<const Vocabulary> first, Limits limits);

  const Vocabulary& vocabulary() const { return *vocabulary_; }
  // What tokens mean at the first position of a text.
  const Vocabulary& first_vocabulary() const { return first_ ? *first_ : *vocabulary_; }
  const Limits& limits() const { return limits_; }
  std::shared_ptr<Epoch> epoch() const;
  // A fresh epoch in place of `full` (and true), or the one that already replaced it (and false).
  std::pair<std::shared_ptr<Epoch>, bool> renew(const std::shared_ptr<Epoch>& full);
  std::size_t bytes_used() const;

 private:
  std::shared_ptr<const GrammarSource> source_;
  std::shared_ptr<const Vocabulary> vocabulary_, first_;
  Limits limits_;
  mutable std::mutex mutex_;
  std::shared_ptr<Epoch> epoch_;
};

class Matcher {
 public:
  // With `max_tokens`, the text is complete after at most that many tokens, the end-of-sequence token not counted (completion.h).
  // With `suffix`, the text is such that the suffix may follow it and complete it (infill.h); not together with max_tokens.
  // With `pending`, the tokens spell it before anything else (token healing): a token may stop inside of it, or go on with the text behind. It is no
  // part of the text, and tokens that spell nothing else do not count for `max_tokens`.
  // Throws GrammarError if nothing in the language begins with `prefix`, or leads from it to the suffix, LimitError `max_tokens` if no completion of so few tokens is known,
  // DeadEndError if tokens cannot spell `pending`.
  Matcher(std::shared_ptr<CompiledGrammar> compiled, std::string prefix, std::optional<uint32_t> max_tokens = {},
          std::optional<std::string> suffix = {}, std::string pending = "");

  bool accept_token(uint32_t token);
  std::size_t accept_tokens(std::span<const uint32_t> tokens);
  // How many of these tokens would be accepted one after the other; the matcher does not move.
  std::size_t count_valid(std::span<const uint32_t> tokens);
  void fill(uint32_t* words);
  // As fill, but only if the row is there already; never takes long.
  bool fill_known(uint32_t* words);
  // One row per node of a tree of draft tokens: row i is the mask after the path to node i; parents[i] < i or -1 for the root, whose path is
  // the matcher's own state. A node whose token is not allowed gets an empty row.
  void fill_draft(std::span<const int32_t> parents, std::span<const uint32_t> tokens, uint32_t* words,
                  std::size_t row_stride);
  bool is_accepting();
  bool has_suffix() const { return suffix_.has_value(); }
  bool is_terminated() const { return terminated_; }
  // Was some token, or the end, chosen where the limit on tokens had made the mask smaller?
  bool closed_early();
  // Without the limit on tokens and the suffix: what the grammar alone allows.
  Matcher unlimited() const;
  void rollback(std::size_t tokens);
  void reset();
  std::size_t num_tokens() const { return tokens_.size(); }
  // The bytes of accepted token `i`; none if it ended the text.
  std::optional<std::string_view> text_of(std::size_t i) const {
    if (terminated_ && i + 1 == tokens_.size()) return std::nullopt;
    bool first = i == 0 && prefix_.empty() && pending_.empty();
    std::string_view text = (first ? compiled_->first_vocabulary() : compiled_->vocabulary()).token(tokens_[i]);
    return text.substr(std::min<std::size_t>(pending_.empty() ? 0 : left_[i], text.size()));
  }
  // Bytes that every continuation begins with, at most `limit`; stops where the text may end.
  std::string forced_bytes(std::size_t limit);
  // True if the text must end here: it is in the language and nothing may follow.
  bool must_stop();
  // What may come next, in the grammar's words.
  std::vector<std::string> expected();
  // The same in more words, why a byte may not come next, and the rules that are open (explanation.h). Nothing while bytes are pending.
  std::vector<Expectation> expectations();
  std::vector<std::string> refusals(std::string_view text);  // of its first byte that does not fit
  std::vector<std::string> open_rules();
  // The number of bytes of `text` that may follow.
  std::size_t count_bytes(std::string_view text);

  const std::shared_ptr<CompiledGrammar>& compiled() const { return compiled_; }
  StateId state() const { return states_.back(); }
  bool same_state(const Matcher& other) const {
    return epoch_ == other.epoch_ && state() == other.state() && terminated_ == other.terminated_ &&
           room() == other.room() && suffix_ == other.suffix_ && to_spell() == other.to_spell() &&
           (!max_tokens_ || reserve_.back() == other.reserve_.back());
  }

 private:
  // How a sequence with a limit closes from here: by a plan, of which some tokens have been written.
  struct Reserve {
    Completion::Plan plan;  // null: that of the state, which is short enough and has not been asked for yet
    std::size_t written = 0;
    std::span<const uint32_t> rest() const { return std::span(*plan).subspan(written); }
    // Of reserves of the same state with the same room.
    bool operator==(const Reserve& other) const {
      return !plan || !other.plan ? true : std::ranges::equal(rest(), other.rest());
    }
    uint32_t next() const { return rest().empty() ? Completion::kNoToken : rest().front(); }
  };

  template <typename F>
  auto with_epoch(F f);
  // What is reserved after a token that the grammar allows, which leads to `to`; nothing if the token does not fit. `whole`: the token begins at `from`, none
  // of it was pending.
  std::optional<Reserve> after(Reserve& reserve, uint32_t room, uint32_t token, StateId from, bool first, StateId to,
                               bool whole);
  // Writes out the plan of a reserve that leaves it to its state.
  Reserve& plan_of(Reserve& reserve, StateId state, bool first, uint32_t room);
  // Can some token that the state allows be too much for this room?
  bool near(StateId state, bool first, uint32_t room) { return epoch_->most_after(state, first) >= room; }
  // Tokens that may still be written; without a limit kUnlimited.
  static constexpr uint32_t kUnlimited = UINT32_MAX;
  uint32_t room() const {
    return max_tokens_ ? *max_tokens_ - static_cast<uint32_t>(tokens_.size() - spelling_ - (terminated_ ? 1 : 0))
                       : kUnlimited;
  }
  void fill(uint32_t* words, StateId state, bool first, Reserve& reserve, uint32_t room);
  void make_infill() {
    if (suffix_) infill_ = std::make_shared<Infill>(epoch_->engine(), compiled_->vocabulary(), *suffix_);
  }
  // What may come next, with the suffix in mind.
  ByteSet next_bytes(StateId state);
  // May the text end in a state, with the suffix behind it where there is one?
  bool ends(StateId state) { return infill_ ? infill_->complete(state) : epoch_->engine().accepting(state); }
  // The states of this sequence in an epoch's numbers.
  std::vector<StateId> replay(Epoch& epoch) const;
  bool at_first() const { return tokens_.empty() && prefix_.empty() && pending_.empty(); }
  // What is left of `pending`.
  uint32_t left() const { return left_.empty() ? 0 : left_.back(); }
  std::string_view to_spell(uint32_t left) const { return std::string_view(pending_).substr(pending_.size() - left); }
  std::string_view to_spell() const { return to_spell(left()); }
  // As Epoch::after, with `left` of the pending bytes to be spelled first; `left` becomes what is left of them.
  StateId after(Epoch& epoch, StateId state, uint32_t token, bool first, uint32_t& left) const;
  // Can tokens spell so much of the pending bytes, whatever stands behind them?
  bool spellable(StateId state, uint32_t left);
  void fill_pending(uint32_t* words, StateId state, uint32_t left, Reserve* reserve, uint32_t room);

  std::shared_ptr<CompiledGrammar> compiled_;
  std::shared_ptr<Epoch> epoch_;
  std::string prefix_;
  std::vector<uint32_t> tokens_;
  std::vector<StateId> states_;  // states_[0] after the prefix, then one per token
  bool terminated_ = false;
  std::optional<uint32_t> max_tokens_;
  std::optional<std::string> suffix_;
  std::shared_ptr<Infill> infill_;  // of epoch_, where there is a suffix
  std::vector<Reserve> reserve_;    // with a limit: as states_
  std::size_t looked_at_ = 0;       // tokens about which closed_early knows
  std::size_t early_ = SIZE_MAX;    // the first of them that was chosen under a mask made smaller
  std::string pending_;
  std::vector<uint32_t> left_;  // of pending bytes: as states_; none where nothing was pending
  std::size_t spelling_ = 0;    // tokens, at the beginning, that spell pending bytes only
  std::size_t growth_ = 0;      // bytes of shared tables this matcher has caused
};

}  // namespace guiderail
