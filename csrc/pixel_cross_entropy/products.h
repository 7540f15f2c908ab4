// The three products of the head, on panels: rows of two registers of neighbouring pixels (or, for
// the weight's gradient, of neighbouring features).
//
//   logits     a[l][p]  = b[l] + sum over k of w[l][k] x[k][p]        6 levels x 16 pixels (AVX2)
//   features   dx[k][p] += sum over l of w[l][k] da[l][p]             6 features x 16 pixels
//   weight     dw[l][k] += sum over p of da[l][p] x[k][p]             6 levels x 16 features
#pragma once
#include "../core/tile.h"

namespace genkern::core::pixel_cross_entropy {

// As many rows of two vectors as leave registers for two more vectors and a broadcast.
template <typename A>
inline constexpr int kTileRows = kManyRegisters && sizeof(A) == 4 ? 14 : 6;

template <int M>
using TileSize = std::integral_constant<int, M>;

// sum[m][v] += sum over i < length of a[m * row + i * step] b[i][v], b panel rows.
template <typename A, int M>
GENKERN_INLINE void multiply(Tile<A, M, 2>& tile, const A* a, int64_t row, int64_t step, const A* b,
                             int64_t length) {
  constexpr int kPointers = (M + 2) / 3;  // base + {0, 1, 2} * stride needs no other register
  const A* rows[kPointers];
#pragma GCC unroll 16
  for (int i = 0; i < kPointers; ++i) rows[i] = a + 3 * i * row;
  const auto at = [&](int m) __attribute__((always_inline)) { return rows[m / 3] + (m % 3) * row; };
  for (int64_t i = 0; i < length; ++i, b += 2 * kLanes<A>) {
    tile.add_products(at, b, whole<A>);
#pragma GCC unroll 16
    for (int j = 0; j < kPointers; ++j) rows[j] += step;
  }
}

// Logits of M levels, whose rows of the weight are w_row apart: to[m] a panel row.
template <typename A, int M>
[[gnu::noinline]] void logits_tile(const A* w, int64_t w_row, int64_t features, const A* bias,
                                   const A* x, A* to) {
  constexpr int L = kLanes<A>;
  Tile<A, M, 2> tile;
  if (bias)
    for (int m = 0; m < M; ++m) tile.sum[m][0] = tile.sum[m][1] = splat(bias[m]);
  multiply(tile, w, w_row, 1, x, features);
  tile.store_to(to, 2 * L, L);
}

// Adds to M rows of d_features what `levels` levels say; packed[l * M + m] = w[l][k + m].
template <typename A, int M>
[[gnu::noinline]] void features_tile(const A* packed, int64_t levels, const A* d_logits, A* to) {
  constexpr int L = kLanes<A>;
  Tile<A, M, 2> tile;
  tile.load_from(to, 2 * L, L);
  multiply(tile, packed, 1, M, d_logits, levels);
  tile.store_to(to, 2 * L, L);
}

// Adds to M rows of d_weight what `panels` panels of pixels say: those of d_logits are
// `d_panel` apart; x has a panel row of features for each pixel.
template <typename A, int M>
[[gnu::noinline]] void weight_tile(const A* d_logits, int64_t d_panel, int64_t panels, const A* x,
                                   A* to) {
  constexpr int kPixels = 2 * kLanes<A>;
  Tile<A, M, 2> tile;
  for (int64_t i = 0; i < panels; ++i)
    multiply(tile, d_logits + i * d_panel, kPixels, 1, x + i * kPixels * kPixels, kPixels);
  tile.add_to(to);
}

}  // namespace genkern::core::pixel_cross_entropy
