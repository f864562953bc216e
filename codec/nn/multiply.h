// Products of small matrices that lie in cache, by all the registers a processor has.
#pragma once
#include <cstdint>
#include <cstring>

namespace {

// Sums are held in ROWS x VECTORS registers: as many as leave a few for what is multiplied.
#if defined(__AVX512F__)
constexpr int64_t LANES = 16, ROWS = 8, VECTORS = 3;
#elif defined(__AVX__)
constexpr int64_t LANES = 8, ROWS = 6, VECTORS = 2;
#else
constexpr int64_t LANES = 4, ROWS = 8, VECTORS = 3;
#endif
constexpr int64_t PANEL = LANES * VECTORS;  // columns at a time; divides 48
// The same for columns that are a multiple of 64.
constexpr int64_t ROWS_64 = 6, VECTORS_64 = LANES == 16 ? 4 : 2, PANEL_64 = LANES * VECTORS_64;

typedef float Lanes __attribute__((vector_size(4 * LANES), aligned(4), may_alias));

// to [COUNT, columns] = left [COUNT, depth] x right [depth, columns] + start [COUNT, columns] (or null), columns being
// LANES x WIDE; of each, the next row is so far away: 0 where all rows start from the same.
template <int64_t COUNT, int64_t WIDE = VECTORS>
inline void multiply(const float* left, int64_t left_row, const float* right, int64_t right_row, int64_t depth,
                     const float* start, int64_t start_row, float* to, int64_t to_row) {
  Lanes sums[COUNT][WIDE] = {};
  if (start)
    for (int64_t i = 0; i < COUNT; ++i)
      for (int64_t v = 0; v < WIDE; ++v) sums[i][v] = *(const Lanes*)(start + i * start_row + v * LANES);
  for (int64_t k = 0; k < depth; ++k) {
    Lanes row[WIDE];
#pragma GCC unroll 4
    for (int64_t v = 0; v < WIDE; ++v) row[v] = *(const Lanes*)(right + k * right_row + v * LANES);
#pragma GCC unroll 8
    for (int64_t i = 0; i < COUNT; ++i)
#pragma GCC unroll 4
      for (int64_t v = 0; v < WIDE; ++v) sums[i][v] += left[i * left_row + k] * row[v];
  }
#pragma GCC unroll 8
  for (int64_t i = 0; i < COUNT; ++i)
#pragma GCC unroll 4
    for (int64_t v = 0; v < WIDE; ++v) *(Lanes*)(to + i * to_row + v * LANES) = sums[i][v];
}

// weights [count, rows, columns] -> packed [count, columns / PANEL, rows, PANEL]: each panel is the right of `multiply`
inline void pack(const float* weights, float* packed, int64_t count, int64_t rows, int64_t columns) {
  for (int64_t n = 0; n < count; ++n)
    for (int64_t panel = 0; panel < columns; panel += PANEL)
      for (int64_t k = 0; k < rows; ++k, packed += PANEL)
        std::memcpy(packed, weights + (n * rows + k) * columns + panel, sizeof(float) * PANEL);
}

}  // namespace
