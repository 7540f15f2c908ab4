// Up, a small filter and down, along both axes of an image: y is every down-th value of f * pad(x
// with up - 1 zeros behind each value). Along one axis, with p = i down + taps - 1 - pad:
//
//   y[i] = sum_k f[k] xu[p - k],   xu[m] = x[m / up] where up divides m and 0 <= m < up size
//
// Outputs i = up q + r, r < up, see the same taps, k = p mod up, k + up, ..., and their inputs are
// down apart: x[down q + o] with o = (r down + taps - 1 - pad - k) / up. With x cut into `down`
// phases, every output of one r is a sum of few shifted rows:
//
//   up 2, f = f0 f1 f2 f3, pad 2 | 1:  y0 y2 y4 ... = f1 (x0 x1 x2 ...) + f3 (0 x0 x1 ...)
//                                      y1 y3 y5 ... = f0 (x1 x2 x3 ...) + f2 (x0 x1 x2 ...)
//   down 2:  y0 y1 ... = f3 (x0 x2 ...) + f2 (x1 x3 ...) + f1 (x2 x4 ...) + f0 (x3 x5 ...)
//
// The adjoint is the same with up and down exchanged, f reversed, and other padding.
#pragma once
#include <utility>
#include <vector>

#include "loops.h"

namespace genkern::core {

constexpr int64_t floor_divide(int64_t a, int64_t b) { return a / b - (a % b < 0); }
constexpr int64_t floor_modulo(int64_t a, int64_t b) { return a - floor_divide(a, b) * b; }

// One axis of the image.
struct FirAxis {
  int64_t in, out, up, down, taps, pad;

  static FirAxis of(int64_t in, int64_t taps, int64_t up, int64_t down, int64_t before,
                    int64_t after) {
    return {in, (in * up + before + after - taps) / down + 1, up, down, taps, before};
  }
  FirAxis adjoint() const { return {out, in, down, up, taps, taps - 1 - pad}; }
  int64_t start(int64_t i) const { return i * down + taps - 1 - pad; }
  // The inputs that outputs [begin, end) may meet: [first, behind), and how many they are at most.
  std::pair<int64_t, int64_t> inputs(int64_t begin, int64_t end) const {
    const int64_t low = floor_divide(start(begin) - taps + 1, up);
    const int64_t first = std::clamp<int64_t>(low, 0, in);
    return {first, std::clamp(floor_divide(start(end - 1), up) + 1, first, in)};
  }
  int64_t most_inputs(int64_t count) const { return std::min(in, (count * down + taps) / up + 2); }
  // Calls f(tap, input) for the taps of output i that meet inputs.
  template <typename F>
  void for_taps(int64_t i, const F& f) const {
    const int64_t p = start(i);
    for (int64_t k = floor_modulo(p, up); k < taps; k += up) {
      const int64_t at = floor_divide(p - k, up);
      if (0 <= at && at < in) f(k, at);
    }
  }
};

// A value of a row's phase, `shift` behind that of the same number, and its factor.
template <typename A>
struct PhaseTap {
  int64_t phase, shift;
  A factor;
};

// How a row of x becomes a row of y: for each r < up, the taps of y[r], y[up + r], ...
template <typename A>
struct RowPlan {
  FirAxis axis;
  std::vector<std::vector<PhaseTap<A>>> taps;
  int64_t first = 0, last = 0;  // places of a phase that are read; those without data hold 0

  // factor(k): that of tap k
  template <typename F>
  RowPlan(const FirAxis& axis, const F& factor) : axis(axis), taps(axis.up) {
    last = (axis.in + axis.down - 1) / axis.down;
    for (int64_t r = 0; r < axis.up; ++r) {
      const int64_t p = axis.start(r);
      for (int64_t k = floor_modulo(p, axis.up); k < axis.taps; k += axis.up) {
        const int64_t o = floor_divide(p - k, axis.up);
        const PhaseTap<A> tap{floor_modulo(o, axis.down), floor_divide(o, axis.down), factor(k)};
        first = std::min(first, tap.shift), last = std::max(last, count(r) + tap.shift);
        taps[r].push_back(tap);
      }
    }
  }
  int64_t count(int64_t r) const { return (axis.out - r + axis.up - 1) / axis.up; }
  int64_t phase_size() const { return last - first; }
};

// Elements i, i + 1, ... of kVectors vectors: y[i] = sum_t factors[t] x[t][i]
template <int kVectors, typename A>
inline void weigh_vectors(int64_t taps, int64_t i, const A* const* x, const A* factors, bool add,
                          A* y) {
  constexpr int kStep = kLanes<A>;
  Vec<A> sums[kVectors]{};
  if (add)
    for (int v = 0; v < kVectors; ++v) sums[v] = load(y + i + v * kStep);
  for (int64_t t = 0; t < taps; ++t) {
    const Vec<A> factor = splat(factors[t]);
    const A* from = x[t] + i;
    for (int v = 0; v < kVectors; ++v) sums[v] += factor * load(from + v * kStep);
  }
  for (int v = 0; v < kVectors; ++v) store(y + i + v * kStep, sums[v]);
}

// y[i] = sum_t factors[t] x[t][i], added to what is there if `add`. y is none of x. The last vector
// of a row that ends within one overlaps the vector before it.
template <typename A>
[[gnu::noinline]] void weigh_rows(int64_t taps, int64_t count, const A* const* x, const A* factors,
                                  bool add, A* y) {
  constexpr int64_t kStep = kLanes<A>;
  int64_t i = 0;
  for (; i + 4 * kStep <= count; i += 4 * kStep) weigh_vectors<4>(taps, i, x, factors, add, y);
  if (i + 2 * kStep <= count) weigh_vectors<2>(taps, i, x, factors, add, y), i += 2 * kStep;
  if (i + kStep <= count) weigh_vectors<1>(taps, i, x, factors, add, y), i += kStep;
  if (i < count && !add && count >= kStep)
    return weigh_vectors<1>(taps, count - kStep, x, factors, false, y);
  for (; i < count; ++i) {
    A sum = add ? y[i] : A(0);
    for (int64_t t = 0; t < taps; ++t) sum += factors[t] * x[t][i];
    y[i] = sum;
  }
}

// a0 b0 a1 b1 ... and back; the last vectors overlap those before them.
template <typename A>
void interleave(int64_t count, const A* a, const A* b, A* y) {
  int64_t i = 0;
  if constexpr (std::is_same_v<A, float>) {
    constexpr int64_t kStep = 2 * kLanes<A>;
    VecI low, high;
    for (int l = 0; l < kLanes<A>; ++l) {
      low[l] = l / 2 + l % 2 * kLanes<A>;
      high[l] = low[l] + kLanes<A> / 2;
    }
    const auto one = [&](int64_t at) {
      const VecF u = load(a + at / 2), v = load(b + at / 2);
      store(y + at, __builtin_shuffle(u, v, low));
      store(y + at + kLanes<A>, __builtin_shuffle(u, v, high));
    };
    for (; i + kStep <= count; i += kStep) one(i);
    if (i < count && count >= kStep) one((count - kStep) & ~int64_t(1)), i = count & ~int64_t(1);
  }
  for (; i < count; ++i) y[i] = i % 2 ? b[i / 2] : a[i / 2];
}
template <typename A>
void deinterleave(int64_t count, const A* x, A* a, A* b) {
  int64_t i = 0;
  if constexpr (std::is_same_v<A, float>) {
    constexpr int64_t kStep = 2 * kLanes<A>;
    VecI even;
    for (int l = 0; l < kLanes<A>; ++l) even[l] = 2 * l;
    const auto one = [&](int64_t at) {
      const VecF u = load(x + at), v = load(x + at + kLanes<A>);
      store(a + at / 2, __builtin_shuffle(u, v, even));
      store(b + at / 2, __builtin_shuffle(u, v, even + 1));
    };
    for (; i + kStep <= count; i += kStep) one(i);
    if (i < count && count >= kStep) one((count - kStep) & ~int64_t(1)), i = count & ~int64_t(1);
  }
  for (; i < count; ++i) (i % 2 ? b : a)[i / 2] = x[i];
}

// The memory of one thread for the rows of x that make one row of y: as many as the filter has, and
// one for a separable filter, whose rows of x are summed before.
template <typename A>
class RowFilter {
 public:
  using Plans = std::vector<RowPlan<A>>;  // one for each row of the filter

  static int64_t scratch(const Plans& plans) {
    const FirAxis& axis = plans[0].axis;
    return int64_t(plans.size()) * axis.down * plans[0].phase_size() + axis.in +
           (axis.up > 1 ? axis.up * plans[0].count(0) : 0);
  }
  // `memory` holds zeros.
  RowFilter(const Plans& plans, A* memory)
      : axis_(plans[0].axis),
        size_(plans[0].phase_size()),
        first_(plans[0].first),
        each_(plans[0].count(0)),
        phases_(memory),
        row_(phases_ + int64_t(plans.size()) * axis_.down * size_),
        parts_(row_ + axis_.in) {
    met_.reserve(plans.size());
  }

  // Where the next row of x is to be formed.
  A* row() { return axis_.down == 1 ? phase(met(), 0) : row_; }
  // What it becomes is the part that `plan` makes of it.
  void take(const RowPlan<A>& plan) {
    spread();
    met_.push_back(&plan);
  }

  // y gets the sum of what was taken.
  void finish(A* y) {
    for (int64_t r = 0; r < axis_.up; ++r) sum(r, axis_.up == 1 ? y : parts_ + r * each_);
    met_.clear();
    if (axis_.up == 2) return interleave(axis_.out, parts_, parts_ + each_, y);
    for (int64_t i = 0; i < axis_.out && axis_.up > 1; ++i)
      y[i] = parts_[i % axis_.up * each_ + i / axis_.up];
  }

 private:
  int64_t met() const { return int64_t(met_.size()); }
  A* phase(int64_t row, int64_t i) { return phases_ + (row * axis_.down + i) * size_ - first_; }

  // Every up-th value of y from r on: all taps of all rows at once, so that y is written once.
  void sum(int64_t r, A* y) {
    constexpr int64_t kAtOnce = 16;
    const A* x[kAtOnce];
    A factors[kAtOnce];
    int64_t count = 0;
    bool add = false;
    const auto weigh = [&] {
      weigh_rows(count, met_[0]->count(r), x, factors, add, y);
      count = 0, add = true;
    };
    for (int64_t row = 0; row < met(); ++row)
      for (const auto& tap : met_[row]->taps[r]) {
        x[count] = phase(row, tap.phase) + tap.shift, factors[count++] = tap.factor;
        if (count == kAtOnce) weigh();
      }
    if (count > 0 || !add) weigh();
  }
  void spread() {
    if (axis_.down == 2) return deinterleave(axis_.in, row_, phase(met(), 0), phase(met(), 1));
    for (int64_t i = 0; i < axis_.in && axis_.down > 1; ++i)
      phase(met(), i % axis_.down)[i / axis_.down] = row_[i];
  }

  FirAxis axis_;
  int64_t size_, first_, each_;
  A *phases_, *row_, *parts_;
  std::vector<const RowPlan<A>*> met_;  // the plans of the rows taken
};

// Rows [begin, end) of y (out) from the rows of one plane of x that they need: x[at] is row `at`.
template <typename A>
struct FirPlan {
  FirAxis rows;
  bool separable;
  std::vector<A> vertical;          // factors of the rows where separable
  std::vector<RowPlan<A>> columns;  // one, or one for each row of the filter

  const FirAxis& width() const { return columns[0].axis; }
  void row(int64_t i, const A* x, RowFilter<A>& filter, A* y) const {
    const int64_t in = width().in;
    int64_t met = 0;
    if (separable) {
      constexpr int64_t kAtOnce = 16;
      const A* from[kAtOnce];
      A factors[kAtOnce];
      int64_t count = 0;
      const auto weigh = [&] {
        weigh_rows(count, in, from, factors, met > count, filter.row());
        count = 0;
      };
      rows.for_taps(i, [&](int64_t k, int64_t at) {
        from[count] = x + at * in, factors[count++] = vertical[k], ++met;
        if (count == kAtOnce) weigh();
      });
      if (count > 0) weigh();
      if (met > 0) filter.take(columns[0]);
    } else {
      rows.for_taps(i, [&](int64_t k, int64_t at) {
        std::copy_n(x + at * in, in, filter.row());
        filter.take(columns[k]), ++met;
      });
    }
    if (met == 0) {  // y meets nothing of x
      std::fill_n(filter.row(), in, A(0));
      filter.take(columns[0]);
    }
    filter.finish(y);
  }
};

// Of a filter (taps,) for both axes, or (rows, columns); reversed for the adjoint.
template <typename A>
FirPlan<A> fir_plan(const FirAxis& rows, const FirAxis& columns, const A* f, bool separable,
                    bool reversed, double gain) {
  const int64_t count = separable ? rows.taps : rows.taps * columns.taps;
  const auto factor = [=](int64_t i) { return f[reversed ? count - 1 - i : i]; };
  FirPlan<A> plan{rows, separable, {}, {}};
  for (int64_t k = 0; k < rows.taps; ++k) {
    plan.vertical.push_back(separable ? factor(k) : A(0));
    const int64_t row = separable ? 0 : k * columns.taps;
    const auto of_row = [&](int64_t i) { return A(gain * double(factor(row + i))); };
    if (k == 0 || !separable) plan.columns.emplace_back(columns, of_row);
  }
  return plan;
}

}  // namespace genkern::core
