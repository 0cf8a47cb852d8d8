#include "core/compiled_grammar.h"

#include <algorithm>
#include <bit>
#include <cstring>

#include "core/errors.h"
#include "core/growth.h"

namespace guiderail {

Epoch::Epoch(std::shared_ptr<const GrammarSource> source, std::shared_ptr<const Vocabulary> vocabulary,
             std::shared_ptr<const Vocabulary> first, const Limits& limits)
    : engine_(std::move(source), limits),
      liveness_(Liveness::needed(engine_, *vocabulary) ? std::make_unique<Liveness>(engine_, *vocabulary) : nullptr),
      main_(std::move(vocabulary), engine_, liveness_ ? liveness_->by_single_bytes() : nullptr) {
  if (first)
    first_ = std::make_unique<Store>(std::move(first), engine_, liveness_ ? liveness_->by_single_bytes() : nullptr);
  const TokenTrie& trie = main_.vocabulary->trie();
  for (uint32_t byte = 0x20; byte < 0x7F; ++byte) {
    uint32_t place = trie.child(TokenTrie::kRoot, static_cast<uint8_t>(byte));
    prints_ascii_ = prints_ascii_ && place != 0 && trie.node(place).num_tokens > 0;
  }
}

Epoch::~Epoch() = default;

// Where not every name can be written there may be few, and which have come decides whether there is another. Printable ASCII spells all: JSON
// has an escape for every character.
StateId Epoch::general(StateId state) {
  if (!liveness_ || prints_ascii_) return engine_.generalised(state);
  return state;
}

Epoch::Store::~Store() {
  for (std::size_t i = 0; i < rows.size(); ++i) delete rows[i].load(std::memory_order_relaxed);
}

const MaskRow& Epoch::row(StateId state, bool first) {
  if (const MaskRow* known = known_row(state, first)) return *known;
  Store& store = this->store(first);
  if (mask_bytes() > engine_.limits().mask_bytes)
    throw LimitError("mask_bytes", "the masks of one compiled grammar fill their memory budget");
  Lexicon::Budget budget(engine_.limits().lexer_states_per_request);
  MaskBuilder builder = this->builder(store);
  if (StateId general = this->general(state); general != state) {
    const MaskRow& shared = row(general, first);
    return publish(store, state, std::make_unique<MaskRow>(builder.specialise(state, shared)));
  }
  return publish(store, state, std::make_unique<MaskRow>(builder.build(state)));
}

uint32_t Epoch::most_after(StateId state, bool first) {
  Completion& completion = this->completion();
  if (std::optional<uint32_t> known = completion.known_most_after(state, first)) return *known;
  Store& store = this->store(first);
  Lexicon::Budget budget(engine_.limits().lexer_states_per_request);
  if (StateId general = this->general(state); general != state) {
    most_after(general, first);
    return completion.most_after(state, first, general);
  }
  Reach reach;
  if (completion.can_estimate()) {
    MaskRow row = builder(store).build(state, &reach);
    if (!known_row(state, first)) publish(store, state, std::make_unique<MaskRow>(std::move(row)));
  }
  return completion.most_after(state, first, reach);
}

const MaskRow& Epoch::publish(Store& store, StateId state, std::unique_ptr<MaskRow> fresh) {
  std::lock_guard lock(mutex_);
  std::size_t index = static_cast<std::size_t>(state);
  while (store.rows.size() <= index) store.rows.emplace_back(nullptr);
  if (const MaskRow* known = store.rows[index].load(std::memory_order_acquire)) return *known;
  std::size_t size = fresh->bytes_used();
  mask_bytes_.fetch_add(size, std::memory_order_relaxed);
  num_rows_.fetch_add(1, std::memory_order_relaxed);
  growth_of_this_thread += size;
  store.rows[index].store(fresh.get(), std::memory_order_release);
  return *fresh.release();
}

Completion& Epoch::completion() {
  if (Completion* made = completion_made_.load(std::memory_order_acquire)) return *made;
  std::lock_guard lock(mutex_);
  if (!completion_) {
    completion_ =
        std::make_unique<Completion>(engine_, *main_.vocabulary, first_ ? first_->vocabulary.get() : nullptr,
                                     [this](StateId s, uint32_t token, bool f) { return after(s, token, f); });
    completion_made_.store(completion_.get(), std::memory_order_release);
  }
  return *completion_;
}

bool Epoch::spellable() {
  if (!liveness_) return true;
  StateId start = engine_.initial();
  if (!first_) return liveness_->live(start);
  std::vector<uint32_t> words(main_.vocabulary->num_words());
  row(start, true).fill(words.data(), main_.vocabulary->num_words());
  return std::ranges::any_of(words, [](uint32_t word) { return word != 0; });
}

StateId Epoch::after(StateId state, uint32_t token, bool first) {
  const Vocabulary& vocabulary = *(first && first_ ? *first_ : main_).vocabulary;
  bool text = vocabulary.is_text(token);
  StateId next = text ? engine_.advance(state, vocabulary.token(token)) : kDead;
  const auto& names = engine_.symbols().special_tokens();
  for (uint32_t i = 0; i < names.size(); ++i) {
    // A grammar may name a token of text by its id, and mean it as one symbol.
    if ((text && !Vocabulary::is_token_id(names[i])) || vocabulary.special(names[i]) != int64_t{token}) continue;
    StateId whole = engine_.advance_special(state, i);
    if (whole == kDead || whole == next) continue;
    std::vector<Thread> threads(engine_.threads(next).begin(), engine_.threads(next).end());
    threads.insert(threads.end(), engine_.threads(whole).begin(), engine_.threads(whole).end());
    next = engine_.intern(threads);
  }
  return liveness_ && !liveness_->live(next) ? kDead : next;
}

StateId Epoch::after_text(StateId state, std::string_view text) {
  StateId next = engine_.advance(state, text);
  return liveness_ && !liveness_->live(next) ? kDead : next;
}

std::vector<uint32_t> Epoch::row_below(StateId state, uint32_t place) {
  Lexicon::Budget budget(engine_.limits().lexer_states_per_request);
  const Vocabulary& vocabulary = *main_.vocabulary;
  std::vector<uint32_t> words(vocabulary.num_words());
  builder(main_).build_below(state, place).fill(words.data(), vocabulary.num_words());
  for (uint32_t token : vocabulary.trie().tokens(place)) words[token / 32] &= ~(uint32_t{1} << (token % 32));
  return words;
}

CompiledGrammar::CompiledGrammar(std::shared_ptr<const GrammarSource> source,
                                 std::shared_ptr<const Vocabulary> vocabulary, std::shared_ptr<const Vocabulary> first,
                                 Limits limits)
    : source_(std::move(source)), vocabulary_(std::move(vocabulary)), first_(std::move(first)), limits_(limits),
      epoch_(std::make_shared<Epoch>(source_, vocabulary_, first_, limits_)) {
  if (first_ && first_->size() != vocabulary_->size())
    throw GrammarError("the vocabulary at the first position has another size");
  if (!epoch_->spellable())
    throw DeadEndError("the vocabulary cannot write any text of the grammar: no sequence of its tokens spells one");
}

std::shared_ptr<Epoch> CompiledGrammar::epoch() const {
  std::lock_guard lock(mutex_);
  return epoch_;
}

std::pair<std::shared_ptr<Epoch>, bool> CompiledGrammar::renew(const std::shared_ptr<Epoch>& full) {
  std::lock_guard lock(mutex_);
  bool fresh = epoch_ == full;
  if (fresh) epoch_ = std::make_shared<Epoch>(source_, vocabulary_, first_, limits_);
  return {epoch_, fresh};
}

std::size_t CompiledGrammar::bytes_used() const {
  auto e = epoch();
  return e->engine().bytes_used() + e->mask_bytes();
}

// --- matcher --------------------------------------------------------------------------------------------------------

namespace {
bool of_epoch(const LimitError& e) {
  return e.limit == "states" || e.limit == "grammar_bytes" || e.limit == "mask_bytes" || e.limit == "lexicon_bytes";
}
}  // namespace

// Runs f; if the epoch's tables are full, once more in a fresh one. Growth counts against this matcher.
template <typename F>
auto Matcher::with_epoch(F f) {
  std::size_t before = growth_of_this_thread;
  struct Account {
    Matcher& m;
    std::size_t before;
    ~Account() { m.growth_ += growth_of_this_thread - before; }
  } account{*this, before};
  if (growth_ > compiled_->limits().request_bytes)
    throw LimitError("request_bytes", "this sequence has made the shared tables grow too much");
  try {
    return f();
  } catch (const LimitError& e) {
    if (!of_epoch(e)) throw;
  }
  // The current epoch, where others have moved to before, may be full as well; a fresh one that is too small is the request's own limit. A
  // failure leaves the matcher where it was, in its old epoch.
  std::shared_ptr<Epoch> full = epoch_;
  while (true) {
    auto [epoch, fresh] = compiled_->renew(full);
    try {
      std::vector<StateId> states = replay(*epoch);
      epoch_ = epoch;
      states_ = std::move(states);
      make_infill();
      return f();
    } catch (const LimitError& e) {
      if (fresh || !of_epoch(e)) throw;
      full = epoch;
    }
  }
}

Matcher::Matcher(std::shared_ptr<CompiledGrammar> compiled, std::string prefix, std::optional<uint32_t> max_tokens,
                 std::optional<std::string> suffix, std::string pending)
    : compiled_(std::move(compiled)), epoch_(compiled_->epoch()), prefix_(std::move(prefix)), max_tokens_(max_tokens),
      suffix_(std::move(suffix)), pending_(std::move(pending)) {
  if (!pending_.empty()) left_.push_back(static_cast<uint32_t>(pending_.size()));
  with_epoch([this] {
    if (states_.empty()) states_ = replay(*epoch_);
    if (suffix_ && !infill_) make_infill();
    if (infill_ && !infill_->possible(states_.back()))
      throw GrammarError("no text leads from the given prefix to the given suffix");
    if (left() && !spellable(states_.back(), left()))
      throw DeadEndError("no tokens of the vocabulary spell what is pending");
    if (!max_tokens_) return 0;
    if (epoch_->completion().cost(states_.back(), at_first()) <= *max_tokens_) {
      reserve_.emplace_back();
      return 0;
    }
    Completion::Plan plan = epoch_->completion().plan(states_.back(), at_first());
    if (!plan) throw LimitError("max_tokens", "no way to complete the text is known");
    if (plan->size() > *max_tokens_)
      throw LimitError("max_tokens", "completing the text takes " + std::to_string(plan->size()) + " tokens, " +
                                         std::to_string(*max_tokens_) + " are allowed");
    reserve_.push_back({std::move(plan), 0});
    return 0;
  });
}

// The plan of the state after the token, if there is room for it, or what is left of the plan there is, if the token keeps to it.
std::optional<Matcher::Reserve> Matcher::after(Reserve& reserve, uint32_t room, uint32_t token, StateId from,
                                               bool first, StateId to, bool whole) {
  if (room == 0) return std::nullopt;
  if (epoch_->completion().cost(to, false) < room || (whole && !near(from, first, room))) return Reserve{};
  plan_of(reserve, from, first, room);
  Completion::Plan fresh = epoch_->completion().plan(to, false);
  bool keeps = reserve.next() == token;
  if (fresh && fresh->size() < room && !(keeps && reserve.rest().size() - 1 < fresh->size()))
    return Reserve{std::move(fresh), 0};
  if (keeps) return Reserve{reserve.plan, reserve.written + 1};
  return std::nullopt;
}

Matcher::Reserve& Matcher::plan_of(Reserve& reserve, StateId state, bool first, uint32_t room) {
  if (!reserve.plan) {
    reserve.plan = epoch_->completion().plan_within(state, first, room);
    if (!reserve.plan) throw LimitError("max_tokens", "no way to complete the text is known");
  }
  return reserve;
}

std::vector<StateId> Matcher::replay(Epoch& epoch) const {
  std::vector<StateId> states;
  states.reserve(tokens_.size() + 1);
  StateId at = epoch.engine().advance(epoch.engine().initial(), prefix_);
  if (at == kDead) throw GrammarError("nothing in the language begins with the given prefix");
  states.push_back(at);
  std::size_t moving = tokens_.size() - (terminated_ ? 1 : 0);  // the end-of-sequence token moves nothing
  for (std::size_t i = 0; i < moving; ++i) {
    uint32_t left = left_.empty() ? 0 : left_[i];
    states.push_back(after(epoch, states.back(), tokens_[i], i == 0 && prefix_.empty() && pending_.empty(), left));
  }
  if (terminated_) states.push_back(states.back());
  return states;
}

StateId Matcher::after(Epoch& epoch, StateId state, uint32_t token, bool first, uint32_t& left) const {
  if (left == 0) return epoch.after(state, token, first);
  const Vocabulary& vocabulary = compiled_->vocabulary();
  if (!vocabulary.is_text(token)) return kDead;
  std::string_view text = vocabulary.token(token), rest = to_spell(left);
  if (text.size() <= rest.size()) {
    if (!rest.starts_with(text)) return kDead;
    left -= static_cast<uint32_t>(text.size());
    return state;
  }
  if (!text.starts_with(rest)) return kDead;
  left = 0;
  return epoch.after_text(state, text.substr(rest.size()));
}

bool Matcher::spellable(StateId state, uint32_t left) {
  if (left == 0 || compiled_->vocabulary().byte_complete()) return true;
  const TokenTrie& trie = compiled_->vocabulary().trie();
  std::vector<bool> can(left + 1, false);
  can[0] = true;
  for (uint32_t at = 1; at <= left; ++at) {
    uint32_t place = TokenTrie::kRoot, rest = at;
    for (char c : to_spell(at)) {
      place = trie.child(place, static_cast<uint8_t>(c));
      if (!place) break;
      --rest;
      if (trie.node(place).num_tokens && can[rest]) can[at] = true;
    }
    if (!place || can[at]) continue;
    can[at] = std::ranges::any_of(epoch_->row_below(state, place), [](uint32_t word) { return word != 0; });
  }
  return can[left];
}

void Matcher::fill_pending(uint32_t* words, StateId state, uint32_t left, Reserve* reserve, uint32_t room) {
  const Vocabulary& vocabulary = compiled_->vocabulary();
  const TokenTrie& trie = vocabulary.trie();
  std::memset(words, 0, std::size_t{vocabulary.num_words()} * 4);
  uint32_t place = TokenTrie::kRoot, rest = left;
  for (char c : to_spell(left)) {
    place = trie.child(place, static_cast<uint8_t>(c));
    if (!place) return;
    --rest;
    if (trie.node(place).num_tokens && spellable(state, rest))
      for (uint32_t token : trie.tokens(place)) words[token / 32] |= uint32_t{1} << (token % 32);
  }
  std::vector<uint32_t> beyond = epoch_->row_below(state, place);
  for (uint32_t i = 0; i < beyond.size(); ++i)
    for (uint32_t bits = beyond[i]; bits; bits &= bits - 1) {
      uint32_t token = i * 32 + static_cast<uint32_t>(std::countr_zero(bits)), none = left;
      if (infill_ || reserve) {
        StateId to = after(*epoch_, state, token, false, none);
        if (to == kDead || (infill_ && !infill_->possible(to))) continue;
        if (reserve && !after(*reserve, room, token, state, false, to, false)) continue;
      }
      words[i] |= bits & (0 - bits);
    }
}

bool Matcher::accept_token(uint32_t token) {
  if (terminated_ || token >= compiled_->vocabulary().size()) return false;
  return with_epoch([&] {
    StateId from = states_.back();
    uint32_t before = left(), left = before;
    StateId to = after(*epoch_, from, token, at_first(), left);
    bool spells = before > 0 && to != kDead && compiled_->vocabulary().token(token).size() <= before;
    if (spells && !spellable(from, left)) return false;
    std::optional<Reserve> reserve;
    if (infill_ && to != kDead && !infill_->possible(to)) to = kDead;
    if (max_tokens_ && to != kDead && !spells) {
      reserve = after(reserve_.back(), room(), token, from, at_first(), to, before == 0);
      if (!reserve) to = kDead;
    }
    if (to == kDead) {
      if (before > 0 || !compiled_->vocabulary().is_eos(token) || !ends(from)) return false;
      terminated_ = true;
      to = from;
    }
    if (max_tokens_) reserve_.push_back(reserve ? std::move(*reserve) : reserve_.back());
    states_.push_back(to);
    tokens_.push_back(token);
    if (!left_.empty()) left_.push_back(left);
    if (spells) ++spelling_;
    return true;
  });
}

std::size_t Matcher::accept_tokens(std::span<const uint32_t> tokens) {
  std::size_t n = 0;
  while (n < tokens.size() && accept_token(tokens[n])) ++n;
  return n;
}

std::size_t Matcher::count_valid(std::span<const uint32_t> tokens) {
  Matcher copy(*this);
  return copy.accept_tokens(tokens);
}

void Matcher::fill(uint32_t* words) {
  uint32_t n = compiled_->vocabulary().num_words();
  if (terminated_) {
    std::memset(words, 0, std::size_t{n} * 4);
    return;
  }
  with_epoch([&] {
    if (left())
      fill_pending(words, states_.back(), left(), max_tokens_ ? &reserve_.back() : nullptr, room());
    else if (max_tokens_)
      fill(words, states_.back(), at_first(), reserve_.back(), room());
    else if (infill_)
      infill_->fill(states_.back(), at_first(), epoch_->completion(), words, n);
    else
      epoch_->row(states_.back(), at_first()).fill(words, n);
    return 0;
  });
}

void Matcher::fill(uint32_t* words, StateId state, bool first, Reserve& reserve, uint32_t room) {
  bool narrow = near(state, first, room);
  epoch_->row(state, first).fill(words, compiled_->vocabulary().num_words());
  if (!narrow) return;
  Completion& completion = epoch_->completion();
  completion.narrow(completion.lengths(state, first), epoch_->engine().accepting(state), room,
                    plan_of(reserve, state, first, room).next(), words);
}

bool Matcher::fill_known(uint32_t* words) {
  if (infill_ || left()) return false;
  const MaskRow* row = terminated_ ? nullptr : epoch_->known_row(states_.back(), at_first());
  if (!row) return false;
  const Completion::Lengths* lengths = nullptr;
  if (max_tokens_) {
    Completion& completion = epoch_->completion();
    std::optional<uint32_t> most = completion.known_most_after(states_.back(), at_first());
    if (!most) return false;
    if (*most >= room()) {
      lengths = completion.known_lengths(states_.back(), at_first());
      if (!lengths || !reserve_.back().plan) return false;
    }
  }
  row->fill(words, compiled_->vocabulary().num_words());
  if (lengths)
    epoch_->completion().narrow(*lengths, epoch_->engine().accepting(states_.back()), room(), reserve_.back().next(),
                                words);
  return true;
}

void Matcher::fill_draft(std::span<const int32_t> parents, std::span<const uint32_t> tokens, uint32_t* words,
                         std::size_t stride) {
  uint32_t n = compiled_->vocabulary().num_words();
  // A draft is short: states are recomputed by the epoch that all of them are in.
  with_epoch([&] {
    std::vector<StateId> states(tokens.size(), kDead);
    std::vector<uint32_t> lefts(tokens.size(), 0);
    std::vector<std::pair<Reserve, uint32_t>> reserves(max_tokens_ ? tokens.size() : 0);  // and room
    std::pair<Reserve, uint32_t> root;
    if (max_tokens_) root = {reserve_.back(), room()};
    for (std::size_t i = 0; i < tokens.size(); ++i) {
      StateId from =
          parents[i] < 0 ? (terminated_ ? kDead : states_.back()) : states[static_cast<std::size_t>(parents[i])];
      const uint32_t before_left = parents[i] < 0 ? left() : lefts[static_cast<std::size_t>(parents[i])];
      lefts[i] = before_left;
      if (from != kDead && tokens[i] < compiled_->vocabulary().size())
        states[i] = after(*epoch_, from, tokens[i], parents[i] < 0 && at_first(), lefts[i]);
      const bool spells =
          before_left > 0 && states[i] != kDead && compiled_->vocabulary().token(tokens[i]).size() <= before_left;
      if (spells && !spellable(from, lefts[i])) states[i] = kDead;
      if (infill_ && states[i] != kDead && !infill_->possible(states[i])) states[i] = kDead;
      if (max_tokens_ && states[i] != kDead) {
        auto& [before, left] = parents[i] < 0 ? root : reserves[static_cast<std::size_t>(parents[i])];
        if (spells)
          reserves[i] = {before, left};
        else if (auto reserve =
                     after(before, left, tokens[i], from, parents[i] < 0 && at_first(), states[i], before_left == 0))
          reserves[i] = {std::move(*reserve), left - 1};
        else
          states[i] = kDead;
      }
      uint32_t* row = words + i * stride;
      if (states[i] == kDead)
        std::memset(row, 0, std::size_t{n} * 4);
      else if (lefts[i])
        fill_pending(row, states[i], lefts[i], max_tokens_ ? &reserves[i].first : nullptr,
                     max_tokens_ ? reserves[i].second : kUnlimited);
      else if (max_tokens_)
        fill(row, states[i], false, reserves[i].first, reserves[i].second);
      else if (infill_)
        infill_->fill(states[i], false, epoch_->completion(), row, n);
      else
        epoch_->row(states[i], false).fill(row, n);
    }
    return 0;
  });
}

bool Matcher::closed_early() {
  if (!max_tokens_) return false;
  return with_epoch([this] {
    for (; looked_at_ < tokens_.size() && early_ == SIZE_MAX; ++looked_at_) {
      if (looked_at_ < spelling_) continue;
      uint32_t room = *max_tokens_ - static_cast<uint32_t>(looked_at_ - spelling_);
      bool first = looked_at_ == 0 && prefix_.empty() && pending_.empty();
      StateId state = states_[looked_at_];
      if (near(state, first, room) && epoch_->completion()
                                          .lengths(state, first)
                                          .narrows(room, plan_of(reserve_[looked_at_], state, first, room).next()))
        early_ = looked_at_;
    }
    return early_ != SIZE_MAX;
  });
}

Matcher Matcher::unlimited() const {
  Matcher copy(*this);
  copy.suffix_.reset();
  copy.infill_.reset();
  copy.max_tokens_.reset();
  copy.reserve_.clear();
  return copy;
}

bool Matcher::is_accepting() {
  if (left()) return false;
  if (!infill_) return epoch_->engine().accepting(states_.back());
  return with_epoch([this] { return ends(states_.back()); });
}

void Matcher::rollback(std::size_t count) {
  if (count > tokens_.size())
    throw GrammarError("cannot roll back " + std::to_string(count) + " tokens: only " + std::to_string(tokens_.size()) +
                       " were accepted");
  if (count == 0) return;
  tokens_.resize(tokens_.size() - count);
  states_.resize(tokens_.size() + 1);
  if (!left_.empty()) left_.resize(tokens_.size() + 1);
  spelling_ = std::min(spelling_, tokens_.size());
  if (max_tokens_) reserve_.resize(tokens_.size() + 1);
  looked_at_ = std::min(looked_at_, tokens_.size());
  if (early_ >= tokens_.size()) early_ = SIZE_MAX;
  terminated_ = false;
}

void Matcher::reset() {
  rollback(tokens_.size());
  growth_ = 0;
}

ByteSet Matcher::next_bytes(StateId state) {
  ByteSet next = epoch_->engine().next_bytes(state), possible;
  if (!infill_) return next;
  next.for_each([&](uint8_t byte) {
    char text = static_cast<char>(byte);
    if (infill_->possible(epoch_->engine().advance(state, {&text, 1}))) possible.add(byte);
  });
  return possible;
}

std::string Matcher::forced_bytes(std::size_t limit) {
  if (terminated_) return "";
  return with_epoch([&] {
    std::string out(to_spell());
    StateId at = states_.back();
    Engine& engine = epoch_->engine();
    while (out.size() < limit && !ends(at)) {
      ByteSet next = next_bytes(at);
      if (next.count() != 1) break;
      for (const Thread& t : engine.threads(at))
        if (t.at_boundary() && !engine.parser().lookahead(t.parser).specials.empty()) return out;
      char byte = static_cast<char>(next.first());
      out.push_back(byte);
      at = engine.advance(at, {&byte, 1});
    }
    return out;
  });
}

bool Matcher::must_stop() {
  if (terminated_ || left()) return false;
  return with_epoch([&] {
    Engine& engine = epoch_->engine();
    if (!ends(states_.back())) return false;
    if (max_tokens_ && near(states_.back(), at_first(), room()) &&
        epoch_->completion().lengths(states_.back(), at_first()).least_room() > room() &&
        plan_of(reserve_.back(), states_.back(), at_first(), room()).rest().empty())
      return true;
    if (!next_bytes(states_.back()).empty()) return false;
    return std::ranges::all_of(engine.threads(states_.back()), [&](const Thread& t) {
      return !t.at_boundary() || engine.parser().lookahead(t.parser).specials.empty();
    });
  });
}

std::vector<std::string> Matcher::expected() {
  if (left()) return {"pending '" + std::string(to_spell()) + "'"};
  return with_epoch([&] {
    std::vector<std::string> names;
    Engine& engine = epoch_->engine();
    for (const Thread& t : engine.threads(states_.back())) {
      for (const auto& e : engine.parser().lookahead(t.parser).expected) {
        if (!t.at_boundary() && e.start != t.group) continue;
        names.push_back((t.at_boundary() ? "" : "inside ") + engine.symbols().terminal_info(e.terminal).name);
      }
    }
    std::ranges::sort(names);
    names.erase(std::ranges::unique(names).begin(), names.end());
    return names;
  });
}

std::vector<Expectation> Matcher::expectations() {
  if (left() || terminated_) return {};
  return with_epoch([this] { return guiderail::expectations(epoch_->engine(), states_.back()); });
}

std::vector<std::string> Matcher::refusals(std::string_view text) {
  if (left() || terminated_) return {};
  return with_epoch([&] {
    Engine& engine = epoch_->engine();
    StateId at = states_.back();
    for (; !text.empty(); text.remove_prefix(1)) {
      StateId next = engine.advance(at, text.substr(0, 1));
      if (next == kDead) return guiderail::refusals(engine, at, static_cast<uint8_t>(text[0]));
      if (infill_ && !infill_->possible(next)) return std::vector<std::string>{"it leads away from the suffix"};
      at = next;
    }
    return std::vector<std::string>{};
  });
}

std::vector<std::string> Matcher::open_rules() {
  if (left() || terminated_) return {};
  return with_epoch([this] { return guiderail::open_rules(epoch_->engine(), states_.back()); });
}

std::size_t Matcher::count_bytes(std::string_view text) {
  return with_epoch([&] {
    StateId at = states_.back();
    std::size_t n = 0;
    for (char c : to_spell()) {
      if (n == text.size() || text[n] != c) return n;
      ++n;
    }
    for (; n < text.size(); ++n) {
      at = epoch_->engine().advance(at, text.substr(n, 1));
      if (at == kDead || (infill_ && !infill_->possible(at))) break;
    }
    return n;
  });
}

}  // namespace guiderail
