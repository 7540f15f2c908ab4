// All rows of a Row LSTM, forward: input_gates (N, 4h, H, W) -> h (N, h, H, W), h_n, c_n (N, h, W).
//
//   for (n = 0; n < N; ++n)
//     for (r = 0; r < H; ++r)
//       for (b = 0; b < blocks; ++b) {           // of L hidden units
//         sums = input_gates[n, b, r] + (K_ss[b] * state[r % 2]);
//         state[(r + 1) % 2][b], cell[b] = cell_forward(sums, cell[b]);
//       }
//
// Threads take images, or, where those are few, the blocks of a row. Every element is computed in
// the same order however the work is divided.
#include <vector>

#include "../bind.h"
#include "row_lstm.h"
#include "weights.h"

namespace genkern::cpu {
namespace {

using core::Accumulate;
namespace rl = core::row_lstm;

template <typename T, typename E>
struct Forward {
  using A = Accumulate<T>;
  static constexpr int64_t L = core::kLanes<A>;

  rl::Shape<A> s;
  const Tensor& like;  // of scratch
  const T *input, *h0, *c0;
  const E* weight;
  T *h, *h_n, *c_n;
  A *gates, *cells;  // saved for the backward pass, or null

  // What one image carries from row to row: two states, read and written in turn, and the cell.
  struct Image {
    E* state[2];
    A* cell;
  };
  int64_t states_size() const { return 2 * s.state_size() * int64_t(sizeof(E)) / sizeof(A); }
  int64_t image_size() const { return states_size() + s.blocks() * s.W * L; }

  Image begin_image(int64_t n, A* memory) const {
    std::fill_n(memory, image_size(), A(0));
    E* states = reinterpret_cast<E*>(memory);
    const Image image{{states, states + s.state_size()}, memory + states_size()};
    for (int64_t b = 0; b < s.blocks(); ++b) {
      const int64_t from = (n * s.hidden + b * L) * s.W;
      E* state = image.state[0] + (b * s.span() + s.halo()) * L;
      if (h0) core::rows_to_panel(h0 + from, s.W, s.valid(b), s.W, state, L);
      if (c0) core::rows_to_panel(c0 + from, s.W, s.valid(b), s.W, image.cell + b * s.W * L, L);
    }
    return image;
  }

  // Row r of image n, hidden units of block b; `sums` holds W * 4 * L numbers.
  void block(const Image& image, int64_t n, int64_t r, int64_t b, A* sums) const {
    const int64_t plane = s.H * s.W, valid = s.valid(b), unit = b * L;
    for (int64_t gate = 0; gate < 4; ++gate)
      core::rows_to_panel(input + (n * 4 + gate) * s.hidden * plane + unit * plane + r * s.W, plane,
                          valid, s.W, sums + gate * L, 4 * L, s.W);
    rl::convolve_row<E, 4, L>(s, image.state[r % 2], weight + b * s.weight_size() / s.blocks(),
                              sums, 4 * L, L);
    E* state = image.state[(r + 1) % 2] + (b * s.span() + s.halo()) * L;
    A* cell = image.cell + b * s.W * L;
    A *saved_gates = nullptr, *saved_cell = cell;
    const A* previous_cell = cell;
    if (gates) {
      const int64_t panel = ((n * s.H + r) * s.padded() + unit) * s.W;
      saved_gates = gates + 4 * panel;
      saved_cell = cells + panel;
      if (r > 0) previous_cell = saved_cell - s.padded() * s.W;
      if (b + 1 == s.blocks()) {  // lanes that this level does not use
        const int64_t used = L * s.W, unused = (s.padded() - s.blocks() * L) * s.W;
        std::fill_n(saved_gates + 4 * used, 4 * unused, A(0));
        std::fill_n(saved_cell + used, unused, A(0));
      }
    }
    rl::cell_forward(s.W, valid, sums, previous_cell, saved_cell, state, saved_gates);
    core::panel_to_rows(state, L, valid, s.W, h + (n * s.hidden + unit) * plane + r * s.W, plane);
    if (r + 1 < s.H) return;
    const int64_t to = (n * s.hidden + unit) * s.W;
    core::panel_to_rows(state, L, valid, s.W, h_n + to, s.W);
    core::panel_to_rows(saved_cell, L, valid, s.W, c_n + to, s.W);
  }

  void run() const {
    const int64_t blocks = s.blocks(), sums = s.W * 4 * L;
    if (!rl::split_rows(s, num_threads())) {
      parallel_units(s.N, 1, [&](Units images) {
        const Scratch<A> memory(like, image_size()), scratch(like, sums);
        for (const int64_t n : images) {
          const Image image = begin_image(n, memory.get());
          for (int64_t r = 0; r < s.H; ++r)
            for (int64_t b = 0; b < blocks; ++b) block(image, n, r, b, scratch.get());
        }
      });
      return;
    }
    const Scratch<A> memory(like, s.N * image_size());
    std::vector<Image> images;
    for (int64_t n = 0; n < s.N; ++n)
      images.push_back(begin_image(n, memory.get() + n * image_size()));
    for (int64_t r = 0; r < s.H; ++r)
      parallel_units(s.N * blocks, 1, [&](Units units) {
        const Scratch<A> scratch(like, sums);
        for (const int64_t i : units)
          block(images[i / blocks], i / blocks, r, i % blocks, scratch.get());
      });
  }
};

using Results = std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor>;

Results row_lstm_forward(const Tensor& given_input_gates, const Tensor& given_weight_hh,
                         const std::optional<Tensor>& given_h0,
                         const std::optional<Tensor>& given_c0, bool save) {
  const Tensor input_gates = dense(given_input_gates), weight_hh = dense(given_weight_hh);
  const std::optional<Tensor> h0 = dense(given_h0), c0 = dense(given_c0);
  return dispatch_floating(input_gates, [&]<typename T>(T) -> Results {
    using A = Accumulate<T>;
    const rl::Shape<A> s{input_gates.size(0), weight_hh.size(1), input_gates.size(2),
                         input_gates.size(3), weight_hh.size(2)};
    const auto saved_dtype = accumulate_dtype(input_gates);
    const int64_t rows = save ? s.N : 0;
    Tensor h = new_large(input_gates, {s.N, s.hidden, s.H, s.W});
    Tensor h_n = new_tensor(input_gates, {s.N, s.hidden, s.W});
    Tensor c_n = new_tensor(input_gates, {s.N, s.hidden, s.W});
    Tensor gates = new_large(input_gates, {rows, s.H, 4 * s.padded(), s.W}, saved_dtype);
    Tensor cells = new_large(input_gates, {rows, s.H, s.padded(), s.W}, saved_dtype);
    if (s.N * s.hidden * s.W == 0) return {h, h_n, c_n, gates, cells};
    core::dispatch_factors<T>([&]<typename E>(E) {
      const Scratch<E> packed(weight_hh, s.weight_size(), /*zero=*/true);
      const T* weight = data<const T>(weight_hh);
      parallel_units(s.blocks(), 1, [&](Units blocks) {
        for (const int64_t b : blocks)
          rl::for_each_weight<core::kFactor<E>>(s, b, [&](int64_t from, int64_t to) {
            packed.get()[to] = core::element<E>(weight[from]);
          });
      });
      Forward<T, E>{s,
                    input_gates,
                    data<const T>(input_gates),
                    data<const T>(h0),
                    data<const T>(c0),
                    packed.get(),
                    data<T>(h),
                    data<T>(h_n),
                    data<T>(c_n),
                    save ? data<A>(gates) : nullptr,
                    save ? data<A>(cells) : nullptr}
          .run();
    });
    return {h, h_n, c_n, gates, cells};
  });
}

GENKERN_REGISTER(CPU, m) { GENKERN_OP(m, row_lstm_forward); }

}  // namespace
}  // namespace genkern::cpu
