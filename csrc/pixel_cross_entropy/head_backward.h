// The gradients of the head in one pass over the pixels: see head.h.
#pragma once
#include "head.h"

namespace genkern::cpu::pixel_cross_entropy {

// What a backward pass reads and writes. Gradients that nobody asked for are null.
template <typename T>
struct HeadPass {
  using A = Accumulate<T>;
  const T* features;
  Layout s;
  const A *maximum, *scale;
  core::Reader<A> upstream;
  T* d_features;
  Layout to;
  A *d_weight, *d_bias;  // of each part: [panel of features][row][feature of the panel], [row]
};

// In how many parts the sums over pixels are formed. Together they hold no more than a quarter of
// what the logits would.
template <typename A>
int64_t parts_of(const PixelBlocks<A>& blocks, int64_t features) {
  const int64_t each = std::max(kPartPixels, 4 * features);
  return std::clamp<int64_t>(blocks.N * blocks.pixels / each, 1, kMostParts);
}

// The work of one thread on blocks of pixels, and its memory.
template <typename T>
class HeadBackward {
  using A = Accumulate<T>;
  static constexpr int64_t P = kPanel<A>, kSize = HeadColumns<A>::kSize;

 public:
  HeadBackward(const Tensor& like, const Head<A>& head, const Targets& targets,
               const HeadPass<T>& pass)
      : head_(head),
        targets_(targets),
        pass_(pass),
        x_(like, kPanels * head.features * P),
        turned_(like, pass.d_weight ? head.feature_panels() * kSize * P : 0),
        d_x_(like, pass.d_features ? kPanels * head.features * P : 0),
        slopes_(like, kPanels * kChunkLevels * P),
        columns_(head.colours) {}

  // Adds the block to the gradients of a part; writes its gradient of the features.
  void add(const PixelBlocks<A>& blocks, int64_t unit, int64_t part) {
    n_ = blocks.image(unit), first_ = blocks.first(unit), count_ = blocks.size(unit);
    panels_ = (count_ + P - 1) / P;
    load(pass_.upstream[n_]);
    for_chunks(head_, [&](int64_t c, int64_t level, int64_t levels) {
      for (int64_t i = 0; i < panels_; ++i) {
        make_slopes(c, level, levels, i);
        if (pass_.d_features) add_to_features(c, level, levels, i);
      }
      const int64_t row = c * head_.levels + level;
      if (pass_.d_weight) add_to_weight(c, row, levels, part);
      if (pass_.d_bias) add_to_bias(pass_.d_bias + part * head_.rows() + row, levels);
    });
    if (pass_.d_features) put_features();
  }

 private:
  int64_t columns_of(int64_t panel) const { return std::min(P, count_ - panel * P); }
  A* slopes_of(int64_t panel) { return slopes_.get() + panel * kChunkLevels * P; }

  void load(A upstream) {
    const Layout& s = pass_.s;
    const T* image = pass_.features + n_ * s.n + first_ * s.pixel;
    for (int64_t i = 0; i < panels_; ++i)
      load_panel(image + i * P * s.pixel, s.row, s.pixel, head_.features, columns_of(i),
                 x_.get() + i * P * head_.features);
    for (int64_t k = 0; pass_.d_weight && k < head_.features; k += P) {
      A* panel = turned_.get() + k * kSize;
      load_panel(image + k * s.row, s.pixel, s.row, count_, std::min(P, head_.features - k), panel);
      std::fill(panel + count_ * P, panel + panels_ * P * P, A(0));
    }
    if (pass_.d_features) std::fill_n(d_x_.get(), panels_ * P * head_.features, A(0));
    upstream_ = upstream;
    for (int64_t c = 0; c < head_.colours; ++c) {
      const int64_t from = (n_ * head_.colours + c) * s.pixels + first_, at = c * kSize;
      targets_.read(from, count_, &columns_.target[at]);
      for (int64_t i = 0; i < count_; ++i) {
        columns_.maximum[at + i] = pass_.maximum[from + i];
        columns_.total[at + i] = upstream * pass_.scale[from + i];
      }
    }
  }

  void make_slopes(int64_t c, int64_t level, int64_t levels, int64_t i) {
    A* a = slopes_of(i);
    make_logits(head_, c, level, levels, x_.get() + i * P * head_.features, a);
    const int64_t at = c * kSize + i * P, live = columns_of(i);
    const Slopes<A> slopes{&columns_.target[at], &columns_.maximum[at], &columns_.total[at],
                           upstream_};
    write_slopes(Rows<const A>{a, P, level, levels}, P, slopes, a, P);
    for (int64_t l = 0; l < levels && live < P; ++l)
      std::fill(a + l * P + live, a + (l + 1) * P, A(0));
  }

  void add_to_features(int64_t c, int64_t level, int64_t levels, int64_t i) {
    const A* packed = head_.packed + c * head_.levels * head_.features;
    A* to = d_x_.get() + i * P * head_.features;
    core::for_each_tile<kTileRows<A>>(head_.seen(c), [&]<int M>(int64_t k, TileSize<M>) {
      features_tile<A, M>(packed + k * head_.levels + level * M, levels, slopes_of(i), to + k * P);
    });
  }

  void add_to_weight(int64_t c, int64_t row, int64_t levels, int64_t part) {
    const int64_t rows = head_.rows(), size = head_.feature_panels() * rows * P;
    for (int64_t k = 0; k < head_.seen(c); k += P) {
      A* to = pass_.d_weight + part * size + (k * rows + row * P);
      const A* x = turned_.get() + k * kSize;
      core::for_each_tile<kTileRows<A>>(levels, [&]<int M>(int64_t l, TileSize<M>) {
        weight_tile<A, M>(slopes_of(0) + l * P, kChunkLevels * P, panels_, x, to + l * P);
      });
    }
  }

  void add_to_bias(A* to, int64_t levels) {
    for (int64_t l = 0; l < levels; ++l) {
      Vec<A> sum{};
      for (int64_t i = 0; i < panels_; ++i)
        sum += core::load(slopes_of(i) + l * P) + core::load(slopes_of(i) + l * P + kLanes<A>);
      to[l] += core::sum_lanes(sum);
    }
  }

  void put_features() {
    const Layout& to = pass_.to;
    T* image = pass_.d_features + n_ * to.n + first_ * to.pixel;
    for (int64_t i = 0; i < panels_; ++i)
      core::deinterleave(d_x_.get() + i * P * head_.features, P, columns_of(i), head_.features,
                         image + i * P * to.pixel, to.pixel, to.row);
  }

  const Head<A>& head_;
  const Targets& targets_;
  const HeadPass<T>& pass_;
  Scratch<A> x_, turned_, d_x_, slopes_;
  HeadColumns<A> columns_;
  int64_t n_, first_, count_, panels_;
  A upstream_;
};

// Sums over the parts, in order, to where the elements of the weight stand; dead ones stay 0.
template <typename T>
void put_weight(const Head<Accumulate<T>>& head, const Accumulate<T>* parts, int64_t count,
                const Tensor& d_weight) {
  using A = Accumulate<T>;
  const int64_t rows = head.rows(), panel = rows * kPanel<A>, size = head.feature_panels() * panel;
  const int64_t row_stride = d_weight.stride(0), stride = d_weight.stride(1);
  T* to = data<T>(d_weight);
  const int64_t work = count * head.features;
  parallel_for(0, rows, kWork / (work + 1) + 1, [&](int64_t row, int64_t end) {
    for (; row < end; ++row)
      for (int64_t k = 0; k < head.seen(row / head.levels); ++k) {
        const A* from = parts + k / kPanel<A> * panel + row * kPanel<A> + k % kPanel<A>;
        A sum = 0;
        for (int64_t i = 0; i < count; ++i) sum += from[i * size];
        to[row * row_stride + k * stride] = core::from_accumulate<T>(sum);
      }
  });
}

template <typename T>
void put_bias(const Accumulate<T>* parts, int64_t count, const Tensor& d_bias) {
  const int64_t rows = d_bias.numel();
  for (int64_t r = 0; r < rows; ++r) {
    Accumulate<T> sum = 0;
    for (int64_t i = 0; i < count; ++i) sum += parts[i * rows + r];
    data<T>(d_bias)[r] = core::from_accumulate<T>(sum);
  }
}

// d_weight and d_bias hold zeros.
template <typename T>
void head_backward(const Tensor& features, Head<Accumulate<T>> head, const Targets& targets,
                   HeadPass<T> pass, const Tensor* d_weight, const Tensor* d_bias) {
  using A = Accumulate<T>;
  const PixelBlocks<A> blocks{pass.s.N, pass.s.pixels};
  const bool sums = d_weight || d_bias;
  const int64_t parts = sums ? parts_of(blocks, head.features) : blocks.count();
  const int64_t size = head.feature_panels() * kPanel<A> * head.rows();
  const Scratch<A> of_weight(features, d_weight ? parts * size : 0, /*zero=*/true);
  const Scratch<A> of_bias(features, d_bias ? parts * head.rows() : 0, /*zero=*/true);
  const Scratch<A> packed(features, pass.d_features ? head.rows() * head.features : 0);
  if (pass.d_features) pack_weight(head, packed.get());
  head.packed = packed.get();
  pass.d_weight = d_weight ? of_weight.get() : nullptr;
  pass.d_bias = d_bias ? of_bias.get() : nullptr;
  const int64_t work = blocks.count() / parts * head.rows() * head.features * kPanels * kPanel<A>;
  parallel_for(0, parts, kWork / (work + 1) + 1, [&](int64_t part, int64_t end) {
    HeadBackward<T> thread(features, head, targets, pass);
    for (; part < end; ++part)
      for (int64_t unit = blocks.count() * part / parts, last = blocks.count() * (part + 1) / parts;
           unit < last; ++unit)
        thread.add(blocks, unit, part);
  });
  if (d_weight) put_weight<T>(head, of_weight.get(), parts, *d_weight);
  if (d_bias) put_bias<T>(of_bias.get(), parts, *d_bias);
}

}  // namespace genkern::cpu::pixel_cross_entropy
