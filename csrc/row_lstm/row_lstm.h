// The parts of a Row LSTM row that know vectors but neither threads nor torch.
//
//   [o, f, i, g] = x + K_ss * h_prev;  c = sigmoid(f) c_prev + sigmoid(i) tanh(g);
//   h = sigmoid(o) tanh(c)                      van den Oord et al. 2016, sec. 3.1 and 3.4
//
//   for (x = 0; x < W; ++x) {
//     for (gate : {o, f, i, g})
//       for (u = 0; u < hidden; ++u) {
//         sum[gate][u] = input[gate][u][x];
//         for (j = 0; j < hidden; ++j)
//           for (t = 0; t < taps; ++t)
//             sum[gate][u] += w[gate][u][j][t] * h_prev[j][x + t - taps / 2];
//       }
//     c[x], h[x] = cell(sum, c_prev[x]);
//   }
//
// Where bfloat16 is multiplied in pairs (E = BFloat16), the states and the gradients of the gates
// are rounded where they are multiplied as they are in the results; all else is float32. A pair is
// two neighbouring channels, or, for the gradient of the weight, one channel of two rows.
#pragma once
#include "../core/tile.h"
#include "../core/vecmath.h"
#include "cell.h"
#include "panels.h"

namespace genkern::core::row_lstm {

// c[x][v] += sum_{panels} sum_{q < taps * kRow} a[panel][x * kRow + q] w[panel][q][v]
// for the W pixels of a row: the convolution along the row. kRow is L for states, 4 L for gates;
// c has strides `pixel` and `vector`.
template <typename E, int kVectors, int kRow>
[[gnu::noinline]] void convolve_row(const Shape<Accumulate<E>>& s, const E* a, const E* w,
                                    Accumulate<E>* c, int64_t pixel, int64_t vector) {
  using A = Accumulate<E>;
  constexpr int L = kLanes<A>, kSums = kManyRegisters ? 24 : 12;
  constexpr int kPixels = std::min(12, kSums / kVectors);
  const int64_t window = s.taps * kRow, panel = s.span() * kRow;
  // A slice of the weights that stays in the first-level cache while the row passes over it.
  const int64_t slice_bytes = window * kVectors * L * int64_t(sizeof(E));
  const int64_t slice = std::max<int64_t>(1, block_size(16384, 2048) / slice_bytes);
  for (int64_t begin = 0; begin < s.blocks(); begin += slice) {
    const int64_t end = std::min(begin + slice, s.blocks());
    for_each_tile<kPixels>(s.W, [&]<typename Size>(int64_t x, Size) {
      Tile<E, Size::value, kVectors> tile;
      tile.load_from(c + x * pixel, pixel, vector);
      const E* factors = w + begin * window * kVectors * L;
      for (int64_t b = begin; b < end; ++b) {
        const E* p = a + b * panel + x * kRow;
        for (int64_t q = 0; q < window; q += kFactor<E>) {
          const auto at = [&](int m) { return p + q + m * kRow; };
          tile.add_products(at, factors, whole<E>);
          factors += kVectors * kRegister<E>;
        }
      }
      tile.store_to(c + x * pixel, pixel, vector);
    });
  }
}

// d[q][gate] += sum_{panels} sum_x h[panel][x * L + q] d_gates[panel][x][gate],  q < taps * L; a
// panel holds factors: of one row, or of two.
template <typename E>
[[gnu::noinline]] void correlate_panels(const Shape<Accumulate<E>>& s, int panels,
                                        const E* const* h, const E* const* d_gates,
                                        Accumulate<E>* d) {
  using A = Accumulate<E>;
  constexpr int L = kLanes<A>, F = kFactor<E>;
  for_each_tile<kManyRegisters ? 6 : 3>(s.taps * L, [&]<typename Size>(int64_t q, Size) {
    Tile<E, Size::value, 4> tile;
    tile.load_from(d + q * 4 * L, 4 * L, L);
    for (int i = 0; i < panels; ++i) {
      const E *p = h[i] + q * F, *g = d_gates[i] + s.halo() * 4 * L * F;
      for (int64_t x = 0; x < s.W; ++x, p += L * F, g += 4 * L * F)
        tile.add_products([&](int m) { return p + m * F; }, g, whole<E>);
    }
    tile.store_to(d + q * 4 * L, 4 * L, L);
  });
}

// ---- the cell --------------------------------------------------------------------------------

// gates [W][4][L]: sums in, activated gates out (to `saved`); c_prev, c [W][L]; h [W][L].
// Lanes beyond `valid` get h = 0 whatever happened in them: the next row multiplies them by 0.
template <typename A, typename E>
void cell_forward(int64_t W, int64_t valid, const A* gates, const A* c_prev, A* c, E* h, A* saved) {
  constexpr int L = kLanes<A>;
  const Indices<A> used = lanes_in_use<A>(valid);
  for (int64_t x = 0; x < W; ++x) {
    const Cell<Vec<A>> y = cell_update<VectorMath>(
        load(gates), load(gates + L), load(gates + 2 * L), load(gates + 3 * L), load(c_prev));
    store(c, y.c);
    store(h, used ? y.h : Vec<A>{});
    if (saved) {
      store(saved, y.o), store(saved + L, y.f);
      store(saved + 2 * L, y.i), store(saved + 3 * L, y.g);
      saved += 4 * L;
    }
    gates += 4 * L, c_prev += L, c += L, h += L;
  }
}

// gates: activated; d_h, d_c: gradients of h and c, d_c becomes the gradient of c_prev.
// d_gates [W][4][L]: gradient of the gate sums. h (may be null): the state, computed again.
template <typename A, typename E>
void cell_backward(int64_t W, int64_t valid, const A* gates, const A* c_prev, const A* c,
                   const A* d_h, A* d_c, E* d_gates, E* h) {
  constexpr int L = kLanes<A>;
  const Indices<A> used = lanes_in_use<A>(valid);
  for (int64_t x = 0; x < W; ++x) {
    const Vec<A> o = load(gates), f = load(gates + L);
    const Vec<A> i = load(gates + 2 * L), g = load(gates + 3 * L);
    const Vec<A> squashed = quick_tanh(load(c)), dh = load(d_h);
    const Vec<A> dc = load(d_c) + dh * o * (1 - squashed * squashed);
    const Vec<A> d_o = dh * squashed * o * (1 - o), d_f = dc * load(c_prev) * f * (1 - f);
    const Vec<A> d_i = dc * g * i * (1 - i), d_g = dc * i * (1 - g * g);
    store(d_c, dc * f);
    store(d_gates, used ? d_o : Vec<A>{});
    store(d_gates + L, used ? d_f : Vec<A>{});
    store(d_gates + 2 * L, used ? d_i : Vec<A>{});
    store(d_gates + 3 * L, used ? d_g : Vec<A>{});
    if (h) {
      store(h, used ? o * squashed : Vec<A>{});
      h += L;
    }
    gates += 4 * L, c_prev += L, c += L, d_h += L, d_c += L, d_gates += 4 * L;
  }
}

}  // namespace genkern::core::row_lstm
