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

  bool is_identity() const { return act == Act::kLinear && gain == 1 && clamp == A(INFINITY); }
};

// Calls f(act, clamps) with both as constants of the type.
template <typename A, typename F>
inline void dispatch_options(const ActOptions<A>& options, const F& f) {
  dispatch_act(options.act, [&](auto act) {
    if (options.clamp == A(INFINITY))
      f(act, std::false_type{});
    else
      f(act, std::true_type{});
  });
}

// u, and 0 where the clamp bounds gain act(z)
template <bool kClamps, typename V, typename A>
inline V unclamped(V u, V value, const ActOptions<A>& options) {
  if constexpr (kClamps) u = abs(options.gain * value) > options.clamp ? V{} : u;
  return u;
}

// y = clamp(gain act(z))
template <typename A>
void act_chunk(const ActOptions<A>& given, int64_t count, const A* z, A* y) {
  dispatch_options(given, [&]<Act act, bool clamps>(std::integral_constant<Act, act>,
                                                    std::bool_constant<clamps>) {
    const ActOptions<A> options = given;  // a copy is in registers
    const auto f = [options](auto v) {
      auto value = options.gain * jet<act>(v, options.alpha).value;
      if constexpr (clamps) value = min(max(value, splat(-options.clamp)), splat(options.clamp));
      return value;
    };
    map(count, y, f, z);
  });
}

// y = g s
template <typename A>
void act_slope_chunk(const ActOptions<A>& given, int64_t count, const A* z, const A* g, A* y) {
  dispatch_options(given, [&]<Act act, bool clamps>(std::integral_constant<Act, act>,
                                                    std::bool_constant<clamps>) {
    const ActOptions<A> options = given;
    const auto f = [options](auto v, auto u) {
      const auto of = jet<act>(v, options.alpha);
      return options.gain * unclamped<clamps>(u, of.value, options) * of.slope;
    };
    map(count, y, f, z, g);
  });
}

// y = g s, w = g d r
template <typename A>
void act_bend_chunk(const ActOptions<A>& given, int64_t count, const A* z, const A* g, const A* d,
                    A* y, A* w) {
  dispatch_options(given, [&]<Act act, bool clamps>(std::integral_constant<Act, act>,
                                                    std::bool_constant<clamps>) {
    if constexpr (is_flat(act)) {
      act_slope_chunk(given, count, z, g, y);
      std::fill_n(w, count, A(0));
    } else {
      const ActOptions<A> options = given;
      for_vectors<A>(count, [=](auto load, auto store) {
        const auto of = jet<act>(load(z), options.alpha);
        const auto u = options.gain * unclamped<clamps>(load(g), of.value, options), v = load(d);
        store(y, u * of.slope), store(w, u * v * of.curvature);
      });
    }
  });
}

}  // namespace genkern::core
