// Longest match, and what it makes impossible.
//
// When a lexeme w ends although some terminal could go on, the text to come must not complete that longer match: the obligation is the
// complement of (remainder of the union of all terminals after w, without the empty string) followed by anything. Obligations are
// nodes of the lexicon like any other; they are discharged when the derivative becomes 'all texts'.
//
// With obligations, productive rules are not enough: `NAME NAME` with nothing between has no text at all, because any second NAME
// would extend the first. A parser state p under an obligation o is *viable* if some sequence of lexemes leads from p to acceptance while
// every obligation on the way is met. The set of obligations is finite for a given grammar's lexer (remainders of finitely many
// automaton states, intersected), so viability is the emptiness of a context-free language intersected with
// a regular one (Bar-Hillel, Perles, Shamir 1961), computed by least fixpoint over (nonterminal, obligation before, obligation after),
// on demand.
#pragma once

#include <cstdint>
#include <unordered_map>
#include <vector>

#include "lexicon.h"
#include "parser.h"

namespace guiderail {

struct Thread;

class MunchViability {
 public:
  MunchViability(Parser& parser, SymbolTable& symbols, Node all_terminals)
      : parser_(parser), symbols_(symbols), all_terminals_(all_terminals) {}

  // What the text after a lexeme must not do: complete a longer match from `competing`, the remainder of all terminals.
  Node no_longer_match(Node competing);
  bool viable(ParserState parser, Node obligation);
  bool viable(const Thread& inside_lexeme);
  bool always_viable(Node group, ParserState parser);

 private:
  Parser& parser_;
  SymbolTable& symbols_;
  Node all_terminals_;
};

}  // namespace guiderail
