// Masked convolution and its gradients: the ops. The maths: masked_conv2d.h; how the work is cut
// and divided between threads: convolve.h, weight_gradient.h and, for
// first layers, one_channel.h.
#include "convolve.h"
#include "one_channel.h"
#include "weight_gradient.h"

namespace genkern::cpu {
namespace {

using namespace masked_conv2d;

Geometry geometry_of(const Tensor& image, const Tensor& weight, int64_t data_channels,
                     int64_t dilation, bool exclude_centre) {
  return {weight.size(1), weight.size(0), image.size(2), image.size(3), weight.size(2),
          weight.size(3), dilation,       data_channels, exclude_centre};
}

// A 1x1 kernel sees an image as one long row.
template <typename... Images>
void flatten(Geometry& s, const Images&... images) {
  if (s.kernel_h == 1 && s.kernel_w == 1 && (images.is_one_row(s.width) && ...)) {
    s.width *= s.height;
    s.height = 1;
  }
}

template <typename T, typename E>
void forward(const Tensor& input, const Tensor& weight, const std::optional<Tensor>& bias,
             Geometry s, const Tensor& output) {
  const Image<const T> from(input);
  const Image<T> to(output);
  flatten(s, from, to);
  std::vector<Accumulate<T>> start(s.channels_out);
  for (int64_t c = 0; bias && c < s.channels_out; ++c)
    start[c] = core::to_accumulate(data<const T>(*bias)[c * bias->stride(0)]);
  if (has_one_channel<T>(s, to))
    return convolve_one_channel(s, from, input.size(0), weight, start, to);
  convolve<T, E>(s, /*mirrored=*/false, from, input.size(0), weight, start, to);
}

template <typename T, typename E>
void backward(const Tensor& d_output, const Tensor& input, const Tensor& weight, Geometry s,
              Tensor* d_input, Tensor* d_weight, Tensor* d_bias) {
  const Image<const T> dy(d_output), x(input);
  flatten(s, dy, x);  // d_input is dense: one row whenever the others are
  const int64_t N = input.size(0);
  if (d_input) {
    const std::vector<Accumulate<T>> zeros(s.channels_in);
    convolve<T, E>(s, /*mirrored=*/true, dy, N, weight, zeros, Image<T>(*d_input));
  }
  if (d_weight && has_one_channel<T>(s, dy))
    one_channel_gradient(s, dy, x, N, d_output, *d_weight, d_bias);
  else if (d_weight || d_bias)
    weight_gradient<T, E>(s, dy, x, N, d_output, d_weight, d_bias);
}

}  // namespace

Tensor masked_conv2d_forward(const Tensor& input, const Tensor& weight,
                             const std::optional<Tensor>& bias, bool exclude_centre,
                             int64_t data_channels, int64_t dilation, bool channels_last) {
  Tensor output = new_image(input, weight.size(0), channels_last);
  if (output.numel() == 0) return output;
  const Geometry s = geometry_of(input, weight, data_channels, dilation, exclude_centre);
  dispatch_floating(input, [&]<typename T>(T) {
    core::dispatch_factors<T>(
        [&]<typename E>(E) { forward<T, E>(input, weight, bias, s, output); });
  });
  return output;
}

std::tuple<Tensor, Tensor, Tensor> masked_conv2d_backward(
    const std::optional<Tensor>& upstream, const Tensor& input, const Tensor& weight,
    const std::optional<Tensor>& /*bias*/, bool exclude_centre, int64_t data_channels,
    int64_t dilation, bool channels_last, bool need_input, bool need_weight, bool need_bias) {
  const Tensor& d_output = *upstream;
  Tensor d_input = need_input ? new_image(input, weight.size(1), channels_last) : absent(input);
  Tensor d_weight = need_weight ? new_zeros_like(weight) : absent(weight);
  Tensor d_bias = need_bias ? new_zeros(weight, {weight.size(0)}) : absent(weight);
  if (d_output.numel() == 0) return {d_input, d_weight, d_bias};
  const Geometry s = geometry_of(input, weight, data_channels, dilation, exclude_centre);
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
}

}  // namespace genkern::cpu
