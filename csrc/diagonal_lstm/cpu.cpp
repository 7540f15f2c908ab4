// One direction of a Diagonal BiLSTM, forward: input_gates (N, 4h, H, W) -> h (N, h, H, W).
//
//   for (n = 0; n < N; ++n)                        // on threads
//     for (t = 0; t < H + W - 1; ++t)
//       for (b = 0; b < blocks; ++b) {             // of L hidden units
//         gates[t, b] += K * line[t % 2];
//         c[b], h[t, b], line[(t + 1) % 2][b] = cell_forward(gates[t, b], c[b]);
//       }
//
// A row waits with its start state in the line that its first pixel, on diagonal r, reads.
#include "../bind.h"
#include "diagonal_lstm.h"
#include "weights.h"

namespace genkern::cpu {
namespace {

using core::Accumulate;
namespace dl = core::diagonal_lstm;

template <typename T>
struct Forward {
  using A = Accumulate<T>;
  static constexpr int64_t L = core::kLanes<A>;

  dl::Shape<A> s;
  const Tensor& like;  // of scratch
  const T *input, *h0, *c0;
  const A* weight;  // packed
  T* h;
  A *gates, *cells;  // saved for the backward pass, or null

  int64_t lines() const { return s.blocks() * s.line(); }
  int64_t scratch_size() const {
    const int64_t panels = s.blocks() * s.pixels() * L;
    return 2 * lines() + s.blocks() * s.H * L + panels + (gates ? 0 : 4 * panels);
  }

  // Fills the panels of the gates, and the lines and cells that the rows start with.
  void begin_image(int64_t n, A* panels, A* lines, A* c) const {
    std::fill_n(lines, 2 * this->lines(), A(0));
    std::fill_n(c, s.blocks() * s.H * L, A(0));
    for (int64_t b = 0; b < s.blocks(); ++b) {
      const int64_t unit = b * L, size = s.H * L;
      for (int64_t gate = 0; gate < 4; ++gate)
        core::rows_to_panel(input + ((n * 4 + gate) * s.hidden + unit) * s.pixels(), s.pixels(),
                            s.valid(b), s.pixels(), panels + (b * s.pixels() * 4 + gate) * L,
                            4 * L);
      const int64_t from = (n * s.hidden + unit) * s.H;
      if (c0) core::rows_to_panel(c0 + from, s.H, s.valid(b), s.H, c + b * size, L);
      if (!h0) continue;
      A* line = lines + b * s.line() + L;
      core::rows_to_panel(h0 + from, s.H, s.valid(b), s.H, line, L);
      for (int64_t r = 1; r < s.H; r += 2)
        std::copy_n(line + r * L, L, line + this->lines() + r * L);
    }
  }

  void image(int64_t n, A* scratch) const {
    A *lines = scratch, *c = lines + 2 * this->lines(), *states = c + s.blocks() * s.H * L;
    A* panels = states + s.blocks() * s.pixels() * L;
    A* saved_cells = nullptr;
    if (gates) {
      panels = gates + n * 4 * s.padded() * s.pixels();
      saved_cells = cells + n * s.padded() * s.pixels();
      const int64_t used = s.blocks() * L * s.pixels(), all = s.padded() * s.pixels();
      std::fill(panels + 4 * used, panels + 4 * all, A(0));  // units that this level leaves out
      std::fill(saved_cells + used, saved_cells + all, A(0));
    }
    begin_image(n, panels, lines, c);
    for (int64_t t = 0; t < s.diagonals(); ++t) {
      const dl::Diagonal d = s.diagonal(t);
      const A* line = lines + t % 2 * this->lines() + d.first * L;
      A* next = lines + (t + 1) % 2 * this->lines() + (d.first + 1) * L;
      for (int64_t b = 0; b < s.blocks(); ++b) {
        const int64_t at = (b * s.pixels() + d.pixel) * L, step = d.step * L;
        const dl::Rows<A> sums{panels + 4 * at, 4 * step};
        const int64_t weights = 2 * L * 4 * L;
        dl::multiply<4, L>(line, s.line(), s.blocks(), 2 * L, weight + b * s.blocks() * weights,
                           weights, d.count, sums, L);
        const dl::Rows<A> to{saved_cells ? saved_cells + at : nullptr, step};
        dl::cell_forward(d.count, s.valid(b), gates != nullptr, sums, c + (b * s.H + d.first) * L,
                         to, dl::Rows<A>{states + at, step}, next + b * s.line());
      }
    }
    for (int64_t b = 0; b < s.blocks(); ++b)
      core::panel_to_rows(states + b * s.pixels() * L, L, s.valid(b), s.pixels(),
                          h + (n * s.hidden + b * L) * s.pixels(), s.pixels());
  }

  void run() const {
    parallel_for(0, s.N, 1, [&](int64_t n, int64_t end) {
      const Scratch<A> scratch(like, scratch_size());
      for (; n < end; ++n) image(n, scratch.get());
    });
  }
};

using Results = std::tuple<Tensor, Tensor, Tensor>;

Results diagonal_lstm_forward(const Tensor& given_input_gates, const Tensor& given_weight_hh,
                              const std::optional<Tensor>& given_h0,
                              const std::optional<Tensor>& given_c0, bool reverse, bool save) {
  const Tensor input_gates = dense(given_input_gates), weight_hh = dense(given_weight_hh);
  const std::optional<Tensor> h0 = dense(given_h0), c0 = dense(given_c0);
  return dispatch_floating(input_gates, [&]<typename T>(T) -> Results {
    using A = Accumulate<T>;
    const dl::Shape<A> s{input_gates.size(0), weight_hh.size(1), input_gates.size(2),
                         input_gates.size(3), reverse};
    const auto saved_dtype = accumulate_dtype(input_gates);
    const int64_t images = save ? s.N : 0;
    Tensor h = new_large(input_gates, {s.N, s.hidden, s.H, s.W});
    Tensor gates = new_large(input_gates, {images, 4 * s.padded(), s.H, s.W}, saved_dtype);
    Tensor cells = new_large(input_gates, {images, s.padded(), s.H, s.W}, saved_dtype);
    if (s.is_empty()) return {h, gates, cells};
    const Scratch<A> packed(weight_hh, s.weight_size(), /*zero=*/true);
    const T* weight = data<const T>(weight_hh);
    parallel_for(0, s.blocks(), 1, [&](int64_t b, int64_t end) {
      for (; b < end; ++b)
        dl::for_each_weight(s, b, [&](int64_t from, int64_t to) {
          packed.get()[to] = core::to_accumulate(weight[from]);
        });
    });
    Forward<T>{s,
               input_gates,
               data<const T>(input_gates),
               data<const T>(h0),
               data<const T>(c0),
               packed.get(),
               data<T>(h),
               save ? data<A>(gates) : nullptr,
               save ? data<A>(cells) : nullptr}
        .run();
    return {h, gates, cells};
  });
}

GENKERN_REGISTER(CPU, m) { GENKERN_OP(m, diagonal_lstm_forward); }

}  // namespace
}  // namespace genkern::cpu
