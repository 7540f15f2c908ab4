// Shapes of a Row LSTM, and rows of pixels <-> panels of hidden units.
//
// A row is kept as panels of L = kLanes hidden units, channels last, with a zero halo of taps / 2
// pixels on both sides, so that the inputs of one output pixel are one contiguous window a panel:
//   state panel [W + taps - 1][L]          gate panel [W + taps - 1][4][L], gates o, f, i, g
//
// W = 4, taps = 3, units a, b, c, d of the first panel, halo _:
//
//   rows in the tensor     a0 a1 a2 a3 | b0 b1 b2 b3 | c0 c1 c2 c3 | d0 d1 d2 d3
//   state panel            ____ a0b0c0d0 a1b1c1d1 a2b2c2d2 a3b3c3d3 ____
//                          [---------------------]  the inputs of pixel 0
//                                   [-----------------------]  those of pixel 1
#pragma once
#include <algorithm>
#include <cstdint>

#include "../core/blocks.h"
#include "../core/panels.h"

namespace genkern::core::row_lstm {

template <typename A>
struct Shape {
  static constexpr int64_t L = kLanes<A>;
  // Saved panels are spaced for the widest vectors, so that their size depends on no ISA level.
  static constexpr int64_t kPad = 64 / int64_t(sizeof(A));

  int64_t N, hidden, H, W, taps;

  int64_t padded() const { return (hidden + kPad - 1) / kPad * kPad; }
  int64_t blocks() const { return (hidden + L - 1) / L; }
  int64_t halo() const { return taps / 2; }
  int64_t span() const { return W + taps - 1; }  // pixels of a panel
  int64_t state_size() const { return blocks() * span() * L; }
  int64_t valid(int64_t block) const { return std::min(L, hidden - block * L); }  // units in use
  int64_t weight_size() const { return blocks() * blocks() * taps * L * 4 * L; }
};

// Whether few images make it worth a barrier a row to divide the hidden units between threads.
template <typename A>
bool split_rows(const Shape<A>& s, int64_t threads) {
  const int64_t row_flops = 8 * s.hidden * s.hidden * s.taps * s.W * s.N;
  return s.N < threads && row_flops > block_size(1'000'000, 1000);
}

}  // namespace genkern::core::row_lstm
