// Tokens read lexeme by lexeme, where lexing does not depend on the parser (token_readings.h): what a thread adds to the mask is the answer of its shape
// (shape_tokens.h), and what that leaves to the thread.
#include <algorithm>
#include <bit>

#include "core/lexer/munch.h"
#include "core/masks/mask_builder.h"

namespace guiderail {

void MaskBuilder::add(const TokenSet& tokens, const Ranges* skip) {
  if (tokens.empty()) return;
  if (!skip) {
    token_sets_.push_back(&tokens);
    return;
  }
  auto add_word = [&](uint32_t index, uint32_t bits) {
    for (; bits; bits &= bits - 1) {
      uint32_t token = index * 32 + static_cast<uint32_t>(std::countr_zero(bits));
      if (!contains(*skip, token)) sets_.push_back(token);
    }
  };
  for (uint32_t i = 0; i < tokens.all_words().size(); ++i) add_word(i, tokens.all_words()[i]);
  for (TokenSet::Word w : tokens.words()) add_word(w.index, w.bits);
}

// Of a thread at a boundary, the tokens of a place.
void MaskBuilder::visit(TokenReadings::PlaceId place, const Thread& boundary, const Ranges* skip) {
  follow(shapes_->answer(place, boundary.parser, boundary.indentation), boundary, skip);
}

// Of a thread whose shape has given the answer: that, and what it leaves to the thread.
void MaskBuilder::follow(const ShapeTokens::Answer& answer, const Thread& thread, const Ranges* skip) {
  using What = ShapeTokens::Question::What;
  Parser& parser = engine_.parser();
  Indentation* indentation = engine_.indentation();
  add(answer.tokens, skip);
  for (const ShapeTokens::Return& r : answer.returns) {
    const Parser::Partial& after = parser.returned(thread.parser, r.item);
    if (!after.known) continue;
    Thread t = thread;
    t.parser = *after.known;
    if (indentation) t.indentation = indentation->with_brackets(thread.indentation, r.brackets);
    follow(shapes_->answer_behind(r.exits, t.parser, t.indentation), t, skip);
  }
  for (const ShapeTokens::Question& question : answer.questions) {
    Thread t = thread;
    t.group = question.group;
    if (indentation) t.indentation = indentation->with_brackets(thread.indentation, question.brackets);
    bool reached = true;
    for (const ShapeTokens::Step& step : question.path) {
      bool doubtful = false;
      if (step.group == kNone) {
        std::optional<ParserState> after = parser.returned(t.parser, step.tag).known;
        reached = reached && after;
        if (after) t.parser = *after;
      } else {
        t.parser =
            parser.shift(t.parser, *Parser::find(parser.lookahead(t.parser), step.group, step.tag), kNoText, doubtful);
      }
    }
    if (!reached) continue;
    switch (question.what) {
      case What::kArrival: arrive(*question.exit, t, skip); break;
      case What::kNewline: leave_newline(*question.newlines, t, skip); break;
      case What::kInside: stay(*question.inside, t, skip);
    }
  }
}

// The same for a thread inside a lexeme.
void MaskBuilder::read_on(const TokenTrie& trie, uint32_t place, const Thread& thread, const Ranges* skip) {
  using Kind = TokenReadings::Lexeme::Kind;
  TokenReadings& readings = shapes_->readings();
  const TokenReadings::Lexeme lexeme = readings.going_on(thread);
  const TokenReadings::Reading& reading = readings.reading(readings.place(trie, place, thread.obligation), lexeme);
  add(reading.inside, skip);
  for (const auto& inside : reading.doubtful) stay(inside, thread, skip);
  if (lexeme.kind == Kind::kMeasured) {
    leave_newline(shapes_->newlines(reading, thread.group), thread, skip);
    return;
  }
  for (const TokenReadings::Exit& exit : reading.exits)
    for (uint32_t tag : exit.tags) leave(exit, tag, thread, skip);
}

void MaskBuilder::stay(const TokenReadings::Reading::Doubtful& inside, const Thread& lexeme, const Ranges* skip) {
  Thread t = lexeme;
  t.lexeme = inside.lexeme;
  t.competing = inside.competing;
  t.obligation = inside.obligation;
  if (engine_.viability()->viable(t, engine_.dropped(t)) && spellable({&t, 1})) add(inside.tokens, skip);
}

// What follows where the thread's lexeme has ended.
void MaskBuilder::leave(const TokenReadings::Exit& exit, uint32_t tag, const Thread& lexeme, const Ranges* skip) {
  Parser& parser = engine_.parser();
  Indentation* indentation = engine_.indentation();
  Thread next = lexeme;
  if (!indentation || !indentation->is_newline(lexeme.group)) {  // else a dropped one
    const Parser::Expected* expected = Parser::find(parser.lookahead(lexeme.parser), lexeme.group, tag);
    if (!expected) return;
    if (indentation) next.indentation = indentation->after(lexeme.indentation, lexeme.group);
    if (next.indentation == Indentation::kNever) return;
    bool doubtful = false;
    next.parser = parser.shift(lexeme.parser, *expected, kNoText, doubtful);
  }
  arrive(exit, next, skip);
}

// The thread stands behind the exit; its group is that of the lexeme which has ended.
void MaskBuilder::arrive(const TokenReadings::Exit& exit, const Thread& ended, const Ranges* skip) {
  Thread next = ended;
  next.group = next.lexeme = next.competing = kNone;
  next.obligation = exit.obligation;
  if (!exit.certain) {
    MunchViability& viability = *engine_.viability();
    Node dropped = engine_.dropped(next);
    bool newline = engine_.indentation() && engine_.indentation()->is_newline(ended.group);
    if (newline ? !viability.viable(next.parser, next.obligation, dropped)
                : !viability.viable_after(ended.group, next.parser, next.obligation, dropped))
      return;
  }
  if (exit.certain || exit.here.empty() || spellable({&next, 1})) add(exit.here, skip);
  for (TokenReadings::PlaceId place : exit.next) visit(place, next, skip);
}

// A newline ends in tokens. Tokens have many widths, few of which are those of open blocks; and where a block opens, what follows does not depend on its
// width unless a further newline does.
void MaskBuilder::leave_newline(const std::vector<ShapeTokens::Newline>& newlines, const Thread& newline,
                                const Ranges* skip) {
  if (many_widths_) {
    width_matters_ = true;
    return;
  }
  Indentation& indentation = *engine_.indentation();
  Parser& parser = engine_.parser();
  const Parser::Expected* expected = Parser::find(parser.lookahead(newline.parser), newline.group, 0);
  bool doubtful = false, opens = false;
  if (expected) {
    ParserState next = parser.shift(newline.parser, *expected, kNoText, doubtful);
    opens = Parser::find(parser.lookahead(next), indentation.indent(), 0) != nullptr;
  }
  std::vector<Thread> after;
  for (const ShapeTokens::Newline& end : newlines) {
    if (end.behind_any != ShapeTokens::kNoExits) {
      after.clear();
      engine_.begin_comment_line(newline, end.before_comment, after);
      for (const Thread& boundary : after) go_on_behind(end.behind_any, boundary, skip);
    }
    if (!expected) continue;
    auto width = [&](const TokenReadings::LineBreak* b) { return indentation.columns(b->width); };
    // Not broken: no line break has been read, and the width does not count.
    for (auto b = end.breaks.begin(); b != end.breaks.end() && !indentation.broken((*b)->width); ++b)
      begin_line(newline, end, **b, shapes_->behind(end, **b), skip);
    indentation.for_each_block(newline.indentation, [&](Indentation::Columns open) {
      for (const TokenReadings::LineBreak* b : std::ranges::equal_range(end.breaks, open, {}, width))
        if (indentation.broken(b->width)) begin_line(newline, end, *b, shapes_->behind(end, *b), skip);
    });
    if (!opens) continue;
    const ShapeTokens::Wider& wider = shapes_->wider(end, indentation.innermost(newline.indentation));
    if (wider.behind == ShapeTokens::kNoExits) continue;
    width_matters_ = false;
    many_widths_ = true;
    begin_line(newline, end, *wider.breaks[0], wider.behind, skip);
    many_widths_ = false;
    if (!width_matters_) continue;
    for (const TokenReadings::LineBreak* b : wider.breaks) begin_line(newline, end, *b, shapes_->behind(end, *b), skip);
  }
}

void MaskBuilder::begin_line(const Thread& newline, const ShapeTokens::Newline& end,
                             const TokenReadings::LineBreak& line_break, ShapeTokens::ExitsId exits,
                             const Ranges* skip) {
  if (exits == ShapeTokens::kNoExits) return;
  Thread t = newline;
  t.indentation = engine_.indentation()->with_width(newline.indentation, line_break.width);
  std::vector<Thread> after;
  engine_.begin_line(t, end.before_line, after);
  for (const Thread& boundary : after) go_on_behind(exits, boundary, skip);
}

// Of a boundary that is viable. What stands behind exits does not tell tokens that end there from others.
void MaskBuilder::go_on_behind(ShapeTokens::ExitsId exits, const Thread& boundary, const Ranges* skip) {
  if (!spellable({&boundary, 1})) throw ShapeTokens::TooMany();
  follow(shapes_->answer_behind(exits, boundary.parser, boundary.indentation), boundary, skip);
}

}  // namespace guiderail
