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

// x[i] = e^x[i] for x[i] <= 0; 0 for -inf. Two thirds of the steps of core::exp_minus_abs: the
// differences of logits that come here are rounded themselves, so that what |x| log2(e) loses by
// rounding the constant is no more than is lost already; without that 1.4 ulp of 1. Step by step
// for all i: the steps of one wait for each other.
template <int N>
GENKERN_INLINE void exp_each(VecF (&x)[N]) {
  using namespace detail;
  // 2^n comes out of the rounding constant ready to use; it carries 2^64, and the polynomial 2^-64,
  // so that neither leaves the normal numbers.
  constexpr float kBias = kRound + 127 + 64, kSmall = 0x1p-64f;
  VecF shifted[N], r[N], p[N];
#define GENKERN_EACH _Pragma("GCC unroll 8") for (int i = 0; i < N; ++i)
  GENKERN_EACH x[i] = max(x[i], splat(-104.0f));
  GENKERN_EACH shifted[i] = x[i] * kLog2e + kBias;
  GENKERN_EACH r[i] = shifted[i] - kBias;
  GENKERN_EACH r[i] = x[i] * kLog2e - r[i];  // x log2(e) = n + r, |r| <= 1/2
  GENKERN_EACH p[i] = kSmall * 1.3264727197e-3f * r[i] + kSmall * 9.6715126396e-3f;
  GENKERN_EACH p[i] = p[i] * r[i] + kSmall * 5.5507337433e-2f;
  GENKERN_EACH p[i] = p[i] * r[i] + kSmall * 2.4022242085e-1f;
  GENKERN_EACH p[i] = p[i] * r[i] + kSmall * 6.9314697760e-1f;
  GENKERN_EACH p[i] = p[i] * r[i] + kSmall;
  GENKERN_EACH x[i] = p[i] * bit_cast<VecF>(bit_cast<VecI>(shifted[i]) << 23);
#undef GENKERN_EACH
}
template <int N>
GENKERN_INLINE void exp_each(Vec<double> (&x)[N]) {
  for (int i = 0; i < N; ++i) x[i] = exp(x[i]);
}

inline constexpr int kTogether = 8;  // rows that share a change of the maximum

// NV neighbouring vectors of columns: two are a cache line, of which nothing is fetched twice.
template <typename A, int NV>
struct Columns {
  Vec<Index<A>> target[NV];  // counted from the next row
  Vec<A> maximum[NV], total[NV], picked[NV];

  template <int kRows>
  GENKERN_INLINE void add(const A* a, int64_t stride) {
    constexpr int kPair = kRows > 1 ? 2 : 1;
    Vec<A> base[NV], scale[NV];
#pragma GCC unroll 2
    for (int v = 0; v < NV; ++v) {
      Vec<A> top = maximum[v];
#pragma GCC unroll 8
      for (int i = 0; i < kRows; ++i) top = max(load(a + i * stride + v * kLanes<A>), top);
      base[v] = finite_maximum(top);
      scale[v] = maximum[v] - base[v];
      maximum[v] = top;
    }
    exp_each(scale);
#pragma GCC unroll 2
    for (int v = 0; v < NV; ++v) total[v] *= scale[v];
#pragma GCC unroll 8
    for (int i = 0; i < kRows; i += kPair) {
      Vec<A> x[kPair * NV];
#pragma GCC unroll 4
      for (int j = 0; j < kPair * NV; ++j) {
        const int v = j % NV, row = i + j / NV;
        x[j] = load(a + row * stride + v * kLanes<A>);
        picked[v] = target[v] == Index<A>(row) ? x[j] : picked[v];
        x[j] -= base[v];
      }
      exp_each(x);
#pragma GCC unroll 4
      for (int j = 0; j < kPair * NV; ++j) total[j % NV] += x[j];
    }
#pragma GCC unroll 2
    for (int v = 0; v < NV; ++v) target[v] -= Index<A>(kRows);
  }
};

template <int NV, typename A>
GENKERN_INLINE void add_columns(const Rows<const A>& rows, int64_t p, const Index<A>* target,
                                const Running<A>& to) {
  constexpr int L = kLanes<A>;
  Columns<A, NV> columns;
  std::memcpy(columns.target, target + p, sizeof(columns.target));
  std::memcpy(columns.maximum, to.maximum + p, sizeof(columns.maximum));
  std::memcpy(columns.total, to.total + p, sizeof(columns.total));
  std::memcpy(columns.picked, to.picked + p, sizeof(columns.picked));
  for (int v = 0; v < NV; ++v) columns.target[v] -= Index<A>(rows.first);
  const A* a = rows.at + p;
  int64_t l = 0;
  for (; l + kTogether <= rows.count; l += kTogether, a += kTogether * rows.stride)
    columns.template add<kTogether>(a, rows.stride);
  for (; l < rows.count; ++l, a += rows.stride) columns.template add<1>(a, rows.stride);
  for (int v = 0; v < NV; ++v) {
    store(to.maximum + p + v * L, columns.maximum[v]);
    store(to.total + p + v * L, columns.total[v]);
    store(to.picked + p + v * L, columns.picked[v]);
  }
}

// Adds rows to what `pixels` columns, whole vectors of them, have so far.
template <typename A>
[[gnu::noinline]] void add_levels(const Rows<const A>& rows, int64_t pixels, const Index<A>* target,
                                  const Running<A>& to) {
  int64_t p = 0;
  for (; p + 2 * kLanes<A> <= pixels; p += 2 * kLanes<A>) add_columns<2>(rows, p, target, to);
  if (p < pixels) add_columns<1>(rows, p, target, to);
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

template <typename A>
struct Slopes {
  const Index<A>* target;
  const A *maximum, *factor;
  A upstream;

  // Columns from p on, NV vectors of them.
  template <int NV>
  GENKERN_INLINE void write(const Rows<const A>& rows, int64_t p, A* to, int64_t to_stride) const {
    constexpr int L = kLanes<A>;
    Vec<Index<A>> t[NV];
    Vec<A> m[NV], q[NV];
    std::memcpy(t, target + p, sizeof(t));
    std::memcpy(m, maximum + p, sizeof(m));
    std::memcpy(q, factor + p, sizeof(q));
    for (int v = 0; v < NV; ++v) t[v] -= Index<A>(rows.first);
    const auto write_rows = [&]<int kRows>(std::integral_constant<int, kRows>, int64_t l) {
      Vec<A> x[kRows * NV];
#pragma GCC unroll 4
      for (int j = 0; j < kRows * NV; ++j)
        x[j] = load(rows.at + (l + j / NV) * rows.stride + p + j % NV * L) - m[j % NV];
      exp_each(x);
#pragma GCC unroll 4
      for (int j = 0; j < kRows * NV; ++j) {
        const auto is_target = t[j % NV] == Index<A>(j / NV);
        x[j] = q[j % NV] * x[j] - (is_target ? splat(upstream) : Vec<A>{});
        store(to + (l + j / NV) * to_stride + p + j % NV * L, x[j]);
      }
      for (int v = 0; v < NV; ++v) t[v] -= Index<A>(kRows);
    };
    int64_t l = 0;
    for (; l + 2 <= rows.count; l += 2) write_rows(std::integral_constant<int, 2>{}, l);
    if (l < rows.count) write_rows(std::integral_constant<int, 1>{}, l);
  }
};

// to[l] = factor exp(a[l] - maximum) - (l == t) upstream, with factor = upstream / total. `to` may
// be the rows themselves.
template <typename A>
[[gnu::noinline]] void write_slopes(const Rows<const A>& rows, int64_t pixels,
                                    const Slopes<A>& slopes, A* to, int64_t to_stride) {
  int64_t p = 0;
  for (; p + 2 * kLanes<A> <= pixels; p += 2 * kLanes<A>)
    slopes.template write<2>(rows, p, to, to_stride);
  if (p < pixels) slopes.template write<1>(rows, p, to, to_stride);
}

}  // namespace genkern::core::pixel_cross_entropy
