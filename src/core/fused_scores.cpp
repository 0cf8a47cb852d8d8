#include "core/fused_scores.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <limits>

// Everything below is written as loops of fixed length over small arrays, which compilers turn into vector code. On
// x86-64 the same source is compiled for three instruction sets and one is chosen when the program runs; elsewhere
// (NEON is part of every arm64) the portable build is the vector build.
#if defined(__x86_64__) && defined(__GNUC__)
#define GUIDERAIL_X86_DISPATCH 1
#define GUIDERAIL_INLINE inline __attribute__((always_inline))
#elif defined(__GNUC__)
#define GUIDERAIL_INLINE inline __attribute__((always_inline))
#else
#define GUIDERAIL_INLINE inline
#endif

namespace guiderail {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr std::size_t kLanes = 16;   // independent running results: what one vector register holds at most
constexpr std::size_t kBlock = 256;  // tokens combined at a time; their scores stay in the first cache

using Lanes = std::array<float, kLanes>;
using Block = std::array<float, kBlock>;

// e^x for x <= 0, to about two units in the last place; 0 below -87. x = n log 2 + r, e^r by a polynomial that
// interpolates it at Chebyshev's points of [-log 2 / 2, log 2 / 2], and 2^n put together from its exponent.
GUIDERAIL_INLINE float exp_of_nonpositive(float x) {
  constexpr float kLowest = -87.0f;
  constexpr float kRounder = 12582912.0f;  // 1.5 * 2^23: adding it leaves the nearest integer in the lowest bits
  const float clamped = x < kLowest ? kLowest : x;
  const float rounded = clamped * 1.44269504f + kRounder;
  const float n = rounded - kRounder;
  float r = clamped - n * 0.693359375f;  // log 2 in two parts: the first has few bits, so n times it is exact
  r -= n * -2.12194440e-4f;
  float y = 0.001394110847f;
  y = y * r + 0.008375126398f;
  y = y * r + 0.04166635290f;
  y = y * r + 0.1666641551f;
  y = y * r + 0.5f;
  y = y * r + 1.0f;
  y = y * r + 1.0f;
  const uint32_t exponent = (std::bit_cast<uint32_t>(rounded) + 127u) << 23;  // the rounder's own bits shift out
  return x < kLowest ? 0.0f : y * std::bit_cast<float>(exponent);
}

GUIDERAIL_INLINE float larger(float a, float b) { return a > b ? a : b; }

GUIDERAIL_INLINE float maximum(const Lanes& lanes) {
  float top = lanes[0];
  for (std::size_t i = 1; i < kLanes; ++i) top = lanes[i] > top ? lanes[i] : top;
  return top;
}

GUIDERAIL_INLINE float minimum(const Lanes& lanes) {
  float least = lanes[0];
  for (std::size_t i = 1; i < kLanes; ++i) least = lanes[i] < least ? lanes[i] : least;
  return least;
}

GUIDERAIL_INLINE float sum(const Lanes& lanes) {
  float total = 0;
  for (std::size_t i = 0; i < kLanes; ++i) total += lanes[i];
  return total;
}

struct Extremes {
  float top = kBan;         // kBan: no finite score
  float least = kInfinity;  // of finite scores
  bool has_bans = false;
};

GUIDERAIL_INLINE Extremes extremes(const float* scores, std::size_t vocab) {
  Lanes top, least, banned{};
  top.fill(kBan);
  least.fill(kInfinity);
  std::size_t at = 0;
  for (; at + kLanes <= vocab; at += kLanes) {
    for (std::size_t i = 0; i < kLanes; ++i) {
      const float x = scores[at + i];
      const bool finite = x > kBan;  // false for nan
      const float low = finite ? x : kInfinity;
      top[i] = x > top[i] ? x : top[i];
      least[i] = low < least[i] ? low : least[i];
      banned[i] = finite ? banned[i] : 1.0f;
    }
  }
  Extremes found{maximum(top), minimum(least), maximum(banned) > 0};
  for (; at < vocab; ++at) {
    const float x = scores[at];
    if (!(x > kBan)) {
      found.has_bans = true;
      continue;
    }
    found.top = std::max(found.top, x);
    found.least = std::min(found.least, x);
  }
  found.top = std::min(found.top, kWinner);
  found.least = std::min(found.least, kWinner);
  return found;
}

// `bit` ? a : b, without a branch: masks are as good as random, and a mispredicted branch costs more than a vector.
GUIDERAIL_INLINE float chosen(uint32_t bit, float a, float b) {
  const uint32_t pick = 0u - bit;
  return std::bit_cast<float>((std::bit_cast<uint32_t>(a) & pick) | (std::bit_cast<uint32_t>(b) & ~pick));
}

// Bits of up to 32 tokens from `at`, which is a multiple of 32; tokens beyond the vocabulary or the mask are 0.
GUIDERAIL_INLINE uint32_t allowed_bits(const GuidedRow& row, std::size_t at) {
  uint32_t bits = ~0u;
  if (row.mask) bits = at / 32 < row.mask_words ? row.mask[at / 32] : 0u;
  const std::size_t left = row.vocab - at;
  return left >= 32 ? bits : bits & ((1u << left) - 1u);
}

// The primary stream's best allowed score; kBan if there is none.
GUIDERAIL_INLINE float best_allowed(const GuidedRow& row) {
  const float* scores = row.streams[0];
  Lanes top;
  top.fill(kBan);
  for (std::size_t at = 0; at < row.vocab; at += 32) {
    const uint32_t bits = allowed_bits(row, at);
    if (!bits) continue;
    if (row.vocab - at >= 32) {
      for (std::size_t half = 0; half < 32; half += kLanes) {
        for (std::size_t i = 0; i < kLanes; ++i) {
          const float x = scores[at + half + i];
          const float own = chosen((bits >> (half + i)) & 1u, x, kBan);
          top[i] = own > top[i] ? own : top[i];
        }
      }
    } else {
      for (std::size_t i = 0; at + i < row.vocab; ++i)
        if ((bits >> i) & 1u && scores[at + i] > top[0]) top[0] = scores[at + i];
    }
  }
  return std::min(maximum(top), kWinner);
}

struct Stream {
  const float* scores;
  float weight;
  float top;
  float stand_in;  // for bans, relative to the top
  bool has_bans;
};

// block = sum of the streams over kBlock tokens, each relative to its top. The last block of a row is copied into place
// by the caller, so that there is always a whole one to read.
GUIDERAIL_INLINE void combine(std::span<const Stream> streams, std::size_t at, Block& block) {
  for (std::size_t k = 0; k < streams.size(); ++k) {
    const Stream& s = streams[k];
    const float* scores = s.scores + at;
    const float weight = s.weight, top = s.top, stand_in = s.stand_in;
    if (s.has_bans || !(top < kWinner)) {
      for (std::size_t i = 0; i < kBlock; ++i) {
        const float x = scores[i];
        const float clamped = x < kWinner ? x : kWinner;
        const float value = weight * (x > kBan ? clamped - top : stand_in);
        block[i] = k ? block[i] + value : value;
      }
    } else if (k) {
      for (std::size_t i = 0; i < kBlock; ++i) block[i] += weight * (scores[i] - top);
    } else {
      for (std::size_t i = 0; i < kBlock; ++i) block[i] = weight * (scores[i] - top);
    }
  }
}

// A running log-sum-exp.
struct Normaliser {
  float top = -kInfinity;
  double total = 0;  // of exp(x - top)

  GUIDERAIL_INLINE void add(const Block& block) {
    Block folded;
    for (std::size_t i = 0; i < kBlock / 2; ++i) folded[i] = larger(block[i], block[i + kBlock / 2]);
    for (std::size_t half = kBlock / 4; half >= kLanes; half /= 2)
      for (std::size_t i = 0; i < half; ++i) folded[i] = larger(folded[i], folded[i + half]);
    Lanes tops;
    std::copy_n(folded.begin(), kLanes, tops.begin());
    const float highest = maximum(tops);
    if (!(highest > -kInfinity)) return;
    if (highest > top) {
      total *= std::exp(static_cast<double>(top) - static_cast<double>(highest));
      top = highest;
    }
    for (std::size_t i = 0; i < kBlock; ++i) folded[i] = exp_of_nonpositive(block[i] - top);
    for (std::size_t half = kBlock / 2; half >= kLanes; half /= 2)
      for (std::size_t i = 0; i < half; ++i) folded[i] += folded[i + half];
    Lanes sums;
    std::copy_n(folded.begin(), kLanes, sums.begin());
    total += static_cast<double>(sum(sums));
  }

  float value() const { return top + static_cast<float>(std::log(total)); }
};

GUIDERAIL_INLINE void run(const GuidedRow& row, float* output) {
  std::array<Stream, kMostStreams> storage{};
  std::array<Block, kMostStreams> tails;  // the last, incomplete block of each stream
  const std::size_t count = row.streams.size(), whole = row.vocab / kBlock * kBlock, rest = row.vocab - whole;
  const std::span<Stream> streams(storage.data(), count);
  float best = kBan;  // of the primary stream
  for (std::size_t k = 0; k < count; ++k) {
    const Extremes found = extremes(row.streams[k], row.vocab);
    if (k == 0) best = found.top;
    const bool says_something = found.top > kBan;
    // A stream without a finite score says nothing: every token gets the same.
    streams[k] = {row.streams[k], row.weights[k], says_something ? found.top : 0.0f,
                  says_something ? found.least - found.top : 0.0f, found.has_bans};
  }
  float threshold = kBan;  // a score at this or below is out
  bool inclusive = false;  // a score at it is in
  if (row.log_plausibility > -kInfinity) {
    if (row.mask) best = best_allowed(row);
    if (best > kBan && best + row.log_plausibility > kBan) threshold = best + row.log_plausibility, inclusive = true;
  }
  const bool filters = streams[0].has_bans || inclusive;
  Normaliser normaliser;
  Block block;
  for (std::size_t at = 0; at < row.vocab; at += kBlock) {
    const std::size_t size = std::min(kBlock, row.vocab - at);
    std::array<uint32_t, kBlock / 32> bits{};
    uint32_t any = 0, all = ~0u;
    for (std::size_t word = 0; word < kBlock / 32 && at + 32 * word < row.vocab; ++word) {
      bits[word] = allowed_bits(row, at + 32 * word);
      any |= bits[word];
    }
    for (const uint32_t word : bits) all &= word;
    if (!any) {
      std::fill_n(output + at, size, -kInfinity);
      continue;
    }
    std::size_t from = at;
    if (size < kBlock) {
      for (std::size_t k = 0; k < count; ++k) {
        std::copy_n(row.streams[k] + whole, rest, tails[k].begin());
        std::fill(tails[k].begin() + static_cast<std::ptrdiff_t>(rest), tails[k].end(), 0.0f);
        streams[k].scores = tails[k].data();
      }
      from = 0;
    }
    combine(streams, from, block);
    if (row.temperature != 1.0f)
      for (std::size_t i = 0; i < kBlock; ++i) block[i] /= row.temperature;
    // Weights and temperatures may be anything: what they made infinite, or no number at all, is cut back.
    for (std::size_t i = 0; i < kBlock; ++i) {
      const float low = block[i] < kWinner ? block[i] : kWinner;
      block[i] = block[i] > kBan ? low : -kInfinity;
    }
    if (filters) {
      const float* primary = streams[0].scores + from;
      if (inclusive) {
        for (std::size_t i = 0; i < kBlock; ++i) block[i] = primary[i] >= threshold ? block[i] : -kInfinity;
      } else {
        for (std::size_t i = 0; i < kBlock; ++i) block[i] = primary[i] > threshold ? block[i] : -kInfinity;
      }
    }
    if (all != ~0u) {
      for (std::size_t word = 0; word < kBlock / 32; ++word) {
        const uint32_t own = bits[word];
        for (std::size_t i = 0; i < 32; ++i) {
          const float x = block[32 * word + i];
          block[32 * word + i] = chosen((own >> i) & 1u, x, -kInfinity);
        }
      }
    }
    normaliser.add(block);
    std::copy_n(block.begin(), size, output + at);
  }
  if (normaliser.total <= 0) return;  // everything is -inf
  const float shift = normaliser.value();
  for (std::size_t at = 0; at < row.vocab; ++at) output[at] -= shift;
}

#if GUIDERAIL_X86_DISPATCH
__attribute__((target("avx512f,avx512vl,avx512bw,avx512dq,fma"))) void run_avx512(const GuidedRow& row, float* output) {
  run(row, output);
}
__attribute__((target("avx2,fma"))) void run_avx2(const GuidedRow& row, float* output) { run(row, output); }
#endif
void run_portable(const GuidedRow& row, float* output) { run(row, output); }

struct Builds {
  std::array<const char*, 3> names{};
  std::array<void (*)(const GuidedRow&, float*), 3> run{};
  std::size_t count = 0;

  Builds() {
#if GUIDERAIL_X86_DISPATCH
    const bool fma = __builtin_cpu_supports("fma");
    if (fma && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
        __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq"))
      add("avx512", run_avx512);
    if (fma && __builtin_cpu_supports("avx2")) add("avx2", run_avx2);
#endif
    add("portable", run_portable);
  }

 private:
  void add(const char* name, void (*function)(const GuidedRow&, float*)) {
    names[count] = name;
    run[count++] = function;
  }
};

const Builds& builds() {
  static const Builds found;
  return found;
}

}  // namespace

std::span<const char* const> fused_scores_builds() { return {builds().names.data(), builds().count}; }

void guided_log_probs(const GuidedRow& row, float* output, std::size_t build) { builds().run[build](row, output); }

}  // namespace guiderail
