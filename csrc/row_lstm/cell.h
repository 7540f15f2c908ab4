// The cell of a Row LSTM, for vectors on the CPU and for scalars in CUDA device code.
//
//   c = sigmoid(f) c_prev + sigmoid(i) tanh(g);  h = sigmoid(o) tanh(c)
//                                                van den Oord et al. 2016, sec. 3.1
#pragma once
#include "../core/scalar.h"

namespace genkern::core::row_lstm {

// Activated gates, cell and state.
template <typename V>
struct Cell {
  V o, f, i, g, c, h;
};

// From the sums of the gates and the cell above; Math has sigmoid and tanh of V.
template <typename Math, typename V>
GENKERN_HOST_DEVICE Cell<V> cell_update(V o, V f, V i, V g, V c_prev) {
  o = Math::sigmoid(o), f = Math::sigmoid(f), i = Math::sigmoid(i), g = Math::tanh(g);
  const V c = f * c_prev + i * g;
  return {o, f, i, g, c, o * Math::tanh(c)};
}

}  // namespace genkern::core::row_lstm
