// Cross-entropy of logits that are there: blocks of the pixels of one colour of one image, a few
// levels at a time, in place where the pixels of a level lie side by side.
#pragma once
#include "pixels.h"

namespace genkern::cpu::pixel_cross_entropy {

// Pixels of a block: their sums stay in L1, and their logits in L2 for as many levels as a tile
// has.
constexpr int64_t kPixels = block_size(512, 32);
constexpr int64_t kTileLevels = block_size(16, 11);
constexpr int64_t kLogits = block_size(1 << 14, 64);  // that are worth a thread

// One block: `count` pixels from `first` on of colour c of image n; `padded` to whole vectors.
struct Block {
  int64_t n, c, first, count, padded, target;
};

template <typename A>
class LogitBlocks {
 public:
  explicit LogitBlocks(const Layout& s)
      : s_(s), each_((s.pixels + kPixels - 1) / kPixels), count_(s.N * s.C * each_) {}

  int64_t count() const { return count_; }
  int64_t grain() const { return kLogits / std::max<int64_t>(1, s_.rows * kPixels) + 1; }
  Block at(int64_t unit) const {
    const int64_t plane = unit / each_, first = unit % each_ * kPixels;
    const int64_t count = std::min(kPixels, s_.pixels - first);
    const int64_t padded = (count + kLanes<A> - 1) / kLanes<A> * kLanes<A>;
    return {plane / s_.C, plane % s_.C, first, count, padded, plane * s_.pixels + first};
  }
  // Blocks of one image.
  int64_t of_image() const { return s_.C * each_; }

 private:
  Layout s_;
  int64_t each_, count_;
};

// Where a tile of a block lies in a tensor of that layout.
template <typename T>
T* place(T* data, const Layout& s, const Block& b, int64_t level) {
  return data + b.n * s.n + b.c * s.c + level * s.row + b.first * s.pixel;
}

template <typename T>
bool in_place(const Layout& s, const Block& b) {
  return std::is_same_v<T, Accumulate<T>> && s.pixel == 1 && b.padded == b.count;
}

// Calls f(rows) for all levels of a block, tile by tile.
template <typename T, typename F>
void for_tiles(const T* data, const Layout& s, const Block& b, Accumulate<T>* buffer, const F& f) {
  using A = Accumulate<T>;
  for (int64_t l = 0; l < s.rows; l += kTileLevels) {
    const int64_t count = std::min(kTileLevels, s.rows - l);
    const T* from = place(data, s, b, l);
    if constexpr (std::is_same_v<T, A>)
      if (in_place<T>(s, b)) {
        f(Rows<const A>{from, s.row, l, count});
        continue;
      }
    // interleave packs rows of `count` pixels; the columns behind them are never looked at
    core::interleave(from, s.pixel, s.row, b.count, count, buffer);
    f(Rows<const A>{buffer, b.count, l, count});
  }
}

template <typename A>
struct BlockColumns {
  alignas(64) A maximum[kPixels], total[kPixels], picked[kPixels];
  alignas(64) Index<A> target[kPixels];

  Running<A> running() { return {maximum, total, picked}; }
};

// A tile, and a register behind it that may be read.
template <typename A>
struct TileBuffer {
  alignas(64) A data[kTileLevels * kPixels + kLanes<A>];
};

// The nats of each image: those of its blocks in order. False where a target is no level.
template <typename T>
bool logits_forward(const Tensor& logits, const Layout& s, const Targets& targets,
                    const Tensor& nats, Accumulate<T>* maximum, Accumulate<T>* scale) {
  using A = Accumulate<T>;
  const LogitBlocks<A> blocks(s);
  std::vector<double> parts(blocks.count());
  std::atomic<bool> good = true;
  parallel_for(0, blocks.count(), blocks.grain(), [&](int64_t unit, int64_t end) {
    BlockColumns<A> columns;
    TileBuffer<A> buffer;
    for (; unit < end; ++unit) {
      const Block b = blocks.at(unit);
      if (!targets.read(b.target, b.count, columns.target)) good = false;
      columns.running().start(b.padded);
      for_tiles(data<const T>(logits), s, b, buffer.data, [&](const Rows<const A>& rows) {
        add_levels(rows, b.padded, columns.target, columns.running());
      });
      parts[unit] = sum_nats(b.count, columns.running());
      if (maximum) save_columns(columns.running(), b.count, maximum + b.target, scale + b.target);
    }
  });
  put_sums<A>(parts, blocks.of_image(), s.N, writer<A>(nats));
  return good;
}

template <typename T>
void logits_backward(const Tensor& logits, const Layout& s, const Targets& targets,
                     const Accumulate<T>* maximum, const Accumulate<T>* scale,
                     const core::Reader<Accumulate<T>>& upstream, const Tensor& d_logits,
                     const Layout& to) {
  using A = Accumulate<T>;
  const LogitBlocks<A> blocks(s);
  parallel_for(0, blocks.count(), blocks.grain(), [&](int64_t unit, int64_t end) {
    BlockColumns<A> columns;
    TileBuffer<A> buffer, result;
    for (; unit < end; ++unit) {
      const Block b = blocks.at(unit);
      const A up = upstream[b.n];
      targets.read(b.target, b.count, columns.target);
      for (int64_t i = 0; i < b.count; ++i) columns.total[i] = up * scale[b.target + i];
      std::copy_n(maximum + b.target, b.count, columns.maximum);
      for_tiles(data<const T>(logits), s, b, buffer.data, [&](const Rows<const A>& rows) {
        T* at = place(data<T>(d_logits), to, b, rows.first);
        const auto slopes = [&](A* d, int64_t stride) {
          write_slopes(rows, b.padded, {columns.target, columns.maximum, columns.total, up}, d,
                       stride);
        };
        if constexpr (std::is_same_v<T, A>)
          if (in_place<T>(to, b)) return slopes(at, to.row);
        slopes(result.data, b.padded);
        core::deinterleave(result.data, b.padded, b.count, rows.count, at, to.pixel, to.row);
      });
    }
  });
}

}  // namespace genkern::cpu::pixel_cross_entropy
