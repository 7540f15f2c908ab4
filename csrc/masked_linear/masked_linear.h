// y[n, o] = b[o] + sum over live i of w[o, i] x[n, i]     Germain et al. 2015, MADE, sec. 3
//
//   for (n = 0; n < N; ++n)
//     for (o = 0; o < O; ++o) {
//       y[n][o] = b[o];
//       for (i = 0; i < I; ++i)
//         if (out_degree[o] >= in_degree[i]) y[n][o] += w[o][i] * x[n][i];   // strict: >
//     }
//
// Sorted by degree, the live weights are stairs: a row multiplies the columns before its step, and
// the dead ones are in no loop at all. Degrees of the columns 0 1 1 2 3, of the rows 2 0 1 2:
//
//     order of the rows    0  1  1  2  3
//     o1, degree 0       | w  .  .  .  . |  length 1
//     o2, degree 1       | w  w  w  .  . |  length 3       a tile of M rows: all of them up to the
//     o0, degree 2       | w  w  w  w  . |  length 4       first one's length, then all but the
//     o3, degree 2       | w  w  w  w  . |  length 4       first up to the second one's, ...
//
// The gradient of x is the same product with the sides exchanged, out_degree >= in_degree being
// ~in_degree >= ~out_degree.
//
// Lanes are rows of the batch: panels of two registers of them, [panel][step][lane], for each step
// of the sum; a weight is one factor for all lanes, so that its row is copied in the order of the
// steps and not transposed. In the gradient of the weight the sum is over the batch, and lanes are
// columns in their order.
#pragma once
#include <algorithm>
#include <limits>
#include <vector>

#include "../core/blocks.h"
#include "../core/tile.h"

namespace genkern::core::masked_linear {

// As many rows of two registers as leave registers for two more and a factor.
template <typename A>
inline constexpr int kTileRows = kManyRegisters && sizeof(A) == 4 ? 12 : 6;
template <typename A>
inline constexpr int kWidth = 2 * kLanes<A>;  // of a panel

// ---- stairs ----------------------------------------------------------------------------------

// Positions of the degrees in ascending order; equal ones stay in theirs.
inline std::vector<int64_t> order_of(const std::vector<int64_t>& degrees) {
  const int64_t count = int64_t(degrees.size());
  std::vector<int64_t> order(count);
  if (count == 0) return order;
  const auto [low, high] = std::minmax_element(degrees.begin(), degrees.end());
  const uint64_t least = uint64_t(*low), range = uint64_t(*high) - least;
  if (range < uint64_t(4 * count + 64)) {  // the usual case: as many degrees as inputs
    std::vector<int64_t> places(range + 2);
    for (const int64_t d : degrees) ++places[uint64_t(d) - least + 1];
    for (uint64_t d = 0; d < range; ++d) places[d + 1] += places[d];
    for (int64_t i = 0; i < count; ++i) order[places[uint64_t(degrees[i]) - least]++] = i;
    return order;
  }
  for (int64_t i = 0; i < count; ++i) order[i] = i;
  std::stable_sort(order.begin(), order.end(),
                   [&](int64_t a, int64_t b) { return degrees[a] < degrees[b]; });
  return order;
}

struct Stairs {
  std::vector<int64_t> rows, columns;  // in the order of their degrees
  std::vector<int64_t> length;         // of each row in that order: its first columns are live
  std::vector<int64_t> start;          // work of the rows before it, a little for an empty one too
  bool in_order;                       // the columns stand in that order in memory

  // The first row of which the work starts at `work` or later.
  int64_t row_at(int64_t work) const {
    return std::lower_bound(start.begin(), start.end() - 1, work) - start.begin();
  }
  int64_t work() const { return start.back(); }
};

inline Stairs stairs_of(const std::vector<int64_t>& row_degrees,
                        const std::vector<int64_t>& column_degrees, bool strict) {
  Stairs s{order_of(row_degrees), order_of(column_degrees), {}, {0}, true};
  for (size_t i = 0; i < s.columns.size(); ++i) s.in_order &= s.columns[i] == int64_t(i);
  const int64_t columns = int64_t(s.columns.size());
  int64_t length = 0;
  for (const int64_t row : s.rows) {
    const int64_t degree = row_degrees[row];
    while (length < columns && (column_degrees[s.columns[length]] < degree ||
                                (!strict && column_degrees[s.columns[length]] == degree)))
      ++length;
    s.length.push_back(length);
    s.start.push_back(s.start.back() + length + 1);
  }
  return s;
}

// ---- tiles -----------------------------------------------------------------------------------

// Rows of factors: three of them from one pointer, at {0, 1, 2} times the distance of rows.
template <typename A, int M>
struct Factor {
  static constexpr int kPointers = (M + 2) / 3;
  const A* rows[kPointers];
  int64_t row;

  Factor(const A* start, int64_t row) : row(row) {
    for (int i = 0; i < kPointers; ++i) rows[i] = start + 3 * i * row;
  }
  GENKERN_INLINE const A* at(int m) const { return rows[m / 3] + (m % 3) * row; }
  GENKERN_INLINE void next() {
#pragma GCC unroll 16
    for (int i = 0; i < kPointers; ++i) ++rows[i];
  }
};

// sum[m] += a[m] b for the rows from kFirst on.
template <int kFirst, typename A, int M, int NV>
GENKERN_INLINE void add_products(Vec<A> (&sum)[M][NV], const Factor<A, M>& a, const A* b) {
  Vec<A> lanes[NV];
#pragma GCC unroll 2
  for (int v = 0; v < NV; ++v) lanes[v] = load(b + v * kLanes<A>);
#pragma GCC unroll 16
  for (int m = kFirst; m < M; ++m) {
    const Vec<A> factor = splat(*a.at(m));
#pragma GCC unroll 2
    for (int v = 0; v < NV; ++v) sum[m][v] = factor * lanes[v] + sum[m][v];
  }
}

// Steps l until the row kFirst ends: the rows from there on. Then those of the next row.
template <int kFirst, typename A, int M, int NV>
GENKERN_INLINE void climb(Vec<A> (&sum)[M][NV], Factor<A, M>& factor, const A* panel, int64_t l,
                          int64_t end, const int64_t* length) {
  if constexpr (kFirst < M) {
    for (const int64_t stop = std::min(end, length[kFirst]); l < stop; ++l) {
      add_products<kFirst>(sum, factor, panel);
      panel += kWidth<A>;
      factor.next();
    }
    climb<kFirst + 1>(sum, factor, panel, l, end, length);
  }
}

// sums[rows[m]] += packed[m] times the panel, over the steps begin <= l < end that are below
// length[m]. `packed` and `panel` start at `begin`.
template <typename A, int M, int NV>
[[gnu::noinline]] void stairs_tile(A* sums, int64_t sums_row, const int64_t* rows,
                                   const int64_t* length, int64_t begin, int64_t end,
                                   const A* packed, int64_t packed_row, const A* panel) {
  Vec<A> sum[M][NV] = {};
  Factor<A, M> factor(packed, packed_row);
  climb<0>(sum, factor, panel, begin, end, length);
#pragma GCC unroll 16
  for (int m = 0; m < M; ++m)
#pragma GCC unroll 2
    for (int v = 0; v < NV; ++v) {
      A* to = sums + rows[m] * sums_row + v * kLanes<A>;
      store(to, load(to) + sum[m][v]);
    }
}

// sums[m][lane] += sum over n of d_output[n][m] input[n][lane], where both have panels: `d_output`
// of the batch, the rows kWidth apart and `panel` between panels, `input` of the columns.
template <typename A, int M>
[[gnu::noinline]] void weight_tile(A* sums, int64_t sums_row, int64_t count, const A* d_output,
                                   int64_t panel, const A* input) {
  Vec<A> sum[M][2] = {};
  for (; count > 0; count -= kWidth<A>, d_output += panel) {
    Factor<A, M> factor(d_output, kWidth<A>);
    for (int64_t n = 0; n < std::min<int64_t>(count, kWidth<A>); ++n) {
      add_products<0>(sum, factor, input);
      input += kWidth<A>;
      factor.next();
    }
  }
#pragma GCC unroll 16
  for (int m = 0; m < M; ++m)
#pragma GCC unroll 2
    for (int v = 0; v < 2; ++v) {
      A* to = sums + m * sums_row + v * kLanes<A>;
      store(to, load(to) + sum[m][v]);
    }
}

}  // namespace genkern::core::masked_linear
