// All rows of a Row LSTM, backward. Rows in reverse:
//   d_h[r] = upstream + K_ss^T * d_gates[r + 1],  d_gates[r] from d_h[r], d_c and the saved gates,
// and d_weight = sum over images and rows of h[r - 1] (x) d_gates[r], one correlation for every
// group of rows, while they are still in the cache. All sums run in an order that the shapes fix.
#include <vector>

#include "../bind.h"
#include "row_lstm.h"

namespace genkern::cpu {
namespace {

using core::Accumulate;
namespace rl = core::row_lstm;

constexpr int64_t kImages = 256;          // images whose rows are held at a time, at most
constexpr int64_t kRingBytes = 1 << 20;   // about the size of the rows held: the second-level cache
constexpr int64_t kPartsBytes = 4 << 20;  // for a weight gradient of each image
constexpr int64_t kTasks = 64;            // pieces of the weight gradient, if the batch allows it
constexpr int kChunk = 4;                 // panels of one pass of it: the first-level cache

template <typename T, typename E>
struct Backward {
  using A = Accumulate<T>;
  static constexpr int64_t L = core::kLanes<A>, F = core::kFactor<E>;

  rl::Shape<A> s;
  const T *d_h, *d_h_n, *d_c_n, *h0, *c0;
  const E* weight;  // packed and transposed
  const A *gates, *cells;
  T *d_input, *d_h0, *d_c0;
  A* d_weight;  // [image group][gate block][state block][tap][lane][gate][lane], or null

  int64_t pairs() const { return (s.blocks() + 1) / 2; }
  // One sum of weight gradients for each group of images, added up at the end. The number depends
  // on the shapes alone: so do the bits of the result.
  int64_t groups() const {
    if (s.N <= kImages && s.N * s.weight_size() * int64_t(sizeof(A)) <= kPartsBytes) return s.N;
    const int64_t tiles = s.blocks() * s.blocks();
    return std::min({s.N, kImages, (kTasks + tiles - 1) / tiles});
  }

  // The rows held of each image. Slot r % slots has d_gates of row r beside the state of row r - 1:
  // the two factors of the weight gradient. Where a factor is a pair, two rows are one.
  struct Ring {
    int64_t slots, pairs;
    rl::Buffer<E> gates, states, gate_pairs, state_pairs;
    rl::Buffer<A> d_cell;
  };
  Ring make_ring(int64_t images) const {
    const int64_t bytes = images * 5 * s.state_size() * int64_t(sizeof(E)) * F;
    const int64_t rows = d_weight ? std::max(F, kRingBytes / bytes / F * F) : 1;
    const int64_t slots = std::min(rows, s.H) + 1;
    const int64_t pairs = d_weight && F > 1 ? slots / 2 : 0;
    Ring ring{slots,
              pairs,
              rl::Buffer<E>(images * slots * 4 * s.state_size()),
              rl::Buffer<E>(d_weight ? images * slots * s.state_size() : 0),
              rl::Buffer<E>(images * pairs * 4 * s.state_size() * F),
              rl::Buffer<E>(images * pairs * s.state_size() * F),
              rl::Buffer<A>(images * s.blocks() * s.W * L)};
    for (int64_t panel = 0; panel < images * slots * s.blocks(); ++panel) {
      clear_halo(ring.gates.get() + panel * s.span() * 4 * L, 4 * L);
      if (d_weight) clear_halo(ring.states.get() + panel * s.span() * L, L);
    }
    return ring;
  }
  void clear_halo(E* panel, int64_t pixel) const {
    std::fill_n(panel, s.halo() * pixel, E{});
    std::fill_n(panel + (s.halo() + s.W) * pixel, s.halo() * pixel, E{});
  }
  E* ring_gates(const Ring& ring, int64_t image, int64_t r) const {
    return ring.gates.get() + (image * ring.slots + r % ring.slots) * 4 * s.state_size();
  }
  E* ring_states(const Ring& ring, int64_t image, int64_t r) const {  // the state above row r
    return ring.states.get() + (image * ring.slots + r % ring.slots) * s.state_size();
  }

  // dh[2][W][L] = K_ss^T * d_gates for one pair of blocks, added to what is there.
  void convolve(const E* row, int64_t pair, A* dh) const {
    const E* w = weight + 2 * pair * s.weight_size() / s.blocks();
    if (2 * pair + 1 < s.blocks())
      rl::convolve_row<E, 2, 4 * L>(s, row, w, dh, L, s.W * L);
    else
      rl::convolve_row<E, 1, 4 * L>(s, row, w, dh, L, s.W * L);
  }

  // A panel of x (N, h, W), or zeros.
  template <typename P>
  void load_panel(const T* x, int64_t n, int64_t b, P* panel) const {
    if (x)
      rl::rows_to_panel(x + (n * s.hidden + b * L) * s.W, s.W, s.valid(b), s.W, panel, L);
    else
      std::fill_n(panel, s.W * L, P{});
  }

  // Row r of image n (the `image`-th held), two blocks of units; `scratch` holds 4 W L numbers.
  void pair_of_blocks(const Ring& ring, int64_t image, int64_t n, int64_t r, int64_t pair,
                      A* scratch) const {
    const int64_t plane = s.H * s.W, size = s.W * L;
    const int64_t begin = 2 * pair, end = std::min(begin + 2, s.blocks());
    A *dh = scratch, *extra = scratch + 2 * size;
    for (int64_t b = begin; b < end; ++b) {
      A* panel = dh + (b - begin) * size;
      const int64_t unit = n * s.hidden + b * L;
      if (d_h)
        rl::rows_to_panel(d_h + unit * plane + r * s.W, plane, s.valid(b), s.W, panel, L, -s.W);
      else
        std::fill_n(panel, size, A(0));
      if (r + 1 < s.H) continue;
      load_panel(d_h_n, n, b, extra);
      for (int64_t i = 0; i < size; ++i) panel[i] += extra[i];
      load_panel(d_c_n, n, b, ring.d_cell.get() + (image * s.blocks() + b) * size);
    }
    if (r + 1 < s.H) convolve(ring_gates(ring, image, r + 1), pair, dh);
    for (int64_t b = begin; b < end; ++b) {
      const int64_t saved = ((n * s.H + r) * s.padded() + b * L) * s.W;
      const int64_t inside = (b * s.span() + s.halo()) * L;
      if (r == 0) load_panel(c0, n, b, extra);
      const A* c_prev = r == 0 ? extra : cells + saved - s.padded() * s.W;
      E* d_gates = ring_gates(ring, image, r) + 4 * inside;
      E* state = d_weight && r + 1 < s.H ? ring_states(ring, image, r + 1) + inside : nullptr;
      rl::cell_backward(s.W, s.valid(b), gates + 4 * saved, c_prev, cells + saved,
                        dh + (b - begin) * size,
                        ring.d_cell.get() + (image * s.blocks() + b) * size, d_gates, state);
      if (!d_input) continue;
      for (int64_t gate = 0; gate < 4; ++gate)
        rl::panel_to_rows(d_gates + gate * L, 4 * L, s.valid(b), s.W,
                          d_input + ((n * 4 + gate) * s.hidden + b * L) * plane + r * s.W, plane);
    }
  }

  // Rows end - 1 down to begin of `count` images from `first` on.
  void rows(const Ring& ring, int64_t first, int64_t count, int64_t begin, int64_t end) const {
    if (rl::split_rows(s, num_threads())) {
      for (int64_t r = end - 1; r >= begin; --r)
        parallel_for(0, count * pairs(), 1, [&](int64_t i, int64_t stop) {
          const rl::Buffer<A> scratch(4 * s.W * L);
          for (; i < stop; ++i)
            pair_of_blocks(ring, i / pairs(), first + i / pairs(), r, i % pairs(), scratch.get());
        });
      return;
    }
    parallel_for(0, count, 1, [&](int64_t i, int64_t stop) {
      const rl::Buffer<A> scratch(4 * s.W * L);
      for (; i < stop; ++i)
        for (int64_t r = end - 1; r >= begin; --r)
          for (int64_t p = 0; p < pairs(); ++p)
            pair_of_blocks(ring, i, first + i, r, p, scratch.get());
    });
  }

  // Gradients of the state and the cell above the first row.
  void initial_state(const Ring& ring, int64_t image, int64_t n, int64_t pair, A* dh) const {
    const int64_t begin = 2 * pair, size = s.W * L;
    std::fill_n(dh, 2 * size, A(0));
    if (d_h0) convolve(ring_gates(ring, image, 0), pair, dh);
    for (int64_t b = begin; b < std::min(begin + 2, s.blocks()); ++b) {
      const int64_t to = (n * s.hidden + b * L) * s.W;
      const A* dc = ring.d_cell.get() + (image * s.blocks() + b) * size;
      if (d_h0) rl::panel_to_rows(dh + (b - begin) * size, L, s.valid(b), s.W, d_h0 + to, s.W);
      if (d_c0) rl::panel_to_rows(dc, L, s.valid(b), s.W, d_c0 + to, s.W);
    }
  }

  // h0 takes its place as the state above the first row.
  void load_h0(const Ring& ring, int64_t image, int64_t n) const {
    for (int64_t b = 0; b < s.blocks(); ++b)
      load_panel(h0, n, b, ring_states(ring, image, 0) + (b * s.span() + s.halo()) * L);
  }

  // Rows end > r >= begin of one image, two by two, or the first one and zeros.
  void pair_rows(const Ring& ring, int64_t image, int64_t begin, int64_t end) const {
    const auto zip = [](const E* first, const E* second, int64_t size, E* to) {
      for (int64_t i = 0; i < size; i += L) {
        const core::VecU v =
            second ? core::zip_bits(first + i, second + i) : core::widen_bits(first + i);
        std::memcpy(to + 2 * i, &v, sizeof(v));
      }
    };
    for (int64_t r = end - 1, p = image * ring.pairs; r >= begin; r -= 2, ++p) {
      const bool alone = r == begin;
      const int64_t size = s.state_size();
      zip(ring_gates(ring, image, r), alone ? nullptr : ring_gates(ring, image, r - 1), 4 * size,
          ring.gate_pairs.get() + p * 8 * size);
      zip(ring_states(ring, image, r), alone ? nullptr : ring_states(ring, image, r - 1), size,
          ring.state_pairs.get() + p * 2 * size);
    }
  }

  // Adds d_gates[r] (x) h[r - 1] of rows end > r >= begin of some images to one tile (gate block,
  // state block) of `sum`.
  void correlate(const Ring& ring, int64_t image, int64_t stop, int64_t begin, int64_t end,
                 int64_t tile, A* sum) const {
    const int64_t gate_block = tile / s.blocks(), block = tile % s.blocks();
    const E *states[kChunk], *d_gates[kChunk];
    int filled = 0;
    sum += tile * s.taps * L * 4 * L;
    for (; image < stop; ++image)
      for (int64_t r = end - 1, p = image * ring.pairs; r >= begin; r -= F, ++p) {
        const E *state = ring_states(ring, image, r), *gate = ring_gates(ring, image, r);
        if constexpr (F > 1) {
          state = ring.state_pairs.get() + p * F * s.state_size();
          gate = ring.gate_pairs.get() + p * 4 * F * s.state_size();
        }
        states[filled] = state + block * s.span() * L * F;
        d_gates[filled] = gate + gate_block * s.span() * 4 * L * F;
        if (++filled < kChunk) continue;
        rl::correlate_panels(s, filled, states, d_gates, sum);
        filled = 0;
      }
    rl::correlate_panels(s, filled, states, d_gates, sum);
  }

  // Images apart: one thread takes one image from the last row to the first, and its part of the
  // weight gradient along with it.
  void run_images() const {
    const int64_t tiles = s.blocks() * s.blocks();
    parallel_for(0, s.N, 1, [&](int64_t n, int64_t stop) {
      const Ring ring = make_ring(1);
      const rl::Buffer<A> scratch(4 * s.W * L);
      for (; n < stop; ++n) {
        const auto add = [&](int64_t begin, int64_t end) {
          if constexpr (F > 1) pair_rows(ring, 0, begin, end);
          for (int64_t t = 0; t < tiles; ++t)
            correlate(ring, 0, 1, begin, end, t, d_weight + n * s.weight_size());
        };
        for (int64_t end = s.H, begin; end > 0; end = begin) {
          begin = std::max<int64_t>(0, end - (ring.slots - 1));
          for (int64_t r = end - 1; r >= begin; --r)
            for (int64_t p = 0; p < pairs(); ++p) pair_of_blocks(ring, 0, n, r, p, scratch.get());
          if (d_weight) add(begin + 1, std::min(end + 1, s.H));
        }
        if (d_h0 || d_c0)
          for (int64_t p = 0; p < pairs(); ++p) initial_state(ring, 0, n, p, scratch.get());
        if (!d_weight || !h0) continue;
        load_h0(ring, 0, n);
        add(0, 1);
      }
    });
  }

  // Images together: some rows of all of them, then the weight gradient of these rows, by tiles.
  void run_rows() const {
    const int64_t images = std::min(s.N, kImages), tiles = s.blocks() * s.blocks();
    const Ring ring = make_ring(images);
    for (int64_t first = 0; first < s.N; first += images) {
      const int64_t count = std::min(images, s.N - first), groups = this->groups();
      const auto add = [&](int64_t begin, int64_t end) {
        if constexpr (F > 1)
          parallel_for(0, count, 1, [&](int64_t image, int64_t stop) {
            for (; image < stop; ++image) pair_rows(ring, image, begin, end);
          });
        parallel_for(0, groups * tiles, 1, [&](int64_t i, int64_t stop) {
          for (; i < stop; ++i) {
            const int64_t g = i / tiles;
            correlate(ring, count * g / groups, count * (g + 1) / groups, begin, end, i % tiles,
                      d_weight + g * s.weight_size());
          }
        });
      };
      for (int64_t end = s.H, begin; end > 0; end = begin) {
        begin = std::max<int64_t>(0, end - (ring.slots - 1));
        rows(ring, first, count, begin, end);
        if (d_weight) add(begin + 1, std::min(end + 1, s.H));
      }
      if (d_h0 || d_c0)
        parallel_for(0, count * pairs(), 1, [&](int64_t i, int64_t stop) {
          const rl::Buffer<A> scratch(2 * s.W * L);
          for (; i < stop; ++i)
            initial_state(ring, i / pairs(), first + i / pairs(), i % pairs(), scratch.get());
        });
      if (!d_weight || !h0) continue;
      parallel_for(0, count, 1, [&](int64_t image, int64_t stop) {
        for (; image < stop; ++image) load_h0(ring, image, first + image);
      });
      add(0, 1);
    }
  }

  // With one image a group both ways add the same numbers in the same order.
  void run() const {
    if ((!d_weight || groups() == s.N) && !rl::split_rows(s, num_threads()))
      run_images();
    else
      run_rows();
  }
};

// Adds up the image groups of d_weight, in order, into the parameter's layout.
template <typename T>
void unpack(const rl::Shape<Accumulate<T>>& s, const Accumulate<T>* packed, int64_t groups,
            T* d_weight) {
  parallel_for(0, s.blocks(), 1, [&](int64_t begin, int64_t end) {
    for (int64_t b = begin; b < end; ++b)
      rl::for_each_weight<1>(s, b, [&](int64_t to, int64_t from) {
        Accumulate<T> sum = 0;
        for (int64_t g = 0; g < groups; ++g) sum += packed[g * s.weight_size() + from];
        d_weight[to] = core::from_accumulate<T>(sum);
      });
  });
}

using Gradients = std::tuple<Tensor, Tensor, Tensor, Tensor>;

// Gradients that are not needed come back empty.
Gradients row_lstm_backward(const std::optional<Tensor>& given_d_h,
                            const std::optional<Tensor>& given_d_h_n,
                            const std::optional<Tensor>& given_d_c_n, const Tensor& /*input_gates*/,
                            const Tensor& given_weight_hh, const std::optional<Tensor>& given_h0,
                            const std::optional<Tensor>& given_c0, const Tensor& gates,
                            const Tensor& cells, bool need_input, bool need_weight, bool need_h0,
                            bool need_c0) {
  const std::optional<Tensor> d_h = dense(given_d_h), d_h_n = dense(given_d_h_n);
  const std::optional<Tensor> d_c_n = dense(given_d_c_n), h0 = dense(given_h0);
  const std::optional<Tensor> c0 = dense(given_c0);
  const Tensor weight_hh = dense(given_weight_hh);
  return dispatch_floating(weight_hh, [&]<typename T>(T) -> Gradients {
    using A = Accumulate<T>;
    const rl::Shape<A> s{gates.size(0), weight_hh.size(1), gates.size(1), gates.size(3),
                         weight_hh.size(2)};
    const auto result = [&](bool need, std::initializer_list<int64_t> shape) {
      return need ? new_large(weight_hh, shape) : absent(weight_hh);
    };
    Tensor d_input = result(need_input, {s.N, 4 * s.hidden, s.H, s.W});
    Tensor d_weight = result(need_weight, {4 * s.hidden, s.hidden, s.taps});
    Tensor d_h0 = result(need_h0, {s.N, s.hidden, s.W});
    Tensor d_c0 = result(need_c0, {s.N, s.hidden, s.W});
    if (s.N * s.hidden * s.W == 0) {
      if (need_weight) std::fill_n(data<T>(d_weight), 4 * s.hidden * s.hidden * s.taps, T{});
      return {d_input, d_weight, d_h0, d_c0};
    }
    core::dispatch_factors<T>([&]<typename E>(E) {
      const rl::Buffer<E> packed(s.weight_size());
      const T* weight = data<const T>(weight_hh);
      parallel_for(0, (s.blocks() + 1) / 2, 1, [&](int64_t begin, int64_t end) {
        for (int64_t p = begin; p < end; ++p) rl::pack_transposed(s, p, weight, packed.get());
      });
      Backward<T, E> work{s,
                          data<const T>(d_h),
                          data<const T>(d_h_n),
                          data<const T>(d_c_n),
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
      const rl::Buffer<A> d_packed(groups * s.weight_size(), /*zero=*/true);
      if (need_weight) work.d_weight = d_packed.get();
      work.run();
      if (need_weight) unpack(s, d_packed.get(), groups, data<T>(d_weight));
    });
    return {d_input, d_weight, d_h0, d_c0};
  });
}

GENKERN_REGISTER(CPU, m) { GENKERN_OP(m, row_lstm_backward); }

}  // namespace
}  // namespace genkern::cpu
