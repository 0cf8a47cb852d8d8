#include "core/masks/mask_builder.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <string>

namespace guiderail {

namespace {

// Places of the trie are worth rows of their own from this size on.
constexpr uint32_t kLargePlace = 200;
// The same where something has been left over of tokens: what stands there is looked at for every state in which a lexeme ends.
constexpr uint32_t kLargeRest = 24;

}  // namespace

void MaskRow::fill(uint32_t* words, uint32_t num_words) const {
  const uint32_t* base = own_.empty() ? base_ : own_.data();
  if (general_)
    general_->fill(words, num_words);
  else if (base)
    std::memcpy(words, base, std::size_t{num_words} * 4);
  else
    std::memset(words, 0, std::size_t{num_words} * 4);
  for (const Patch& p : patches_) words[p.word] = p.value;
  for (const LexRow* row : layers_)
    for (LexRow::Word w : row->stay_words()) words[w.index] |= w.bits;
}

uint32_t MaskRow::value(uint32_t word) const {
  auto it = std::ranges::lower_bound(patches_, word, {}, &Patch::word);
  const uint32_t* base = own_.empty() ? base_ : own_.data();
  uint32_t bits = 0;
  if (it != patches_.end() && it->word == word)
    bits = it->value;
  else if (general_)
    bits = general_->value(word);
  else if (base)
    bits = base[word];
  for (const LexRow* row : layers_) { bits |= row->stay_word(word); }
  return bits;
}

MaskBuilder::Scratch& MaskBuilder::scratch() {
  thread_local Scratch scratch;
  return scratch;
}

void MaskBuilder::Scratch::clear() {
  contributions.clear();
  sets.clear();
  token_sets.clear();
  stack.clear();
  out.clear();
  frames.clear();
  doubtful.clear();
}

MaskRow MaskBuilder::build(StateId state, Reach* reach) {
  reach_ = reach;
  std::span<const Thread> threads = engine_.threads(state);
  walk_whole(TokenTrie::kRoot, threads);
  if (engine_.accepting(state))
    for (uint32_t eos : vocabulary_.eos_token_ids()) sets_.push_back(eos);
  for (const Thread& t : threads) {
    if (!t.at_boundary()) continue;
    const Parser::Lookahead& look = engine_.parser().lookahead(t.parser);
    for (uint32_t i : look.specials) {
      uint32_t index = look.expected[i].tag;
      int64_t token = vocabulary_.special(engine_.symbols().special_tokens()[index]);
      StateId next = token < 0 ? kDead : engine_.advance_special(state, index);
      if (next == kDead) continue;
      sets_.push_back(static_cast<uint32_t>(token));
      if (reach_) reach_->add(engine_.threads(next), {});
    }
  }
  return assemble();
}

MaskRow MaskBuilder::build_below(StateId state, uint32_t place) {
  reach_ = nullptr;
  walk_whole(place, engine_.threads(state));
  return assemble();
}

void MaskBuilder::walk_whole(uint32_t place, std::span<const Thread> threads) {
  scratch().clear();  // an exception may have left something
  many_widths_ = false;
  try {
    walk(vocabulary_.trie(), place, threads, true, nullptr);
  } catch (const ShapeTokens::TooMany&) {
    shapes_ = nullptr;
    walk_whole(place, threads);
  }
}

// Opens a frame for the threads on the stack from `begin` on. At a large place of the whole vocabulary, threads that a row answers
// for are taken off first. False, and the stack as before, if no thread is left.
bool MaskBuilder::enter(const TokenTrie& trie, uint32_t place, std::size_t begin, bool whole, const Ranges* skip) {
  bool large = whole && trie.subtree_size(place) >= kLargePlace;
  bool by_lexemes = shapes_ && !reach_;
  if (large || by_lexemes) {
    std::vector<Thread> open(stack_.begin() + static_cast<std::ptrdiff_t>(begin), stack_.end());
    stack_.resize(begin);
    bool plain_taken = false;
    if (large && place == TokenTrie::kRoot && open.size() > 1) {
      // First one that keeps all plain tokens: then no other needs to be asked about them.
      auto first = std::ranges::find_if(open, [this](const Thread& t) {
        if (t.at_boundary() || t.competing != kNone) return false;
        const LexRowCache::Plan& plan = rows_.plan(t.lexeme);
        return plan.broad && !plan.excludes && rows_.outlasts_plain(plan.first);
      });
      if (first != open.end()) std::swap(*first, open[0]);
    }
    for (std::size_t i = 0; i < open.size(); ++i) {
      Thread t = open[i];
      if (by_lexemes && t.at_boundary())
        visit(shapes_->readings().place(trie, place, t.obligation), t, skip);
      else if (t.at_boundary())
        engine_.begin_all(t, open);
      else if (large && take_row(t, place, skip, plain_taken, open))
        continue;
      else if (by_lexemes)
        read_on(trie, place, t, skip);
      else
        stack_.push_back(t);
    }
  } else if (!whole && place != TokenTrie::kRoot && trie.subtree_size(place) >= kLargeRest) {
    std::size_t kept = begin;
    for (std::size_t i = begin; i < stack_.size(); ++i) {
      Thread t = stack_[i];
      if (t.at_boundary() || !take_row_of_rest(trie, t, place, skip)) stack_[kept++] = t;
    }
    stack_.resize(kept);
  }
  if (stack_.size() == begin) return false;
  ByteSet bytes;
  if (firsts_.size() < stack_.size()) firsts_.resize(stack_.size());
  for (std::size_t i = begin; i < stack_.size(); ++i) bytes = bytes | (firsts_[i] = engine_.first_bound(stack_[i]));
  const TrieNode& node = trie.node(place);
  if (static_cast<uint32_t>(bytes.count()) > node.num_children) {
    // More bytes than children: only those that are there are visited.
    ByteSet present;
    for (const TrieNode& c : trie.children(place)) present.add(c.byte);
    bytes = bytes & present;
  }
  frames_.push_back({place, begin, stack_.size(), bytes});
  return true;
}

// Walks a trie below `place` with all threads at once and sets the tokens that some thread survives. Re-entrant: works above the tops
// of the stacks as it finds them.
void MaskBuilder::walk(const TokenTrie& trie, uint32_t place, std::span<const Thread> threads, bool whole,
                       const Ranges* skip) {
  std::size_t bottom = frames_.size(), floor = stack_.size();
  stack_.insert(stack_.end(), threads.begin(), threads.end());
  if (!enter(trie, place, floor, whole, skip)) return;
  while (frames_.size() > bottom) {
    Frame& f = frames_.back();
    if (f.bytes.empty()) {
      stack_.resize(f.begin);
      frames_.pop_back();
      continue;
    }
    uint8_t byte = f.bytes.first();
    f.bytes.words[byte >> 6] &= ~(uint64_t{1} << (byte & 63));
    uint32_t child = trie.child(f.place, byte);
    if (!child) continue;
    out_.clear();
    // The frequent case by hand: one thread, inside a literal or the like, that neither ends nor owes anything.
    const Thread& only = stack_[f.begin];
    Node next = kNone;
    bool plain = f.end - f.begin == 1 && !only.at_boundary() && only.obligation == kAll && only.competing == kNone &&
                 only.text == kNoText && !NameScopes::in_name(only.scope);
    if (plain) {
      next = engine_.lexicon().step(only.lexeme, byte);
      if (next == kNone) continue;
      plain = !engine_.lexicon().nullable(next);
    }
    if (plain) {
      out_.push_back(only);
      out_.back().lexeme = next;
    } else {
      // At a boundary most of the lexemes that may begin do not begin like this.
      for (std::size_t i = f.begin; i < f.end; ++i)
        if (firsts_[i].has(byte)) engine_.step({&stack_[i], 1}, byte, out_);
      if (out_.empty()) continue;
      engine_.merge(out_);
    }
    if (trie.node(child).num_tokens && spellable(out_)) {
      bool certain = std::ranges::any_of(out_, [this](const Thread& t) { return !engine_.doubtful(t); });
      for (uint32_t token : trie.tokens(child))
        if (!skip || !contains(*skip, token)) (certain ? sets_ : doubtful_).push_back(token);
      if (reach_) reach_->add(out_, trie.tokens(child));
    }
    if (trie.node(child).num_children == 0) continue;
    std::size_t begin = stack_.size();
    stack_.insert(stack_.end(), out_.begin(), out_.end());
    enter(trie, child, begin, whole, skip);
  }
}

// Are there threads left after the bytes, and one that is not doubtful?
bool MaskBuilder::survives(std::string_view bytes, std::vector<Thread>& now) {
  std::vector<Thread> next;
  for (char c : bytes) {
    next.clear();
    engine_.step(now, static_cast<uint8_t>(c), next);
    engine_.merge(next);
    std::swap(now, next);
    if (now.empty()) return false;
  }
  return true;
}

// Of the doubtful tokens from number `from` on, sets those that `thread`, which stands at `place`, survives with its own text. Some may stay
// doubtful.
void MaskBuilder::read_doubtful(const Thread& thread, uint32_t place, std::size_t from) {
  if (doubtful_.size() == from) return;
  std::vector<uint32_t> tokens(doubtful_.begin() + static_cast<std::ptrdiff_t>(from), doubtful_.end());
  doubtful_.resize(from);
  std::vector<Thread> now;
  for (uint32_t token : tokens) {
    std::string_view bytes = vocabulary_.token(token);
    std::size_t depth = 0;
    for (uint32_t at = TokenTrie::kRoot; at != place; ++depth)
      at = vocabulary_.trie().child(at, static_cast<uint8_t>(bytes[depth]));
    now.assign(1, thread);
    if (!survives(bytes.substr(depth), now) || !spellable(now)) continue;
    (std::ranges::all_of(now, [this](const Thread& t) { return engine_.doubtful(t); }) ? doubtful_ : sets_)
        .push_back(token);
  }
}

MaskRow MaskBuilder::specialise(StateId state, const MaskRow& general) {
  MaskRow row;
  row.general_ = &general;
  if (general.doubtful_.empty()) return row;
  std::vector<Thread> now, forgetful(engine_.threads(state).begin(), engine_.threads(state).end());
  engine_.forget(forgetful);
  for (uint32_t token : general.doubtful_) {
    if (general.allows(token)) continue;
    now = forgetful;
    if (!survives(vocabulary_.token(token), now)) continue;
    if (std::ranges::all_of(now, [this](const Thread& t) { return engine_.doubtful(t); })) {
      now.assign(engine_.threads(state).begin(), engine_.threads(state).end());
      if (!survives(vocabulary_.token(token), now)) continue;
    }
    if (!spellable(now)) continue;
    uint32_t word = token >> 5;
    auto at = std::ranges::lower_bound(row.patches_, word, {}, &MaskRow::Patch::word);
    if (at == row.patches_.end() || at->word != word) at = row.patches_.insert(at, {word, general.value(word)});
    at->value |= uint32_t{1} << (token & 31);
  }
  return row;
}

// After these threads, can the text be completed in tokens?
bool MaskBuilder::spellable(std::span<const Thread> threads) { return !liveness_ || liveness_->live(threads); }

// The union of everything collected, as a base row, the words that differ from it, and sparse rows as they are.
MaskRow MaskBuilder::assemble() {
  MaskRow row;
  uint32_t num_words = vocabulary_.num_words();
  // The first dense row is the base, or else the first dense set.
  const Contribution* base = nullptr;
  for (const Contribution& c : contributions_)
    if (c.row->dense() && !base) base = &c;
  const TokenSet* base_set = nullptr;
  for (const TokenSet* s : token_sets_)
    if (s->dense() && !base && !base_set) base_set = s;
  // `words` holds the words that somebody has touched; the others are the base's.
  const uint32_t* under = base ? base->row->stay().data() : base_set ? base_set->all_words().data() : nullptr;
  words_.resize(num_words);
  touched_.assign((num_words + 63) / 64, 0);
  uint32_t* const words = words_.data();
  uint64_t* const touched = touched_.data();
  std::size_t num_touched = 0;
  auto value = [&](uint32_t word) {
    return touched[word >> 6] >> (word & 63) & 1 ? words[word] : under ? under[word] : 0;
  };
  auto set = [&](uint32_t word, uint32_t bits) {
    uint64_t& mark = touched[word >> 6];
    uint64_t bit = uint64_t{1} << (word & 63);
    num_touched += !(mark & bit);
    mark |= bit;
    words[word] = bits;
  };
  std::span<const uint32_t> by_rank = vocabulary_.trie().all_tokens();
  if (base)
    for (auto [first, last] : base->except)
      for (uint32_t token : by_rank.subspan(first, last - first))
        set(token >> 5, value(token >> 5) & ~(uint32_t{1} << (token & 31)));
  auto add = [&](uint32_t word, uint32_t bits) {
    if (uint32_t now = value(word); bits & ~now) set(word, now | bits);
  };
  // Dense rows differ little from each other: a block of words that adds nothing to the base and that nobody has touched is passed over.
  auto add_all = [&](std::span<const uint32_t> all) {
    for (uint32_t block = 0; block < all.size(); block += 64) {
      uint32_t end = std::min(block + 64, static_cast<uint32_t>(all.size()));
      uint32_t more = 0;
      for (uint32_t i = block; i < end; ++i) more |= under ? all[i] & ~under[i] : all[i];
      if (!more && !touched[block >> 6]) continue;
      for (uint32_t i = block; i < end; ++i) add(i, all[i]);
    }
  };
  // A sparse row that has none of the tokens which it must not answer for.
  auto allowed_as_a_whole = [&](const Contribution& c) {
    if (c.row->dense()) return false;
    std::size_t few = c.row->stay_words().size();
    for (auto [first, last] : c.except) {
      if (last - first > few) return false;
      few -= last - first;
      for (uint32_t token : by_rank.subspan(first, last - first))
        if (c.row->stays(token)) return false;
    }
    return true;
  };
  std::vector<uint32_t> absent;  // tokens of an exception that nobody has allowed so far: the row must not either
  for (const Contribution& c : contributions_) {
    if (&c == base) continue;
    if (allowed_as_a_whole(c)) {
      if (std::ranges::find(row.layers_, c.row) == row.layers_.end()) row.layers_.push_back(c.row);
      continue;
    }
    absent.clear();
    for (auto [first, last] : c.except)
      for (uint32_t token : by_rank.subspan(first, last - first))
        if (!(value(token >> 5) >> (token & 31) & 1)) absent.push_back(token);
    if (c.row->dense()) {
      add_all(c.row->stay());
    } else {
      for (LexRow::Word w : c.row->stay_words()) add(w.index, w.bits);
    }
    for (uint32_t token : absent) set(token >> 5, value(token >> 5) & ~(uint32_t{1} << (token & 31)));
  }
  for (const TokenSet* s : token_sets_) {
    if (s == base_set) continue;
    add_all(s->all_words());
    for (TokenSet::Word w : s->words()) add(w.index, w.bits);
  }
  for (uint32_t token : sets_) add(token >> 5, uint32_t{1} << (token & 31));
  bool own = num_touched * 3 > num_words;
  if (own && under)
    row.own_.assign(under, under + num_words);
  else if (own)
    row.own_.assign(num_words, 0);
  else
    row.base_ = under;
  if (!own) row.patches_.reserve(num_touched);
  for (uint32_t i = 0; i < touched_.size(); ++i)
    for (uint64_t t = touched[i]; t; t &= t - 1) {
      uint32_t word = i * 64 + static_cast<uint32_t>(std::countr_zero(t));
      if (own)
        row.own_[word] = words[word];
      else if (words[word] != (under ? under[word] : 0))
        row.patches_.push_back({word, words[word]});
    }
  std::ranges::sort(doubtful_);
  doubtful_.erase(std::ranges::unique(doubtful_).begin(), doubtful_.end());
  row.doubtful_ = doubtful_;
  return row;
}

}  // namespace guiderail
