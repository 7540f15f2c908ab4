// Formulas that vectors on the CPU and scalars in CUDA device code share.
#pragma once
#include <cmath>

#if defined(__CUDACC__)
#define GENKERN_HOST_DEVICE __host__ __device__ __forceinline__
#else
#define GENKERN_HOST_DEVICE [[gnu::always_inline]] inline
#endif

namespace genkern::core {

inline constexpr float kTanhLimit = 9.02f;  // beyond it tanh rounds to 1

// tanh x = x P(x^2) / Q(x^2) for |x| <= kTanhLimit, fitted to the least relative error (2.1e-8).
template <typename V>
GENKERN_HOST_DEVICE V tanh_ratio(V x) {
  const V s = x * x;
  V p = 2.058236426e-5f + 1.331716356e-8f * s;
  p = p * s + 3.493980192e-3f;
  p = p * s + 1.337967746e-1f;
  p = p * s + 0.9999999797f;
  V q = 3.282993939e-4f + 7.761311722e-7f * s;
  q = q * s + 2.587088233e-2f;
  q = q * s + 0.46712993f;
  q = q * s + 1.0f;
  return x * p / q;
}

// x within [-limit, limit]; NaN stays.
GENKERN_HOST_DEVICE float clamp(float x, float limit) {
  return x > limit ? limit : x < -limit ? -limit : x;
}

// What a cell needs, on scalars; 3 and 6 ulp, and that of std::exp.
struct ScalarMath {
  GENKERN_HOST_DEVICE static float sigmoid(float x) { return 1 / (1 + std::exp(-x)); }
  GENKERN_HOST_DEVICE static float tanh(float x) {
    return clamp(tanh_ratio(clamp(x, kTanhLimit)), 1.0f);
  }
};

}  // namespace genkern::core
