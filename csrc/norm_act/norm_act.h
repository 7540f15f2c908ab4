// y = act(z), z = w h + b, h = s (x - m), s = 1 / sqrt(v + eps)
//                                    Ioffe and Szegedy 2015; Ulyanov et al. 2016; Dumoulin et al.
//                                    2017
//
// x is (N, C, S). Mean m and variance v are those of a group of M elements: a plane (n, c), or,
// over the batch, the planes of a channel c. Every plane has its w and b: of its image, class or
// channel.
//
// Backward, for an upstream gradient d. With q = d act'(z), t = w q, and means over the group,
//
//   d_x = s (t - mean(t) - h mean(t h)),   d_w = sum q h,   d_b = sum q     (sums over a plane)
//
// Backward of that, for gradients g, g_w, g_b of d_x, d_w, d_b. They stand for the scalar
//
//   sum q v,   v = w s u + g_w h + g_b,   u = g - mean(g) - h mean(g h)
//
// whose derivatives are, with e = d act''(z) v,
//
//   d_d = act'(z) v
//   d_w = sum (e h + s q u),   d_b = sum e
//   d_x = s (a - mean(a) - h mean(a h)) - s^2 h mean(t u),
//         a = w e + g_w q - s (t mean(g h) + g mean(t h))
//
// Statistics that are given (evaluation) are constants: then all the means of these lines are 0.
#pragma once
#include <array>

#include "../core/activation.h"
#include "../core/loops.h"

namespace genkern::core {

// `count` values, their mean, and the sum of the squares about it.
struct Moments {
  double count = 0, mean = 0, squares = 0;

  double variance() const { return count > 0 ? squares / count : 0; }
};

// Chan et al. 1983
inline Moments operator+(const Moments& a, const Moments& b) {
  const double count = a.count + b.count;
  if (a.count == 0) return b;
  const double apart = b.mean - a.mean, share = b.count / count;
  return {count, a.mean + share * apart, a.squares + b.squares + apart * apart * a.count * share};
}

// The sums over [0, count) of the kSums vectors that terms(load) returns. load(p, fill) is the
// vector of p that is being worked on, with `fill` behind the last element.
template <int kSums, typename A, typename F>
inline std::array<double, kSums> sum_terms(int64_t count, const F& terms) {
  constexpr int L = kLanes<A>;
  using Terms = std::array<Vec<A>, kSums>;
  Terms even{}, odd{};
  const auto add = [](Terms& to, const Terms& found) {
    for (int k = 0; k < kSums; ++k) to[k] += found[k];
  };
  const auto at = [](int64_t i) { return [i](const A* p, A = 0) { return load(p + i); }; };
  int64_t i = 0;
  for (; i + 2 * L <= count; i += 2 * L) add(even, terms(at(i))), add(odd, terms(at(i + L)));
  if (i + L <= count) add(even, terms(at(i))), i += L;
  if (i < count)
    add(odd, terms([=](const A* p, A fill = 0) { return load_partial(p + i, count - i, fill); }));
  std::array<double, kSums> sums;
  for (int k = 0; k < kSums; ++k) sums[k] = sum_lanes(even[k] + odd[k]);
  return sums;
}

// Of a chunk in the first cache: about its rounded mean, and what that is off is taken back.
template <typename A>
Moments moments(int64_t count, const A* x) {
  if (count == 0) return {};
  const A centre = sum_span(x, count) / A(count);
  const auto [off, squares] = sum_terms<2, A>(count, [&](auto load) {
    const Vec<A> v = load(x, centre) - centre;
    return std::array<Vec<A>, 2>{v, v * v};
  });
  const double shift = off / double(count);
  return {double(count), centre + shift, squares - off * shift};
}

// What turns x into z in a plane, z = scale (x - mean) + shift, and the slope of "lrelu".
template <typename A>
struct Plane {
  A mean, scale, shift, alpha;
};

// y = act(z)
template <typename A>
void normal_chunk(Act act, const Plane<A>& plane, int64_t count, const A* x, A* y) {
  dispatch_act(act, [&]<Act kAct>(std::integral_constant<Act, kAct>) {
    const Plane<A> of = plane;  // a copy is in registers
    const auto f = [of](auto v) {
      return jet<kAct>(of.scale * (v - of.mean) + of.shift, of.alpha).value;
    };
    map(count, y, f, x);
  });
}

// sum q, sum q (x - mean)
template <typename A>
std::array<double, 2> slope_sums(Act act, const Plane<A>& plane, int64_t count, const A* x,
                                 const A* d) {
  std::array<double, 2> sums;
  dispatch_act(act, [&]<Act kAct>(std::integral_constant<Act, kAct>) {
    const Plane<A> of = plane;
    sums = sum_terms<2, A>(count, [=](auto load) {
      const Vec<A> c = load(x) - of.mean, v = load(d);
      const Vec<A> q = v * jet<kAct>(of.scale * c + of.shift, of.alpha).slope;
      return std::array<Vec<A>, 2>{q, q * c};
    });
  });
  return sums;
}

// d_x = of_q q + of_c (x - mean) + constant
template <typename A>
struct SlopeTerms {
  A of_q, of_c, constant;
};

template <typename A>
void slope_chunk(Act act, const Plane<A>& plane, const SlopeTerms<A>& terms, int64_t count,
                 const A* x, const A* d, A* d_x) {
  dispatch_act(act, [&]<Act kAct>(std::integral_constant<Act, kAct>) {
    const Plane<A> of = plane;
    const SlopeTerms<A> by = terms;
    const auto f = [of, by](auto v, auto u) {
      const auto c = v - of.mean;
      const auto q = u * jet<kAct>(of.scale * c + of.shift, of.alpha).slope;
      return by.of_q * q + (by.of_c * c + by.constant);
    };
    map(count, d_x, f, x, d);
  });
}

// ---- the second derivative
// ------------------------------------------------------------------------

// sum q, sum q (x - mean), sum g, sum g (x - mean), sum q g
template <typename A>
std::array<double, 5> product_sums(Act act, const Plane<A>& plane, int64_t count, const A* x,
                                   const A* d, const A* g) {
  std::array<double, 5> sums;
  dispatch_act(act, [&]<Act kAct>(std::integral_constant<Act, kAct>) {
    const Plane<A> of = plane;
    sums = sum_terms<5, A>(count, [=](auto load) {
      const Vec<A> c = load(x) - of.mean, v = load(d), u = load(g);
      const Vec<A> q = v * jet<kAct>(of.scale * c + of.shift, of.alpha).slope;
      return std::array<Vec<A>, 5>{q, q * c, u, u * c, q * u};
    });
  });
  return sums;
}

// v = g_v g + c_v (x - mean) + v_0;  d_x = e_x e + q_x q + g_x g + c_x (x - mean) + x_0
template <typename A>
struct BendTerms {
  A g_v, c_v, v_0;
  A e_x, q_x, g_x, c_x, x_0;
};

// sum e, sum e (x - mean)
template <typename A>
std::array<double, 2> bend_sums(Act act, const Plane<A>& plane, const BendTerms<A>& terms,
                                int64_t count, const A* x, const A* d, const A* g) {
  std::array<double, 2> sums{};
  dispatch_act(act, [&]<Act kAct>(std::integral_constant<Act, kAct>) {
    if constexpr (is_flat(kAct)) return;
    const Plane<A> of = plane;
    const BendTerms<A> by = terms;
    sums = sum_terms<2, A>(count, [=](auto load) {
      const Vec<A> c = load(x) - of.mean, u = load(d);
      const Vec<A> v = by.g_v * load(g) + (by.c_v * c + by.v_0);
      const Vec<A> e = u * v * jet<kAct>(of.scale * c + of.shift, of.alpha).curvature;
      return std::array<Vec<A>, 2>{e, e * c};
    });
  });
  return sums;
}

// d_d = act'(z) v, and d_x
template <typename A>
void bend_chunk(Act act, const Plane<A>& plane, const BendTerms<A>& terms, int64_t count,
                const A* x, const A* d, const A* g, A* d_d, A* d_x) {
  dispatch_act(act, [&]<Act kAct>(std::integral_constant<Act, kAct>) {
    const Plane<A> of = plane;
    const BendTerms<A> by = terms;
    for_vectors<A>(count, [=](auto load, auto store) {
      const auto c = load(x) - of.mean, u = load(d), w = load(g);
      const auto at = jet<kAct>(of.scale * c + of.shift, of.alpha);
      const auto v = by.g_v * w + (by.c_v * c + by.v_0);
      auto sum = by.q_x * (u * at.slope) + by.g_x * w + (by.c_x * c + by.x_0);
      if constexpr (!is_flat(kAct)) sum += by.e_x * (u * v * at.curvature);
      store(d_d, v * at.slope), store(d_x, sum);
    });
  });
}

}  // namespace genkern::core
