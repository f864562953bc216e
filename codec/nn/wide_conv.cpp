// A convolution of width 7 by blocks: wide_conv.py says why and with which numbers.
// 18 samples of a block become 25 products of sums over channels, these become 12 samples. A few blocks at a time stay
// in cache through all three steps. Samples of one time lie side by side.
#include <algorithm>
#include <cstdint>
#include <cstring>

#include "multiply.h"
#include "pieces.h"

namespace {

constexpr int64_t WIDTH = 7, IN = 18, OUT = IN - WIDTH + 1, PRODUCTS = 25;  // as in wide_conv.py
constexpr int64_t TILE = 4 * ROWS;  // blocks at a time

// All blocks, each (clip, place, phase), the last counting fastest: a dilated convolution is a plain one of every
// `apart`-th sample, once from each of the first `apart` samples. So neighbours in count are neighbours in memory.
struct Blocks {
  int64_t batch, channels, length, apart, per_clip;

  Blocks(int64_t batch, int64_t channels, int64_t length, int64_t apart)
      : batch(batch), channels(channels), length(length), apart(apart) {
    per_clip = pieces(length, OUT * apart) * apart;
  }
  int64_t count() const { return batch * per_clip; }
  int64_t clip(int64_t block) const { return block / per_clip * length * channels; }
  int64_t first(int64_t block) const {  // time of its first sample of output
    return block % per_clip / apart * OUT * apart + block % apart;  // per_clip is a multiple of apart
  }
};

// The samples that a block sees, of all channels -> PRODUCTS rows, each `row` after the one before.
void spread(const float* x, const Blocks& blocks, int64_t block, const float* matrix, float* to, int64_t row) {
  const float* clip = x + blocks.clip(block);
  alignas(64) float seen[IN * PANEL];
  for (int64_t c = 0; c < blocks.channels; c += PANEL) {
    for (int64_t k = 0; k < IN; ++k) {
      const int64_t t = blocks.first(block) + (k - WIDTH / 2) * blocks.apart;
      if (t < 0 || t >= blocks.length)
        std::memset(seen + k * PANEL, 0, sizeof(float) * PANEL);
      else
        std::memcpy(seen + k * PANEL, clip + t * blocks.channels + c, sizeof(float) * PANEL);
    }
    for (int64_t p = 0; p < PRODUCTS; p += 5)
      multiply<5>(matrix + p * IN, IN, seen, PANEL, IN, nullptr, to + p * row + c, row);
  }
}

// PRODUCTS rows, each `row` after the one before -> a block's samples of output, as far as the clip goes.
void gather(const float* from, int64_t row, const Blocks& blocks, int64_t block, const float* matrix,
            const float* bias, float* y) {
  float* clip = y + blocks.clip(block);
  alignas(64) float products[PRODUCTS * PANEL], samples[OUT * PANEL];
  for (int64_t c = 0; c < blocks.channels; c += PANEL) {
    for (int64_t p = 0; p < PRODUCTS; ++p)
      std::memcpy(products + p * PANEL, from + p * row + c, sizeof(float) * PANEL);
    for (int64_t k = 0; k < OUT; k += 6)
      multiply<6>(matrix + k * PRODUCTS, PRODUCTS, products, PANEL, PRODUCTS, bias + c, samples + k * PANEL, PANEL);
    for (int64_t k = 0; k < OUT; ++k) {
      const int64_t t = blocks.first(block) + k * blocks.apart;
      if (t >= blocks.length) break;
      std::memcpy(clip + t * blocks.channels + c, samples + k * PANEL, sizeof(float) * PANEL);
    }
  }
}

// From one product of a tile to the next: no power of two, or all of a block's would lie in the same few cache lines.
int64_t product_stride(int64_t channels) { return TILE * channels + PANEL; }

}  // namespace

extern "C" {

// weights: [PRODUCTS, channels in, channels out] -> packed.
void wide_conv_pack(const float* weights, float* packed, int64_t rows, int64_t columns) {
  pack(weights, packed, PRODUCTS, rows, columns);
}

// Floats that each thread needs for itself.
int64_t wide_conv_scratch(int64_t channels) { return 2 * PRODUCTS * product_stride(channels); }

// x, y: [batch, length, channels], contiguous, channels a multiple of 48. before: [PRODUCTS, IN]; packed: of
// wide_conv_pack; after: [OUT, PRODUCTS]; bias: [channels]; scratch: of all threads.
void wide_conv(const float* x, float* y, const float* before, const float* packed, const float* after,
               const float* bias, float* scratch, int64_t batch, int64_t channels, int64_t length, int64_t apart,
               int64_t threads) {
  const Blocks blocks(batch, channels, length, apart);
  const int64_t stride = product_stride(channels);
  const int64_t share = pieces(blocks.count(), threads * ROWS) * ROWS;  // of a thread
#pragma omp parallel for num_threads(threads)
  for (int64_t thread = 0; thread < threads; ++thread) {
    float* in = scratch + thread * wide_conv_scratch(channels);
    float* out = in + PRODUCTS * stride;
    const int64_t end = std::min((thread + 1) * share, blocks.count());
    for (int64_t first = thread * share; first < end; first += TILE) {
      const int64_t count = std::min(TILE, end - first), rows = up_to(count, ROWS);
      for (int64_t i = 0; i < count; ++i) spread(x, blocks, first + i, before, in + i * channels, stride);
      for (int64_t p = 0; p < PRODUCTS; ++p) {
        // whole tiles are multiplied: what is too much of the last is zero, and read by nobody
        std::memset(in + p * stride + count * channels, 0, sizeof(float) * (rows - count) * channels);
        const float* panel = packed + p * channels * channels;
        for (int64_t c = 0; c < channels; c += PANEL, panel += PANEL * channels)
          for (int64_t i = 0; i < rows; i += ROWS)
            multiply<ROWS>(in + p * stride + i * channels, channels, panel, PANEL, channels, nullptr,
                           out + p * stride + i * channels + c, channels);
      }
      for (int64_t i = 0; i < count; ++i) gather(out + i * channels, stride, blocks, first + i, after, bias, y);
    }
  }
}
}
