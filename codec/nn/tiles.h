// Products of bfloat16 matrices, summed in float32, by a processor's tile registers (AMX). Where it has none, or the
// system does not lend them, `tiles_ready` says so, and nothing here is called.
#pragma once
#include <cstdint>
#include <cstring>

namespace {

typedef uint16_t Half;  // the upper half of a float32

// A tile is 16 rows of 64 bytes. A block of sums is SIDE x SIDE: two tiles by two, from two of either factor.
constexpr int64_t TILE_ROWS = 16, DEEP = 32, SIDE = 32;
constexpr int64_t LINE = 32;  // of a cache, in numbers of 16 bits
constexpr int64_t STEP = DEEP * SIDE;  // numbers of a panel that are multiplied with DEEP columns of what is left of it

}  // namespace

#if defined(__AMX_BF16__) && defined(__AVX512BF16__) && defined(__linux__)
#define HAS_TILES 1
#include <immintrin.h>

namespace {

// Eight full tiles for as long as it lives; then what was set before, which others of this thread may count on.
class Tiles {
  struct alignas(64) Setting {
    uint8_t palette = 0, start_row = 0, reserved[14] = {};
    uint16_t row_bytes[16] = {};
    uint8_t rows[16] = {};
  } before;

 public:
  Tiles() {
    _tile_storeconfig(&before);
    Setting full;
    full.palette = 1;
    for (int i = 0; i < 8; ++i) full.row_bytes[i] = 64, full.rows[i] = TILE_ROWS;
    _tile_loadconfig(&full);
  }
  ~Tiles() {
    if (before.palette) _tile_loadconfig(&before);
    else _tile_release();
  }
  Tiles(const Tiles&) = delete;
};

// 16 numbers, as float32 between.
inline __m512 take(const float* from) { return _mm512_loadu_ps(from); }
inline __m512 take(const Half* from) {
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i*)from)), 16));
}
inline void put(__m512 numbers, float* to) { _mm512_storeu_ps(to, numbers); }
inline void put(__m512 numbers, Half* to) {  // rounded to the nearest
  _mm256_storeu_si256((__m256i*)to, (__m256i)_mm512_cvtneps_pbh(numbers));
}

// sums [SIDE, SIDE] = left [SIDE, taps x depth] x panel, or `more` of it, added to what they were. A row of `left` lies
// `row` after the one before, its columns of a tap `tap` after those of the tap before. Only the first TILE_ROWS rows
// where HALF. What lies at `next` is asked into the cache meanwhile, `lines` of it with every DEEP columns.
template <bool HALF>
inline void multiply_tiles(const Half* left, int64_t row, int64_t taps, int64_t tap, int64_t depth, const Half* panel,
                           float* sums, bool more, const Half* next, int64_t lines) {
  constexpr int64_t BYTES = SIDE * sizeof(float), DOWN = TILE_ROWS * SIDE;
  if (more) {
    _tile_loadd(0, sums, BYTES);
    _tile_loadd(1, sums + TILE_ROWS, BYTES);
    if constexpr (!HALF) {
      _tile_loadd(2, sums + DOWN, BYTES);
      _tile_loadd(3, sums + DOWN + TILE_ROWS, BYTES);
    }
  } else {
    _tile_zero(0);
    _tile_zero(1);
    if constexpr (!HALF) {
      _tile_zero(2);
      _tile_zero(3);
    }
  }
  for (int64_t k = 0; k < taps; ++k, left += tap)
    for (int64_t c = 0; c < depth; c += DEEP, panel += STEP) {
      for (int64_t line = 0; line < lines; ++line, next += LINE) _mm_prefetch(next, _MM_HINT_T1);
      _tile_loadd(6, panel, 64);
      _tile_loadd(4, left + c, row * sizeof(Half));
      _tile_dpbf16ps(0, 4, 6);
      _tile_loadd(7, panel + STEP / 2, 64);
      _tile_dpbf16ps(1, 4, 7);
      if constexpr (!HALF) {
        _tile_loadd(5, left + TILE_ROWS * row + c, row * sizeof(Half));
        _tile_dpbf16ps(2, 5, 6);
        _tile_dpbf16ps(3, 5, 7);
      }
    }
  _tile_stored(0, sums, BYTES);
  _tile_stored(1, sums + TILE_ROWS, BYTES);
  if constexpr (!HALF) {
    _tile_stored(2, sums + DOWN, BYTES);
    _tile_stored(3, sums + DOWN + TILE_ROWS, BYTES);
  }
}

// The same for `count` rows, or more than SIDE.
inline void multiply_tiles(int64_t count, const Half* left, int64_t row, int64_t taps, int64_t tap, int64_t depth,
                           const Half* panel, float* sums, bool more = false, const Half* next = nullptr,
                           int64_t lines = 0) {
  if (count > TILE_ROWS) multiply_tiles<false>(left, row, taps, tap, depth, panel, sums, more, next, lines);
  else multiply_tiles<true>(left, row, taps, tap, depth, panel, sums, more, next, lines);
}

}  // namespace
#endif
