// How the passes see their tensors: images as runs of pixels, targets as lanes, sums per image.
#pragma once
#include <array>
#include <atomic>
#include <vector>

#include "../bind.h"
#include "../core/transpose.h"
#include "pixel_cross_entropy.h"

namespace genkern::cpu::pixel_cross_entropy {

using namespace core::pixel_cross_entropy;
using core::Accumulate;
using core::block_size;
using core::kLanes;
using core::Vec;
using MaybeTensor = std::optional<Tensor>;

// Pixels side by side in a tile of products: two registers.
template <typename A>
inline constexpr int64_t kPanel = 2 * kLanes<A>;

// Logits (N, C, levels, pixels) or features (N, 1, channels, pixels), by strides.
struct Layout {
  int64_t N, C, rows, pixels;
  int64_t n, c, row, pixel;
};

inline bool is_one_run(const Tensor& t) {
  const int64_t d = t.dim(), W = t.size(d - 1);
  return W <= 1 || t.size(d - 2) <= 1 || t.stride(d - 2) == W * t.stride(d - 1);
}

// The image with one stride over all its pixels.
inline Tensor one_run(const Tensor& t, bool channels_last) {
  if (is_one_run(t)) return t;
  return channels_last ? dense_channels_last(t) : contiguous(t);
}

// `colours` of channels, or those that a fifth dimension has.
inline Layout layout_of(const Tensor& t, int64_t colours) {
  const int64_t d = t.dim(), rows = d == 5 ? t.size(2) : t.size(1) / colours;
  const int64_t row = t.stride(d - 3), W = t.size(d - 1);
  const int64_t colour = d == 5 ? t.stride(1) : rows * row;
  const int64_t pixel = t.stride(W > 1 ? d - 1 : d - 2);
  return {t.size(0), colours, rows, t.size(d - 2) * W, t.stride(0), colour, row, pixel};
}

inline Tensor new_like(const Tensor& t, bool channels_last) {
  return channels_last ? new_channels_last(t, t.sizes()) : new_large(t, t.sizes());
}

// The targets (N, C, pixels), whatever integers they are.
class Targets {
 public:
  Targets(const Tensor& given, int64_t levels)
      : target_(dense(given)), size_(int64_t(given.element_size())), levels_(levels) {}

  // `count` targets from `first` on as lanes; whether each is a level.
  template <typename I>
  bool read(int64_t first, int64_t count, I* to) const {
    switch (size_) {  // uint8, int16, int32 or int64
      case 1:
        return convert<uint8_t>(first, count, to);
      case 2:
        return convert<int16_t>(first, count, to);
      case 4:
        return convert<int32_t>(first, count, to);
      default:
        return convert<int64_t>(first, count, to);
    }
  }
  int64_t levels() const { return levels_; }

 private:
  template <typename T, typename I>
  bool convert(int64_t first, int64_t count, I* to) const {
    const T* from = data<const T>(target_) + first;
    bool good = true;
    for (int64_t i = 0; i < count; ++i) {
      good &= int64_t(from[i]) >= 0 && int64_t(from[i]) < levels_;
      to[i] = I(from[i]);
    }
    return good;
  }

  Tensor target_;
  int64_t size_, levels_;
};

// Saves what the backward pass needs: the maximum, and 1 / total.
template <typename A>
void save_columns(const Running<A>& of, int64_t count, A* maximum, A* scale) {
  for (int64_t i = 0; i < count; ++i) {
    maximum[i] = of.maximum[i] == -INFINITY ? A(0) : of.maximum[i];
    scale[i] = 1 / of.total[i];
  }
}

// nats[n] = the sum of its `each` parts, in order.
template <typename A>
void put_sums(const std::vector<double>& parts, int64_t each, int64_t N,
              const core::Writer<A>& to) {
  for (int64_t n = 0; n < N; ++n) {
    double sum = 0;
    for (int64_t i = 0; i < each; ++i) sum += parts[n * each + i];
    const A rounded = A(sum);
    to.put(n, 1, &rounded);
  }
}

}  // namespace genkern::cpu::pixel_cross_entropy
