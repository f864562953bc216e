// An anti-aliased SnakeBeta and the convolution of bfloat16 that follows it, many times at once, by tiles: what lies
// between stays in cache. Sums are float32; what comes in and goes out is bfloat16.
#include <algorithm>
#include <cstdint>

#include "bent_tiles.h"
#include "pieces.h"

namespace {

constexpr int64_t SPAN = 1 << 18;  // numbers of input at once, about: half of a second-level cache

// Times of input that so many of output see.
int64_t seen_by(int64_t count, int64_t width, int64_t stride) { return (count - 1) * stride + width; }

// Times of output at once.
int64_t times_of(int64_t depth, int64_t stride) { return std::max<int64_t>(1, SPAN / (depth * stride) / SIDE) * SIDE; }

}  // namespace

extern "C" {

// Floats that each thread needs for itself.
int64_t snake_conv_tiles_scratch(int64_t in, int64_t width, int64_t stride) {
  const int64_t depth = up_to(in, DEEP);
  return seen_by(times_of(depth, stride), width, stride) * depth / 2;
}

#ifdef HAS_TILES

// x: [batch, length in, channels in]; y: [batch, length out, channels out]; contiguous, channels multiples of 16. valid,
// alpha, inverse_beta, taps: as of snake_bfloat16; packed: the weight as tiles.py lays it out; bias: [channels out];
// scratch: of all threads.
void snake_conv_tiles(const Half* x, Half* y, const float* alpha, const float* inverse_beta, const float* taps,
                      const int64_t* valid, const Half* packed, const float* bias, float* scratch, int64_t batch,
                      int64_t in, int64_t out, int64_t width, int64_t stride, int64_t padding, int64_t length_in,
                      int64_t length_out, int64_t threads) {
  const Act act{alpha, inverse_beta, Filters(taps)};
  const int64_t depth = up_to(in, DEEP);
  // of a clip; the same number for each thread
  const int64_t spans = std::min(up_to(pieces(length_out, times_of(depth, stride)), threads), pieces(length_out, SIDE));
  const int64_t most = up_to(pieces(length_out, spans), SIDE);  // times of a span
  Next next{0};
#pragma omp parallel for num_threads(threads)
  for (int64_t thread = 0; thread < threads; ++thread) {
    const Tiles tiles;
    Half* bent = (Half*)(scratch + thread * snake_conv_tiles_scratch(in, width, stride));
    for (int64_t job; (job = next++) < batch * spans;) {
      const int64_t clip = job / spans, first = job % spans * most, count = std::min(most, length_out - first);
      if (count <= 0) continue;  // the last may be left without any
      const int64_t start = first * stride - padding, end = start + seen_by(up_to(count, SIDE), width, stride);
      bend(x + clip * length_in * in, in, act, valid[clip], start, end, bent, depth);
      convolve(bent, depth, width, stride, 1, packed, bias, nullptr, y + (clip * length_out + first) * out, out, count);
    }
  }
}

#endif
}
