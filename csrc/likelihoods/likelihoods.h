// Nats of independent elements, and their slopes, a chunk at a time:
//
//   Bernoulli             m |a| + log(1 + e^-|a|)              a logit, m = 1 - x for a > 0, else x
//   continuous Bernoulli  m |a| + log((1 - e^-|a|) / |a|)      Loaiza-Ganem and Cunningham 2019
//   Gaussian              (u^2 + l + log 2 pi) / 2             u = (x - m) e^{-l / 2}, l log
//   variance discretized logistic  -log P(v), as in logistic.h          v integer; mean, log-scale
//
// of `location` (a or m), `scale` (l or the log-scale) and `target`. That m |a| is 0 where m is
// keeps the small values of both tails: in log(1 + e^a) - x a they cancel.
//
//   for (i < count) terms[i] = nats of element i;
//   for (i < count) d_location[i] = upstream[i] * slope of element i; ...
#pragma once
#include "../core/logistic.h"

namespace genkern::core {

// The numbers are those of genkern/ops/likelihoods.py.
enum class Likelihood : int64_t { kBernoulli, kContinuousBernoulli, kGaussian, kLogistic };

// Where the elements of a chunk are. Without `scale`, that of all is `shared`.
template <typename A>
struct Elements {
  const A *location, *scale, *target;
  A shared;
  const double* integers;  // 2 v - (levels - 1)
};

// Where the gradients of a chunk go; those of the target may be null.
template <typename A>
struct Slopes {
  A *location, *scale, *target;
};

// ---- Bernoulli -------------------------------------------------------------------------------

// Of y = |a|: log(1 + e^-y) and its slope.
struct EventNormaliser {
  template <typename V>
  static V value(V y) {
    return log1p_finite(exp_minus_abs(y));
  }
  template <typename V>
  static V slope(V y) {
    const V e = exp_minus_abs(y);
    return -e / (1 + e);
  }
};

// B_2n / (2n (2n)!) with Bernoulli's numbers B: log((1 - e^-y) / y) = -y / 2 + sum of c_n y^2n.
inline constexpr double kLogSinh[] = {1.0 / 24,
                                      -1.0 / 2880,
                                      1.0 / 181440,
                                      -1.0 / 9676800,
                                      1.0 / 479001600,
                                      -4.403491782239578e-11,
                                      9.55895466477477e-13,
                                      -2.1185501852016142e-14,
                                      4.770034475709914e-16};

// log((1 - e^-y) / y) and its slope: the logarithm cancels as y goes to 0, its series does not.
struct DensityNormaliser {
  // The terms below the rounding of the first one are left out.
  template <typename V>
  static constexpr int kTerms = std::is_same_v<V, Vec<double>> ? 9 : 4;

  template <typename V>
  static V value(V y) {
    using A = std::remove_cvref_t<decltype(y[0])>;
    const V y2 = min(y, splat(A(1))) * min(y, splat(A(1)));
    V series{};
    for (int n = kTerms<V>; n-- > 0;) series = (series + A(kLogSinh[n])) * y2;
    const V far = max(y, splat(A(1)));
    return y < 1 ? series - A(0.5) * y : -log(far / decay(far).gone);
  }
  template <typename V>
  static V slope(V y) {
    using A = std::remove_cvref_t<decltype(y[0])>;
    const V near = min(y, splat(A(1))), y2 = near * near;
    V series{};
    for (int n = kTerms<V>; n-- > 0;) series = series * y2 + A(2 * (n + 1) * kLogSinh[n]);
    const V far = max(y, splat(A(1)));
    const Decay<V> e = decay(far);
    return y < 1 ? series * near - A(0.5) : e.rest / e.gone - 1 / far;
  }
};

template <typename Normaliser, typename A>
[[gnu::flatten]] void bernoulli_terms(const Elements<A>& of, int64_t count, A* terms) {
  for_vectors<A>(count, [=](auto load, auto store) {
    using V = Vec<A>;
    const V a = load(of.location), x = load(of.target), m = a > 0 ? 1 - x : x;
    const V tail = m == 0 ? V{} : m * abs(a), nats = tail + Normaliser::value(abs(a));
    store(terms, tail == INFINITY ? tail : nats);  // where inf - inf is inf: m |a| outgrows log |a|
  });
}

template <typename Normaliser, typename A>
[[gnu::flatten]] void bernoulli_slopes(const Elements<A>& of, int64_t count, const A* upstream,
                                       const Slopes<A>& to) {
  for_vectors<A>(count, [=](auto load, auto store) {
    using V = Vec<A>;
    const V a = load(of.location), x = load(of.target), g = load(upstream);
    const V slope = Normaliser::slope(abs(a));
    store(to.location, g * (a > 0 ? (1 - x) + slope : -(x + slope)));
    if (to.target) store(to.target, -g * a);
  });
}

// ---- Gaussian --------------------------------------------------------------------------------

// e^{-l / 2} of an element, or of all.
template <bool kShared, typename A>
struct Inverse {
  A shared;
  template <typename V>
  V operator()(V l) const {
    if constexpr (kShared)
      return V{} + shared;
    else
      return exponentials(A(-1) * l).root;
  }
};
template <bool kShared, typename A>
Inverse<kShared, A> inverse_of(const Elements<A>& of) {
  return {A(std::exp(-0.5 * double(of.shared)))};
}

template <bool kShared, typename A>
[[gnu::flatten]] void gaussian_terms(const Elements<A>& of, int64_t count, A* terms) {
  const Inverse<kShared, A> inverse = inverse_of<kShared>(of);
  for_twins<A>(count, [=](auto load, auto store) {
    constexpr A kLog2Pi = A(1.83787706640934548356);
    const auto d = load(of.target) - load(of.location);
    using V = std::remove_const_t<decltype(d)>;
    V l = V{} + of.shared;
    if (!kShared) l = load(of.scale);
    const V u = scaled_distance(d, inverse(l));
    store(terms, A(0.5) * (u * u + (l + kLog2Pi)));
  });
}

template <bool kShared, typename A>
[[gnu::flatten]] void gaussian_slopes(const Elements<A>& of, int64_t count, const A* upstream,
                                      const Slopes<A>& to) {
  const Inverse<kShared, A> inverse = inverse_of<kShared>(of);
  for_twins<A>(count, [=](auto load, auto store) {
    const auto d = load(of.target) - load(of.location);
    using V = std::remove_const_t<decltype(d)>;
    const V g = load(upstream);
    V l{};
    if (!kShared) l = load(of.scale);
    const V e = inverse(l), u = scaled_distance(d, e), slope = g * scaled_distance(u, e);
    store(to.location, A(-1) * slope);
    store(to.scale, A(0.5) * g * (A(1) - u * u));
    if (to.target) store(to.target, slope);
  });
}

// ---- discretized logistic --------------------------------------------------------------------

// What a block of elements is worked on in: planes that are loaded and stored by whole vectors.
template <typename A>
struct LogisticWork {
  Pixels<A> mean, log_scale, x, d_log_scale;
  Pixels<double> wide_x;
  Component<A> of;
  Colour<A> colour;
};

template <bool kSlopes, typename A>
void logistic_block(const Elements<A>& of, int64_t first, int64_t count, const Bins<A>& bins,
                    LogisticWork<A>& work) {
  std::copy_n(of.location + first, count, work.mean.at);
  std::copy_n(of.scale + first, count, work.log_scale.at);
  for (int64_t i = 0; i < count; ++i) {
    work.wide_x.at[i] = of.integers[first + i];
    work.x.at[i] = A(work.wide_x.at[i]);
  }
  std::fill_n(work.of.linear.at, kPixels, A(0));
  std::fill_n(work.of.top.at, kPixels, A(1));
  std::fill_n(work.of.bottom.at, kPixels, A(1));
  centre<1>(work.mean.at, work.log_scale.at, &work.wide_x, 0, count, bins, work.of, work.colour);
  decays(work.x, count, bins, work.colour);
  add_colour<kSlopes>(work.x, work.log_scale.at, count, bins, work.colour, work.of,
                      work.d_log_scale.at);
}

template <typename A>
void logistic_terms(const Elements<A>& of, int64_t count, const Bins<A>& bins,
                    LogisticWork<A>& work, A* terms) {
  for (int64_t first = 0; first < count; first += kPixels) {
    const int64_t size = std::min(kPixels, count - first);
    logistic_block<false>(of, first, size, bins, work);
    const auto nats = [](auto linear, auto top, auto bottom) { return log(bottom / top) - linear; };
    map(size, terms + first, nats, work.of.linear.at, work.of.top.at, work.of.bottom.at);
  }
}

template <typename A>
void logistic_slopes(const Elements<A>& of, int64_t count, const Bins<A>& bins,
                     LogisticWork<A>& work, const A* upstream, const Slopes<A>& to) {
  const auto times = [](auto slope, auto g) { return -g * slope; };
  for (int64_t first = 0; first < count; first += kPixels) {
    const int64_t size = std::min(kPixels, count - first);
    logistic_block<true>(of, first, size, bins, work);
    map(size, to.location + first, times, work.colour.d_mean.at, upstream + first);
    map(size, to.scale + first, times, work.d_log_scale.at, upstream + first);
  }
}

}  // namespace genkern::core
