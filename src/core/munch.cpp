#include "munch.h"

#include "engine.h"

namespace guiderail {

Node MunchViability::no_longer_match(Node competing) {
  Lexicon& lexicon = symbols_.lexicon();
  if (!lexicon.continues(competing)) return kAll;
  Node nonempty = lexicon.both({competing, lexicon.concat(lexicon.bytes(ByteSet::all()), kAll)});
  return lexicon.complement(lexicon.concat(nonempty, kAll));
}

bool MunchViability::viable(ParserState, Node) { return true; }
bool MunchViability::viable(const Thread&) { return true; }
bool MunchViability::always_viable(Node, ParserState) { return true; }

}  // namespace guiderail
