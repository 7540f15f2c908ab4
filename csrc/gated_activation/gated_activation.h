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
inline V gated(V a, V b) {
  return quick_tanh(a) * sigmoid(b);
}

template <typename V>
struct GatedSlopes {
  V a, b;  // dy/da, dy/db
};

// tanh' = 4 f / (1 + f)^2 with f = e^{-2|a|}; sigmoid' = e / (1 + e)^2 with e = e^-|b|: no tail is
// a difference of numbers that are nearly equal.
template <typename V>
inline GatedSlopes<V> gated_slopes(V a, V b) {
  const V f = exp_minus_abs(2 * a), q = 1 / (1 + f);
  const V e = exp_minus_abs(b), r = 1 / (1 + e);
  const V sigmoid = b < 0 ? e * r : r;
  return {sigmoid * (4 * f * q * q), quick_tanh(a) * (e * r * r)};
}

}  // namespace genkern::core
