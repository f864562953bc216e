// Self-attention whose scores also depend on the clipped distance between query and key (relative_attention.py), of
// bfloat16 by tiles, SIDE queries at a time. Scores and softmax are float32.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>

#include "exponential.h"
#include "pieces.h"
#include "tiles.h"

namespace {

constexpr int64_t HEAD = 64;  // channels of a head
constexpr int64_t BLOCK = SIDE * SIDE;

// Numbers of 16 bits that a thread lays out: keys and values of a head, distances, queries, and softened scores.
int64_t halves(int64_t keys, int64_t known) { return (2 * keys + known + SIDE) * HEAD + SIDE * keys; }

}  // namespace

extern "C" {

// Floats that each thread needs for itself: what it lays out, and scores.
int64_t relative_attention_tiles_scratch(int64_t length, int64_t distances) {
  const int64_t keys = up_to(length, SIDE), known = up_to(distances, SIDE);
  return halves(keys, known) / 2 + SIDE * (keys + known);
}
}

#ifdef HAS_TILES

namespace {

// rows [count, HEAD], each `row` after the one before -> a factor of `multiply_tiles`, its columns being the rows: panels of
// SIDE; zeros at the end.
void lay_across(const Half* rows, int64_t row, int64_t count, Half* panels) {
  for (int64_t first = 0; first < count; first += SIDE, panels += SIDE * HEAD)
    for (int64_t k = 0; k < HEAD; k += 2)
      for (int64_t i = 0; i < SIDE; ++i) {
        Half* to = panels + k / DEEP * STEP + i / 16 * (STEP / 2) + k % DEEP / 2 * 32 + i % 16 * 2;
        if (first + i < count) std::memcpy(to, rows + (first + i) * row + k, 2 * sizeof(Half));
        else to[0] = to[1] = 0;
      }
}

// The same, its rows being the rows: two panels, one after the other.
void lay_down(const Half* rows, int64_t row, int64_t count, Half* panels) {
  const int64_t whole = up_to(count, DEEP);
  for (int64_t i = 0; i < whole; ++i)
    for (int64_t c = 0; c < HEAD; ++c)
      panels[c / SIDE * whole * SIDE + i / DEEP * STEP + c % SIDE / 16 * (STEP / 2) + i % DEEP / 2 * 32 + c % 16 * 2 + i % 2] =
          i < count ? rows[i * row + c] : Half(0);
}

// Blocks of scores of one query, at `time`, each BLOCK after the one before -> e^(score - greatest) in `soft`, up to whole
// blocks, zeros past `keys`; returns their sum. `far`: its scores of the known distances, from `left` before it to `right`
// after it, in blocks as well.
float soften(float* scores, int64_t keys, const float* far, int64_t time, int64_t left, int64_t right, float scale,
             Half* soft) {
  const auto known = [&](int64_t distance) {
    const int64_t at = std::clamp(distance, -left, right) + left;
    return far[at / SIDE * BLOCK + at % SIDE];
  };
  const __m512i lanes = _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
  const float nearest = known(-left), farthest = known(right);
  __m512 most = _mm512_set1_ps(-INFINITY);
  for (int64_t j = 0; j < keys; j += 16) {
    float* some = scores + j / SIDE * BLOCK + j % SIDE;
    alignas(64) float more[16];
    if (j + 15 - time <= -left) std::fill(more, more + 16, nearest);
    else if (j - time >= right) std::fill(more, more + 16, farthest);
    else
      for (int64_t i = 0; i < 16; ++i) more[i] = known(j + i - time);
    const __mmask16 own = _mm512_cmplt_epi32_mask(lanes, _mm512_set1_epi32(int(keys - j)));
    const __m512 sum = _mm512_mask_blend_ps(own, _mm512_set1_ps(-INFINITY), take(some) + take(more));
    put(sum, some);
    most = _mm512_max_ps(most, sum);
  }
  const float greatest = _mm512_reduce_max_ps(most);
  __m512 sums = _mm512_setzero_ps();
  for (int64_t j = 0; j < up_to(keys, SIDE); j += 16) {
    alignas(64) float numbers[16];
    put((take(scores + j / SIDE * BLOCK + j % SIDE) - greatest) * scale, numbers);
    for (float& number : numbers) number = exponential(number);
    const __mmask16 own = _mm512_cmplt_epi32_mask(lanes, _mm512_set1_epi32(int(std::max<int64_t>(0, keys - j))));
    const __m512 powers = _mm512_maskz_mov_ps(own, take(numbers));
    sums += powers;
    put(powers, soft + j);
  }
  return _mm512_reduce_add_ps(sums);
}

}  // namespace

extern "C" {

// query, key, value, y: [batch, length, heads x HEAD], contiguous. distance: [left + 1 + right, HEAD]. valid: keys of
// each row of the batch, 1 to length. scratch: of all threads.
void relative_attention_tiles(const Half* query, const Half* key, const Half* value, const Half* distance, Half* y,
                              const int64_t* valid, float* scratch, int64_t batch, int64_t length, int64_t heads,
                              int64_t left, int64_t right, int64_t threads) {
  const int64_t row = heads * HEAD, distances = left + 1 + right, known = up_to(distances, SIDE);
  const float scale = 1 / std::sqrt(float(HEAD));
  Next next{0};
#pragma omp parallel for num_threads(threads)
  for (int64_t thread = 0; thread < threads; ++thread) {
    const Tiles tiles;
    const int64_t most = up_to(length, SIDE);
    float* scores = scratch + thread * relative_attention_tiles_scratch(length, distances);
    float* far = scores + SIDE * most;
    Half* key_panels = (Half*)(far + SIDE * known);
    Half* value_panels = key_panels + most * HEAD;
    Half* distance_panels = value_panels + most * HEAD;
    Half* queries = distance_panels + known * HEAD;
    Half* soft = queries + SIDE * HEAD;
    lay_across(distance, HEAD, distances, distance_panels);
    for (int64_t job; (job = next++) < batch * heads;) {
      const int64_t start = job / heads * length * row + job % heads * HEAD, keys = valid[job / heads];
      const int64_t columns = up_to(keys, SIDE);
      lay_across(key + start, row, keys, key_panels);
      lay_down(value + start, row, keys, value_panels);
      for (int64_t first = 0; first < length; first += SIDE) {
        const int64_t count = std::min(SIDE, length - first);
        for (int64_t i = 0; i < SIDE; ++i)  // the last query again where there are fewer
          std::memcpy(queries + i * HEAD, query + start + (first + std::min(i, count - 1)) * row, sizeof(Half) * HEAD);
        for (int64_t c = 0; c < columns; c += SIDE)
          multiply_tiles(count, queries, HEAD, 1, 0, HEAD, key_panels + c * HEAD, scores + c * SIDE);
        for (int64_t c = 0; c < known; c += SIDE)
          multiply_tiles(count, queries, HEAD, 1, 0, HEAD, distance_panels + c * HEAD, far + c * SIDE);
        float total[SIDE];
        for (int64_t i = 0; i < count; ++i)
          total[i] = soften(scores + i * SIDE, keys, far + i * SIDE, first + i, left, right, scale, soft + i * columns);
        for (int64_t c = 0; c < HEAD; c += SIDE) {
          alignas(64) float sums[BLOCK];
          multiply_tiles(count, soft, columns, 1, 0, columns, value_panels + c * columns, sums);
          for (int64_t i = 0; i < count; ++i)
            for (int64_t v = 0; v < SIDE; v += 16)
              put(take(sums + i * SIDE + v) / total[i], y + start + (first + i) * row + c + v);
        }
      }
    }
  }
}
}

#endif
