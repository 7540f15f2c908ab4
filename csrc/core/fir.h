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

// y[i] = sum_t factors[t] x[t][i], added to what is there if `add`
template <int kTaps, typename A>
[[gnu::noinline]] void weigh_rows(int64_t count, const A* const* x, const A* factors, bool add,
                                  A* y) {
  const auto sum = [&](auto load) {
    Vec<A> s = factors[0] * load(x[0]);
    for (int t = 1; t < kTaps; ++t) s += factors[t] * load(x[t]);
    return s;
  };
  if (add)
    for_vectors<A>(count, [&](auto load, auto store) { store(y, load(y) + sum(load)); });
  else
    for_vectors<A>(count, [&](auto load, auto store) { store(y, sum(load)); });
}
template <typename A>
void weigh_rows(int64_t taps, int64_t count, const A* const* x, const A* factors, bool add, A* y) {
  if (taps == 0 && !add) std::fill_n(y, count, A(0));
  for (; taps >= 4; taps -= 4, x += 4, factors += 4, add = true)
    weigh_rows<4>(count, x, factors, add, y);
  if (taps == 3) weigh_rows<3>(count, x, factors, add, y);
  if (taps == 2) weigh_rows<2>(count, x, factors, add, y);
  if (taps == 1) weigh_rows<1>(count, x, factors, add, y);
}

// a0 b0 a1 b1 ... and back
template <typename A>
void interleave(int64_t count, const A* a, const A* b, A* y) {
  int64_t i = 0;
  if constexpr (std::is_same_v<A, float>) {
    VecI low, high;
    for (int l = 0; l < kLanes<A>; ++l) {
      low[l] = l / 2 + l % 2 * kLanes<A>;
      high[l] = low[l] + kLanes<A> / 2;
    }
    for (; i + 2 * kLanes<A> <= count; i += 2 * kLanes<A>) {
      const VecF u = load(a + i / 2), v = load(b + i / 2);
      store(y + i, __builtin_shuffle(u, v, low));
      store(y + i + kLanes<A>, __builtin_shuffle(u, v, high));
    }
  }
  for (; i < count; ++i) y[i] = i % 2 ? b[i / 2] : a[i / 2];
}
template <typename A>
void deinterleave(int64_t count, const A* x, A* a, A* b) {
  int64_t i = 0;
  if constexpr (std::is_same_v<A, float>) {
    VecI even;
    for (int l = 0; l < kLanes<A>; ++l) even[l] = 2 * l;
    for (; i + 2 * kLanes<A> <= count; i += 2 * kLanes<A>) {
      const VecF u = load(x + i), v = load(x + i + kLanes<A>);
      store(a + i / 2, __builtin_shuffle(u, v, even));
      store(b + i / 2, __builtin_shuffle(u, v, even + 1));
    }
  }
  for (; i < count; ++i) (i % 2 ? b : a)[i / 2] = x[i];
}

// The memory of one thread for one row.
template <typename A>
class RowFilter {
 public:
  static int64_t scratch(const RowPlan<A>& plan) {
    const FirAxis& axis = plan.axis;
    return axis.down * plan.phase_size() + axis.in + (axis.up > 1 ? axis.up * plan.count(0) : 0);
  }
  // `memory` holds zeros.
  RowFilter(const RowPlan<A>& plan, A* memory)
      : axis_(plan.axis),
        size_(plan.phase_size()),
        first_(plan.first),
        each_(plan.count(0)),
        phases_(memory),
        row_(phases_ + axis_.down * size_),
        parts_(row_ + axis_.in) {}

  // Where a row of x is to be formed, before apply().
  A* row() { return axis_.down == 1 ? phase(0) : row_; }

  // y, or where up > 1 its parts, gets what `plan` makes of the row.
  void apply(const RowPlan<A>& plan, bool add, A* y) {
    spread();
    for (int64_t r = 0; r < axis_.up; ++r) {
      const auto& taps = plan.taps[r];
      A* to = axis_.up == 1 ? y : parts_ + r * each_;
      bool adds = add;
      for (size_t begin = 0; begin == 0 || begin < taps.size(); begin += kAtOnce, adds = true) {
        const A* x[kAtOnce];
        A factors[kAtOnce];
        const size_t count = std::min(taps.size() - begin, kAtOnce);
        for (size_t t = 0; t < count; ++t) {
          const auto& tap = taps[begin + t];
          x[t] = phase(tap.phase) + tap.shift, factors[t] = tap.factor;
        }
        weigh_rows(int64_t(count), plan.count(r), x, factors, adds, to);
      }
    }
  }
  // After the last apply().
  void finish(A* y) {
    if (axis_.up == 2) return interleave(axis_.out, parts_, parts_ + each_, y);
    for (int64_t i = 0; i < axis_.out && axis_.up > 1; ++i)
      y[i] = parts_[i % axis_.up * each_ + i / axis_.up];
  }

 private:
  static constexpr size_t kAtOnce = 16;

  A* phase(int64_t i) { return phases_ + i * size_ - first_; }
  void spread() {
    if (axis_.down == 2) return deinterleave(axis_.in, row_, phase(0), phase(1));
    for (int64_t i = 0; i < axis_.in && axis_.down > 1; ++i)
      phase(i % axis_.down)[i / axis_.down] = row_[i];
  }

  FirAxis axis_;
  int64_t size_, first_, each_;
  A *phases_, *row_, *parts_;
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
    if (separable) {
      constexpr int64_t kAtOnce = 16;
      const A* from[kAtOnce];
      A factors[kAtOnce];
      int64_t count = 0;
      bool add = false;
      const auto weigh = [&] {
        weigh_rows(count, in, from, factors, add, filter.row());
        count = 0, add = true;
      };
      rows.for_taps(i, [&](int64_t k, int64_t at) {
        from[count] = x + at * in, factors[count++] = vertical[k];
        if (count == kAtOnce) weigh();
      });
      if (count > 0 || !add) weigh();
      filter.apply(columns[0], false, y);
    } else {
      bool add = false;
      rows.for_taps(i, [&](int64_t k, int64_t at) {
        std::copy_n(x + at * in, in, filter.row());
        filter.apply(columns[k], add, y), add = true;
      });
      if (!add) {
        std::fill_n(filter.row(), in, A(0));
        filter.apply(columns[0], false, y);
      }
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
