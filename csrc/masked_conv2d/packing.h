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
#include "areas.h"
#include "tiles.h"

namespace genkern::cpu::masked_conv2d {

using namespace core::masked_conv2d;
using core::Accumulate;
using core::kLanes;

using core::block_size;

// Multiplications that are worth waking another thread.
constexpr int64_t kWork = block_size(1 << 19, 64);
// Bytes of one copy of a part of an image: two of them fit into the L2 cache.
constexpr int64_t kCopyBytes = block_size(1 << 18, 256);

inline Tensor new_image(const Tensor& like, int64_t channels, int64_t height, int64_t width,
                        bool channels_last) {
  const std::array<int64_t, 4> size{like.size(0), channels, height, width};
  return channels_last ? new_channels_last(like, size) : new_large(like, size);
}

template <typename T>
struct Image {
  T* data = nullptr;
  int64_t n = 0, c = 0, y = 0, x = 0;  // strides, in elements

  Image() = default;
  explicit Image(const Tensor& t)
      : data(genkern::data<T>(t)), n(t.stride(0)), c(t.stride(1)), y(t.stride(2)), x(t.stride(3)) {}
  // Dense rows.
  Image(T* first, int64_t n_, int64_t c_, int64_t y_) : data(first), n(n_), c(c_), y(y_), x(1) {}
  bool is_one_row(int64_t width) const { return y == width * x; }
  T* at(int64_t image, int64_t channel, int64_t row, int64_t column) const {
    return data + image * n + channel * c + row * y + column * x;
  }
  // Of an image that is there in an area alone, whose first pixel `data` is.
  Image from(const Area& area) const {
    Image all = *this;
    all.data -= area.y_begin * y + area.x_begin * x;
    return all;
  }
  Image image(int64_t i) const {
    Image one = *this;
    one.data += i * n;
    return one;
  }
};

// A copy of a part of an image: the row and the column of the image that its first output pixel
// stands for.
template <typename E>
struct Copy {
  const E* data;
  int64_t top, left, columns;

  int64_t pixel(int64_t y, int64_t x) const { return (y - top) * columns + x - left; }
};

// Copies an area of an image and what taps reach around it: zeros beside the image, but no rows
// above or below it.
template <typename T, typename E>
Copy<E> load_area(const Layout& layout, const Geometry& s, const Image<const T>& from,
                  const Area& area, E* to) {
  const Margins& margins = layout.margins;
  const int64_t top = std::max<int64_t>(0, area.y_begin - margins.above);
  const int64_t bottom = std::min(s.height, area.y_end + margins.below);
  const int64_t left = area.x_begin - margins.left, right = area.x_end + margins.right;
  const int64_t begin = std::max<int64_t>(0, left), end = std::min(s.width, right);
  for (const Block& block : layout.blocks)
    for (int64_t y = top; y < bottom; ++y) {
      E* row = to + layout.position(block, y - top, 0);
      E* inside = std::fill_n(row, (begin - left) * block.width, E{});
      core::interleave(from.data + block.start * from.c + y * from.y + begin * from.x, from.c,
                       from.x, block.width, end - begin, inside);
      std::fill_n(inside + (end - begin) * block.width, (right - end) * block.width, E{});
    }
  return {to, top, area.x_begin, layout.columns};
}

// to[i] = elements i of a pixel and of the next one, as one factor:
//
//   copy   a0 b0  a1 b1  a2 b2        to   a0 a1  b0 b1 | a1 a2  b1 b2 | a2 0  b2 0
//
// The last pixel of a row is always the odd one.
inline Copy<core::BFloat16> pair_pixels(const Layout& layout, const Area& area,
                                        const Copy<core::BFloat16>& copy, core::BFloat16* to) {
  constexpr int64_t L = kLanes<float>;
  const int64_t rows = std::min(layout.rows, area.height() + layout.margins.above);
  const int64_t columns = area.width() + layout.margins.left + layout.margins.right;
  for (const Block& block : layout.blocks)
    for (int64_t y = 0; y < rows; ++y) {
      const int64_t start = layout.position(block, y, 0), length = (columns - 1) * block.width;
      const core::BFloat16 *first = copy.data + start, *next = first + block.width;
      core::BFloat16* pairs = to + 2 * start;
      int64_t e = 0;
      for (; e + L <= length; e += L) {
        const core::VecU v = core::zip_bits(first + e, next + e);
        std::memcpy(pairs + 2 * e, &v, sizeof(v));
      }
      for (; e < length; ++e) pairs[2 * e] = first[e], pairs[2 * e + 1] = next[e];
      for (; e < length + block.width; ++e) pairs[2 * e] = first[e], pairs[2 * e + 1] = {};
    }
  return {to, copy.top, copy.left, copy.columns};
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

// Calls f for the written blocks, on several threads if the weight is large.
template <typename F>
void for_blocks(const Plan& plan, F&& f) {
  const int64_t count = int64_t(plan.writes.size());
  const int64_t grain = kWork * count / (8 * plan.packed_size() + 1) + 1;
  parallel_units(count, grain, [&](Units blocks) {
    for (const int64_t i : blocks) f(size_t(i));
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

// The live taps of the sum of `parts` packed weights, `apart` elements apart; the others keep their
// values.
template <typename T>
void unpack_weight(const Plan& plan, const Accumulate<T>* from, int64_t parts, int64_t apart,
                   const Tensor& weight) {
  using A = Accumulate<T>;
  constexpr int64_t L = kLanes<A>;
  const Weight strides(plan, weight);
  T* to = data<T>(weight);
  for_blocks(plan, [&](size_t i) {
    const Block& block = plan.writes[i];
    const int64_t width = vectors_of(block, L) * L;
    for_elements(plan, i, strides, L, 1, [=](int64_t position, int64_t offset) {
      A sums[2 * L] = {};
      for (int64_t part = 0; part < parts; ++part)
        for (int64_t c = 0; c < width; ++c) sums[c] += from[part * apart + position + c];
      for (int64_t c = 0; c < block.width; ++c)
        to[offset + c * strides.write] = core::from_accumulate<T>(sums[c]);
    });
  });
}

}  // namespace genkern::cpu::masked_conv2d
