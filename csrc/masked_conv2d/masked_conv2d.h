// y[o, p] = b[o] + sum over live (i, t) of w[o, i, t] x[i, p + t]     van den Oord et al. 2016, 3.4
//
// Images are read from scratch copies with the layout [channel block][row][padded column][channel
// of the block], so that the live taps of a kernel row are one contiguous run of factors, and the
// masked ones are in no run at all. One register tile, (pixels or factors) x (1 or 2 vectors of
// channels), serves the output, the gradient of the input and the gradient of the weight.
//
// Where bfloat16 is multiplied in pairs, a pair is two neighbouring elements of such a run, or, for
// the gradient of the weight, two neighbouring pixels. The one left over at the end of an odd run
// is multiplied alone: what follows it in memory may be NaN, or what a mask hides.
#pragma once
#include <algorithm>
#include <utility>
#include <vector>

#include "../core/transpose.h"

namespace genkern::core::masked_conv2d {

struct Geometry {
  int64_t channels_in, channels_out, height, width, kernel_h, kernel_w, dilation, groups;
  bool exclude_centre;
};

// Contiguous channels of one colour group, at most two vectors wide.
struct Block {
  int64_t start, width, group;
};

inline std::vector<Block> blocks_of(int64_t channels, int64_t groups, int64_t lanes) {
  std::vector<Block> blocks;
  int64_t start = 0;
  for (int64_t g = 0; g < groups; ++g)
    for (const int64_t end = (channels * (g + 1) + groups - 1) / groups; start < end;) {
      const int64_t width = std::min(2 * lanes, end - start);
      blocks.push_back({start, width, g});
      start += width;
    }
  return blocks;
}

// A run of live taps of one kernel row over one block of the image that is read.
struct Segment {
  int64_t row;     // from the row of the output pixel to the row that is read
  int64_t offset;  // from the output pixel's own position to the first factor, in elements
  int64_t width;   // channels of the block: the distance between pixels
  int64_t length;  // elements: taps x width
  int64_t packed;  // position of the first one in the packed weight
  int64_t channel, tap_row, tap_column, tap_step;  // where the weight stands in its tensor
};

// How one pass reads an image (`reads`) and which channels it makes (`writes`). The mirrored pass
// makes the gradient of the input: it reads d_output through the taps turned by 180 degrees.
struct Plan {
  Geometry geometry;
  bool mirrored;
  int64_t factor;  // elements of one
  int64_t pad_left, padded_width;
  std::vector<Block> reads, writes;
  std::vector<std::vector<Segment>> segments;  // by colour group of the written block
  std::vector<int64_t> packed_start;           // of each written block, in elements; then the end

  int64_t image_size() const {
    return (mirrored ? geometry.channels_out : geometry.channels_in) * geometry.height *
           padded_width;
  }
  int64_t position(const Block& block, int64_t y, int64_t x) const {
    return block.start * geometry.height * padded_width + (y * padded_width + x) * block.width;
  }
};

inline bool sees(const Plan& plan, int64_t writes, int64_t reads) {
  const int64_t out = plan.mirrored ? reads : writes, in = plan.mirrored ? writes : reads;
  return plan.geometry.exclude_centre ? in < out : in <= out;
}

inline std::vector<Segment> segments_of(const Plan& plan, int64_t group) {
  const Geometry& s = plan.geometry;
  const int64_t d = s.dilation, a = s.kernel_h / 2, b = s.kernel_w / 2;
  // Taps further away than the image is large see padding only.
  const int64_t reach = (s.width - 1) / d;
  const int64_t low = std::max<int64_t>(0, b - reach), high = std::min(s.kernel_w - 1, b + reach);
  const int64_t rows = std::min(a, (s.height - 1) / d);
  std::vector<Segment> segments;
  segments.reserve((rows + 1) * plan.reads.size() * (d == 1 ? 1 : high - low + 1));
  int64_t packed = 0;
  const auto add = [&](int64_t up, const Block& block, int64_t first, int64_t last) {
    const int64_t row = plan.mirrored ? up * d : -up * d;
    const int64_t taps = last - first + 1, runs = d == 1 ? 1 : taps;
    for (int64_t run = 0; run < runs && taps > 0; ++run) {
      const int64_t tap = plan.mirrored ? last - run : first + run;
      const int64_t column = (plan.mirrored ? high - tap : tap - low) * d;
      const int64_t length = (d == 1 ? taps : 1) * block.width;
      segments.push_back({row, plan.position(block, row, column), block.width, length, packed,
                          block.start, a - up, tap, plan.mirrored ? -1 : 1});
      packed += (length + plan.factor - 1) / plan.factor * plan.factor;
    }
  };
  for (int64_t step = 0; step <= rows; ++step) {  // in ascending order of the rows that are read
    const int64_t up = plan.mirrored ? step : rows - step;
    for (const Block& block : plan.reads)
      add(up, block, low, up > 0 ? high : b - (sees(plan, group, block.group) ? 0 : 1));
  }
  return segments;
}

template <typename E>
Plan plan_of(const Geometry& s, bool mirrored) {
  constexpr int64_t lanes = kLanes<Accumulate<E>>, factor = kFactor<E>;
  const int64_t d = s.dilation, b = s.kernel_w / 2, reach = (s.width - 1) / d;
  const int64_t left = std::min(b, reach) * d, right = std::min(s.kernel_w - 1 - b, reach) * d;
  Plan plan{s, mirrored, factor, mirrored ? right : left, s.width + left + right, {}, {}, {}, {0}};
  plan.reads = blocks_of(mirrored ? s.channels_out : s.channels_in, s.groups, lanes);
  plan.writes = blocks_of(mirrored ? s.channels_in : s.channels_out, s.groups, lanes);
  for (int64_t g = 0; g < s.groups; ++g) plan.segments.push_back(segments_of(plan, g));
  for (const Block& block : plan.writes) {
    const auto& runs = plan.segments[block.group];
    const int64_t length = runs.empty() ? 0 : runs.back().packed + runs.back().length;
    const int64_t vectors = block.width > lanes ? 2 : 1;
    plan.packed_start.push_back(plan.packed_start.back() +
                                (length + length % factor) * vectors * lanes);
  }
  return plan;
}

// ---- the register tile ---------------------------------------------------------------------

// As many rows of two vectors as leave registers for two more vectors and a broadcast.
template <typename A>
inline constexpr int kTileRows = kVectorBytes == 64 && sizeof(A) == 4 ? 14 : 6;

template <typename A>
constexpr int64_t tiles_in(int64_t length) {
  return (length + kTileRows<A> - 1) / kTileRows<A>;
}

// c[m][v] += sum over l < length of a[m * a_row + l * a_step] b[l * b_step + v * lanes], with
// `length` elements, one or two to a factor, and strides between factors.
template <typename E, int M, int NV>
__attribute__((always_inline)) inline void multiply(Vec<Accumulate<E>> (&c)[M][NV], const E* a,
                                                    int64_t a_row, int64_t a_step, const E* b,
                                                    int64_t b_step, int64_t length) {
  constexpr int kRegister = kFactor<E> * kLanes<Accumulate<E>>;
  constexpr int kPointers = (M + 2) / 3;  // base + {0, 1, 2} * stride needs no other register
  const E* rows[kPointers];
#pragma GCC unroll 16
  for (int i = 0; i < kPointers; ++i) rows[i] = a + 3 * i * a_row;
  const auto step = [&](auto part) __attribute__((always_inline)) {
    Factors<E> w[NV];
#pragma GCC unroll 2
    for (int v = 0; v < NV; ++v) w[v] = part(load_factors(b + v * kRegister));
#pragma GCC unroll 16
    for (int m = 0; m < M; ++m) {
      const Factors<E> x = part(splat_factor(rows[m / 3] + (m % 3) * a_row));
#pragma GCC unroll 2
      for (int v = 0; v < NV; ++v) c[m][v] = add_product(c[m][v], x, w[v]);
    }
  };
  for (; length >= kFactor<E>; length -= kFactor<E>) {
    step([](Factors<E> x) { return x; });
    b += b_step;
#pragma GCC unroll 16
    for (int i = 0; i < kPointers; ++i) rows[i] += a_step;
  }
  if (length > 0) step(first_of<E>);
}

// Partial sums start at zero and are added once: shorter chains of roundings than one long sum.
template <typename A, int M, int NV>
__attribute__((always_inline)) inline void add_to(A* sum, const Vec<A> (&c)[M][NV]) {
#pragma GCC unroll 16
  for (int m = 0; m < M; ++m)
#pragma GCC unroll 2
    for (int v = 0; v < NV; ++v) {
      A* p = sum + (m * NV + v) * kLanes<A>;
      store(p, load(p) + c[m][v]);
    }
}

// sum[pixel m][channel] += the segments' taps of M neighbouring pixels, the first one at `pixel`.
template <typename E, int M, int NV>
void pixel_tile(Accumulate<E>* sum, const E* image, int64_t pixel, const Segment* segment,
                const Segment* end, const E* packed) {
  using A = Accumulate<E>;
  constexpr int kWidth = NV * kLanes<A>;
  Vec<A> c[M][NV] = {};
  for (; segment < end; ++segment)
    multiply(c, image + segment->offset + pixel * segment->width, segment->width, kFactor<E>,
             packed + segment->packed * kWidth, kFactor<E> * kWidth, segment->length);
  add_to(sum, c);
}

// sum[element m][channel] += x[element m] d_output[channel] over `rows` x `width` pixels; strides
// are in factors of x and of d_output. A factor is that element of a pixel, or of it and the next.
struct Strip {
  int64_t rows, width, x_row, x_pixel, d_row, d_pixel;
};

template <typename E, int M, int NV>
void weight_tile(Accumulate<E>* sum, const E* x, const E* d_output, const Strip& strip) {
  constexpr int kStep = kFactor<E> * kFactor<E>;  // over as many pixels, of as many elements each
  Vec<Accumulate<E>> c[M][NV] = {};
  for (int64_t y = 0; y < strip.rows; ++y)
    multiply(c, x + y * strip.x_row * kFactor<E>, kFactor<E>, strip.x_pixel * kStep,
             d_output + y * strip.d_row * kFactor<E>, strip.d_pixel * kStep, strip.width);
  add_to(sum, c);
}

// The tiles of every height, by number of vectors and height.
template <typename E>
using PixelTile = void (*)(Accumulate<E>*, const E*, int64_t, const Segment*, const Segment*,
                           const E*);
template <typename E>
using WeightTile = void (*)(Accumulate<E>*, const E*, const E*, const Strip&);

namespace detail {
template <typename E, int NV, int... m>
PixelTile<E> pixel_tile_of(int64_t rows, std::integer_sequence<int, m...>) {
  static constexpr PixelTile<E> tiles[] = {&pixel_tile<E, m + 1, NV>...};
  return tiles[rows - 1];
}
template <typename E, int NV, int... m>
WeightTile<E> weight_tile_of(int64_t rows, std::integer_sequence<int, m...>) {
  static constexpr WeightTile<E> tiles[] = {&weight_tile<E, m + 1, NV>...};
  return tiles[rows - 1];
}
}  // namespace detail

template <typename E>
PixelTile<E> pixel_tile_of(int64_t vectors, int64_t rows) {
  constexpr std::make_integer_sequence<int, kTileRows<Accumulate<E>>> heights;
  return vectors == 1 ? detail::pixel_tile_of<E, 1>(rows, heights)
                      : detail::pixel_tile_of<E, 2>(rows, heights);
}
template <typename E>
WeightTile<E> weight_tile_of(int64_t vectors, int64_t rows) {
  constexpr std::make_integer_sequence<int, kTileRows<Accumulate<E>>> heights;
  return vectors == 1 ? detail::weight_tile_of<E, 1>(rows, heights)
                      : detail::weight_tile_of<E, 2>(rows, heights);
}

// sum[channel] += d_output[channel] over a strip.
template <typename E>
void bias_tile(Accumulate<E>* sum, const E* d_output, int64_t vectors, const Strip& strip) {
  using A = Accumulate<E>;
  constexpr int kUnroll = 4;
  for (int64_t v = 0; v < vectors; ++v) {
    Vec<A> parts[kUnroll] = {};
    for (int64_t y = 0; y < strip.rows; ++y) {
      const E* p = d_output + (y * strip.d_row + v * kLanes<A>)*kFactor<E>;
      const auto at = [&](int64_t x) {
        return first_element<E>(load_factors(p + x * strip.d_pixel * kFactor<E>));
      };
      int64_t x = 0;
      for (; x + kUnroll <= strip.width; x += kUnroll)
        for (int u = 0; u < kUnroll; ++u) parts[u] += at(x + u);
      for (; x < strip.width; ++x) parts[0] += at(x);
    }
    A* to = sum + v * kLanes<A>;
    store(to, load(to) + ((parts[0] + parts[1]) + (parts[2] + parts[3])));
  }
}

}  // namespace genkern::core::masked_conv2d
