// y = elu([x, -x]), elu(x) = x > 0 ? x : e^x - 1            Salimans et al. 2017, PixelCNN++
//
//   for (n < N) for (c < C) for (p < pixels) {
//     y[n][c][p] = elu(x[n][c][p]);
//     y[n][C + c][p] = elu(-x[n][c][p]);
//   }
//
// One of the two is |x|, the other e^-|x| - 1: one exponential for both. A row of x becomes one
// twice as long, its halves one behind the other:
//
//   planes:         row n, C * pixels values           channels last:  row (n, p), C values
//   y[n]:         | elu x0 x1 ... | elu -x0 -x1 ... |
#pragma once
#include "../core/loops.h"
#include "../core/vecmath.h"

namespace genkern::core {

template <typename V>
struct Pair {
  V positive, negative;  // of elu(x), elu(-x)
};

// NaN is in neither order, and is in both results.
template <typename V>
inline Pair<V> concat_elu(V x) {
  const V small = expm1(-abs(x));
  return {x > 0 ? x : small, x > 0 ? small : -x};
}

// d elu(x) / dx and d elu(-x) / dx: 1 and -e^-|x|, or e^-|x| and -1.
template <typename V>
inline Pair<V> concat_elu_slopes(V x) {
  const V e = exp_minus_abs(x), one = V{} + 1;
  return {x > 0 ? one : e, x > 0 ? -e : -one};
}

}  // namespace genkern::core
