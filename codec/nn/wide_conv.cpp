// An anti-aliased SnakeBeta and the convolution of width 7 that follows it, by blocks: wide_conv.py says why and with
// which numbers. 18 samples of a block become 25 products of sums over channels, these become 12 samples. A few blocks at
// a time stay in cache through all steps. Samples of one time lie side by side.
#include <algorithm>
#include <cstdint>
#include <cstring>

#include "multiply.h"
#include "pieces.h"
#include "snake.h"

namespace {

constexpr int64_t WIDTH = 7, IN = 18, OUT = IN - WIDTH + 1, PRODUCTS = 25;  // as in wide_conv.py
constexpr int64_t BLOCKS = 4 * ROWS;  // at a time
constexpr int64_t TURNS = 8;          // of a thread, at most

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

// What the activation makes of a clip, as far as the next blocks see it; outside of the clip's own samples are zeros.
struct Bent {
  const float *x, *alpha, *inverse_beta;  // x: the clip
  const Filters& filters;
  int64_t channels, valid;
  float* samples;  // of times [from, to)
  int64_t from = 0, to = 0;

  const float* at(int64_t time) const { return samples + (time - from) * channels; }

  // Lets go of what lies before `start`, and goes on to `end`.
  void move(int64_t start, int64_t end) {
    const int64_t kept = std::max<int64_t>(0, to - start);
    if (kept > 0) std::memmove(samples, at(start), sizeof(float) * kept * channels);
    from = start;
    const int64_t first = start + kept, own = std::clamp<int64_t>(0, first, end), past = std::clamp(valid, own, end);
    std::memset(samples + (first - from) * channels, 0, sizeof(float) * (own - first) * channels);
    for (int64_t c = 0; c < channels && own < past; c += GROUP)
      span(x + c, samples + (own - from) * channels + c, alpha + c, inverse_beta + c, filters, channels,
           channels, std::min(GROUP, channels - c), valid, own, past);
    std::memset(samples + (past - from) * channels, 0, sizeof(float) * (end - past) * channels);
    to = end;
  }
};

// The samples that a block sees, of all channels, `apart` times from one to the next -> PRODUCTS rows, each `row` after
// the one before.
void spread(const float* samples, int64_t channels, int64_t apart, const float* matrix, float* to, int64_t row) {
  for (int64_t c = 0; c < channels; c += PANEL)
    for (int64_t p = 0; p < PRODUCTS; p += 5)
      multiply<5>(matrix + p * IN, IN, samples + c, apart * channels, IN, nullptr, 0, to + p * row + c, row);
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
      multiply<6>(matrix + k * PRODUCTS, PRODUCTS, products, PANEL, PRODUCTS, bias + c, 0, samples + k * PANEL,
                  PANEL);
    for (int64_t k = 0; k < OUT; ++k) {
      const int64_t t = blocks.first(block) + k * blocks.apart;
      if (t >= blocks.length) break;
      std::memcpy(clip + t * blocks.channels + c, samples + k * PANEL, sizeof(float) * PANEL);
    }
  }
}

// From one product of all blocks to the next: no power of two, or all of a block's would lie in a few cache lines.
int64_t product_stride(int64_t channels) { return BLOCKS * channels + PANEL; }

// Times that so many blocks see, at most.
int64_t seen(int64_t apart) { return (pieces(BLOCKS, apart) + 1) * OUT * apart + (WIDTH - 1) * apart; }

}  // namespace

extern "C" {

// weights: [PRODUCTS, channels in, channels out] -> packed.
void wide_conv_pack(const float* weights, float* packed, int64_t rows, int64_t columns) {
  pack(weights, packed, PRODUCTS, rows, columns);
}

// Floats that each thread needs for itself.
int64_t wide_conv_scratch(int64_t channels, int64_t apart) {
  return 2 * PRODUCTS * product_stride(channels) + seen(apart) * channels;
}

// x, y: [batch, length, channels], contiguous, channels a multiple of 48. alpha, inverse_beta, taps, valid: as of
// snake_float32. before: [PRODUCTS, IN]; packed: of wide_conv_pack; after: [OUT, PRODUCTS]; bias: [channels]; scratch: of
// all threads.
void wide_conv(const float* x, float* y, const float* alpha, const float* inverse_beta, const float* taps,
               const int64_t* valid, const float* before, const float* packed, const float* after, const float* bias,
               float* scratch, int64_t batch, int64_t channels, int64_t length, int64_t apart, int64_t threads) {
  const Filters filters(taps);
  const Blocks blocks(batch, channels, length, apart);
  const int64_t stride = product_stride(channels);
  // turns of a thread: not so many that the weights are read more often
  const int64_t each = std::clamp<int64_t>(blocks.count() / (threads * BLOCKS), 1, TURNS);
  const int64_t share = pieces(blocks.count(), each * threads * ROWS) * ROWS;  // of a turn
  Next next{0};
#pragma omp parallel for num_threads(threads)
  for (int64_t thread = 0; thread < threads; ++thread) {
    float* in = scratch + thread * wide_conv_scratch(channels, apart);
    float* out = in + PRODUCTS * stride;
    for (int64_t turn; (turn = next++) * share < blocks.count();) {
      Bent bent{nullptr, alpha, inverse_beta, filters, channels, 0, out + PRODUCTS * stride};
      const int64_t end = std::min((turn + 1) * share, blocks.count());
      for (int64_t first = turn * share, count; first < end; first += count) {
        count = std::min({BLOCKS, end - first, blocks.per_clip - first % blocks.per_clip});  // of one clip
        const int64_t start = blocks.first(first) - WIDTH / 2 * apart;
        if (const float* clip = x + blocks.clip(first); bent.x != clip) {
          bent.x = clip;
          bent.valid = valid[first / blocks.per_clip];
          bent.from = bent.to = start;
        }
        bent.move(start, blocks.first(first + count - 1) + (IN - 1 - WIDTH / 2) * apart + 1);
        for (int64_t i = 0; i < count; ++i)
          spread(bent.at(blocks.first(first + i) - WIDTH / 2 * apart), channels, apart, before, in + i * channels, stride);
        const int64_t rows = up_to(count, ROWS);
        for (int64_t p = 0; p < PRODUCTS; ++p) {
          // whole tiles are multiplied: what is too much of the last is zero, and read by nobody
          std::memset(in + p * stride + count * channels, 0, sizeof(float) * (rows - count) * channels);
          const float* panel = packed + p * channels * channels;
          for (int64_t c = 0; c < channels; c += PANEL, panel += PANEL * channels)
            for (int64_t i = 0; i < rows; i += ROWS)
              multiply<ROWS>(in + p * stride + i * channels, channels, panel, PANEL, channels, nullptr, 0,
                             out + p * stride + i * channels + c, channels);
        }
        for (int64_t i = 0; i < count; ++i) gather(out + i * channels, stride, blocks, first + i, after, bias, y);
      }
    }
  }
}
}
