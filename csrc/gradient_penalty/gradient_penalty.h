// p_n = P(r_n), r_n = ||g_n||:  w (r - t)^2, one-sided w max(r - t, 0)^2, or w r^2 / 2
//                          Gulrajani et al. 2017, eq. 3; Mescheder et al. 2018, sec. 4.1
//
//   for (n < N) {
//     q = 0;  for (i < D) q += g[n][i] * g[n][i];
//     p[n] = P(sqrt(q));
//   }
//
// With c = P'(r) / r, e = r c'(r) (both 0 at r = 0) and n = g / r: for an upstream gradient u and a
// gradient h of d_g,
//
//   d_g = u c g;        d_u = c <g, h>,  d_g = u (c h + e <n, h> n)
//
// Sums are in double: no square of a float overflows there, and none vanishes.
#pragma once
#include "../core/loops.h"

namespace genkern::core {

struct GradientPenalty {
  bool of_square;  // w r^2 / 2
  double target, weight;
  bool one_sided;

  double value(double r) const {
    if (of_square) return 0.5 * weight * r * r;
    return is_flat(r) ? 0 : weight * (r - target) * (r - target);
  }
  double slope(double r) const {  // c
    if (of_square) return weight;
    return r == 0 || is_flat(r) ? 0 : 2 * weight * (1 - target / r);
  }
  double bend(double r) const {  // e
    return of_square || r == 0 || is_flat(r) ? 0 : 2 * weight * target / r;
  }

 private:
  bool is_flat(double r) const { return one_sided && r <= target; }
};

inline void add_products(Vec<double> a, Vec<double> b, Vec<double>* sums) { sums[0] += a * b; }
inline void add_products(VecF a, VecF b, Vec<double>* sums) {
  typedef float Part __attribute__((vector_size(kVectorBytes / 2)));
  Part x[2], y[2];
  std::memcpy(x, &a, sizeof(a)), std::memcpy(y, &b, sizeof(b));
  for (int i = 0; i < 2; ++i)
    sums[i] +=
        __builtin_convertvector(x[i], Vec<double>) * __builtin_convertvector(y[i], Vec<double>);
}

// sum of a[i] b[i]
template <typename A>
double sum_products(int64_t count, const A* a, const A* b) {
  constexpr int kStep = kLanes<A>;
  Vec<double> sums[4]{};
  int64_t i = 0;
  for (; i + 2 * kStep <= count; i += 2 * kStep) {
    add_products(load(a + i), load(b + i), sums);
    add_products(load(a + i + kStep), load(b + i + kStep), sums + 2);
  }
  double tail = 0;
  for (; i < count; ++i) tail += double(a[i]) * double(b[i]);
  return sum_lanes((sums[0] + sums[1]) + (sums[2] + sums[3])) + tail;
}

}  // namespace genkern::core
