// Up, filter, down: blocks of rows of planes on threads. The backward pass is the adjoint filter.
#include "../bind.h"
#include "upfirdn2d.h"

namespace genkern::cpu {
namespace {

using core::FirAxis;
using core::FirPlan;
using core::RowFilter;
using core::RowPlan;
using MaybeTensor = std::optional<Tensor>;

struct Axes {
  FirAxis rows, columns;
};

Axes axes_of(const Tensor& x, const Tensor& filter, int64_t up, int64_t down, int64_t left,
             int64_t right, int64_t top, int64_t bottom) {
  const int64_t last = filter.dim() - 1;
  return {FirAxis::of(x.size(2), filter.size(0), up, down, top, bottom),
          FirAxis::of(x.size(3), filter.size(last), up, down, left, right)};
}

// Factors of the filter, which is dense and of type A; reversed for the adjoint.
template <typename A>
FirPlan<A> plan_of(const Axes& axes, const Tensor& filter, bool reversed, double gain) {
  const A* f = data<const A>(filter);
  const int64_t count = filter.numel();
  const auto factor = [=](int64_t i) { return f[reversed ? count - 1 - i : i]; };
  FirPlan<A> plan{axes.rows, filter.dim() == 1, {}, {}};
  for (int64_t k = 0; k < axes.rows.taps; ++k) {
    plan.vertical.push_back(plan.separable ? factor(k) : A(0));
    const int64_t row = plan.separable ? 0 : k * axes.columns.taps;
    const auto of_row = [&](int64_t i) { return A(gain * double(factor(row + i))); };
    if (k == 0 || !plan.separable) plan.columns.emplace_back(axes.columns, of_row);
  }
  return plan;
}

template <typename A>
void run(const FirPlan<A>& plan, const Tensor& x, const Tensor& y) {
  constexpr int64_t kRows = core::block_size(64, 3);
  const FirAxis &rows = plan.rows, &width = plan.width();
  const int64_t blocks = (rows.out + kRows - 1) / kRows, planes = y.size(0) * y.size(1);
  const int64_t work = std::max<int64_t>(1, std::min(rows.out, kRows) * width.out);
  const auto from = reader<A>(x);
  const auto to = writer<A>(y);
  const bool converts = to.storage != core::Storage::kSame;
  // Rows of x that a block needs.
  const int64_t most =
      converts ? std::min(rows.in, (kRows * rows.down + rows.taps) / rows.up + 2) : 0;
  const int64_t row_size = RowFilter<A>::scratch(plan.columns[0]);
  parallel_units(planes * blocks, core::block_size(1 << 14, 40) / work + 1, [&](Units units) {
    const Scratch<A> memory(x, row_size, true);
    const Scratch<A> given(x, most * width.in), result(x, converts ? width.out : 0);
    RowFilter<A> filter(plan.columns[0], memory.get());
    for (const int64_t unit : units) {
      const int64_t plane = unit / blocks, begin = unit % blocks * kRows;
      const int64_t end = std::min(rows.out, begin + kRows), start = plane * rows.in * width.in;
      const A* source = converts ? nullptr : from.at(start, 0, nullptr);
      if (converts) {
        const int64_t low = core::floor_divide(rows.start(begin) - rows.taps + 1, rows.up);
        const int64_t first = std::clamp<int64_t>(low, 0, rows.in);
        const int64_t high = core::floor_divide(rows.start(end - 1), rows.up) + 1;
        const int64_t behind = std::clamp(high, first, rows.in);
        const int64_t at = start + first * width.in;
        source = from.at(at, (behind - first) * width.in, given.get()) - first * width.in;
      }
      for (int64_t i = begin; i < end; ++i) {
        const int64_t at = (plane * rows.out + i) * width.out;
        A* values = to.at(at, result.get());
        plan.row(i, source, filter, values);
        to.put(at, width.out, values);
      }
    }
  });
}

Tensor filtered(const Tensor& given, const Tensor& filter, const Axes& axes, bool reversed,
                double gain) {
  const Tensor x = dense(given), f = dense(filter);
  Tensor y = new_large(x, {x.size(0), x.size(1), axes.rows.out, axes.columns.out});
  dispatch_accumulate(x, [&]<typename A>(A) { run(plan_of<A>(axes, f, reversed, gain), x, y); });
  return y;
}
}  // namespace

Tensor upfirdn2d_forward(const Tensor& x, const Tensor& filter, int64_t up, int64_t down,
                         int64_t left, int64_t right, int64_t top, int64_t bottom, double gain) {
  const Axes axes = axes_of(x, filter, up, down, left, right, top, bottom);
  return filtered(x, filter, axes, false, gain);
}

Tensor upfirdn2d_backward(const MaybeTensor& upstream, const Tensor& x, const Tensor& filter,
                          int64_t up, int64_t down, int64_t left, int64_t right, int64_t top,
                          int64_t bottom, double gain, bool needs_input) {
  if (!needs_input) return absent(x);
  const auto [rows, columns] = axes_of(x, filter, up, down, left, right, top, bottom);
  return filtered(*upstream, filter, {rows.adjoint(), columns.adjoint()}, true, gain);
}

GENKERN_REGISTER(CPU, m) {
  GENKERN_OP(m, upfirdn2d_forward);
  GENKERN_OP(m, upfirdn2d_backward);
}

}  // namespace genkern::cpu
