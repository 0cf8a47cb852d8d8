// Sets of code points → sets of UTF-8 byte strings.
//
// UTF-8 is a radix-64 notation: after the lead byte every byte carries six bits. So the code points of one encoded length are a
// trie over aligned blocks of 64^k points, built from the top: a block that the set fills is 'any k continuation bytes', one that it
// does not meet is nothing, the rest have children. Hash-consing shares equal blocks, which keeps \w at a few hundred nodes.
#include <algorithm>
#include <array>

#include "core/regex/regex.h"

namespace guiderail {
namespace {

class Utf8Encoder {
 public:
  Utf8Encoder(Lexicon& lexicon, const CodePoints& points) : lexicon_(lexicon), points_(points) {
    full_[0] = kEpsilon;
    Node continuation = lexicon.bytes(ByteSet::range(0x80, 0xBF));
    for (std::size_t k = 1; k < full_.size(); ++k) full_[k] = lexicon.concat(continuation, full_[k - 1]);
  }

  Node encode() {
    std::vector<std::pair<uint8_t, Node>> children;
    ByteSet ascii;
    bool only_ascii = true;
    for (uint32_t byte = 0; byte < 0x80; ++byte)
      if (contains(points_, byte)) {
        ascii.add(static_cast<uint8_t>(byte));
        children.emplace_back(static_cast<uint8_t>(byte), kEpsilon);
      }
    auto lead_bytes = [&](uint32_t first, uint32_t last, uint32_t mask, unsigned bits, uint32_t smallest) {
      for (uint32_t lead = first; lead <= last; ++lead) {
        uint32_t base = (lead & mask) << bits;
        Node rest = block(std::max(base, smallest), base, bits);
        if (rest == kNone) continue;
        only_ascii = false;
        children.emplace_back(static_cast<uint8_t>(lead), rest);
      }
    };
    lead_bytes(0xC2, 0xDF, 0x1F, 6, 0x80);
    lead_bytes(0xE0, 0xEF, 0x0F, 12, 0x800);
    lead_bytes(0xF0, 0xF4, 0x07, 18, 0x10000);
    return only_ascii ? lexicon_.bytes(ascii) : lexicon_.branch(std::move(children));
  }

 private:
  // The last `bits` / 6 bytes of the members in [base, base + 2^bits) that are not below `smallest`.
  Node block(uint32_t smallest, uint32_t base, unsigned bits) {
    uint32_t last = base + (uint32_t{1} << bits) - 1;
    auto range = std::lower_bound(points_.begin(), points_.end(), smallest,
                                  [](const auto& r, uint32_t point) { return r.second < point; });
    if (range == points_.end() || range->first > last) return kNone;
    if (range->first <= base && smallest == base && range->second >= last) return full_[bits / 6];
    if (bits == 6) {
      ByteSet set;
      for (; range != points_.end() && range->first <= last; ++range)
        for (uint32_t p = std::max(range->first, smallest); p <= std::min(range->second, last); ++p)
          set.add(static_cast<uint8_t>(0x80 | (p & 0x3F)));
      return lexicon_.bytes(set);
    }
    std::vector<std::pair<uint8_t, Node>> children;
    for (uint32_t i = 0; i < 64; ++i) {
      uint32_t start = base + (i << (bits - 6));
      if (start + (uint32_t{1} << (bits - 6)) <= smallest) continue;
      children.emplace_back(static_cast<uint8_t>(0x80 | i), block(std::max(start, smallest), start, bits - 6));
    }
    return lexicon_.branch(std::move(children));
  }

  Lexicon& lexicon_;
  const CodePoints& points_;
  std::array<Node, 4> full_;
};

}  // namespace

Node encode_utf8(Lexicon& lexicon, const CodePoints& points) { return Utf8Encoder(lexicon, points).encode(); }

}  // namespace guiderail
