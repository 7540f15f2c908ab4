// The output, and in the mirrored pass the gradient of the input:
//
//   for (band : bands of all images)                            // on threads
//     copy the band and what its taps reach into padded scratch;
//     for (area : areas of the band)
//       for (block : blocks of written channels) {
//         sums[pixel][channel] = bias[channel];
//         for (segment : runs of live taps)
//           for (pixel : area) sums[pixel] += factors of the segment at the pixel * weights;
//         write the sums to their channels;
//       }
//
// Every sum is formed in an order that depends on the kernel alone, so bands may follow the number
// of threads.
#pragma once
#include "packing.h"

namespace genkern::cpu::masked_conv2d {

// Pixels of one block of sums, and packed weights that all of them use at once: what stays in L1.
constexpr int64_t kPixels = block_size(128, 12);
constexpr int64_t kFactors = block_size(256, 20);

// Pixels of a band of an area of an image, at most: some bands for every thread, and small enough
// for a copy of one to stay in the cache.
inline int64_t pixels_of_bands(const Area& area, int64_t images, int64_t bytes_per_pixel) {
  constexpr int64_t kTurns = 8;
  const int64_t fit = kCopyBytes / std::max<int64_t>(1, bytes_per_pixel);  // maybe no channels
  const int64_t turn = images * area.pixels() / (kTurns * num_threads());
  return std::max<int64_t>(1, std::min(fit, std::max(kPixels / 2, turn)));
}

// The part of some segments that reads rows of the image for output row y; others add nothing.
inline std::pair<const Segment*, const Segment*> inside(const Plan& plan, int64_t y,
                                                        const Segment* first, const Segment* last) {
  while (first < last && y + first->row < 0) ++first;
  while (first < last && y + (last - 1)->row >= plan.geometry.height) --last;
  return {first, last};
}

template <typename E>
void convolve_area(const Plan& plan, const Copy<E>& copy, const Area& area, const Block& block,
                   const E* packed, Accumulate<E>* sums) {
  using A = Accumulate<E>;
  const auto& runs = plan.segments[block.group];
  const int64_t vectors = vectors_of(block, kLanes<A>), width = vectors * kLanes<A>;
  for (const Segment *chunk = runs.data(), *end = chunk + runs.size(); chunk < end;) {
    const Segment* chunk_end = chunk + 1;
    while (chunk_end < end &&
           chunk_end->packed - chunk->packed + chunk_end->length <= kFactors * core::kFactor<E>)
      ++chunk_end;
    for (int64_t y = area.y_begin; y < area.y_end; ++y) {
      const auto runs_of_row = inside(plan, y, chunk, chunk_end);
      if (runs_of_row.first == runs_of_row.second) continue;
      A* row = sums + (y - area.y_begin) * area.width() * width;
      const int64_t start = copy.pixel(y, area.x_begin);
      core::for_each_tile<kTileRows<A>>(
          area.width(), [&]<int M>(int64_t x, std::integral_constant<int, M>) {
            A* to = row + x * width;
            if (vectors == 1)
              pixel_tile<E, M, 1>(to, copy.data, start + x, runs_of_row.first, runs_of_row.second,
                                  packed);
            else
              pixel_tile<E, M, 2>(to, copy.data, start + x, runs_of_row.first, runs_of_row.second,
                                  packed);
          });
    }
    chunk = chunk_end;
  }
}

// sums[pixel] = the biases of a block
template <typename A>
void start_sums(const A* bias, int64_t channels, int64_t pixels, int64_t width, A* sums) {
  constexpr int64_t L = kLanes<A>;
  alignas(64) A start[2 * L] = {};
  std::copy_n(bias, channels, start);
  const auto low = core::load(start), high = core::load(start + L);
  for (int64_t p = 0; p < pixels * width; p += width) {
    core::store(sums + p, low);
    if (width > L) core::store(sums + p + L, high);
  }
}

// `bias`: of every channel that is written.
template <typename T, typename E>
void convolve(const Geometry& s, bool mirrored, const Area& all, const Image<const T>& from,
              int64_t images, const Tensor& weight, const std::vector<Accumulate<T>>& bias,
              const Image<T>& to) {
  using A = Accumulate<T>;
  constexpr int64_t L = kLanes<A>;
  const int64_t channels = mirrored ? s.channels_out : s.channels_in;
  const int64_t bytes = channels * int64_t(sizeof(E));
  const Cut bands(all, pixels_of_bands(all, images, bytes));
  const Plan plan = plan_of<E>(s, mirrored, bands.rows(), bands.columns());
  const Scratch<E> packed(weight, plan.packed_size());
  pack_weight<T>(plan, weight, packed.get());
  const int64_t work = plan.packed_size() * bands.rows() * bands.columns();
  parallel_units(images * bands.parts(), kWork / (work + 1) + 1, [&](Units units) {
    const Scratch<E> memory(weight, plan.reads.size());
    alignas(64) A sums[kPixels * 2 * L];
    for (const int64_t unit : units) {
      const int64_t n = unit / bands.parts();
      const Area band = bands[unit % bands.parts()];
      const Copy<E> copy = load_area(plan.reads, s, from.image(n), band, memory.get());
      const Cut areas(band, kPixels);
      for (int64_t a = 0; a < areas.parts(); ++a) {
        const Area area = areas[a];
        for (size_t i = 0; i < plan.writes.size(); ++i) {
          const Block& block = plan.writes[i];
          const int64_t width = vectors_of(block, L) * L;
          start_sums(bias.data() + block.start, block.width, area.pixels(), width, sums);
          convolve_area(plan, copy, area, block, packed.get() + plan.packed_start[i], sums);
          // Several rows follow one another: the result is dense, and they are whole ones.
          core::deinterleave(sums, width, block.width, area.pixels(),
                             to.at(n, block.start, area.y_begin, area.x_begin), to.c, to.x);
        }
      }
    }
  });
}

}  // namespace genkern::cpu::masked_conv2d
