// Blocks by indentation, as Lark's `Indenter` finds them.
//
// After a newline lexeme the width of its last line (spaces count one, tabs `tab_width`) is compared with the innermost open block:
// wider, and the parser is given an `indent` after the newline; narrower, and it is given one `dedent` for each block that closes, the width of
// one of which it must be. Inside brackets newline lexemes are dropped. At the end of the text all blocks close.
//
// `as_python`, as Python's own tokenizer: the text is read as if it stood between two line breaks, so that its first line has a width and its last one
// may end anywhere; a tab goes to the next multiple of `tab_width`; form feeds and carriage returns set the width back; and widths must compare
// the same if tabs count one (else Python has a TabError).
//
// None of this is in the text as lexemes, so a thread of the engine carries it: an interned triple (open blocks, brackets, width
// read so far of a newline lexeme). Two places under the same blocks are the same state, so long files cost no more than short ones.
// `indent` and `dedent` are terminals whose language is the empty string; no lexeme of theirs is ever begun.
#pragma once

#include <algorithm>
#include <cstdint>
#include <mutex>
#include <vector>

#include "core/errors.h"
#include "core/growth.h"
#include "core/parser/grammar.h"
#include "core/published_map.h"
#include "core/stable_vector.h"

namespace guiderail {

class Indentation {
 public:
  using State = uint32_t;  // 0: no block, no bracket, nothing read
  static constexpr State kNever = UINT32_MAX;

  Indentation(const IndentationRule& rule, const SymbolTable& symbols, std::recursive_mutex& mutex) : mutex_(mutex) {
    auto start = [&](Symbol s) { return symbols.terminal_info(s).start; };
    auto starts = [&](Symbol s) {
      const auto& info = symbols.terminal_info(s);
      return info.starts.empty() ? std::vector{info.start} : info.starts;
    };
    auto add = [&](std::vector<Node>& to, Symbol s) {
      for (Node n : starts(s))
        if (n != kNone) to.push_back(n);
    };
    newlines_ = starts(rule.newline);
    indent_ = start(rule.indent);
    dedent_ = start(rule.dedent);
    for (Symbol s : rule.opens) add(opens_, s);
    for (Symbol s : rule.closes) add(closes_, s);
    tab_width_ = rule.tab_width;
    as_python_ = rule.as_python;
    columns_.emplace_back(Columns{0, 0});  // no line break has been read
    columns_.emplace_back(Columns{0, 0});
    blocks_.emplace_back(Block{0, 0});
    states_.emplace_back(Info{0, 0, 0});
  }

  // The newline as a lexer reads it.
  Node newline(uint32_t lexer) const { return newlines_.size() == 1 ? newlines_[0] : newlines_[lexer]; }
  bool is_newline(Node group) const { return group != kNone && std::ranges::find(newlines_, group) != newlines_.end(); }
  Node indent() const { return indent_; }
  Node dedent() const { return dedent_; }

  // In brackets, where newlines are dropped?
  bool suspended(State s) const { return states_[s].brackets > 0; }
  bool as_python() const { return as_python_; }
  // Does a newline lexeme hold a line break?
  bool broken(State s) const { return as_python_ || states_[s].width != 0; }
  bool in_block(State s) const { return states_[s].blocks != 0; }
  // What was read of a newline lexeme against the innermost block: a block opens, or closes, or neither; kMixed: tabs and spaces leave it open.
  enum class Width : uint8_t { kSame, kWider, kNarrower, kMixed };
  Width compare(State newline, State blocks) const {
    return compare(columns_[states_[newline].width], columns_[blocks_[states_[blocks].blocks].width]);
  }
  // The same of what two have read.
  bool is_wider(State newline, State than) const {
    return compare(columns_[states_[newline].width], columns_[states_[than].width]) == Width::kWider;
  }

  // The innermost open block's width.
  State innermost(State s) { return intern({0, 0, blocks_[states_[s].blocks].width}); }

  // What was read of a newline lexeme: columns, and columns if tabs count one (where that matters; else the same).
  struct Columns {
    uint32_t columns, least;
    auto operator<=>(const Columns&) const = default;
  };
  // Does the byte set the width back?
  bool breaks(uint8_t byte) const { return byte == '\n' || (as_python_ && (byte == '\f' || byte == '\r')); }
  // The width after one more byte of a line.
  Columns longer(Columns c, uint8_t byte) const {
    if (byte == ' ') return {c.columns + 1, c.least + 1};
    if (byte != '\t') return c;
    if (as_python_) return {(c.columns / tab_width_ + 1) * tab_width_, c.least + 1};
    return {c.columns + tab_width_, c.least + tab_width_};
  }
  uint32_t tab_width() const { return tab_width_; }
  Columns columns(State s) const { return columns_[states_[s].width]; }
  // The open blocks' widths, outermost first, and how many brackets are open.
  std::vector<Columns> blocks(State s) const {
    std::vector<Columns> widths;
    for (uint32_t b = states_[s].blocks; b != 0; b = blocks_[b].outer) widths.push_back(columns_[blocks_[b].width]);
    std::ranges::reverse(widths);
    return widths;
  }
  // The widths that lines may have which open no block: those of the open blocks, and of the text outside of all.
  template <typename Do>
  void for_each_block(State s, Do what) const {
    uint32_t b = states_[s].blocks;
    for (; b != 0; b = blocks_[b].outer) what(columns_[blocks_[b].width]);
    what(columns_[0]);
  }
  uint32_t brackets(State s) const { return states_[s].brackets; }
  bool opens(Node group) const { return std::ranges::find(opens_, group) != opens_.end(); }
  bool closes(Node group) const { return std::ranges::find(closes_, group) != closes_.end(); }

  // One more byte of a newline lexeme.
  State read(State s, uint8_t byte) {
    Info i = states_[s];
    Columns c = columns_[i.width];
    if (breaks(byte)) {
      c = {0, 0};
    } else if (broken(s) && (byte == ' ' || byte == '\t')) {
      c = longer(c, byte);
    } else {
      return s;
    }
    i.width = number(c);
    return intern(i);
  }
  State forget_width(State s) {
    Info i = states_[s];
    i.width = 0;
    return intern(i);
  }
  // The same brackets, in no block and with nothing read.
  State brackets_alone(State s) { return intern({0, states_[s].brackets, 0}); }
  // The blocks and the width of `s`, in the brackets of `brackets`.
  State with_brackets(State s, State brackets) {
    Info i = states_[s];
    i.brackets = states_[brackets].brackets;
    return intern(i);
  }
  // What `newline` has read, in the blocks and brackets of `s`.
  State with_width(State s, State newline) {
    Info i = states_[s];
    i.width = states_[newline].width;
    return intern(i);
  }
  // The other half of it.
  State width_alone(State s) { return intern({0, 0, states_[s].width}); }
  // A block as wide as what `newline` has read.
  State open_block(State s, State newline) {
    Info i = states_[s];
    i.blocks = block(i.blocks, states_[newline].width);
    return intern(i);
  }
  State close_block(State s) {
    Info i = states_[s];
    i.blocks = blocks_[i.blocks].outer;
    return intern(i);
  }
  // After a lexeme that is no newline; kNever: a bracket closes that nothing has opened.
  State after(State s, Node group) {
    if (opens(group)) {
      Info i = states_[s];
      ++i.brackets;
      return intern(i);
    }
    if (!closes(group)) return s;
    Info i = states_[s];
    if (i.brackets == 0) return kNever;
    --i.brackets;
    return intern(i);
  }

 private:
  struct Info {
    uint32_t blocks, brackets, width;
  };
  struct Block {
    uint32_t outer, width;
  };
  static Width compare(Columns read, Columns open) {
    if (read.columns == open.columns) return read.least == open.least ? Width::kSame : Width::kMixed;
    if (read.columns < open.columns) return Width::kNarrower;
    return read.least > open.least ? Width::kWider : Width::kMixed;
  }
  static constexpr uint32_t kMaxCount = (uint32_t{1} << 20) - 1;  // brackets, columns
  static constexpr uint32_t kMaxBlocks = uint32_t{1} << 24;

  uint32_t number(Columns c) {
    if (c.columns == 0) return 1;
    uint64_t key = (uint64_t{c.columns} << 32) | c.least;
    uint32_t known = column_ids_.find(key);
    if (known != PublishedMap::kUnknown) return known;
    std::lock_guard lock(mutex_);
    known = column_ids_.find(key);
    if (known != PublishedMap::kUnknown) return known;
    auto fresh = static_cast<uint32_t>(columns_.emplace_back(c));
    growth_of_this_thread += column_ids_.insert(key, fresh) + sizeof(Columns);
    return fresh;
  }

  State intern(const Info& i) {
    if (i.brackets > kMaxCount || i.width > kMaxCount)
      throw LimitError("indentation", "more than 2^20 open brackets or widths of indentation");
    uint64_t key = (uint64_t{i.blocks} << 40) | (uint64_t{i.brackets} << 20) | i.width;
    if (key == 0) return 0;
    uint32_t known = ids_.find(key);
    if (known != PublishedMap::kUnknown) return known;
    std::lock_guard lock(mutex_);
    known = ids_.find(key);
    if (known != PublishedMap::kUnknown) return known;
    auto fresh = static_cast<uint32_t>(states_.emplace_back(i));
    growth_of_this_thread += ids_.insert(key, fresh) + sizeof(Info);
    return fresh;
  }

  uint32_t block(uint32_t outer, uint32_t width) {
    uint64_t key = (uint64_t{outer} << 32) | width;
    std::lock_guard lock(mutex_);
    uint32_t known = block_ids_.find(key);
    if (known != PublishedMap::kUnknown) return known;
    if (blocks_.size() >= kMaxBlocks) throw LimitError("indentation", "more than 2^24 different nestings of blocks");
    auto fresh = static_cast<uint32_t>(blocks_.emplace_back(Block{outer, width}));
    growth_of_this_thread += block_ids_.insert(key, fresh) + sizeof(Block);
    return fresh;
  }

  std::recursive_mutex& mutex_;
  Node indent_ = kNone, dedent_ = kNone;
  std::vector<Node> newlines_;  // one, or by lexer
  std::vector<Node> opens_, closes_;
  uint32_t tab_width_ = 8;
  bool as_python_ = false;
  StableVector<Block> blocks_;  // 0: none
  StableVector<Info> states_;
  StableVector<Columns> columns_;
  PublishedMap ids_, block_ids_, column_ids_;
};

}  // namespace guiderail
