#include "mask_builder.h"

#include <algorithm>
#include <cstring>

namespace guiderail {

namespace {

// A lexeme is heavy if at least this many bytes may continue it; a place in the trie is worth a row of its own from this size on.
constexpr int kHeavyBytes = 20;
constexpr uint32_t kLargePlace = 1500;
// More single tokens than this share of the vocabulary make a row dense.
constexpr uint32_t kDenseShare = 64;

void sort_unique(std::vector<uint32_t>& v) {
  std::ranges::sort(v);
  v.erase(std::ranges::unique(v).begin(), v.end());
}

}  // namespace

void MaskRow::fill(uint32_t* words, uint32_t num_words) const {
  const uint32_t* base = own_.empty() ? base_ : own_.data();
  if (base)
    std::memcpy(words, base, std::size_t{num_words} * 4);
  else
    std::memset(words, 0, std::size_t{num_words} * 4);
  for (const Patch& p : patches_) words[p.word] = (words[p.word] & p.keep) | p.set;
}

bool MaskRow::allows(uint32_t token) const {
  uint32_t word = token >> 5, bit = uint32_t{1} << (token & 31);
  const uint32_t* base = own_.empty() ? base_ : own_.data();
  uint32_t value = base ? base[word] : 0;
  auto it = std::ranges::lower_bound(patches_, word, {}, &Patch::word);
  if (it != patches_.end() && it->word == word) value = (value & it->keep) | it->set;
  return value & bit;
}

bool MaskBuilder::heavy(const Thread& t) {
  if (t.at_boundary() || t.obligation != kAll) return false;
  if (engine_.lexicon().first_bound(t.lexeme).count() < kHeavyBytes) return false;
  return engine_.always_viable(t.group, t.parser);
}

MaskRow MaskBuilder::build(StateId state) {
  contributions_.clear();
  sets_.clear();
  std::span<const Thread> threads = engine_.threads(state);
  walk(vocabulary_.trie(), TokenTrie::kRoot, {threads.begin(), threads.end()}, true, nullptr);
  if (engine_.accepting(state))
    for (uint32_t eos : vocabulary_.eos_token_ids()) sets_.push_back(eos);
  for (const Thread& t : threads) {
    if (!t.at_boundary()) continue;
    const Parser::Lookahead& look = engine_.parser().lookahead(t.parser);
    for (uint32_t i : look.specials) {
      uint32_t index = look.expected[i].tag;
      int64_t token = vocabulary_.special(engine_.symbols().special_tokens()[index]);
      if (token >= 0 && engine_.advance_special(state, index) != kDead) sets_.push_back(static_cast<uint32_t>(token));
    }
  }
  return assemble();
}

// Walks the trie below `place` with all threads at once and sets the tokens some thread survives.
void MaskBuilder::walk(const TokenTrie& trie, uint32_t place, std::vector<Thread> start, bool whole, const std::vector<uint32_t>* skip) {
  struct Frame {
    uint32_t place;
    std::size_t begin, end;  // its threads on the stack
  };
  std::vector<Thread> stack = std::move(start);
  std::vector<Frame> frames{{place, 0, stack.size()}};
  std::vector<Thread> expanded;
  while (!frames.empty()) {
    Frame f = frames.back();
    frames.pop_back();
    // Threads of this frame end the stack: frames are popped in the reverse order of their pushing, and those above are done.
    std::vector<Thread> threads(stack.begin() + static_cast<std::ptrdiff_t>(f.begin), stack.begin() + static_cast<std::ptrdiff_t>(f.end));
    stack.resize(f.begin);
    if (whole && trie.subtree_size(f.place) >= kLargePlace) {
      expanded.clear();
      std::vector<Thread> light;
      for (const Thread& t : threads) {
        if (!t.at_boundary()) {
          expanded.push_back(t);
          continue;
        }
        engine_.begin_all(t, expanded);
      }
      for (const Thread& t : expanded) {
        if (heavy(t))
          apply_row(t, f.place);
        else
          light.push_back(t);
      }
      threads = std::move(light);
      if (threads.empty()) continue;
    }
    ByteSet bound;
    for (const Thread& t : threads) bound = bound | engine_.first_bound(t);
    auto visit = [&](uint32_t child, uint8_t byte) {
      std::size_t begin = stack.size();
      engine_.step(threads, byte, stack);
      if (stack.size() == begin) return;
      if (stack.size() - begin > 1) {
        auto first = stack.begin() + static_cast<std::ptrdiff_t>(begin);
        std::sort(first, stack.end());
        stack.erase(std::unique(first, stack.end()), stack.end());
      }
      for (uint32_t token : trie.tokens(child))
        if (!skip || !std::ranges::binary_search(*skip, token)) sets_.push_back(token);
      if (trie.node(child).num_children == 0)
        stack.resize(begin);
      else
        frames.push_back({child, begin, stack.size()});
    };
    uint32_t first = trie.node(f.place).first_child, count = trie.node(f.place).num_children;
    if (static_cast<uint32_t>(bound.count()) * 4 < count) {
      bound.for_each([&](uint8_t byte) {
        if (uint32_t child = trie.child(f.place, byte)) visit(child, byte);
      });
    } else {
      for (uint32_t child = first; child < first + count; ++child)
        if (bound.has(trie.node(child).byte)) visit(child, trie.node(child).byte);
    }
  }
}

void MaskBuilder::apply_row(const Thread& thread, uint32_t place) {
  Lexicon& lexicon = engine_.lexicon();
  Contribution c{nullptr, place, {}};
  Lexicon::Exclusion exclusion;
  Node remainder = thread.lexeme;
  bool excludes = lexicon.exclusion(thread.lexeme, exclusion) && lexicon.first_bound(exclusion.reference).count() >= kHeavyBytes;
  if (excludes) {
    remainder = exclusion.reference;
    find_fix(exclusion.base, exclusion.excluded, place, c.fix);
    sort_unique(c.fix);
  }
  c.row = &rows_.row(remainder, thread.competing, place);
  const std::vector<uint32_t>* skip = c.fix.empty() ? nullptr : &c.fix;

  for (const auto& exit : c.row->exits()) {
    std::vector<Thread> after;
    engine_.end_lexeme(thread, exit->tags, exit->competing, after);
    if (after.empty()) continue;
    ByteSet bytes;
    for (const Thread& t : after) bytes = bytes | engine_.first_bound(t);
    bytes = bytes & exit->first;
    bytes.for_each([&](uint8_t byte) {
      std::vector<Thread> alive;
      engine_.step(after, byte, alive);
      if (alive.empty()) return;
      walk(c.row->left_over(vocabulary_.trie(), *exit, byte), TokenTrie::kRoot, after, false, skip);
    });
  }

  // Tokens that touch what is excluded: one by one.
  for (uint32_t token : c.fix) {
    std::vector<Thread> now{thread}, next;
    std::string_view text = vocabulary_.token(token);
    // Tokens below `place` begin with the bytes of the place, which the thread has read already.
    for (char byte : text.substr(depth_of(place, text))) {
      next.clear();
      engine_.step(now, static_cast<uint8_t>(byte), next);
      std::ranges::sort(next);
      next.erase(std::ranges::unique(next).begin(), next.end());
      std::swap(now, next);
      if (now.empty()) break;
    }
    if (!now.empty()) sets_.push_back(token);
  }
  contributions_.push_back(std::move(c));
}

// How many bytes of `text`, a token at or below `place`, lead to `place`.
std::size_t MaskBuilder::depth_of(uint32_t place, std::string_view text) const {
  uint32_t at = TokenTrie::kRoot;
  std::size_t depth = 0;
  while (at != place) at = vocabulary_.trie().child(at, static_cast<uint8_t>(text[depth++]));
  return depth;
}

void MaskBuilder::collect_below(uint32_t place, std::vector<uint32_t>& tokens) {
  std::vector<uint32_t> work{place};
  const TokenTrie& trie = vocabulary_.trie();
  while (!work.empty()) {
    uint32_t at = work.back();
    work.pop_back();
    tokens.insert(tokens.end(), trie.tokens(at).begin(), trie.tokens(at).end());
    for (uint32_t k = 0; k < trie.node(at).num_children; ++k) work.push_back(trie.node(at).first_child + k);
  }
}

// The remainder is (r without x) k, its reference r k. A token differs between the two if r and x can end at the same place inside it
// (the reference may then go on with k, the remainder may not), or if it ends inside x where nothing else of r is left.
void MaskBuilder::find_fix(Node base, Node excluded, uint32_t place, std::vector<uint32_t>& fix) {
  Lexicon& lexicon = engine_.lexicon();
  const TokenTrie& trie = vocabulary_.trie();
  struct Frame {
    uint32_t place;
    Node base, excluded;
  };
  std::vector<Frame> work{{place, base, excluded}};
  while (!work.empty()) {
    Frame f = work.back();
    work.pop_back();
    lexicon.first_bound(f.excluded).for_each([&](uint8_t byte) {
      uint32_t child = trie.child(f.place, byte);
      if (!child) return;
      Node x = lexicon.step(f.excluded, byte);
      if (x == kNone) return;
      Node r = lexicon.step(f.base, byte);
      if (r == kNone) return;
      bool same_end = lexicon.nullable(x) && lexicon.nullable(r);
      if (same_end || !(lexicon.certainly_infinite(r) && lexicon.certainly_finite(x))) {
        collect_below(child, fix);
        return;
      }
      if (trie.node(child).num_children) work.push_back({child, r, x});
    });
  }
}

MaskRow MaskBuilder::assemble() {
  MaskRow row;
  uint32_t num_words = vocabulary_.num_words();
  sort_unique(sets_);
  std::vector<uint32_t> clears;
  if (contributions_.size() == 1) {
    row.base_ = contributions_[0].row->stay().data();
    std::ranges::set_difference(contributions_[0].fix, sets_, std::back_inserter(clears));
  }
  if (contributions_.size() > 1 || sets_.size() + clears.size() > vocabulary_.size() / kDenseShare) {
    row.own_.assign(num_words, 0);
    for (const Contribution& c : contributions_) {
      std::vector<uint32_t> words(c.row->stay().begin(), c.row->stay().end());
      for (uint32_t token : c.fix) words[token >> 5] &= ~(uint32_t{1} << (token & 31));
      for (uint32_t i = 0; i < num_words; ++i) row.own_[i] |= words[i];
    }
    for (uint32_t token : sets_) row.own_[token >> 5] |= uint32_t{1} << (token & 31);
    row.base_ = nullptr;
    return row;
  }
  auto patch = [&row](uint32_t word) -> MaskRow::Patch& {
    if (row.patches_.empty() || row.patches_.back().word != word) row.patches_.push_back({word, ~uint32_t{0}, 0});
    return row.patches_.back();
  };
  // Merge both sorted lists by word.
  for (std::size_t i = 0, j = 0; i < clears.size() || j < sets_.size();) {
    if (j == sets_.size() || (i < clears.size() && clears[i] < sets_[j])) {
      patch(clears[i] >> 5).keep &= ~(uint32_t{1} << (clears[i] & 31));
      ++i;
    } else {
      uint32_t word = sets_[j] >> 5, bit = uint32_t{1} << (sets_[j] & 31);
      if (!row.base_ || !(row.base_[word] & bit)) patch(word).set |= bit;
      ++j;
    }
  }
  return row;
}

}  // namespace guiderail
