// What the masked convolution copies: images into padded scratch, weights into the order in which
// the tiles read them, and back.
//
// The packed weight of a written block of channels p, q, r (4 lanes) for a segment of 2 taps x 2
// channels a, b: the weights of each factor side by side, lanes without a channel 0.
//
//   factors    a, tap 0         b, tap 0         a, tap 1         b, tap 1
//   packed     wp wq wr 0       wp wq wr 0       wp wq wr 0       wp wq wr 0
//
// Where a factor is a pair of bfloat16, a lane has the weights of both of its elements:
//
//   factors    a and b, tap 0             a and b, tap 1
//   packed     wp wp' wq wq' wr wr' 0 0   wp wp' wq wq' wr wr' 0 0
#pragma once
#include <algorithm>
#include <array>
#include <vector>

#include "../bind.h"
#include "../core/transpose.h"
#include "tiles.h"

namespace genkern::cpu::masked_conv2d {

using namespace core::masked_conv2d;
using core::Accumulate;
using core::kLanes;

using core::block_size;

// Multiplications that are worth waking another thread.
constexpr int64_t kWork = block_size(1 << 19, 64);
// Bytes of scratch images per thread, about the L2 cache.
constexpr int64_t kScratch = block_size(1 << 19, 512);

inline Tensor new_image(const Tensor& like, int64_t channels, bool channels_last) {
  const std::array<int64_t, 4> size{like.size(0), channels, like.size(2), like.size(3)};
  return channels_last ? new_channels_last(like, size) : new_large(like, size);
}

// Images that are worked on together: they share the caches of all threads.
inline int64_t group_size(int64_t bytes_per_image, int64_t images) {
  return std::clamp<int64_t>(num_threads() * kScratch / std::max<int64_t>(1, bytes_per_image), 1,
                             std::max<int64_t>(1, images));
}

template <typename T>
struct Image {
  T* data = nullptr;
  int64_t n = 0, c = 0, y = 0, x = 0;  // strides, in elements

  Image() = default;
  explicit Image(const Tensor& t)
      : data(genkern::data<T>(t)), n(t.stride(0)), c(t.stride(1)), y(t.stride(2)), x(t.stride(3)) {}
  bool is_one_row(int64_t width) const { return y == width * x; }
};

template <typename T, typename E>
void load_images(const Plan& plan, Image<const T> from, int64_t count, E* to) {
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
      std::fill(row, inside, E{});
      core::interleave(from.data + n * from.n + block.start * from.c + y * from.y, from.c, from.x,
                       block.width, W, inside);
      std::fill(inside + W * block.width, row + padded * block.width, E{});
    }
  });
}

// to[i] = elements i of a pixel and of the next one, as one factor:
//
//   images   a0 b0  a1 b1  a2 b2        to   a0 a1  b0 b1 | a1 a2  b1 b2 | a2 0  b2 0
//
// The last pixel of a row is always the odd one.
inline void pair_pixels(const Plan& plan, const core::BFloat16* images, int64_t count,
                        core::BFloat16* to) {
  constexpr int64_t L = kLanes<float>;
  const int64_t H = plan.geometry.height, blocks = int64_t(plan.reads.size());
  const int64_t grain = kWork / (8 * plan.padded_width * 2 * L) + 1;
  parallel_for(0, count * blocks * H, grain, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const Block& block = plan.reads[i / H % blocks];
      const int64_t start = i / H / blocks * plan.image_size() + plan.position(block, i % H, 0);
      const int64_t length = (plan.padded_width - 1) * block.width;
      const core::BFloat16 *first = images + start, *next = first + block.width;
      core::BFloat16* pairs = to + 2 * start;
      int64_t e = 0;
      for (; e + L <= length; e += L) {
        const core::VecU v = core::zip_bits(first + e, next + e);
        std::memcpy(pairs + 2 * e, &v, sizeof(v));
      }
      for (; e < length; ++e) pairs[2 * e] = first[e], pairs[2 * e + 1] = next[e];
      for (; e < length + block.width; ++e) pairs[2 * e] = first[e], pairs[2 * e + 1] = {};
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

// Calls f(position, offset) for every live element of a written block: where its channels start in
// the packed weight, there `factor` apart, and in the weight, there `strides.write` apart.
template <typename F>
void for_elements(const Plan& plan, size_t index, const Weight& strides, int64_t lanes,
                  int64_t factor, F&& f) {
  const Block& block = plan.writes[index];
  const int64_t width = vectors_of(block, lanes) * lanes;
  for (const Segment& s : plan.segments[block.group]) {
    const int64_t to = plan.packed_start[index] + s.packed * width;
    const int64_t from = block.start * strides.write + s.channel * strides.read +
                         s.tap_row * strides.y + s.tap_column * strides.x;
    for (int64_t c = 0; c < s.width; ++c)
      for (int64_t tap = 0; tap < s.length / s.width; ++tap) {
        const int64_t e = tap * s.width + c, second = e % factor;
        f(to + (e - second) * width + second,
          from + c * strides.read + tap * s.tap_step * strides.x);
      }
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

template <typename T, typename E>
void pack_weight(const Plan& plan, const Tensor& weight, E* to) {
  constexpr int64_t L = kLanes<Accumulate<T>>, factor = core::kFactor<E>;
  const Weight strides(plan, weight);
  const T* from = data<const T>(weight);
  for_blocks(plan, [&](size_t i) {
    const int64_t channels = plan.writes[i].width, apart = strides.write;
    if (channels % L != 0 || factor > 1)  // lanes without a channel, halves of factors
      std::fill(to + plan.packed_start[i], to + plan.packed_start[i + 1], E{});
    for_elements(plan, i, strides, L, factor, [=](int64_t position, int64_t offset) {
      for (int64_t c = 0; c < channels; ++c)
        to[position + c * factor] = core::element<E>(from[offset + c * apart]);
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
    for_elements(plan, i, strides, kLanes<Accumulate<T>>, 1, [=](int64_t position, int64_t offset) {
      for (int64_t c = 0; c < channels; ++c)
        to[offset + c * apart] = core::from_accumulate<T>(from[position + c]);
    });
  });
}

}  // namespace genkern::cpu::masked_conv2d
