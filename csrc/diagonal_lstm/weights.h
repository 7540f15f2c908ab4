// The recurrent weights (4h, h, 2) <-> the order in which the tiles read them, front to back:
//
//   forward, and the gradient   [gate block][state block][above, left][state lane][gate][gate lane]
//   backward    [pair of state blocks][gate block][left, above][gate][gate lane][state block, lane]
#pragma once
#include "panels.h"

namespace genkern::core::diagonal_lstm {

// Calls f(index in weight, index in packed) for the gates of one block.
template <typename A, typename Function>
void for_each_weight(const Shape<A>& s, int64_t block, const Function& f) {
  constexpr int64_t L = kLanes<A>;
  for (int64_t gate = 0; gate < 4; ++gate)
    for (int64_t u = 0; u < s.valid(block); ++u)
      for (int64_t j = 0; j < s.hidden; ++j)
        for (int64_t tap = 0; tap < 2; ++tap)
          f(((gate * s.hidden + block * L + u) * s.hidden + j) * 2 + tap,
            (((block * s.blocks() + j / L) * 2 + tap) * L + j % L) * 4 * L + gate * L + u);
}

// For the state's gradient; the last pair of blocks may be one alone.
template <typename T>
void pack_transposed(const Shape<Accumulate<T>>& s, int64_t pair, const T* weight,
                     Accumulate<T>* packed) {
  using A = Accumulate<T>;
  constexpr int64_t L = kLanes<A>;
  const int64_t first = 2 * pair, states = std::min<int64_t>(2, s.blocks() - first) * L;
  packed += first * s.weight_size() / s.blocks();
  for (int64_t b = 0; b < s.blocks(); ++b)
    for (int64_t tap = 1; tap >= 0; --tap)
      for (int64_t gate = 0; gate < 4; ++gate)
        for (int64_t u = 0; u < L; ++u)
          for (int64_t j = first * L; j < first * L + states; ++j) {
            const int64_t row = gate * s.hidden + b * L + u;
            const bool live = u < s.valid(b) && j < s.hidden;
            *packed++ = live ? to_accumulate(weight[(row * s.hidden + j) * 2 + tap]) : A(0);
          }
}

}  // namespace genkern::core::diagonal_lstm
