// Images of one channel, as first layers read them. The lanes of a register are neighbouring
// pixels where convolve.h and weight_gradient.h have channels: the output is written, and d_output
// read, in place. Of a band there is a copy for each column of the kernel, shifted by it, with
// zeros where it leaves the image, so that a run of rows is one long row for every tap:
//
//   W = 3, k = 3, rows a, b     tap to the left    _ a0 a1 _ b0 b1
//                               own column         a0 a1 a2 b0 b1 b2
//                               to the right       a1 a2 _ b1 b2 _
//   for (o = 0; o < M; ++o)
//     for (v = 0; v < NV; ++v)                     // registers of the run; the last one overlaps
//       for (t : live taps) y[o][v] += w[o][t] * x[t][v];
//
// The gradient of the weight has one sum for each lane, added up at the end of a part:
//
//   sum[o][t][lane] += x[t][pixel] * d_output[o][pixel],   pixel % lanes == lane
#pragma once
#include <span>

#include "../core/transpose.h"
#include "convolve.h"
#include "weight_gradient.h"

namespace genkern::cpu::masked_conv2d {

using core::load;
using core::store;
using core::Vec;

// Whether it pays: rows of the output follow one another, and are not shorter than a register. With
// three channels the copies, 21 for k = 7, leave the first-level cache, and it is slower.
template <typename T, typename Pixel>
bool has_one_channel(const Geometry& s, const Image<Pixel>& output) {
  return s.channels_in == 1 && output.x == 1 && output.is_one_row(s.width) &&
         s.width >= kLanes<Accumulate<T>>;
}

// The copies of a band: [shift][row][column].
template <typename A>
class Shifted {
 public:
  Shifted(const Geometry& s, const Cut& bands)
      : s_(s),
        margins_(margins_of(s)),
        rows_(std::min(s.height, bands.rows() + margins_.above)),
        columns_(bands.columns()) {}

  int64_t shifts() const { return (margins_.left + margins_.right) / s_.dilation + 1; }
  int64_t apart() const { return rows_ * columns_; }  // from one shift to the next
  int64_t size() const { return shifts() * apart(); }

  // Bands whose copies stay in the first-level cache, and no narrower than four registers.
  static Cut bands_of(const Geometry& s, const Area& area, int64_t pixels) {
    constexpr int64_t kBytes = block_size(24 << 10, 512);
    const int64_t fit = kBytes / (s.kernel_w * int64_t(sizeof(A)));
    return Cut(area, std::max(std::min(fit, pixels), 4 * int64_t(kLanes<A>)));
  }

  template <typename T>
  void load(const Image<const T>& from, const Area& band, A* to) {
    band_ = band, data_ = to, top_ = std::max<int64_t>(0, band.y_begin - margins_.above);
    for (int64_t shift = 0; shift < shifts(); ++shift, to += apart())
      for (int64_t y = top_; y < band.y_end; ++y) {
        const int64_t left = band.x_begin + shift * s_.dilation - margins_.left;
        const int64_t right = left + band.width();
        const int64_t begin = std::clamp<int64_t>(0, left, right);
        const int64_t end = std::clamp(s_.width, begin, right);
        A* inside = std::fill_n(to + (y - top_) * columns_, begin - left, A(0));
        core::interleave(from.data + y * from.y + begin * from.x, 0, from.x, 1, end - begin,
                         inside);
        std::fill_n(inside + (end - begin), right - end, A(0));
      }
  }

  // From a pixel to what the first tap of a segment sees.
  int64_t offset(const Segment& segment) const {
    const int64_t shift = segment.tap_column - (s_.column() - margins_.left / s_.dilation);
    return shift * apart() + segment.row * columns_;
  }
  const A* row(int64_t y) const { return data_ + (y - top_) * columns_; }

  // Calls f(y, rows) for runs of rows of the band that the same taps see.
  template <typename F>
  void for_runs(const F& f) const {
    int64_t y = band_.y_begin;
    for (; y < band_.y_end && y < margins_.above; ++y) f(y, 1);
    if (y < band_.y_end) f(y, band_.y_end - y);
  }

 private:
  const Geometry& s_;
  Margins margins_;
  int64_t rows_, columns_, top_ = 0;
  Area band_{};
  const A* data_ = nullptr;
};

// ---- output --------------------------------------------------------------------------------

struct Tap {
  int64_t row, offset;  // from the row of the output pixel, and from the pixel to what it reads
};

template <typename A>
std::vector<Tap> taps_of(const std::vector<Segment>& segments, const Shifted<A>& copy) {
  std::vector<Tap> taps;
  for (const Segment& s : segments)
    for (int64_t tap = 0; tap < s.length; ++tap)
      taps.push_back({s.row, copy.offset(s) + tap * copy.apart()});
  return taps;
}

// NV registers of pixels of M channels, whose weights are `width` apart from tap to tap.
template <typename T, int M, int NV>
[[gnu::noinline]] void channel_tile(const Accumulate<T>* bias, const Accumulate<T>* pixel,
                                    std::span<const Tap> taps, const Accumulate<T>* weights,
                                    int64_t width, T* to, int64_t to_channel) {
  using A = Accumulate<T>;
  core::Tile<A, M, NV> tile;
#pragma GCC unroll 16
  for (int m = 0; m < M; ++m)
#pragma GCC unroll 2
    for (int v = 0; v < NV; ++v) tile.sum[m][v] = core::splat(bias[m]);
  for (const Tap& tap : taps) {
    const auto at = [&](int m) __attribute__((always_inline)) { return weights + m; };
    tile.add_products(at, pixel + tap.offset, core::whole<A>);
    weights += width;
  }
#pragma GCC unroll 16
  for (int m = 0; m < M; ++m)
#pragma GCC unroll 2
    for (int v = 0; v < NV; ++v) store(to + m * to_channel + v * kLanes<A>, tile.sum[m][v]);
}

// Calls f(pixel, registers) so that a run of at least one register is covered.
template <typename A, typename F>
void for_registers(int64_t pixels, const F& f) {
  constexpr int64_t L = kLanes<A>;
  int64_t p = 0;
  for (; p + 2 * L <= pixels; p += 2 * L) f(p, std::integral_constant<int, 2>());
  for (; p < pixels; p += L) f(std::min(p, pixels - L), std::integral_constant<int, 1>());
}

// An area that is at least a register wide, and whose rows follow one another in `to`.
template <typename T>
void convolve_one_channel(const Geometry& s, const Area& area, const Image<const T>& from,
                          int64_t images, const Tensor& weight,
                          const std::vector<Accumulate<T>>& bias, const Image<T>& to) {
  using A = Accumulate<T>;
  constexpr int64_t L = kLanes<A>;
  constexpr int kRows = core::kManyRegisters ? 8 : 6;
  const Cut bands = Shifted<A>::bands_of(s, area, pixels_of_bands(area, images, 1));
  const Plan plan = plan_of<A>(s, /*mirrored=*/false, bands.rows(), bands.columns());
  const Scratch<A> packed(weight, plan.packed_size());
  pack_weight<T>(plan, weight, packed.get());
  const int64_t work = plan.packed_size() * bands.rows() * bands.columns();
  parallel_units(images * bands.parts(), kWork / (work + 1) + 1, [&](Units units) {
    Shifted<A> copy(s, bands);
    const Scratch<A> memory(weight, copy.size());
    const std::vector<Tap> all = taps_of(plan.segments[0], copy);  // one channel has one colour
    for (const int64_t unit : units) {
      const int64_t n = unit / bands.parts();
      const Area band = bands[unit % bands.parts()];
      copy.load(from.image(n), band, memory.get());
      for (size_t i = 0; i < plan.writes.size(); ++i) {
        const Block& block = plan.writes[i];
        const int64_t width = vectors_of(block, L) * L;
        const auto channels = [&]<int M>(int64_t c, std::integral_constant<int, M>) {
          const A* start = bias.data() + block.start + c;
          copy.for_runs([&](int64_t y, int64_t rows) {
            size_t above = 0;  // taps that read above the image
            while (above < all.size() && y + all[above].row < 0) ++above;
            const std::span taps = std::span(all).subspan(above);
            const A* weights = packed.get() + plan.packed_start[i] + int64_t(above) * width + c;
            T* pixels = to.at(n, block.start + c, y, band.x_begin);
            for_registers<A>(rows * band.width(),
                             [&]<int NV>(int64_t p, std::integral_constant<int, NV>) {
                               channel_tile<T, M, NV>(start, copy.row(y) + p, taps, weights, width,
                                                      pixels + p, to.c);
                             });
          });
        };
        core::for_each_tile<kRows>(block.width, channels);
      }
    }
  });
}

// An area that may be narrower. Its sums are formed, in their order, as part of one that is not.
template <typename T>
void convolve_part(const Geometry& s, const Area& area, const Image<const T>& from, int64_t images,
                   const Tensor& weight, const std::vector<Accumulate<T>>& bias,
                   const Image<T>& to) {
  constexpr int64_t L = kLanes<Accumulate<T>>;
  if (area.width() >= L) return convolve_one_channel(s, area, from, images, weight, bias, to);
  const int64_t left = std::min(area.x_begin, s.width - L);
  const Area wide{area.y_begin, area.y_end, left, left + L};
  const Scratch<T> memory(weight, images * s.channels_out * wide.pixels());
  const Image<T> dense(memory.get(), s.channels_out * wide.pixels(), wide.pixels(), L);
  const Image<T> all = dense.from(wide);
  convolve_one_channel(s, wide, from, images, weight, bias, all);
  for (int64_t n = 0; n < images; ++n)
    for (int64_t c = 0; c < s.channels_out; ++c)
      for (int64_t y = area.y_begin; y < area.y_end; ++y)
        std::copy_n(all.at(n, c, y, area.x_begin), area.width(), to.at(n, c, y, area.x_begin));
}

// ---- gradient of the weight ----------------------------------------------------------------

// Runs of pixels: where the first one starts and how far they are apart.
template <typename A>
struct Runs {
  const A* start;
  int64_t apart;
};

// sum[m][n][lane] += x[m] d[n] over the pixels of a run; sums of m are `apart` elements apart.
template <typename A, int M, int N>
[[gnu::noinline]] void lane_tile(A* sum, int64_t apart, const Runs<A>& x, const Runs<A>& d,
                                 int64_t pixels) {
  constexpr int64_t L = kLanes<A>;
  Vec<A> sums[M][N] = {};
  const auto add = [&](int64_t p, auto part) __attribute__((always_inline)) {
    Vec<A> values[N];
#pragma GCC unroll 8
    for (int n = 0; n < N; ++n) values[n] = part(load(d.start + n * d.apart + p));
#pragma GCC unroll 8
    for (int m = 0; m < M; ++m) {
      const Vec<A> factor = part(load(x.start + m * x.apart + p));
#pragma GCC unroll 8
      for (int n = 0; n < N; ++n) sums[m][n] += factor * values[n];
    }
  };
  int64_t p = 0;
  for (; p + L <= pixels; p += L) add(p, [](Vec<A> v) { return v; });
  if (p < pixels) {
    // The last register begins with pixels that the one before it had. They are left out of both
    // factors: the other one may be NaN.
    using Lanes = core::detail::LaneIndex<A>;
    Lanes last{};
    for (int64_t i = L - (pixels - p); i < L; ++i) last[i] = -1;
    add(pixels - L, [&](Vec<A> v) { return last != 0 ? v : Vec<A>{}; });
  }
#pragma GCC unroll 8
  for (int m = 0; m < M; ++m)
#pragma GCC unroll 8
    for (int n = 0; n < N; ++n) {
      A* to = sum + m * apart + n * L;
      store(to, load(to) + sums[m][n]);
    }
}

// sum[lane] += d over the pixels of a run.
template <typename A>
void add_pixels(A* sum, const A* d, int64_t pixels) {
  constexpr int64_t L = kLanes<A>;
  Vec<A> parts[2] = {};
  int64_t p = 0;
  for (; p + L <= pixels; p += L) parts[p / L % 2] += load(d + p);
  if (p < pixels) parts[0] += core::load_partial(d + p, pixels - p);
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
struct OneChannelGradient {
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

  // Of the rows of d_output in place, or widened into scratch.
  Runs<A> runs_of(const Image<const T>& d_output, const Area& band, A* scratch) const {
    if constexpr (std::is_same_v<T, A>) {
      return {d_output.at(0, 0, band.y_begin, band.x_begin), d_output.c};
    } else {
      load_area(d_layout, plan.geometry, d_output, band, scratch);
      return {scratch, d_layout.rows * d_layout.columns};
    }
  }

  void accumulate(const Shifted<A>& x, const Runs<A>& d_output, const Area& band, A* lanes) const {
    for (size_t i = 0; i < plan.writes.size(); ++i) {
      const Block& block = plan.writes[i];
      const int64_t width = vectors_of(block, L) * L;
      const A* d_block = d_output.start + block.start * d_output.apart;
      for (int64_t c = 0; c < block.width; ++c)
        add_pixels(lanes + (int64_t(i) * 2 * L + c) * L, d_block + c * d_output.apart,
                   band.pixels());
      core::for_each_tile<kChannels>(block.width, [&]<int N>(int64_t c,
                                                             std::integral_constant<int, N>) {
        for (const Segment& s : plan.segments[block.group]) {
          const int64_t y = std::max(band.y_begin, -s.row), skipped = y - band.y_begin;
          if (y >= band.y_end) continue;
          const Runs<A> d{d_block + c * d_output.apart + skipped * band.width(), d_output.apart};
          A* sums = lanes + (bias_size() + plan.packed_start[i] + s.packed * width + c) * L;
          core::for_each_tile<kTaps>(
              s.length, [&]<int M>(int64_t tap, std::integral_constant<int, M>) {
                const Runs<A> factors{x.row(y) + x.offset(s) + tap * x.apart(), x.apart()};
                lane_tile<A, M, N>(sums + tap * width * L, width * L, factors, d,
                                   band.pixels() - skipped * band.width());
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
      Shifted<A> copy(plan.geometry, bands);
      const Scratch<A> lanes(like, part_size() * L), x_memory(like, copy.size());
      const Scratch<A> d_memory(like, std::is_same_v<T, A> ? 0 : d_layout.size());
      for (const int64_t unit : units) {
        std::fill_n(lanes.get(), part_size() * L, A(0));
        for (int64_t b = unit * group; b < std::min(all, (unit + 1) * group); ++b) {
          const int64_t n = b / bands.parts();
          const Area band = bands[b % bands.parts()];
          copy.load(x.image(n), band, x_memory.get());
          accumulate(copy, runs_of(d_output.image(n), band, d_memory.get()), band, lanes.get());
        }
        sum_all_lanes(lanes.get(), part_size() / L, sums + unit * part_size());
      }
    });
  }
};

template <typename T>
void one_channel_gradient(const Geometry& s, const Image<const T>& d_output,
                          const Image<const T>& x, int64_t images, const Tensor& like,
                          const Tensor& d_weight, Tensor* d_bias) {
  using A = Accumulate<T>;
  const Cut bands = Shifted<A>::bands_of(s, area_of(s), 2 * pixels_of_gradient_bands(s, images, 1));
  const Plan plan = plan_of<A>(s, /*mirrored=*/false, bands.rows(), bands.columns());
  const Layout d_layout =
      layout_of(s, s.channels_out, s.parts, 1, {}, bands.rows(), bands.columns());
  const OneChannelGradient<T> gradient{plan, d_layout, bands, images};
  const int64_t parts = gradient.parts(), apart = gradient.part_size();
  const Scratch<A> sums(like, parts * apart);
  gradient.run(x, d_output, like, sums.get());
  add_parts<T>(plan, sums.get(), parts, apart, &d_weight, d_bias);
}

}  // namespace genkern::cpu::masked_conv2d
