// A linear layer of bfloat16 weights and what follows it (linear.py), by tiles: x is rounded as it is laid out for them,
// sums and all that follows are float32. A panel of weights stays in cache and meets many rows; the next comes in
// meanwhile.
#include <algorithm>
#include <cstdint>
#include <cstring>

#include "exponential.h"
#include "pieces.h"
#include "tiles.h"

namespace {

constexpr int64_t CHUNK = 16;    // blocks of SIDE rows that meet a panel: so many, DEPTH deep, stay in a second-level cache
constexpr int64_t DEPTH = 1024;  // channels at a time
constexpr int64_t NEAR = 256;    // channels of a panel that stay in a first-level cache
constexpr int64_t GROUP = 4;     // blocks whose sums stay there, too
constexpr int64_t BLOCK = SIDE * SIDE;

}  // namespace

extern "C" {

// Floats: x as the tiles read it.
int64_t linear_tiles_scratch(int64_t rows, int64_t in) { return up_to(rows, SIDE) * in / 2; }
}

#ifdef HAS_TILES

namespace {

inline __m512 silu_of(__m512 x) {
  alignas(64) float numbers[16];
  put(x, numbers);
  for (float& number : numbers) number = silu(number);
  return take(numbers);
}

template <typename In, typename Out>
void run(const In* x, const Half* packed, const float* bias, const float* added, Out* y, Half* laid, int64_t rows,
         int64_t in, int64_t out, bool bend, float scale, int64_t threads) {
  const int64_t panels = out / SIDE, blocks = pieces(rows, SIDE), steps = in / DEEP;
  // with many threads a panel's rows are dealt out as well
  const int64_t chunks = std::min(std::max(pieces(blocks, CHUNK), pieces(2 * threads, panels)), blocks);
  const int64_t share = pieces(blocks, chunks), jobs = panels * chunks;
  // narrow sums cannot be added to later
  const int64_t most = sizeof(Out) == sizeof(float) ? DEPTH : in;
#pragma omp parallel num_threads(threads)
  {
    const Tiles tiles;
#pragma omp for schedule(static)
    for (int64_t block = 0; block < blocks; ++block)
      for (int64_t i = 0; i < SIDE; ++i) {
        const In* row = x + std::min(block * SIDE + i, rows - 1) * in;  // the last again where there are fewer
        Half* to = laid + (block * steps * SIDE + i) * DEEP;
        for (int64_t c = 0; c < in; c += DEEP, to += STEP) put(take(row + c), to), put(take(row + c + 16), to + 16);
      }
    for (int64_t d = 0; d < in; d += most) {
      const int64_t depth = std::min(most, in - d);
#pragma omp for schedule(static)
      for (int64_t thread = 0; thread < threads; ++thread) {
        alignas(64) float sums[GROUP * BLOCK];
        for (int64_t job = jobs * thread / threads; job < jobs * (thread + 1) / threads; ++job) {
          const int64_t c = job % panels * SIDE, from = job / panels * share, to = std::min(from + share, blocks);
          if (from >= to) continue;
          const Half* panel = packed + c * in + d * SIDE;
          const Half* next = panel + in * SIDE;
          const int64_t lines = pieces(STEP / LINE, to - from);  // asked for at each step
          for (int64_t group = from; group < to; group += GROUP) {
            const int64_t end = std::min(group + GROUP, to);
            for (int64_t near = 0; near < depth; near += NEAR) {
              const int64_t part = std::min(NEAR, depth - near) / DEEP;
              for (int64_t block = group; block < end; ++block, next += part * lines * LINE)
                multiply_tiles(rows - block * SIDE, laid + (block * steps + (d + near) / DEEP) * STEP, DEEP, part, STEP,
                               DEEP, panel + near * SIDE, sums + (block - group) * BLOCK, near > 0, next, lines);
            }
            for (int64_t i = group * SIDE; i < std::min(end * SIDE, rows); ++i)
              for (int64_t v = 0; v < SIDE; v += 16) {
                const int64_t at = i * out + c + v;
                __m512 sum = take(sums + (i - group * SIDE) * SIDE + v);
                if (d) sum += take(y + at);
                else if (bias) sum += take(bias + c + v);
                if (d + depth == in && bend) sum = silu_of(sum);
                if (d + depth == in && added) sum = _mm512_fmadd_ps(_mm512_set1_ps(scale), sum, take(added + at));
                put(sum, y + at);
              }
          }
        }
      }
    }
  }
}

}  // namespace

extern "C" {

// y [rows, out] = x [rows, in] x weight + bias [out], or its silu; that times scale + added [rows, out]. Bias and added
// may be null. x and y are float32, or bfloat16 where they are narrow. packed: the weight as tiles.py lays it out. All
// contiguous; in and out are multiples of 32.
void linear_tiles(const void* x, const Half* packed, const float* bias, const float* added, void* y, Half* laid,
                  int64_t narrow_x, int64_t narrow_y, int64_t rows, int64_t in, int64_t out, int64_t silu, double scale,
                  int64_t threads) {
  auto with = [&](auto* from, auto* to) {
    run(from, packed, bias, added, to, laid, rows, in, out, silu, float(scale), threads);
  };
  if (narrow_x && narrow_y) with((const Half*)x, (Half*)y);
  else if (narrow_x) with((const Half*)x, (float*)y);
  else if (narrow_y) with((const float*)x, (Half*)y);
  else with((const float*)x, (float*)y);
}
}

#endif
