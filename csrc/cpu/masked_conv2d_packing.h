// What the masked convolution copies: images into padded scratch, weights into the order in which
// the tiles read them, and back.
#pragma once
#include <vector>

#include "../bind.h"
#include "../core/masked_conv2d.h"

namespace genkern::cpu::masked_conv2d {

using namespace core::masked_conv2d;
using core::Accumulate;
using core::kLanes;

constexpr int64_t kWork = 1 << 19;  // multiplications that are worth waking another thread

// One allocation, handed out in parts.
template <typename A>
class Workspace {
 public:
  Workspace(const Tensor& like, std::initializer_list<int64_t> counts) {
    int64_t total = 0;
    for (int64_t count : counts) total += padded(count);
    tensor_ = new_workspace<A>(like, total);
    next_ = data<A>(tensor_);
  }
  A* take(int64_t count) {
    A* taken = next_;
    next_ += padded(count);
    return taken;
  }

 private:
  // The slack lets a tile load whole registers at the end of a part.
  static int64_t padded(int64_t count) { return (count / kLine + 1) * kLine + 2 * kLanes<A>; }
  static constexpr int64_t kLine = 64 / sizeof(A);
  Tensor tensor_;
  A* next_;
};

template <typename T>
struct Image {
  T* data = nullptr;
  int64_t n = 0, c = 0, y = 0, x = 0;  // strides, in elements

  Image() = default;
  explicit Image(const Tensor& t)
      : data(genkern::data<T>(t)), n(t.stride(0)), c(t.stride(1)), y(t.stride(2)), x(t.stride(3)) {}
  bool is_one_row(int64_t width) const { return y == width * x; }
};

template <typename T>
void load_images(const Plan& plan, Image<const T> from, int64_t count, Accumulate<T>* to) {
  const Geometry& s = plan.geometry;
  const int64_t H = s.height, W = s.width, padded = plan.padded_width;
  const int64_t blocks = int64_t(plan.reads.size());
  const int64_t grain = kWork / (8 * W * 2 * kLanes<Accumulate<T>>)+1;
  parallel_for(0, count * blocks * H, grain, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t y = i % H, n = i / H / blocks;
      const Block& block = plan.reads[i / H % blocks];
      auto* row = to + n * plan.image_size() + plan.position(block, y, 0);
      auto* inside = row + plan.pad_left * block.width;
      std::fill(row, inside, 0);
      core::interleave(from.data + n * from.n + block.start * from.c + y * from.y, from.c, from.x,
                       block.width, W, inside);
      std::fill(inside + W * block.width, row + padded * block.width, 0);
    }
  });
}

struct Weight {
  int64_t write, read, y, x;  // strides: of the written and the read channels, and of the taps

  Weight(const Plan& plan, const Tensor& t)
      : write(t.stride(plan.mirrored ? 1 : 0)),
        read(t.stride(plan.mirrored ? 0 : 1)),
        y(t.stride(2)),
        x(t.stride(3)) {}
};

inline int64_t vectors_of(const Block& block, int64_t lanes) { return block.width > lanes ? 2 : 1; }

// Calls f(position, offset) for every live factor of a written block: where its channels start in
// the packed weight, there neighbours, and in the weight, there `strides.write` apart.
template <typename F>
void for_factors(const Plan& plan, size_t index, const Weight& strides, int64_t lanes, F&& f) {
  const Block& block = plan.writes[index];
  const int64_t width = vectors_of(block, lanes) * lanes;
  for (const Segment& s : plan.segments[block.group]) {
    const int64_t to = plan.packed_start[index] + s.packed * width;
    const int64_t from = block.start * strides.write + s.channel * strides.read +
                         s.tap_row * strides.y + s.tap_column * strides.x;
    for (int64_t c = 0; c < s.width; ++c)
      for (int64_t tap = 0; tap < s.length / s.width; ++tap)
        f(to + (tap * s.width + c) * width, from + c * strides.read + tap * s.tap_step * strides.x);
  }
}

// Calls f for ranges of written blocks, on several threads if the weight is large.
template <typename F>
void for_blocks(const Plan& plan, F&& f) {
  const int64_t blocks = int64_t(plan.writes.size());
  const int64_t grain = kWork * blocks / (8 * plan.packed_start.back() + 1) + 1;
  parallel_for(0, blocks, grain, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) f(size_t(i));
  });
}

template <typename T>
void pack_weight(const Plan& plan, const Tensor& weight, Accumulate<T>* to) {
  constexpr int64_t L = kLanes<Accumulate<T>>;
  const Weight strides(plan, weight);
  const T* from = data<const T>(weight);
  for_blocks(plan, [&](size_t i) {
    const int64_t channels = plan.writes[i].width, apart = strides.write;
    if (channels % L != 0)  // lanes without a channel
      std::fill(to + plan.packed_start[i], to + plan.packed_start[i + 1], 0);
    for_factors(plan, i, strides, L, [=](int64_t position, int64_t offset) {
      for (int64_t c = 0; c < channels; ++c)
        to[position + c] = core::to_accumulate(from[offset + c * apart]);
    });
  });
}

// The live taps; the others keep their values.
template <typename T>
void unpack_weight(const Plan& plan, const Accumulate<T>* from, const Tensor& weight) {
  const Weight strides(plan, weight);
  T* to = data<T>(weight);
  for_blocks(plan, [&](size_t i) {
    const int64_t channels = plan.writes[i].width, apart = strides.write;
    for_factors(plan, i, strides, kLanes<Accumulate<T>>, [=](int64_t position, int64_t offset) {
      for (int64_t c = 0; c < channels; ++c)
        to[offset + c * apart] = core::from_accumulate<T>(from[position + c]);
    });
  });
}

}  // namespace genkern::cpu::masked_conv2d
