// The recurrent weights (4h, h, taps) <-> the order in which the tiles read them: from front to
// back.
//
//   forward, and the gradient   [gate block][state block][tap][state lane][gate][gate lane]
//   backward    [pair of state blocks][gate block][mirrored tap][gate][gate lane][state block,
//   lane]
//
// The weights of one tap for L = 2 units u, v of gates o, f, i, g, and states j, k:
//
//   forward     oju ojv fju fjv iju ijv gju gjv | oku okv fku fkv iku ikv gku gkv
//   backward    oju oku | ojv okv | fju fku | fjv fkv | iju iku | ijv ikv | gju gku | gjv gkv
#pragma once
#include "panels.h"

namespace genkern::core::row_lstm {

// Calls f(index in weight, index in packed [block][in block][tap][factor][gate][lane][in factor])
// for factors of F input lanes.
template <int F, typename A, typename Function>
void for_each_weight(const Shape<A>& s, int64_t block, const Function& f) {
  constexpr int64_t L = kLanes<A>;
  for (int64_t j = 0; j < s.hidden; ++j)
    for (int64_t t = 0; t < s.taps; ++t)
      for (int64_t gate = 0; gate < 4; ++gate)
        for (int64_t u = 0; u < s.valid(block); ++u)
          f(((gate * s.hidden + block * L + u) * s.hidden + j) * s.taps + t,
            (((block * s.blocks() + j / L) * s.taps + t) * L + (j - j % F) % L) * 4 * L +
                (gate * L + u) * F + j % F);
}

// Mirrored and transposed for the backward convolution: output blocks in pairs (the last one may
// be alone), packed [pair][gate block][mirrored tap][gate][factor of units][block of pair][lane]
// [unit of factor].
template <typename T, typename E>
void pack_transposed(const Shape<Accumulate<T>>& s, int64_t pair, const T* weight, E* packed) {
  constexpr int64_t L = kLanes<Accumulate<T>>;
  const int64_t first = 2 * pair, vectors = std::min<int64_t>(2, s.blocks() - first);
  packed += first * s.blocks() * s.taps * 4 * L * L;
  for (int64_t b = 0; b < s.blocks(); ++b)
    for (int64_t t = s.taps - 1; t >= 0; --t)
      for (int64_t gate = 0; gate < 4; ++gate)
        for (int64_t factor = 0; factor < L; factor += kFactor<E>)
          for (int64_t j = first * L; j < (first + vectors) * L; ++j)
            for (int64_t u = factor; u < factor + kFactor<E>; ++u, ++packed) {
              const int64_t row = gate * s.hidden + b * L + u;
              *packed = u < s.valid(b) && j < s.hidden
                            ? element<E>(weight[(row * s.hidden + j) * s.taps + t])
                            : E{};
            }
}

}  // namespace genkern::core::row_lstm
