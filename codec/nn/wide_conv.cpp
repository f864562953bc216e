// A convolution of width 7 by blocks: wide_conv.py says why and with which numbers.
// 18 samples of a block become 25 products of sums over channels, these become 12 samples. A few blocks at a time stay
// in cache through all three steps. Samples of one time lie side by side.
#include <algorithm>
#include <cstdint>
#include <cstring>

namespace {

constexpr int64_t WIDTH = 7, IN = 18, OUT = IN - WIDTH + 1, PRODUCTS = 25;  // as in wide_conv.py

// A tile of ROWS x VECTORS registers of sums: as many as leave a few for what is multiplied.
#if defined(__AVX512F__)
constexpr int64_t LANES = 16, ROWS = 8, VECTORS = 3;
#elif defined(__AVX__)
constexpr int64_t LANES = 8, ROWS = 6, VECTORS = 2;
#else
constexpr int64_t LANES = 4, ROWS = 8, VECTORS = 3;
#endif
constexpr int64_t PANEL = LANES * VECTORS;  // channels of output at a time; divides 48
constexpr int64_t TILE = 4 * ROWS;          // blocks at a time
constexpr int64_t GROUP = 48;               // channels at a time of a block: all of its numbers stay in L1

typedef float Lanes __attribute__((vector_size(4 * LANES), aligned(4), may_alias));

// to[channel] = start + the sum of weights[k] * rows[k][channel], of GROUP channels
template <int64_t COUNT>
inline void combine(const float* weights, const float* rows, const float* start, float* to) {
  for (int64_t c = 0; c < GROUP; c += LANES) {
    Lanes sum = {};
    if (start) sum = *(const Lanes*)(start + c);
#pragma GCC unroll 32
    for (int64_t k = 0; k < COUNT; ++k) sum += weights[k] * *(const Lanes*)(rows + k * GROUP + c);
    *(Lanes*)(to + c) = sum;
  }
}

// ROWS rows of `in` [., channels] times a panel of weights [channels, PANEL], into ROWS rows of `to` [., channels]
inline void multiply(const float* in, const float* panel, float* to, int64_t channels) {
  Lanes sums[ROWS][VECTORS] = {};
  for (int64_t k = 0; k < channels; ++k) {
    Lanes weights[VECTORS];
#pragma GCC unroll 4
    for (int64_t v = 0; v < VECTORS; ++v) weights[v] = *(const Lanes*)(panel + k * PANEL + v * LANES);
#pragma GCC unroll 8
    for (int64_t i = 0; i < ROWS; ++i)
#pragma GCC unroll 4
      for (int64_t v = 0; v < VECTORS; ++v) sums[i][v] += in[i * channels + k] * weights[v];
  }
#pragma GCC unroll 8
  for (int64_t i = 0; i < ROWS; ++i)
#pragma GCC unroll 4
    for (int64_t v = 0; v < VECTORS; ++v) *(Lanes*)(to + i * channels + v * LANES) = sums[i][v];
}

// All blocks, each (clip, phase, place), the last counting fastest: a dilated convolution is a plain one of every
// `apart`-th sample, once from each of the first `apart` samples.
struct Blocks {
  int64_t batch, channels, length, apart, per_phase;

  Blocks(int64_t batch, int64_t channels, int64_t length, int64_t apart)
      : batch(batch), channels(channels), length(length), apart(apart) {
    per_phase = ((length + apart - 1) / apart + OUT - 1) / OUT;
  }
  int64_t count() const { return batch * apart * per_phase; }
  int64_t clip(int64_t block) const { return block / (apart * per_phase) * length * channels; }
  int64_t first(int64_t block) const {  // time of its first sample of output
    return block / per_phase % apart + block % per_phase * OUT * apart;
  }
};

// The samples that a block sees, of all channels -> PRODUCTS rows, each `stride` after the one before.
void spread(const float* x, const Blocks& blocks, int64_t block, const float* matrix, float* to, int64_t stride) {
  const float* clip = x + blocks.clip(block);
  alignas(64) float seen[IN * GROUP];
  for (int64_t c = 0; c < blocks.channels; c += GROUP) {
    for (int64_t k = 0; k < IN; ++k) {
      const int64_t t = blocks.first(block) + (k - WIDTH / 2) * blocks.apart;
      if (t < 0 || t >= blocks.length)
        std::memset(seen + k * GROUP, 0, sizeof(float) * GROUP);
      else
        std::memcpy(seen + k * GROUP, clip + t * blocks.channels + c, sizeof(float) * GROUP);
    }
    for (int64_t p = 0; p < PRODUCTS; ++p) combine<IN>(matrix + p * IN, seen, nullptr, to + p * stride + c);
  }
}

// PRODUCTS rows, each `stride` after the one before -> a block's samples of output, as far as the clip goes.
void gather(const float* from, int64_t stride, const Blocks& blocks, int64_t block, const float* matrix,
            const float* bias, float* y) {
  float* clip = y + blocks.clip(block);
  alignas(64) float products[PRODUCTS * GROUP];
  for (int64_t c = 0; c < blocks.channels; c += GROUP) {
    for (int64_t p = 0; p < PRODUCTS; ++p)
      std::memcpy(products + p * GROUP, from + p * stride + c, sizeof(float) * GROUP);
    for (int64_t k = 0; k < OUT; ++k) {
      const int64_t t = blocks.first(block) + k * blocks.apart;
      if (t >= blocks.length) break;
      combine<PRODUCTS>(matrix + k * PRODUCTS, products, bias + c, clip + t * blocks.channels + c);
    }
  }
}

}  // namespace

extern "C" {

// weights: [PRODUCTS, channels in, channels out] -> packed: [PRODUCTS, panels, channels in, PANEL]
void wide_conv_pack(const float* weights, float* packed, int64_t channels) {
  for (int64_t p = 0; p < PRODUCTS; ++p)
    for (int64_t panel = 0; panel < channels; panel += PANEL)
      for (int64_t k = 0; k < channels; ++k, packed += PANEL)
        std::memcpy(packed, weights + (p * channels + k) * channels + panel, sizeof(float) * PANEL);
}

// Floats that each thread needs for itself.
int64_t wide_conv_scratch(int64_t channels) { return 2 * PRODUCTS * TILE * channels; }

// x, y: [batch, length, channels], contiguous, channels a multiple of 48. before: [PRODUCTS, IN]; packed: of
// wide_conv_pack; after: [OUT, PRODUCTS]; bias: [channels]; scratch: of all threads.
void wide_conv(const float* x, float* y, const float* before, const float* packed, const float* after,
               const float* bias, float* scratch, int64_t batch, int64_t channels, int64_t length, int64_t apart,
               int64_t threads) {
  const Blocks blocks(batch, channels, length, apart);
  const int64_t stride = TILE * channels;
#pragma omp parallel for num_threads(threads)
  for (int64_t thread = 0; thread < threads; ++thread) {
    float* in = scratch + thread * wide_conv_scratch(channels);
    float* out = in + PRODUCTS * stride;
    for (int64_t first = thread * TILE; first < blocks.count(); first += threads * TILE) {
      const int64_t count = std::min(TILE, blocks.count() - first), rows = (count + ROWS - 1) / ROWS * ROWS;
      for (int64_t i = 0; i < count; ++i) spread(x, blocks, first + i, before, in + i * channels, stride);
      for (int64_t p = 0; p < PRODUCTS; ++p) {
        // whole tiles are multiplied: what is too much of the last is zero, and read by nobody
        std::memset(in + p * stride + count * channels, 0, sizeof(float) * (rows - count) * channels);
        const float* panel = packed + p * channels * channels;
        for (int64_t c = 0; c < channels; c += PANEL, panel += PANEL * channels)
          for (int64_t i = 0; i < rows; i += ROWS)
            multiply(in + p * stride + i * channels, panel, out + p * stride + i * channels + c, channels);
      }
      for (int64_t i = 0; i < count; ++i) gather(out + i * channels, stride, blocks, first + i, after, bias, y);
    }
  }
}
}
