// Gradient penalties: rows of gradients on threads, each sum in an order that the shape alone
// fixes.
#include <vector>

#include "../bind.h"
#include "gradient_penalty.h"

namespace genkern::cpu {
namespace {

using core::Buffer;
using core::GradientPenalty;
using core::kRowChunk;
using core::Reader;
using core::Rows;
using core::Writer;
using MaybeTensor = std::optional<Tensor>;

enum class Reduction : int64_t { kNone, kMean, kSum };

Rows rows_of(const Tensor& g) {
  const int64_t N = g.size(0);
  return {N, N > 0 ? g.numel() / N : 0};
}

// The kinds are those of genkern/ops/gradient_penalty.py: wgan_gp, r1, r2, dragan.
GradientPenalty penalty_of(int64_t kind, double target, const MaybeTensor& annealed, double weight,
                           bool one_sided) {
  return {kind == 1 || kind == 2, option(target, annealed), weight, one_sided};
}

// sums[n] = <a_n, b_n>
template <typename A>
std::vector<double> row_products(const Rows& rows, const Reader<A>& a, const Reader<A>& b) {
  std::vector<double> sums(rows.count), segments(rows.split() ? rows.units() : 0);
  parallel_for(0, rows.D > 0 ? rows.units() : 0, rows.grain(), [&](int64_t unit, int64_t end) {
    Buffer<A, kRowChunk> of_a, of_b;
    for (; unit < end; ++unit) {
      const int64_t begin = rows.begin(unit), length = rows.length(unit);
      for (int64_t i = 0; i < length; i += kRowChunk) {
        const int64_t count = std::min(kRowChunk, length - i);
        const A *x = a.at(begin + i, count, of_a.data), *y = b.at(begin + i, count, of_b.data);
        if (rows.split())
          segments[unit] += core::sum_products(count, x, y);
        else
          for (int64_t r = 0; r * rows.D < count; ++r)
            sums[rows.row(unit) + r] = core::sum_products(rows.D, x + r * rows.D, y + r * rows.D);
      }
    }
  });
  for (int64_t n = 0; n < rows.count && rows.split(); ++n)
    for (int64_t s = 0; s < rows.segments; ++s) sums[n] += segments[n * rows.segments + s];
  return sums;
}

// Calls f(n, first element, elements) for pieces of rows.
template <typename F>
void for_rows(const Rows& rows, const F& f) {
  parallel_for(0, rows.D > 0 ? rows.units() : 0, rows.grain(), [&](int64_t unit, int64_t end) {
    for (; unit < end; ++unit) {
      const int64_t begin = rows.begin(unit), last = begin + rows.length(unit);
      for (int64_t i = begin; i < last;) {
        const int64_t n = i / rows.D, count = std::min({kRowChunk, (n + 1) * rows.D - i, last - i});
        f(n, i, count);
        i += count;
      }
    }
  });
}

// The upstream gradient of item n.
template <typename A>
struct Upstream {
  Reader<A> values;
  Reduction reduction;
  int64_t N;

  double operator[](int64_t n) const {
    if (reduction == Reduction::kNone) return double(values[n]);
    return double(values[0]) / (reduction == Reduction::kMean ? double(N) : 1.0);
  }
};
}  // namespace

std::tuple<Tensor, Tensor> gradient_penalty_forward(const Tensor& given,
                                                    const MaybeTensor& annealed, int64_t kind,
                                                    double target, double weight, bool one_sided,
                                                    int64_t reduction, bool save) {
  const Tensor g = dense(given);
  const Rows rows = rows_of(g);
  const auto penalty = penalty_of(kind, target, annealed, weight, one_sided);
  const bool reduces = Reduction(reduction) != Reduction::kNone;
  Tensor out = reduces ? new_tensor(g, {}) : new_tensor(g, {rows.count});
  Tensor norms = new_tensor(g, {save ? rows.count : 0}, ScalarType::Double);
  dispatch_accumulate(g, [&]<typename A>(A) {
    const auto from = reader<A>(g);
    const std::vector<double> squares = row_products(rows, from, from);
    const auto to = writer<A>(out);
    double* const kept = save ? data<double>(norms) : nullptr;
    double total = 0;
    for (int64_t n = 0; n < rows.count; ++n) {
      const double norm = std::sqrt(squares[n]), value = penalty.value(norm);
      if (save) kept[n] = norm;
      total += value;
      const A rounded = A(value);
      if (!reduces) to.put(n, 1, &rounded);
    }
    if (Reduction(reduction) == Reduction::kMean) total /= double(rows.count);
    const A rounded = A(total);
    if (reduces) to.put(0, 1, &rounded);
  });
  return {out, norms};
}

Tensor gradient_penalty_backward(const MaybeTensor& upstream, const Tensor& given,
                                 const MaybeTensor& annealed, const Tensor& norms, int64_t kind,
                                 double target, double weight, bool one_sided, int64_t reduction,
                                 bool needs_gradient) {
  if (!needs_gradient) return absent(given);
  const Tensor g = dense(given), u = dense(*upstream);
  const Rows rows = rows_of(g);
  const auto penalty = penalty_of(kind, target, annealed, weight, one_sided);
  Tensor d_g = new_large(g, g.sizes());
  dispatch_accumulate(g, [&]<typename A>(A) {
    const auto from = reader<A>(g);
    const auto to = writer<A>(d_g);
    const Upstream<A> up{reader<A>(u), Reduction(reduction), rows.count};
    const double* r = data<const double>(norms);
    for_rows(rows, [&](int64_t n, int64_t first, int64_t count) {
      Buffer<A, kRowChunk> of_g, result;
      const A* x = from.at(first, count, of_g.data);
      A* y = to.at(first, result.data);
      core::map(count, y, [s = A(up[n] * penalty.slope(r[n]))](auto v) { return s * v; }, x);
      to.put(first, count, y);
    });
  });
  return d_g;
}

std::tuple<Tensor, Tensor> gradient_penalty_backward_backward(
    const MaybeTensor& second, const MaybeTensor& upstream, const Tensor& given,
    const MaybeTensor& annealed, const Tensor& norms, int64_t kind, double target, double weight,
    bool one_sided, int64_t reduction, bool, bool needs_upstream, bool needs_gradient) {
  const Tensor g = dense(given), u = dense(*upstream), h = dense(*second);
  const Rows rows = rows_of(g);
  const auto penalty = penalty_of(kind, target, annealed, weight, one_sided);
  Tensor d_u = needs_upstream ? new_tensor(u, u.sizes()) : absent(g);
  Tensor d_g = needs_gradient ? new_large(g, g.sizes()) : absent(g);
  dispatch_accumulate(g, [&]<typename A>(A) {
    const auto of_g = reader<A>(g), of_h = reader<A>(h);
    const Upstream<A> up{reader<A>(u), Reduction(reduction), rows.count};
    const double* r = data<const double>(norms);
    const std::vector<double> products = row_products(rows, of_g, of_h);
    if (needs_upstream) {
      const auto to = writer<A>(d_u);
      const bool reduces = up.reduction != Reduction::kNone;
      double total = 0;
      for (int64_t n = 0; n < rows.count; ++n) {
        const double value = penalty.slope(r[n]) * products[n];
        total += value;
        const A rounded = A(value);
        if (!reduces) to.put(n, 1, &rounded);
      }
      if (up.reduction == Reduction::kMean) total /= double(rows.count);
      const A rounded = A(total);
      if (reduces) to.put(0, 1, &rounded);
    }
    const auto to = writer<A>(d_g, needs_gradient);
    for_rows(needs_gradient ? rows : Rows{0, 1}, [&](int64_t n, int64_t first, int64_t count) {
      Buffer<A, kRowChunk> g_values, h_values, result;
      const A *x = of_g.at(first, count, g_values.data), *y = of_h.at(first, count, h_values.data);
      const double inverse = r[n] > 0 ? 1 / r[n] : 0;
      const A c = A(up[n] * penalty.slope(r[n])), scale = A(inverse);
      const A e = A(up[n] * penalty.bend(r[n]) * (products[n] * inverse));
      A* to_g = to.at(first, result.data);
      core::map(count, to_g, [=](auto v, auto w) { return c * w + e * (scale * v); }, x, y);
      to.put(first, count, to_g);
    });
  });
  return {d_u, d_g};
}

GENKERN_REGISTER(CPU, m) {
  GENKERN_OP(m, gradient_penalty_forward);
  GENKERN_OP(m, gradient_penalty_backward);
  GENKERN_OP(m, gradient_penalty_backward_backward);
}

}  // namespace genkern::cpu
