// The gradients of the weight and the bias:
//
//   for (part : runs of bands)                                      // on threads
//     for (share : shares of the tasks)                             // on threads, if parts are few
//       for (band : bands of the part)
//         for (strip : areas of the band)
//           for (task : parts of segments, for a block)
//             for (pixel : strip)
//               sum[part][factor][channel] += factors at the pixel (x) d_output[pixel][channel];
//   d_weight = sum[0] + sum[1] + ...
//
// Bands, parts and strips, and with them the bits of the result, follow from the shapes alone; how
// many shares there are does not matter to them.
#pragma once
#include <bit>

#include "packing.h"

namespace genkern::cpu::masked_conv2d {

// Pixels of one partial sum of a weight gradient, factors of one task of it.
constexpr int64_t kStripPixels = block_size(256, 12);
constexpr int64_t kTaskFactors = block_size(48, 10);
// Parts that are summed apart, if their sums take no more than so many bytes.
constexpr int64_t kParts = block_size(32, 5);
constexpr int64_t kPartsBytes = block_size(4 << 20, 4096);
// Units of work that a thread should find: parts, or shares of them.
constexpr int64_t kTurns = 8;

struct Task {
  size_t block;
  const Segment* segment;  // nullptr: the bias
  int64_t begin, end;      // factors of the segment
};

inline std::vector<Task> tasks_of(const Plan& plan, bool with_weight, bool with_bias) {
  std::vector<Task> tasks;
  for (size_t i = 0; i < plan.writes.size(); ++i) {
    if (with_bias) tasks.push_back({i, nullptr, 0, 0});
    for (const Segment& s : plan.segments[plan.writes[i].group]) {
      const int64_t parts = ceil_div(s.length, kTaskFactors);
      for (int64_t part = 0; with_weight && part < parts; ++part)
        tasks.push_back({i, &s, s.length * part / parts, s.length * (part + 1) / parts});
    }
  }
  return tasks;
}

// Pixels of a band of an image for the gradient of the weight, at most.
inline int64_t pixels_of_gradient_bands(const Geometry& s, int64_t images,
                                        int64_t bytes_per_pixel) {
  const int64_t fit = 2 * kCopyBytes / bytes_per_pixel;
  const int64_t apart = std::max(kStripPixels, images * s.height * s.width / kParts);
  return std::max<int64_t>(1, std::min(fit, apart));
}

// Bands that are summed together, of so many. A power of two: as many parts for every thread where
// the images and the threads are such.
inline int64_t bands_of_parts(int64_t bands, int64_t bytes_of_a_part) {
  const int64_t parts = std::clamp<int64_t>(kPartsBytes / bytes_of_a_part, 1, kParts);
  return int64_t(std::bit_ceil(uint64_t(ceil_div(bands, parts))));
}

// T: what is stored, E: what is multiplied.
template <typename T, typename E>
struct WeightGradient {
  using A = Accumulate<E>;
  static constexpr int64_t L = kLanes<A>, F = core::kFactor<E>;

  const Plan& plan;
  const Layout& d_layout;  // of d_output, without margins
  const Cut& bands;
  const std::vector<Task>& tasks;
  int64_t images;
  bool with_weight;

  int64_t bias_size() const { return int64_t(plan.writes.size()) * 2 * L; }
  int64_t part_size() const { return (with_weight ? plan.packed_size() : 0) + bias_size(); }
  int64_t bands_of_a_part() const {
    return bands_of_parts(images * bands.parts(), part_size() * int64_t(sizeof(A)));
  }
  int64_t parts() const { return ceil_div(images * bands.parts(), bands_of_a_part()); }

  // A part: the sums of the bias, then the packed ones of the weight.
  A* sums_of(const Task& task, A* part) const {
    if (!task.segment) return part + task.block * 2 * L;
    const int64_t width = vectors_of(plan.writes[task.block], L) * L;
    return part + bias_size() + plan.packed_start[task.block] +
           (task.segment->packed + task.begin) * width;
  }

  void clear(const Task& task, A* part) const {
    const int64_t width = vectors_of(plan.writes[task.block], L) * L;
    std::fill_n(sums_of(task, part), task.segment ? (task.end - task.begin) * width : 2 * L, A(0));
  }

  void accumulate(const Task& task, const Area& area, const Copy<E>& x, const Copy<E>& d_output,
                  A* part) const {
    const Block& block = plan.writes[task.block];
    const int64_t vectors = vectors_of(block, L), row = task.segment ? task.segment->row : 0;
    const int64_t y = std::max(area.y_begin, -row), rows = area.y_end - y;
    if (rows <= 0) return;
    Strip strip{rows, area.width(), 0, 0, d_output.columns * block.width, block.width};
    const E* d =
        d_output.data +
        (d_layout.position(block, 0, 0) + d_output.pixel(y, area.x_begin) * block.width) * F;
    A* sums = sums_of(task, part);
    if (!task.segment) return bias_tile(sums, d, vectors, strip);
    const Segment& s = *task.segment;
    strip.x_row = x.columns * s.width;
    strip.x_pixel = s.width;
    const E* factors = x.data + (s.offset + x.pixel(y, area.x_begin) * s.width + task.begin) * F;
    core::for_each_tile<kTileRows<A>>(
        task.end - task.begin, [&]<int M>(int64_t first, std::integral_constant<int, M>) {
          if (vectors == 1)
            weight_tile<E, M, 1>(sums + first * L, factors + first * F, d, strip);
          else
            weight_tile<E, M, 2>(sums + first * 2 * L, factors + first * F, d, strip);
        });
  }

  // Scratch of a thread: copies of pixels, and, where a factor is a pair of them, of these.
  struct Memory {
    Scratch<E> x, d_output, pixels;
  };
  Memory new_memory(const Tensor& like) const {
    const int64_t x = with_weight ? plan.reads.size() : 0, d_output = d_layout.size();
    return {Scratch<E>(like, x * F), Scratch<E>(like, d_output * F),
            Scratch<E>(like, F > 1 ? std::max(x, d_output) : 0)};
  }

  Copy<E> load(const Layout& layout, const Image<const T>& image, const Area& band,
               const Scratch<E>& to, const Memory& memory) const {
    E* pixels = F > 1 ? memory.pixels.get() : to.get();
    const Copy<E> copy = load_area(layout, plan.geometry, image, band, pixels);
    if constexpr (F > 1)
      return pair_pixels(layout, band, copy, to.get());
    else
      return copy;
  }

  void run(const Image<const T>& x, const Image<const T>& d_output, const Tensor& like,
           A* sums) const {
    const int64_t count = int64_t(tasks.size()), group = bands_of_a_part();
    // A share loads its bands again: unless threads would be idle, that may cost a few per cent.
    const int64_t worth = plan.packed_size() / (256 * (plan.reads.channels + d_layout.channels));
    const int64_t wanted = std::min(worth, ceil_div(kTurns * num_threads(), parts()));
    const int64_t shares = std::min(count, std::max(wanted, ceil_div(num_threads(), parts())));
    const int64_t pixels = bands.rows() * bands.columns() * group;
    const int64_t work = pixels * (with_weight ? plan.packed_size() : bias_size()) / shares;
    parallel_units(parts() * shares, kWork / (work + 1) + 1, [&](Units units) {
      const Memory memory = new_memory(like);
      for (const int64_t unit : units) {
        A* part = sums + unit / shares * part_size();
        const int64_t share = unit % shares, first = unit / shares * group;
        const int64_t begin = count * share / shares, end = count * (share + 1) / shares;
        for (int64_t i = begin; i < end; ++i) clear(tasks[i], part);
        const int64_t last = std::min(first + group, images * bands.parts());
        for (int64_t b = first; b < last; ++b) {
          const int64_t n = b / bands.parts();
          const Area band = bands[b % bands.parts()];
          Copy<E> pixels_in{};
          if (with_weight) pixels_in = load(plan.reads, x.image(n), band, memory.x, memory);
          const Copy<E> d = load(d_layout, d_output.image(n), band, memory.d_output, memory);
          const Cut strips(band, kStripPixels);
          for (int64_t strip = 0; strip < strips.parts(); ++strip)
            for (int64_t i = begin; i < end; ++i)
              accumulate(tasks[i], strips[strip], pixels_in, d, part);
        }
      }
    });
  }
};

// The sums of all parts: of each the bias, then the packed weight.
template <typename T>
void add_parts(const Plan& plan, const Accumulate<T>* sums, int64_t parts, int64_t apart,
               const Tensor* d_weight, const Tensor* d_bias) {
  using A = Accumulate<T>;
  constexpr int64_t kBias = 2 * kLanes<A>;
  const int64_t blocks = int64_t(plan.writes.size());
  if (d_weight) unpack_weight<T>(plan, sums + blocks * kBias, parts, apart, *d_weight);
  for (int64_t i = 0; d_bias && i < blocks; ++i)
    for (int64_t c = 0; c < plan.writes[i].width; ++c) {
      A sum = 0;
      for (int64_t part = 0; part < parts; ++part) sum += sums[part * apart + i * kBias + c];
      data<T>(*d_bias)[plan.writes[i].start + c] = core::from_accumulate<T>(sum);
    }
}

template <typename T, typename E>
void weight_gradient(const Geometry& s, const Image<const T>& d_output, const Image<const T>& x,
                     int64_t images, const Tensor& like, Tensor* d_weight, Tensor* d_bias) {
  using A = Accumulate<T>;
  const int64_t channels = s.channels_out + (d_weight ? s.channels_in : 0);
  const int64_t bytes = channels * core::kFactor<E> * int64_t(sizeof(E));
  const Cut bands({0, s.height, 0, s.width}, pixels_of_gradient_bands(s, images, bytes));
  const Plan plan = plan_of<E>(s, /*mirrored=*/false, bands.rows(), bands.columns());
  const Layout d_layout =
      layout_of(s, s.channels_out, s.parts, kBlock<E>, {}, bands.rows(), bands.columns());
  const auto tasks = tasks_of(plan, d_weight, d_bias);
  if (tasks.empty()) return;  // no live taps
  const WeightGradient<T, E> gradient{plan, d_layout, bands, tasks, images, d_weight != nullptr};
  const int64_t parts = gradient.parts(), apart = gradient.part_size();
  const Scratch<A> sums(like, parts * apart);
  gradient.run(x, d_output, like, sums.get());
  add_parts<T>(plan, sums.get(), parts, apart, d_weight, d_bias);
}

}  // namespace genkern::cpu::masked_conv2d
