// One step of guided decoding for one row, in one pass over the vocabulary per read: combination of several streams of
// scores, plausibility, mask, temperature, log-softmax.
//
//     output = log-softmax( (sum_k weights[k] * (scores of stream k))  where allowed and plausible, -inf elsewhere )
//
// The streams' own log-softmaxes are never computed: each subtracts a constant from the row, and constants vanish in the
// last log-softmax. What is left to read beforehand is every stream's maximum (for range) and, where it bans something,
// its least finite score, which stands in for the bans. So there is one exponential per allowed token, not K + 1.
//
// Bans. A score at or below kBan, or nan, is a ban. Bans of the first stream, the primary one, stay; bans of another
// stream count as the least likely token it still allows.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace guiderail {

inline constexpr std::size_t kMostStreams = 16;

struct GuidedRow {
  std::span<const float* const> streams;  // one row of scores for each, the primary stream first; at most kMostStreams
  std::span<const float> weights;         // one for each stream
  std::size_t vocab;
  const uint32_t* mask;    // bit t % 32 of word t / 32 allows token t; null: everything is allowed
  std::size_t mask_words;  // tokens beyond the mask are not allowed
  float log_plausibility;  // keep scores of the primary stream within this of its best allowed one; -inf: keep all
  float temperature;       // > 0
};

inline constexpr float kBan = -1e20f;
// +inf, and what is as good as it: the winner, but finite, so that differences stay numbers.
inline constexpr float kWinner = 1e15f;

// The builds of this kernel that run on this machine, best first: "avx512", "avx2", "portable".
std::span<const char* const> fused_scores_builds();

// Writes vocab log-probabilities; -inf throughout if nothing is allowed and possible. Every build gives the same up to
// rounding; `build` is an index into fused_scores_builds().
void guided_log_probs(const GuidedRow& row, float* output, std::size_t build = 0);

}  // namespace guiderail
