// One pass over memory for an anti-aliased SnakeBeta: up-sample by 2, snake, down-sample by 2.
// The definition is the plain form in activations.py; this file does the same sums, tile by tile, in cache.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>

namespace {

constexpr int64_t TILE = 1024;  // three float buffers of it stay in a 32 KiB L1 cache
constexpr int64_t REACH = 6;    // samples of context on each side: 3 of the up-sampler, 3 of the down-sampler

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

// sin^2 by its period pi: reduce in two steps, then an odd polynomial on [-pi/2, pi/2] (Taylor, below 1e-7)
inline float sine_squared(float x) {
  const float turns = std::nearbyintf(x * 0.318309886f);
  float r = std::fmaf(turns, -3.14159274f, x);
  r = std::fmaf(turns, 8.74227766e-8f, r);
  const float q = r * r;
  float p = -2.50521084e-8f;
  p = std::fmaf(p, q, 2.75573192e-6f);
  p = std::fmaf(p, q, -1.98412698e-4f);
  p = std::fmaf(p, q, 8.33333333e-3f);
  p = std::fmaf(p, q, -1.66666667e-1f);
  const float s = std::fmaf(p * q, r, r);
  return s * s;
}

template <typename T>
void one_row(const T* x, T* y, float alpha, float inverse_beta, const float* taps, int64_t valid, int64_t length) {
  alignas(64) float in[TILE + 2 * REACH];
  alignas(64) float even[TILE + 6], odd[TILE + 6];  // position j of a tile holds sample first - 3 + j
  float up_even[6], up_odd[6], down_even[6], down_odd[6];
  for (int i = 0; i < 6; ++i) {
    up_even[i] = 2 * taps[2 * i + 1];
    up_odd[i] = 2 * taps[2 * i];
    down_even[i] = taps[2 * i + 1];
    down_odd[i] = taps[2 * i];
  }
  for (int64_t first = 0; first < valid; first += TILE) {
    const int64_t count = std::min(TILE, valid - first);
    for (int64_t j = 0; j < count + 2 * REACH; ++j)
      in[j] = widen(x[std::clamp<int64_t>(first - REACH + j, 0, valid - 1)]);
    for (int64_t j = 0; j < count + 6; ++j) {  // u[2k] sees x[k-3 .. k+2], u[2k+1] sees x[k-2 .. k+3]
      float a = 0, b = 0;
      for (int i = 0; i < 6; ++i) {
        a = std::fmaf(up_even[i], in[j + 5 - i], a);
        b = std::fmaf(up_odd[i], in[j + 6 - i], b);
      }
      even[j] = std::fmaf(sine_squared(a * alpha), inverse_beta, a);
      odd[j] = std::fmaf(sine_squared(b * alpha), inverse_beta, b);
    }
    // before its first and after its last sample a row repeats them (replicate padding at the doubled rate)
    const int64_t before = std::max<int64_t>(0, 3 - first), after = std::max<int64_t>(0, first + count + 3 - valid);
    for (int64_t j = 0; j < before; ++j) even[j] = odd[j] = even[before];
    for (int64_t j = count + 6 - after; j < count + 6; ++j) even[j] = odd[j] = odd[count + 5 - after];
    for (int64_t k = 0; k < count; ++k) {
      float z = 0;
      for (int i = 0; i < 6; ++i) {
        z = std::fmaf(down_even[i], even[k + 1 + i], z);
        z = std::fmaf(down_odd[i], odd[k + i], z);
      }
      narrow(z, y + first + k);
    }
  }
  std::memset(y + valid, 0, sizeof(T) * (length - valid));
}

}  // namespace

// Rows [first, last) of x and y, both [batch * channels, length], contiguous.
// valid: samples of each batch item; alpha, inverse_beta: [channels], linear; taps: the 12 of the filter.
#define ENTRY(name, T)                                                                                         \
  extern "C" void name(const T* x, T* y, const float* alpha, const float* inverse_beta, const float* taps,     \
                       const int64_t* valid, int64_t channels, int64_t length, int64_t first, int64_t last) { \
    for (int64_t row = first; row < last; ++row)                                                               \
      one_row(x + row * length, y + row * length, alpha[row % channels], inverse_beta[row % channels], taps,   \
              valid[row / channels], length);                                                                  \
  }
ENTRY(snake_float32, float)
ENTRY(snake_bfloat16, uint16_t)
