// Masked convolution and its gradients: the ops. The maths: masked_conv2d.h; how the work is cut
// and divided between threads: convolve.h, weight_gradient.h and, for
// first layers, one_channel.h.
#include "convolve.h"
#include "one_channel.h"
#include "weight_gradient.h"

namespace genkern::cpu {
namespace {

using namespace masked_conv2d;

Geometry geometry_of(const Tensor& image, const Tensor& weight, int64_t mask_type,
                     int64_t data_channels, int64_t parts, int64_t dilation) {
  return {weight.size(1),     weight.size(0), image.size(2),
          image.size(3),      weight.size(2), weight.size(3),
          dilation,           data_channels,  data_channels > 1 ? parts : 1,
          MaskType(mask_type)};
}

// A 1x1 kernel on the pixel itself sees an image as one long row.
template <typename... Images>
void flatten(Geometry& s, const Images&... images) {
  const bool on_pixel = s.row() == 0 && s.column() == 0;
  if (on_pixel && s.kernel_h == 1 && s.kernel_w == 1 && (images.is_one_row(s.width) && ...)) {
    s.width *= s.height;
    s.height = 1;
  }
}

template <typename T, typename E>
void forward(const Tensor& input, const Tensor& weight, const std::optional<Tensor>& bias,
             const Geometry& s, const Area& area, const Tensor& output) {
  const Image<const T> from(input);
  const Image<T> to = Image<T>(output).from(area);
  const int64_t N = input.size(0);
  std::vector<Accumulate<T>> start(s.channels_out);
  for (int64_t c = 0; bias && c < s.channels_out; ++c)
    start[c] = core::to_accumulate(data<const T>(*bias)[c * bias->stride(0)]);
  Geometry row = s;
  flatten(row, from);  // the output is dense: one row whenever the input is
  Image<T> dense = to;
  dense.y = row.width * to.x;
  const bool is_whole = area.pixels() == s.height * s.width;
  if (!has_one_channel<T>(row, dense)) {
    if (is_whole) return convolve<T, E>(row, false, area_of(row), from, N, weight, start, to);
    return convolve<T, E>(s, /*mirrored=*/false, area, from, N, weight, start, to);
  }
  if (is_whole) return convolve_one_channel(row, area_of(row), from, N, weight, start, to);
  if (row.width == s.width) return convolve_part(s, area, from, N, weight, start, to);
  for (int64_t y = area.y_begin; y < area.y_end; ++y) {  // rows of a window follow one another
    const Area part{0, 1, y * s.width + area.x_begin, y * s.width + area.x_end};
    Image<T> line = to;
    line.data += y * (to.y - s.width);
    convolve_part(row, part, from, N, weight, start, line);
  }
}

template <typename T, typename E>
void backward(const Tensor& d_output, const Tensor& input, const Tensor& weight, Geometry s,
              Tensor* d_input, Tensor* d_weight, Tensor* d_bias) {
  const Image<const T> dy(d_output), x(input);
  flatten(s, dy, x);  // d_input is dense: one row whenever the others are
  const int64_t N = input.size(0);
  if (d_input) {
    const std::vector<Accumulate<T>> zeros(s.channels_in);
    convolve<T, E>(s, /*mirrored=*/true, area_of(s), dy, N, weight, zeros, Image<T>(*d_input));
  }
  if (d_weight && has_one_channel<T>(s, dy))
    one_channel_gradient(s, dy, x, N, d_output, *d_weight, d_bias);
  else if (d_weight || d_bias)
    weight_gradient<T, E>(s, dy, x, N, d_output, d_weight, d_bias);
}

}  // namespace

// The pixels [top, bottom) x [left, right) of the output.
Tensor masked_conv2d_window(const Tensor& input, const Tensor& weight,
                            const std::optional<Tensor>& bias, int64_t mask_type,
                            int64_t data_channels, int64_t parts, int64_t dilation,
                            bool channels_last, int64_t top, int64_t bottom, int64_t left,
                            int64_t right) {
  const Area area{top, bottom, left, right};
  Tensor output = new_image(input, weight.size(0), area.height(), area.width(), channels_last);
  if (output.numel() == 0) return output;
  const Geometry s = geometry_of(input, weight, mask_type, data_channels, parts, dilation);
  dispatch_floating(input, [&]<typename T>(T) {
    core::dispatch_factors<T>(
        [&]<typename E>(E) { forward<T, E>(input, weight, bias, s, area, output); });
  });
  return output;
}

Tensor masked_conv2d_forward(const Tensor& input, const Tensor& weight,
                             const std::optional<Tensor>& bias, int64_t mask_type,
                             int64_t data_channels, int64_t parts, int64_t dilation,
                             bool channels_last) {
  return masked_conv2d_window(input, weight, bias, mask_type, data_channels, parts, dilation,
                              channels_last, 0, input.size(2), 0, input.size(3));
}

std::tuple<Tensor, Tensor, Tensor> masked_conv2d_backward(
    const std::optional<Tensor>& upstream, const Tensor& input, const Tensor& weight,
    const std::optional<Tensor>& /*bias*/, int64_t mask_type, int64_t data_channels, int64_t parts,
    int64_t dilation, bool channels_last, bool need_input, bool need_weight, bool need_bias) {
  const Tensor& d_output = *upstream;
  Tensor d_input = absent(input);
  if (need_input)
    d_input = new_image(input, weight.size(1), input.size(2), input.size(3), channels_last);
  Tensor d_weight = need_weight ? new_zeros_like(weight) : absent(weight);
  Tensor d_bias = need_bias ? new_zeros(weight, {weight.size(0)}) : absent(weight);
  if (d_output.numel() == 0) return {d_input, d_weight, d_bias};
  const Geometry s = geometry_of(input, weight, mask_type, data_channels, parts, dilation);
  dispatch_floating(input, [&]<typename T>(T) {
    core::dispatch_factors<T>([&]<typename E>(E) {
      backward<T, E>(d_output, input, weight, s, need_input ? &d_input : nullptr,
                     need_weight ? &d_weight : nullptr, need_bias ? &d_bias : nullptr);
    });
  });
  return {d_input, d_weight, d_bias};
}

GENKERN_REGISTER(CPU, m) {
  GENKERN_OP(m, masked_conv2d_forward);
  GENKERN_OP(m, masked_conv2d_backward);
  GENKERN_OP(m, masked_conv2d_window);
}

}  // namespace genkern::cpu
