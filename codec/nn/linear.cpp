// A linear layer and what follows it (linear.py), a panel of outputs at a time. The weights of a panel are turned into
// the order of `multiply`, stay in cache, and meet all rows.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <utility>

#include "exponential.h"
#include "multiply.h"
#include "pieces.h"

namespace {

constexpr int64_t DEPTH = 1024;  // channels at a time: a panel of so many stays in a second-level cache

#if defined(__clang__) || __GNUC__ >= 12
#define SHUFFLE(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
typedef int Which __attribute__((vector_size(4 * LANES)));
#define SHUFFLE(a, b, ...) __builtin_shuffle(a, b, Which{__VA_ARGS__})
#endif

// Swaps the off-diagonal halves of each square of 2 SIDE x 2 SIDE numbers.
template <int SIDE, int... lane>
inline void swap(Lanes* rows, std::integer_sequence<int, lane...>) {
#pragma GCC unroll 16
  for (int i = 0; i < LANES; ++i)
    if (!(i & SIDE)) {
      const Lanes a = rows[i], b = rows[i + SIDE];
      rows[i] = SHUFFLE(a, b, (lane & SIDE ? lane - SIDE + int(LANES) : lane)...);
      rows[i + SIDE] = SHUFFLE(a, b, (lane & SIDE ? lane + int(LANES) : lane + SIDE)...);
    }
}

// LANES x LANES numbers, by squares of growing size.
inline void transpose(const float* from, int64_t from_row, float* to, int64_t to_row) {
  constexpr auto lanes = std::make_integer_sequence<int, LANES>();
  Lanes rows[LANES];
#pragma GCC unroll 16
  for (int64_t i = 0; i < LANES; ++i) rows[i] = *(const Lanes*)(from + i * from_row);
  swap<1>(rows, lanes);
  swap<2>(rows, lanes);
  if constexpr (LANES > 4) swap<4>(rows, lanes);
  if constexpr (LANES > 8) swap<8>(rows, lanes);
#pragma GCC unroll 16
  for (int64_t i = 0; i < LANES; ++i) *(Lanes*)(to + i * to_row) = rows[i];
}

// Weights [PANEL_64, depth], each `row` after the one before -> the right of `multiply`.
void turn(const float* weights, int64_t row, int64_t depth, float* panel) {
  for (int64_t i = 0; i < PANEL_64; i += LANES)
    for (int64_t k = 0; k < depth; k += LANES) transpose(weights + i * row + k, row, panel + k * PANEL_64 + i, PANEL_64);
}

// `count` rows, 1 to COUNT.
template <int64_t COUNT>
inline void multiply_few(int64_t count, const float* left, int64_t left_row, const float* panel, int64_t depth,
                         const float* start, int64_t start_row, float* to, int64_t to_row) {
  if (count == COUNT)
    multiply<COUNT, VECTORS_64>(left, left_row, panel, PANEL_64, depth, start, start_row, to, to_row);
  else if constexpr (COUNT > 1)
    multiply_few<COUNT - 1>(count, left, left_row, panel, depth, start, start_row, to, to_row);
}

// What follows the sums of a few rows of a panel: y -> scale silu(y) + added, silu only where asked for.
void finish(float* y, const float* added, int64_t row, int64_t count, bool bend, float scale) {
  for (int64_t i = 0; i < count; ++i, y += row, added += added ? row : 0) {
    if (bend)
      for (int64_t c = 0; c < PANEL_64; ++c) y[c] = silu(y[c]);
    if (added)
      for (int64_t c = 0; c < PANEL_64; ++c) y[c] = std::fmaf(scale, y[c], added[c]);
  }
}

}  // namespace

extern "C" {

// Floats that each thread needs for itself: a panel.
int64_t linear_scratch() { return DEPTH * PANEL_64; }

// y [rows, out] = x [rows, in] x weight [out, in] + bias [out], or its silu; that times scale + added [rows, out]. Bias
// and added may be null. All contiguous; in is a multiple of 16, out of 64.
void linear(const float* x, const float* weight, const float* bias, const float* added, float* y, float* scratch,
            int64_t rows, int64_t in, int64_t out, int64_t silu, double scale, int64_t threads) {
  // with many threads a panel's rows are dealt out as well
  const int64_t panels = out / PANEL_64, shares = std::min(pieces(4 * threads, panels), pieces(rows, ROWS_64));
  const int64_t share = up_to(pieces(rows, shares), ROWS_64), jobs = panels * shares;
  Next next{0};
#pragma omp parallel for num_threads(threads)
  for (int64_t thread = 0; thread < threads; ++thread) {
    float* panel = scratch + thread * linear_scratch();
    for (int64_t job; (job = next++) < jobs;) {
      const int64_t c = job / shares * PANEL_64, from = job % shares * share, to = std::min(from + share, rows);
      for (int64_t d = 0; d < in; d += DEPTH) {
        const int64_t depth = std::min(DEPTH, in - d);
        turn(weight + c * in + d, in, depth, panel);
        for (int64_t i = from; i < to; i += ROWS_64) {
          const int64_t count = std::min(ROWS_64, to - i);
          float* sums = y + i * out + c;
          const float* start = d ? sums : bias ? bias + c : nullptr;
          multiply_few<ROWS_64>(count, x + i * in + d, in, panel, depth, start, d ? out : 0, sums, out);
          if (d + depth == in) finish(sums, added ? added + i * out + c : nullptr, out, count, silu, float(scale));
        }
      }
    }
  }
}
}
