// Cross-entropy of logits that a 1x1 head makes and nobody stores.
//
//   for (block : panels of pixels of an image)                    // on threads
//     for (c < colours)
//       for (chunk : levels of the colour)
//         for (panel : block) {
//           a = w[chunk] * x[panel];                               // a few kB
//           forward:  add them to maximum, total, picked;
//           backward: a = slopes of a;  d_x[panel] += w[chunk]^T * a;  d_w[chunk] += a *
//           x[panel]^T;
//         }
//
// The blocks are dealt out to a number of parts that the shapes fix. Each part has a gradient of
// the weight of its own, and these are added in order: no bit depends on the threads.
#pragma once
#include "pixels.h"
#include "products.h"

namespace genkern::cpu::pixel_cross_entropy {

// Panels of a block, and levels of a chunk: what both touch stays in L2.
constexpr int64_t kPanels = block_size(4, 2);
constexpr int64_t kChunkLevels = block_size(64, 7);
constexpr int64_t kMostParts = block_size(16, 3);
constexpr int64_t kPartPixels = block_size(512, 40);  // that a part has at least
constexpr int64_t kWork = block_size(1 << 19, 64);    // multiplications that are worth a thread

// The head: its weight and bias as A, dense, and how much of it each colour sees.
template <typename A>
struct Head {
  int64_t features, colours, levels;
  bool masked;
  const A *weight, *bias;
  const A* packed = nullptr;  // for the gradient of the features

  int64_t rows() const { return colours * levels; }
  // Features that the logits of a colour are made of: the groups of this colour and those before.
  int64_t seen(int64_t colour) const {
    return masked ? (features * (colour + 1) + colours - 1) / colours : features;
  }
  int64_t feature_panels() const { return (features + kPanel<A> - 1) / kPanel<A>; }
};

// to[row][k] = w[row][k]
template <typename T>
void load_weight(const Tensor& weight, int64_t features, Accumulate<T>* to) {
  const T* from = data<const T>(weight);
  const int64_t row = weight.stride(0), k = weight.stride(1);
  for (int64_t r = 0; r < weight.size(0); ++r)
    core::interleave(from + r * row, k, int64_t(1), features, int64_t(1), to + r * features);
}

// Of each colour, for each tile of M features: w[l][k + m] for all levels l, M together.
template <typename A>
void pack_weight(const Head<A>& head, A* to) {
  for (int64_t c = 0; c < head.colours; ++c) {
    const A* from = head.weight + c * head.levels * head.features;
    A* packed = to + c * head.levels * head.features;
    core::for_each_tile<kTileRows<A>>(head.seen(c), [&]<int M>(int64_t k, TileSize<M>) {
      for (int64_t l = 0; l < head.levels; ++l)
        for (int m = 0; m < M; ++m)
          packed[k * head.levels + l * M + m] = from[l * head.features + k + m];
    });
  }
}

// The pixels of all images in blocks of panels.
template <typename A>
struct PixelBlocks {
  int64_t N, pixels;
  int64_t each = (pixels + kPanels * kPanel<A> - 1) / (kPanels * kPanel<A>);

  int64_t count() const { return N * each; }
  int64_t image(int64_t unit) const { return unit / each; }
  int64_t first(int64_t unit) const { return unit % each * kPanels * kPanel<A>; }
  int64_t size(int64_t unit) const { return std::min(kPanels * kPanel<A>, pixels - first(unit)); }
};

// to[row * kPanel + column] = from[row * row_stride + column * column_stride], for `columns` of a
// panel; the other columns are 0.
template <typename T>
void load_panel(const T* from, int64_t row_stride, int64_t column_stride, int64_t rows,
                int64_t columns, Accumulate<T>* to) {
  using A = Accumulate<T>;
  if (columns == kPanel<A>)
    return core::interleave(from, column_stride, row_stride, columns, rows, to);
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t i = 0; i < kPanel<A>; ++i)
      to[r * kPanel<A> + i] =
          i < columns ? core::to_accumulate(from[r * row_stride + i * column_stride]) : A(0);
}

template <typename A>
void make_logits(const Head<A>& head, int64_t colour, int64_t level, int64_t levels, const A* x,
                 A* to) {
  const int64_t row = colour * head.levels + level;
  core::for_each_tile<kTileRows<A>>(levels, [&]<int M>(int64_t l, TileSize<M>) {
    logits_tile<A, M>(head.weight + (row + l) * head.features, head.features, head.seen(colour),
                      head.bias ? head.bias + row + l : nullptr, x, to + l * kPanel<A>);
  });
}

// Calls f(colour, first level, levels) for every chunk.
template <typename A, typename F>
void for_chunks(const Head<A>& head, const F& f) {
  for (int64_t c = 0; c < head.colours; ++c) {
    const int64_t chunks = (head.levels + kChunkLevels - 1) / kChunkLevels;
    for (int64_t i = 0; i < chunks; ++i) {
      const int64_t first = head.levels * i / chunks;
      f(c, first, head.levels * (i + 1) / chunks - first);
    }
  }
}

// Per-pixel numbers of one block and all colours: [colour][pixel of the block].
template <typename A>
struct HeadColumns {
  static constexpr int64_t kSize = kPanels * kPanel<A>;
  std::vector<A> maximum, total, picked;
  std::vector<Index<A>> target;

  explicit HeadColumns(int64_t colours)
      : maximum(colours * kSize),
        total(colours * kSize),
        picked(colours * kSize),
        target(colours * kSize) {}
  Running<A> running(int64_t at) { return {&maximum[at], &total[at], &picked[at]}; }
};

template <typename T>
bool head_forward(const Tensor& features, const Layout& s, const Head<Accumulate<T>>& head,
                  const Targets& targets, const Tensor& nats, Accumulate<T>* maximum,
                  Accumulate<T>* scale) {
  using A = Accumulate<T>;
  constexpr int64_t kSize = HeadColumns<A>::kSize;
  const PixelBlocks<A> blocks{s.N, s.pixels};
  std::vector<double> parts(blocks.count());
  std::atomic<bool> good = true;
  const int64_t work = head.rows() * head.features * kSize;
  parallel_for(0, blocks.count(), kWork / (work + 1) + 1, [&](int64_t unit, int64_t end) {
    const Scratch<A> x(features, kPanels * head.features * kPanel<A>);
    const Scratch<A> logits(features, kChunkLevels * kPanel<A>);
    HeadColumns<A> columns(head.colours);
    for (; unit < end; ++unit) {
      const int64_t n = blocks.image(unit), first = blocks.first(unit), count = blocks.size(unit);
      const T* image = data<const T>(features) + n * s.n + first * s.pixel;
      const auto plane = [&](int64_t c) { return (n * head.colours + c) * s.pixels + first; };
      for (int64_t p = 0; p < count; p += kPanel<A>)
        load_panel(image + p * s.pixel, s.row, s.pixel, head.features,
                   std::min(kPanel<A>, count - p), x.get() + p * head.features);
      for (int64_t c = 0; c < head.colours; ++c)
        if (!targets.read(plane(c), count, &columns.target[c * kSize])) good = false;
      columns.running(0).start(head.colours * kSize);
      for_chunks(head, [&](int64_t c, int64_t level, int64_t levels) {
        for (int64_t p = 0; p < count; p += kPanel<A>) {
          make_logits(head, c, level, levels, x.get() + p * head.features, logits.get());
          const Rows<const A> rows{logits.get(), kPanel<A>, level, levels};
          const int64_t at = c * kSize + p;
          add_levels(rows, kPanel<A>, &columns.target[at], columns.running(at));
        }
      });
      for (int64_t c = 0; c < head.colours; ++c) {
        const auto of = columns.running(c * kSize);
        parts[unit] += sum_nats(count, of);
        if (maximum) save_columns(of, count, maximum + plane(c), scale + plane(c));
      }
    }
  });
  put_sums<A>(parts, blocks.each, s.N, writer<A>(nats));
  return good;
}

}  // namespace genkern::cpu::pixel_cross_entropy
