// What the tokens of a place (token_readings.h) may be for all parser states of one shape at once.
//
// In a program nearly every nesting is a parser state of its own, but states of one shape expect the same terminals, and differ only in where
// completed rules return to. So a place is read once per shape, from a state of which nothing else is known (Parser::opened). What it allows, every
// state of the shape allows. Where a rule that was there before is completed, the answer is a *return*: the kernel item whose rule is complete, and
// all exits of readings after which it is. Each state follows a return for itself, to a state whose shape again has an answer for these exits,
// so a new nesting costs a few look-ups. Answers are made of answers: that of a place uses those of the places behind its exits.
// What shapes cannot tell (widths of lines, longest match that has to ask the parser) is left as questions.
//
// xgrammar (Dong et al. 2024) splits tokens into those that a rule decides by itself and others, which it checks one by one; here the others are
// decided by lexemes, all tokens that share them together, and exactly.
#pragma once

#include <atomic>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <span>
#include <utility>
#include <vector>

#include "core/masks/token_readings.h"
#include "core/published_map.h"
#include "core/stable_vector.h"

namespace guiderail {

// Any thread may call anything.
class ShapeTokens {
 public:
  using ExitsId = uint32_t;
  static constexpr ExitsId kNoExits = UINT32_MAX;  // no token is left there
  // After the lexeme of a group has ended.
  struct Arrival {
    const TokenReadings::Exit* exit;
    Node group;
    auto operator<=>(const Arrival&) const = default;
  };
  struct Return {
    uint32_t item;  // Parser::returned
    Indentation::State brackets;
    ExitsId exits;
  };
  // From one state to another, in words that hold for every state of a shape.
  struct Step {
    Node group;  // a terminal, by group and tag; kNone: a return
    uint32_t tag;
  };
  // The ways in which a newline of a measured width (indentation.h) ends in tokens of a place and leaves the same. Which widths there may be depends on
  // the blocks of a state, but before a comment all of them are one.
  struct Newline {
    Node group;
    const TokenTrie* trie;
    Node before_comment, before_line;  // owed; kNone: there is no such line
    ExitsId behind_any = kNoExits;     // of all widths, owing before_comment
    std::vector<const TokenReadings::LineBreak*>
        breaks;  // ordered by width; those before a line that some tokens go on with, or end before
  };
  struct Question {
    enum class What : uint8_t {
      kArrival,  // is the state viable there, and what then?
      kInside,   // is the lexeme?
      kNewline,  // where does a newline end?
    };
    What what;
    Node group;
    Indentation::State brackets;
    const TokenReadings::Exit* exit;                 // of an arrival
    const TokenReadings::Reading::Doubtful* inside;  // of a lexeme
    const std::vector<Newline>* newlines;            // of a newline
    std::vector<Step> path;                          // to the state that is asked
  };
  struct Answer {
    TokenSet tokens;
    std::vector<Return> returns;
    std::vector<Question> questions;
  };
  // A text has too many readings: the caller has to walk byte by byte.
  struct TooMany {};

  ShapeTokens(Engine& engine, const Vocabulary& vocabulary, MunchViability* live)
      : engine_(engine), readings_(engine, vocabulary, live) {}

  TokenReadings& readings() { return readings_; }
  // Of a state at a boundary that stands at the place. All of these may throw TooMany.
  const Answer& answer(TokenReadings::PlaceId place, ParserState parser, Indentation::State indentation);
  // Of a state that stands behind the exits, which lead to what they owe each for itself.
  const Answer& answer_behind(ExitsId exits, ParserState parser, Indentation::State indentation);
  ExitsId exits(std::vector<Arrival> arrivals);
  // Of the reading of a measured newline.
  const std::vector<Newline>& newlines(const TokenReadings::Reading& reading, Node group);
  // Behind one of its breaks, owing before_line.
  ExitsId behind(const Newline& newline, const TokenReadings::LineBreak& line_break);
  // Those of its breaks that are wider than a width.
  struct Wider {
    std::vector<const TokenReadings::LineBreak*> breaks;
    ExitsId behind = kNoExits;
  };
  const Wider& wider(const Newline& newline, Indentation::State than);
  std::size_t bytes_used() const { return bytes_.load(std::memory_order_relaxed) + readings_.bytes_used(); }

 private:
  struct Making {
    ParserState state;
    std::vector<const TokenSet*> sets;
    std::map<std::pair<uint32_t, Indentation::State>, std::vector<Arrival>> returns;
    std::vector<Question> questions;
  };
  using Path = std::vector<Step>;

  void charge(std::size_t bytes);
  // A place or exits, a shape and how many brackets are open, in one number.
  uint64_t key(bool exits, uint32_t where, uint32_t shape, Indentation::State indentation) const;
  const Answer* known(uint64_t key) const;
  static void add(const TokenSet& tokens, Making& to);
  const Answer& keep(uint64_t key, Making& made);
  ExitsId together(const Newline& newline, std::span<const TokenReadings::LineBreak* const> breaks, Node owed);
  void read(TokenReadings::PlaceId place, Indentation::State brackets, Making& to);
  void read(TokenReadings::PlaceId place, Node group, Indentation::State brackets, Making& to);
  void arrive(const Arrival& arrival, ParserState at, Indentation::State brackets, const Path& path, Making& to);
  void absorb(const Answer& answer, ParserState at, const Path& path, Making& to);

  Engine& engine_;
  TokenReadings readings_;
  std::mutex mutex_;
  StableVector<Answer> answers_;
  PublishedMap answer_ids_;
  StableVector<std::vector<Arrival>> exits_;
  std::map<std::vector<Arrival>, ExitsId> exits_ids_;
  std::map<std::pair<const TokenReadings::Reading*, Node>, std::unique_ptr<const std::vector<Newline>>> newlines_;
  std::map<std::pair<const TokenReadings::LineBreak*, Node>, ExitsId> behind_;  // by what is owed
  std::map<std::pair<const Newline*, Indentation::State>, std::unique_ptr<const Wider>> wider_;
  std::vector<std::unique_ptr<const TokenReadings::Exit>> owned_exits_;
  const Answer nothing_;
  std::atomic<std::size_t> bytes_{0};
};

}  // namespace guiderail
