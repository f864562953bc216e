// The exponential function by sums and products alone, which the compiler vectorises.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>

namespace {

// e^x for x <= 0, within 2 units in the last place; 0 where that is below 1e-38
inline float exponential(float x) {
  x = std::max(x, -87.0f);
  const float twos = std::nearbyintf(x * 1.44269504f);
  float r = std::fmaf(twos, -0.693145752f, x);
  r = std::fmaf(twos, -1.42860677e-6f, r);
  float p = 1.98756912e-4f;
  p = std::fmaf(p, r, 1.39819994e-3f);
  p = std::fmaf(p, r, 8.33345205e-3f);
  p = std::fmaf(p, r, 4.16657962e-2f);
  p = std::fmaf(p, r, 1.66666657e-1f);
  p = std::fmaf(p, r, 0.5f);
  p = std::fmaf(p * r, r, r) + 1;
  const int32_t bits = (int32_t(twos) + 127) << 23;
  float scale;
  std::memcpy(&scale, &bits, 4);
  return p * scale;
}

inline float silu(float x) {
  const float power = exponential(-std::fabs(x));  // never too large
  return x * ((x < 0 ? power : 1) / (1 + power));
}

}  // namespace
