// y[o, p] = b[o] + sum over live (i, t) of w[o, i, t] x[i, p + t]     van den Oord et al. 2016, 3.4
//
//   for (p = 0; p < pixels; ++p)
//     for (o = 0; o < C_out; ++o) {
//       y[o][p] = b[o];
//       for (i = 0; i < C_in; ++i)
//         for (t : taps)
//           if (live(o, i, t)) y[o][p] += w[o][i][t] * x[i][p + t];
//     }
//
// Images are read from scratch copies of a part of them with the layout [channel block][row][padded
// column][channel of the block], so that the live taps of a kernel row are one contiguous run of
// factors, a segment, and the masked ones are in no segment at all. 3 x 3, mask B, a block of 2
// channels a, b, padding _, output pixel at the column marked ^:
//
//   row above   _a _b  a0 b0  a1 b1  a2 b2  _a _b       segment 0: 3 taps x 2 channels, offset of
//                      [---------------------]          its first factor -1 row, -1 column
//   own row     _a _b  a0 b0  a1 b1  a2 b2  _a _b       segment 1: 2 taps x 2 channels; the tap to
//                      [------------]                   the right is masked (mask A: so is a1)
//                             ^
//
// The packed weight of a written block has, for each factor of its segments in that order, the
// weights of all channels of the block: 1 or 2 registers, lanes without a channel are 0.
#pragma once
#include <algorithm>
#include <vector>

#include "../core/bf16_pairs.h"

namespace genkern::core::masked_conv2d {

// In the order of genkern/ops/masked_conv2d.py, which draws them.
enum class MaskType : int64_t { A, B, rows, rows_above, left, left_before };

struct Geometry {
  int64_t channels_in, channels_out, height, width, kernel_h, kernel_w, dilation, groups, parts;
  MaskType mask;

  // The row and the column of the kernel that stand at the output pixel; maybe one past the last.
  int64_t row() const {
    if (mask <= MaskType::B) return kernel_h / 2;
    return mask == MaskType::rows_above ? kernel_h : kernel_h - 1;
  }
  int64_t column() const {
    if (mask == MaskType::left) return kernel_w - 1;
    return mask == MaskType::left_before ? kernel_w : kernel_w / 2;
  }
  // Whether the tap at the output pixel is the last one, and live by the order of colours.
  bool has_centre() const { return mask <= MaskType::B || mask == MaskType::left; }
  // Taps of a row of the kernel that are live for all channels: the first ones.
  int64_t whole_taps(int64_t kernel_row) const {
    if (kernel_row > row()) return 0;
    return has_centre() && kernel_row == row() ? column() : kernel_w;
  }
};

// Contiguous channels of one colour group.
struct Block {
  int64_t start, width, group;
};

// The channels of each group of each part in blocks of at most `widest`, the last one of a group
// maybe narrower.
inline std::vector<Block> blocks_of(int64_t channels, int64_t groups, int64_t parts,
                                    int64_t widest) {
  std::vector<Block> blocks;
  const int64_t size = channels / parts;
  int64_t start = 0;
  for (int64_t part = 0; part < parts; ++part)
    for (int64_t g = 0; g < groups; ++g) {
      const int64_t end = part * size + (size * (g + 1) + groups - 1) / groups;
      while (start < end) {
        const int64_t width = std::min(widest, end - start);
        blocks.push_back({start, width, g});
        start += width;
      }
    }
  return blocks;
}

// Channels of a block: two registers of sums, and of the factors that are read.
template <typename E>
inline constexpr int64_t kBlock = 2 * kLanes<Accumulate<E>>;

// How far the live taps reach from the output pixel.
struct Margins {
  int64_t above = 0, below = 0, left = 0, right = 0;

  Margins mirrored() const { return {below, above, right, left}; }
};

// Taps further away than the image is large see padding only, and are left out.
inline Margins margins_of(const Geometry& s) {
  const int64_t d = s.dilation, rows = (s.height - 1) / d, columns = (s.width - 1) / d;
  const int64_t right = std::max<int64_t>(0, s.kernel_w - 1 - s.column());
  return {std::min(s.row(), rows) * d, 0, std::min(s.column(), columns) * d,
          std::min(right, columns) * d};
}

// A copy of a part of an image, as large as the largest part.
struct Layout {
  std::vector<Block> blocks;
  Margins margins;
  int64_t rows, columns, channels;

  int64_t size() const { return channels * rows * columns; }
  int64_t position(const Block& block, int64_t row, int64_t column) const {
    return block.start * rows * columns + (row * columns + column) * block.width;
  }
};

// A run of live taps of one kernel row over one block of the image that is read.
struct Segment {
  int64_t row;     // from the row of the output pixel to the row that is read
  int64_t offset;  // from the output pixel's own position to the first factor, in elements
  int64_t width;   // channels of the block: the distance between pixels
  int64_t length;  // elements: taps x width
  int64_t packed;  // position of the first one in the packed weight
  int64_t channel, tap_row, tap_column, tap_step;  // where the weight stands in its tensor
};

// How one pass reads parts of an image (`reads`) and which channels it makes (`writes`). The
// mirrored pass makes the gradient of the input: it reads d_output through the taps turned by 180
// degrees.
struct Plan {
  Geometry geometry;
  bool mirrored;
  int64_t factor;  // elements of one
  Layout reads;
  std::vector<Block> writes;
  std::vector<std::vector<Segment>> segments;  // by colour group of the written block
  std::vector<int64_t> packed_start;           // of each written block, in elements; then the end

  int64_t packed_size() const { return packed_start.back(); }
};

inline bool sees(const Plan& plan, int64_t writes, int64_t reads) {
  const int64_t out = plan.mirrored ? reads : writes, in = plan.mirrored ? writes : reads;
  return plan.geometry.mask == MaskType::A ? in < out : in <= out;
}

inline std::vector<Segment> segments_of(const Plan& plan, int64_t group) {
  const Geometry& s = plan.geometry;
  const Margins live = margins_of(s);
  const int64_t d = s.dilation, a = s.row(), b = s.column();
  const int64_t low = b - live.left / d, high = b + live.right / d, rows = live.above / d;
  std::vector<Segment> segments;
  segments.reserve((rows + 1) * plan.reads.blocks.size() * (d == 1 ? 1 : high - low + 1));
  int64_t packed = 0;
  const auto add = [&](int64_t up, const Block& block, int64_t first, int64_t last) {
    const int64_t row = plan.mirrored ? up * d : -up * d;
    const int64_t taps = last - first + 1, runs = d == 1 ? 1 : taps;
    for (int64_t run = 0; run < runs && taps > 0; ++run) {
      const int64_t tap = plan.mirrored ? last - run : first + run;
      const int64_t column = (plan.mirrored ? high - tap : tap - low) * d;
      const int64_t length = (d == 1 ? taps : 1) * block.width;
      segments.push_back({row, plan.reads.position(block, row, column), block.width, length, packed,
                          block.start, a - up, tap, plan.mirrored ? -1 : 1});
      packed += (length + plan.factor - 1) / plan.factor * plan.factor;
    }
  };
  const int64_t lowest = std::max<int64_t>(0, a - (s.kernel_h - 1));
  for (int64_t step = lowest; step <= rows; ++step) {  // in ascending order of the rows read
    const int64_t up = plan.mirrored ? step : rows - (step - lowest);
    for (const Block& block : plan.reads.blocks) {
      const bool centre = up == 0 && s.has_centre() && sees(plan, group, block.group);
      add(up, block, low, std::min(high, s.whole_taps(a - up) - (centre ? 0 : 1)));
    }
  }
  return segments;
}

// For parts of at most `rows` x `columns` pixels.
inline Layout layout_of(const Geometry& s, int64_t channels, int64_t parts, int64_t block,
                        const Margins& margins, int64_t rows, int64_t columns) {
  return {blocks_of(channels, s.groups, parts, block), margins,
          std::min(s.height, rows + margins.above + margins.below),
          columns + margins.left + margins.right, channels};
}

template <typename E>
Plan plan_of(const Geometry& s, bool mirrored, int64_t rows, int64_t columns) {
  constexpr int64_t lanes = kLanes<Accumulate<E>>, factor = kFactor<E>;
  const Margins live = margins_of(s), margins = mirrored ? live.mirrored() : live;
  const int64_t reads = mirrored ? s.channels_out : s.channels_in;
  const int64_t writes = mirrored ? s.channels_in : s.channels_out;
  const int64_t reads_parts = mirrored ? s.parts : 1, writes_parts = mirrored ? 1 : s.parts;
  const Layout layout = layout_of(s, reads, reads_parts, kBlock<E>, margins, rows, columns);
  Plan plan{s, mirrored, factor, layout, {}, {}, {0}};
  plan.writes = blocks_of(writes, s.groups, writes_parts, kBlock<E>);
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

}  // namespace genkern::core::masked_conv2d
