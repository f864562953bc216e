// One pass over memory for an anti-aliased SnakeBeta: up-sample by 2, snake, down-sample by 2.
// The definition is the plain form in activations.py; this file does the same sums, tile by tile, in cache. Samples of
// one time lie side by side, and the innermost loops, which the compiler vectorises, run over these channels.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>

namespace {

constexpr int64_t GROUP = 96;  // channels at a time
constexpr int64_t TILE = 16;   // times at a time: three float buffers of TILE x GROUP stay in a 32 KiB L1 cache
constexpr int64_t REACH = 6;   // samples of context on each side: 3 of the up-sampler, 3 of the down-sampler

inline float widen(float value) { return value; }
inline float widen(uint16_t value) {  // bfloat16
  uint32_t bits = uint32_t(value) << 16;
  float wide;
  std::memcpy(&wide, &bits, 4);
  return wide;
}
inline void narrow(float value, float* to) { *to = value; }
inline void narrow(float value, uint16_t* to) {  // round to nearest even, as torch does
  uint32_t bits;
  std::memcpy(&bits, &value, 4);
  *to = uint16_t((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16);
}

// sin^2 by its period pi: reduce in two steps, then r^2 P(r^2) on [-pi/2, pi/2] (minimax, within 2e-7 as rounded)
inline float sine_squared(float x) {
  const float turns = std::nearbyintf(x * 0.318309886f);
  float r = std::fmaf(turns, -3.14159274f, x);
  r = std::fmaf(turns, 8.74227766e-8f, r);
  const float q = r * r;
  float p = -3.58120292e-6f;
  p = std::fmaf(p, q, 1.39025477e-4f);
  p = std::fmaf(p, q, -3.17165651e-3f);
  p = std::fmaf(p, q, 4.4442486e-2f);
  p = std::fmaf(p, q, -3.33332866e-1f);
  p = std::fmaf(p, q, 1.0f);
  return p * q;
}

struct Filters {
  float up_even[6], up_odd[6], down_even[6], down_odd[6];

  explicit Filters(const float* taps) {
    for (int i = 0; i < 6; ++i) {
      up_even[i] = 2 * taps[2 * i + 1];
      up_odd[i] = 2 * taps[2 * i];
      down_even[i] = taps[2 * i + 1];
      down_odd[i] = taps[2 * i];
    }
  }
};

// Times [from, to) of `width` channels of one clip, which ends at `valid` >= to. x: its first sample of the first of
// these channels, y: its time `from`; the next time lies `channels` further, in y `apart`.
template <typename T>
void span(const T* x, T* y, const float* alpha, const float* inverse_beta, const Filters& filters, int64_t channels,
          int64_t apart, int64_t width, int64_t valid, int64_t from, int64_t to) {
  alignas(64) float in[(TILE + 2 * REACH) * GROUP];
  alignas(64) float even[(TILE + 6) * GROUP], odd[(TILE + 6) * GROUP];  // row j of a tile holds time first - 3 + j
  for (int64_t first = from; first < to; first += TILE) {
    const int64_t count = std::min(TILE, to - first);
    for (int64_t j = 0; j < count + 2 * REACH; ++j) {
      const T* row = x + std::clamp<int64_t>(first - REACH + j, 0, valid - 1) * channels;
      for (int64_t c = 0; c < width; ++c) in[j * GROUP + c] = widen(row[c]);
    }
    int64_t known = 0;  // rows that the tile before has made
    if (first > from) {
      known = 6;
      std::memcpy(even, even + TILE * GROUP, 6 * GROUP * sizeof(float));
      std::memcpy(odd, odd + TILE * GROUP, 6 * GROUP * sizeof(float));
    }
    for (int64_t j = known; j < count + 6; ++j) {  // u[2k] sees x[k-3 .. k+2], u[2k+1] sees x[k-2 .. k+3]
      const float* near = in + j * GROUP;
      float* to_even = even + j * GROUP;
      float* to_odd = odd + j * GROUP;
      for (int64_t c = 0; c < width; ++c) {
        float a = 0, b = 0;
        for (int i = 0; i < 6; ++i) {
          a = std::fmaf(filters.up_even[i], near[(5 - i) * GROUP + c], a);
          b = std::fmaf(filters.up_odd[i], near[(6 - i) * GROUP + c], b);
        }
        to_even[c] = std::fmaf(sine_squared(a * alpha[c]), inverse_beta[c], a);
        to_odd[c] = std::fmaf(sine_squared(b * alpha[c]), inverse_beta[c], b);
      }
    }
    // before its first and after its last sample a clip repeats them (replicate padding at the doubled rate)
    const int64_t before = std::max<int64_t>(0, 3 - first), after = std::max<int64_t>(0, first + count + 3 - valid);
    for (int64_t j = 0; j < before; ++j) {
      std::memcpy(even + j * GROUP, even + before * GROUP, GROUP * sizeof(float));
      std::memcpy(odd + j * GROUP, even + before * GROUP, GROUP * sizeof(float));
    }
    for (int64_t j = count + 6 - after; j < count + 6; ++j) {
      std::memcpy(even + j * GROUP, odd + (count + 5 - after) * GROUP, GROUP * sizeof(float));
      std::memcpy(odd + j * GROUP, odd + (count + 5 - after) * GROUP, GROUP * sizeof(float));
    }
    for (int64_t k = 0; k < count; ++k) {
      const float* near_even = even + (k + 1) * GROUP;
      const float* near_odd = odd + k * GROUP;
      T* row = y + (first - from + k) * apart;
      for (int64_t c = 0; c < width; ++c) {
        float z = 0;
        for (int i = 0; i < 6; ++i) {
          z = std::fmaf(filters.down_even[i], near_even[i * GROUP + c], z);
          z = std::fmaf(filters.down_odd[i], near_odd[i * GROUP + c], z);
        }
        narrow(z, row + c);
      }
    }
  }
}

}  // namespace
