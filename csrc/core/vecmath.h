// Elementary functions on vectors. Float: polynomials, largest error against the exact value over
// the whole range of finite results stated at each (checked by tests/test_vecmath.py).
// Double: the C library, lane by lane; it serves gradient checks, not speed.
#pragma once
#include <cmath>

#include "scalar.h"
#include "simd.h"

namespace genkern::core {

namespace detail {
template <typename F>
inline Vec<double> by_lane(Vec<double> x, F f) {
  for (int i = 0; i < kLanes<double>; ++i) x[i] = f(x[i]);
  return x;
}

inline constexpr float kLog2e = 1.44269504f;
inline constexpr float kLn2 = 0.693147182f, kLn2High = 0.693359375f, kLn2Low = -2.12194440e-4f;
inline constexpr float kRound = 12582912.0f;  // 1.5 * 2^23: adding it rounds to an integer

inline VecF power_of_two(VecI n) { return bit_cast<VecF>((n + 127) << 23); }
}  // namespace detail

inline VecF abs(VecF x) { return bit_cast<VecF>(bit_cast<VecI>(x) & 0x7FFFFFFF); }
inline Vec<double> abs(Vec<double> x) { return x < 0 ? -x : x; }

// max and min that return x when it is NaN.
template <typename V>
inline V max(V x, V bound) {
  return x < bound ? bound : x;
}
template <typename V>
inline V min(V x, V bound) {
  return x > bound ? bound : x;
}
// One instruction each: x86 returns the second operand when either is NaN.
#if defined(GENKERN_AVX512)
inline VecF max(VecF x, VecF bound) { return VecF(_mm512_max_ps(__m512(bound), __m512(x))); }
inline VecF min(VecF x, VecF bound) { return VecF(_mm512_min_ps(__m512(bound), __m512(x))); }
#elif defined(GENKERN_AVX2)
inline VecF max(VecF x, VecF bound) { return VecF(_mm256_max_ps(__m256(bound), __m256(x))); }
inline VecF min(VecF x, VecF bound) { return VecF(_mm256_min_ps(__m256(bound), __m256(x))); }
#elif defined(GENKERN_SSE2)
inline VecF max(VecF x, VecF bound) { return VecF(_mm_max_ps(__m128(bound), __m128(x))); }
inline VecF min(VecF x, VecF bound) { return VecF(_mm_min_ps(__m128(bound), __m128(x))); }
#endif

// x within [low, high]; NaN stays.
inline VecF clamp(VecF x, float low, float high) { return min(max(x, splat(low)), splat(high)); }
template <typename V>
inline Twin<V> clamp(Twin<V> x, float low, float high) {
  return {clamp(x.a, low, high), clamp(x.b, low, high)};
}
// The absolute value of x, the sign of y.
template <typename V>
inline V copy_sign(V x, V y) {
  const auto sign = [](auto u, auto v) {
    return bit_cast<VecF>(bit_cast<VecI>(abs(u)) | (bit_cast<VecI>(v) & 0x80000000));
  };
  return by_vector(sign, x, y);
}
template <typename V, typename A>
inline V at_least(V x, A bound) {
  return by_vector([bound](auto u) { return max(u, splat(bound)); }, x);
}
// y, and 0 where x is below the bound.
template <typename V, typename A>
inline V zero_below(A bound, V x, V y) {
  return by_vector([bound](auto u, auto v) { return u < bound ? decltype(v){} : v; }, x, y);
}
template <typename V>
inline Twin<V> abs(Twin<V> x) {
  return {abs(x.a), abs(x.b)};
}

// d times a factor that may be infinite: no distance stays none.
template <typename V>
inline V scaled_distance(V d, V factor) {
  return by_vector([](auto u, auto f) { return u == 0 ? decltype(u){} : u * f; }, d, factor);
}

inline VecF sqrt(VecF x) {
#if defined(GENKERN_AVX512)
  return VecF(_mm512_sqrt_ps(__m512(x)));
#elif defined(GENKERN_AVX2)
  return VecF(_mm256_sqrt_ps(__m256(x)));
#elif defined(GENKERN_SSE2)
  return VecF(_mm_sqrt_ps(__m128(x)));
#else
  for (int i = 0; i < kLanes<float>; ++i) x[i] = std::sqrt(x[i]);
  return x;
#endif
}
inline Vec<double> sqrt(Vec<double> x) {
  return detail::by_lane(x, [](double v) { return std::sqrt(v); });
}

namespace detail {
template <typename V>
inline V infinite_above(float limit, V x, V y) {
  return by_vector([limit](auto u, auto v) { return u > limit ? splat(INFINITY) : v; }, x, y);
}

// x = n ln 2 + r with |r| <= ln 2 / 2; p = (e^r - 1 - r) / r^2; shifted = n + kRound
struct Reduced {
  VecF shifted, r, p;
};
inline Reduced reduce(VecF x) {
  const VecF shifted = x * kLog2e + kRound;
  const VecF n = shifted - kRound;
  const VecF r = (x - n * kLn2High) - n * kLn2Low;
  VecF p = splat(1.9875691500e-4f);
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  return {shifted, r, p};
}
inline VecI exponent_of(VecF shifted) {
  return bit_cast<VecI>(shifted) - bit_cast<VecI>(splat(kRound));
}
}  // namespace detail

// e^x, 1 ulp, subnormal results included.
inline VecF exp(VecF x) {
  using namespace detail;
  const auto [shifted, r, p] = reduce(min(max(x, splat(-104.0f)), splat(89.0f)));
  // Two factors, because 2^n itself leaves the range of normal numbers at both ends.
  const VecI n = exponent_of(shifted), half = n >> 1;
  return (p * r * r + r + 1.0f) * power_of_two(half) * power_of_two(n - half);
}
inline Vec<double> exp(Vec<double> x) {
  return detail::by_lane(x, [](double v) { return std::exp(v); });
}

// e^x - 1, 2 ulp.
inline VecF expm1(VecF x) {
  using namespace detail;
  const auto [shifted, r, p] = reduce(min(max(x, splat(-30.0f)), splat(89.0f)));
  // Half of 2^n, so that n = 128 is representable.
  const VecF s = power_of_two(exponent_of(shifted) - 1);
  return 2.0f * (s * (p * r * r + r) + (s - 0.5f));
}
inline Vec<double> expm1(Vec<double> x) {
  return detail::by_lane(x, [](double v) { return std::expm1(v); });
}

template <typename V>
struct Exponentials {
  V root, half_expm1, half_minus_x;  // e^{x/2}, (e^x - 1) / 2, (e^x - 1 - x) / 2
};

// All from one reduction, x = 2 n ln 2 + r with |r| <= ln 2, without cancellation around 0:
//   q = e^{r/2} - 1 = r / 2 + t,  h = 2^{n - 1},  s = 2^{2n - 1}
//   e^{x/2} = 2 h (1 + q),  (e^x - 1) / 2 = s (2 q + q^2) + (s - 1/2),
//   (e^x - 1 - x) / 2 = s (2 t + q^2) + (s r + (s - 1/2) - x / 2)
// s r and x / 2 are exact, and so are their sums where they cancel, beside +-ln 2; where n = 0, all
// of it is s (2 t + q^2), a sum of what is positive. 1, 2 and 5 ulp; a root below 2^-125.5 is 0.
// What is not used, the compiler leaves out.
template <typename V>
inline Exponentials<V> exponentials(V x) {
  using namespace detail;
  constexpr float kBias = kRound + 126;  // the last bits of `shifted` are the exponent of h
  const V bounded = clamp(x, -175.0f, 179.0f);
  const V shifted = bounded * (0.5f * kLog2e) + kBias, n = shifted - kBias;
  const V r = (bounded - n * (2 * kLn2High)) - n * (2 * kLn2Low), r2 = r * r;
  const V a = r * (1.9875691500e-4f / 128) + 1.3981999507e-3f / 64;
  const V b = r * (8.3334519073e-3f / 32) + 4.1665795894e-2f / 16;
  const V c = r * (1.6666665459e-1f / 8) + 5.0000001201e-1f / 4;
  const V t = ((a * r2 + b) * r2 + c) * r2, q = r * 0.5f + t;
  const V h = float_of_bits(bits_of(shifted) << 23), half = h * (1.0f + q);
  const V s = h * (h + h), d = s - 0.5f;
  const V expm1 = (q * q + (q + q)) * s + d;
  const V minus_x = (q * q + (t + t)) * s + ((s * r + d) - x * 0.5f);
  // From here on e^x / 2 is beyond the range, and the parts are inf - inf.
  constexpr float kLargest = 89.41f;
  return {half + half, infinite_above(kLargest, x, expm1), infinite_above(kLargest, x, minus_x)};
}
// e^x - 1 - x, by its series where the difference would cancel.
inline double expm1_minus_x(double x) {
  if (std::fabs(x) >= 0.5) return std::expm1(x) - std::fmin(x, 1e300);
  double series = 1;
  for (int n = 15; n > 2; --n) series = 1 + series * x / n;
  return 0.5 * series * x * x;
}
inline Exponentials<Vec<double>> exponentials(Vec<double> x) {
  const auto minus_x = [](double v) { return expm1_minus_x(v); };
  return {exp(0.5 * x), 0.5 * expm1(x), 0.5 * detail::by_lane(x, minus_x)};
}

// log x for normal finite x > 0, 1 ulp.
template <typename V>
inline V log_normal(V x) {
  using namespace detail;
  const auto bits = bits_of(x);
  // m in [sqrt(1/2), sqrt(2)), x = 2^e m
  const auto e = (bits - 0x3F3504F3) >> 23;
  const V f = float_of_bits(bits - (e << 23)) - 1.0f, n = to_float(e);
  V p = f * 7.0376836292e-2f - 1.1514610310e-1f;
  p = p * f + 1.1676998740e-1f;
  p = p * f - 1.2420140846e-1f;
  p = p * f + 1.4249322787e-1f;
  p = p * f - 1.6668057665e-1f;
  p = p * f + 2.0000714765e-1f;
  p = p * f - 2.4999993993e-1f;
  p = p * f + 3.3333331174e-1f;
  const V f2 = f * f;
  const V y = p * f * f2 + n * kLn2Low - f2 * 0.5f;
  return f + y + n * kLn2High;
}

// log x for x >= 2^-126 and +inf, 1 ulp; 0 gives -inf, negative numbers NaN.
inline VecF log(VecF x) {
  VecF y = log_normal(x);
  y = x > 3.4028234e38f ? x : y;
  y = x == 0.0f ? splat(-INFINITY) : y;
  return x < 0.0f || x != x ? splat(NAN) : y;
}
inline Vec<double> log(Vec<double> x) {
  return detail::by_lane(x, [](double v) { return std::log(v); });
}

// log(1 + x) for x in [0, inf], 2 ulp.
inline VecF log1p_nonnegative(VecF x) {
  const VecF u = 1.0f + x;
  const VecF lost = (x - (u - 1.0f)) / u;  // what rounding 1 + x dropped
  return log(u) + (x < 1e7f ? lost : VecF{});
}
inline Vec<double> log1p_nonnegative(Vec<double> x) {
  return detail::by_lane(x, [](double v) { return std::log1p(v); });
}

// e^-|x|, 1 ulp, subnormal results included. Two thirds of the instructions of exp: a result of at
// most 1 leaves room to carry 2^64 in the factor 2^n and 2^-64 in the polynomial, so that neither
// leaves the normal numbers, and the exponent comes out of the rounding constant ready to use.
template <typename V>
inline V exp_minus_abs(V x) {
  using namespace detail;
  constexpr float kBias = kRound + 127 + 64, kSmall = 0x1p-64f;
  const auto negative = [](auto u) { return bit_cast<VecF>(bit_cast<VecU>(u) | 0x80000000u); };
  x = at_least(by_vector(negative, x), -104.0f);
  const V shifted = x * kLog2e + kBias, n = shifted - kBias;
  const V r = (x - n * kLn2High) - n * kLn2Low, r2 = r * r;
  const V a = kSmall * 1.9875691500e-4f * r + kSmall * 1.3981999507e-3f;
  const V b = kSmall * 8.3334519073e-3f * r + kSmall * 4.1665795894e-2f;
  const V c = kSmall * 1.6666665459e-1f * r + kSmall * 5.0000001201e-1f;
  const V p = ((a * r2 + b) * r2 + c) * r2 + (kSmall * r + kSmall);
  return p * float_of_bits(bits_of(shifted) << 23);
}
inline Vec<double> exp_minus_abs(Vec<double> x) { return exp(-abs(x)); }

// log(1 + x) for x in [0, 2^100], 2 ulp. Half the cost of log1p_nonnegative: it needs no division,
// because 1 + x = 2^k (1 + f) with f = 2^-k x + (2^-k - 1) rounded once, and f = x while k = 0.
inline VecF log1p_finite(VecF x) {
  using namespace detail;
  const VecI k = (bit_cast<VecI>(1.0f + x) - 0x3F3504F3) & 0xFF800000;  // 2^23 times k
  const VecF s = bit_cast<VecF>(0x3F800000 - k), n = __builtin_convertvector(k, VecF);
  const VecF f = x * s + (s - 1.0f), f2 = f * f;
  const VecF a = 7.0376836292e-2f * f - 1.1514610310e-1f;
  const VecF b = 1.1676998740e-1f * f - 1.2420140846e-1f;
  const VecF c = 1.4249322787e-1f * f - 1.6668057665e-1f;
  const VecF d = 2.0000714765e-1f * f - 2.4999993993e-1f;
  const VecF p = (((a * f2 + b) * f2 + c) * f2 + d) * f + 3.3333331174e-1f;
  return f + ((p * f - 0.5f) * f2 + n * (0x1p-23f * kLn2Low)) + n * (0x1p-23f * kLn2High);
}
inline Vec<double> log1p_finite(Vec<double> x) { return log1p_nonnegative(x); }

// For one logarithm of vectors that stand side by side, since log(1 + a) + log(1 + b) =
// log(1 + (a + b + a b)), in which no small a is lost.
template <typename V>
inline V joint(V e) {
  return e;
}
template <typename V>
inline auto joint(Twin<V> e) {
  const auto a = joint(e.a), b = joint(e.b);
  return a + b + a * b;
}

template <typename V>
inline V sigmoid(V x) {
  return 1 / (1 + exp(-x));
}

// 3 ulp; results below 2^-126 are 0. One power of two is enough where the sum with 1 is normal.
inline VecF sigmoid(VecF x) {
  using namespace detail;
  const auto [shifted, r, p] = reduce(min(max(0 - x, splat(-87.0f)), splat(88.0f)));
  const VecI power = bit_cast<VecI>(p * r * r + r + 1.0f) + (bit_cast<VecI>(shifted) << 23);
  const VecF e = bit_cast<VecF>(power);
  const VecF y = 1.0f / (1.0f + e);
  return x < -87.3f ? VecF{} : y;
}

// tanh x = -t / (t + 2), t = e^{-2|x|} - 1; 3 ulp.
template <typename V>
inline V tanh(V x) {
  const V t = expm1(-2 * abs(x));
  const V y = t / (t + 2);
  return x < 0 ? y : 0 - y;
}

// tanh in half the time, 6 ulp. Never beyond +-1.
inline VecF quick_tanh(VecF x) {
  x = min(max(x, splat(-kTanhLimit)), splat(kTanhLimit));
  return min(max(tanh_ratio(x), splat(-1.0f)), splat(1.0f));
}
inline Vec<double> quick_tanh(Vec<double> x) { return tanh(x); }

// What a cell needs, as ScalarMath.
struct VectorMath {
  static auto sigmoid(auto x) { return core::sigmoid(x); }
  static auto tanh(auto x) { return quick_tanh(x); }
};

// log(1 + e^x) = max(x, 0) + log1p(e^{-|x|}): neither overflows nor loses small values.
template <typename V>
inline V softplus(V x) {
  return max(x, V{}) + log1p_finite(exp_minus_abs(x));
}

// -2 log x for normal finite x in (0, 1], 2 ulp.
template <typename V>
inline V minus_2_log_normal(V x) {
  const auto bits = bits_of(x);
  // m in [sqrt(1/2), sqrt(2)), x = 2^e m, e in units of 2^23
  const auto e = (bits - 0x3F3504F3) & 0xFF800000;
  const V f = float_of_bits(bits - e) - 1.0f, f2 = f * f, f4 = f2 * f2;
  // -2 log(1 + f) = -2 f + f^2 R(f), fitted to the least relative error (3.0e-8)
  const V a = f * -0.666678965f + 0.999999821f, b = f * -0.399243116f + 0.500035703f;
  const V c = f * -0.298335612f + 0.331400543f, d = f * -0.174810827f + 0.286198199f;
  const V r = (d * f2 + c) * f4 + (b * f2 + a);
  return r * f2 + (to_float(e) * (-2 * 0x1p-23f * detail::kLn2) - f * 2.0f);
}

// sin(pi t) and cos(pi t) for t in [-1, 1]; 2 ulp. With x = 1/2 - |t|, in [-1/2, 1/2],
//   cos(pi t) = sin(pi x) = x (2 + S(x^2)),  sin(pi t) = sign(t) cos(pi x) = w (4 + C(x^2)),
//   w = t (1 - |t|): the roots are factors, hence no quadrants, and no digits lost beside a root.
// S is small where the cosine is near 1, C where the sine is, so that their rounding is smaller
// still. Both are fitted to the least relative error of the result (1.1e-8 and 1.3e-9).
template <typename V>
inline void sincospi(V t, V& sine, V& cosine) {
  const V size = abs(t), x = 0.5f - size, x2 = x * x, x4 = x2 * x2;
#if defined(__FMA__)
  const V w = t - t * size;
#else
  const V w = t * (1.0f - size);  // t * size, rounded, would cost all digits beside a root
#endif
  const V s = (x4 * 0.0768870041f + (x2 * -0.597918451f + 2.55002165f)) * x4 +
              (x2 * -5.16770744f + 1.14159262f);
  const V c = (x4 * 0.0241604615f + (x2 * -0.228745326f + 1.27799165f)) * x4 + x2 * -3.73920822f;
  cosine = x * s + (x + x);
  sine = w * c + w * 4.0f;
}

}  // namespace genkern::core
