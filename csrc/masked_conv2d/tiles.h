// The tiles of the masked convolution: pixels x channels of the output (and of the gradient of the
// input), factors x channels of the gradient of the weight.
//
// Where bfloat16 is multiplied in pairs, a pair is two neighbouring elements of a segment, or, for
// the gradient of the weight, two neighbouring pixels. The one left over at the end of an odd run
// is multiplied alone: what follows it in memory may be NaN, or what a mask hides.
#pragma once
#include "../core/tile.h"
#include "masked_conv2d.h"

namespace genkern::core::masked_conv2d {

// As many rows of two vectors as leave registers for two more vectors and a broadcast.
template <typename A>
inline constexpr int kTileRows = kManyRegisters && sizeof(A) == 4 ? 14 : 6;

// A stream of factors: where it starts, and how far apart its rows and steps are, in elements.
template <typename E>
struct Stream {
  const E* start;
  int64_t row, step;
};

// sum[m][v] += sum over l < length of a[m * a.row + l * a.step] b[l * b_step + v * lanes], with
// `length` elements, one or two to a factor.
template <typename E, int M, int NV>
GENKERN_INLINE void multiply(Tile<E, M, NV>& tile, const Stream<E>& a, const E* b, int64_t b_step,
                             int64_t length) {
  constexpr int kPointers = (M + 2) / 3;  // base + {0, 1, 2} * stride needs no other register
  const E* rows[kPointers];
#pragma GCC unroll 16
  for (int i = 0; i < kPointers; ++i) rows[i] = a.start + 3 * i * a.row;
  const auto at = [&](int m)
                      __attribute__((always_inline)) { return rows[m / 3] + (m % 3) * a.row; };
  for (; length >= kFactor<E>; length -= kFactor<E>) {
    tile.add_products(at, b, whole<E>);
    b += b_step;
#pragma GCC unroll 16
    for (int i = 0; i < kPointers; ++i) rows[i] += a.step;
  }
  if (length > 0) tile.add_products(at, b, first_of<E>);
}

// sum[pixel m][channel] += the segments' taps of M neighbouring pixels, the first one at `pixel`.
template <typename E, int M, int NV>
[[gnu::noinline]] void pixel_tile(Accumulate<E>* sum, const E* image, int64_t pixel,
                                  const Segment* segment, const Segment* end, const E* packed) {
  constexpr int kWidth = NV * kLanes<Accumulate<E>>;
  Tile<E, M, NV> tile;
  for (; segment < end; ++segment) {
    const E* first = image + segment->offset + pixel * segment->width;
    multiply(tile, {first, segment->width, kFactor<E>}, packed + segment->packed * kWidth,
             kFactor<E> * kWidth, segment->length);
  }
  tile.add_to(sum);
}

// A part of an image: `rows` x `width` pixels; strides are in factors of x and of d_output. A
// factor is that element of a pixel, or of it and the next.
struct Strip {
  int64_t rows, width, x_row, x_pixel, d_row, d_pixel;
};

// sum[element m][channel] += x[element m] d_output[channel] over the pixels of a strip.
template <typename E, int M, int NV>
[[gnu::noinline]] void weight_tile(Accumulate<E>* sum, const E* x, const E* d_output,
                                   const Strip& strip) {
  constexpr int kStep = kFactor<E> * kFactor<E>;  // over as many pixels, of as many elements each
  Tile<E, M, NV> tile;
  for (int64_t y = 0; y < strip.rows; ++y) {
    const E* row = x + y * strip.x_row * kFactor<E>;
    multiply(tile, {row, kFactor<E>, strip.x_pixel * kStep},
             d_output + y * strip.d_row * kFactor<E>, strip.d_pixel * kStep, strip.width);
  }
  tile.add_to(sum);
}

// sum[channel] += d_output[channel] over a strip.
template <typename E>
void bias_tile(Accumulate<E>* sum, const E* d_output, int64_t vectors, const Strip& strip) {
  using A = Accumulate<E>;
  constexpr int kUnroll = 4;
  for (int64_t v = 0; v < vectors; ++v) {
    Vec<A> parts[kUnroll] = {};
    for (int64_t y = 0; y < strip.rows; ++y) {
      const E* row = d_output + (y * strip.d_row + v * kLanes<A>)*kFactor<E>;
      const auto pixel = [&](int64_t x) {
        return first_element<E>(load_factors(row + x * strip.d_pixel * kFactor<E>));
      };
      int64_t x = 0;
      for (; x + kUnroll <= strip.width; x += kUnroll)
        for (int u = 0; u < kUnroll; ++u) parts[u] += pixel(x + u);
      for (; x < strip.width; ++x) parts[0] += pixel(x);
    }
    A* to = sum + v * kLanes<A>;
    store(to, load(to) + ((parts[0] + parts[1]) + (parts[2] + parts[3])));
  }
}

}  // namespace genkern::core::masked_conv2d
