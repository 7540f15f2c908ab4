// A mixture of K discretized logistics over the integers of a pixel (Salimans et al. 2017,
// PixelCNN++, sec. 2.1, 2.2), with log P exact where the difference of sigmoids cancels.
//
// Lengths are counted in half-bins h = 1 / (levels - 1). With Z = (x - m) / h and tau = h e^-s,
// p = tau (Z + 1), q = tau (Z - 1), d = 2 tau:
//
//   sigmoid(p) - sigmoid(q) = (1 - e^-d) / ((1 + e^-p) (1 + e^q))
//   log P = -tau max(|Z| - 1, 0) + log((1 - e^-d) / ((1 + e) (1 + E))),   e, E = e^-min, e^-max of
//                                                                          |p|, |q|
//   d log P / dm = t (sigmoid(q) - sigmoid(-p)) = t sign(Z) (1 - e^-2 tau |Z|) (|Z| < 1 ? e : 1) /
//                                                 ((1 + e) (1 + E))
// and in the bins at the ends log P = log sigmoid(g tau), g = 1 +- Z. Nothing cancels, and the
// colours of a component share one logarithm, that of the product of their quotients:
//
//   for (k < K) {
//     ll[k] = logits[k] - largest;
//     for (c < colours) ll[k] += log P(c);
//   }
//   nll = log sum exp(logits - largest) - log sum exp ll
#pragma once
#include "../core/loops.h"
#include "../core/philox.h"

namespace genkern::core {

inline constexpr int64_t kPixels = block_size(64, 16);  // of a block: planes of so many elements
static_assert(kPixels % (64 / sizeof(float)) == 0);

// ---- arithmetic beyond vecmath.h ---------------------------------------------------------------

// Means are formed in double: at log-scale -7 an error of one float rounding of m is 7e-5 nats.
template <typename A>
using Wide = std::conditional_t<std::is_same_v<A, float>, Twin<Vec<double>>, Vec<double>>;

inline Vec<double> widen(Vec<double> v) { return v; }
inline Vec<double> narrow(Vec<double> v) { return v; }
inline Twin<Vec<double>> widen(VecF v) {
#if defined(GENKERN_AVX512)
  return {Vec<double>(_mm512_cvtps_pd(_mm512_castps512_ps256(__m512(v)))),
          Vec<double>(_mm512_cvtps_pd(_mm512_extractf32x8_ps(__m512(v), 1)))};
#elif defined(GENKERN_AVX2)
  return {Vec<double>(_mm256_cvtps_pd(_mm256_castps256_ps128(__m256(v)))),
          Vec<double>(_mm256_cvtps_pd(_mm256_extractf128_ps(__m256(v), 1)))};
#else
  typedef float Part __attribute__((vector_size(kVectorBytes / 2)));
  Part halves[2];
  std::memcpy(halves, &v, sizeof(v));
  return {__builtin_convertvector(halves[0], Vec<double>),
          __builtin_convertvector(halves[1], Vec<double>)};
#endif
}
inline VecF narrow(Twin<Vec<double>> v) {
#if defined(GENKERN_AVX512)
  return VecF(_mm512_insertf32x8(_mm512_castps256_ps512(_mm512_cvtpd_ps(__m512d(v.a))),
                                 _mm512_cvtpd_ps(__m512d(v.b)), 1));
#elif defined(GENKERN_AVX2)
  return VecF(_mm256_insertf128_ps(_mm256_castps128_ps256(_mm256_cvtpd_ps(__m256d(v.a))),
                                   _mm256_cvtpd_ps(__m256d(v.b)), 1));
#else
  typedef float Part __attribute__((vector_size(kVectorBytes / 2)));
  const Part halves[2] = {__builtin_convertvector(v.a, Part), __builtin_convertvector(v.b, Part)};
  return bit_cast<VecF>(halves);
#endif
}

template <typename V>
struct Decay {
  V rest, gone;  // e^-y, 1 - e^-y
};

// For y >= 0, both within 3 ulp; from y = 87 on as at 87.
inline Decay<VecF> decay(VecF y) {
  y = min(y, splat(87.0f));
  const VecF shifted = y * -1.44269504f + 12582912.0f, n = shifted - 12582912.0f;
  const VecF r = (-y - n * 0.693359375f) - n * -2.12194440e-4f, r2 = r * r;
  const VecF a = 1.9875691500e-4f * r + 1.3981999507e-3f;
  const VecF b = 8.3334519073e-3f * r + 4.1665795894e-2f;
  const VecF c = 1.6666665459e-1f * r + 5.0000001201e-1f;
  const VecF m = ((a * r2 + b) * r2 + c) * r2 + r;  // e^r - 1
  const VecF power = bit_cast<VecF>((bit_cast<VecI>(shifted) << 23) + 0x3F800000);
  return {power * m + power, (1.0f - power) - power * m};
}
inline Decay<Vec<double>> decay(Vec<double> y) {
  y = min(y, splat(700.0));
  return {exp(-y), 0.0 - expm1(-y)};
}

// e^-s for s >= -7, within 2 ulp; from s = 87 on as at 87.
inline VecF inverse_scale(VecF s) {
  s = min(s, splat(87.0f));
  const VecF shifted = s * -1.44269504f + 12582912.0f, n = shifted - 12582912.0f;
  const VecF r = (-s - n * 0.693359375f) - n * -2.12194440e-4f, r2 = r * r;
  const VecF a = 1.9875691500e-4f * r + 1.3981999507e-3f;
  const VecF b = 8.3334519073e-3f * r + 4.1665795894e-2f;
  const VecF c = 1.6666665459e-1f * r + 5.0000001201e-1f;
  const VecF m = ((a * r2 + b) * r2 + c) * r2 + r;
  const VecF power = bit_cast<VecF>((bit_cast<VecI>(shifted) << 23) + 0x3F800000);
  return power * m + power;
}
inline Vec<double> inverse_scale(Vec<double> s) { return exp(-min(s, splat(700.0))); }

template <typename W, typename V>
struct Coupling {
  W tanh;
  V slope;  // 1 - tanh^2
};

// tanh and its slope within 1e-9, from f = e^-2|k|; no slope is a difference.
inline Coupling<Vec<double>, Vec<double>> coupling_part(Vec<double> k) {
  const Vec<double> y = min(abs(k) * 2, splat(80.0));
  const Vec<double> shifted = y * -1.4426950408889634 + 0x1.8p52, n = shifted - 0x1.8p52;
  const Vec<double> r = -y - n * 0.6931471805599453;
  Vec<double> p = r * (1.0 / 40320) + 1.0 / 5040;
  p = p * r + 1.0 / 720;
  p = p * r + 1.0 / 120;
  p = p * r + 1.0 / 24;
  p = p * r + 1.0 / 6;
  p = p * r + 0.5;
  p = p * r + 1.0;
  p = p * r + 1.0;
  using Bits = Vec<int64_t>;
  const Bits power = (bit_cast<Bits>(shifted) << 52) + 0x3FF0000000000000;
  const Vec<double> f = p * bit_cast<Vec<double>>(power), inverse = 1.0 / (1.0 + f);
  const Vec<double> t = (1.0 - f) * inverse;
  return {k < 0 ? -t : t, 4.0 * f * inverse * inverse};
}
inline Coupling<Wide<float>, VecF> coupling(VecF k) {
  const Twin<Vec<double>> w = widen(k);
  const auto a = coupling_part(w.a), b = coupling_part(w.b);
  return {{a.tanh, b.tanh}, narrow({a.slope, b.slope})};
}
inline Coupling<Vec<double>, Vec<double>> coupling(Vec<double> k) {
  const Vec<double> f = exp(-2 * abs(k)), t = tanh(k);
  return {t, 4 * f / ((1 + f) * (1 + f))};
}

// ---- one colour of one component ---------------------------------------------------------------

template <typename A>
struct Bins {
  explicit Bins(int64_t levels) : levels(levels), last(A(levels - 1)), half(1 / last) {}

  int64_t levels;
  A last, half;
  // From this log-scale on d is below kNarrow, and log(1 - e^-d) = log d falls linearly with it.
  static constexpr A kNarrow = A(0x1p-40);
  A narrow_from = std::log(2 * half) - std::log(kNarrow);
};

inline constexpr float kMinLogScale = -7.0f;

template <typename V>
struct Colour {
  V linear, top, bottom;  // log P = linear + log(top / bottom)
  V d_mean, d_log_scale;  // of log P
};

// x = 2 v - last; Z = (x - m) / h.
template <bool kGradients, typename A>
inline Colour<Vec<A>> colour(Vec<A> x, Vec<A> Z, Vec<A> log_scale, const Bins<A>& bins) {
  using V = Vec<A>;
  const V s = max(log_scale, splat(A(kMinLogScale)));
  const V t = inverse_scale(s), tau = t * bins.half, one = splat(A(1)), zero{};
  const V width = max(2 * tau, splat(Bins<A>::kNarrow));
  const auto first = x == -bins.last, end = first | (x == bins.last);
  const V away = abs(Z);
  const V g = 1 - (end ? (first ? -Z : Z) : away);  // how far the nearer end of the bin lies
  const auto far = g <= 0;
  const V e = decay(tau * abs(g)).rest;
  const Decay<V> d = decay(width), centre = decay(2 * tau * away);
  const V other = end ? zero : e * (far ? d.rest : centre.rest);
  const V bottom = (1 + e) * (1 + other), top = end ? one : d.gone;
  const V narrow = max(s - bins.narrow_from, zero);
  const V linear = (far ? tau * g : zero) - (end ? zero : narrow);
  if (!kGradients) return {linear, top, bottom, zero, zero};
  const V inverse = 1 / (bottom * top), over = inverse * top;
  const V pull = (end ? one : centre.gone) * (far ? one : e) * over;  // |d log P / dm| / t
  const V both = far ? 1 + other * (2 + e) : e + other * (1 + 2 * e);
  const V spread = tau * both * over + width * d.rest * (inverse * bottom);
  // Infinite times no slope at all is none.
  const V reach = max(min(end ? -g : away, splat(A(1e30))), splat(A(-1e30)));
  const V d_log_scale = tau * reach * pull - (end ? zero : spread);
  const auto negative = first | ((end == 0) & (Z < 0));
  return {linear, top, bottom, t * (negative ? -pull : pull),
          log_scale < A(kMinLogScale) ? zero : d_log_scale};
}

// ---- a block of pixels -------------------------------------------------------------------------

// Planes of the parameters: logits, then for each colour means, log-scales and, where there are
// three, coefficients; K planes of each.
template <int kColours>
struct Planes {
  static constexpr int kEach = kColours == 3 ? 3 : 2, kCount = 1 + kColours * kEach;
  static constexpr int mean(int c) { return 1 + kEach * c; }
  static constexpr int log_scale(int c) { return 2 + kEach * c; }
  static constexpr int coefficient(int c) { return 3 + kEach * c; }
};

// Parameters and gradients (kCount, K, kPixels); x = 2 v - last and nats (kColours or 1, kPixels).
// `joint` holds K vectors. The gradients are `upstream` times those of the nats.
template <bool kGradients, int kColours, typename A>
void mixture_block(const A* params, int64_t K, const A* x, int64_t count, const Bins<A>& bins,
                   Vec<A>* joint, A* nats, A upstream, A* d_params) {
  using V = Vec<A>;
  using P = Planes<kColours>;
  for (int64_t i = 0; i < count; i += kLanes<A>) {
    const auto at = [&](int plane, int64_t k) { return (plane * K + k) * kPixels + i; };
    V values[kColours], largest = splat(A(-INFINITY)), prior{}, highest = largest, total{};
    for (int c = 0; c < kColours; ++c) values[c] = load(x + c * kPixels + i);
    for (int64_t k = 0; k < K; ++k) largest = max(load(params + at(0, k)), largest);
    for (int64_t k = 0; k < K; ++k) {
      const V logit = load(params + at(0, k)) - largest, weight = exp_minus_abs(logit);
      prior += weight;
      V linear = logit, quotient = splat(A(1)), tops = quotient, d_mean[kColours], slope[3];
      Wide<A> tanh[3];
      if constexpr (kColours == 3)
        for (int c = 0; c < 3; ++c) {
          const auto [value, derivative] = coupling(load(params + at(P::coefficient(c), k)));
          tanh[c] = value, slope[c] = derivative;
        }
      for (int c = 0; c < kColours; ++c) {
        auto Z = widen(values[c]) - widen(load(params + at(P::mean(c), k))) * double(bins.last);
        if constexpr (kColours == 3) {
          if (c == 1) Z = Z - tanh[0] * widen(values[0]);
          if (c == 2) Z = Z - tanh[1] * widen(values[0]) - tanh[2] * widen(values[1]);
        }
        const V log_scale = load(params + at(P::log_scale(c), k));
        const auto found = colour<kGradients>(values[c], narrow(Z), log_scale, bins);
        linear += found.linear, tops *= found.top, quotient *= found.bottom;
        if constexpr (kGradients) {
          d_mean[c] = found.d_mean;
          store(d_params + at(P::mean(c), k), found.d_mean);
          store(d_params + at(P::log_scale(c), k), found.d_log_scale);
        }
      }
      if constexpr (kGradients && kColours == 3) {
        const V red = values[0] * bins.half, green = values[1] * bins.half;
        store(d_params + at(P::coefficient(0), k), d_mean[1] * red * slope[0]);
        store(d_params + at(P::coefficient(1), k), d_mean[2] * red * slope[1]);
        store(d_params + at(P::coefficient(2), k), d_mean[2] * green * slope[2]);
      }
      if constexpr (kGradients) store(d_params + at(0, k), weight);
      joint[k] = linear + log(tops / quotient);
      highest = max(joint[k], highest);
    }
    highest = highest == -INFINITY ? V{} : highest;
    for (int64_t k = 0; k < K; ++k) {
      joint[k] = exp_minus_abs(joint[k] - highest);
      total += joint[k];
    }
    if constexpr (kGradients) {
      const V scale = upstream / total, of_prior = upstream / prior;
      for (int64_t k = 0; k < K; ++k) {
        const V share = joint[k] * scale;
        A* to = d_params + at(0, k);
        store(to, load(to) * of_prior - share);
        for (int plane = 1; plane < P::kCount; ++plane) {
          to = d_params + at(plane, k);
          store(to, -share * load(to));
        }
      }
    } else {
      store(nats + i, log(prior) - (highest + log(total)));
    }
  }
}

// ---- samples -----------------------------------------------------------------------------------

// Uniform numbers of the elements first, ..., first + count - 1 <= kPixels of a Philox stream.
class UniformStream {
 public:
  explicit UniformStream(uint64_t seed) : seed_(seed) {}

  const float* get(uint64_t first, int64_t count) {
    const uint64_t begin = first & ~uint64_t(3);
    for (uint64_t e = begin; e < first + count; e += kPhiloxElements) {
      VecU words[4];
      philox(seed_, e / 4, words);
      VecF u[4];
      for (int i = 0; i < 4; ++i)
        u[i] = to_float(bit_cast<VecI>(words[i] >> 1)) * 0x1p-31f + 0x1p-32f;
      const VecF even_low = zip_low(u[0], u[2]), even_high = zip_high(u[0], u[2]);
      const VecF odd_low = zip_low(u[1], u[3]), odd_high = zip_high(u[1], u[3]);
      float* to = numbers_ + (e - begin);
      store(to, zip_low(even_low, odd_low));
      store(to + kLanes<float>, zip_high(even_low, odd_low));
      store(to + 2 * kLanes<float>, zip_low(even_high, odd_high));
      store(to + 3 * kLanes<float>, zip_high(even_high, odd_high));
    }
    return numbers_ + (first - begin);
  }

 private:
  uint64_t seed_;
  alignas(64) float numbers_[kPixels + 4 + 2 * kPhiloxElements];
};

// The component of each pixel: the first whose cumulative weight exceeds u times the sum.
template <typename A>
void choose_components(const A* logits, int64_t K, const A* u, int64_t count, A inverse_temperature,
                       Vec<A>* cumulative, int32_t* chosen) {
  using V = Vec<A>;
  for (int64_t i = 0; i < count; i += kLanes<A>) {
    V largest = splat(A(-INFINITY)), sum{}, index{};
    for (int64_t k = 0; k < K; ++k) largest = max(load(logits + k * kPixels + i), largest);
    for (int64_t k = 0; k < K; ++k) {
      const V logit = load(logits + k * kPixels + i) - largest;
      sum += exp_minus_abs(logit * inverse_temperature);
      cumulative[k] = sum;
    }
    const V limit = load(u + i) * sum;
    for (int64_t k = 0; k + 1 < K; ++k) index += cumulative[k] <= limit ? splat(A(1)) : V{};
    for (int lane = 0; lane < kLanes<A>; ++lane) chosen[i + lane] = int32_t(index[lane]);
  }
}

// Integers of one colour, as numbers: mean (with what earlier colours add) and log-scale of the
// chosen components, u uniform. In place of the means.
template <typename A>
void draw_colour(A* mean, const A* log_scale, const A* u, int64_t count, A temperature,
                 const Bins<A>& bins) {
  using V = Vec<A>;
  for (int64_t i = 0; i < count; i += kLanes<A>) {
    const V uniform = min(max(load(u + i), splat(A(0x1p-32))), splat(A(1 - 0x1p-24)));
    const V logistic = log(uniform) - log(1 - uniform);
    const V s = max(load(log_scale + i), splat(A(kMinLogScale)));
    const V spread = temperature * exp(s) * logistic;
    const V v = (load(mean + i) + spread + 1) * (bins.last / 2);
    const V inside = min(max(v, V{}), splat(bins.last)) + A(0.5);
    for (int lane = 0; lane < kLanes<A>; ++lane)
      mean[i + lane] = inside[lane] >= 0 ? std::floor(inside[lane]) : 0;
  }
}

}  // namespace genkern::core
