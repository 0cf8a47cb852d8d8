// The only file that knows Python. It converts arguments, releases the GIL around core calls that may take long, and translates
// exceptions; it decides nothing.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/map.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/shared_ptr.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/unordered_map.h>
#include <nanobind/stl/variant.h>
#include <nanobind/stl/vector.h>

#include <cstring>
#include <limits>
#include <map>
#include <variant>

#include "core/compiled_grammar.h"
#include "core/engine.h"
#include "core/errors.h"
#include "core/fused_scores.h"
#include "core/growth.h"
#include "core/json/schema.h"
#include "core/json/text.h"
#include "core/masks/vocabulary.h"
#include "core/parser/composite_source.h"
#include "core/parser/static_source.h"
#include "core/regex/regex.h"
#include "core/thread_pool.h"

namespace nb = nanobind;
using namespace nb::literals;
using namespace guiderail;

namespace {

using Bitmask = nb::ndarray<int32_t, nb::ndim<2>, nb::c_contig, nb::device::cpu>;

std::string_view view(const nb::bytes& b) { return {b.c_str(), b.size()}; }

void raise(const char* name, const char* message, const nb::dict& fields) {
  nb::object type = nb::module_::import_("guiderail.errors").attr(name);
  nb::object error = type(nb::str(message), **fields);
  PyErr_SetObject(type.ptr(), error.ptr());
}

void translate(const std::exception_ptr& p, void*) {
  nb::dict fields;
  try {
    std::rethrow_exception(p);
  } catch (const GrammarError& e) {
    if (e.offset != GrammarError::kNoOffset) fields["offset"] = e.offset;
    raise("GrammarError", e.what(), fields);
  } catch (const SchemaError& e) {
    fields["pointer"] = e.pointer;
    raise(e.unsatisfiable ? "UnsatisfiableError" : "SchemaError", e.what(), fields);
  } catch (const LimitError& e) {
    fields["limit"] = e.limit;
    raise("LimitError", e.what(), fields);
  } catch (const DeadEndError& e) { raise("DeadEndError", e.what(), fields); }
}

// A grammar's description and, once somebody asks about texts, an engine for it.
class Source {
 public:
  explicit Source(std::shared_ptr<const GrammarSource> source) : source(std::move(source)) {}

  // The longest prefix of `text` that some text of the language begins with, and whether all of it is a text.
  std::pair<std::size_t, bool> match(std::string_view text) {
    std::shared_ptr<Engine> engine = opened();
    std::size_t before = growth_of_this_thread;
    StateId state = engine->initial();
    constexpr std::size_t kStride = 64;  // states are interned at these places only
    std::size_t done = 0;
    while (done < text.size()) {
      std::size_t size = std::min(kStride, text.size() - done);
      StateId next = engine->advance(state, text.substr(done, size));
      if (next == kDead) {
        for (; size > 1; --size)
          if (engine->advance(state, text.substr(done, size - 1)) != kDead) break;
        return {done + size - 1, false};
      }
      state = next;
      done += size;
      if (growth_of_this_thread - before > engine->limits().request_bytes)
        throw LimitError("request_bytes", "this text has made the grammar's tables grow too much");
    }
    return {done, engine->accepting(state)};
  }

  std::shared_ptr<const GrammarSource> source;

 private:
  std::shared_ptr<Engine> opened() {
    std::lock_guard lock(mutex_);
    if (!engine_ || engine_->bytes_used() > kMaxBytes) engine_ = std::make_shared<Engine>(source, Limits{});
    return engine_;
  }
  static constexpr std::size_t kMaxBytes = std::size_t{1} << 26;
  std::mutex mutex_;
  std::shared_ptr<Engine> engine_;
};

class Regex {
 public:
  Regex(const std::string& pattern, const std::string& dialect, int flags, bool search)
      : lexicon_(std::make_shared<Lexicon>()) {
    auto tree = parse_regex(pattern, dialect == "ecma" ? RegexDialect::kEcma : RegexDialect::kPython, flags_of(flags));
    Lexicon::Budget budget(Limits{}.lexer_states_per_request);
    node_ = lower_regex(*lexicon_, *tree, search ? RegexMatch::kSearch : RegexMatch::kFull, encode_utf8);
  }
  bool accepts(std::string_view text) {
    Lexicon::Budget budget(Limits{}.lexer_states_per_request);
    return lexicon_->nullable(lexicon_->walk(node_, text));
  }
  bool accepts_prefix(std::string_view text) {
    Lexicon::Budget budget(Limits{}.lexer_states_per_request);
    return lexicon_->alive(lexicon_->walk(node_, text));
  }
  static RegexFlags flags_of(int bits) {
    return {.ignore_case = (bits & 2) != 0,
            .multiline = (bits & 8) != 0,
            .dot_all = (bits & 16) != 0,
            .verbose = (bits & 64) != 0,
            .ascii = (bits & 256) != 0};
  }

 private:
  std::shared_ptr<Lexicon> lexicon_;
  Node node_;
};

using TerminalSpec =
    std::tuple<std::string, std::variant<std::string, nb::bytes, std::shared_ptr<Source>>, int, std::string>;
using IndentationSpec =
    std::tuple<uint32_t, uint32_t, uint32_t, std::vector<uint32_t>, std::vector<uint32_t>, uint32_t, bool>;
using LexerSpec = std::pair<std::vector<uint32_t>, std::vector<std::pair<uint32_t, std::vector<uint32_t>>>>;
using RuleSpec = std::pair<std::string, std::vector<std::vector<std::variant<uint32_t, std::string>>>>;

std::shared_ptr<Source> static_source(const std::vector<TerminalSpec>& terminals, const std::vector<RuleSpec>& rules,
                                      const std::string& start, const std::string& lexing,
                                      std::vector<uint32_t> ignored, const std::vector<int>& priorities,
                                      const std::optional<IndentationSpec>& indentation,
                                      const std::vector<LexerSpec>& lexers,
                                      std::vector<std::pair<uint32_t, uint32_t>> shifts,
                                      const std::vector<uint32_t>& modes, std::vector<bool> skips) {
  static const std::unordered_map<std::string_view, Lexing> disciplines{{"free", Lexing::kFree},
                                                                        {"munch", Lexing::kMunch},
                                                                        {"lark-dynamic", Lexing::kDynamic},
                                                                        {"lark-basic", Lexing::kOrdered},
                                                                        {"lark-contextual", Lexing::kOrdered}};
  auto discipline = disciplines.find(lexing);
  if (discipline == disciplines.end()) throw GrammarError("unknown lexing discipline '" + lexing + "'");
  if (!priorities.empty() && priorities.size() != terminals.size()) throw GrammarError("one priority per terminal");
  if (!modes.empty() && modes.size() != terminals.size()) throw GrammarError("one mode per terminal");
  std::vector<StaticTerminal> table;
  for (std::size_t i = 0; i < terminals.size(); ++i) {
    const auto& [kind, text, flags, name] = terminals[i];
    StaticTerminal t;
    t.name = name;
    t.mode = modes.empty() ? 0 : modes[i];
    t.priority = priorities.empty() ? -static_cast<int>(i) : priorities[i];
    if (std::holds_alternative<std::string>(text)) t.text = std::get<std::string>(text);
    if (std::holds_alternative<nb::bytes>(text)) t.text = view(std::get<nb::bytes>(text));
    if (std::holds_alternative<std::shared_ptr<Source>>(text) != (kind == "part"))
      throw GrammarError("a terminal of kind 'part' is given by a source, others by text");
    if (kind == "part") {
      t.kind = StaticTerminal::Kind::kPart;
      t.source = std::get<std::shared_ptr<Source>>(text)->source;
    } else if (kind == "language") {
      t.kind = StaticTerminal::Kind::kLanguage;
    } else if (kind == "literal") {
      t.kind = StaticTerminal::Kind::kLiteral;
    } else if (kind == "block") {
      t.kind = StaticTerminal::Kind::kBlock;
    } else if (kind == "special") {
      t.kind = StaticTerminal::Kind::kSpecial;
    } else if (kind == "regex" || kind == "ecma") {
      t.kind = StaticTerminal::Kind::kRegex;
      t.regex =
          parse_regex(t.text, kind == "ecma" ? RegexDialect::kEcma : RegexDialect::kPython, Regex::flags_of(flags));
    } else {
      throw GrammarError("unknown kind of terminal '" + kind + "'");
    }
    table.push_back(std::move(t));
  }
  std::size_t num_terminals = terminals.size() + shifts.size();
  std::unordered_map<std::string, uint32_t> ids;
  for (const auto& [name, alternatives] : rules) ids.emplace(name, static_cast<uint32_t>(num_terminals + ids.size()));
  std::vector<StaticRule> rule_table(ids.size());
  auto id_of = [&](const std::string& name) {
    auto it = ids.find(name);
    if (it == ids.end()) throw GrammarError("rule '" + name + "' is not defined");
    return it->second;
  };
  for (const auto& [name, alternatives] : rules) {
    StaticRule& rule = rule_table[id_of(name) - num_terminals];
    rule.name = name;
    for (const auto& alternative : alternatives) {
      std::vector<uint32_t> symbols;
      for (const auto& s : alternative) {
        if (std::holds_alternative<uint32_t>(s) && std::get<uint32_t>(s) >= num_terminals)
          throw GrammarError("terminal index out of range in rule '" + name + "'");
        symbols.push_back(std::holds_alternative<uint32_t>(s) ? std::get<uint32_t>(s)
                                                              : id_of(std::get<std::string>(s)));
      }
      rule.alternatives.push_back(std::move(symbols));
    }
  }
  std::optional<StaticIndentation> blocks;
  if (indentation) {
    const auto& [newline, indent, dedent, opens, closes, tab_width, as_python] = *indentation;
    blocks = StaticIndentation{newline, indent, dedent, opens, closes, tab_width, as_python};
  }
  std::vector<StaticLexer> lexer_table;
  for (const auto& [patterns, replaced] : lexers) lexer_table.push_back({patterns, replaced});
  auto source = std::make_shared<StaticSource>(
      std::move(table), std::move(rule_table), static_cast<uint32_t>(id_of(start) - num_terminals), discipline->second,
      std::move(ignored), std::move(blocks), std::move(lexer_table), std::move(shifts), std::move(skips));
  auto result = std::make_shared<Source>(source);
  nb::gil_scoped_release release;
  result->match("");  // an empty language, a limit: now, not at the first token
  return result;
}

using PartSpec = std::tuple<std::string, std::variant<std::shared_ptr<Source>, std::string, uint32_t>>;

std::shared_ptr<Source> composite_source(const std::vector<PartSpec>& parts,
                                         const std::vector<std::vector<std::vector<uint32_t>>>& rules,
                                         const std::vector<std::string>& names, uint32_t start,
                                         const std::vector<std::string>& triggers) {
  using Kind = CompositePart::Kind;
  if (names.size() != rules.size()) throw GrammarError("one name per rule");
  std::vector<CompositePart> table;
  for (const auto& [kind, what] : parts) {
    CompositePart part{};
    if (kind == "source" && std::holds_alternative<std::shared_ptr<Source>>(what)) {
      part.kind = Kind::kSource;
      part.source = std::get<std::shared_ptr<Source>>(what)->source;
    } else if ((kind == "literal" || kind == "special") && std::holds_alternative<std::string>(what)) {
      part.kind = kind == "literal" ? Kind::kLiteral : Kind::kSpecial;
      part.text = std::get<std::string>(what);
    } else if (kind == "text") {
      part.kind = Kind::kFreeText;
    } else if (kind == "triggered" && std::holds_alternative<uint32_t>(what)) {
      part.kind = Kind::kTriggered;
      part.trigger = std::get<uint32_t>(what);
    } else {
      throw GrammarError("unknown kind of part '" + kind + "'");
    }
    table.push_back(std::move(part));
  }
  std::vector<CompositeRule> rule_table;
  for (std::size_t i = 0; i < rules.size(); ++i) rule_table.push_back({names[i], rules[i]});
  auto result = std::make_shared<Source>(
      std::make_shared<CompositeSource>(std::move(table), std::move(rule_table), start, triggers));
  nb::gil_scoped_release release;
  result->match("");  // what cannot be a part, a limit: now, not at the first token
  return result;
}

using ReportRow = std::tuple<std::string, std::string, std::string>;

// A JSON Schema's source, which can also say what became of each keyword.
class SchemaSource : public Source {
 public:
  explicit SchemaSource(std::shared_ptr<const JsonSchemaSource> schema) : Source(schema), schema_(std::move(schema)) {}
  std::vector<ReportRow> report() const {
    std::vector<ReportRow> rows;
    for (SchemaReportRow& row : schema_->report())
      rows.emplace_back(std::move(row.pointer), std::move(row.status), std::move(row.reason));
    return rows;
  }

 private:
  std::shared_ptr<const JsonSchemaSource> schema_;
};

std::shared_ptr<SchemaSource> json_schema_source(const std::string& schema, const std::string& whitespace,
                                                 const std::string& escapes, bool free_order, bool strict, bool warn,
                                                 bool formats, const std::string& dialect,
                                                 const std::map<std::string, std::string>& registry) {
  JsonSchemaOptions options{whitespace, escapes, free_order, strict, warn, formats, dialect, registry};
  nb::gil_scoped_release release;
  auto result = std::make_shared<SchemaSource>(std::make_shared<JsonSchemaSource>(schema, options));
  result->match("");  // a schema that nothing satisfies: now, not at the first token
  return result;
}

// The row of a bitmask, its tail beyond the vocabulary cleared.
uint32_t* row_of(const Bitmask& bitmask, std::size_t row, const Vocabulary& vocabulary) {
  std::size_t width = bitmask.shape(1);
  if (row >= bitmask.shape(0))
    throw nb::index_error(
        ("row " + std::to_string(row) + " of a bitmask with " + std::to_string(bitmask.shape(0)) + " rows").c_str());
  if (width < vocabulary.num_words())
    throw nb::value_error(("the bitmask has " + std::to_string(width) + " words a row, the vocabulary needs " +
                           std::to_string(vocabulary.num_words()))
                              .c_str());
  uint32_t* words = reinterpret_cast<uint32_t*>(bitmask.data()) + row * width;
  if (width > vocabulary.num_words())
    std::memset(words + vocabulary.num_words(), 0, (width - vocabulary.num_words()) * 4);
  return words;
}

struct PyMatcher {
  Matcher matcher;
  nb::object encode;               // bytes → canonical token ids, or None
  nb::object open;                 // () → a reader of the text for events and partial, or None
  nb::object reader = nb::none();  // there from the first call of either
  std::size_t kept = 0;            // as many tokens, the first ones, are still those that the reader has read
};

// The reader, once it has read all tokens.
nb::object read_on(PyMatcher& self) {
  if (self.open.is_none()) throw nb::type_error("this matcher was made without a reader of its text");
  if (self.reader.is_none()) self.reader = self.open();
  nb::list pieces;
  for (std::size_t i = self.kept; i < self.matcher.num_tokens(); ++i) {
    std::optional<std::string_view> text = self.matcher.text_of(i);
    pieces.append(text ? nb::object(nb::bytes(text->data(), text->size())) : nb::none());
  }
  self.reader.attr("read")(self.kept, pieces);
  self.kept = self.matcher.num_tokens();
  return self.reader;
}

PyMatcher* fork_matcher(const PyMatcher& self) {
  auto copy = std::make_unique<PyMatcher>(self);
  if (!self.reader.is_none()) copy->reader = self.reader.attr("copy")();
  return copy.release();
}

void rollback(PyMatcher& self, std::size_t count) {
  self.matcher.rollback(count);
  self.kept = std::min(self.kept, self.matcher.num_tokens());
}

void fill(PyMatcher& self, const Bitmask& bitmask, std::size_t row) {
  uint32_t* words = row_of(bitmask, row, self.matcher.compiled()->vocabulary());
  if (self.matcher.fill_known(words)) return;
  nb::gil_scoped_release release;
  self.matcher.fill(words);
}

void fill_batch(const std::vector<PyMatcher*>& matchers, const Bitmask& bitmask,
                const std::optional<std::vector<std::size_t>>& rows) {
  if (rows && rows->size() != matchers.size()) throw nb::value_error("one row per matcher");
  std::vector<std::pair<Matcher*, uint32_t*>> work;  // rows that must be built; the others are copied here and now
  for (std::size_t i = 0; i < matchers.size(); ++i) {
    Matcher& matcher = matchers[i]->matcher;
    uint32_t* words = row_of(bitmask, rows ? (*rows)[i] : i, matcher.compiled()->vocabulary());
    if (!matcher.fill_known(words)) work.emplace_back(&matcher, words);
  }
  if (work.empty()) return;
  nb::gil_scoped_release release;
  ThreadPool::shared().for_each(work.size(), [&](std::size_t i) { work[i].first->fill(work[i].second); });
}

void fill_draft(PyMatcher& self, const std::vector<std::pair<int32_t, uint32_t>>& tree, const Bitmask& bitmask) {
  std::vector<int32_t> parents;
  std::vector<uint32_t> tokens;
  for (std::size_t i = 0; i < tree.size(); ++i) {
    if (tree[i].first >= static_cast<int32_t>(i))
      throw nb::value_error("the parent of a draft node must come before it (-1 for the matcher's own state)");
    parents.push_back(tree[i].first);
    tokens.push_back(tree[i].second);
    row_of(bitmask, i, self.matcher.compiled()->vocabulary());
  }
  if (tree.empty()) return;
  uint32_t* words = reinterpret_cast<uint32_t*>(bitmask.data());
  nb::gil_scoped_release release;
  self.matcher.fill_draft(parents, tokens, words, bitmask.shape(1));
}

// Canonical tokens of the forced bytes: those that no token reaching beyond the forced bytes could replace.
std::vector<uint32_t> forced_tokens(PyMatcher& self) {
  constexpr std::size_t kMaxForced = 4096;
  std::string bytes = self.matcher.forced_bytes(kMaxForced);
  const Vocabulary& vocabulary = self.matcher.compiled()->vocabulary();
  if (bytes.empty()) return {};
  std::vector<uint32_t> tokens;
  if (self.encode.is_none()) return {};
  tokens = nb::cast<std::vector<uint32_t>>(self.encode(nb::bytes(bytes.data(), bytes.size())));
  if (tokens.empty()) return {};
  std::vector<std::size_t> ends;
  for (uint32_t token : tokens) {
    if (token >= vocabulary.size()) return {};
    ends.push_back((ends.empty() ? 0 : ends.back()) + vocabulary.token(token).size());
  }
  if (ends.back() != bytes.size()) return {};  // a tokenizer that changes text (normalisation): nothing can be said
  // A boundary is stable if no suffix of the forced bytes that begins before it could be the beginning of a longer token.
  std::size_t stable = bytes.size(), longest = vocabulary.longest_token(), kept = 0;
  for (std::size_t begin = bytes.size() > longest ? bytes.size() - longest : 0; begin < stable; ++begin) {
    uint32_t place = vocabulary.trie().find(TokenTrie::kRoot, std::string_view(bytes).substr(begin));
    if (place && vocabulary.trie().node(place).num_children) stable = begin;
  }
  while (kept < ends.size() && ends[kept] <= stable) ++kept;
  tokens.resize(kept);
  tokens.resize(self.matcher.count_valid(tokens));
  return tokens;
}

std::string explain(PyMatcher& self, uint32_t token) {
  const Vocabulary& vocabulary = self.matcher.compiled()->vocabulary();
  auto list = [](const std::vector<std::string>& names) {
    std::string out;
    for (std::size_t i = 0; i < names.size() && i < 20; ++i) out += (i ? ", " : "") + names[i];
    if (names.size() > 20) out += ", … (" + std::to_string(names.size()) + " in all)";
    return out.empty() ? std::string("nothing") : out;
  };
  if (token >= vocabulary.size())
    return "refused: token id " + std::to_string(token) + " is not in the vocabulary of " +
           std::to_string(vocabulary.size());
  if (self.matcher.is_terminated()) return "refused: the sequence has ended";
  Matcher copy = self.matcher;
  if (copy.accept_token(token)) return "allowed; expected here: " + list(self.matcher.expected());
  if (self.matcher.unlimited().accept_token(token))
    return self.matcher.has_suffix() ? "refused: nothing that may follow it leads to the suffix"
                                     : "refused: after it the text might not be completed within max_tokens";
  if (vocabulary.is_eos(token))
    return "refused: the text is not complete; expected here: " + list(self.matcher.expected());
  if (!vocabulary.is_text(token))
    return "refused: a special or unused token that the grammar does not name here; expected here: " +
           list(self.matcher.expected());
  std::string_view text = vocabulary.token(token);
  std::size_t good = self.matcher.count_bytes(text);
  nb::object shown = nb::bytes(text.data(), text.size()).attr("__repr__")();
  std::string why;
  for (const std::string& reason : self.matcher.refusals(text)) why += (why.empty() ? ": " : "; ") + reason;
  return "refused: of " + nb::cast<std::string>(shown) + " the first " + std::to_string(good) +
         " byte(s) fit, the next one does not" + why + "; expected here: " + list(self.matcher.expected());
}

using Scores = nb::ndarray<const float, nb::ndim<2>, nb::device::cpu>;

// Rows of guided log-probabilities; the GIL is released, rows are shared out among threads if asked.
void guided_log_probs_of_rows(
    const std::vector<Scores>& streams,
    const nb::ndarray<const float, nb::ndim<2>, nb::c_contig, nb::device::cpu>& weights,
    const nb::ndarray<float, nb::ndim<2>, nb::c_contig, nb::device::cpu>& output,
    const std::optional<nb::ndarray<const int32_t, nb::ndim<2>, nb::c_contig, nb::device::cpu>>& bitmask,
    const std::vector<int64_t>& mask_rows, float log_plausibility, const std::vector<float>& temperatures,
    bool parallel, std::size_t build) {
  const std::size_t count = streams.size(), rows = output.shape(0), vocab = output.shape(1);
  if (count == 0 || count > kMostStreams)
    throw nb::value_error(("1 to " + std::to_string(kMostStreams) + " streams").c_str());
  if (weights.shape(0) != rows || weights.shape(1) != count) throw nb::value_error("weights are (rows, streams)");
  for (const Scores& scores : streams)
    if (scores.shape(0) != rows || scores.shape(1) != vocab || (vocab > 1 && scores.stride(1) != 1))
      throw nb::value_error("streams are (rows, vocab), each row contiguous");
  if (build >= fused_scores_builds().size()) throw nb::index_error("no such build of the kernel here");
  if (temperatures.size() != rows && !temperatures.empty()) throw nb::value_error("one temperature per row");
  if (mask_rows.size() != rows && bitmask) throw nb::value_error("one mask row per row");
  for (const int64_t mask_row : mask_rows)
    if (bitmask && mask_row >= static_cast<int64_t>(bitmask->shape(0))) throw nb::index_error("mask row out of range");
  std::vector<const float*> starts(rows * count);
  for (std::size_t row = 0; row < rows; ++row)
    for (std::size_t k = 0; k < count; ++k)
      starts[row * count + k] = streams[k].data() + static_cast<int64_t>(row) * streams[k].stride(0);
  const uint32_t* words = bitmask ? reinterpret_cast<const uint32_t*>(bitmask->data()) : nullptr;
  const std::size_t width = bitmask ? bitmask->shape(1) : 0;
  auto run = [&](std::size_t row) {
    const bool masked = words && mask_rows[row] >= 0;
    guided_log_probs({.streams = std::span(&starts[row * count], count),
                      .weights = std::span(weights.data() + row * count, count),
                      .vocab = vocab,
                      .mask = masked ? words + static_cast<std::size_t>(mask_rows[row]) * width : nullptr,
                      .mask_words = width,
                      .log_plausibility = log_plausibility,
                      .temperature = temperatures.empty() ? 1.0f : temperatures[row]},
                     output.data() + row * vocab, build);
  };
  nb::gil_scoped_release release;
  if (parallel) {
    ThreadPool::shared().for_each(rows, run);
  } else {
    for (std::size_t row = 0; row < rows; ++row) run(row);
  }
}

}  // namespace

NB_MODULE(_core, m) {
  // Grammars held by module globals outlive the module; that is no leak worth a page of text at exit.
  nb::set_leak_warnings(false);
  nb::register_exception_translator(translate);

  nb::class_<Source>(m, "GrammarSource")
      .def(
          "match",
          [](Source& self, nb::bytes text) {
            std::string_view v = view(text);
            nb::gil_scoped_release release;
            return self.match(v);
          },
          "text"_a, "(bytes that fit, whether all of it is a text of the language)")
      .def(
          "accepts",
          [](Source& self, nb::bytes text) {
            std::string_view v = view(text);
            nb::gil_scoped_release release;
            return self.match(v).second;
          },
          "text"_a)
      .def(
          "accepts_prefix",
          [](Source& self, nb::bytes text) {
            std::string_view v = view(text);
            nb::gil_scoped_release release;
            return self.match(v).first == v.size();
          },
          "text"_a);

  nb::class_<SchemaSource, Source>(m, "SchemaSource")
      .def("report", &SchemaSource::report, "Rows of (JSON pointer, status, reason).");

  m.def("static_source", &static_source, "terminals"_a, "rules"_a, "start"_a, "lexing"_a, "ignored"_a, "priorities"_a,
        "indentation"_a = nb::none(), "lexers"_a = std::vector<LexerSpec>{},
        "shifts"_a = std::vector<std::pair<uint32_t, uint32_t>>{}, "modes"_a = std::vector<uint32_t>{},
        "skips"_a = std::vector<bool>{});
  m.def("json_source", [] { return std::make_shared<Source>(json_rfc8259_source()); });
  m.def("composite_source", &composite_source, "parts"_a, "rules"_a, "names"_a, "start"_a, "triggers"_a);
  m.def("json_schema_source", &json_schema_source, "schema"_a, "whitespace"_a, "escapes"_a, "free_order"_a, "strict"_a,
        "warn"_a, "formats"_a, "dialect"_a, "registry"_a);

  nb::class_<Regex>(m, "Regex")
      .def(nb::init<const std::string&, const std::string&, int, bool>(), "pattern"_a, "dialect"_a = "python",
           "flags"_a = 0, "search"_a = false)
      .def(
          "accepts", [](Regex& self, nb::bytes text) { return self.accepts(view(text)); }, "text"_a)
      .def("accepts_prefix", [](Regex& self, nb::bytes text) { return self.accepts_prefix(view(text)); }, "text"_a);

  nb::class_<Vocabulary>(m, "Vocabulary")
      .def(
          "__init__",
          [](Vocabulary* self, nb::bytes bytes,
             nb::ndarray<const uint32_t, nb::ndim<1>, nb::c_contig, nb::device::cpu> offsets,
             nb::ndarray<const uint8_t, nb::ndim<1>, nb::c_contig, nb::device::cpu> kinds,
             std::unordered_map<std::string, uint32_t> specials, std::vector<uint32_t> eos) {
            std::string data(view(bytes));
            std::vector<uint32_t> o(offsets.data(), offsets.data() + offsets.size());
            std::vector<uint8_t> k(kinds.data(), kinds.data() + kinds.size());
            nb::gil_scoped_release release;
            new (self) Vocabulary(std::move(data), std::move(o), std::move(k), std::move(specials), std::move(eos));
          },
          "token_bytes"_a, "offsets"_a.noconvert(), "kinds"_a.noconvert(), "special_tokens"_a, "eos_token_ids"_a)
      .def_prop_ro("size", &Vocabulary::size)
      .def_prop_ro("num_words", &Vocabulary::num_words)
      .def_prop_ro("byte_complete", &Vocabulary::byte_complete)
      .def_prop_ro("trie_nodes", [](const Vocabulary& v) { return v.trie().size(); });

  nb::class_<Limits>(m, "Limits")
      .def(nb::init<>())
      .def_rw("lexer_states_per_request", &Limits::lexer_states_per_request)
      .def_rw("states", &Limits::states)
      .def_rw("threads", &Limits::threads)
      .def_rw("grammar_bytes", &Limits::grammar_bytes)
      .def_rw("mask_bytes", &Limits::mask_bytes)
      .def_rw("request_bytes", &Limits::request_bytes)
      .def_rw("munch_states", &Limits::munch_states);

  nb::class_<PyMatcher>(m, "Matcher")
      .def(
          "accept_token", [](PyMatcher& self, uint32_t token) { return self.matcher.accept_token(token); },
          "token_id"_a)
      .def(
          "accept_tokens",
          [](PyMatcher& self, const std::vector<uint32_t>& tokens) { return self.matcher.accept_tokens(tokens); },
          "token_ids"_a)
      .def(
          "count_valid",
          [](PyMatcher& self, const std::vector<uint32_t>& tokens) { return self.matcher.count_valid(tokens); },
          "token_ids"_a)
      .def("fill_next_token_bitmask", &fill, "bitmask"_a.noconvert(), "row"_a = 0)
      .def("fill_draft_bitmask", &fill_draft, "tree"_a, "bitmask"_a.noconvert())
      .def_prop_ro("is_accepting", [](PyMatcher& self) { return self.matcher.is_accepting(); })
      .def_prop_ro("is_terminated", [](PyMatcher& self) { return self.matcher.is_terminated(); })
      .def_prop_ro("closed_early",
                   [](PyMatcher& self) {
                     nb::gil_scoped_release release;
                     return self.matcher.closed_early();
                   })
      .def_prop_ro("must_stop", [](PyMatcher& self) { return self.matcher.must_stop(); })
      .def_prop_ro("num_tokens", [](PyMatcher& self) { return self.matcher.num_tokens(); })
      .def(
          "rollback", [](PyMatcher& self, std::size_t n) { rollback(self, n); }, "num_tokens"_a)
      .def("fork", &fork_matcher, nb::rv_policy::take_ownership)
      .def("reset",
           [](PyMatcher& self) {
             self.matcher.reset();
             self.kept = 0;
           })
      .def(
          "events", [](PyMatcher& self) { return read_on(self).attr("events")(); },
          nb::sig("def events(self) -> list[guiderail.json_events.JsonEvent]"))
      .def(
          "partial", [](PyMatcher& self) { return read_on(self).attr("partial")(); },
          nb::sig("def partial(self) -> typing.Any"))
      .def(
          "forced_bytes",
          [](PyMatcher& self, std::size_t limit) {
            std::string out = self.matcher.forced_bytes(limit);
            return nb::bytes(out.data(), out.size());
          },
          "limit"_a = 4096)
      .def("forced_tokens", &forced_tokens)
      .def("explain", &explain, "token_id"_a)
      .def("expected", [](PyMatcher& self) { return self.matcher.expected(); })
      .def(
          "expectations",
          [](PyMatcher& self) {
            std::vector<std::tuple<std::string, bool, bool, nb::bytes>> rows;
            for (const Expectation& e : self.matcher.expectations())
              rows.emplace_back(e.terminal, e.inside, e.ignored, nb::bytes(e.example.data(), e.example.size()));
            return rows;
          },
          "What may come next: (terminal, whether its lexeme has begun, whether it is ignored, a short text of it or "
          "of "
          "its rest)")
      .def(
          "refusals", [](PyMatcher& self, nb::bytes text) { return self.matcher.refusals(view(text)); }, "text"_a,
          "Why the first byte of `text` that does not fit does not, one reason for each reading of the text before it")
      .def(
          "open_rules", [](PyMatcher& self) { return self.matcher.open_rules(); },
          "The rules that the text is in the middle of, as 'rule → read · to come'")
      .def(
          "__eq__", [](PyMatcher& self, PyMatcher& other) { return self.matcher.same_state(other.matcher); },
          nb::is_operator(), nb::sig("def __eq__(self, other: object, /) -> bool"));

  nb::class_<CompiledGrammar>(m, "CompiledGrammar")
      .def(
          "matcher",
          [](std::shared_ptr<CompiledGrammar> self, nb::bytes prefix, nb::object encode,
             std::optional<uint32_t> max_tokens, nb::object open, const std::optional<nb::bytes>& suffix,
             nb::bytes pending) {
            std::string p(view(prefix)), before(view(pending));
            std::optional<std::string> after;
            if (suffix) after = std::string(view(*suffix));
            std::optional<Matcher> matcher;
            {
              nb::gil_scoped_release release;
              matcher.emplace(std::move(self), std::move(p), max_tokens, std::move(after), std::move(before));
            }
            return new PyMatcher{std::move(*matcher), std::move(encode), std::move(open)};
          },
          "prefix"_a = nb::bytes("", 0), "encode"_a = nb::none(), "max_tokens"_a = nb::none(), "open"_a = nb::none(),
          "suffix"_a = nb::none(), "pending"_a = nb::bytes("", 0), nb::rv_policy::take_ownership)
      .def(
          "counters",
          [](CompiledGrammar& self) {
            auto epoch = self.epoch();
            nb::dict d;
            d["parser_states"] = epoch->engine().parser().num_states();
            d["sequence_states"] = epoch->engine().num_states();
            d["mask_rows"] = epoch->num_rows();
            d["mask_bytes"] = epoch->mask_bytes();
            d["table_bytes"] = epoch->engine().bytes_used();
            d["lexicon_nodes"] = epoch->engine().lexicon().size();
            d["lexicon_bytes"] = epoch->engine().lexicon().bytes_used();
            d["lexeme_rows"] = epoch->lex_rows().size();
            d["lexeme_row_bytes"] = epoch->lex_rows().bytes_used();
            return d;
          },
          nb::sig("def counters(self) -> dict[str, int]"));

  m.def(
      "compile",
      [](std::shared_ptr<Source> source, std::shared_ptr<Vocabulary> vocabulary, const Limits& limits,
         std::shared_ptr<Vocabulary> first) {
        nb::gil_scoped_release release;
        return std::make_shared<CompiledGrammar>(source->source, std::move(vocabulary), std::move(first), limits);
      },
      "source"_a, "vocabulary"_a, "limits"_a, "first"_a = nb::none());
  m.def("fill_next_token_bitmask_batch", &fill_batch, "matchers"_a, "bitmask"_a.noconvert(), "rows"_a = nb::none());

  m.def("guided_log_probs", &guided_log_probs_of_rows, "streams"_a, "weights"_a.noconvert(), "output"_a.noconvert(),
        "bitmask"_a.noconvert() = nb::none(), "mask_rows"_a = std::vector<int64_t>{},
        "log_plausibility"_a = -std::numeric_limits<float>::infinity(), "temperatures"_a = std::vector<float>{},
        "parallel"_a = false, "build"_a = 0,
        "Writes log-probabilities of a guided step into `output`; see guiderail.logits.kernels.");
  m.def(
      "guided_log_probs_builds",
      [] {
        const auto builds = fused_scores_builds();
        return std::vector<std::string>(builds.begin(), builds.end());
      },
      "The builds of the kernel that run on this machine, best first: avx512, avx2, portable.");
}
