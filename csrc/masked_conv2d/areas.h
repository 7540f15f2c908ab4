// How the masked convolution walks over images: rows, or parts of long ones, tile by tile.
#pragma once
#include "packing.h"

namespace genkern::cpu::masked_conv2d {

template <int M>
using TileSize = std::integral_constant<int, M>;

struct Area {
  int64_t y_begin, y_end, x_begin, x_end;
  int64_t width() const { return x_end - x_begin; }
};

inline int64_t columns_of(const Geometry& s, int64_t pixels) {
  return (s.width + pixels - 1) / pixels;
}

// Calls f(image, area) for units [begin, end): rows of images, or parts of rows if those are long.
template <typename F>
void for_areas(const Geometry& s, int64_t pixels, int64_t begin, int64_t end, F&& f) {
  const int64_t columns = columns_of(s, pixels);
  while (begin < end) {
    const int64_t row = begin / columns, column = begin % columns;
    const int64_t n = row / s.height, y = row % s.height;
    const int64_t rows =
        columns > 1 ? 1
                    : std::min({end - begin, s.height - y, std::max<int64_t>(1, pixels / s.width)});
    f(n, Area{y, y + rows, s.width * column / columns, s.width * (column + 1) / columns});
    begin += rows;
  }
}

}  // namespace genkern::cpu::masked_conv2d
