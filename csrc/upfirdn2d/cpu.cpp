// Up, filter, down: blocks of rows of planes on threads. The backward pass is the adjoint filter.
#include "../bind.h"
#include "upfirdn2d.h"

namespace genkern::cpu {
namespace {

using core::FirAxes;
using core::FirAxis;
using core::FirPlan;
using core::RowFilter;
using core::RowPlan;
using MaybeTensor = std::optional<Tensor>;

FirAxes axes_of(const Tensor& x, const Tensor& filter, int64_t up, int64_t down, int64_t left,
                int64_t right, int64_t top, int64_t bottom) {
  const int64_t last = filter.dim() - 1;
  return {FirAxis::of(x.size(2), filter.size(0), up, down, top, bottom),
          FirAxis::of(x.size(3), filter.size(last), up, down, left, right)};
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
  const int64_t most = converts ? rows.most_inputs(kRows) : 0;
  const int64_t row_size = RowFilter<A>::scratch(plan.columns);
  parallel_units(planes * blocks, core::block_size(1 << 14, 40) / work + 1, [&](Units units) {
    const Scratch<A> memory(x, row_size, true);
    const Scratch<A> given(x, most * width.in), result(x, converts ? width.out : 0);
    RowFilter<A> filter(plan.columns, memory.get());
    for (const int64_t unit : units) {
      const int64_t plane = unit / blocks, begin = unit % blocks * kRows;
      const int64_t end = std::min(rows.out, begin + kRows), start = plane * rows.in * width.in;
      const A* source = converts ? nullptr : from.at(start, 0, nullptr);
      if (converts) {
        const auto [first, behind] = rows.inputs(begin, end);
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

Tensor filtered(const Tensor& given, const Tensor& filter, const FirAxes& axes, bool reversed,
                double gain) {
  const Tensor x = dense(given), f = dense(filter);
  Tensor y = new_large(x, {x.size(0), x.size(1), axes.rows.out, axes.columns.out});
  dispatch_accumulate(x, [&]<typename A>(A) {
    run(core::fir_plan(axes.rows, axes.columns, data<const A>(f), f.dim() == 1, reversed, gain), x,
        y);
  });
  return y;
}
}  // namespace

Tensor upfirdn2d_forward(const Tensor& x, const Tensor& filter, int64_t up, int64_t down,
                         int64_t left, int64_t right, int64_t top, int64_t bottom, double gain) {
  const FirAxes axes = axes_of(x, filter, up, down, left, right, top, bottom);
  return filtered(x, filter, axes, false, gain);
}

Tensor upfirdn2d_backward(const MaybeTensor& upstream, const Tensor& x, const Tensor& filter,
                          int64_t up, int64_t down, int64_t left, int64_t right, int64_t top,
                          int64_t bottom, double gain, bool needs_input) {
  if (!needs_input) return absent(x);
  const FirAxes axes = axes_of(x, filter, up, down, left, right, top, bottom);
  return filtered(*upstream, filter, axes.adjoint(), true, gain);
}

GENKERN_REGISTER(CPU, m) {
  GENKERN_OP(m, upfirdn2d_forward);
  GENKERN_OP(m, upfirdn2d_backward);
}

}  // namespace genkern::cpu
