// An anti-aliased SnakeBeta and the convolution that follows it, a few times at once: what lies between stays in cache.
#include <algorithm>
#include <cstdint>
#include <cstring>

#include "multiply.h"
#include "pieces.h"
#include "snake.h"

namespace {

// Times of output at once: of more, what lies between leaves the cache; for fewer, the weights are read too often.
constexpr int64_t SPAN = 8 * ROWS;

// Times of input that so many of output see.
int64_t seen_by(int64_t count, int64_t width, int64_t stride) { return (count - 1) * stride + width; }

}  // namespace

extern "C" {

// weights: [width x channels in, channels out] -> packed.
void snake_conv_pack(const float* weights, float* packed, int64_t rows, int64_t columns) {
  pack(weights, packed, 1, rows, columns);
}

// Floats that each thread needs for itself.
int64_t snake_conv_scratch(int64_t in, int64_t width, int64_t stride) {
  return seen_by(SPAN, width, stride) * in;
}

// x: [batch, length in, channels in]; added (or null) and y: [batch, length out, channels out]; contiguous, channels
// multiples of 48. valid, alpha, inverse_beta, taps: as of snake_float32; packed: of snake_conv_pack; bias: [channels
// out]; scratch: of all threads.
void snake_conv(const float* x, const float* added, float* y, const float* alpha, const float* inverse_beta,
                const float* taps, const int64_t* valid, const float* packed, const float* bias, float* scratch,
                int64_t batch, int64_t in, int64_t out, int64_t width, int64_t stride, int64_t padding,
                int64_t length_in, int64_t length_out, int64_t threads) {
  const Filters filters(taps);
  const int64_t depth = width * in;
  int64_t spans = pieces(length_out, SPAN);  // of a clip
  if (spans > threads) spans = up_to(spans, threads);  // the same number for each thread
  const int64_t most = up_to(pieces(length_out, spans), ROWS);  // times of a span
  Next next{0};
#pragma omp parallel for num_threads(threads)
  for (int64_t thread = 0; thread < threads; ++thread) {
    float* bent = scratch + thread * snake_conv_scratch(in, width, stride);
    for (int64_t job; (job = next++) < batch * spans;) {
      const int64_t clip = job / spans, first = job % spans * most, count = std::min(most, length_out - first);
      if (count <= 0) continue;  // the last may be left without any
      // what these times see: [start, end), of it [from, to) within the clip, and around that zeros
      const int64_t start = first * stride - padding, end = start + seen_by(most, width, stride);
      const int64_t from = std::max<int64_t>(start, 0), to = std::clamp(valid[clip], from, std::max(from, end));
      std::memset(bent, 0, sizeof(float) * (from - start) * in);
      for (int64_t c = 0; c < in && from < to; c += GROUP)
        span(x + clip * length_in * in + c, bent + (from - start) * in + c, alpha + c, inverse_beta + c, filters, in,
             in, std::min(GROUP, in - c), valid[clip], from, to);
      std::memset(bent + (to - start) * in, 0, sizeof(float) * (end - to) * in);
      const float* panel = packed;
      for (int64_t c = 0; c < out; c += PANEL, panel += PANEL * depth)
        for (int64_t t = 0; t < count; t += ROWS) {  // whole tiles: what is too much is not written
          alignas(64) float sums[ROWS * PANEL];
          multiply<ROWS>(bent + t * stride * in, stride * in, panel, PANEL, depth, bias + c, 0, sums, PANEL);
          for (int64_t i = 0; i < std::min(ROWS, count - t); ++i) {
            const int64_t at = (clip * length_out + first + t + i) * out + c;
            for (int64_t v = 0; v < PANEL; v += LANES) {
              Lanes sum = *(const Lanes*)(sums + i * PANEL + v);
              if (added) sum += *(const Lanes*)(added + at + v);
              *(Lanes*)(y + at + v) = sum;
            }
          }
        }
    }
  }
}
}
