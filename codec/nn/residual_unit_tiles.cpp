// A residual unit of bfloat16 by tiles (residual_unit.py): activation, dilated convolution, activation, convolution of
// width 1, and the unit's own input added, for some times at once, so that nothing between them leaves the cache.
#include <algorithm>
#include <cstdint>

#include "bent_tiles.h"
#include "pieces.h"

namespace {

constexpr int64_t SPAN = 1 << 17;  // numbers of input at once, about: a few times as much stays in a second-level cache
constexpr int64_t FEWEST = 320;    // times at once: of fewer, too many are computed twice

// Times at once.
int64_t times_of(int64_t depth) { return up_to(std::max(SPAN / depth, FEWEST), SIDE); }

// Numbers of what the first convolution sees, and of what it gives to the second activation.
int64_t first_size(int64_t depth, int64_t width, int64_t apart) {
  return (up_to(times_of(depth) + 2 * REACH, SIDE) + (width - 1) * apart) * depth;
}
int64_t second_size(int64_t depth) { return (times_of(depth) + 2 * REACH) * depth; }

}  // namespace

extern "C" {

// Floats that each thread needs for itself.
int64_t residual_unit_tiles_scratch(int64_t channels, int64_t width, int64_t apart) {
  const int64_t depth = up_to(channels, DEEP);
  return (first_size(depth, width, apart) + second_size(depth)) / 2;
}

#ifdef HAS_TILES

// x, y: [batch, length, channels], contiguous, channels a multiple of 16. valid: samples of each clip, 1 to length; taps:
// the 12 of the activations' filter; of each half: the activation's alpha and inverse_beta, the convolution's weight as
// tiles.py lays it out, and its bias. width, apart: taps of the first convolution, and samples from one to the next.
void residual_unit_tiles(const Half* x, Half* y, const int64_t* valid, const float* taps, const float* alpha1,
                         const float* inverse_beta1, const Half* packed1, const float* bias1, const float* alpha2,
                         const float* inverse_beta2, const Half* packed2, const float* bias2, float* scratch,
                         int64_t batch, int64_t channels, int64_t length, int64_t width, int64_t apart,
                         int64_t threads) {
  const Act act1{alpha1, inverse_beta1, Filters(taps)}, act2{alpha2, inverse_beta2, Filters(taps)};
  const int64_t depth = up_to(channels, DEEP), reach = width / 2 * apart;
  // of a clip; the same number for each thread
  const int64_t spans = std::min(up_to(pieces(length, times_of(depth)), threads), pieces(length, SIDE));
  const int64_t most = up_to(pieces(length, spans), SIDE);  // times of a span
  Next next{0};
#pragma omp parallel for num_threads(threads)
  for (int64_t thread = 0; thread < threads; ++thread) {
    const Tiles tiles;
    Half* bent = (Half*)(scratch + thread * residual_unit_tiles_scratch(channels, width, apart));
    Half* between = bent + first_size(depth, width, apart);
    for (int64_t job; (job = next++) < batch * spans;) {
      const int64_t clip = job / spans, first = job % spans * most, count = std::min(most, length - first);
      if (count <= 0) continue;  // the last may be left without any
      const Half* own = x + clip * length * channels;
      // what the second activation sees: [from, to) of the clip's own times
      const int64_t from = std::max<int64_t>(first - REACH, 0), to = std::min(first + count + REACH, valid[clip]);
      if (from < to) {
        const int64_t seen = up_to(to - from, SIDE) + 2 * reach;
        bend(own, channels, act1, valid[clip], from - reach, from - reach + seen, bent, depth);
        convolve(bent, depth, width, 1, apart, packed1, bias1, nullptr, between, channels, to - from);
      }
      bend(between - from * channels, channels, act2, valid[clip], first, first + up_to(count, SIDE), bent, depth);
      convolve(bent, depth, 1, 1, 1, packed2, bias2, own + first * channels, y + (clip * length + first) * channels,
               channels, count);
    }
  }
}

#endif
}
