// Anti-aliased SnakeBeta over whole batches: snake.h, on every core.
#include <algorithm>
#include <cstdint>
#include <cstring>

#include "pieces.h"
#include "snake.h"

namespace {

constexpr int64_t SPAN = 512;  // times of one group of channels that a thread takes at once

// All jobs, each (clip, span, group of channels), the last counting fastest.
template <typename T>
void run(const T* x, T* y, const float* alpha, const float* inverse_beta, const float* taps, const int64_t* valid,
         int64_t batch, int64_t channels, int64_t length, int64_t threads) {
  const Filters filters(taps);
  const int64_t groups = pieces(channels, GROUP), spans = pieces(length, SPAN);
#pragma omp parallel for num_threads(threads)
  for (int64_t job = 0; job < batch * spans * groups; ++job) {
    const int64_t clip = job / (spans * groups), from = job / groups % spans * SPAN, c = job % groups * GROUP;
    const int64_t end = std::min(from + SPAN, length), to = std::clamp(valid[clip], from, end);
    const int64_t width = std::min(GROUP, channels - c), start = clip * length * channels + c;
    if (from < to)
      span(x + start, y + start + from * channels, alpha + c, inverse_beta + c, filters, channels, channels, width,
           valid[clip], from, to);
    for (int64_t t = to; t < end; ++t) std::memset(y + start + t * channels, 0, width * sizeof(T));
  }
}

}  // namespace

extern "C" {

// x and y: [batch, length, channels], contiguous. valid: samples of each clip, 1 to length; alpha, inverse_beta:
// [channels], linear; taps: the 12 of the filter.
void snake_float32(const float* x, float* y, const float* alpha, const float* inverse_beta, const float* taps,
                   const int64_t* valid, int64_t batch, int64_t channels, int64_t length, int64_t threads) {
  run(x, y, alpha, inverse_beta, taps, valid, batch, channels, length, threads);
}

void snake_bfloat16(const uint16_t* x, uint16_t* y, const float* alpha, const float* inverse_beta, const float* taps,
                    const int64_t* valid, int64_t batch, int64_t channels, int64_t length, int64_t threads) {
  run(x, y, alpha, inverse_beta, taps, valid, batch, channels, length, threads);
}
}
