// All rows of a Row LSTM, backward. Rows in reverse:
//
//   for (r = H - 1; r >= 0; --r) {
//     d_h = upstream[r] + (K_ss transposed * d_gates[r + 1]);
//     d_gates[r], d_c = cell_backward(saved[r], d_h, d_c);
//     d_weight += h[r - 1] (x) d_gates[r];     // summed over the pixels of the row
//   }
//
// The last line is done for a group of rows at once, from a ring (ring.h), while they are in the
// cache. All sums run in an order that the shapes fix.
#pragma once
#include "ring.h"
#include "row_lstm.h"

namespace genkern::cpu {
namespace {

using core::Accumulate;
using core::block_size;
namespace rl = core::row_lstm;

// Images whose rows are held at a time, at most.
constexpr int64_t kImages = block_size(256, 3);
// About the size of the rows held: the second-level cache.
constexpr int64_t kRingBytes = block_size(1 << 20, 4096);
// For a weight gradient of each image.
constexpr int64_t kPartsBytes = block_size(4 << 20, 8192);
// Pieces of the weight gradient, if the batch allows it.
constexpr int64_t kTasks = block_size(64, 2);
// Panels of one pass of it: the first-level cache.
constexpr int kChunk = block_size(4, 2);

template <typename T, typename E>
struct Backward {
  using A = Accumulate<T>;
  static constexpr int64_t L = core::kLanes<A>, F = core::kFactor<E>;

  rl::Shape<A> s;
  const Tensor& like;  // of scratch
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

  Ring<E> make_ring(int64_t images) const {
    const int64_t bytes = images * 5 * s.state_size() * int64_t(sizeof(E)) * F;
    const int64_t rows = d_weight ? std::max(F, kRingBytes / bytes / F * F) : 1;
    return Ring<E>(like, s, images, std::min(rows, s.H) + 1, d_weight != nullptr);
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
      core::rows_to_panel(x + (n * s.hidden + b * L) * s.W, s.W, s.valid(b), s.W, panel, L);
    else
      std::fill_n(panel, s.W * L, P{});
  }

  // Row r of image n (the `image`-th held), two blocks of units; `scratch` holds 4 W L numbers.
  void pair_of_blocks(const Ring<E>& ring, int64_t image, int64_t n, int64_t r, int64_t pair,
                      A* scratch) const {
    const int64_t plane = s.H * s.W, size = s.W * L;
    const int64_t begin = 2 * pair, end = std::min(begin + 2, s.blocks());
    A *dh = scratch, *extra = scratch + 2 * size;
    for (int64_t b = begin; b < end; ++b) {
      A* panel = dh + (b - begin) * size;
      const int64_t unit = n * s.hidden + b * L;
      if (d_h)
        core::rows_to_panel(d_h + unit * plane + r * s.W, plane, s.valid(b), s.W, panel, L, -s.W);
      else
        std::fill_n(panel, size, A(0));
      if (r + 1 < s.H) continue;
      load_panel(d_h_n, n, b, extra);
      for (int64_t i = 0; i < size; ++i) panel[i] += extra[i];
      load_panel(d_c_n, n, b, ring.d_cell(image, b));
    }
    if (r + 1 < s.H) convolve(ring.gates(image, r + 1), pair, dh);
    for (int64_t b = begin; b < end; ++b) {
      const int64_t saved = ((n * s.H + r) * s.padded() + b * L) * s.W;
      const int64_t inside = (b * s.span() + s.halo()) * L;
      if (r == 0) load_panel(c0, n, b, extra);
      const A* c_prev = r == 0 ? extra : cells + saved - s.padded() * s.W;
      E* d_gates = ring.gates(image, r) + 4 * inside;
      E* state = d_weight && r + 1 < s.H ? ring.states(image, r + 1) + inside : nullptr;
      rl::cell_backward(s.W, s.valid(b), gates + 4 * saved, c_prev, cells + saved,
                        dh + (b - begin) * size, ring.d_cell(image, b), d_gates, state);
      if (!d_input) continue;
      for (int64_t gate = 0; gate < 4; ++gate)
        core::panel_to_rows(d_gates + gate * L, 4 * L, s.valid(b), s.W,
                            d_input + ((n * 4 + gate) * s.hidden + b * L) * plane + r * s.W, plane);
    }
  }

  // Rows end - 1 down to begin of `count` images from `first` on.
  void rows(const Ring<E>& ring, int64_t first, int64_t count, int64_t begin, int64_t end) const {
    if (rl::split_rows(s, num_threads())) {
      for (int64_t r = end - 1; r >= begin; --r)
        parallel_units(count * pairs(), 1, [&](Units units) {
          const Scratch<A> scratch(like, 4 * s.W * L);
          for (const int64_t i : units)
            pair_of_blocks(ring, i / pairs(), first + i / pairs(), r, i % pairs(), scratch.get());
        });
      return;
    }
    parallel_units(count, 1, [&](Units images) {
      const Scratch<A> scratch(like, 4 * s.W * L);
      for (const int64_t i : images)
        for (int64_t r = end - 1; r >= begin; --r)
          for (int64_t p = 0; p < pairs(); ++p)
            pair_of_blocks(ring, i, first + i, r, p, scratch.get());
    });
  }

  // Gradients of the state and the cell above the first row.
  void initial_state(const Ring<E>& ring, int64_t image, int64_t n, int64_t pair, A* dh) const {
    const int64_t begin = 2 * pair, size = s.W * L;
    std::fill_n(dh, 2 * size, A(0));
    if (d_h0) convolve(ring.gates(image, 0), pair, dh);
    for (int64_t b = begin; b < std::min(begin + 2, s.blocks()); ++b) {
      const int64_t to = (n * s.hidden + b * L) * s.W;
      const A* dc = ring.d_cell(image, b);
      if (d_h0) core::panel_to_rows(dh + (b - begin) * size, L, s.valid(b), s.W, d_h0 + to, s.W);
      if (d_c0) core::panel_to_rows(dc, L, s.valid(b), s.W, d_c0 + to, s.W);
    }
  }

  // h0 takes its place as the state above the first row.
  void load_h0(const Ring<E>& ring, int64_t image, int64_t n) const {
    for (int64_t b = 0; b < s.blocks(); ++b)
      load_panel(h0, n, b, ring.states(image, 0) + (b * s.span() + s.halo()) * L);
  }

  // Adds d_gates[r] (x) h[r - 1] of rows end > r >= begin of some images to one tile (gate block,
  // state block) of `sum`.
  void correlate(const Ring<E>& ring, int64_t image, int64_t stop, int64_t begin, int64_t end,
                 int64_t tile, A* sum) const {
    const int64_t gate_block = tile / s.blocks(), block = tile % s.blocks();
    const E *states[kChunk], *d_gates[kChunk];
    int filled = 0;
    sum += tile * s.taps * L * 4 * L;
    for (; image < stop; ++image)
      for (int64_t r = end - 1, p = image * ring.pairs(); r >= begin; r -= F, ++p) {
        const E *state = ring.states(image, r), *gate = ring.gates(image, r);
        if constexpr (F > 1) {
          state = ring.state_pair(p);
          gate = ring.gate_pair(p);
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
    parallel_units(s.N, 1, [&](Units images) {
      const Ring<E> ring = make_ring(1);
      const Scratch<A> scratch(like, 4 * s.W * L);
      for (const int64_t n : images) {
        const auto add = [&](int64_t begin, int64_t end) {
          if constexpr (F > 1) ring.pair_rows(0, begin, end);
          for (int64_t t = 0; t < tiles; ++t)
            correlate(ring, 0, 1, begin, end, t, d_weight + n * s.weight_size());
        };
        for (int64_t end = s.H, begin; end > 0; end = begin) {
          begin = std::max<int64_t>(0, end - (ring.slots() - 1));
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
    const Ring<E> ring = make_ring(images);
    for (int64_t first = 0; first < s.N; first += images) {
      const int64_t count = std::min(images, s.N - first), groups = this->groups();
      const auto add = [&](int64_t begin, int64_t end) {
        if constexpr (F > 1)
          parallel_units(count, 1, [&](Units images) {
            for (const int64_t image : images) ring.pair_rows(image, begin, end);
          });
        parallel_units(groups * tiles, 1, [&](Units units) {
          for (const int64_t i : units) {
            const int64_t g = i / tiles;
            correlate(ring, count * g / groups, count * (g + 1) / groups, begin, end, i % tiles,
                      d_weight + g * s.weight_size());
          }
        });
      };
      for (int64_t end = s.H, begin; end > 0; end = begin) {
        begin = std::max<int64_t>(0, end - (ring.slots() - 1));
        rows(ring, first, count, begin, end);
        if (d_weight) add(begin + 1, std::min(end + 1, s.H));
      }
      if (d_h0 || d_c0)
        parallel_units(count * pairs(), 1, [&](Units units) {
          const Scratch<A> scratch(like, 2 * s.W * L);
          for (const int64_t i : units)
            initial_state(ring, i / pairs(), first + i / pairs(), i % pairs(), scratch.get());
        });
      if (!d_weight || !h0) continue;
      parallel_units(count, 1, [&](Units images) {
        for (const int64_t image : images) load_h0(ring, image, first + image);
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

}  // namespace
}  // namespace genkern::cpu
