// Images of few channels, as first layers read them. The lanes of a register are neighbouring
// pixels of a row, where convolve.h and weight_gradient.h have channels: an image is nearly the
// copy that the taps read, and rows of the output are written, and those of d_output read, in
// place.
//
//   for (o = 0; o < M; ++o)                   W = 14, 8 lanes: the last register overlaps
//     for (v = 0; v < NV; ++v)                [ 0  1  2  3  4  5  6  7]
//       for (i, t : live taps)                                  [ 6  7  8  9 10 11 12 13]
//         y[o][v] += w[o][i][t] * x[i][v + t];
//
// The gradient of the weight has one sum for each lane, added up at the end of a part:
//
//   sum[o][i, t][lane] += x[i][pixel + t] * d_output[o][pixel],   pixel % lanes == lane
#pragma once
#include "../core/transpose.h"
#include "convolve.h"
#include "weight_gradient.h"

namespace genkern::cpu::masked_conv2d {

using core::load;
using core::store;
using core::Vec;

// Whether it pays: in dense rows that fill their registers.
template <typename T, typename Pixel>
bool has_few_channels(const Geometry& s, const Image<Pixel>& output) {
  constexpr int64_t L = kLanes<Accumulate<T>>, kFew = 4;
  const int64_t used = ceil_div(s.width, L) * L;
  return s.channels_in <= kFew && output.x == 1 && s.width >= L && 4 * s.width >= 3 * used;
}

// Bands at least as wide as their registers.
template <typename A>
Cut bands_of_few(const Area& area, int64_t pixels) {
  return Cut(area, std::max(pixels, 4 * int64_t(kLanes<A>)));
}

// ---- output --------------------------------------------------------------------------------

// NV registers of neighbouring pixels of M channels, the first one at `pixel` of the copy. `width`
// is the distance between the weights of two taps.
template <typename T, int M, int NV>
[[gnu::noinline]] void channel_tile(const Accumulate<T>* bias, const Accumulate<T>* image,
                                    int64_t pixel, const Segment* segment, const Segment* end,
                                    const Accumulate<T>* packed, int64_t width, T* to,
                                    int64_t to_channel) {
  using A = Accumulate<T>;
  core::Tile<A, M, NV> tile;
#pragma GCC unroll 16
  for (int m = 0; m < M; ++m)
#pragma GCC unroll 2
    for (int v = 0; v < NV; ++v) tile.sum[m][v] = core::splat(bias[m]);
  for (; segment < end; ++segment) {
    const A *x = image + segment->offset + pixel, *w = packed + segment->packed * width;
    for (int64_t tap = 0; tap < segment->length; ++tap, ++x, w += width)
      tile.add_products([&](int m) __attribute__((always_inline)) { return w + m; }, x,
                        core::whole<A>);
  }
#pragma GCC unroll 16
  for (int m = 0; m < M; ++m)
#pragma GCC unroll 2
    for (int v = 0; v < NV; ++v) store(to + m * to_channel + v * kLanes<A>, tile.sum[m][v]);
}

// Calls f(x, TileSize<registers>) so that a row of at least one register is covered.
template <typename A, typename F>
void for_registers(int64_t width, const F& f) {
  constexpr int64_t L = kLanes<A>;
  int64_t x = 0;
  for (; x + 2 * L <= width; x += 2 * L) f(x, std::integral_constant<int, 2>());
  if (width - x > L && width >= 2 * L) return f(width - 2 * L, std::integral_constant<int, 2>());
  for (; x < width; x += L) f(std::min(x, width - L), std::integral_constant<int, 1>());
}

// The area of the output is at least a register wide.
template <typename T>
void convolve_few_channels(const Geometry& s, const Area& area, const Image<const T>& from,
                           int64_t images, const Tensor& weight,
                           const std::vector<Accumulate<T>>& bias, const Image<T>& to) {
  using A = Accumulate<T>;
  constexpr int64_t L = kLanes<A>;
  constexpr int kRows = core::kManyRegisters ? 8 : 6;
  const Cut bands =
      bands_of_few<A>(area, pixels_of_bands(area, images, s.channels_in * int64_t(sizeof(A))));
  const Plan plan = plan_of<A>(s, /*mirrored=*/false, bands.rows(), bands.columns(), /*block=*/1);
  const Scratch<A> packed(weight, plan.packed_size());
  pack_weight<T>(plan, weight, packed.get());
  const int64_t work = plan.packed_size() * bands.rows() * bands.columns();
  parallel_units(images * bands.parts(), kWork / (work + 1) + 1, [&](Units units) {
    const Scratch<A> memory(weight, plan.reads.size());
    for (const int64_t unit : units) {
      const int64_t n = unit / bands.parts();
      const Area band = bands[unit % bands.parts()];
      const Copy<A> copy = load_area(plan.reads, s, from.image(n), band, memory.get());
      for (size_t i = 0; i < plan.writes.size(); ++i) {
        const Block& block = plan.writes[i];
        const auto& runs = plan.segments[block.group];
        const int64_t width = vectors_of(block, L) * L;
        const auto channels = [&]<int M>(int64_t c, std::integral_constant<int, M>) {
          const A* start = bias.data() + block.start + c;
          const A* weights = packed.get() + plan.packed_start[i] + c;
          for (int64_t y = band.y_begin; y < band.y_end; ++y) {
            const auto [first, last] = inside(plan, y, runs.data(), runs.data() + runs.size());
            const int64_t pixel = copy.pixel(y, band.x_begin);
            T* row = to.at(n, block.start + c, y, band.x_begin);
            for_registers<A>(band.width(), [&, first = first, last = last]<int NV>(
                                               int64_t x, std::integral_constant<int, NV>) {
              channel_tile<T, M, NV>(start, copy.data, pixel + x, first, last, weights, width,
                                     row + x, to.c);
            });
          }
        };
        core::for_each_tile<kRows>(block.width, channels);
      }
    }
  });
}

// An area that may be narrower than a register. Its sums are formed where they are part of whole
// registers, in their order, and copied.
template <typename T>
void convolve_few_channels_of(const Geometry& s, const Area& area, const Image<const T>& from,
                              int64_t images, const Tensor& weight,
                              const std::vector<Accumulate<T>>& bias, const Image<T>& to) {
  constexpr int64_t L = kLanes<Accumulate<T>>;
  if (area.width() >= L) return convolve_few_channels(s, area, from, images, weight, bias, to);
  const int64_t left = std::min(area.x_begin, s.width - L);
  const Area wide{area.y_begin, area.y_end, left, left + L};
  const Scratch<T> memory(weight, images * s.channels_out * wide.pixels());
  const Image<T> all(memory.get(), s.channels_out * wide.pixels(), wide.pixels(), L);
  convolve_few_channels(s, wide, from, images, weight, bias, all.from(wide));
  for (int64_t n = 0; n < images; ++n)
    for (int64_t c = 0; c < s.channels_out; ++c)
      for (int64_t y = area.y_begin; y < area.y_end; ++y)
        std::copy_n(all.from(wide).at(n, c, y, area.x_begin), area.width(),
                    to.at(n, c, y, area.x_begin));
}

// ---- gradient of the weight ----------------------------------------------------------------

// Rows of pixels of some channels, or of some taps: where they start and how far they are apart.
template <typename A>
struct Rows {
  const A* start;
  int64_t apart, row;
};

// sum[m][n][lane] += x[m] d[n] over the pixels of an area; sums of m are `apart` elements apart.
template <typename A, int M, int N>
[[gnu::noinline]] void lane_tile(A* sum, int64_t apart, const Rows<A>& x, const Rows<A>& d,
                                 int64_t rows, int64_t width) {
  constexpr int64_t L = kLanes<A>;
  using Mask = core::detail::LaneIndex<A>;
  Mask lanes{};
  for (int i = 0; i < L; ++i) lanes[i] = i;
  // The last register of a row begins with pixels that the one before it had. They are left out of
  // both factors: the other one may be NaN.
  const int64_t whole = width / L * L, rest = width - whole;
  const Mask last = lanes >= Mask{} + std::remove_cvref_t<decltype(lanes[0])>(L - rest);
  Vec<A> sums[M][N] = {};
  for (int64_t y = 0; y < rows; ++y) {
    const A *x_row = x.start + y * x.row, *d_row = d.start + y * d.row;
    for (int64_t p = 0; p < whole; p += L) {
      Vec<A> values[N];
#pragma GCC unroll 8
      for (int n = 0; n < N; ++n) values[n] = load(d_row + n * d.apart + p);
#pragma GCC unroll 8
      for (int m = 0; m < M; ++m) {
        const Vec<A> factor = load(x_row + m * x.apart + p);
#pragma GCC unroll 8
        for (int n = 0; n < N; ++n) sums[m][n] += factor * values[n];
      }
    }
    if (rest == 0) continue;
    Vec<A> values[N];
#pragma GCC unroll 8
    for (int n = 0; n < N; ++n) values[n] = last ? load(d_row + n * d.apart + width - L) : Vec<A>{};
#pragma GCC unroll 8
    for (int m = 0; m < M; ++m) {
      const Vec<A> factor = last ? load(x_row + m * x.apart + width - L) : Vec<A>{};
#pragma GCC unroll 8
      for (int n = 0; n < N; ++n) sums[m][n] += factor * values[n];
    }
  }
#pragma GCC unroll 8
  for (int m = 0; m < M; ++m)
#pragma GCC unroll 8
    for (int n = 0; n < N; ++n) {
      A* to = sum + m * apart + n * L;
      store(to, load(to) + sums[m][n]);
    }
}

// sum[lane] += d over the pixels of an area.
template <typename A>
void add_pixels(A* sum, const A* d, int64_t row, int64_t rows, int64_t width) {
  constexpr int64_t L = kLanes<A>;
  Vec<A> parts[2] = {};
  for (int64_t y = 0; y < rows; ++y, d += row) {
    int64_t p = 0;
    for (; p + L <= width; p += L) parts[p / L % 2] += load(d + p);
    if (p < width) parts[0] += core::load_partial(d + p, width - p);
  }
  store(sum, load(sum) + (parts[0] + parts[1]));
}

// to[i] = the sum of the lanes of from[i], for registers of them
template <typename A>
void sum_all_lanes(const A* from, int64_t registers, A* to) {
  constexpr int L = kLanes<A>;
  for (int64_t r = 0; r < registers; ++r, from += L * L, to += L) {
    Vec<A> square[L];
#pragma GCC unroll 16
    for (int i = 0; i < L; ++i) square[i] = load(from + i * L);
    core::transpose<A>(square);
#pragma GCC unroll 4
    for (int half = L / 2; half > 0; half /= 2)
#pragma GCC unroll 8
      for (int i = 0; i < half; ++i) square[i] += square[i + half];
    store(to, square[0]);
  }
}

template <typename T>
struct FewChannelsGradient {
  using A = Accumulate<T>;
  static constexpr int64_t L = kLanes<A>;
  static constexpr int kTaps = 4, kChannels = core::kManyRegisters ? 5 : 3;

  const Plan& plan;
  const Layout& d_layout;
  const Cut& bands;
  int64_t images;

  // A part: the sums of the bias, then the packed ones of the weight; of each, a thread has L.
  int64_t bias_size() const { return int64_t(plan.writes.size()) * 2 * L; }
  int64_t part_size() const { return bias_size() + plan.packed_size(); }
  int64_t bands_of_a_part() const {
    return bands_of_parts(images * bands.parts(), part_size() * int64_t(sizeof(A)));
  }
  int64_t parts() const { return ceil_div(images * bands.parts(), bands_of_a_part()); }

  // The rows of d_output in place, or widened into scratch.
  Rows<A> rows_of(const Image<const T>& d_output, const Area& band, A* scratch) const {
    if constexpr (std::is_same_v<T, A>) {
      return {d_output.at(0, 0, band.y_begin, band.x_begin), d_output.c, d_output.y};
    } else {
      load_area(d_layout, plan.geometry, d_output, band, scratch);
      return {scratch, d_layout.rows * d_layout.columns, d_layout.columns};
    }
  }

  void accumulate(const Copy<A>& x, const Rows<A>& d_output, const Area& band, A* lanes) const {
    const int64_t columns = band.width();
    for (size_t i = 0; i < plan.writes.size(); ++i) {
      const Block& block = plan.writes[i];
      const int64_t width = vectors_of(block, L) * L;
      const A* d_block = d_output.start + block.start * d_output.apart;
      for (int64_t c = 0; c < block.width; ++c)
        add_pixels(lanes + (int64_t(i) * 2 * L + c) * L, d_block + c * d_output.apart, d_output.row,
                   band.height(), columns);
      core::for_each_tile<kChannels>(
          block.width, [&]<int N>(int64_t c, std::integral_constant<int, N>) {
            for (const Segment& s : plan.segments[block.group]) {
              const int64_t y = std::max(band.y_begin, -s.row), rows = band.y_end - y;
              if (rows <= 0) continue;
              const Rows<A> d{d_block + c * d_output.apart + (y - band.y_begin) * d_output.row,
                              d_output.apart, d_output.row};
              const A* first = x.data + s.offset + x.pixel(y, band.x_begin);
              A* sums = lanes + (bias_size() + plan.packed_start[i] + s.packed * width + c) * L;
              core::for_each_tile<kTaps>(
                  s.length, [&]<int M>(int64_t tap, std::integral_constant<int, M>) {
                    lane_tile<A, M, N>(sums + tap * width * L, width * L,
                                       {first + tap, 1, x.columns}, d, rows, columns);
                  });
            }
          });
    }
  }

  void run(const Image<const T>& x, const Image<const T>& d_output, const Tensor& like,
           A* sums) const {
    const int64_t group = bands_of_a_part(), all = images * bands.parts();
    const int64_t work = plan.packed_size() * bands.rows() * bands.columns() * group;
    parallel_units(parts(), kWork / (work + 1) + 1, [&](Units units) {
      const Scratch<A> lanes(like, part_size() * L), x_memory(like, plan.reads.size());
      const Scratch<A> d_memory(like, std::is_same_v<T, A> ? 0 : d_layout.size());
      for (const int64_t unit : units) {
        std::fill_n(lanes.get(), part_size() * L, A(0));
        for (int64_t b = unit * group; b < std::min(all, (unit + 1) * group); ++b) {
          const int64_t n = b / bands.parts();
          const Area band = bands[b % bands.parts()];
          const Copy<A> copy =
              load_area(plan.reads, plan.geometry, x.image(n), band, x_memory.get());
          accumulate(copy, rows_of(d_output.image(n), band, d_memory.get()), band, lanes.get());
        }
        sum_all_lanes(lanes.get(), part_size() / L, sums + unit * part_size());
      }
    });
  }
};

template <typename T>
void few_channels_gradient(const Geometry& s, const Image<const T>& d_output,
                           const Image<const T>& x, int64_t images, const Tensor& like,
                           const Tensor& d_weight, Tensor* d_bias) {
  using A = Accumulate<T>;
  const int64_t bytes = (s.channels_in + s.channels_out) * int64_t(sizeof(A));
  const Cut bands = bands_of_few<A>(area_of(s), 2 * pixels_of_gradient_bands(s, images, bytes));
  const Plan plan = plan_of<A>(s, /*mirrored=*/false, bands.rows(), bands.columns(), /*block=*/1);
  const Layout d_layout =
      layout_of(s, s.channels_out, s.parts, 1, {}, bands.rows(), bands.columns());
  const FewChannelsGradient<T> gradient{plan, d_layout, bands, images};
  const int64_t parts = gradient.parts(), apart = gradient.part_size();
  const Scratch<A> sums(like, parts * apart);
  gradient.run(x, d_output, like, sums.get());
  add_parts<T>(plan, sums.get(), parts, apart, &d_weight, d_bias);
}

}  // namespace genkern::cpu::masked_conv2d
