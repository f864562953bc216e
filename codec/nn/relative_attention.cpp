// Self-attention whose scores also depend on the clipped distance between query and key (relative_attention.py), a few
// queries at a time: their scores stay in cache, and no bias is ever laid out for all pairs.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>

#include "exponential.h"
#include "multiply.h"
#include "pieces.h"

namespace {

constexpr int64_t HEAD = 64;     // channels of a head
constexpr int64_t QUERIES = 24;  // at a time; a multiple of ROWS and of ROWS_64

// rows [count, HEAD], each `row` after the one before -> the right of `multiply`, panel after panel, zeros at the end
void transpose(const float* rows, int64_t row, int64_t count, float* panels) {
  for (int64_t first = 0; first < count; first += PANEL, panels += HEAD * PANEL)
    for (int64_t i = 0; i < PANEL; ++i)
      for (int64_t c = 0; c < HEAD; ++c) panels[c * PANEL + i] = first + i < count ? rows[(first + i) * row + c] : 0;
}

// to [QUERIES, columns] = queries [QUERIES, HEAD] x panels
void against(const float* queries, const float* panels, float* to, int64_t columns) {
  for (int64_t c = 0; c < columns; c += PANEL)
    for (int64_t i = 0; i < QUERIES; i += ROWS)
      multiply<ROWS>(queries + i * HEAD, HEAD, panels + c * HEAD, PANEL, HEAD, nullptr, 0, to + i * columns + c,
                     columns);
}

// Scores of one query at `time` -> e^(score - greatest), times a common factor; returns their sum. `far`: its scores
// of the known distances, from `left` before it to `right` after it.
float soften(float* scores, int64_t keys, const float* far, int64_t time, int64_t left, int64_t right, float scale) {
  const int64_t from = std::clamp<int64_t>(time - left, 0, keys), to = std::clamp<int64_t>(time + right, 0, keys);
  for (int64_t j = 0; j < from; ++j) scores[j] += far[0];
  for (int64_t j = from; j < to; ++j) scores[j] += far[j - time + left];
  for (int64_t j = to; j < keys; ++j) scores[j] += far[left + right];
  float most[LANES], sums[LANES] = {};
  std::fill(most, most + LANES, -INFINITY);
  const int64_t whole = keys / LANES * LANES;
  for (int64_t j = 0; j < whole; j += LANES)
    for (int64_t i = 0; i < LANES; ++i) most[i] = scores[j + i] > most[i] ? scores[j + i] : most[i];
  float greatest = *std::max_element(most, most + LANES);
  for (int64_t j = whole; j < keys; ++j) greatest = std::max(greatest, scores[j]);
  for (int64_t j = 0; j < keys; ++j) scores[j] = exponential((scores[j] - greatest) * scale);
  for (int64_t j = 0; j < whole; j += LANES)
    for (int64_t i = 0; i < LANES; ++i) sums[i] += scores[j + i];
  float sum = 0;
  for (int64_t i = 0; i < LANES; ++i) sum += sums[i];
  for (int64_t j = whole; j < keys; ++j) sum += scores[j];
  return sum;
}

}  // namespace

extern "C" {

// Floats that each thread needs for itself: keys and values of a head, queries, their scores, sums.
int64_t relative_attention_scratch(int64_t length, int64_t distances) {
  const int64_t keys = up_to(length, PANEL), known = up_to(distances, PANEL);
  return (2 * keys + known + 2 * QUERIES) * HEAD + QUERIES * (keys + known);
}

// query, key, value, y: [batch, length, heads x HEAD], contiguous. distance: [left + 1 + right, HEAD]. valid: keys of
// each row of the batch, 1 to length. scratch: of all threads.
void relative_attention(const float* query, const float* key, const float* value, const float* distance, float* y,
                        const int64_t* valid, float* scratch, int64_t batch, int64_t length, int64_t heads,
                        int64_t left, int64_t right, int64_t threads) {
  const int64_t row = heads * HEAD, distances = left + 1 + right, known = up_to(distances, PANEL);
  const float scale = 1 / std::sqrt(float(HEAD));
  Next next{0};
#pragma omp parallel for num_threads(threads)
  for (int64_t thread = 0; thread < threads; ++thread) {
    const int64_t most = up_to(length, PANEL);
    float* key_panels = scratch + thread * relative_attention_scratch(length, distances);
    float* values = key_panels + most * HEAD;
    float* distance_panels = values + most * HEAD;
    float* queries = distance_panels + known * HEAD;
    float* sums = queries + QUERIES * HEAD;
    float* scores = sums + QUERIES * HEAD;
    float* far = scores + QUERIES * most;
    transpose(distance, HEAD, distances, distance_panels);
    for (int64_t job; (job = next++) < batch * heads;) {
      const int64_t start = job / heads * length * row + job % heads * HEAD, keys = valid[job / heads];
      const int64_t columns = up_to(keys, PANEL);
      transpose(key + start, row, keys, key_panels);
      for (int64_t j = 0; j < keys; ++j) std::memcpy(values + j * HEAD, value + start + j * row, 4 * HEAD);
      for (int64_t first = 0; first < length; first += QUERIES) {
        const int64_t count = std::min(QUERIES, length - first);
        for (int64_t i = 0; i < QUERIES; ++i)  // the last query again where there are fewer
          std::memcpy(queries + i * HEAD, query + start + (first + std::min(i, count - 1)) * row, 4 * HEAD);
        against(queries, key_panels, scores, columns);
        against(queries, distance_panels, far, known);
        float total[QUERIES];
        for (int64_t i = 0; i < QUERIES; ++i)
          total[i] = soften(scores + i * columns, keys, far + i * known, first + i, left, right, scale);
        for (int64_t i = 0; i < QUERIES; i += ROWS_64)
          for (int64_t c = 0; c < HEAD; c += PANEL_64)
            multiply<ROWS_64, VECTORS_64>(scores + i * columns, columns, values + c, HEAD, keys, nullptr, 0,
                                          sums + i * HEAD + c, HEAD);
        for (int64_t i = 0; i < count; ++i)
          for (int64_t c = 0; c < HEAD; ++c) y[start + (first + i) * row + c] = sums[i * HEAD + c] / total[i];
      }
    }
  }
}
}
