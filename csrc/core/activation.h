// Activations with their first and second derivatives, on vectors. The order of `Act` is that of
// the names in genkern/reference/activations.py.
//
// Hendrycks and Gimpel 2016 (gelu), Klambauer et al. 2017 (selu), Ramachandran et al. 2017 (swish)
#pragma once
#include "vecmath.h"

namespace genkern::core {

enum class Act : int64_t {
  kLinear,
  kRelu,
  kLrelu,
  kTanh,
  kSigmoid,
  kElu,
  kSelu,
  kSoftplus,
  kSwish,
  kGelu
};
constexpr bool is_flat(Act act) { return act <= Act::kLrelu; }

template <typename V>
struct Jet {
  V value, slope, curvature;  // of the activation; what is not used, the compiler leaves out
};

inline constexpr double kSeluScale = 1.0507009873554805, kSeluAlpha = 1.6732632423543772;

// The normal distribution function of -a for a >= 0, given e = e^{-a^2 / 2}. The polynomial is
// fitted to the least relative error: 3e-7 with its rounding.
inline VecF normal_tail(VecF a, VecF e) {
  const VecF u = 1.0f / (1.0f + 0.35f * a), w = (u + u) - 1.0f;
  VecF p = splat(-0.0001162907773f);
  p = p * w + 0.0002177278608f;
  p = p * w + 0.0006909763345f;
  p = p * w - 0.001757404303f;
  p = p * w - 0.005108517589f;
  p = p * w + 0.01023458733f;
  p = p * w + 0.07109886534f;
  p = p * w + 0.1714957586f;
  p = p * w + 0.253244279f;
  return p * u * e;
}
inline Vec<double> normal_tail(Vec<double> a, Vec<double>) {
  return detail::by_lane(a, [](double v) { return 0.5 * std::erfc(v * M_SQRT1_2); });
}
template <typename A>
inline constexpr A kNormalLimit = sizeof(A) == 4 ? 15 : 39;  // beyond it e is 0

template <typename V>
inline Jet<V> gelu(V z) {
  using A = std::remove_cvref_t<decltype(z[0])>;
  const V limit = splat(kNormalLimit<A>), x = max(min(z, limit), -limit), a = abs(x);
  const V e = exp_minus_abs(A(0.5) * a * a), tail = normal_tail(a, e);
  const V density = e * A(0.3989422804014327);
  const V below = z > 0 ? 1 - tail : tail;
  return {z > 0 ? z - a * tail : -a * tail, below + x * density, density * (2 - x * x)};
}

// sigmoid(z), its slope and its curvature, without differences of numbers that are nearly equal.
template <typename V>
inline Jet<V> logistic(V z) {
  const V e = exp_minus_abs(z), r = 1 / (1 + e), slope = e * r * r;
  const V bend = slope * r * expm1(-abs(z));
  return {z < 0 ? e * r : r, slope, z < 0 ? -bend : bend};
}

template <typename V>
inline Jet<V> swish(V z) {
  using A = std::remove_cvref_t<decltype(z[0])>;
  // Beyond the limit the slopes are 0 and 1, and inf * 0 must not come up.
  const A kLimit = sizeof(A) == 4 ? 104 : 746;
  const V x = max(min(z, splat(kLimit)), splat(-kLimit));
  const Jet<V> s = logistic(x);
  return {max(z, splat(-kLimit)) * s.value, s.value + x * s.slope, 2 * s.slope + x * s.curvature};
}

template <Act act, typename V, typename A>
inline Jet<V> jet(V z, A alpha) {
  const V zero{}, one = zero + 1;
  if constexpr (act == Act::kLinear) {
    return {z, one, zero};
  } else if constexpr (act == Act::kRelu) {
    return {max(z, zero), z > 0 ? one : zero, zero};
  } else if constexpr (act == Act::kLrelu) {
    return {z > 0 ? z : alpha * z, z > 0 ? one : splat(alpha), zero};
  } else if constexpr (act == Act::kTanh) {
    const V t = tanh(z), e = exp_minus_abs(z + z), q = 1 / (1 + e), slope = 4 * e * q * q;
    return {t, slope, -2 * t * slope};
  } else if constexpr (act == Act::kSigmoid) {
    return logistic(z);
  } else if constexpr (act == Act::kElu) {
    const V e = exp_minus_abs(z);
    return {z > 0 ? z : expm1(z), z > 0 ? one : e, z >= 0 ? zero : e};
  } else if constexpr (act == Act::kSelu) {
    const A scale = A(kSeluScale), below = A(kSeluScale * kSeluAlpha);
    const V e = below * exp_minus_abs(z);
    return {z > 0 ? scale * z : below * expm1(z), z > 0 ? splat(scale) : e, z >= 0 ? zero : e};
  } else if constexpr (act == Act::kSoftplus) {
    const Jet<V> s = logistic(z);
    return {softplus(z), s.value, s.slope};
  } else if constexpr (act == Act::kSwish) {
    return swish(z);
  } else {
    return gelu(z);
  }
}

// A function for each activation: in one that holds the loops of all of them the compiler stops
// inlining, and a call for every vector can cost as much as its arithmetic.
template <Act act, typename F>
[[gnu::flatten, gnu::noinline]] void with_act(const F& f) {
  f(std::integral_constant<Act, act>{});
}

// Calls f(std::integral_constant<Act, act>{}).
template <typename F>
inline void dispatch_act(Act act, const F& f) {
  switch (act) {
#define GENKERN_ACT(name) \
  case Act::name:         \
    return with_act<Act::name>(f)
    GENKERN_ACT(kLinear);
    GENKERN_ACT(kRelu);
    GENKERN_ACT(kLrelu);
    GENKERN_ACT(kTanh);
    GENKERN_ACT(kSigmoid);
    GENKERN_ACT(kElu);
    GENKERN_ACT(kSelu);
    GENKERN_ACT(kSoftplus);
    GENKERN_ACT(kSwish);
    GENKERN_ACT(kGelu);
#undef GENKERN_ACT
  }
}

}  // namespace genkern::core
