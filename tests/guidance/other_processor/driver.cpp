// Runs the fused step of guided decoding on cases read from standard input, for a processor that has no Python here:
// compiled for it and run under an emulator by tests/guidance/test_other_processor.py.
//
// One case: five int32 (streams, rows, vocab, mask words, rows of the mask store), the plausibility's
// logarithm, then the float32 scores (streams, rows, vocab), weights (rows, streams) and temperatures (rows), the int32
// mask row of each row (-1: no mask) and the store (rows of the store, mask words). Answer: float32 (rows, vocab).
#include <array>
#include <cstdint>
#include <cstdio>
#include <span>
#include <vector>

#include "core/fused_scores.h"

namespace {

template <typename T>
std::vector<T> read(std::size_t count) {
  std::vector<T> values(count);
  if (std::fread(values.data(), sizeof(T), count, stdin) != count) std::fputs("the case is cut short\n", stderr);
  return values;
}

}  // namespace

int main() {
  std::array<int32_t, 5> sizes{};
  while (std::fread(sizes.data(), sizeof(int32_t), sizes.size(), stdin) == sizes.size()) {
    std::array<std::size_t, 5> n{};
    for (std::size_t i = 0; i < n.size(); ++i) n[i] = static_cast<std::size_t>(sizes[i]);
    const auto [count, rows, vocab, words, stored] = n;
    const float log_plausibility = read<float>(1)[0];
    const auto scores = read<float>(count * rows * vocab);
    const auto weights = read<float>(rows * count), temperatures = read<float>(rows);
    const auto mask_rows = read<int32_t>(rows);
    const auto store = read<uint32_t>(stored * words);
    std::vector<float> output(rows * vocab);
    std::vector<const float*> streams(count);
    for (std::size_t row = 0; row < rows; ++row) {
      for (std::size_t k = 0; k < count; ++k) streams[k] = scores.data() + (k * rows + row) * vocab;
      const uint32_t* mask =
          mask_rows[row] < 0 ? nullptr : store.data() + static_cast<std::size_t>(mask_rows[row]) * words;
      guiderail::guided_log_probs({.streams = streams,
                                   .weights = std::span(weights).subspan(row * count, count),
                                   .vocab = vocab,
                                   .mask = mask,
                                   .mask_words = words,
                                   .log_plausibility = log_plausibility,
                                   .temperature = temperatures[row]},
                                  output.data() + row * vocab);
    }
    std::fwrite(output.data(), sizeof(float), output.size(), stdout);
  }
  return 0;
}
