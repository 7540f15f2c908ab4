// The register tile: sums that stay in registers while two streams of factors pass by.
//
//   for (l = 0; l < length; ++l)
//     for (m = 0; m < M; ++m)          // one factor for all lanes
//       for (v = 0; v < NV; ++v)       // a register of lanes
//         sum[m][v] += a[m][l] * b[l][v];
//
//   M = 3, NV = 2:                 b[l][0]   b[l][1]
//                     a[0][l]   | sum[0][0] sum[0][1] |     8 loads for 6 multiply-adds of a
//                     a[1][l]   | sum[1][0] sum[1][1] |     register: larger tiles load less
//                     a[2][l]   | sum[2][0] sum[2][1] |
//
// A factor is one element, or two of bfloat16 (bf16_pairs.h).
#pragma once
#include <utility>

#include "bf16_pairs.h"

#define GENKERN_INLINE __attribute__((always_inline)) inline

namespace genkern::core {

inline constexpr bool kManyRegisters = kVectorBytes == 64;  // 32 registers instead of 16

// Elements of one register of factors.
template <typename E>
inline constexpr int kRegister = kFactor<E> * kLanes<Accumulate<E>>;

// A factor of which every element is used, unlike first_of.
template <typename E>
GENKERN_INLINE Factors<E> whole(Factors<E> x) {
  return x;
}

template <typename E, int M, int NV>
struct Tile {
  using A = Accumulate<E>;
  Vec<A> sum[M][NV] = {};

  // One step of the loop: at(m) points at a factor, b at NV registers of them. `part` is applied to
  // every factor.
  template <typename At, typename Part>
  GENKERN_INLINE void add_products(const At& at, const E* b, const Part& part) {
    if constexpr (M <= NV) {
      Factors<E> x[M];
#pragma GCC unroll 16
      for (int m = 0; m < M; ++m) x[m] = part(splat_factor(at(m)));
#pragma GCC unroll 16
      for (int v = 0; v < NV; ++v) {
        const Factors<E> y = part(load_factors(b + v * kRegister<E>));
#pragma GCC unroll 16
        for (int m = 0; m < M; ++m) sum[m][v] = add_product(sum[m][v], x[m], y);
      }
    } else {
      Factors<E> y[NV];
#pragma GCC unroll 16
      for (int v = 0; v < NV; ++v) y[v] = part(load_factors(b + v * kRegister<E>));
#pragma GCC unroll 16
      for (int m = 0; m < M; ++m) {
        const Factors<E> x = part(splat_factor(at(m)));
#pragma GCC unroll 16
        for (int v = 0; v < NV; ++v) sum[m][v] = add_product(sum[m][v], x, y[v]);
      }
    }
  }

  // sum[m][v] <-> p[m * row + v * vector]
  GENKERN_INLINE void load_from(const A* p, int64_t row, int64_t vector) {
    each([&](Vec<A>& s, int m, int v) { s = load(p + m * row + v * vector); });
  }
  GENKERN_INLINE void store_to(A* p, int64_t row, int64_t vector) {
    each([&](Vec<A>& s, int m, int v) { store(p + m * row + v * vector, s); });
  }
  // Sums that started at zero and are added once make shorter chains of roundings than long sums.
  GENKERN_INLINE void add_to(A* p) {
    each([&](Vec<A>& s, int m, int v) {
      A* to = p + (m * NV + v) * kLanes<A>;
      store(to, load(to) + s);
    });
  }

 private:
  template <typename F>
  GENKERN_INLINE void each(const F& f) {
#pragma GCC unroll 16
    for (int m = 0; m < M; ++m)
#pragma GCC unroll 16
      for (int v = 0; v < NV; ++v) f(sum[m][v], m, v);
  }
};

// Calls f(begin, std::integral_constant<int, size>) on nearly equal pieces of at most kMax: a tile
// of one or two rows would wait for its own multiply-adds.
template <int kMax, typename F>
inline void for_each_tile(int64_t count, const F& f) {
  const int64_t tiles = (count + kMax - 1) / kMax;
  for (int64_t t = 0; t < tiles; ++t) {
    const int64_t begin = count * t / tiles, size = count * (t + 1) / tiles - begin;
    [&]<int... i>(std::integer_sequence<int, i...>) {
      (void)((size == i + 1 && (f(begin, std::integral_constant<int, i + 1>{}), true)) || ...);
    }(std::make_integer_sequence<int, kMax>{});
  }
}

}  // namespace genkern::core
