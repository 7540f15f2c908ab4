// y = W / sigma, sigma = u^T W v                       Miyato et al. 2018, eq. 12 and alg. 1
//
// W is (outer, R, inner) in memory, its matrix (R, outer * inner):
//
//   for (o < outer) for (r < R) for (i < inner) {
//     sigma += u[r] * w[o][r][i] * v[o][i];
//   }
//   d_w[o][r][i] = (d_y[o][r][i] - <d_y, y> u[r] v[o][i]) / sigma        u and v are constants
//
// A step of the power iteration: u = W v / ||W v||, then v = W^T u / ||W^T u||.
#pragma once
#include <cmath>
#include <vector>

#include "../core/loops.h"

namespace genkern::core {

struct SpectralShape {
  int64_t outer, R, inner;

  int64_t columns() const { return outer * inner; }
};

// y += a x
template <typename A>
void add_scaled(int64_t count, A a, const A* x, A* y) {
  map(count, y, [a](auto v, auto w) { return w + a * v; }, x, static_cast<const A*>(y));
}

// x / max(||x||, eps)
template <typename A>
void normalize(std::vector<A>& x, double eps) {
  double square = 0;
  for (const A v : x) square += double(v) * double(v);
  const double norm = std::sqrt(square), by = norm < eps ? eps : norm;
  for (A& v : x) v = A(double(v) / by);
}

}  // namespace genkern::core
