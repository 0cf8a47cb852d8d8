#include "core/lexer/lexeme_stretch.h"

#include <string_view>
#include <unordered_set>
#include <vector>

#include "core/errors.h"
#include "core/text/utf8_lead.h"

namespace guiderail {

namespace {

constexpr Characters family_of(std::string_view more, bool digits, bool letters, bool beyond_ascii) {
  Characters family;
  for (char c : more) family.add(static_cast<unsigned char>(c));
  for (unsigned c = '0'; digits && c <= '9'; ++c) family.add(c);
  for (unsigned c = 'a'; letters && c <= 'z'; ++c) {
    family.add(c);
    family.add(c - 'a' + 'A');
  }
  for (unsigned byte = 0xC2; beyond_ascii && byte <= 0xF4; ++byte) family.add(byte);
  return family;
}

// Looking further pays for few tokens: what lies below a place that far is narrow.
constexpr uint32_t kFar = 12;

constexpr std::string_view kPunctuation = " !#$%&'()*+,-./:;<=>?@[]^_`{|}~";

// From narrow to broad. Quotation marks and backslashes end or escape something in most languages.
constexpr Characters kFamilies[] = {
    family_of("", true, false, false),          family_of("", false, true, false),
    family_of("", true, true, false),           family_of(" _-.", true, true, false),
    family_of(kPunctuation, true, true, false), family_of("", false, true, true),
    family_of(kPunctuation, true, true, true),
};

// Calls back with one byte of each of the node's classes in [first, last] that are wanted, as long as `f` returns true.
template <typename Wanted, typename F>
bool for_each_class(const Lexicon::Transitions& t, unsigned first, unsigned last, Wanted wanted, F f) {
  std::array<uint64_t, 4> met{};
  for (unsigned byte = first; byte <= last; ++byte) {
    uint8_t c = t.classes[byte];
    if (!wanted(byte) || met[c >> 6] >> (c & 63) & 1) continue;
    met[c >> 6] |= uint64_t{1} << (c & 63);
    uint32_t known = t.next[c].load(std::memory_order_acquire);
    if (!f(byte, known)) return false;
  }
  return true;
}

bool any(unsigned) { return true; }

}  // namespace

// Does `node` come to `target` by any `more` bytes, the first of them in [first, last], without an end on the way?
bool LexemeStretches::always_comes_to(Node node, Node target, int more, uint8_t first, uint8_t last) {
  return for_each_class(lexicon_.transitions(node), first, last, any, [&](unsigned byte, uint32_t known) {
    Node next = known != Lexicon::kUnknown ? Node{known} : lexicon_.step(node, static_cast<uint8_t>(byte));
    if (more == 1 || next == kNone) return next != kNone && next == target;
    return !lexicon_.nullable(next) && always_comes_to(next, target, more - 1, 0x80, 0xBF);
  });
}

Characters LexemeStretches::loops_of(Node node) {
  Characters loops;
  const Lexicon::Transitions& t = lexicon_.transitions(node);
  std::array<uint8_t, 256> good{};  // by class: 0 unknown, 1 yes, 2 no
  for (unsigned byte = 0; byte < 0x80; ++byte) {
    uint8_t& known = good[t.classes[byte]];
    if (!known) known = lexicon_.step(node, static_cast<uint8_t>(byte)) == node ? 1 : 2;
    if (known == 1) loops.add(byte);
  }
  if (loops.empty()) return loops;  // hardly a text
  for (const Utf8Lead& lead : kUtf8Leads) {
    good.fill(0);
    for (unsigned byte = lead.lead_first; byte <= lead.lead_last; ++byte) {
      uint8_t& known = good[t.classes[byte]];
      if (!known) {
        Node next = lexicon_.step(node, static_cast<uint8_t>(byte));
        known =
            next != kNone && !lexicon_.nullable(next) && always_comes_to(next, node, lead.more, lead.first, lead.last)
                ? 1
                : 2;
      }
      if (known == 1) loops.add(byte);
    }
  }
  return loops;
}

const Characters& LexemeStretches::loops(Node remainder) {
  auto [it, fresh] = loops_.try_emplace(static_cast<uint32_t>(remainder));
  if (fresh) it->second = loops_of(remainder);
  return it->second;
}

bool LexemeStretches::goes_on(Node remainder, const TokenTrie::Below& below, uint8_t height) {
  for (std::size_t family = 0; family < std::size(kFamilies); ++family) {
    if (!kFamilies[family].cover(below)) continue;
    auto [it, fresh] = stretches_.try_emplace(uint64_t{static_cast<uint32_t>(remainder)} << 8 | family);
    if (fresh) it->second = explore(remainder, kFamilies[family], kFar, nullptr);
    return height <= it->second;
  }
  return false;
}

const Characters& LexemeStretches::plain_characters() { return kFamilies[std::size(kFamilies) - 1]; }

bool LexemeStretches::outlasts_plain(Node remainder, std::vector<Node>& states) {
  return explore(remainder, plain_characters(), kEndless, &states) == kEndless;
}

// Breadth first by bytes, each state once: the first layer with a state that some character of the family kills is the answer.
uint32_t LexemeStretches::explore(Node start, const Characters& family, uint32_t far, std::vector<Node>* states) {
  constexpr std::size_t kManyStates = 120, kManyNodes = 2'000;
  struct State {
    Node node;
    uint8_t more, first, last;  // bytes of a character still to come, and which may be next
  };
  std::vector<State> layer{{start, 0, 0, 0}}, next_layer;
  std::unordered_set<uint64_t> seen{uint64_t{static_cast<uint32_t>(start)} << 16};
  uint32_t depth = 0;
  // Not on the budget of whoever asks for a mask: what cannot be found out cheaply is walked.
  Lexicon::Budget budget(kManyNodes);
  try {
    for (; !layer.empty() && depth < far; ++depth) {
      next_layer.clear();
      for (const State& at : layer) {
        if (states && !at.more) states->push_back(at.node);
        const Lexicon::Transitions& t = lexicon_.transitions(at.node);
        auto look = [&](unsigned byte, uint32_t known, uint8_t more, uint8_t first, uint8_t last) {
          Node next = known != Lexicon::kUnknown ? Node{known} : lexicon_.step(at.node, static_cast<uint8_t>(byte));
          if (next == kNone) return false;
          if (!seen.insert(uint64_t{static_cast<uint32_t>(next)} << 16 | uint64_t{more} << 8 | first).second)
            return true;
          next_layer.push_back({next, more, first, last});
          return true;
        };
        bool alive;
        if (at.more) {
          alive = for_each_class(t, at.first, at.last, any, [&](unsigned byte, uint32_t known) {
            return look(byte, known, static_cast<uint8_t>(at.more - 1), 0x80, 0xBF);
          });
        } else {
          auto wanted = [&](unsigned byte) { return family.has(byte); };
          alive = for_each_class(t, 0, 0x7F, wanted,
                                 [&](unsigned byte, uint32_t known) { return look(byte, known, 0, 0, 0); });
          for (const Utf8Lead& lead : kUtf8Leads)
            alive =
                alive && for_each_class(t, lead.lead_first, lead.lead_last, wanted, [&](unsigned byte, uint32_t known) {
                  return look(byte, known, lead.more, lead.first, lead.last);
                });
        }
        if (!alive || seen.size() > kManyStates) return depth;
      }
      std::swap(layer, next_layer);
    }
  } catch (const LimitError&) { return depth; }
  return layer.empty() ? kEndless : far;
}

}  // namespace guiderail
