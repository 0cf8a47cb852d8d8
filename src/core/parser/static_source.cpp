#include "core/parser/static_source.h"

#include <algorithm>
#include <string_view>
#include <tuple>
#include <unordered_map>
#include <unordered_set>

#include "core/errors.h"
#include "core/parser/table_rules.h"
#include "core/regex/terminal_language.h"
#include "core/regex/tree.h"

namespace guiderail {

namespace {

// Regular rules larger than this stay rules.
constexpr std::size_t kMaxRegularSize = 500;
constexpr std::size_t kMaxRegularDepth = 100;

// One opening of the table: terminals to nodes, useless rules out, regular rules folded.
class Opener {
 public:
  Opener(const std::vector<StaticTerminal>& terminals, const std::vector<StaticRule>& rules, uint32_t start,
         Lexing lexing, const std::vector<uint32_t>& ignored, const std::optional<StaticIndentation>& indentation,
         const std::vector<StaticLexer>& lexers, const std::vector<std::pair<uint32_t, uint32_t>>& shifts,
         const std::vector<bool>& skips, SymbolTable& symbols)
      : terminals_(terminals), rules_(rules), start_(start), lexing_(lexing), ignored_(ignored),
        indentation_(indentation), lexers_(lexers), shifts_(shifts), skips_(skips), symbols_(symbols),
        lexicon_(symbols.lexicon()) {}

  OpenGrammar run() {
    SymbolTable::Parts& parts = symbols_.parts();
    const uint32_t outside = parts.lexer;
    bool has_parts =
        std::ranges::any_of(terminals_, [](const StaticTerminal& t) { return t.kind == StaticTerminal::Kind::kPart; });
    if (lexing_ != Lexing::kFree && has_parts && parts.lexer == 0) parts.lexer = parts.num_lexers++;
    lexer_ = parts.lexer;
    if (lexer_ != 0) {
      if (lexing_ == Lexing::kOrdered)
        throw GrammarError(
            "a grammar under Lark's basic or contextual lexer cannot be a part, nor have parts: which terminal is "
            "tried "
            "first is decided for a whole text (read it by longest match: lexer=\"munch\")");
      if (parts.modes.empty()) parts.modes.emplace_back();
      first_mode_ = static_cast<uint32_t>(parts.modes.size());
      parts.modes.resize(parts.modes.size() + skips_.size());
    }
    make_nodes();
    find_productive();
    if (!productive_[start_])
      throw GrammarError("the language is empty: rule '" + rules_[start_].name + "' derives no text");
    find_nullable();
    if (lexing_ == Lexing::kFree) fold_regular();
    find_reachable();
    if (skips_.size() > 1 && (!ignored_.empty() || indentation_)) check_what_follows();
    OpenGrammar result = build();
    if (lexer_ != 0) hand_to_parts(result);
    result.first_lexer = lexer_;
    parts.lexer = outside;
    return result;
  }

 private:
  static bool is_text(const StaticTerminal& t) {
    return t.kind != StaticTerminal::Kind::kSpecial && t.kind != StaticTerminal::Kind::kBlock &&
           t.kind != StaticTerminal::Kind::kPart;
  }
  bool is_rule(uint32_t symbol) const { return symbol >= terminals_.size() + shifts_.size(); }
  uint32_t rule_of(uint32_t symbol) const { return symbol - static_cast<uint32_t>(terminals_.size() + shifts_.size()); }
  uint32_t terminal_of(uint32_t symbol) const {
    return symbol < terminals_.size() ? symbol : shifts_[symbol - terminals_.size()].first;
  }

  void make_nodes() {
    for (const StaticTerminal& t : terminals_) {
      switch (t.kind) {
        case StaticTerminal::Kind::kLiteral: nodes_.push_back(lexicon_.literal(t.text)); break;
        case StaticTerminal::Kind::kRegex:
          if (lexing_ != Lexing::kFree && looks_past_its_end(*t.regex)) {
            marked_.resize(terminals_.size(), kNone);
            marked_[nodes_.size()] = lower_regex(lexicon_, *t.regex, RegexMatch::kMarked, encode_utf8);
            nodes_.push_back(marked_lexemes(marked_[nodes_.size()], static_cast<uint32_t>(nodes_.size())));
          } else {
            nodes_.push_back(lower_regex(
                lexicon_, *t.regex, lexing_ == Lexing::kFree ? RegexMatch::kFull : RegexMatch::kOrdered, encode_utf8));
          }
          break;
        case StaticTerminal::Kind::kLanguage: nodes_.push_back(terminal_language(lexicon_, t.text)); break;
        case StaticTerminal::Kind::kSpecial: nodes_.push_back(kNone); break;
        case StaticTerminal::Kind::kPart:
          open_part(t);
          nodes_.push_back(kNone);
          break;
        // Each its own node, by a tag that is never reported.
        case StaticTerminal::Kind::kBlock:
          nodes_.push_back(lexicon_.accept(1 + salt(static_cast<uint32_t>(nodes_.size()))));
          break;
      }
      if (is_text(t) && lexing_ != Lexing::kFree && lexicon_.nullable(nodes_.back()))
        throw GrammarError("terminal '" + t.name + "' matches the empty string, which longest match cannot use");
    }
    whole_ = nodes_;
    if (lexing_ == Lexing::kMunch)
      for (uint32_t mode = 0; mode < skips_.size(); ++mode) subtract_winners(mode);
    if (lexer_ != 0) salt_plain();
    for (uint32_t t = 0; t < terminals_.size() && lexer_ == 0;
         ++t)  // terminals of different modes are different, whatever their texts
      if (uint32_t mode = terminals_[t].mode; mode != 0 && nodes_[t] != kNone)
        nodes_[t] = lexicon_.concat(nodes_[t], lexicon_.accept(mode));
    if (lexing_ == Lexing::kDynamic) take_own_matches();
    if (lexing_ == Lexing::kOrdered) take_first_matches();
  }

  // The symbol of a part takes the terminal's place in productions.
  void open_part(const StaticTerminal& t) {
    Symbol part = guiderail::open_part(*t.source, symbols_, part_providers_);
    auto number = static_cast<uint32_t>(nodes_.size());
    part_starts_.emplace(number, part);
    if (!is_terminal(part) && symbols_.nonterminal_info(part).nullable) nullable_parts_.insert(number);
  }

  // Terminals of different parts, or modes, must be different symbols, whatever their texts. So each begins as a node of its own, which one
  // byte later is the plain one: its language without a text that cannot be.
  uint32_t salt(uint32_t terminal) const { return lexer_ * (uint32_t{1} << 16) + terminal; }
  Node salted(Node node, uint32_t terminal) {
    std::string impossible{static_cast<char>(0xFE)};
    for (uint32_t rest = salt(terminal); rest; rest >>= 7) impossible.push_back(static_cast<char>(rest & 0x7F));
    return lexicon_.both({node, lexicon_.complement(lexicon_.literal(impossible))});
  }
  // The lexemes of a terminal that looks past its end; its own mark is inside, where after_marker finds what follows.
  Node marked_lexemes(Node marked, uint32_t terminal) {
    if (lexer_ == 0) return lexicon_.before_marker(marked);
    salted_.insert(terminal);
    return lexicon_.before_marker(salted(marked, terminal));
  }
  void salt_plain() {
    for (uint32_t t = 0; t < terminals_.size(); ++t)
      if (is_text(terminals_[t]) && nodes_[t] != kNone && !salted_.contains(t)) nodes_[t] = salted(nodes_[t], t);
  }

  // What a grammar would have said of itself goes to what it is a part of.
  void hand_to_parts(OpenGrammar& result) {
    SymbolTable::Parts& parts = symbols_.parts();
    for (std::size_t mode = 0; mode < result.modes.size(); ++mode)
      parts.modes[first_mode_ + mode] = std::move(result.modes[mode]);
    parts.ignored.insert(parts.ignored.end(), result.ignored.begin(), result.ignored.end());
    parts.marked = parts.marked || result.marked;
    if (!result.indentation) return;
    if (parts.indentation)
      throw GrammarError("two parts with blocks by indentation (use the same Grammar object for both)");
    parts.indentation = std::move(result.indentation);
    parts.indentation_lexer = lexer_;
  }

  bool is_marked(uint32_t t) const { return !marked_.empty() && marked_[t] != kNone; }

  // The terminal's matches with what may follow them.
  Node marked(uint32_t t) { return is_marked(t) ? marked_[t] : anything_after(whole_[t]); }

  // As below where `t` or one of the terminals of higher priority looks past its end: which of them matches a text may depend on what
  // follows it. False if none of them does.
  bool subtract_marked_winners(uint32_t t, std::span<const uint32_t> higher) {
    if (marked_.empty()) return false;
    std::vector<Node> overlapping;
    bool looks = is_marked(t);
    for (uint32_t h : higher) {
      if (whole_[h] == kNone || !lexicon_.alive(lexicon_.both({marked(t), marked(h)}))) continue;
      overlapping.push_back(marked(h));
      looks = looks || is_marked(h);
    }
    if (looks && !overlapping.empty())
      nodes_[t] = marked_lexemes(lexicon_.difference(marked(t), lexicon_.either(std::move(overlapping))), t);
    return looks;
  }

  // Under munch a text that several terminals match belongs to the one of highest priority. A literal overlaps with an equal one and with the
  // patterns that match it; only patterns are compared pair by pair.
  void subtract_winners(uint32_t mode) {
    std::vector<uint32_t> order;
    for (uint32_t t = 0; t < terminals_.size(); ++t)
      if (is_text(terminals_[t]) && terminals_[t].mode == mode) order.push_back(t);
    std::ranges::stable_sort(order, std::greater<>{}, [this](uint32_t t) { return terminals_[t].priority; });
    std::vector<uint32_t> patterns, literals;  // those of higher priority
    std::unordered_set<std::string_view> texts;
    for (std::size_t place = 0; place < order.size(); ++place) {
      uint32_t t = order[place];
      const StaticTerminal& terminal = terminals_[t];
      if (subtract_marked_winners(t, std::span(order).first(place))) {
        (terminal.kind == StaticTerminal::Kind::kLiteral ? literals : patterns).push_back(t);
        if (terminal.kind == StaticTerminal::Kind::kLiteral) texts.insert(terminal.text);
      } else if (terminal.kind == StaticTerminal::Kind::kLiteral) {
        bool taken = texts.contains(terminal.text) || std::ranges::any_of(patterns, [&](uint32_t p) {
                       return lexicon_.nullable(lexicon_.walk(whole_[p], terminal.text));
                     });
        if (taken) nodes_[t] = kNone;
        texts.insert(terminal.text);
        literals.push_back(t);
      } else {
        std::vector<Node> higher;
        for (uint32_t l : literals)
          if (lexicon_.nullable(lexicon_.walk(whole_[t], terminals_[l].text))) higher.push_back(whole_[l]);
        for (uint32_t p : patterns)
          if (lexicon_.alive(lexicon_.both({whole_[t], whole_[p]}))) higher.push_back(whole_[p]);
        if (!higher.empty()) nodes_[t] = lexicon_.difference(whole_[t], lexicon_.either(std::move(higher)));
        patterns.push_back(t);
      }
    }
    competitors_.push_back(std::move(order));
  }

  // What a lexer takes where it takes one terminal: as a marked language; if `plain` is not kNone, that is `plain` whatever follows.
  struct Match {
    Node marked, plain;
  };

  Node anything_after(Node text) {
    return lexicon_.concat(text, lexicon_.concat(lexicon_.bytes(ByteSet::of(Lexicon::kMarker)), kAll));
  }

  // What re.match takes. Of the beginnings of a text that a terminal matches it takes the longest: what follows u must not make u r with a
  // non-empty r a match. Terminals that look past their end say so already.
  Match own_match(uint32_t t) {
    if (is_marked(t)) return {marked_[t], kNone};
    Match plain{marked(t), whole_[t]};
    if (terminals_[t].kind == StaticTerminal::Kind::kLiteral) return plain;
    Node marker = lexicon_.bytes(ByteSet::of(Lexicon::kMarker));
    Node more = lexicon_.concat(kAll, lexicon_.concat(marker, lexicon_.concat(lexicon_.bytes(ByteSet::all()), kAll)));
    Node longer = lexicon_.concat(lexicon_.both({lexicon_.with_marker(whole_[t]), more}), kAll);
    // Is no match the beginning of another?
    if (whole_[t] == kNone || !lexicon_.alive(lexicon_.both({plain.marked, longer}))) return plain;
    return {lexicon_.both({plain.marked, lexicon_.complement(longer), lexicon_.texts_with_a_marker()}), kNone};
  }

  // Those of the texts that are (are not) in `language`, whatever follows them.
  Match restricted(const Match& match, Node language, bool to) {
    Node marked_language = anything_after(language);
    if (!to) marked_language = lexicon_.complement(marked_language);
    Node marked = lexicon_.both({match.marked, marked_language, lexicon_.texts_with_a_marker()});
    if (match.plain == kNone) return {marked, kNone};
    return {marked, to ? lexicon_.both({match.plain, language}) : lexicon_.difference(match.plain, language)};
  }

  Node lexeme_of(const std::vector<Match>& matches, uint32_t terminal) {
    std::vector<Node> marked, plain;
    for (const Match& m : matches) {
      if (!lexicon_.alive(m.marked)) continue;
      marked.push_back(m.marked);
      if (m.plain != kNone) plain.push_back(m.plain);
    }
    if (marked.empty()) return kNone;
    if (plain.size() == marked.size()) return lexicon_.either(std::move(plain));
    uses_markers_ = true;
    return marked_lexemes(lexicon_.either(std::move(marked)), terminal);
  }

  // Each terminal on its own.
  void take_own_matches() {
    for (uint32_t t = 0; t < terminals_.size(); ++t)
      if (is_text(terminals_[t]) && terminals_[t].kind != StaticTerminal::Kind::kLiteral && !is_marked(t))
        nodes_[t] = lexeme_of({own_match(t)}, t);
  }

  // A terminal wins where it matches and none that is tried before it matches anything, short or long.
  void take_first_matches() {
    std::vector<Match> own;
    std::vector<Node> begins;  // texts that begin with a match
    for (uint32_t t = 0; t < terminals_.size(); ++t) {
      bool text = is_text(terminals_[t]);
      own.push_back(text ? own_match(t) : Match{kNone, kNone});
      begins.push_back(!text          ? kNone
                       : is_marked(t) ? lexicon_.without_marker(marked_[t])
                                      : lexicon_.concat(whole_[t], kAll));
    }
    std::unordered_map<uint64_t, bool> meeting;  // pairs of terminals: may both match at one place?
    auto meet = [&](uint32_t t, uint32_t earlier) {
      auto [it, fresh] = meeting.try_emplace((uint64_t{t} << 32) | earlier, false);
      if (fresh && !(lexicon_.first_bound(whole_[t]) & lexicon_.first_bound(whole_[earlier])).empty())
        it->second = lexicon_.alive(lexicon_.both({own[t].marked, lexicon_.with_marker(begins[earlier])}));
      return it->second;
    };
    given_.assign(lexers_.size(), std::vector<Node>(terminals_.size(), kNone));
    for (std::size_t l = 0; l < lexers_.size(); ++l) {
      const StaticLexer& lexer = lexers_[l];
      std::vector<std::vector<Match>> wins(terminals_.size());
      std::vector<Match> ignored;
      for (std::size_t place = 0; place < lexer.patterns.size(); ++place) {
        uint32_t t = lexer.patterns[place];
        std::vector<Node> earlier;
        for (uint32_t e : std::span(lexer.patterns).first(place))
          if (meet(t, e)) earlier.push_back(lexicon_.with_marker(begins[e]));
        Match match = own[t];
        if (!earlier.empty())
          match = {lexicon_.both({match.marked, lexicon_.complement(lexicon_.either(std::move(earlier))),
                                  lexicon_.texts_with_a_marker()}),
                   kNone};
        if (std::ranges::find(ignored_, t) != ignored_.end()) {
          ignored.push_back(match);  // Lark asks before it replaces
          continue;
        }
        for (const auto& [pattern, texts] : lexer.replaced) {
          if (pattern != t) continue;
          for (uint32_t text : texts) {
            wins[text].push_back(restricted(match, whole_[text], true));
            match = restricted(match, whole_[text], false);
          }
        }
        wins[t].push_back(match);
      }
      for (uint32_t t = 0; t < terminals_.size(); ++t) given_[l][t] = lexeme_of(wins[t], t);
      ignored_lexemes_.push_back(lexeme_of(ignored, static_cast<uint32_t>(terminals_.size())));
    }
    for (uint32_t t = 0; t < terminals_.size(); ++t) {
      if (!is_text(terminals_[t])) {
        for (std::vector<Node>& given : given_) given[t] = nodes_[t];
        continue;
      }
      std::vector<Node> anywhere;
      for (const std::vector<Node>& given : given_) anywhere.push_back(given[t]);
      nodes_[t] = lexicon_.either(std::move(anywhere));
    }
  }

  bool terminal_usable(uint32_t t) const {
    return terminals_[t].kind == StaticTerminal::Kind::kSpecial || terminals_[t].kind == StaticTerminal::Kind::kPart ||
           (nodes_[t] != kNone && lexicon_.alive(nodes_[t]));
  }

  bool alternative_productive(const std::vector<uint32_t>& alternative) const {
    return std::ranges::all_of(
        alternative, [this](uint32_t s) { return is_rule(s) ? productive_[rule_of(s)] : useful_[terminal_of(s)]; });
  }

  // Under munch an ignored lexeme never reaches the parser, so a production that asks for one derives nothing.
  void find_productive() {
    for (uint32_t t = 0; t < terminals_.size(); ++t) useful_.push_back(terminal_usable(t));
    if (lexing_ == Lexing::kFree || lexing_ == Lexing::kMunch)
      for (uint32_t t : ignored_) useful_[t] = false;
    productive_ = derivable([this](uint32_t t) { return useful_[t]; });
  }

  void find_nullable() {
    nullable_ = derivable([this](uint32_t t) {
      return nullable_parts_.contains(t) || (useful_[t] && is_text(terminals_[t]) && lexicon_.nullable(nodes_[t]));
    });
  }

  // The rules that have an alternative of nothing but good terminals and such rules: counted down, in time linear in the grammar.
  template <typename Good>
  std::vector<bool> derivable(Good good) const {
    struct Alternative {
      uint32_t rule;
      std::size_t missing;
    };
    std::vector<Alternative> alternatives;
    std::vector<std::vector<uint32_t>> missed_by(rules_.size());
    std::vector<bool> result(rules_.size(), false);
    std::vector<uint32_t> work;
    auto found = [&](uint32_t r) {
      if (!result[r]) work.push_back(r);
      result[r] = true;
    };
    for (uint32_t r = 0; r < rules_.size(); ++r) {
      for (const auto& a : rules_[r].alternatives) {
        if (!std::ranges::all_of(a, [&](uint32_t s) { return is_rule(s) || good(terminal_of(s)); })) continue;
        uint32_t number = static_cast<uint32_t>(alternatives.size());
        alternatives.push_back({r, 0});
        for (uint32_t s : a) {
          if (!is_rule(s)) continue;
          ++alternatives[number].missing;
          missed_by[rule_of(s)].push_back(number);
        }
        if (alternatives[number].missing == 0) found(r);
      }
    }
    while (!work.empty()) {
      uint32_t r = work.back();
      work.pop_back();
      for (uint32_t number : missed_by[r])
        if (--alternatives[number].missing == 0) found(alternatives[number].rule);
    }
    return result;
  }

  // A rule is regular if nothing below it is recursive or special: it becomes a node. Bottom-up, without recursion.
  void fold_regular() {
    enum State : uint8_t { kUnseen, kOpen, kRegular, kNot };
    std::vector<State> state(rules_.size(), kUnseen);
    std::vector<std::size_t> size(rules_.size(), 0), depth(rules_.size(), 0);
    regular_.assign(rules_.size(), kNone);
    is_regular_.assign(rules_.size(), false);
    std::vector<uint32_t> work{start_};
    while (!work.empty()) {
      uint32_t r = work.back();
      if (state[r] == kRegular || state[r] == kNot) {
        work.pop_back();
        continue;
      }
      bool first_visit = state[r] == kUnseen;
      state[r] = kOpen;
      bool waiting = false, regular = true;
      for (const auto& a : rules_[r].alternatives) {
        if (!alternative_productive(a)) continue;
        for (uint32_t s : a) {
          if (!is_rule(s)) {
            regular = regular && is_text(terminals_[s]);
            continue;
          }
          uint32_t child = rule_of(s);
          if (state[child] == kUnseen) {
            work.push_back(child);
            waiting = true;
          } else if (state[child] != kRegular) {
            regular = false;  // open means recursive
          }
        }
      }
      if (waiting && first_visit) continue;
      if (waiting) continue;
      work.pop_back();
      std::size_t total = 1, deepest = 0;
      for (const auto& a : rules_[r].alternatives)
        for (uint32_t s : a) {
          total += is_rule(s) ? size[rule_of(s)] : 1;
          if (is_rule(s)) deepest = std::max(deepest, depth[rule_of(s)] + 1);
        }
      size[r] = total;
      depth[r] = deepest;
      regular = regular && total <= kMaxRegularSize && deepest <= kMaxRegularDepth;
      state[r] = regular ? kRegular : kNot;
      if (!regular) continue;
      std::vector<Node> options;
      for (const auto& a : rules_[r].alternatives) {
        if (!alternative_productive(a)) continue;
        Node sequence = kEpsilon;
        for (std::size_t k = a.size(); k-- > 0;)
          sequence = lexicon_.concat(is_rule(a[k]) ? regular_[rule_of(a[k])] : nodes_[a[k]], sequence);
        options.push_back(sequence);
      }
      regular_[r] = lexicon_.either(std::move(options));
      is_regular_[r] = true;
    }
  }

  bool folded(uint32_t rule) const { return lexing_ == Lexing::kFree && is_regular_[rule]; }

  void find_reachable() {
    reachable_.assign(rules_.size(), false);
    std::vector<uint32_t> work{start_};
    reachable_[start_] = true;
    while (!work.empty()) {
      uint32_t r = work.back();
      work.pop_back();
      if (folded(r)) continue;
      for (const auto& a : rules_[r].alternatives) {
        if (!alternative_productive(a)) continue;
        for (uint32_t s : a)
          if (is_rule(s) && !reachable_[rule_of(s)]) {
            reachable_[rule_of(s)] = true;
            work.push_back(rule_of(s));
          }
      }
    }
  }

  // Ignored lexemes may stand before some modes and not before others. What follows a terminal must be of one kind: or what stands
  // between two lexemes would depend on which of the second ones is meant.
  void check_what_follows() {
    constexpr uint8_t kSkips = 1,
                      kKeeps = 2;  // what ignored lexemes may stand before (the end of the text too), and the rest
    auto kind = [this](uint32_t t) { return skips_[terminals_[t].mode] ? kSkips : kKeeps; };
    std::vector<uint8_t> first(rules_.size(), 0), after(terminals_.size() + rules_.size(), 0);  // no shifts under munch
    after[terminals_.size() + start_] = kSkips;
    auto empty = [this](uint32_t s) {
      return is_rule(s) ? bool{nullable_[rule_of(s)]} : terminals_[s].kind == StaticTerminal::Kind::kBlock;
    };
    for (bool changed = true; changed;) {
      changed = false;
      auto add = [&changed](uint8_t& to, uint8_t what) {
        changed = changed || (what & ~to);
        to |= what;
      };
      for (uint32_t r = 0; r < rules_.size(); ++r) {
        if (!reachable_[r]) continue;
        for (const auto& a : rules_[r].alternatives) {
          if (!alternative_productive(a)) continue;
          uint8_t next = after[terminals_.size() + r], begins = 0;
          for (std::size_t k = a.size(); k-- > 0;) {
            add(after[a[k]], next);
            uint8_t own = is_rule(a[k]) ? first[rule_of(a[k])] : kind(a[k]);
            next = empty(a[k]) ? next | own : own;
            begins = empty(a[k]) ? begins | own : own;
          }
          add(first[r], begins);
        }
      }
    }
    if (first[start_] == (kSkips | kKeeps))
      throw GrammarError(
          "the text may begin with terminals that ignored ones may stand before, and with others that they may not");
    for (uint32_t t = 0; t < terminals_.size(); ++t)
      if (after[t] == (kSkips | kKeeps))
        throw GrammarError(
            "terminal '" + terminals_[t].name +
            "' may be followed by terminals that ignored ones may stand before, and by others that they may not");
  }

  // The symbol of a node that may be empty: a nonterminal with the rest as its only production.
  Symbol lexical(Node node, const std::string& name) {
    if (!lexicon_.nullable(node)) return symbols_.terminal(node, 0, name);
    uint32_t local = static_cast<uint32_t>(provider_->productions_of.size());
    Node nonempty = lexicon_.both({node, lexicon_.concat(lexicon_.bytes(ByteSet::all()), kAll)});
    provider_->names.push_back(name);
    provider_->productions_of.emplace_back();
    if (nonempty != kNone && lexicon_.alive(nonempty))
      provider_->productions_of.back().push_back({symbols_.terminal(nonempty, 0, name)});
    return symbols_.nonterminal(provider_, local, true);
  }

  Symbol terminal_symbol(uint32_t symbol) {
    uint32_t t = symbol;
    if (!terminal_symbols_[symbol] && symbol >= terminals_.size()) {
      uint32_t next_lexer;
      std::tie(t, next_lexer) = shifts_[symbol - terminals_.size()];
      std::vector<Node> starts;
      for (const std::vector<Node>& given : given_) starts.push_back(given[t]);
      terminal_symbols_[symbol] = symbols_.terminal(std::move(starts), next_lexer, terminals_[t].name);
    }
    if (!terminal_symbols_[symbol]) {
      const StaticTerminal& terminal = terminals_[t];
      terminal_symbols_[t] =
          terminal.kind == StaticTerminal::Kind::kPart      ? part_starts_.at(t)
          : terminal.kind == StaticTerminal::Kind::kSpecial ? symbols_.special_token(terminal.text)
          : terminal.kind == StaticTerminal::Kind::kBlock   ? symbols_.terminal(nodes_[t], 0, terminal.name, 0, lexer_)
          : lexer_ != 0        ? symbols_.terminal(nodes_[t], 0, terminal.name, first_mode_ + terminal.mode, lexer_)
          : terminal.mode != 0 ? symbols_.terminal(nodes_[t], terminal.mode, terminal.name, terminal.mode)
                               : lexical(nodes_[t], terminal.name);
    }
    return *terminal_symbols_[symbol];
  }

  void ignore_lexemes(OpenGrammar& result) {
    result.num_lexers = static_cast<uint32_t>(lexers_.size());
    if (result.num_lexers == 1) {
      if (ignored_lexemes_[0] != kNone) result.ignored.push_back(symbols_.terminal(ignored_lexemes_[0], 0, "ignored"));
      return;
    }
    if (lexicon_.either(ignored_lexemes_) != kNone)
      result.ignored.push_back(symbols_.terminal(ignored_lexemes_, 0, "ignored"));
    for (std::size_t l = 0; l < lexers_.size(); ++l)
      for (uint32_t t : lexers_[l].patterns) {
        bool ignored = std::ranges::find(ignored_, t) != ignored_.end();
        result.shadowed = result.shadowed || (!ignored && given_[l][t] == kNone);
        for (const auto& [pattern, texts] : lexers_[l].replaced)
          for (uint32_t text : texts) result.shadowed = result.shadowed || given_[l][text] == kNone;
      }
  }

  OpenGrammar build() {
    auto owned = std::make_unique<TableRules>();
    provider_ = owned.get();
    terminal_symbols_.resize(terminals_.size() + shifts_.size());
    provider_->productions_of.resize(rules_.size());
    for (const StaticRule& r : rules_) provider_->names.push_back(r.name);
    std::vector<Symbol> rule_symbols(rules_.size());
    for (uint32_t r = 0; r < rules_.size(); ++r) {
      if (!reachable_[r]) continue;
      rule_symbols[r] =
          folded(r) ? lexical(regular_[r], rules_[r].name) : symbols_.nonterminal(provider_, r, nullable_[r]);
    }
    for (uint32_t r = 0; r < rules_.size(); ++r) {
      if (!reachable_[r] || folded(r)) continue;
      // Alternatives that are one lexeme each are one terminal: which of them it was does not matter under free lexing.
      std::vector<Node> lexemes;
      std::string name;
      for (const auto& a : rules_[r].alternatives) {
        if (!alternative_productive(a)) continue;
        if (lexing_ == Lexing::kFree && a.size() == 1) {
          Node node = is_rule(a[0]) ? (folded(rule_of(a[0])) ? regular_[rule_of(a[0])] : kNone) : nodes_[a[0]];
          if (node != kNone && !lexicon_.nullable(node)) {
            lexemes.push_back(node);
            if (name.size() < 60)
              name +=
                  (name.empty() ? "" : " | ") + (is_rule(a[0]) ? rules_[rule_of(a[0])].name : terminals_[a[0]].name);
            continue;
          }
        }
        std::vector<Symbol> sequence;
        for (uint32_t s : a) sequence.push_back(is_rule(s) ? rule_symbols[rule_of(s)] : terminal_symbol(s));
        provider_->productions_of[r].push_back(std::move(sequence));
      }
      if (!lexemes.empty())
        provider_->productions_of[r].push_back({symbols_.terminal(lexicon_.either(std::move(lexemes)), 0, name)});
    }
    OpenGrammar result;
    result.start = rule_symbols[start_];
    // Without competitors: the lexemes say all that there is to say about each other.
    result.lexing = lexing_ == Lexing::kDynamic || lexing_ == Lexing::kOrdered ? Lexing::kMunch : lexing_;
    result.marked = !marked_.empty() || uses_markers_;
    if (lexing_ == Lexing::kOrdered) ignore_lexemes(result);
    for (uint32_t t : lexing_ == Lexing::kOrdered ? std::vector<uint32_t>{} : ignored_) {
      if (!terminal_usable(t)) continue;
      result.ignored.push_back(
          symbols_.terminal(nodes_[t], 0, terminals_[t].name, lexer_ != 0 ? first_mode_ : 0, lexer_));
      if (lexing_ != Lexing::kDynamic) continue;
      for (const std::optional<Symbol>& used : terminal_symbols_)
        if (used == result.ignored.back())
          throw GrammarError("terminal '" + terminals_[t].name +
                             "' is ignored and stands in a rule as well, which is supported under longest match only");
    }
    for (uint32_t mode = 0; mode < skips_.size() && lexing_ != Lexing::kFree; ++mode) {
      LexerMode& made = result.modes.emplace_back(std::vector<Node>{}, skips_[mode]);
      if (competitors_.empty()) continue;
      // All literals are one trie. A keyword that some pattern matches too adds nothing to the union, but would make
      // remainders differ after each of its beginnings, and rows of masks with them.
      std::vector<std::pair<std::string_view, Node>> texts;
      auto matched = [&](uint32_t literal) {
        return std::ranges::any_of(competitors_[mode], [&](uint32_t t) {
          return terminals_[t].kind != StaticTerminal::Kind::kLiteral && whole_[t] != kNone && !is_marked(t) &&
                 lexicon_.nullable(lexicon_.walk(whole_[t], terminals_[literal].text));
        });
      };
      for (uint32_t t : competitors_[mode]) {
        if (terminals_[t].kind == StaticTerminal::Kind::kLiteral) {
          if (!matched(t)) texts.emplace_back(terminals_[t].text, kEpsilon);
        } else if (whole_[t] != kNone) {
          made.competitors.push_back(is_marked(t) ? marked_[t] : whole_[t]);
        }
      }
      if (!texts.empty()) made.competitors.push_back(lexicon_.literals(std::move(texts)));
    }
    if (indentation_) {
      auto read = [this](uint32_t t) {
        if (lexers_.size() < 2) return terminal_symbol(t);
        std::vector<Node> starts;
        for (const std::vector<Node>& given : given_) starts.push_back(given[t]);
        return symbols_.terminal(std::move(starts), 0, terminals_[t].name);
      };
      IndentationRule rule{read(indentation_->newline),
                           terminal_symbol(indentation_->indent),
                           terminal_symbol(indentation_->dedent),
                           {},
                           {},
                           indentation_->tab_width,
                           indentation_->as_python,
                           lexing_ == Lexing::kOrdered};
      for (uint32_t t : indentation_->opens) rule.opens.push_back(read(t));
      for (uint32_t t : indentation_->closes) rule.closes.push_back(read(t));
      result.indentation = std::move(rule);
    }
    result.providers.push_back(std::move(owned));
    for (auto& provider : part_providers_) result.providers.push_back(std::move(provider));
    return result;
  }

  const std::vector<StaticTerminal>& terminals_;
  const std::vector<StaticRule>& rules_;
  uint32_t start_;
  Lexing lexing_;
  const std::vector<uint32_t>& ignored_;
  const std::optional<StaticIndentation>& indentation_;
  const std::vector<StaticLexer>& lexers_;
  const std::vector<std::pair<uint32_t, uint32_t>>& shifts_;
  const std::vector<bool>& skips_;  // by mode
  SymbolTable& symbols_;
  Lexicon& lexicon_;
  std::vector<std::vector<Node>> given_;  // ordered: per lexer and terminal
  std::vector<Node> ignored_lexemes_;     // ordered: per lexer, all that it ignores
  bool uses_markers_ = false;
  std::vector<Node> nodes_, whole_;  // per terminal: what it wins, what it matches
  std::vector<Node>
      marked_;  // munch: with what may follow, for terminals that look past their end; else kNone or not there
  std::vector<std::vector<uint32_t>> competitors_;  // by mode
  std::vector<bool> useful_;                        // per terminal: may stand in a production
  std::vector<bool> productive_, nullable_, reachable_, is_regular_;
  std::vector<Node> regular_;
  std::vector<std::optional<Symbol>> terminal_symbols_;
  TableRules* provider_ = nullptr;
  std::vector<std::unique_ptr<RuleProvider>> part_providers_;
  std::unordered_map<uint32_t, Symbol> part_starts_;  // by terminal
  std::unordered_set<uint32_t> nullable_parts_, salted_;
  uint32_t lexer_ = 0, first_mode_ = 0;  // of a part, or a grammar with parts
};

}  // namespace

StaticSource::StaticSource(std::vector<StaticTerminal> terminals, std::vector<StaticRule> rules, uint32_t start,
                           Lexing lexing, std::vector<uint32_t> ignored, std::optional<StaticIndentation> indentation,
                           std::vector<StaticLexer> lexers, std::vector<std::pair<uint32_t, uint32_t>> shifts,
                           std::vector<bool> skips)
    : terminals_(std::move(terminals)), rules_(std::move(rules)), start_(start), lexing_(lexing),
      ignored_(std::move(ignored)), indentation_(std::move(indentation)), lexers_(std::move(lexers)),
      shifts_(std::move(shifts)), skips_(std::move(skips)) {
  skips_.insert(skips_.begin(), true);
  check_modes();
  if (start_ >= rules_.size()) throw GrammarError("the start rule is not defined");
  for (const StaticRule& r : rules_)
    for (const auto& a : r.alternatives)
      for (uint32_t s : a)
        if (s >= terminals_.size() + shifts_.size() + rules_.size())
          throw GrammarError("rule '" + r.name + "' uses an undefined symbol");
  // Freely lexed, the only terminal of a grammar is the whole text, and nothing stands around it.
  bool whole = rules_.size() == 1 && rules_[0].alternatives.size() == 1 && rules_[0].alternatives[0].size() == 1;
  for (const StaticTerminal& t : terminals_)
    if (lexing_ == Lexing::kFree && !whole && t.regex &&
        (looks_past_its_end(*t.regex) || looks_before_its_start(*t.regex)))
      throw GrammarError("terminal '" + t.name + "' looks beyond its match, which free lexing cannot do");
  if (lexing_ != Lexing::kFree)
    for (const StaticTerminal& t : terminals_)
      if (t.regex && looks_before_its_start(*t.regex))
        throw GrammarError("terminal '" + t.name +
                           "': a lookbehind, a word boundary or a start anchor that sees what stands before the lexeme "
                           "is not supported");
  auto check = [this](uint32_t t) {
    if (t >= terminals_.size()) throw GrammarError("a lexer uses a symbol that is not a terminal");
  };
  for (const StaticLexer& lexer : lexers_) {
    std::ranges::for_each(lexer.patterns, check);
    for (const auto& [pattern, texts] : lexer.replaced) {
      check(pattern);
      std::ranges::for_each(texts, check);
    }
  }
  if (lexers_.empty() == (lexing_ == Lexing::kOrdered)) throw GrammarError("lexers are for ordered lexing");
  for (const auto& [terminal, next_lexer] : shifts_)
    if (terminal >= terminals_.size() || next_lexer >= lexers_.size())
      throw GrammarError("a shift is of an undefined terminal, or to an undefined lexer");
  if (indentation_) {
    std::vector<uint32_t> used{indentation_->newline, indentation_->indent, indentation_->dedent};
    used.insert(used.end(), indentation_->opens.begin(), indentation_->opens.end());
    used.insert(used.end(), indentation_->closes.begin(), indentation_->closes.end());
    for (uint32_t t : used)
      if (t >= terminals_.size()) throw GrammarError("indentation is by a symbol that is not a terminal");
    if (lexing_ != Lexing::kMunch && lexing_ != Lexing::kOrdered)
      throw GrammarError("blocks by indentation need a lexer of their own");
  }
  for (uint32_t t : ignored_)
    if (t >= terminals_.size() || terminals_[t].kind == StaticTerminal::Kind::kSpecial ||
        terminals_[t].kind == StaticTerminal::Kind::kPart)
      throw GrammarError("an ignored symbol is not a terminal");
}

void StaticSource::check_modes() const {
  for (const StaticTerminal& t : terminals_) {
    if (t.mode == 0) continue;
    if (t.mode >= skips_.size()) throw GrammarError("terminal '" + t.name + "' is of a mode that is not defined");
    if (lexing_ != Lexing::kMunch) throw GrammarError("modes of terminals need longest match");
    if (t.kind == StaticTerminal::Kind::kSpecial || t.kind == StaticTerminal::Kind::kBlock ||
        t.kind == StaticTerminal::Kind::kPart)
      throw GrammarError("terminal '" + t.name + "' is no text and belongs to no mode");
    if (t.regex && looks_past_its_end(*t.regex))
      throw GrammarError("terminal '" + t.name +
                         "' looks past its end, which terminals of other modes than the first may not");
  }
  for (uint32_t t : ignored_)
    if (t < terminals_.size() && terminals_[t].mode != 0)
      throw GrammarError("terminal '" + terminals_[t].name +
                         "' is ignored; ignored terminals are of no other mode than the first");
}

OpenGrammar StaticSource::open(SymbolTable& symbols) const {
  return Opener(terminals_, rules_, start_, lexing_, ignored_, indentation_, lexers_, shifts_, skips_, symbols).run();
}

}  // namespace guiderail
