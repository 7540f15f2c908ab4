// y = clamp(gain act(z), -c, c), z = x + b           Karras et al. 2020, StyleGAN2, appendix B
//
//   for (o < outer) for (k < C) for (i < inner) {
//     z = x[o][k][i] + b[k];
//     y[o][k][i] = clamp(gain * act(z), -c, c);
//   }
//
// With s = gain act'(z), r = gain act''(z), both 0 where the clamp bounds: for an upstream gradient
// d and gradients g of d_x and h of d_b,
//
//   d_x = d s,  d_b = sum d_x;        d_d = (g + h) s,  d_x = (g + h) d r,  d_b = sum d_x
#pragma once
#include "../core/activation.h"
#include "../core/loops.h"

namespace genkern::core {

template <typename A>
struct ActOptions {
  Act act;
  A alpha, gain, clamp;  // clamp: infinity for none
};

// y = gain act(z), not clamped
template <typename A>
void act_chunk(const ActOptions<A>& options, int64_t count, const A* z, A* y) {
  dispatch_act(options.act, [&]<Act act>(std::integral_constant<Act, act>) {
    map(count, y, [&](auto v) { return options.gain * jet<act>(v, options.alpha).value; }, z);
  });
}

// y = g s
template <typename A>
void act_slope_chunk(const ActOptions<A>& options, int64_t count, const A* z, const A* g, A* y) {
  dispatch_act(options.act, [&]<Act act>(std::integral_constant<Act, act>) {
    const auto f = [&](auto v, auto u) {
      return options.gain * u * jet<act>(v, options.alpha).slope;
    };
    map(count, y, f, z, g);
  });
}

// y = g s, w = g d r
template <typename A>
void act_bend_chunk(const ActOptions<A>& options, int64_t count, const A* z, const A* g, const A* d,
                    A* y, A* w) {
  dispatch_act(options.act, [&]<Act act>(std::integral_constant<Act, act>) {
    if constexpr (is_flat(act)) {
      act_slope_chunk(options, count, z, g, y);
      std::fill_n(w, count, A(0));
    } else {
      for_vectors<A>(count, [&](auto load, auto store) {
        const auto of = jet<act>(load(z), options.alpha);
        const auto u = options.gain * load(g), v = load(d);
        store(y, u * of.slope), store(w, u * v * of.curvature);
      });
    }
  });
}

// g, and 0 where the clamp bounds. `scratch` holds gain act(z) afterwards.
template <typename A>
const A* unclamped_chunk(const ActOptions<A>& options, int64_t count, const A* z, const A* g,
                         A* scratch, A* kept) {
  if (options.clamp == A(INFINITY)) return g;
  act_chunk(options, count, z, scratch);
  const auto f = [&](auto u, auto y) { return abs(y) > options.clamp ? decltype(u){} : u; };
  map(count, kept, f, g, scratch);
  return kept;
}

}  // namespace genkern::core
