// y = tanh(a + c_a) sigmoid(b + c_b)         van den Oord et al. 2016, conditional PixelCNN, eq. 2
//
//   for (n < N) for (c < C) for (p < H * W)
//     y[n][c][p] = tanh(x[n][c][p]) * sigmoid(x[n][C + c][p]);
//
// Both memory formats are rows whose halves lie side by side or apart:
//   planes:         row (n, c), one value a pixel     channels last:  row (n, p), one value a
//   channel x[n]: | a0 | a1 | ... | b0 | b1 | ... |           x[n][p]: | a0 a1 ... | b0 b1 ... |
#pragma once
#include "../core/loops.h"
#include "../core/vecmath.h"

namespace genkern::core {

struct GatedRows {
  int64_t N, C, pixels;
  bool channels_last;

  int64_t count() const { return N * (channels_last ? pixels : C); }
  int64_t length() const { return channels_last ? C : pixels; }
  // Where the row of `a` starts in x; that of `b` is distance() further.
  int64_t begin(int64_t row) const {
    return channels_last ? row * 2 * C : (row / C * 2 * C + row % C) * pixels;
  }
  int64_t distance() const { return channels_last ? C : C * pixels; }
  // Where the values of a row start in a condition (N, 2C); b's are C further.
  int64_t condition(int64_t row) const {
    return channels_last ? row / pixels * 2 * C : row / C * 2 * C + row % C;
  }
};

template <typename V>
struct GatedSlopes {
  V a, b;  // dy/da, dy/db
};

namespace detail {
// e^r - 1 for r = kTimes x, |r| <= ln 2 / 2: what an exponential is reduced to. 1.4e-8 relative.
template <int kTimes, typename V>
inline V reduced_expm1(V x) {
  constexpr float k1 = kTimes, k2 = k1 * k1, k4 = k2 * k2;
  const V x2 = x * x;
  const V a = x * (8.3662523e-3f * k4 * k1) + 4.1667439e-2f * k4;
  const V b = x * (1.66665465e-1f * k2 * k1) + 4.9999997e-1f * k2;
  return ((x2 * (1.38702802e-3f * k4 * k2) + a) * x2 + b) * x2 + x * k1;
}
template <typename V>
inline V minus_abs(V x) {
  return by_vector([](auto u) { return bit_cast<VecF>(bit_cast<VecU>(u) | 0x80000000u); }, x);
}
// x >= 0 with the sign of y.
template <typename V>
inline V with_sign_of(V x, V y) {
  const auto sign = [](auto u, auto v) {
    return bit_cast<VecF>(bit_cast<VecU>(u) ^ (bit_cast<VecU>(v) & 0x80000000u));
  };
  return by_vector(sign, x, y);
}
// x < 0 ? y : 1
template <typename V>
inline V if_negative(V x, V y) {
  return by_vector([](auto u, auto v) { return bits_of(u) < 0 ? v : splat(1.0f); }, x, y);
}
}  // namespace detail

// One division for both: y = x P(x^2) / (Q(x^2) (1 + e^-b)), with Q of tanh_ratio below 1, so that
// the denominator stays finite while e^-b does. Where e^-b is above 2^127.5, y is 0.
template <typename V>
inline V gated(V a, V b) {
  using namespace detail;
  constexpr float kBias = kRound + 127, kSmall = 0x1p-9f;
  const V x = clamp(a, -kTanhLimit, kTanhLimit), s = x * x, s2 = s * s;
  const V p = (s * (kSmall * 1.331716356e-8f) + kSmall * 2.058236426e-5f) * s2 * s +
              (s * (kSmall * 3.493980192e-3f) + kSmall * 1.337967746e-1f) * s +
              kSmall * 0.9999999797f;
  const V q = (s * (kSmall * 7.761311722e-7f) + kSmall * 3.282993939e-4f) * s2 * s +
              (s * (kSmall * 2.587088233e-2f) + kSmall * 0.46712993f) * s + kSmall;
  const V v = clamp(b, -88.9f, 88.0f), shifted = v * -kLog2e + kBias;
  const V minus_r = v + (shifted - kBias) * kLn2;
  const V power = float_of_bits(bits_of(shifted) << 23);
  const V e = (1.0f + reduced_expm1<-1>(minus_r)) * power;  // power may be inf
  return clamp(x * p / (e * q + q), -1.0f, 1.0f);
}
inline Vec<double> gated(Vec<double> a, Vec<double> b) { return tanh(a) * sigmoid(b); }

// With f = e^{-2|a|} and e = e^-|b|:
//   dy/da = 4 f / (1 + f)^2 (b < 0 ? e : 1) / (1 + e),  dy/db = +-(1 - f) / (1 + f) e / (1 + e)^2
// and one division: no tail is a difference of numbers that are nearly equal.
template <typename V>
inline GatedSlopes<V> gated_slopes(V a, V b) {
  using namespace detail;
  // 4 f and not f: where f is subnormal, its slope is not yet 0.
  constexpr float kBiasOf4 = kRound + 127 + 2;
  const V u = at_least(minus_abs(a), -44.7f), shifted_f = u * (2 * kLog2e) + kBiasOf4;
  const V r_f = u - (shifted_f - kBiasOf4) * (0.5f * kLn2);
  const V four = float_of_bits(bits_of(shifted_f) << 23), one = four * 0.25f;
  const V q_f = reduced_expm1<2>(r_f), four_f = q_f * four + four, f = four_f * 0.25f;
  // e is carried as 2^64 times 2^-64 e: no tail of the sigmoid leaves the normal numbers early.
  constexpr float kBias = kRound + 127 + 64, kSmall = 0x1p-64f;
  const V v = at_least(minus_abs(b), -104.0f), shifted_e = v * kLog2e + kBias;
  const V small = reduced_expm1<1>(v - (shifted_e - kBias) * kLn2) * kSmall + kSmall;
  const V e = small * float_of_bits(bits_of(shifted_e) << 23);
  const V d_f = 1.0f + f, d_e = 1.0f + e, both = 1.0f / (d_f * d_e);
  const V tanh_part = with_sign_of((1.0f - one) - q_f * one, a);
  return {both * (four_f * (d_e * both)) * if_negative(b, e),
          both * (tanh_part * (d_f * both)) * e};
}
inline GatedSlopes<Vec<double>> gated_slopes(Vec<double> a, Vec<double> b) {
  const Vec<double> f = exp_minus_abs(2 * a), q = 1 / (1 + f);
  const Vec<double> e = exp_minus_abs(b), r = 1 / (1 + e);
  const Vec<double> sigmoid = b < 0 ? e * r : r;
  return {sigmoid * (4 * f * q * q), tanh(a) * (e * r * r)};
}

// A chunk of a row: its halves, and what is added to all of each.
template <typename A>
struct GatedChunk {
  const A *a, *b;
  bool is_shifted = false;
  A shift_a = 0, shift_b = 0;

  // Calls f(add): add(values, shift of their half).
  template <typename F>
  void with_shift(const F& f) const {
    if (is_shifted)
      f([](auto v, A shift) { return v + shift; });
    else
      f([](auto v, A) { return v; });
  }
};

template <typename A>
[[gnu::flatten]] void gated_chunk(int64_t count, const GatedChunk<A>& x, A* y) {
  x.with_shift([&](auto add) {
    for_fours<A>(count, [=](auto load, auto store) {
      store(y, gated(add(load(x.a), x.shift_a), add(load(x.b), x.shift_b)));
    });
  });
}
template <typename A>
[[gnu::flatten]] void gated_backward_chunk(int64_t count, const GatedChunk<A>& x, const A* d_y,
                                           A* d_a, A* d_b) {
  x.with_shift([&](auto add) {
    for_fours<A>(count, [=](auto load, auto store) {
      const auto slope = gated_slopes(add(load(x.a), x.shift_a), add(load(x.b), x.shift_b));
      const auto d = load(d_y);
      store(d_a, d * slope.a), store(d_b, d * slope.b);
    });
  });
}

}  // namespace genkern::core
