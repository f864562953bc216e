// What an anti-aliased SnakeBeta makes of some times of a clip, rounded to bfloat16, and its products with a
// convolution's weights by tiles.
#pragma once
#include <algorithm>
#include <cstdint>
#include <cstring>

#include "pieces.h"
#include "snake.h"
#include "tiles.h"

#ifdef HAS_TILES
namespace {

struct Act {
  const float *alpha, *inverse_beta;
  Filters filters;
};

// Times [start, end) of a clip that ends at `valid`, outside of it zeros. x: as if its first time lay there, `channels` to
// the next. to: `depth` to the next, zeros in what is more than channels.
inline void bend(const Half* x, int64_t channels, const Act& act, int64_t valid, int64_t start, int64_t end, Half* to,
                 int64_t depth) {
  const int64_t from = std::clamp<int64_t>(0, start, end), past = std::clamp(valid, from, end);
  std::memset(to, 0, sizeof(Half) * (from - start) * depth);
  to += (from - start) * depth;
  for (int64_t c = 0; c < channels && from < past; c += GROUP)
    span(x + c, to + c, act.alpha + c, act.inverse_beta + c, act.filters, channels, depth, std::min(GROUP, channels - c),
         valid, from, past);
  for (int64_t t = from; t < past && channels < depth; ++t)
    std::memset(to + (t - from) * depth + channels, 0, sizeof(Half) * (depth - channels));
  std::memset(to + (past - from) * depth, 0, sizeof(Half) * (end - past) * depth);
}

// One block of `convolve`: sums of SIDE times and channels -> y, as far as `count` times and `lanes` channels go.
inline void settle(const float* sums, const float* bias, const Half* added, Half* y, int64_t out, int64_t count,
                   int64_t lanes) {
  for (int64_t i = 0; i < count; ++i)
    for (int64_t v = 0; v < lanes; v += 16) {
      __m512 sum = take(sums + i * SIDE + v) + take(bias + v);
      if (added) sum += take(added + i * out + v);
      put(sum, y + i * out + v);
    }
}

// `count` times of output: y [count, out] = sums over taps and depth + bias + added (or null). One time of output is
// `stride` times of `bent` after the one before, one tap `apart` after the one before. SIDE times are read at once.
inline void convolve(const Half* bent, int64_t depth, int64_t width, int64_t stride, int64_t apart, const Half* packed,
                     const float* bias, const Half* added, Half* y, int64_t out, int64_t count) {
  const int64_t blocks = pieces(count, SIDE), jobs = pieces(out, SIDE) * blocks;
  // a block is settled while the next is multiplied: what tiles store is not at hand at once
  alignas(64) float sums[2][SIDE * SIDE];
  for (int64_t job = 0; job <= jobs; ++job) {
    if (job < jobs) {
      const int64_t c = job / blocks, t = job % blocks * SIDE;
      multiply_tiles(count - t, bent + t * stride * depth, stride * depth, width, apart * depth, depth,
                     packed + c * width * depth * SIDE, sums[job % 2]);
    }
    if (job > 0) {
      const int64_t c = (job - 1) / blocks * SIDE, t = (job - 1) % blocks * SIDE, at = t * out + c;
      settle(sums[(job - 1) % 2], bias + c, added ? added + at : nullptr, y + at, out, std::min(SIDE, count - t),
             std::min(SIDE, out - c));
    }
  }
}

}  // namespace
#endif
