#include "core/parser/name_scopes.h"

#include <array>
#include <unordered_map>
#include <utility>

namespace guiderail {

namespace {
constexpr std::size_t kMaxRemainders = 400;
}

// Remainders from which no circle is reached are taken away from the end; what is then left is infinite.
bool endless_everywhere(Lexicon& lexicon, Node name) {
  if (lexicon.endless_before_last_byte(name)) return true;
  std::vector<Node> met{name};
  std::vector<std::vector<std::size_t>> before(1);  // who leads to each
  std::vector<std::size_t> ways(1);                 // how many remainders each leads to
  std::unordered_map<uint32_t, std::size_t> numbers{{static_cast<uint32_t>(name), 0}};
  for (std::size_t i = 0; i < met.size(); ++i) {
    if (met.size() > kMaxRemainders) return false;
    const Lexicon::Transitions& t = lexicon.transitions(met[i]);
    std::array<bool, 256> tried{};
    lexicon.first_bound(met[i]).for_each([&](uint8_t byte) {
      if (std::exchange(tried[t.classes[byte]], true)) return;
      Node next = lexicon.step(met[i], byte);
      if (next == kNone || !lexicon.alive(next)) return;
      auto [it, fresh] = numbers.try_emplace(static_cast<uint32_t>(next), met.size());
      if (fresh) {
        met.push_back(next);
        before.emplace_back();
        ways.push_back(0);
      }
      before[it->second].push_back(i);
      ++ways[i];
    });
  }
  std::vector<std::size_t> ended;
  for (std::size_t i = 0; i < met.size(); ++i)
    if (ways[i] == 0) ended.push_back(i);
  for (std::size_t k = 0; k < ended.size(); ++k) {
    std::size_t i = ended[k];
    // A whole name has nothing behind it.
    if (!lexicon.nullable(met[i]) || !lexicon.first_bound(met[i]).empty()) return false;
    for (std::size_t b : before[i])
      if (--ways[b] == 0) ended.push_back(b);
  }
  return true;
}

}  // namespace guiderail
