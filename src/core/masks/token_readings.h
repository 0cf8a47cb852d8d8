// How tokens fall into lexemes under longest match, whatever the parser says.
//
// Where lexing does not look at the parser, what one lexeme does to what is left of a set of tokens can be known once for all parser states: which
// tokens end inside of it, and what is left of the others after each of its ends. So a parser state does not walk tokens byte by byte, but lexeme by
// lexeme, all tokens that begin with the same ones together:
//
//   after a name:   {"(" → {"(", then `"` …}, ")." → {")", ".", then a name …}, " =" → {" ", "="}, …}
//
// A *place* is what is left of tokens (a trie, from one of its nodes on) under an obligation, at a lexeme's boundary. The *reading* of a place by a
// terminal says what one lexeme of that terminal makes of it; its exits lead to further places. Both are made when somebody first asks.
//
// References: Koo, Liu and He 2024 and Park, Zhou and D'Antoni 2025 precompute such tables, ahead and without longest match.
#pragma once

#include <atomic>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <span>
#include <unordered_map>
#include <utility>
#include <vector>

#include "core/engine.h"
#include "core/lexer/munch.h"
#include "core/masks/lex_row.h"
#include "core/masks/token_set.h"
#include "core/masks/token_trie.h"
#include "core/masks/vocabulary.h"
#include "core/published_map.h"
#include "core/stable_vector.h"

namespace guiderail {

// Any thread may call anything.
class TokenReadings {
 public:
  using PlaceId = uint32_t;
  struct Place {
    const TokenTrie* trie;
    uint32_t node;
    Node obligation;
    ByteSet first;  // what may come next
  };
  // One way to end.
  struct Exit {
    std::vector<uint32_t> tags;
    Node obligation;            // at the boundary
    bool certain;               // viable, and live, in whatever parser state (MunchViability::surely_viable_after)
    TokenSet here;              // tokens that end right here, those of Reading::inside left out
    std::vector<PlaceId> next;  // what is left of the others
  };
  // Where a measured newline (indentation.h) may end: in few of the many widths that tokens have does anybody ask what comes next.
  struct LineBreak {
    Indentation::State width;
    Node obligation;              // at the boundary, before it is known what the line holds
    TokenSet here;                // tokens that end right here
    std::vector<uint32_t> roots;  // above what is left of the others
  };
  // A lexeme that is being read, or that begins.
  struct Lexeme {
    Node group, lexeme, competing;
    // Newlines of grammars with blocks (indentation.h): either their width matters, or the parser does not see them. Then no exit is certain, and
    // tokens inside are doubtful.
    enum class Kind : uint8_t { kPlain, kMeasured, kDropped } kind = Kind::kPlain;
    Indentation::State width = 0;  // read so far, of a measured one
    bool operator==(const Lexeme&) const = default;
  };
  struct Reading {
    TokenSet inside;  // tokens that end inside the lexeme, where it is viable in whatever parser state
    struct Doubtful {
      Node lexeme, competing, obligation;
      TokenSet tokens;
    };
    std::vector<Doubtful> doubtful;  // tokens that end inside of it elsewhere
    std::vector<Exit> exits;
    std::vector<LineBreak> breaks;  // of a measured newline, in place of exits
    const TokenTrie* trie;          // of their roots
    Lexeme::Kind kind;
  };

  // `live`: of a vocabulary that lacks bytes, what says in which states text can go on in tokens (Liveness::by_single_bytes); else null.
  TokenReadings(Engine& engine, const Vocabulary& vocabulary, MunchViability* live)
      : engine_(engine), vocabulary_(vocabulary), sure_(live ? *live : *engine.viability()) {}

  // Does what is said here hold of the grammar?
  static bool usable(Engine& engine, MunchViability* live);

  // `trie` lives as long as the epoch or the vocabulary.
  PlaceId place(const TokenTrie& trie, uint32_t node, Node obligation);
  const Place& operator[](PlaceId place) const { return places_[place]; }
  const Reading& reading(PlaceId place, const Lexeme& lexeme);
  // Of a lexeme that begins there.
  const Reading& reading_of(PlaceId place, Node group, Indentation::State indentation);
  // Of a thread at a boundary that begins `group`.
  Lexeme beginning(Node group, Indentation::State indentation) const;
  // Of a thread inside a lexeme.
  Lexeme going_on(const Thread& thread) const;
  // The exits of a row of the whole vocabulary, of a lexeme of `group` that nothing is owed in; `here` is empty.
  const std::vector<Exit>& exits(const LexRow& row, Node group);
  // An exit for some of a reading's line breaks together, which owes this and is viable.
  Exit together(const TokenTrie& trie, std::span<const LineBreak* const> breaks, Node obligation);

  // The bytes that an obligation lets come next. Most forbid what would make the last lexeme longer, which is most of what tokens go on with.
  ByteSet first_of(Node obligation);
  // Is every state that expects this viable under the obligation, and live? Every lexeme after which what is expected is this? False: not known.
  bool surely_good(const Parser::Lookahead& look, Node obligation, MunchViability::Dropped newline);
  bool surely_good(const Parser::Lookahead& after, const Reading::Doubtful& inside, MunchViability::Dropped newline);

  const Vocabulary& vocabulary() const { return vocabulary_; }
  std::size_t bytes_used() const { return bytes_.load(std::memory_order_relaxed); }

 private:
  struct PlaceKey {
    const TokenTrie* trie;
    uint32_t node;
    Node obligation;
    bool operator==(const PlaceKey&) const = default;
  };
  struct PlaceHash {
    std::size_t operator()(const PlaceKey& k) const {
      return (reinterpret_cast<uintptr_t>(k.trie) * 0x9E3779B97F4A7C15ull) ^
             ((uint64_t{k.node} << 32 | static_cast<uint32_t>(k.obligation)) * 0xFF51AFD7ED558CCDull);
    }
  };
  struct Merged {
    const TokenTrie* of;
    std::vector<uint32_t> roots;
    ByteSet first;
    std::unique_ptr<const TokenTrie> trie;
  };

  struct ReadingKey {
    PlaceId place;
    Lexeme lexeme;
    bool operator==(const ReadingKey&) const = default;
  };
  struct ReadingHash {
    std::size_t operator()(const ReadingKey& k) const {
      return ((uint64_t{k.place} << 32 | static_cast<uint32_t>(k.lexeme.group)) * 0x9E3779B97F4A7C15ull) ^
             ((uint64_t{static_cast<uint32_t>(k.lexeme.lexeme)} << 32 | static_cast<uint32_t>(k.lexeme.competing)) *
              0xFF51AFD7ED558CCDull) ^
             (uint64_t{k.lexeme.width} << 8 | static_cast<uint8_t>(k.lexeme.kind));
    }
  };

  std::unique_ptr<const Reading> read(const Place& place, const Lexeme& lexeme);
  // What is below some nodes, under an obligation.
  std::vector<PlaceId> below(const TokenTrie& trie, std::vector<uint32_t> roots, Node obligation);
  bool met_by_first_byte(Node obligation, Node lexeme);
  // What `sure_` is asked of.
  Node within_rests(Node obligation);
  void charge(std::size_t bytes);

  Engine& engine_;
  const Vocabulary& vocabulary_;
  MunchViability& sure_;
  std::mutex mutex_;
  PublishedMap within_rests_;
  std::map<Node, ByteSet> firsts_;
  StableVector<Place> places_;
  std::unordered_map<PlaceKey, PlaceId, PlaceHash> place_ids_;
  std::unordered_map<ReadingKey, const Reading*, ReadingHash> readings_;
  std::vector<std::unique_ptr<const Reading>> owned_;
  PublishedMap begun_ids_;  // place, group and whether newlines are dropped → index in begun_
  StableVector<const Reading*> begun_;
  std::map<std::pair<const LexRow*, Node>, std::unique_ptr<const std::vector<Exit>>> row_exits_;
  std::unordered_multimap<uint64_t, Merged> merged_;
  std::atomic<std::size_t> bytes_{0};
};

}  // namespace guiderail
