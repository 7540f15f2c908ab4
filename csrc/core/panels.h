// Rows of pixels, one for each unit <-> panels: kLanes units of every pixel, units fastest. What is
// multiplied in pairs of bfloat16 is stored so.
#pragma once
#include <algorithm>
#include <cstdint>

#include "bf16_pairs.h"
#include "transpose.h"

namespace genkern::core {

template <typename A>
using Indices = Vec<std::conditional_t<sizeof(A) == 8, int64_t, int32_t>>;

template <typename A>
inline Indices<A> lane_numbers() {
  Indices<A> lanes{};
  for (int i = 0; i < kLanes<A>; ++i) lanes[i] = i;
  return lanes;
}

// All bits where the lane has a unit.
template <typename A>
inline auto lanes_in_use(int64_t valid) {
  return lane_numbers<A>() < Indices<A>{} + int(valid);
}

// panel[x][lane] = rows[lane][x]; lanes from `count` on become 0. The rows lie a plane apart, which
// no hardware prefetcher follows: `next` is the distance to those that will be wanted next, or 0.
template <typename T, typename E>
void rows_to_panel(const T* rows, int64_t stride, int64_t count, int64_t W, E* panel, int64_t pixel,
                   int64_t next = 0) {
  using A = Accumulate<T>;
  constexpr int64_t L = kLanes<A>;
  if (W < L) {
    for (int64_t x = 0; x < W; ++x)
      for (int64_t i = 0; i < L; ++i)
        panel[x * pixel + i] = i < count ? element<E>(rows[i * stride + x]) : E{};
    return;
  }
  for (int64_t x = 0; x < W; x += L) {
    x = std::min(x, W - L);  // the last block overlaps its neighbour instead of being partial
    Vec<A> square[L];
#pragma GCC unroll 16
    for (int64_t i = 0; i < L; ++i) {
      square[i] = i < count ? load(rows + i * stride + x) : Vec<A>{};
      __builtin_prefetch(reinterpret_cast<const char*>(rows + i * stride + x) +
                         next * int64_t(sizeof(T)));
    }
    transpose<A>(square);
#pragma GCC unroll 16
    for (int64_t i = 0; i < L; ++i) store(panel + (x + i) * pixel, square[i]);
  }
}

// rows[lane][x] = panel[x][lane] for lanes below `count`.
template <typename T, typename E>
void panel_to_rows(const E* panel, int64_t pixel, int64_t count, int64_t W, T* rows,
                   int64_t stride) {
  using A = Accumulate<T>;
  constexpr int64_t L = kLanes<A>;
  if (W < L) {
    for (int64_t i = 0; i < count; ++i)
      for (int64_t x = 0; x < W; ++x) rows[i * stride + x] = element<T>(panel[x * pixel + i]);
    return;
  }
  for (int64_t x = 0; x < W; x += L) {
    x = std::min(x, W - L);
    Vec<A> square[L];
#pragma GCC unroll 16
    for (int64_t i = 0; i < L; ++i) square[i] = load(panel + (x + i) * pixel);
    transpose<A>(square);
#pragma GCC unroll 16
    for (int64_t i = 0; i < L; ++i)
      if (i < count) store(rows + i * stride + x, square[i]);
  }
}

}  // namespace genkern::core
