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

// Where the elements of a chunk are; integers v as 2 v - (levels - 1). Without `scale`, that of all
// is `shared`.
template <typename A>
struct Elements {
  const A *location, *scale, *target;
  A shared;
};

// Where the gradients of a chunk go; those of the target may be null.
template <typename A>
struct Slopes {
  A *location, *scale, *target;
};

// ---- Bernoulli -------------------------------------------------------------------------------

// log(1 + e^-y) of y = |a|; the slope in a of m y + log(1 + e^-y), in which neither end of the
// sigmoid loses its small values.
struct EventNormaliser {
  template <typename V>
  static V value(V y) {
    return log1p_finite(exp_minus_abs(y));
  }
  template <typename V>
  static V slope(V a, V x) {
    return slope(a, x, exp_minus_abs(a));
  }
  template <typename V>
  static V slope(V a, V x, V e) {
    return (a > 0 ? (1 - x) - x * e : (1 - x) * e - x) / (1 + e);
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

// The same of log((1 - e^-y) / y), which cancels as y goes to 0; its series does not.
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
  static V slope(V a, V x) {
    using A = std::remove_cvref_t<decltype(a[0])>;
    const V y = abs(a), near = min(y, splat(A(1))), y2 = near * near;
    V series{};
    for (int n = kTerms<V>; n-- > 0;) series = series * y2 + A(2 * (n + 1) * kLogSinh[n]);
    const V far = max(y, splat(A(1)));
    const Decay<V> e = decay(far);
    const V slope = y < 1 ? series * near - A(0.5) : e.rest / e.gone - 1 / far;
    return a > 0 ? (1 - x) + slope : -(x + slope);
  }
};

// m |a|, and 0 where m is: no product of 0 and infinity.
template <typename V>
inline V wrong_side(V a, V x) {
  const V m = a > 0 ? 1 - x : x;
  return m == 0 ? V{} : m * abs(a);
}

template <typename Normaliser, typename A>
[[gnu::flatten]] void bernoulli_terms(const Elements<A>& of, int64_t count, A* terms) {
  for_vectors<A>(count, [=](auto load, auto store) {
    const Vec<A> a = load(of.location), tail = wrong_side(a, load(of.target));
    const Vec<A> nats = tail + Normaliser::value(abs(a));
    store(terms, tail == INFINITY ? tail : nats);  // m |a| outgrows log |a|
  });
}

// Terms whose sum is that of the events of one row. Four vectors share one logarithm; it is taken
// one step later, beside the exponentials that do not wait for it.
template <typename A>
[[gnu::flatten]] void event_row_terms(const A* logits, const A* target, int64_t count, A* terms) {
  using V = Vec<A>;
  constexpr int64_t kStep = sizeof(Four<A>) / sizeof(A);
  V product{};
  int64_t i = 0;
  for (; i + kStep <= count; i += kStep) {
    V nats = log1p_finite(product);
    product = joint(exp_minus_abs(load_all<Four<A>>(logits + i)));
    for (int64_t at = i; at < i + kStep; at += kLanes<A>) {
      store(terms + at, nats + wrong_side(load(logits + at), load(target + at)));
      nats = V{};
    }
  }
  if (i > 0) store(terms, load(terms) + log1p_finite(product));
  const Elements<A> rest{logits + i, nullptr, target + i, 0};
  bernoulli_terms<EventNormaliser>(rest, count - i, terms + i);
}

template <typename A>
[[gnu::flatten]] void event_slopes(const Elements<A>& of, int64_t count, const A* upstream,
                                   const Slopes<A>& to) {
  for_fours<A>(count, [=](auto load, auto store) {
    const auto slope = [](auto a, auto x, auto e) { return EventNormaliser::slope(a, x, e); };
    const auto a = load(of.location), e = exp_minus_abs(a), g = load(upstream);
    store(to.location, g * by_vector(slope, a, load(of.target), e));
    if (to.target) store(to.target, A(-1) * g * a);
  });
}

template <typename Normaliser, typename A>
[[gnu::flatten]] void bernoulli_slopes(const Elements<A>& of, int64_t count, const A* upstream,
                                       const Slopes<A>& to) {
  for_vectors<A>(count, [=](auto load, auto store) {
    const Vec<A> a = load(of.location), g = load(upstream);
    store(to.location, g * Normaliser::slope(a, load(of.target)));
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
  for_fours<A>(count, [=](auto load, auto store) {
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
  for_fours<A>(count, [=](auto load, auto store) {
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
  Component<A> of;
  Colour<A> colour;
};

// x - m last, rounded once: at log-scale -7 an error of one rounding of the product is 7e-5 nats.
inline Vec<double> distance(Vec<double> x, Vec<double> m, double last) { return x - m * last; }
inline VecF distance(VecF x, VecF m, float last) {
#if defined(__FMA__)
  return x - m * last;
#else
  return narrow(widen(x) - widen(m) * double(last));
#endif
}

// Nats of at most kPixels elements, and with somewhere to put them their slopes.
template <bool kSlopes, typename A>
void logistic_block(const Elements<A>& of, int64_t count, const Bins<A>& bins,
                    LogisticWork<A>& work, A* terms, const Slopes<A>& to) {
  std::copy_n(of.location, count, work.mean.at);
  std::copy_n(of.scale, count, work.log_scale.at);
  std::copy_n(of.target, count, work.x.at);
  each_vector<A>(count, [&](int64_t i) {
    const auto s = max(load(work.log_scale.at + i), splat(A(kMinLogScale)));
    store(work.colour.t.at + i, inverse_scale(s));
    store(work.colour.Z.at + i, distance(load(work.x.at + i), load(work.mean.at + i), bins.last));
    store(work.of.linear.at + i, Vec<A>{});
    store(work.of.top.at + i, splat(A(1)));
    store(work.of.bottom.at + i, splat(A(1)));
  });
  decays(work.x, count, bins, work.colour);
  add_colour<kSlopes>(work.x, work.log_scale.at, count, bins, work.colour, work.of,
                      work.d_log_scale.at);
  const auto nats = [](auto linear, auto top, auto bottom) { return log(bottom / top) - linear; };
  map(count, terms, nats, work.of.linear.at, work.of.top.at, work.of.bottom.at);
  if constexpr (kSlopes) {
    const auto negative = [](auto slope) { return -slope; };
    map(count, to.location, negative, work.colour.d_mean.at);
    map(count, to.scale, negative, work.d_log_scale.at);
  }
}

// Slopes only where there is somewhere to put them.
template <typename A>
void logistic_terms(const Elements<A>& of, int64_t count, const Bins<A>& bins,
                    LogisticWork<A>& work, A* terms, const Slopes<A>& to) {
  const auto block = to.location ? &logistic_block<true, A> : &logistic_block<false, A>;
  for (int64_t i = 0; i < count; i += kPixels) {
    const Elements<A> at{of.location + i, of.scale + i, of.target + i, of.shared};
    const Slopes<A> kept = to.location ? Slopes<A>{to.location + i, to.scale + i} : to;
    block(at, std::min(kPixels, count - i), bins, work, terms + i, kept);
  }
}

}  // namespace genkern::core
