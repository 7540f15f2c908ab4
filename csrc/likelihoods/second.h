// Second derivatives of the likelihoods, a chunk at a time, for double backward. L: the nats of an
// element, g: their upstream gradient, v: a gradient for each of g dL/dm, g dL/ds and g dL/dx:
//
//   along[i] = v . grad L            what the upstream gradient gets
//   to[i]    = g (Hessian of L) v    what location m, scale s and target x get
//
//   Bernoulli   L_aa = s(a) s(-a), L_ax = -1; continuous: L_aa = 1 / a^2 - 1 / (4 sinh^2(a / 2))
//   Gaussian    with w = e^{-l / 2}, u = (x - m) w, p = (v_m - v_x) w, q = (p + u v_l) w:
//               along = v_l (1 - u^2) / 2 - u p;  to = g q, g (u p + u^2 v_l / 2), -g q
//   logistic    with t = e^-s, the ends p, q of the bin and its width d in scales, P = s'(p),
//               Q = s'(q): L_mm = t^2 (P + Q), L_ms = t (p P + q Q) - L_m,
//               L_ss = p^2 P + q^2 Q + d^2 e^-d / (1 - e^-d)^2 - L_s; an end at infinity adds
//               nothing, and neither does d beside one
#pragma once
#include "likelihoods.h"

namespace genkern::core {

// ---- Bernoulli -------------------------------------------------------------------------------

// s(a) s(-a)
template <typename V>
inline V logistic_density(V a) {
  const V e = exp_minus_abs(a), whole = 1 + e;
  return e / (whole * whole);
}

// The second derivative of the normaliser: the variance of the target.
struct EventVariance {
  using Normaliser = EventNormaliser;
  template <typename V>
  static V bend(V a) {
    return logistic_density(a);
  }
};
struct DensityVariance {
  using Normaliser = DensityNormaliser;
  template <typename V>
  static V bend(V a) {
    using A = std::remove_cvref_t<decltype(a[0])>;
    const V y = abs(a), near = min(y, splat(A(1))), y2 = near * near;
    constexpr int kTerms = std::min<int>(std::size(kLogSinh), DensityNormaliser::kTerms<V> + 2);
    V series{};
    for (int n = kTerms; n-- > 0;)
      series = series * y2 + A((2 * n + 2) * (2 * n + 1) * kLogSinh[n]);
    const V far = max(y, splat(A(1)));
    const Decay<V> e = decay(far);
    return y < 1 ? series : 1 / (far * far) - e.rest / (e.gone * e.gone);
  }
};

template <typename Variance, typename A>
[[gnu::flatten]] void bernoulli_bends(const Elements<A>& of, const Elements<A>& v, int64_t count,
                                      const A* upstream, A* along, const Slopes<A>& to) {
  for_vectors<A>(count, [=](auto load, auto store) {
    const Vec<A> a = load(of.location), v_a = load(v.location), v_x = load(v.target);
    const Vec<A> g = load(upstream), slope = Variance::Normaliser::slope(a, load(of.target));
    store(along, scaled_distance(v_a, slope) - scaled_distance(v_x, a));
    store(to.location, g * (scaled_distance(v_a, Variance::bend(a)) - v_x));
    store(to.target, -g * v_a);
  });
}

// ---- Gaussian --------------------------------------------------------------------------------

template <bool kShared, typename A>
[[gnu::flatten]] void gaussian_bends(const Elements<A>& of, const Elements<A>& v, int64_t count,
                                     const A* upstream, A* along, const Slopes<A>& to) {
  const Inverse<kShared, A> inverse = inverse_of<kShared>(of);
  for_vectors<A>(count, [=](auto load, auto store) {
    const Vec<A> d = load(of.target) - load(of.location), g = load(upstream), v_l = load(v.scale);
    Vec<A> l{};
    if (!kShared) l = load(of.scale);
    const Vec<A> w = inverse(l), u = scaled_distance(d, w);
    const Vec<A> p = scaled_distance(load(v.location) - load(v.target), w);
    const Vec<A> q = g * scaled_distance(p + u * v_l, w), half = A(0.5) * v_l;
    store(along, half * (1 - u * u) - u * p);
    store(to.location, q);
    store(to.scale, g * u * (p + u * half));
    store(to.target, -q);
  });
}

// ---- discretized logistic --------------------------------------------------------------------

// `kept`: the slopes L_m and L_s.
template <typename A>
[[gnu::flatten]] void logistic_bends(const Elements<A>& of, const Elements<A>& v,
                                     const Slopes<A>& kept, int64_t count, const Bins<A>& bins,
                                     const A* upstream, A* along, const Slopes<A>& to) {
  for_vectors<A>(count, [=](auto load, auto store) {
    using V = Vec<A>;
    const V x = load(of.target), raw = load(of.scale), g = load(upstream), none{};
    const V t = inverse_scale(max(raw, splat(A(kMinLogScale)))), tau = t * bins.half;
    const V Z = distance(x, load(of.location), bins.last);
    // Beyond a thousand scales the density is 0, and its products with p are.
    const auto end = [&](V at) { return max(min(tau * at, splat(A(1e3))), splat(A(-1e3))); };
    const V p = end(Z + 1), q = end(Z - 1);
    const auto first = x == -bins.last, last = x == bins.last;
    const V P = last ? none : logistic_density(p), Q = first ? none : logistic_density(q);
    const V width = max(2 * tau, splat(Bins<A>::kNarrow));
    const Decay<V> decays = decay(width);
    const V ratio = width / decays.gone,
            of_width = first | last ? none : ratio * ratio * decays.rest;
    const V l_m = load(kept.location), l_s = load(kept.scale), v_m = load(v.location);
    const auto fixed = raw < A(kMinLogScale);
    const V v_s = fixed ? none : load(v.scale);
    const V mixed = t * (p * P + q * Q) - l_m;
    const V bend = p * p * P + q * q * Q + of_width - l_s;
    store(along, v_m * l_m + v_s * l_s);
    store(to.location, g * (t * t * (P + Q) * v_m + mixed * v_s));
    store(to.scale, fixed ? none : g * (mixed * v_m + bend * v_s));
  });
}

}  // namespace genkern::core
