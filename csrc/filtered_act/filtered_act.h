// y = D f(U (x + b)), f(z) = clamp(gain act(z), -c, c)        Karras et al. 2021, StyleGAN3, app. D
//
// U zero-inserts, pads and filters, D filters and keeps every down-th value, each plane of x alone.
// Rows of the tall image between them are formed for a block of rows of the result, and no more of
// it is ever in memory:
//
//   for (block of rows of y) {
//     for (row m of U x that D reads for them) mid[m] = f(U (x + b))[m];
//     for (row i of the block) y[i] = (D mid)[i];
//   }
//
// The derivatives have the same loops. With z = U (x + b), formed again, s = f'(z), r = f''(z), an
// upstream gradient d, and gradients g of d_x and h of d_b:
//
//   d_x = U^T (s D^T d),  d_b = sum d_x
//   d_d = D (s U (g + h)),  d_x = U^T (r U (g + h) D^T d),  d_b = sum d_x
#pragma once
#include "../core/activation.h"
#include "../core/fir.h"

namespace genkern::core {

template <typename A>
struct FilteredAct {
  Act act;
  A alpha, gain, clamp;  // clamp: infinity for none

  bool clamps() const { return clamp != A(INFINITY); }

  // y = f(y)
  void apply(int64_t count, A* y) const {
    dispatch_act(act, [&]<Act kAct>(std::integral_constant<Act, kAct>) {
      const A* z = y;
      const auto value = [&](auto v) { return gain * jet<kAct>(v, alpha).value; };
      const auto bounded = [&](auto v) { return max(min(value(v), splat(clamp)), splat(-clamp)); };
      if (clamps())
        map(count, y, bounded, z);
      else
        map(count, y, value, z);
    });
  }
  // y = s(z) y
  void slope(int64_t count, const A* z, A* y) const {
    dispatch_act(act, [&]<Act kAct>(std::integral_constant<Act, kAct>) {
      const A* g = y;
      const auto free = [&](auto v, auto u) { return gain * u * jet<kAct>(v, alpha).slope; };
      const auto bounded = [&](auto v, auto u) {
        const auto of = jet<kAct>(v, alpha);
        return abs(gain * of.value) > clamp ? decltype(u){} : gain * u * of.slope;
      };
      if (clamps())
        map(count, y, bounded, z, g);
      else
        map(count, y, free, z, g);
    });
  }
  // y = r(z) g y
  void bend(int64_t count, const A* z, const A* g, A* y) const {
    dispatch_act(act, [&]<Act kAct>(std::integral_constant<Act, kAct>) {
      const A* d = y;
      const auto f = [&](auto v, auto u, auto w) {
        const auto of = jet<kAct>(v, alpha);
        const auto bent = gain * u * w * of.curvature;
        return abs(gain * of.value) > clamp ? decltype(u){} : bent;
      };
      if constexpr (is_flat(kAct))
        std::fill_n(y, count, A(0));
      else
        map(count, y, f, z, g, d);
    });
  }
};

}  // namespace genkern::core
