// The products of a stage: rows (a place of an image each) x units, through the register tile.
//
// Packed weights of a product, for every place with weights of its own, block of units and part:
// the bias of each lane, then, for each factor, the weights of each lane; lanes without a unit hold
// 0.
#pragma once
#include <algorithm>

#include "../core/tile.h"
#include "plan.h"

namespace genkern::core::sampler {

// Rows that are gathered and multiplied at a time.
constexpr int64_t kRows = block_size(48, 5);

// Rows of a tile of 1, 2 or 4 vectors. Four vectors are whole cache lines of weights that lie side
// by side, and leave registers for their factors.
template <int NV>
inline constexpr int kTileRows = (kManyRegisters ? 24 : 12) / (NV < 2 ? 2 : NV);

// A run of factors of the gathered rows, and of the weights that they meet: terms that read zeros
// alone are left out.
struct Run {
  int64_t begin, weight, length;
};

// Some columns of a matrix of weights, or a bias: where they are in memory.
template <typename A>
struct Columns {
  const A* from;
  int64_t row, column, count;
};

template <typename A>
void pack(const Stage& stage, const Product& p, const Columns<A>* weight, const Columns<A>* bias,
          A* packed) {
  A* to = packed + p.packed;
  const int64_t channels = p.parts * stage.units, all = p.places * stage.blocks * p.parts;
  for (int64_t i = 0; i < all; ++i) {
    const int64_t part = i % p.parts, first = i / p.parts % stage.blocks * stage.width;
    const int64_t row = i / (p.parts * stage.blocks) * channels + part * stage.units + first;
    const int64_t valid = std::min(stage.width, stage.units - first);
    const auto put = [&](const Columns<A>& own, int64_t k) {
      const A* from = own.from + row * own.row + k * own.column;
      for (int64_t u = 0; u < stage.width; ++u) *to++ = u < valid ? from[u * own.row] : A{};
    };
    if (bias)
      put(*bias, 0);
    else
      to = std::fill_n(to, stage.width, A{});
    const Columns<A>* own = weight;
    for (int64_t done = 0; done < p.length; done += own++->count)
      for (int64_t k = 0; k < own->count; ++k) put(*own, k);
  }
}

// sums[m][v] = bias[v] + sum over the runs: one order of the sum, whatever M and NV are.
template <typename A, int M, int NV>
[[gnu::noinline]] void tile(const A* rows, int64_t row, const Run* run, const Run* end,
                            const A* packed, int64_t width, A* sums) {
  Tile<A, M, NV> sum;
  const A* weights = packed + width;
  for (; run < end; ++run) {
    const A* a = rows + run->begin;
    const A* b = weights + run->weight * width;
    for (int64_t k = 0; k < run->length; ++k, ++a, b += width)
      sum.add_products([&](int m) __attribute__((always_inline)) { return a + m * row; }, b,
                       whole<A>);
  }
#pragma GCC unroll 16
  for (int m = 0; m < M; ++m)
#pragma GCC unroll 16
    for (int v = 0; v < NV; ++v)
      store(sums + m * width + v * kLanes<A>, sum.sum[m][v] + load(packed + v * kLanes<A>));
}

// `rows` gathered rows, `row` elements apart, times a block of weights.
template <typename A>
void multiply(const A* from, int64_t row, int64_t rows, const std::vector<Run>& runs,
              const A* packed, int64_t width, A* sums) {
  const Run *first = runs.data(), *end = first + runs.size();
  const auto by_rows = [&]<int NV>(std::integral_constant<int, NV>) {
    for_each_tile<kTileRows<NV>>(rows, [&]<int M>(int64_t m, std::integral_constant<int, M>) {
      tile<A, M, NV>(from + m * row, row, first, end, packed, width, sums + m * width);
    });
  };
  switch (width / kLanes<A>) {
    case 1:
      return by_rows(std::integral_constant<int, 1>{});
    case 2:
      return by_rows(std::integral_constant<int, 2>{});
    default:
      return by_rows(std::integral_constant<int, 4>{});
  }
}

}  // namespace genkern::core::sampler
