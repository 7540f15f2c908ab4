// One direction of a Diagonal BiLSTM, backward. Of each image, diagonals in reverse:
//
//   for (t = H + W - 2; t >= 0; --t)
//     for (pair of blocks) {
//       h[t] = upstream[t] + (K transposed * line[(t + 1) % 2]);       // the gradient of h
//       h[t], d_gates[t], line[t % 2], d_c = cell_backward(saved[t], h[t], d_c);
//     }
//   d_weight += h (x) d_gates;                                         // summed over the pixels
//
// A line holds the gradients of the gates by rows, where those that row r sends its state to, to
// its right and below it, are neighbours: [row 0][row 1] ... [row below the last: 0]. The states
// lie in a frame with what each row starts with, and a row of zeros on top:
//
//   left to right    _ 0 0 0 0      right to left    0 0 0 0 _
//                    s h h h h                       h h h h s
//                    s h h h h                       h h h h s
#include "../bind.h"
#include "diagonal_lstm.h"
#include "weights.h"

namespace genkern::cpu {
namespace {

using core::Accumulate;
using core::block_size;
namespace dl = core::diagonal_lstm;

// Sums of the weight's gradient, each over its own images, and what they may take together.
constexpr int64_t kGroups = block_size(64, 2), kGroupBytes = block_size(32 << 20, 1 << 20);
// Gradients of gates that stay in the first-level cache while the states pass over them.
constexpr int64_t kChunkBytes = block_size(1 << 14, 1 << 9);

template <typename T>
struct Backward {
  using A = Accumulate<T>;
  static constexpr int64_t L = core::kLanes<A>;

  dl::Shape<A> s;
  const Tensor& like;  // of scratch
  const T *d_h, *h0, *c0;
  const A* weight;  // packed and transposed
  const A *gates, *cells;
  T *d_input, *d_h0, *d_c0;
  A* d_weight;  // [image group][gate block][state block][above, left][lane][gate][lane], or null

  // The number of sums depends on the shapes alone: so do the bits of the result.
  int64_t groups() const {
    const int64_t room = kGroupBytes / (s.weight_size() * int64_t(sizeof(A)));
    return std::min({s.N, std::max<int64_t>(8, room), kGroups});
  }

  int64_t pitch() const { return s.W + 1; }  // of the frame
  int64_t frame() const { return (s.H + 1) * pitch() * L; }
  int64_t before() const { return s.reverse ? 0 : 1; }  // columns of the frame
  int64_t lines() const { return s.blocks() * 4 * s.line(); }

  // What a thread holds of one image.
  struct Image {
    A *frames, *lines, *d_c, *start, *d_gates;
  };
  int64_t image_size() const {
    const int64_t rows = s.blocks() * s.H * L;
    return s.blocks() * frame() + 2 * lines() + 2 * rows + 4 * s.blocks() * s.pixels() * L;
  }
  Image divide(A* memory) const {
    A* lines = memory + s.blocks() * frame();
    A *d_c = lines + 2 * this->lines(), *start = d_c + s.blocks() * s.H * L;
    return {memory, lines, d_c, start, start + s.blocks() * s.H * L};
  }

  // The gradient of h, and what the rows start with.
  void begin_image(const Image& image, int64_t n) const {
    std::fill_n(image.lines, 2 * lines(), A(0));
    std::fill_n(image.d_c, 2 * s.blocks() * s.H * L, A(0));
    for (int64_t b = 0; b < s.blocks(); ++b) {
      const int64_t unit = n * s.hidden + b * L, valid = s.valid(b);
      A *frame = image.frames + b * this->frame(), *start = image.start + b * s.H * L;
      std::fill_n(frame, pitch() * L, A(0));
      if (h0) core::rows_to_panel(h0 + unit * s.H, s.H, valid, s.H, start, L);
      for (int64_t r = 0; r < s.H; ++r) {
        A* row = frame + (r + 1) * pitch() * L;
        std::copy_n(start + r * L, L, row + (s.reverse ? s.W * L : 0));
        core::rows_to_panel(d_h + unit * s.pixels() + r * s.W, s.pixels(), valid, s.W,
                            row + before() * L, L);
      }
      if (c0) core::rows_to_panel(c0 + unit * s.H, s.H, valid, s.H, start, L);
      if (!c0) std::fill_n(start, s.H * L, A(0));
    }
  }

  // to[block of pair][row] += K^T * line, of two taps or of that to the left alone.
  void multiply(const A* line, int64_t pair, int64_t taps, int64_t rows, dl::Rows<A> to,
                int64_t block) const {
    const A* w = weight + 2 * pair * s.weight_size() / s.blocks();
    const int64_t panel = 4 * s.line(), row = 2 * 4 * L * L;
    if (2 * pair + 1 < s.blocks())
      dl::multiply<2, 4 * L>(line, panel, s.blocks(), taps * 4 * L, w, 2 * row, rows, to, block);
    else
      dl::multiply<1, 4 * L>(line, panel, s.blocks(), taps * 4 * L, w, row, rows, to, block);
  }

  void diagonal(const Image& image, int64_t n, int64_t t) const {
    const dl::Diagonal d = s.diagonal(t);
    const A* line = image.lines + (t + 1) % 2 * lines() + d.first * 4 * L;
    A* next = image.lines + t % 2 * lines() + d.first * 4 * L;
    const int64_t in_frame = (d.pixel + d.first + pitch() + before()) * L;
    const int64_t step = d.step * L, left = s.reverse ? -L : L;
    for (int64_t b = 0; b < s.blocks(); ++b) {
      const dl::Rows<A> h{image.frames + b * frame() + in_frame, step + L};
      if (b % 2 == 0) multiply(line, b / 2, 2, d.count, h, frame());
      const int64_t at = (b * s.pixels() + d.pixel) * L;
      const A* cell = cells + n * s.padded() * s.pixels() + at;
      const A* gate = gates + 4 * (n * s.padded() * s.pixels() + at);
      const A* start = t < s.H ? image.start + (b * s.H + t) * L : nullptr;
      const dl::Rows<A> to{d_input || d_weight ? image.d_gates + 4 * at : nullptr, 4 * step};
      dl::cell_backward(d.count, s.valid(b), {gate, 4 * step}, {cell, step}, {cell - left, step},
                        start, h, image.d_c + (b * s.H + d.first) * L, to, next + b * 4 * s.line());
    }
  }

  void input_gradient(const Image& image, int64_t n) const {
    for (int64_t b = 0; b < s.blocks(); ++b)
      for (int64_t gate = 0; gate < 4; ++gate)
        core::panel_to_rows(image.d_gates + (b * s.pixels() * 4 + gate) * L, 4 * L, s.valid(b),
                            s.pixels(), d_input + ((n * 4 + gate) * s.hidden + b * L) * s.pixels(),
                            s.pixels());
  }

  void add_weight_gradient(const Image& image, A* sums) const {
    const int64_t chunk = std::max<int64_t>(1, kChunkBytes / (s.W * 4 * L * int64_t(sizeof(A))));
    for (int64_t begin = 0; begin < s.H; begin += chunk) {
      const int64_t end = std::min(s.H, begin + chunk);
      A* to = sums;
      for (int64_t b = 0; b < s.blocks(); ++b)
        for (int64_t from = 0; from < s.blocks(); ++from, to += 2 * 4 * L * L) {
          const A* d = image.d_gates + b * s.pixels() * 4 * L;
          const A* h = image.frames + from * frame();
          // No row is above the first one, whatever its gradient is.
          const int64_t r = std::max<int64_t>(1, begin);
          dl::correlate(end - r, s.W, h + (r * pitch() + before()) * L, pitch() * L,
                        d + r * s.W * 4 * L, to);
          dl::correlate(end - begin, s.W, h + ((begin + 1) * pitch() + 1 - before()) * L,
                        pitch() * L, d + begin * s.W * 4 * L, to + 4 * L * L);
        }
    }
  }

  // Row r's first pixel left its gradient in line r % 2, where nothing followed it.
  void start_gradients(const Image& image, int64_t n) const {
    for (int64_t r = 1; r < s.H; r += 2)
      for (int64_t b = 0; b < s.blocks(); ++b) {
        A* line = image.lines + b * 4 * s.line() + r * 4 * L;
        std::copy_n(line + lines(), 4 * L, line);
      }
    std::fill_n(image.start, s.blocks() * s.H * L, A(0));
    for (int64_t b = 0; b < s.blocks(); ++b) {
      const int64_t to = (n * s.hidden + b * L) * s.H, size = s.H * L;
      A* d_start = image.start + b * size;
      if (d_h0 && b % 2 == 0) multiply(image.lines, b / 2, 1, s.H, {d_start, L}, size);
      if (d_h0) core::panel_to_rows(d_start, L, s.valid(b), s.H, d_h0 + to, s.H);
      if (d_c0) core::panel_to_rows(image.d_c + b * size, L, s.valid(b), s.H, d_c0 + to, s.H);
    }
  }

  void run() const {
    const int64_t groups = d_weight ? this->groups() : s.N;
    parallel_for(0, groups, 1, [&](int64_t g, int64_t end) {
      const Scratch<A> memory(like, image_size());
      const Image image = divide(memory.get());
      for (; g < end; ++g)
        for (int64_t n = s.N * g / groups; n < s.N * (g + 1) / groups; ++n) {
          begin_image(image, n);
          for (int64_t t = s.diagonals() - 1; t >= 0; --t) diagonal(image, n, t);
          if (d_input) input_gradient(image, n);
          if (d_weight) add_weight_gradient(image, d_weight + g * s.weight_size());
          if (d_h0 || d_c0) start_gradients(image, n);
        }
    });
  }
};

// Adds up the groups of images, in order, into the parameter's layout.
template <typename T>
void unpack(const dl::Shape<Accumulate<T>>& s, const Accumulate<T>* packed, int64_t groups,
            T* d_weight) {
  parallel_for(0, s.blocks(), 1, [&](int64_t b, int64_t end) {
    for (; b < end; ++b)
      dl::for_each_weight(s, b, [&](int64_t to, int64_t from) {
        Accumulate<T> sum = 0;
        for (int64_t g = 0; g < groups; ++g) sum += packed[g * s.weight_size() + from];
        d_weight[to] = core::from_accumulate<T>(sum);
      });
  });
}

using Gradients = std::tuple<Tensor, Tensor, Tensor, Tensor>;

// Gradients that are not needed come back empty.
Gradients diagonal_lstm_backward(const std::optional<Tensor>& upstream,
                                 const Tensor& /*input_gates*/, const Tensor& given_weight_hh,
                                 const std::optional<Tensor>& given_h0,
                                 const std::optional<Tensor>& given_c0, const Tensor& gates,
                                 const Tensor& cells, bool reverse, bool need_input,
                                 bool need_weight, bool need_h0, bool need_c0) {
  const Tensor d_h = dense(*upstream), weight_hh = dense(given_weight_hh);
  const std::optional<Tensor> h0 = dense(given_h0), c0 = dense(given_c0);
  return dispatch_floating(weight_hh, [&]<typename T>(T) -> Gradients {
    using A = Accumulate<T>;
    const dl::Shape<A> s{d_h.size(0), d_h.size(1), d_h.size(2), d_h.size(3), reverse};
    const auto result = [&](bool need, std::initializer_list<int64_t> shape) {
      return need ? new_large(weight_hh, shape) : absent(weight_hh);
    };
    Tensor d_input = result(need_input, {s.N, 4 * s.hidden, s.H, s.W});
    Tensor d_weight = result(need_weight, {4 * s.hidden, s.hidden, 2});
    Tensor d_h0 = result(need_h0, {s.N, s.hidden, s.H});
    Tensor d_c0 = result(need_c0, {s.N, s.hidden, s.H});
    if (s.is_empty()) {
      for (Tensor* d : {&d_input, &d_weight, &d_h0, &d_c0})
        std::fill_n(data<T>(*d), d->numel(), T{});
      return {d_input, d_weight, d_h0, d_c0};
    }
    const Scratch<A> packed(weight_hh, s.weight_size());
    parallel_for(0, (s.blocks() + 1) / 2, 1, [&](int64_t p, int64_t end) {
      for (; p < end; ++p) dl::pack_transposed(s, p, data<const T>(weight_hh), packed.get());
    });
    Backward<T> work{s,
                     weight_hh,
                     data<const T>(d_h),
                     data<const T>(h0),
                     data<const T>(c0),
                     packed.get(),
                     data<const A>(gates),
                     data<const A>(cells),
                     need_input ? data<T>(d_input) : nullptr,
                     need_h0 ? data<T>(d_h0) : nullptr,
                     need_c0 ? data<T>(d_c0) : nullptr,
                     nullptr};
    const int64_t groups = need_weight ? work.groups() : 0;
    const Scratch<A> d_packed(weight_hh, groups * s.weight_size(), /*zero=*/true);
    if (need_weight) work.d_weight = d_packed.get();
    work.run();
    if (need_weight) unpack(s, d_packed.get(), groups, data<T>(d_weight));
    return {d_input, d_weight, d_h0, d_c0};
  });
}

GENKERN_REGISTER(CPU, m) { GENKERN_OP(m, diagonal_lstm_backward); }

}  // namespace
}  // namespace genkern::cpu
