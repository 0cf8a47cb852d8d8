// What longest match demands of the text to come.
//
// A lexeme w that ends here is the longest match only if no terminal matches w followed by more of the text. With c the
// remainder, after w, of the union of all terminals ('competing'), the text to come must lie in
//
//   no_longer_match(c) = complement of (c without the empty string) followed by anything
//
// where a terminal that looks past its end counts only with a text behind it that it admits: c then has texts v # r
// (Lexicon::kMarker), and v r, not v followed by anything, is what must not come.
//
// INT `1` beside FLOAT: c = digits | digits "." digits, so what follows must not begin with a digit, nor with "." and a
// digit. Such languages are called obligations. They are nodes of the lexicon, so they are met by derivatives: dead is
// broken, 'all texts' is discharged, and several of them are an intersection.
//
// Different remainders often leave the same obligation (after any word of a language with keywords: no letter), but as
// differently built nodes. States are kept apart by node, so obligations are put into a canonical form here: the
// minimal automaton of a small one is numbered breadth-first, and the first node met with that automaton stands for
// all. The alternative, comparing the nodes as they are, is also right but keeps a state per keyword prefix.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <string>
#include <unordered_map>
#include <vector>

#include "core/lexer/lexicon.h"
#include "core/published_map.h"

namespace guiderail {

// What a single question about munch may cost, and what all of them have cost in memory.
class MunchEffort {
 public:
  explicit MunchEffort(std::size_t max_states) : max_states_(max_states) {}

  // The outermost question on the stack starts counting anew.
  class Question {
   public:
    explicit Question(MunchEffort& effort) : effort_(effort) {
      if (effort_.depth_++ == 0) effort_.states_ = 0;
    }
    ~Question() { --effort_.depth_; }
    Question(const Question&) = delete;
    Question& operator=(const Question&) = delete;

   private:
    MunchEffort& effort_;
  };

  // One more state or fact of `bytes`, or several that were only passed through. Throws LimitError.
  void spend(std::size_t bytes, std::size_t states = 1);
  std::size_t bytes_used() const { return bytes_.load(std::memory_order_relaxed); }

 private:
  std::size_t max_states_, states_ = 0;
  int depth_ = 0;
  std::atomic<std::size_t> bytes_{0};
};

class Obligations {
 public:
  // `mutex` guards growth here as elsewhere in the engine.
  Obligations(Lexicon& lexicon, std::recursive_mutex& mutex, MunchEffort& effort)
      : lexicon_(lexicon), mutex_(mutex), effort_(effort) {}

  // Any thread may call these two; answers met before take no lock.
  Node no_longer_match(Node competing);
  // What is left to meet after a lexeme: what was left before it, what its own end demands of longer matches, and what
  // the terminal itself demands of the text behind it (`follow`, see Lexicon::after_marker); kNone if they contradict
  // each other.
  Node after(Node obligation, Node competing, Node follow);
  // From now on remainders of the union may hold marked languages (Lexicon::kMarker): a match of a terminal that looks
  // past its end, together with what must follow.
  void expect_markers() { markers_ = true; }

  // These with the mutex held.
  Node canonical(Node obligation);
  // Does every text that meets `stronger` meet `weaker`? False also means 'not known'.
  bool implies(Node stronger, Node weaker);

 private:
  Node both_or_none(Node a, Node b);
  // One byte of each class that the nodes' transitions tell apart.
  std::vector<uint8_t> representatives(Node a, Node b);
  std::string minimal_automaton(Node obligation);
  bool search_implies(Node stronger, Node weaker);

  Lexicon& lexicon_;
  std::recursive_mutex& mutex_;
  MunchEffort& effort_;
  bool markers_ = false;
  PublishedMap no_longer_;  // competing → obligation
  PublishedMap after_;      // obligation before, competing → obligation
  PublishedMap meeting_;    // obligation, what the terminal demands → obligation
  PublishedMap canonical_;  // obligation → the one that stands for it
  PublishedMap implies_;    // stronger, weaker → 0, 1
  std::unordered_map<std::string, Node> by_automaton_;
};

}  // namespace guiderail
