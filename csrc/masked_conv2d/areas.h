// How images are cut: bands, of which a thread holds a copy, and areas, of which it holds the sums.
//
//   W = 4, H = 5, at most 8 pixels: 3 bands       W = 5, at most 3: 2 across, every row apart
//     0 0 0 0                                       0 0 1 1 1
//     1 1 1 1                                       2 2 3 3 3
//     1 1 1 1                                       ...
//     2 2 2 2
//     2 2 2 2
#pragma once
#include "masked_conv2d.h"

namespace genkern::cpu::masked_conv2d {

struct Area {
  int64_t y_begin, y_end, x_begin, x_end;
  int64_t height() const { return y_end - y_begin; }
  int64_t width() const { return x_end - x_begin; }
  int64_t pixels() const { return height() * width(); }
};

inline Area area_of(const core::masked_conv2d::Geometry& s) { return {0, s.height, 0, s.width}; }

inline int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

// An area in nearly equal parts of at most `pixels`: whole rows, or parts of one.
class Cut {
 public:
  Cut(const Area& area, int64_t pixels) : area_(area) {
    if (area.width() > pixels) {
      across_ = ceil_div(area.width(), std::max<int64_t>(1, pixels));
      down_ = area.height();
    } else {
      down_ = ceil_div(area.height(), pixels / area.width());
    }
  }

  int64_t parts() const { return down_ * across_; }
  // Of the largest part.
  int64_t rows() const { return ceil_div(area_.height(), down_); }
  int64_t columns() const { return ceil_div(area_.width(), across_); }

  Area operator[](int64_t part) const {
    const int64_t row = part / across_, column = part % across_;
    return {area_.y_begin + area_.height() * row / down_,
            area_.y_begin + area_.height() * (row + 1) / down_,
            area_.x_begin + area_.width() * column / across_,
            area_.x_begin + area_.width() * (column + 1) / across_};
  }

 private:
  Area area_;
  int64_t down_ = 1, across_ = 1;
};

}  // namespace genkern::cpu::masked_conv2d
