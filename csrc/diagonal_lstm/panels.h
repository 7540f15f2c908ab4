// Shapes of a Diagonal LSTM, and planes of pixels <-> panels of hidden units.
//
// A panel holds L = kLanes hidden units of every pixel, units fastest: states [pixel][L], gates
// [pixel][4][L] in the order o, f, i, g. The pixels of a diagonal r + x = t lie a fixed step apart,
// in both directions, and so nothing is skewed. H = 3, W = 4, the numbers are those of the
// diagonals:
//
//   left to right  0 1 2 3    step W - 1       right to left  3 2 1 0    step W + 1
//                  1 2 3 4                                    4 3 2 1
//                  2 3 4 5                                    5 4 3 2
//
// From diagonal to diagonal the states pass in lines of rows, where the two inputs of row r are
// neighbours: [row above the first: 0][row 0][row 1] ..., each [L].
#pragma once
#include <algorithm>
#include <cstdint>

#include "../core/blocks.h"
#include "../core/panels.h"

namespace genkern::core::diagonal_lstm {

// Rows first .. first + count - 1; the pixel of the first one, and the step to the next row's.
struct Diagonal {
  int64_t first, count, pixel, step;
};

template <typename A>
struct Shape {
  static constexpr int64_t L = kLanes<A>;
  // Saved panels fill whole cache lines, so that their size depends on no ISA level.
  static constexpr int64_t kPad = 64 / int64_t(sizeof(A));

  int64_t N, hidden, H, W;
  bool reverse;

  int64_t padded() const { return (hidden + kPad - 1) / kPad * kPad; }
  int64_t blocks() const { return (hidden + L - 1) / L; }
  int64_t valid(int64_t block) const { return std::min(L, hidden - block * L); }  // units in use
  int64_t pixels() const { return H * W; }
  int64_t diagonals() const { return H + W - 1; }
  int64_t line() const { return (H + 1) * L; }  // of states, of one block
  int64_t weight_size() const { return blocks() * blocks() * 2 * L * 4 * L; }
  bool is_empty() const { return N * hidden * pixels() == 0; }

  Diagonal diagonal(int64_t t) const {
    const int64_t first = std::max<int64_t>(0, t - W + 1), count = std::min(H, t + 1) - first;
    const int64_t column = reverse ? W - 1 - (t - first) : t - first;
    return {first, count, first * W + column, reverse ? W + 1 : W - 1};
  }
};

}  // namespace genkern::core::diagonal_lstm
