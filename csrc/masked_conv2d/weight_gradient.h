// The gradients of the weight and the bias, divided by segments and not by pixels: a task adds up
// all pixels of all images.
//
//   for (task : parts of a segment, for a block)                // on threads
//     for (area) for (pixel : area)
//       d_weight[factor][channel] += factors at the pixel (x) d_output[pixel][channel];
#pragma once
#include "areas.h"

namespace genkern::cpu::masked_conv2d {

// Pixels of one partial sum of a weight gradient, factors of one task of it.
constexpr int64_t kStripPixels = block_size(256, 12);
constexpr int64_t kTaskFactors = block_size(48, 10);

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
      const int64_t parts = (s.length + kTaskFactors - 1) / kTaskFactors;
      for (int64_t part = 0; with_weight && part < parts; ++part)
        tasks.push_back({i, &s, s.length * part / parts, s.length * (part + 1) / parts});
    }
  }
  return tasks;
}

template <typename E>
void accumulate_task(const Plan& plan, const Plan& d_plan, const Task& task, const Area& area,
                     const E* x, const E* d_output, Accumulate<E>* d_packed,
                     Accumulate<E>* d_bias) {
  using A = Accumulate<E>;
  constexpr int64_t L = kLanes<A>;
  const Block& block = plan.writes[task.block];
  const int64_t vectors = vectors_of(block, L), row = task.segment ? task.segment->row : 0;
  const int64_t y = std::max(area.y_begin, -row), rows = area.y_end - y;
  if (rows <= 0) return;
  Strip strip{rows, area.width(), 0, 0, d_plan.padded_width * block.width, block.width};
  const E* d =
      d_output + d_plan.position(block, y, d_plan.pad_left + area.x_begin) * core::kFactor<E>;
  if (!task.segment) return bias_tile(d_bias + task.block * 2 * L, d, vectors, strip);
  const Segment& s = *task.segment;
  strip.x_row = plan.padded_width * s.width;
  strip.x_pixel = s.width;
  const int64_t from = s.offset + (y * plan.padded_width + area.x_begin) * s.width;
  A* to = d_packed + plan.packed_start[task.block] + s.packed * vectors * L;
  const int64_t end = task.end - task.begin;
  core::for_each_tile<kTileRows<A>>(end, [&]<int M>(int64_t factor, TileSize<M>) {
    const int64_t first = task.begin + factor;
    const E* column = x + (from + first) * core::kFactor<E>;
    if (vectors == 1)
      weight_tile<E, M, 1>(to + first * L, column, d, strip);
    else
      weight_tile<E, M, 2>(to + first * 2 * L, column, d, strip);
  });
}

template <typename E>
void accumulate(const Plan& plan, const Plan& d_plan, const std::vector<Task>& tasks, int64_t count,
                const E* x, const E* d_output, Accumulate<E>* d_packed, Accumulate<E>* d_bias) {
  const Geometry& s = plan.geometry;
  const int64_t work = count * s.height * s.width * kTaskFactors * 2 * kLanes<Accumulate<E>>;
  const int64_t units = count * s.height * columns_of(s, kStripPixels);
  parallel_for(0, int64_t(tasks.size()), kWork / (work + 1) + 1, [&](int64_t begin, int64_t end) {
    for_areas(s, kStripPixels, 0, units, [&](int64_t n, const Area& area) {
      for (int64_t i = begin; i < end; ++i)
        accumulate_task(plan, d_plan, tasks[i], area, x + n * plan.image_size() * core::kFactor<E>,
                        d_output + n * d_plan.image_size() * core::kFactor<E>, d_packed, d_bias);
    });
  });
}

}  // namespace genkern::cpu::masked_conv2d
