// nats[n] = sum over (c, p) of log sum_l exp a[l] - a[t]      van den Oord et al. 2016, sec. 2.2
// d_a[l] = up[n] (exp(a[l]) / sum_l exp a[l] - (l == t))
//
//   for (l = 0; l < levels; ++l) {                       // one pixel p of one colour c of image n
//     total = total * exp(maximum - max(maximum, a[l])) + exp(a[l] - max(maximum, a[l]));
//     maximum = max(maximum, a[l]);
//     if (l == t) picked = a[l];
//   }
//   nats[n] += log(total) - (picked - maximum);
//
// Lanes are neighbouring pixels, and a tile is rows of levels of them. Eight rows share one change
// of the maximum:
//                       pixels ->
//             level 0 | a a a a a a a a |
//             level 1 | a a a a a a a a |     maximum, total, picked: one number for each column
//                ...
#pragma once
#include <algorithm>
#include <cmath>

#include "../core/loops.h"
#include "../core/tile.h"
#include "../core/vecmath.h"

namespace genkern::core::pixel_cross_entropy {

// Levels of targets, in lanes as wide as those of A.
template <typename A>
using Index = std::conditional_t<sizeof(A) == 8, int64_t, int32_t>;

// `count` rows of a tile: row l holds level first + l, `stride` behind the row before it.
template <typename A>
struct Rows {
  A* at;
  int64_t stride, first, count;
};

// What the levels so far have left of each pixel.
template <typename A>
struct Running {
  A *maximum, *total, *picked;

  void start(int64_t pixels) const {
    std::fill_n(maximum, pixels, A(-INFINITY));
    std::fill_n(total, pixels, A(0));
    std::fill_n(picked, pixels, A(0));
  }
};

// What is subtracted before exp: no level at all, or levels of -inf alone, have the maximum -inf.
template <typename V>
GENKERN_INLINE V finite_maximum(V maximum) {
  return maximum == -INFINITY ? V{} : maximum;
}

inline constexpr int kTogether = 8;  // rows: they and a vector of pixels fill half the registers

template <int kRows, typename A>
GENKERN_INLINE void add_rows(const A* a, int64_t stride, int64_t level, Vec<Index<A>> target,
                             Vec<A>& maximum, Vec<A>& total, Vec<A>& picked) {
  Vec<A> top = maximum;
#pragma GCC unroll 8
  for (int i = 0; i < kRows; ++i) top = max(load(a + i * stride), top);
  const Vec<A> base = finite_maximum(top);
  Vec<A> sum[2] = {total * exp_minus_abs(maximum - base), Vec<A>{}};
#pragma GCC unroll 8
  for (int i = 0; i < kRows; ++i) {
    const Vec<A> x = load(a + i * stride);
    sum[i % 2] += exp_minus_abs(x - base);
    picked = target == Index<A>(level + i) ? x : picked;
  }
  total = sum[0] + sum[1];
  maximum = top;
}

// Adds rows to what `pixels` columns, whole vectors of them, have so far.
template <typename A>
[[gnu::noinline]] void add_levels(const Rows<const A>& rows, int64_t pixels, const Index<A>* target,
                                  const Running<A>& to) {
  for (int64_t p = 0; p < pixels; p += kLanes<A>) {
    Vec<Index<A>> t;
    std::memcpy(&t, target + p, sizeof(t));
    Vec<A> maximum = load(to.maximum + p), total = load(to.total + p), picked = load(to.picked + p);
    const A* a = rows.at + p;
    int64_t l = 0;
    for (; l + kTogether <= rows.count; l += kTogether, a += kTogether * rows.stride)
      add_rows<kTogether>(a, rows.stride, rows.first + l, t, maximum, total, picked);
    for (; l < rows.count; ++l, a += rows.stride)
      add_rows<1>(a, rows.stride, rows.first + l, t, maximum, total, picked);
    store(to.maximum + p, maximum), store(to.total + p, total), store(to.picked + p, picked);
  }
}

// The nats of `pixels` columns, added up.
template <typename A>
double sum_nats(int64_t pixels, const Running<A>& of) {
  const auto nats = [](Vec<A> maximum, Vec<A> total, Vec<A> picked) {
    return log(total) - (picked - finite_maximum(maximum));
  };
  constexpr int kStep = kLanes<A>;
  WideSum sum;
  for (int64_t p = 0; p < pixels; p += kStep) {
    const Vec<A> v = nats(load(of.maximum + p), load(of.total + p), load(of.picked + p));
    sum.add(p + kStep <= pixels ? v : first_lanes(v, pixels - p));
  }
  return sum.total();
}

// to[l] = factor exp(a[l] - maximum) - (l == t) upstream, with factor = upstream / total. `to` may
// be the rows themselves.
template <typename A>
[[gnu::noinline]] void write_slopes(const Rows<const A>& rows, int64_t pixels,
                                    const Index<A>* target, const A* maximum, const A* factor,
                                    A upstream, A* to, int64_t to_stride) {
  for (int64_t p = 0; p < pixels; p += kLanes<A>) {
    Vec<Index<A>> t;
    std::memcpy(&t, target + p, sizeof(t));
    const Vec<A> m = load(maximum + p), q = load(factor + p), up = splat(upstream);
    const A* a = rows.at + p;
    A* d = to + p;
    for (int64_t l = 0; l < rows.count; ++l, a += rows.stride, d += to_stride)
      store(d, q * exp_minus_abs(load(a) - m) - (t == Index<A>(rows.first + l) ? up : Vec<A>{}));
  }
}

}  // namespace genkern::core::pixel_cross_entropy
