// Masked convolution and its gradients: tiling, threads, ops. The maths: masked_conv2d.h.
//
//   for (group : images that fit into the caches together) {
//     copy the group into padded scratch;
//     for (area : its rows, or parts of long ones)              // on threads
//       for (block : blocks of written channels) {
//         sums[pixel][channel] = bias[channel];
//         for (segment : runs of live taps)
//           for (pixel : area) sums[pixel] += factors of the segment at the pixel * weights;
//         write the sums to their channels;
//       }
//   }
//
// Every sum is formed by one thread in an order that depends on the shapes alone.
#include "weight_gradient.h"

namespace genkern::cpu {
namespace {

using namespace masked_conv2d;

// Pixels of one block of sums, and packed weights that all of them use at once: what stays in L1.
constexpr int64_t kPixels = block_size(128, 12);
constexpr int64_t kFactors = block_size(256, 20);
// ---- output and gradient of the input ------------------------------------------------------

template <typename E>
void convolve_area(const Plan& plan, const E* image, const Area& area, const Block& block,
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
      const Segment *first = chunk, *last = chunk_end;  // rows outside of the image add nothing
      while (first < last && y + first->row < 0) ++first;
      while (first < last && y + (last - 1)->row >= plan.geometry.height) --last;
      if (first == last) continue;
      A* row = sums + (y - area.y_begin) * area.width() * width;
      const int64_t start = y * plan.padded_width + area.x_begin;
      core::for_each_tile<kTileRows<A>>(area.width(), [&]<int M>(int64_t x, TileSize<M>) {
        A* to = row + x * width;
        if (vectors == 1)
          pixel_tile<E, M, 1>(to, image, start + x, first, last, packed);
        else
          pixel_tile<E, M, 2>(to, image, start + x, first, last, packed);
      });
    }
    chunk = chunk_end;
  }
}

template <typename T, typename E>
void convolve(const Plan& plan, const E* images, const E* packed,
              const std::vector<Accumulate<T>>& bias, int64_t count, Image<T> to) {
  using A = Accumulate<T>;
  constexpr int64_t L = kLanes<A>;
  const Geometry& s = plan.geometry;
  const int64_t columns = columns_of(s, kPixels);
  const int64_t work = plan.packed_start.back() * (s.width / columns + 1);
  parallel_for(0, count * s.height * columns, kWork / (work + 1) + 1, [&](int64_t b, int64_t e) {
    alignas(64) A sums[kPixels * 2 * L];
    for_areas(s, kPixels, b, e, [&](int64_t n, const Area& area) {
      const int64_t pixels = (area.y_end - area.y_begin) * area.width();
      for (size_t i = 0; i < plan.writes.size(); ++i) {
        const Block& block = plan.writes[i];
        const int64_t width = vectors_of(block, L) * L;
        alignas(64) A start[2 * L] = {};
        if (!bias.empty()) std::copy_n(bias.data() + block.start, block.width, start);
        const auto low = core::load(start), high = core::load(start + L);
        for (int64_t p = 0; p < pixels * width; p += width) {
          core::store(sums + p, low);
          if (width > L) core::store(sums + p + L, high);
        }
        convolve_area(plan, images + n * plan.image_size(), area, block,
                      packed + plan.packed_start[i], sums);
        T* p = to.data + n * to.n + block.start * to.c + area.y_begin * to.y + area.x_begin * to.x;
        // Several rows follow one another: the result is dense, and they are whole ones.
        core::deinterleave(sums, width, block.width, pixels, p, to.c, to.x);
      }
    });
  });
}

// ---- the ops -------------------------------------------------------------------------------

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
  Image<const T> from(input);
  Image<T> to(output);
  flatten(s, from, to);
  const Plan plan = plan_of<E>(s, /*mirrored=*/false);
  const int64_t N = input.size(0), group = group_size(plan.image_size() * sizeof(E), N);
  const Scratch<E> images(input, group * plan.image_size());
  const Scratch<E> packed(input, plan.packed_start.back());
  pack_weight<T>(plan, weight, packed.get());
  std::vector<Accumulate<T>> start(bias ? weight.size(0) : 0);
  for (size_t c = 0; c < start.size(); ++c)
    start[c] = core::to_accumulate(data<const T>(*bias)[int64_t(c) * bias->stride(0)]);
  for (int64_t n = 0; n < N; n += group, from.data += group * from.n, to.data += group * to.n) {
    const int64_t count = std::min(group, N - n);
    load_images(plan, from, count, images.get());
    convolve<T>(plan, images.get(), packed.get(), start, count, to);
  }
}

template <typename T, typename E>
void backward(const Tensor& d_output, const Tensor& input, const Tensor& weight, Geometry s,
              Tensor* d_input, Tensor* d_weight, Tensor* d_bias) {
  using A = Accumulate<T>;
  constexpr int64_t L = kLanes<A>, F = core::kFactor<E>;
  Image<const T> dy(d_output), x(input);
  Image<T> dx = d_input ? Image<T>(*d_input) : Image<T>();
  flatten(s, dy, x);  // d_input is dense: one row whenever the others are
  const Plan plan = plan_of<E>(s, /*mirrored=*/false), d_plan = plan_of<E>(s, /*mirrored=*/true);
  const auto tasks = tasks_of(plan, d_weight, d_bias);
  const int64_t N = input.size(0), x_size = d_weight ? plan.image_size() : 0;
  const int64_t group = group_size((d_plan.image_size() + x_size) * F * sizeof(E), N);
  const int64_t blocks = int64_t(plan.writes.size());
  const int64_t pixels_size = F > 1 ? std::max(d_plan.image_size(), x_size) : 0;
  const Scratch<E> dy_scratch(d_output, group * d_plan.image_size() * F);
  const Scratch<E> x_scratch(d_output, group * x_size * F);
  const Scratch<E> pixels_scratch(d_output, group * pixels_size);
  const Scratch<E> packed(d_output, d_input ? d_plan.packed_start.back() : 0);
  const Scratch<A> d_packed(d_output, d_weight ? plan.packed_start.back() : 0, /*zero=*/true);
  const Scratch<A> d_bias_sums(d_output, blocks * 2 * L, /*zero=*/true);
  E *dy_factors = dy_scratch.get(), *x_factors = x_scratch.get(), *pixels = pixels_scratch.get();
  if (d_input) pack_weight<T>(d_plan, weight, packed.get());
  for (int64_t n = 0; n < N; n += group) {
    const int64_t count = std::min(group, N - n);
    E* dy_images = F > 1 ? pixels : dy_factors;
    load_images(d_plan, dy, count, dy_images);
    if (d_input) convolve<T>(d_plan, dy_images, packed.get(), {}, count, dx);
    if constexpr (F > 1) pair_pixels(d_plan, dy_images, count, dy_factors);
    if (d_weight) {
      E* x_images = F > 1 ? pixels : x_factors;
      load_images(plan, x, count, x_images);
      if constexpr (F > 1) pair_pixels(plan, x_images, count, x_factors);
    }
    accumulate(plan, d_plan, tasks, count, x_factors, dy_factors, d_packed.get(),
               d_bias_sums.get());
    dy.data += group * dy.n, x.data += group * x.n, dx.data += group * dx.n;
  }
  if (d_weight) unpack_weight<T>(plan, d_packed.get(), *d_weight);
  for (int64_t i = 0; d_bias && i < blocks; ++i)
    for (int64_t c = 0; c < plan.writes[i].width; ++c)
      data<T>(*d_bias)[plan.writes[i].start + c] =
          core::from_accumulate<T>(d_bias_sums.get()[i * 2 * L + c]);
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
