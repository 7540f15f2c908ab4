// Terms of the GAN losses and their slopes: one value per logit, on vectors of any width.
// Goodfellow et al. 2014 (bce), Lim & Ye 2017 (hinge), Mao et al. 2017 (lsgan),
// Arjovsky et al. 2017 (wgan), Jolicoeur-Martineau 2019 (rabce).
#pragma once
#include "../core/vecmath.h"

namespace genkern::core {

// The numbers are those of genkern/ops/gan_loss.py.
enum class GanKind : int64_t { kBce, kHinge, kLsgan, kWgan, kRabce };
enum class GanMode : int64_t { kDiscriminator, kGenerator, kSaturatingGenerator };
enum class GanTerm { kCrossEntropy, kHinge, kSquare, kLinear };

// The term of one set of logits.
struct GanSide {
  double scale, target;
};

// y = scale (target softplus(-x) + (1 - target) softplus(x))
//   = scale (log1p(e^-|x|) + m |x|),  m = target for x < 0, else 1 - target
// A factor of exactly 0 drops the tail, so that the limits at +-inf come out as 0 and not as NaN.
template <typename A>
struct GanCrossEntropy {
  A scale, target;
  Vec<A> tail(Vec<A> x) const {
    const Vec<A> m = x < 0 ? splat(target) : splat(1 - target);
    return m == 0 ? Vec<A>{} : m * abs(x);
  }
  Vec<A> value(Vec<A> x) const { return scale * (log1p_finite(exp_minus_abs(x)) + tail(x)); }
  // sigmoid(x) - target, written so that neither end of sigmoid loses its small values.
  Vec<A> slope(Vec<A> x) const {
    const Vec<A> e = exp_minus_abs(x);
    const A low = -scale * target, high = scale * (1 - target);
    return (x < 0 ? high * e + low : low * e + high) / (1 + e);
  }
};

// y = max(1 + scale x, 0);  the slope at the kink is 0, as that of torch.relu.
template <typename A>
struct GanHinge {
  A scale, target;
  Vec<A> value(Vec<A> x) const { return max(1 + scale * x, Vec<A>{}); }
  Vec<A> slope(Vec<A> x) const { return 1 + scale * x <= 0 ? Vec<A>{} : splat(scale); }
};

// y = scale (x - target)^2
template <typename A>
struct GanSquare {
  A scale, target;
  Vec<A> value(Vec<A> x) const { return scale * (x - target) * (x - target); }
  Vec<A> slope(Vec<A> x) const { return 2 * scale * (x - target); }
};

// y = scale x
template <typename A>
struct GanLinear {
  A scale, target;
  Vec<A> value(Vec<A> x) const { return scale * x; }
  Vec<A> slope(Vec<A>) const { return splat(scale); }
};

inline GanTerm gan_term(GanKind kind, GanMode mode) {
  switch (kind) {
    case GanKind::kHinge:
      return mode == GanMode::kDiscriminator ? GanTerm::kHinge : GanTerm::kLinear;
    case GanKind::kLsgan:
      return GanTerm::kSquare;
    case GanKind::kWgan:
      return GanTerm::kLinear;
    default:
      return GanTerm::kCrossEntropy;
  }
}

inline GanSide gan_real_side(GanKind kind, GanMode mode, double target) {
  if (kind == GanKind::kHinge || kind == GanKind::kWgan) return {-1, 0};
  const double scale = kind == GanKind::kBce ? 1 : 0.5;
  if (mode == GanMode::kDiscriminator) return {scale, target};
  return mode == GanMode::kGenerator ? GanSide{scale, 0} : GanSide{-scale, 1};
}

inline GanSide gan_fake_side(GanKind kind, GanMode mode) {
  const bool discriminator = mode == GanMode::kDiscriminator;
  if (kind == GanKind::kHinge || kind == GanKind::kWgan) return {discriminator ? 1.0 : -1.0, 0};
  const double scale = kind == GanKind::kBce ? 1 : 0.5;
  if (discriminator) return {scale, 0};
  return mode == GanMode::kGenerator ? GanSide{scale, 1} : GanSide{-scale, 0};
}

// Lanes below `count`; the others are 0.
template <typename V>
inline V first_lanes(V v, int64_t count) {
  V kept{};
  for (int64_t i = 0; i < count; ++i) kept[i] = v[i];
  return kept;
}

// Adds a vector to double accumulators: terms of 1e-8 and of 1e38 keep their digits, and float
// sums of any length lose nothing.
struct WideSum {
  Vec<double> parts[2]{};

  void add(Vec<double> v) { parts[0] += v; }
  void add(VecF v) {
#if defined(GENKERN_AVX512)
    parts[0] += Vec<double>(_mm512_cvtps_pd(_mm512_castps512_ps256(__m512(v))));
    parts[1] += Vec<double>(_mm512_cvtps_pd(_mm512_extractf32x8_ps(__m512(v), 1)));
#elif defined(GENKERN_AVX2)
    parts[0] += Vec<double>(_mm256_cvtps_pd(_mm256_castps256_ps128(__m256(v))));
    parts[1] += Vec<double>(_mm256_cvtps_pd(_mm256_extractf128_ps(__m256(v), 1)));
#else
    typedef float Part __attribute__((vector_size(kVectorBytes / 2)));
    Part halves[2];
    std::memcpy(halves, &v, sizeof(v));
    for (int i = 0; i < 2; ++i) parts[i] += __builtin_convertvector(halves[i], Vec<double>);
#endif
  }
  double total() const { return sum_lanes(parts[0] + parts[1]); }
};

// sum_i f(i) for i in [0, count), in one fixed order. `f` gets a loader: load(p) is the vector at
// p + i, filled up with zeros past the end.
template <typename T, typename F>
inline double sum_terms(int64_t count, F f) {
  constexpr int kStep = kLanes<Accumulate<T>>;
  WideSum sum;
  int64_t i = 0;
  for (; i + kStep <= count; i += kStep) sum.add(f([&](const T* p) { return load(p + i); }));
  if (i < count) {
    const auto part = [&](const T* p) { return load_partial(p + i, count - i); };
    sum.add(first_lanes(f(part), count - i));
  }
  return sum.total();
}

// The sum of term.value(f(i)), `f` as above.
template <typename T, typename Term, typename F>
inline double sum_values(int64_t count, const Term& term, F f) {
  return sum_terms<T>(count, [&](auto load) { return term.value(f(load)); });
}

// The sum of log(1 + e^-|x|) + tail(x) with x = f(i). Four vectors share one logarithm, since
// log(1 + a) + log(1 + b) = log(1 + (a + b + a b)), in which no small a is lost; it is taken one
// step later, beside the exponentials that do not wait for it. Tails are added as quarters, so that
// four large ones stay finite.
template <typename T, typename F, typename Tail>
inline double sum_softplus(int64_t count, F f, Tail tail) {
  using V = Vec<Accumulate<T>>;
  constexpr int kStep = kLanes<Accumulate<T>>;
  constexpr auto kQuarter = Accumulate<T>(0.25);
  WideSum logs, quarters;
  V product{};
  int64_t i = 0;
  for (; i + 4 * kStep <= count; i += 4 * kStep) {
    const V log = log1p_finite(product);
    V e[4], tails{};
    for (int u = 0; u < 4; ++u) {
      const V x = f([&](const T* p) { return load(p + i + u * kStep); });
      e[u] = exp_minus_abs(x);
      tails += kQuarter * tail(x);
    }
    const V ab = e[0] + e[1] + e[0] * e[1], cd = e[2] + e[3] + e[2] * e[3];
    product = ab + cd + ab * cd;
    logs.add(log);
    quarters.add(tails);
  }
  logs.add(log1p_finite(product));
  const auto rest = [&](auto load) {
    const V x = f([&](const T* p) { return load(p + i); });
    return log1p_finite(exp_minus_abs(x)) + tail(x);
  };
  return logs.total() + 4 * quarters.total() + sum_terms<T>(count - i, rest);
}

template <typename T, typename F>
inline double sum_values(int64_t count, const GanCrossEntropy<Accumulate<T>>& term, F f) {
  using V = Vec<Accumulate<T>>;
  const auto high = 1 - term.target, low = -term.target;
  if (low != 0 && high != 0)
    return term.scale * sum_softplus<T>(count, f, [=](V x) { return max(high * x, low * x); });
  const auto sign = high + low;  // the target is 0 or 1: no product of 0 and inf
  return term.scale * sum_softplus<T>(count, f, [=](V x) { return max(sign * x, V{}); });
}

// y[i] = f(i) for i in [0, count), `f` as above.
template <typename T, typename F>
inline void map_terms(T* y, int64_t count, F f) {
  constexpr int kStep = kLanes<Accumulate<T>>;
  int64_t i = 0;
  for (; i + kStep <= count; i += kStep) store(y + i, f([&](const T* p) { return load(p + i); }));
  if (i < count) {
    const auto part = [&](const T* p) { return load_partial(p + i, count - i); };
    store_partial(y + i, f(part), count - i);
  }
}

}  // namespace genkern::core
