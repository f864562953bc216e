// A linear layer of bfloat16 weights and what follows it (linear.py), by tiles: x is rounded as it is laid out for them,
// sums and all that follows are float32. A panel of weights stays in cache and meets many rows; the next comes in
// meanwhile.
#include <algorithm>
#include <cstdint>
#include <type_traits>

#include "exponential.h"
#include "pieces.h"
#include "tiles.h"

namespace {

constexpr int64_t CHUNK = 16;    // blocks of SIDE rows that meet a panel: so many, DEPTH deep, stay in a second-level cache
constexpr int64_t DEPTH = 1024;  // channels at a time
constexpr int64_t NEAR = 256;    // channels of a panel that stay in a first-level cache
constexpr int64_t SUMMED = 4;    // blocks whose sums stay there, too
constexpr int64_t BLOCK = SIDE * SIDE;
constexpr int64_t TURNS = 8;     // of a thread; within one, the next panel comes in ahead

}  // namespace

extern "C" {

// Floats: x as the tiles read it.
int64_t linear_tiles_scratch(int64_t rows, int64_t in) { return up_to(rows, SIDE) * in / 2; }
}

#ifdef HAS_TILES

namespace {

// A block of SIDE rows of x [rows, in] -> [in / DEEP, SIDE, DEEP]; the last row again where there are fewer.
template <typename In>
void lay(const In* x, int64_t rows, int64_t in, int64_t block, Half* laid) {
  for (int64_t i = 0; i < SIDE; ++i) {
    const In* row = x + std::min(block * SIDE + i, rows - 1) * in;
    Half* to = laid + block * SIDE * in + i * DEEP;
    for (int64_t c = 0; c < in; c += DEEP, to += STEP) put(take(row + c), to), put(take(row + c + 16), to + 16);
  }
}

// What follows the sums, as of linear_tiles.
template <typename Out>
struct After {
  const float *bias, *added;
  Out* y;
  int64_t out;
  bool silu;
  float scale;

  // `count` rows of SIDE sums -> y, from its row and column on; these are the first or the last channels summed, or not.
  void settle(const float* sums, int64_t row, int64_t column, int64_t count, bool first, bool last) const {
    for (int64_t i = 0; i < count; ++i)
      for (int64_t c = column; c < column + SIDE; c += 16, sums += 16) {
        const int64_t at = (row + i) * out + c;
        __m512 sum = take(sums);
        if (!first) sum += take(y + at);
        else if (bias) sum += take(bias + c);
        if (last && silu) sum = bent(sum);
        if (last && added) sum = _mm512_fmadd_ps(_mm512_set1_ps(scale), sum, take(added + at));
        put(sum, y + at);
      }
  }

  static __m512 bent(__m512 sum) {
    alignas(64) float numbers[16];
    put(sum, numbers);
    for (float& number : numbers) number = ::silu(number);
    return take(numbers);
  }
};

template <typename In, typename Out>
void run(const In* x, const Half* packed, const After<Out>& after, Half* laid, int64_t rows, int64_t in,
         int64_t threads) {
  const int64_t panels = after.out / SIDE, blocks = pieces(rows, SIDE);
  // with many threads a panel's rows are dealt out as well
  const int64_t chunks = std::min(std::max(pieces(blocks, CHUNK), pieces(2 * threads, panels)), blocks);
  const int64_t share = pieces(blocks, chunks), jobs = panels * chunks, turns = std::min(TURNS * threads, jobs);
  const int64_t most = sizeof(Out) == sizeof(float) ? DEPTH : in;  // to sums made narrow nothing is added later
#pragma omp parallel num_threads(threads)
  {
    const Tiles tiles;
#pragma omp for schedule(static)
    for (int64_t block = 0; block < blocks; ++block) lay(x, rows, in, block, laid);
    for (int64_t d = 0; d < in; d += most) {
      const int64_t depth = std::min(most, in - d);
#pragma omp for schedule(dynamic)
      for (int64_t turn = 0; turn < turns; ++turn)
        for (int64_t job = jobs * turn / turns; job < jobs * (turn + 1) / turns; ++job) {
          const int64_t c = job % panels * SIDE, from = job / panels * share, to = std::min(from + share, blocks);
          const Half* panel = packed + c * in + d * SIDE;
          const Half* next = panel + in * SIDE;
          const int64_t lines = pieces(STEP / LINE, std::max<int64_t>(1, to - from));  // asked for at each step
          for (int64_t first = from; first < to; first += SUMMED) {
            const int64_t end = std::min(first + SUMMED, to);
            alignas(64) float sums[SUMMED * BLOCK];
            for (int64_t near = 0; near < depth; near += NEAR) {
              const int64_t steps = std::min(NEAR, depth - near) / DEEP;
              for (int64_t block = first; block < end; ++block, next += steps * lines * LINE)
                multiply_tiles(rows - block * SIDE, laid + block * SIDE * in + (d + near) * SIDE, DEEP, steps, STEP,
                               DEEP, panel + near * SIDE, sums + (block - first) * BLOCK, near > 0, next, lines);
            }
            const int64_t count = std::min(end * SIDE, rows) - first * SIDE;
            after.settle(sums, first * SIDE, c, count, d == 0, d + depth == in);
          }
        }
    }
  }
}

}  // namespace

extern "C" {

// y [rows, out] = x [rows, in] x weight + bias [out], or its silu; or scale times that + added [rows, out]. Bias and added
// may be null. x and y are float32, or bfloat16 where they are narrow. packed: the weight as tiles.py lays it out. All
// contiguous; in and out are multiples of 32.
void linear_tiles(const void* x, const Half* packed, const float* bias, const float* added, void* y, Half* laid,
                  int64_t narrow_x, int64_t narrow_y, int64_t rows, int64_t in, int64_t out, int64_t silu, double scale,
                  int64_t threads) {
  const auto with = [&](const auto* from, auto* to) {
    run(from, packed, After<std::decay_t<decltype(*to)>>{bias, added, to, out, silu != 0, float(scale)}, laid, rows, in,
        threads);
  };
  if (narrow_x && narrow_y) with((const Half*)x, (Half*)y);
  else if (narrow_x) with((const Half*)x, (float*)y);
  else if (narrow_y) with((const float*)x, (Half*)y);
  else with((const float*)x, (float*)y);
}
}

#endif
