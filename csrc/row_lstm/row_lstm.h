// The parts of a Row LSTM row that know vectors but neither threads nor torch.
//
//   [o, f, i, g] = x + K_ss * h_prev;  c = sigmoid(f) c_prev + sigmoid(i) tanh(g);
//   h = sigmoid(o) tanh(c)                      van den Oord et al. 2016, sec. 3.1 and 3.4
//
// A row is kept as panels of L = kLanes hidden units, channels last, with a zero halo of taps / 2
// pixels on both sides, so that the inputs of one output pixel are one contiguous window a panel:
//   state panel [W + taps - 1][L]          gate panel [W + taps - 1][4][L], gates o, f, i, g
//
// Where bfloat16 is multiplied in pairs (E = BFloat16), the states and the gradients of the gates
// are rounded where they are multiplied as they are in the results; all else is float32. A pair is
// two neighbouring channels, or, for the gradient of the weight, one channel of two rows.
#pragma once
#include <algorithm>
#include <array>
#include <cstdint>
#include <memory>
#include <new>
#include <utility>

#include "../core/bf16_pairs.h"
#include "cell.h"
#include "../core/vecmath.h"

namespace genkern::core::row_lstm {

inline constexpr bool kManyRegisters = kVectorBytes == 64;  // 32 registers instead of 16

// Memory on a cache line boundary, not initialised unless asked.
template <typename A>
class Buffer {
 public:
  explicit Buffer(int64_t size, bool zero = false)
      : data_(static_cast<A*>(::operator new[](size_t(size) * sizeof(A), std::align_val_t(64)))) {
    if (zero) std::fill_n(data_.get(), size, A{});
  }
  A* get() const { return data_.get(); }

 private:
  struct Free {
    void operator()(A* p) const { ::operator delete[](p, std::align_val_t(64)); }
  };
  std::unique_ptr<A, Free> data_;
};

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
  return s.N < threads && row_flops > 1'000'000;
}

// ---- rows of pixels <-> panels of channels ---------------------------------------------------

template <typename A>
using Indices = Vec<std::conditional_t<sizeof(A) == 8, int64_t, int32_t>>;

template <typename A>
inline Indices<A> lane_numbers() {
  Indices<A> lanes{};
  for (int i = 0; i < kLanes<A>; ++i) lanes[i] = i;
  return lanes;
}

template <typename A, int kStep>
inline void transpose_stage(Vec<A>* rows) {
  constexpr int L = kLanes<A>;
  const Indices<A> e = lane_numbers<A>(), odd = (e & kStep) != 0;
  const Indices<A> low = e + (odd & (L - kStep)), high = e + kStep + (odd & (L - kStep));
#pragma GCC unroll 16
  for (int i = 0; i < L; ++i) {
    if (i & kStep) continue;
    const Vec<A> a = rows[i], b = rows[i + kStep];
    rows[i] = __builtin_shuffle(a, b, low);
    rows[i + kStep] = __builtin_shuffle(a, b, high);
  }
  if constexpr (2 * kStep < L) transpose_stage<A, 2 * kStep>(rows);
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
    Vec<A> v[L];
#pragma GCC unroll 16
    for (int64_t i = 0; i < L; ++i) {
      v[i] = i < count ? load(rows + i * stride + x) : Vec<A>{};
      __builtin_prefetch(reinterpret_cast<const char*>(rows + i * stride + x) +
                         next * int64_t(sizeof(T)));
    }
    transpose_stage<A, 1>(v);
#pragma GCC unroll 16
    for (int64_t i = 0; i < L; ++i) store(panel + (x + i) * pixel, v[i]);
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
    Vec<A> v[L];
#pragma GCC unroll 16
    for (int64_t i = 0; i < L; ++i) v[i] = load(panel + (x + i) * pixel);
    transpose_stage<A, 1>(v);
#pragma GCC unroll 16
    for (int64_t i = 0; i < L; ++i)
      if (i < count) store(rows + i * stride + x, v[i]);
  }
}

// ---- register tiles --------------------------------------------------------------------------

// Calls f(begin, std::integral_constant<int, size>) on nearly equal pieces of at most kMax: a tile
// of one or two pixels would wait for its own multiply-adds.
template <int kMax, typename F>
inline void for_each_tile(int64_t count, const F& f) {
  const int64_t tiles = (count + kMax - 1) / kMax;
  for (int64_t t = 0; t < tiles; ++t) {
    const int64_t begin = count * t / tiles, size = count * (t + 1) / tiles - begin;
    [&]<int... i>(std::integer_sequence<int, i...>) {
      (void)((size == i + 1 && (f(begin, std::integral_constant<int, i + 1>{}), true)) || ...);
    }(std::make_integer_sequence<int, kMax>{});
  }
}

// acc[r][v] += a[r * kRow] * b[v]: kRows factors times kVectors vectors, held in registers.
template <typename E, int kRows, int kVectors, int kRow>
inline void multiply_add(const E* a, const E* b, Vec<Accumulate<E>> (&acc)[kRows][kVectors]) {
  constexpr int kRegister = kLanes<Accumulate<E>> * kFactor<E>;
  if constexpr (kRows <= kVectors) {
    Factors<E> x[kRows];
#pragma GCC unroll 16
    for (int r = 0; r < kRows; ++r) x[r] = splat_factor(a + r * kRow);
#pragma GCC unroll 16
    for (int v = 0; v < kVectors; ++v) {
      const Factors<E> y = load_factors(b + v * kRegister);
#pragma GCC unroll 16
      for (int r = 0; r < kRows; ++r) acc[r][v] = add_product(acc[r][v], x[r], y);
    }
  } else {
    Factors<E> y[kVectors];
#pragma GCC unroll 16
    for (int v = 0; v < kVectors; ++v) y[v] = load_factors(b + v * kRegister);
#pragma GCC unroll 16
    for (int r = 0; r < kRows; ++r) {
      const Factors<E> x = splat_factor(a + r * kRow);
#pragma GCC unroll 16
      for (int v = 0; v < kVectors; ++v) acc[r][v] = add_product(acc[r][v], x, y[v]);
    }
  }
}

template <typename A, int kRows, int kVectors>
inline void load_tile(const A* c, int64_t row, int64_t vector, Vec<A> (&acc)[kRows][kVectors]) {
#pragma GCC unroll 16
  for (int r = 0; r < kRows; ++r)
#pragma GCC unroll 16
    for (int v = 0; v < kVectors; ++v) acc[r][v] = load(c + r * row + v * vector);
}

template <typename A, int kRows, int kVectors>
inline void store_tile(A* c, int64_t row, int64_t vector, const Vec<A> (&acc)[kRows][kVectors]) {
#pragma GCC unroll 16
  for (int r = 0; r < kRows; ++r)
#pragma GCC unroll 16
    for (int v = 0; v < kVectors; ++v) store(c + r * row + v * vector, acc[r][v]);
}

// c[x][v] += sum_{panels} sum_{q < taps * kRow} a[panel][x * kRow + q] w[panel][q][v]
// for the W pixels of a row: the convolution along the row. kRow is L for states, 4 L for gates;
// c has strides `pixel` and `vector`.
template <typename E, int kVectors, int kRow>
[[gnu::noinline]] void convolve_row(const Shape<Accumulate<E>>& s, const E* a, const E* w,
                                    Accumulate<E>* c, int64_t pixel, int64_t vector) {
  using A = Accumulate<E>;
  constexpr int L = kLanes<A>, kAccumulators = kManyRegisters ? 24 : 12;
  constexpr int kPixels = std::min(12, kAccumulators / kVectors);
  const int64_t window = s.taps * kRow, panel = s.span() * kRow;
  // A slice of the weights that stays in the first-level cache while the row passes over it.
  const int64_t slice_bytes = window * kVectors * L * int64_t(sizeof(E));
  const int64_t slice = std::max<int64_t>(1, 16384 / slice_bytes);
  for (int64_t begin = 0; begin < s.blocks(); begin += slice) {
    const int64_t end = std::min(begin + slice, s.blocks());
    for_each_tile<kPixels>(s.W, [&]<typename Size>(int64_t x, Size) {
      Vec<A> acc[Size::value][kVectors];
      load_tile(c + x * pixel, pixel, vector, acc);
      const E* y = w + begin * window * kVectors * L;
      for (int64_t b = begin; b < end; ++b) {
        const E* p = a + b * panel + x * kRow;
        for (int64_t q = 0; q < window; q += kFactor<E>) {
          multiply_add<E, Size::value, kVectors, kRow>(p + q, y, acc);
          y += kVectors * L * kFactor<E>;
        }
      }
      store_tile(c + x * pixel, pixel, vector, acc);
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
    Vec<A> acc[Size::value][4];
    load_tile(d + q * 4 * L, 4 * L, L, acc);
    for (int i = 0; i < panels; ++i) {
      const E *p = h[i] + q * F, *g = d_gates[i] + s.halo() * 4 * L * F;
      for (int64_t x = 0; x < s.W; ++x, p += L * F, g += 4 * L * F)
        multiply_add<E, Size::value, 4, F>(p, g, acc);
    }
    store_tile(d + q * 4 * L, 4 * L, L, acc);
  });
}

// ---- the cell --------------------------------------------------------------------------------

// gates [W][4][L]: sums in, activated gates out (to `saved`); c_prev, c [W][L]; h [W][L].
// Lanes beyond `valid` get h = 0 whatever happened in them: the next row multiplies them by 0.
template <typename A, typename E>
void cell_forward(int64_t W, int64_t valid, const A* gates, const A* c_prev, A* c, E* h, A* saved) {
  constexpr int L = kLanes<A>;
  const Indices<A> used = lane_numbers<A>() < Indices<A>{} + int(valid);
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
  const Indices<A> used = lane_numbers<A>() < Indices<A>{} + int(valid);
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

// ---- weights (4h, h, taps) <-> packed --------------------------------------------------------

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
