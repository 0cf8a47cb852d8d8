// What one lexeme's remainder does to a whole vocabulary, or to what another lexeme has left over of it: which tokens keep it going, and where it
// ends inside a token.
//
// A row depends on the remainder, the vocabulary and nothing else, so it is computed once and shared by every grammar that meets the same
// node: every JSON string of every schema, every identifier. Steps that keep rows few and cheap:
//  - a remainder with counters beyond the longest token is replaced by its saturated twin (Lexicon::saturate);
//  - a remainder 'reference but not excluded' uses the reference's row; only the tokens that touch the excluded set are
//    looked at one by one (see mask_builder.cpp).
//  - body{m,n} is read off the row of body*: if every place of the trie has read a definite number of bodies, the tokens and ends of the counted
//    remainder are those of the starred one with a suitable number, so the thousand states of a `maxLength` cost one walk.
//  - where a lexeme surely reads all that occurs below a place of the trie, as a string does nearly everywhere, all tokens there keep it
//    going and nobody walks there (lexeme_stretch.h); and where it reads all plain characters for ever, only the tokens that contain others
//    are walked (plain_tokens.h).
// Tokens in which the lexeme ends are grouped by (tags, obligation) and kept as tries of what is left over, one per first byte, made when
// a parser first asks for that byte: a JSON string ends inside some 1,300 tokens of a 128k vocabulary, in a few hundred ways.
#pragma once

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <span>
#include <unordered_map>
#include <vector>

#include "core/lexer/lexicon.h"
#include "core/masks/token_trie.h"

namespace guiderail {

class Vocabulary;

class LexRow {
 public:
  // One way to end: all places in the trie where the lexeme can end with these tags, under this competing remainder and this demand
  // on what follows (munch).
  struct Exit {
    struct Place {
      uint32_t node;   // of the row's trie, with something below it
      uint32_t count;  // bodies read, in the row of a starred body; else 0
    };
    std::vector<uint32_t> tags;
    Node competing, follow = kAll;
    std::vector<Place> places;
    // At these nodes and everywhere below them where a character ends, the lexeme may end as well (it loops on all that is there). Only
    // where it matters: in rows that count, and for vocabularies in which not every byte is a token.
    std::vector<Place> spans;
    std::array<std::atomic<const TokenTrie*>, 256> left;  // by first byte left over; built on demand
    ByteSet first;                                        // which bytes may be left over first
    Exit() {
      for (auto& l : left) l.store(nullptr, std::memory_order_relaxed);
    }
    ~Exit() {
      for (auto& l : left) delete l.load(std::memory_order_relaxed);
    }
    Exit(const Exit&) = delete;
  };

  // The tokens that keep the lexeme going to their last byte (or end it exactly there), as bits; dense or only the words that are not zero.
  struct Word {
    uint32_t index, bits;
  };
  bool dense() const { return !dense_.empty(); }
  std::span<const uint32_t> stay() const { return dense_; }
  std::span<const Word> stay_words() const { return words_; }
  // One word of a sparse row.
  uint32_t stay_word(uint32_t index) const {
    auto at = std::ranges::lower_bound(words_, index, {}, &Word::index);
    return at != words_.end() && at->index == index ? at->bits : 0;
  }
  bool stays(uint32_t token) const {
    return ((dense() ? dense_[token >> 5] : stay_word(token >> 5)) >> (token & 31)) & 1;
  }
  const std::vector<std::unique_ptr<Exit>>& exits() const { return exits_; }
  // Are the tokens in which the lexeme may end far more than those that keep it going?
  bool mostly_left_over() const { return mostly_left_over_; }
  // The tokens of the row by what they leave of the lexeme; only for vocabularies in which not every byte is a token.
  struct End {
    Node remainder, competing;
    uint32_t count;                    // bodies begun, in the row of a starred body; else 0
    std::span<const uint32_t> tokens;  // kept by this row, or by the starred one that it was read off
  };
  const std::vector<End>& ends() const { return ends_; }
  // The places after `byte` in the row's trie before which the lexeme can end.
  std::vector<uint32_t> places_after(const Exit& exit, uint8_t byte) const;
  // What is left over after `byte`, for tokens in which the lexeme ends just before it.
  const TokenTrie& left_over(const Exit& exit, uint8_t byte) const;
  // The tokens of whose rest below some place the row speaks: the vocabulary's, its tokens that are not plain, or what another row has left over.
  const TokenTrie& trie() const { return *trie_; }

 private:
  friend class LexRowCache;
  // What the row of a starred body knows about numbers of bodies.
  struct Counts {
    std::vector<std::pair<uint32_t, uint32_t>> tokens;  // (bodies begun, token), by the former
    std::array<std::vector<Exit::Place>, 256>
        ends;  // by next byte: the child by that byte, bodies complete before it; on demand
    std::array<bool, 256> known{};
  };
  const std::vector<Exit::Place>& ends_before(uint8_t byte) const;
  // The children by `byte` of all places of an exit, each with the bodies read before it.
  std::vector<Exit::Place> children_by(const Exit& exit, uint8_t byte) const;

  const TokenTrie* trie_ = nullptr;
  std::vector<uint32_t> dense_;
  std::vector<Word> words_;
  std::vector<std::unique_ptr<Exit>> exits_;
  std::vector<End> ends_;
  std::vector<std::vector<uint32_t>> tokens_of_ends_;
  std::unique_ptr<Counts> counts_;
  bool mostly_left_over_ = false;
  // Of a counted row: where it was read off.
  const LexRow* starred_ = nullptr;
  uint32_t min_ = 0, max_ = 0;
  mutable std::mutex mutex_;
};

class LexRowCache {
 public:
  LexRowCache(const Vocabulary& vocabulary, Lexicon& lexicon) : vocabulary_(vocabulary), lexicon_(lexicon) {}

  // The row of `remainder` over the tokens below `place` of a trie: the vocabulary's, its tokens that are not plain, or what a row of this cache has
  // left over. `competing` is kNone unless lexing is munch.
  const LexRow& row(Node remainder, Node competing, const TokenTrie& trie, uint32_t place);
  // How a remainder takes its tokens from rows: as `first` with `rest` after it (kEpsilon: none). If it excludes, remainder = (base without
  // excluded) k and reference = base k = first rest, else reference is the remainder itself. Of what is excluded, `ends` are texts of characters and
  // a last byte, whose tokens are found by the characters' row (Lexicon::excluded_at_end), and `excluded` is the rest, or kNone. `last` is the
  // byte before which nothing of a finite `excluded` matters (Lexicon::last_byte_of_endless).
  struct Plan {
    bool broad = false;  // false: no row; few places of the trie are alive for it
    bool excludes = false, first_nullable = false;
    Node reference = kNone, base = kNone, excluded = kNone, first = kNone, rest = kEpsilon;
    std::vector<std::pair<Node, uint8_t>> ends;
    std::optional<uint8_t> last;
  };
  const Plan& plan(Node remainder);
  // Does the remainder live on after any plain characters, so that its row keeps all plain tokens (plain_tokens.h)? False also means 'not known', and
  // where completions must be spelled without some bytes.
  bool outlasts_plain(Node remainder);
  // The tokens below `place` that leave one of `targets` of the remainder, which are the same at every call for it.
  const std::vector<uint32_t>& tokens_into(Node remainder, const std::set<Node>& targets, uint32_t place);
  std::size_t size() const;
  std::size_t bytes_used() const { return bytes_.load(std::memory_order_relaxed); }

 private:
  struct Key {
    uint32_t remainder, competing, place;
    const TokenTrie* trie = nullptr;
    bool operator==(const Key&) const = default;
  };
  struct KeyHash {
    std::size_t operator()(const Key& k) const {
      uint64_t h = (uint64_t{k.remainder} << 32 | k.competing) * 0x9E3779B97F4A7C15ull;
      h ^= (k.place + reinterpret_cast<uintptr_t>(k.trie)) * 0xFF51AFD7ED558CCDull;
      return h ^ h >> 32;
    }
  };
  Plan make_plan(Node remainder);
  bool is_broad(Node remainder);
  bool begins_counted(Node remainder);
  bool excludes_little(Node excluded);
  using Rows = std::unordered_map<Key, std::unique_ptr<LexRow>, KeyHash>;
  const LexRow& keep(Rows& rows, const Key& key, std::unique_ptr<LexRow> fresh);
  // The row of body*, with numbers of bodies if they are definite.
  const LexRow& counting_row(Node starred, uint32_t place);
  // `kept`: bits of tokens that are not in the trie and keep the lexeme going; may be empty.
  std::unique_ptr<LexRow> build(Node remainder, Node competing, const TokenTrie& trie, uint32_t place, bool counting,
                                std::span<const uint32_t> kept = {});
  std::unique_ptr<LexRow> read_off(Node remainder, uint32_t place);
  void store_stay(LexRow& row, std::vector<uint32_t> stay);
  std::size_t depth_of(uint32_t place) const;
  static void store_few(LexRow& row, std::vector<uint32_t> tokens);

  const Vocabulary& vocabulary_;
  Lexicon& lexicon_;
  mutable std::mutex mutex_;
  Rows rows_, counting_;
  std::unordered_map<Key, const LexRow*, KeyHash> saturated_;  // remainders whose row is that of their saturated twin
  std::unordered_map<Key, std::vector<uint32_t>, KeyHash> tokens_into_;
  std::unordered_map<uint32_t, Plan> plans_;
  std::unordered_map<uint32_t, bool> broad_, outlasts_plain_;
  std::atomic<std::size_t> bytes_{0};
};

}  // namespace guiderail
