// The parts of a Diagonal LSTM that know vectors but neither threads nor torch.
//
//   [o, f, i, g][r][x] = input[r][x] + K_0 h[r - 1][x] + K_1 h[r][x - 1]
//   c[r][x] = sigmoid(f) c[r][x - 1] + sigmoid(i) tanh(g);  h[r][x] = sigmoid(o) tanh(c[r][x])
//                                          van den Oord et al. 2016, "Pixel recurrent", sec. 3.2
//
//   for (t = 0; t < H + W - 1; ++t)
//     for (r + x == t)                              // together: a product of matrices
//       for (gate : {o, f, i, g})
//         for (u = 0; u < hidden; ++u) {
//           sum[gate][u] = input[gate][u][r][x];
//           for (j = 0; j < hidden; ++j)
//             sum[gate][u] += w[gate][u][j][0] * h[j][r - 1][x] + w[gate][u][j][1] * h[j][r][x -
//             1];
//         }
#pragma once
#include "../core/tile.h"
#include "../core/vecmath.h"
#include "panels.h"

namespace genkern::core::diagonal_lstm {

// What the rows of a diagonal have in common with other rows: the first one, and the distance.
template <typename P>
struct Rows {
  P* data;
  int64_t step;
};

// sums[x][v] += sum_{panels} sum_{q < window} a[panel][x * kRow + q] w[panel][q][v], x < rows.
// kRow is L for states, 4 L for gates; vectors of sums are `vector` apart, panels of weights
// `weights`.
template <int kVectors, int kRow, typename A>
[[gnu::noinline]] void multiply(const A* a, int64_t panel, int64_t panels, int64_t window,
                                const A* w, int64_t weights, int64_t rows, Rows<A> sums,
                                int64_t vector) {
  constexpr int L = kLanes<A>, kSums = kManyRegisters ? 24 : 12;
  constexpr int kPixels = std::min(12, kSums / kVectors);
  // A slice of the weights that stays in the first-level cache while the diagonal passes over it.
  const int64_t slice_bytes = weights * int64_t(sizeof(A));
  const int64_t slice = std::max<int64_t>(1, block_size(16384, 2048) / slice_bytes);
  for (int64_t begin = 0; begin < panels; begin += slice) {
    const int64_t end = std::min(begin + slice, panels);
    for_each_tile<kPixels>(rows, [&]<typename Size>(int64_t x, Size) {
      Tile<A, Size::value, kVectors> tile;
      tile.load_from(sums.data + x * sums.step, sums.step, vector);
      for (int64_t b = begin; b < end; ++b) {
        const A *p = a + b * panel + x * kRow, *factors = w + b * weights;
        for (int64_t q = 0; q < window; ++q, factors += kVectors * L)
          tile.add_products([&](int m) { return p + q + m * kRow; }, factors, whole<A>);
      }
      tile.store_to(sums.data + x * sums.step, sums.step, vector);
    });
  }
}

// d[q][gate] += sum_r sum_{x < W} h[r * pitch + x * L + q] d_gates[r * W + x][gate],  q < L
template <typename A>
[[gnu::noinline]] void correlate(int64_t rows, int64_t W, const A* h, int64_t pitch,
                                 const A* d_gates, A* d) {
  constexpr int L = kLanes<A>;
  for_each_tile<kManyRegisters ? 6 : 3>(L, [&]<typename Size>(int64_t q, Size) {
    Tile<A, Size::value, 4> tile;
    tile.load_from(d + q * 4 * L, 4 * L, L);
    const A* g = d_gates;
    for (int64_t r = 0; r < rows; ++r) {
      const A* p = h + r * pitch + q;
      for (int64_t x = 0; x < W; ++x, p += L, g += 4 * L)
        tile.add_products([&](int m) { return p + m; }, g, whole<A>);
    }
    tile.store_to(d + q * 4 * L, 4 * L, L);
  });
}

// ---- the cell --------------------------------------------------------------------------------

// gates: sums in, activated gates out if `saves`; c: of the left neighbours in, of these pixels
// out, and to `cells` if `saves`; h goes to the image, and to `next`, the line of the next
// diagonal. Lanes without a unit get h = 0 whatever happened in them: the next diagonal multiplies
// them by 0.
template <typename A>
void cell_forward(int64_t rows, int64_t valid, bool saves, Rows<A> gates, A* c, Rows<A> cells,
                  Rows<A> h, A* next) {
  constexpr int L = kLanes<A>;
  const auto used = lanes_in_use<A>(valid);
  for (int64_t r = 0; r < rows; ++r, gates.data += gates.step, c += L, next += L) {
    A* sums = gates.data;
    const Vec<A> o = sigmoid(load(sums)), f = sigmoid(load(sums + L));
    const Vec<A> i = sigmoid(load(sums + 2 * L)), g = quick_tanh(load(sums + 3 * L));
    const Vec<A> cell = f * load(c) + i * g;
    const Vec<A> state = used ? o * quick_tanh(cell) : Vec<A>{};
    store(c, cell), store(next, state), store(h.data, state);
    h.data += h.step;
    if (!saves) continue;
    store(sums, o), store(sums + L, f), store(sums + 2 * L, i), store(sums + 3 * L, g);
    store(cells.data, cell);
    cells.data += cells.step;
  }
}

// gates: activated. h: its gradient in, the state out. d_c: gradient of c in, of the left
// neighbours' out. d_gates, gradients of the sums, go to the image (unless it is null) and to
// `next`. `start`, unless null, holds the cell left of the last row's pixel, which is its row's
// first one; those of the others are in `left`.
template <typename A>
void cell_backward(int64_t rows, int64_t valid, Rows<const A> gates, Rows<const A> cells,
                   Rows<const A> left, const A* start, Rows<A> h, A* d_c, Rows<A> d_gates,
                   A* next) {
  constexpr int L = kLanes<A>;
  const auto used = lanes_in_use<A>(valid);
  for (int64_t r = 0; r < rows; ++r, d_c += L, next += 4 * L) {
    const A *saved = gates.data + r * gates.step, *previous = left.data + r * left.step;
    const Vec<A> o = load(saved), f = load(saved + L);
    const Vec<A> i = load(saved + 2 * L), g = load(saved + 3 * L);
    const Vec<A> c = load(start && r == rows - 1 ? start : previous);
    A* state = h.data + r * h.step;
    const Vec<A> dh = load(state), squashed = quick_tanh(load(cells.data + r * cells.step));
    const Vec<A> dc = load(d_c) + dh * o * (1 - squashed * squashed);
    store(d_c, dc * f);
    store(state, used ? o * squashed : Vec<A>{});
    const Vec<A> d[4] = {dh * squashed * o * (1 - o), dc * c * f * (1 - f), dc * g * i * (1 - i),
                         dc * i * (1 - g * g)};
    for (int gate = 0; gate < 4; ++gate) {
      const Vec<A> live = used ? d[gate] : Vec<A>{};
      store(next + gate * L, live);
      if (d_gates.data) store(d_gates.data + r * d_gates.step + gate * L, live);
    }
  }
}

}  // namespace genkern::core::diagonal_lstm
