#include "core/masks/token_trie.h"

#include <algorithm>
#include <array>
#include <numeric>
#include <tuple>

#include "core/text/utf8_lead.h"

namespace guiderail {

namespace {

using Strings = std::span<const std::pair<std::string_view, uint32_t>>;

// The first eight bytes are a number as well, so that hardly anything looks at the string itself.
struct Entry {
  uint64_t head;
  std::string_view text;
  uint32_t token;
  uint8_t byte(std::size_t depth) const {
    return depth < 8 ? static_cast<uint8_t>(head >> (56 - 8 * depth)) : static_cast<uint8_t>(text[depth]);
  }
};

uint64_t head_of(std::string_view text) {
  uint64_t head = 0;
  for (std::size_t i = 0; i < 8; ++i) head = head << 8 | (i < text.size() ? static_cast<uint8_t>(text[i]) : 0);
  return head;
}

// By text, then by token: radix sort by heads, then by comparison what has equal ones.
std::vector<Entry> sorted(Strings strings) {
  std::vector<std::pair<uint64_t, uint32_t>> places, other;
  places.reserve(strings.size());
  for (uint32_t i = 0; i < strings.size(); ++i)
    if (!strings[i].first.empty()) places.emplace_back(head_of(strings[i].first), i);
  other.resize(places.size());
  for (int shift = 0; shift < 64; shift += 8) {
    std::array<uint32_t, 257> begin{};
    for (const auto& p : places) ++begin[(p.first >> shift & 255) + 1];
    std::partial_sum(begin.begin(), begin.end(), begin.begin());
    for (const auto& p : places) other[begin[p.first >> shift & 255]++] = p;
    std::swap(places, other);
  }
  std::vector<Entry> entries;
  entries.reserve(places.size());
  for (const auto& [head, i] : places) entries.push_back({head, strings[i].first, strings[i].second});
  for (auto first = entries.begin(), last = first; first != entries.end(); first = last) {
    while (last != entries.end() && last->head == first->head) ++last;
    std::sort(first, last,
              [](const Entry& a, const Entry& b) { return std::tie(a.text, a.token) < std::tie(b.text, b.token); });
  }
  return entries;
}

}  // namespace

TokenTrie TokenTrie::build(Strings strings) {
  const std::vector<Entry> entries = sorted(strings);
  TokenTrie trie;
  struct Range {
    uint32_t node, begin, end;
    std::size_t depth;
  };
  trie.nodes_.reserve(1 + 3 * entries.size());
  trie.tokens_.reserve(entries.size());
  trie.nodes_.push_back({});
  std::vector<Range> work{{0, 0, static_cast<uint32_t>(entries.size()), 0}};
  while (!work.empty()) {
    Range r = work.back();
    work.pop_back();
    uint32_t i = r.begin;
    trie.nodes_[r.node].first_token = static_cast<uint32_t>(trie.tokens_.size());
    for (; i < r.end && entries[i].text.size() == r.depth; ++i) trie.tokens_.push_back(entries[i].token);
    trie.nodes_[r.node].num_tokens = i - r.begin;
    trie.nodes_[r.node].first_child = static_cast<uint32_t>(trie.nodes_.size());
    std::size_t first_range = work.size();
    while (i < r.end) {
      uint8_t byte = entries[i].byte(r.depth);
      uint32_t j = i + 1;
      while (j < r.end && entries[j].byte(r.depth) == byte) ++j;
      work.push_back({static_cast<uint32_t>(trie.nodes_.size()), i, j, r.depth + 1});
      trie.nodes_.push_back({0, 0, 0, 0, byte, 0});
      ++trie.nodes_[r.node].num_children;
      i = j;
    }
    std::reverse(work.begin() + static_cast<std::ptrdiff_t>(first_range), work.end());
  }
  trie.measure();
  return trie;
}

TokenTrie TokenTrie::merge_below(const TokenTrie& whole, std::vector<uint32_t> roots, uint8_t byte) {
  TokenTrie trie;
  trie.nodes_.push_back({1, 0, 0, 1, 0, 0});
  trie.nodes_.push_back({0, 0, 0, 0, byte, 0});
  std::vector<Merging> open{{1u, 0u, static_cast<uint32_t>(roots.size())}};
  trie.merge_from(whole, std::move(open), std::move(roots));
  return trie;
}

TokenTrie TokenTrie::merge(const TokenTrie& whole, std::span<const uint32_t> roots, const ByteSet& first) {
  std::array<std::vector<uint32_t>, 256> by_byte;
  for (uint32_t root : roots)
    for (uint32_t k = 0; k < whole.node(root).num_children; ++k) {
      uint32_t child = whole.node(root).first_child + k;
      if (first.has(whole.node(child).byte)) by_byte[whole.node(child).byte].push_back(child);
    }
  TokenTrie trie;
  trie.nodes_.push_back({1, 0, 0, 0, 0, 0});
  std::vector<Merging> open;
  std::vector<uint32_t> sources;
  for (unsigned byte = 0; byte < 256; ++byte) {
    if (by_byte[byte].empty()) continue;
    uint32_t begin = static_cast<uint32_t>(sources.size());
    sources.insert(sources.end(), by_byte[byte].begin(), by_byte[byte].end());
    open.push_back({static_cast<uint32_t>(trie.nodes_.size()), begin, static_cast<uint32_t>(sources.size())});
    trie.nodes_.push_back({0, 0, 0, 0, static_cast<uint8_t>(byte), 0});
    ++trie.nodes_[0].num_children;
  }
  trie.merge_from(whole, std::move(open), std::move(sources));
  return trie;
}

void TokenTrie::merge_from(const TokenTrie& whole, std::vector<Merging> open, std::vector<uint32_t> sources) {
  std::vector<std::pair<uint64_t, uint32_t>> children;  // byte and order, node
  while (!open.empty()) {
    auto [at, begin, end] = open.back();
    open.pop_back();
    nodes_[at].first_token = static_cast<uint32_t>(tokens_.size());
    children.clear();
    for (uint32_t i = begin; i < end; ++i) {
      const TrieNode& source = whole.node(sources[i]);
      std::span<const uint32_t> tokens = whole.tokens(sources[i]);
      tokens_.insert(tokens_.end(), tokens.begin(), tokens.end());
      for (uint32_t c = source.first_child; c < source.first_child + source.num_children; ++c)
        children.emplace_back(uint64_t{whole.node(c).byte} << 32 | children.size(), c);
    }
    if (end - begin > 1) std::ranges::sort(children);
    // What is open is worked off from the last, so the sources of a node are the last ones when its turn comes.
    sources.resize(begin);
    nodes_[at].num_tokens = static_cast<uint32_t>(tokens_.size()) - nodes_[at].first_token;
    nodes_[at].first_child = static_cast<uint32_t>(nodes_.size());
    for (std::size_t i = 0; i < children.size();) {
      uint64_t byte = children[i].first >> 32;
      uint32_t first = static_cast<uint32_t>(sources.size());
      for (; i < children.size() && children[i].first >> 32 == byte; ++i) sources.push_back(children[i].second);
      open.push_back({static_cast<uint32_t>(nodes_.size()), first, static_cast<uint32_t>(sources.size())});
      nodes_.push_back({0, 0, 0, 0, static_cast<uint8_t>(byte), 0});
      ++nodes_[at].num_children;
    }
  }
  measure();
}

void TokenTrie::measure() {
  // Children come after their parent, so one backward pass sees them first.
  subtree_.assign(nodes_.size(), 1);
  subtree_tokens_.resize(nodes_.size());
  for (std::size_t i = nodes_.size(); i-- > 0;) {
    uint8_t height = 0;
    subtree_tokens_[i] = nodes_[i].num_tokens;
    for (const TrieNode& c : children(static_cast<uint32_t>(i))) {
      height = std::max<uint8_t>(height, c.height == 255 ? 255 : static_cast<uint8_t>(c.height + 1));
      subtree_[i] += subtree_[static_cast<std::size_t>(&c - nodes_.data())];
      subtree_tokens_[i] += subtree_tokens_[static_cast<std::size_t>(&c - nodes_.data())];
    }
    nodes_[i].height = height;
  }
}

// Is everything below `node` the rest of a character, `bytes` of it, whose next byte is in [first, last], and UTF-8 after it?
bool TokenTrie::continues_character(uint32_t node, int bytes, uint8_t first, uint8_t last) const {
  for (uint32_t k = 0; k < nodes_[node].num_children; ++k) {
    uint32_t child = nodes_[node].first_child + k;
    if (nodes_[child].byte < first || nodes_[child].byte > last) return false;
    if (bytes == 1 ? !below_[child].utf8 : !continues_character(child, bytes - 1, 0x80, 0xBF)) return false;
  }
  return true;
}

void TokenTrie::summarize() {
  first_level_.assign(256, 0);
  for (uint32_t k = 0; k < nodes_[kRoot].num_children; ++k)
    first_level_[nodes_[nodes_[kRoot].first_child + k].byte] = nodes_[kRoot].first_child + k;
  // Parents come before their children.
  characters_to_.assign(nodes_.size(), 0);
  characters_.assign(tokens_.size(), 0);
  for (std::size_t i = 0; i < nodes_.size(); ++i) {
    const TrieNode& node = nodes_[i];
    std::fill_n(characters_.begin() + node.first_token, node.num_tokens, characters_to_[i]);
    for (uint32_t child = node.first_child; child < node.first_child + node.num_children; ++child)
      characters_to_[child] = static_cast<uint16_t>(characters_to_[i] + ((nodes_[child].byte & 0xC0) != 0x80));
  }
  below_.assign(nodes_.size(), {});
  for (std::size_t i = nodes_.size(); i-- > 0;) {
    Below& b = below_[i];
    for (uint32_t k = 0; k < nodes_[i].num_children; ++k) {
      uint32_t child = nodes_[i].first_child + k;
      uint8_t byte = nodes_[child].byte;
      const Below& c = below_[child];
      b.ascii[0] |= c.ascii[0];
      b.ascii[1] |= c.ascii[1];
      b.leads |= c.leads;
      if (byte < 0x80) {
        b.ascii[byte >> 6] |= uint64_t{1} << (byte & 63);
        b.utf8 = b.utf8 && c.utf8;
      } else {
        if (byte >= 0xC0) b.leads |= uint64_t{1} << (byte & 63);
        const Utf8Lead* lead = utf8_lead(byte);
        b.utf8 = b.utf8 && lead && continues_character(child, lead->more, lead->first, lead->last);
      }
    }
  }
}

uint32_t TokenTrie::child_among(const TrieNode& n, uint8_t byte) const {
  uint32_t lo = n.first_child, hi = n.first_child + n.num_children;
  while (hi - lo > 1) {
    uint32_t mid = (lo + hi) / 2;
    if (nodes_[mid].byte <= byte)
      lo = mid;
    else
      hi = mid;
  }
  return nodes_[lo].byte == byte ? lo : 0;
}

uint32_t TokenTrie::find(uint32_t from, std::string_view text) const {
  for (char c : text) {
    from = child(from, static_cast<uint8_t>(c));
    if (!from) return 0;
  }
  return from;
}

}  // namespace guiderail
