// Masked convolution and its gradients: the ops. The maths: masked_conv2d.h; how the work is cut
// and divided between threads: convolve.h, weight_gradient.h.
#include "convolve.h"
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
             Geometry s, Area area, const Tensor& output) {
  const Image<const T> from(input);
  Image<T> to(output);
  if (area.pixels() == s.height * s.width) {
    flatten(s, from, to);
    area = area_of(s);
  }
  to.data -= area.y_begin * to.y + area.x_begin * to.x;  // where pixel (0, 0) would stand
  const int64_t N = input.size(0);
  const Cut bands = bands_of(area, N, s.channels_in * int64_t(sizeof(E)));
  const Plan plan = plan_of<E>(s, /*mirrored=*/false, bands.rows(), bands.columns());
  const Scratch<E> packed(input, plan.packed_size());
  pack_weight<T>(plan, weight, packed.get());
  std::vector<Accumulate<T>> start(bias ? weight.size(0) : 0);
  for (size_t c = 0; c < start.size(); ++c)
    start[c] = core::to_accumulate(data<const T>(*bias)[int64_t(c) * bias->stride(0)]);
  convolve(plan, bands, from, N, packed.get(), start, to, input);
}

template <typename T, typename E>
void input_gradient(const Image<const T>& d_output, const Tensor& weight, const Geometry& s,
                    const Tensor& d_input) {
  const int64_t N = d_input.size(0);
  const Cut bands = bands_of(area_of(s), N, s.channels_out * int64_t(sizeof(E)));
  const Plan plan = plan_of<E>(s, /*mirrored=*/true, bands.rows(), bands.columns());
  const Scratch<E> packed(d_input, plan.packed_size());
  pack_weight<T>(plan, weight, packed.get());
  convolve<T, E>(plan, bands, d_output, N, packed.get(), {}, Image<T>(d_input), d_input);
}

template <typename T, typename E>
void weight_gradient(const Image<const T>& d_output, const Image<const T>& x, int64_t images,
                     const Tensor& like, const Geometry& s, Tensor* d_weight, Tensor* d_bias) {
  using A = Accumulate<T>;
  constexpr int64_t L = kLanes<A>;
  const int64_t channels = s.channels_out + (d_weight ? s.channels_in : 0);
  const Cut bands = bands_of_gradient(s, images, channels * core::kFactor<E> * int64_t(sizeof(E)));
  const Plan plan = plan_of<E>(s, /*mirrored=*/false, bands.rows(), bands.columns());
  const Layout d_layout =
      layout_of<E>(s, s.channels_out, s.parts, {}, bands.rows(), bands.columns());
  const auto tasks = tasks_of(plan, d_weight, d_bias);
  if (tasks.empty()) return;  // no live taps
  const WeightGradient<T, E> gradient{plan, d_layout, bands, tasks, images, d_weight != nullptr};
  const int64_t parts = gradient.parts(), apart = gradient.part_size();
  const Scratch<A> sums(like, parts * apart);
  gradient.run(x, d_output, like, sums.get());
  if (d_weight) unpack_weight<T>(plan, sums.get() + gradient.bias_size(), parts, apart, *d_weight);
  for (size_t i = 0; d_bias && i < plan.writes.size(); ++i)
    for (int64_t c = 0; c < plan.writes[i].width; ++c) {
      A sum = 0;
      for (int64_t part = 0; part < parts; ++part)
        sum += sums.get()[part * apart + int64_t(i) * 2 * L + c];
      data<T>(*d_bias)[plan.writes[i].start + c] = core::from_accumulate<T>(sum);
    }
}

template <typename T, typename E>
void backward(const Tensor& d_output, const Tensor& input, const Tensor& weight, Geometry s,
              Tensor* d_input, Tensor* d_weight, Tensor* d_bias) {
  const Image<const T> dy(d_output), x(input);
  flatten(s, dy, x);  // d_input is dense: one row whenever the others are
  if (d_input) input_gradient<T, E>(dy, weight, s, *d_input);
  if (d_weight || d_bias)
    weight_gradient<T, E>(dy, x, input.size(0), d_output, s, d_weight, d_bias);
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
