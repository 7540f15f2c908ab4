// Spectral normalisation: products of a matrix and a vector on threads, sums in a fixed order.
#include "../threads.h"
#include "spectral_norm.h"

namespace genkern::cpu {
namespace {

using core::Buffer;
using core::kRowChunk;
using core::Reader;
using core::SpectralShape;

constexpr int64_t kGrain = core::block_size(1 << 14, 40);  // elements that a thread takes at least

SpectralShape shape_of(const Tensor& w, int64_t dim) {
  SpectralShape shape{1, w.size(dim), 1};
  for (int64_t i = 0; i < w.dim(); ++i)
    if (i != dim) (i < dim ? shape.outer : shape.inner) *= w.size(i);
  return shape;
}

template <typename A>
std::vector<A> values_of(const Tensor& given) {
  const Tensor t = dense(given);
  std::vector<A> values(t.numel());
  const auto from = reader<A>(t);
  const A* x = from.at(0, t.numel(), values.data());
  if (!values.empty() && x != values.data()) std::copy_n(x, values.size(), values.data());
  return values;
}

// W v
template <typename A>
std::vector<A> times_columns(const SpectralShape& shape, const Reader<A>& w,
                             const std::vector<A>& v) {
  const auto [outer, R, inner] = shape;
  std::vector<double> parts(outer * R);
  const auto product = [](auto a, auto b) { return a * b; };
  parallel_for(0, outer * R, kGrain / (inner + 1) + 1, [&](int64_t row, int64_t end) {
    Buffer<A, kRowChunk> buffer;
    for (; row < end; ++row)
      for (int64_t i = 0; i < inner; i += kRowChunk) {
        const int64_t count = std::min(kRowChunk, inner - i);
        const A* x = w.at(row * inner + i, count, buffer.data);
        parts[row] += core::sum<A>(count, product, x, &v[row / R * inner + i]);
      }
  });
  std::vector<A> result(R);
  for (int64_t r = 0; r < R; ++r) {
    double sum = 0;
    for (int64_t o = 0; o < outer; ++o) sum += parts[o * R + r];
    result[r] = A(sum);
  }
  return result;
}

// W^T u
template <typename A>
std::vector<A> times_rows(const SpectralShape& shape, const Reader<A>& w, const std::vector<A>& u) {
  const auto [outer, R, inner] = shape;
  const int64_t blocks = (inner + kRowChunk - 1) / kRowChunk;
  std::vector<A> result(shape.columns());
  const int64_t work = R * std::min(inner, kRowChunk) + 1;
  parallel_for(0, outer * blocks, kGrain / work + 1, [&](int64_t unit, int64_t end) {
    Buffer<A, kRowChunk> buffer;
    for (; unit < end; ++unit) {
      const int64_t o = unit / blocks, i = unit % blocks * kRowChunk;
      const int64_t count = std::min(kRowChunk, inner - i);
      for (int64_t r = 0; r < R; ++r) {
        const A* x = w.at((o * R + r) * inner + i, count, buffer.data);
        core::add_scaled(count, u[r], x, &result[o * inner + i]);
      }
    }
  });
  return result;
}
}  // namespace

std::tuple<Tensor, Tensor> spectral_norm_forward(const Tensor& given, const Tensor& of_u,
                                                 const Tensor& of_v, int64_t dim, bool) {
  const Tensor w = dense(given);
  const SpectralShape shape = shape_of(w, dim);
  Tensor y = new_large(w, w.sizes()), kept = new_tensor(w, {1}, ScalarType::Double);
  dispatch_accumulate(w, [&]<typename A>(A) {
    const auto from = reader<A>(w);
    const std::vector<A> u = values_of<A>(of_u), v = values_of<A>(of_v);
    const std::vector<A> product = times_columns(shape, from, v);
    double sigma = 0;
    for (int64_t r = 0; r < shape.R; ++r) sigma += double(u[r]) * double(product[r]);
    *data<double>(kept) = sigma;
    map(w.numel(), writer<A>(y), [s = A(sigma)](auto x) { return x / s; }, from);
  });
  return {y, kept};
}

Tensor spectral_norm_backward(const std::optional<Tensor>& upstream, const Tensor& given,
                              const Tensor& of_u, const Tensor& of_v, const Tensor& kept,
                              int64_t dim, bool needs_weight) {
  if (!needs_weight) return absent(given);
  const Tensor w = dense(given), d = dense(*upstream);
  const SpectralShape shape = shape_of(w, dim);
  Tensor d_w = new_large(w, w.sizes());
  dispatch_accumulate(w, [&]<typename A>(A) {
    const auto of_w = reader<A>(w), of_d = reader<A>(d);
    const auto to = writer<A>(d_w);
    const std::vector<A> u = values_of<A>(of_u), v = values_of<A>(of_v);
    const double sigma = *data<const double>(kept);
    const auto product = [](auto a, auto b) { return a * b; };
    const double along = sum_chunks(w.numel(), [&](int64_t first, int64_t count) {
      Buffer<A> a, b;
      return core::sum<A>(count, product, of_w.at(first, count, a.data),
                          of_d.at(first, count, b.data));
    });
    const auto [outer, R, inner] = shape;
    parallel_for(0, outer * R, kGrain / (inner + 1) + 1, [&](int64_t row, int64_t end) {
      Buffer<A, kRowChunk> buffer, result;
      for (; row < end; ++row) {
        const A k = A(along / sigma * double(u[row % R])), s = A(sigma);
        for (int64_t i = 0; i < inner; i += kRowChunk) {
          const int64_t count = std::min(kRowChunk, inner - i), first = row * inner + i;
          const A* x = of_d.at(first, count, buffer.data);
          A* y = to.at(first, result.data);
          const auto f = [=](auto g, auto b) { return (g - k * b) / s; };
          core::map(count, y, f, x, &v[row / R * inner + i]);
          to.put(first, count, y);
        }
      }
    });
  });
  return d_w;
}

// u of every matrix, then v of every matrix, `steps` steps on.
std::vector<Tensor> spectral_norm_step(const std::vector<Tensor>& weights,
                                       const std::vector<Tensor>& of_u,
                                       const std::vector<Tensor>& of_v,
                                       const std::vector<int64_t>& dims, int64_t steps,
                                       double eps) {
  std::vector<Tensor> result, second;
  for (size_t layer = 0; layer < weights.size(); ++layer) {
    const Tensor w = dense(weights[layer]);
    const SpectralShape shape = shape_of(w, dims[layer]);
    result.push_back(new_tensor(w, {shape.R})), second.push_back(new_tensor(w, {shape.columns()}));
    dispatch_accumulate(w, [&]<typename A>(A) {
      const auto from = reader<A>(w);
      std::vector<A> u = values_of<A>(of_u[layer]), v = values_of<A>(of_v[layer]);
      for (int64_t i = 0; i < steps; ++i) {
        u = times_columns(shape, from, v);
        core::normalize(u, eps);
        v = times_rows(shape, from, u);
        core::normalize(v, eps);
      }
      writer<A>(result.back()).put(0, shape.R, u.data());
      writer<A>(second.back()).put(0, shape.columns(), v.data());
    });
  }
  result.insert(result.end(), second.begin(), second.end());
  return result;
}

GENKERN_REGISTER(CPU, m) {
  GENKERN_OP(m, spectral_norm_forward);
  GENKERN_OP(m, spectral_norm_backward);
  m.impl("spectral_norm_step", TORCH_BOX(&spectral_norm_step));
}

}  // namespace genkern::cpu
