// Up, activation, down: blocks of rows of planes on threads; the image between them is never
// stored.
#include <vector>

#include "../bind.h"
#include "filtered_act.h"

namespace genkern::cpu {
namespace {

using core::Act;
using core::FilteredAct;
using core::FirAxis;
using core::FirPlan;
using core::Reader;
using core::RowFilter;
using core::Writer;
using MaybeTensor = std::optional<Tensor>;

constexpr int64_t kRows = core::block_size(32, 3);  // of the result, at once

// What is filtered: a tensor, of which every plane may have a number added, or such numbers alone.
template <typename A>
struct Planes {
  Reader<A> x;
  std::vector<A> numbers;  // one for each channel, or none
  int64_t C;

  Planes(const MaybeTensor& x, const MaybeTensor& of_channels, int64_t C) : x(reader<A>(x)), C(C) {
    if (!of_channels) return;
    const Tensor values = dense(*of_channels);
    const auto from = reader<A>(values);
    for (int64_t c = 0; c < C; ++c) numbers.push_back(from[c]);
  }
  bool is_in_place() const { return x && x.storage == core::Storage::kSame && numbers.empty(); }
  const A* at(int64_t plane, int64_t first, int64_t count, A* buffer) const {
    const A* from = x.at(first, count, buffer);
    if (numbers.empty() && from) return from;
    const A number = numbers.empty() ? A(0) : numbers[plane % C];
    if (!from) return std::fill_n(buffer, count, number) - count;
    core::map(count, buffer, [=](auto v) { return v + number; }, from);
    return buffer;
  }
};

// Rows of what a filter makes of a plane, and the memory of one thread for that.
template <typename A>
class Rows {
 public:
  Rows(const FirPlan<A>& plan, const Planes<A>& planes, const Tensor& like, int64_t at_once)
      : plan_(plan),
        planes_(planes),
        memory_(like, RowFilter<A>::scratch(plan.columns), true),
        given_(like, planes.is_in_place() ? 0 : plan.rows.most_inputs(at_once) * plan.width().in),
        filter_(plan.columns, memory_.get()) {}

  // Rows [begin, end) of a plane follow.
  void start(int64_t plane, int64_t begin, int64_t end) {
    const auto [first, behind] = plan_.rows.inputs(begin, end);
    const int64_t width = plan_.width().in, at = (plane * plan_.rows.in + first) * width;
    x_ = planes_.at(plane, at, (behind - first) * width, given_.get()) - first * width;
  }
  void row(int64_t i, A* y) { plan_.row(i, x_, filter_, y); }

 private:
  const FirPlan<A>& plan_;
  const Planes<A>& planes_;
  Scratch<A> memory_, given_;
  RowFilter<A> filter_;
  const A* x_ = nullptr;
};

// Filters of a call: up, down, and their adjoints.
template <typename A>
struct Filters {
  FirPlan<A> up, down, up_adjoint, down_adjoint;

  Filters(const Tensor& x, const Tensor& up_filter, const Tensor& down_filter, int64_t u, int64_t d,
          int64_t left, int64_t right, int64_t top, int64_t bottom) {
    const int64_t last_u = up_filter.dim() - 1, last_d = down_filter.dim() - 1;
    const FirAxis up_rows = FirAxis::of(x.size(2), up_filter.size(0), u, 1, top, bottom);
    const FirAxis up_columns = FirAxis::of(x.size(3), up_filter.size(last_u), u, 1, left, right);
    const FirAxis rows = FirAxis::of(up_rows.out, down_filter.size(0), 1, d, 0, 0);
    const FirAxis columns = FirAxis::of(up_columns.out, down_filter.size(last_d), 1, d, 0, 0);
    const A *f = data<const A>(up_filter), *g = data<const A>(down_filter);
    const double gain = double(u) * double(u);  // of the zeros between the pixels
    up = core::fir_plan(up_rows, up_columns, f, last_u == 0, false, gain);
    down = core::fir_plan(rows, columns, g, last_d == 0, false, 1);
    up_adjoint =
        core::fir_plan(up_rows.adjoint(), up_columns.adjoint(), f, last_u == 0, true, gain);
    down_adjoint = core::fir_plan(rows.adjoint(), columns.adjoint(), g, last_d == 0, true, 1);
  }
};

// What stands between the two filters: f(z), or with a (and b) f'(z) a or f''(z) a b.
template <typename A>
struct Between {
  const FilteredAct<A>& act;
  Rows<A> z;
  std::optional<Rows<A>> a, b;
  Scratch<A> of_z, of_a;

  // Rows [low, high) of a plane, as a whole: a row that ends within a vector costs as much as one
  // of two vectors.
  void form(int64_t plane, int64_t low, int64_t high, int64_t width, A* y) {
    const auto fill = [&](Rows<A>& rows, A* to) {
      rows.start(plane, low, high);
      for (int64_t i = low; i < high; ++i) rows.row(i, to + (i - low) * width);
    };
    const int64_t count = (high - low) * width;
    fill(z, a ? of_z.get() : y);
    if (b) {
      fill(*a, of_a.get()), fill(*b, y);
      act.bend(count, of_z.get(), of_a.get(), y);
    } else if (a) {
      fill(*a, y);
      act.slope(count, of_z.get(), y);
    } else {
      act.apply(count, y);
    }
  }
};

// A filter and what it is given to read.
template <typename A>
struct Operand {
  const FirPlan<A>& plan;
  const Planes<A>& planes;
};

// y = last(what stands between); `sums`, if any, gets the sums over the planes of each channel.
template <typename A>
void run(const Tensor& like, const FilteredAct<A>& act, const Operand<A>& z,
         const std::optional<Operand<A>>& a, const std::optional<Operand<A>>& b,
         const FirPlan<A>& last, const Writer<A>& to, const Writer<A>& sums) {
  const FirAxis &rows = last.rows, &width = last.width();
  const int64_t blocks = (rows.out + kRows - 1) / kRows, C = like.size(1), N = like.size(0);
  const int64_t most = rows.most_inputs(kRows), size = most * width.in;
  const int64_t work = std::max<int64_t>(1, size);
  std::vector<double> parts(sums ? N * C * blocks : 0);
  const auto rows_of = [&](const std::optional<Operand<A>>& operand) {
    std::optional<Rows<A>> found;
    if (operand) found.emplace(operand->plan, operand->planes, like, most);
    return found;
  };
  parallel_units(N * C * blocks, core::block_size(1 << 12, 40) / work + 1, [&](Units units) {
    Between<A> between{act,        {z.plan, z.planes, like, most}, rows_of(a),
                       rows_of(b), {like, a ? size : 0},           {like, b ? size : 0}};
    const Scratch<A> memory(like, RowFilter<A>::scratch(last.columns), true);
    const Scratch<A> middle(like, size), result(like, width.out);
    RowFilter<A> filter(last.columns, memory.get());
    for (const int64_t unit : units) {
      const int64_t plane = unit / blocks, begin = unit % blocks * kRows;
      const int64_t end = std::min(rows.out, begin + kRows);
      const auto [low, high] = rows.inputs(begin, end);
      if (low < high) between.form(plane, low, high, width.in, middle.get());
      const A* base = middle.get() - low * width.in;
      for (int64_t i = begin; i < end; ++i) {
        const int64_t at = (plane * rows.out + i) * width.out;
        A* values = to.at(at, result.get());
        last.row(i, base, filter, values);
        if (sums) parts[unit] += core::sum_span(values, width.out);
        to.put(at, width.out, values);
      }
    }
  });
  for (int64_t c = 0; c < C && sums; ++c) {
    double sum = 0;
    for (int64_t n = 0; n < N; ++n)
      for (int64_t block = 0; block < blocks; ++block) sum += parts[(n * C + c) * blocks + block];
    const A rounded = A(sum);
    sums.put(c, 1, &rounded);
  }
}

template <typename A>
FilteredAct<A> act_of(int64_t act, double alpha, double gain, std::optional<double> clamp) {
  return {Act(act), A(alpha), A(gain), A(clamp.value_or(INFINITY))};
}
}  // namespace

Tensor filtered_act_forward(const Tensor& given, const MaybeTensor& bias, const Tensor& up_filter,
                            const Tensor& down_filter, int64_t up, int64_t down, int64_t left,
                            int64_t right, int64_t top, int64_t bottom, int64_t act, double alpha,
                            double gain, std::optional<double> clamp) {
  const Tensor x = dense(given), f = dense(up_filter), g = dense(down_filter);
  std::optional<Tensor> y;
  dispatch_accumulate(x, [&]<typename A>(A) {
    const Filters<A> filters(x, f, g, up, down, left, right, top, bottom);
    const auto function = act_of<A>(act, alpha, gain, clamp);
    const Planes<A> planes(x, bias, x.size(1));
    y = new_large(x, {x.size(0), x.size(1), filters.down.rows.out, filters.down.width().out});
    run<A>(x, function, {filters.up, planes}, {}, {}, filters.down, writer<A>(*y), {});
  });
  return *y;
}

std::tuple<Tensor, Tensor> filtered_act_backward(
    const MaybeTensor& upstream, const Tensor& given, const MaybeTensor& bias,
    const Tensor& up_filter, const Tensor& down_filter, int64_t up, int64_t down, int64_t left,
    int64_t right, int64_t top, int64_t bottom, int64_t act, double alpha, double gain,
    std::optional<double> clamp, bool needs_input, bool needs_bias) {
  const Tensor x = dense(given), f = dense(up_filter), g = dense(down_filter);
  const MaybeTensor d_y = dense(upstream);
  Tensor d_x = needs_input ? new_large(x, x.sizes()) : absent(x);
  Tensor d_bias = needs_bias ? new_tensor(x, bias->sizes()) : absent(x);
  dispatch_accumulate(x, [&]<typename A>(A) {
    const Filters<A> filters(x, f, g, up, down, left, right, top, bottom);
    const auto function = act_of<A>(act, alpha, gain, clamp);
    const int64_t C = x.size(1);
    const Planes<A> planes(x, bias, C), of_y(d_y, std::nullopt, C);
    run<A>(x, function, {filters.up, planes}, Operand<A>{filters.down_adjoint, of_y}, {},
           filters.up_adjoint, writer<A>(d_x, needs_input), writer<A>(d_bias, needs_bias));
  });
  return {d_x, d_bias};
}

std::tuple<Tensor, Tensor, Tensor> filtered_act_backward_backward(
    const MaybeTensor& second_x, const MaybeTensor& second_bias, const MaybeTensor& upstream,
    const Tensor& given, const MaybeTensor& bias, const Tensor& up_filter,
    const Tensor& down_filter, int64_t up, int64_t down, int64_t left, int64_t right, int64_t top,
    int64_t bottom, int64_t act, double alpha, double gain, std::optional<double> clamp, bool, bool,
    bool needs_upstream, bool needs_input, bool needs_bias) {
  const Tensor x = dense(given), f = dense(up_filter), g = dense(down_filter);
  const MaybeTensor d_y = dense(upstream), of_x = dense(second_x);
  Tensor d_up = needs_upstream ? new_large(x, d_y->sizes()) : absent(x);
  Tensor d_x = needs_input ? new_large(x, x.sizes()) : absent(x);
  Tensor d_bias = needs_bias ? new_tensor(x, bias->sizes()) : absent(x);
  dispatch_accumulate(x, [&]<typename A>(A) {
    const Filters<A> filters(x, f, g, up, down, left, right, top, bottom);
    const auto function = act_of<A>(act, alpha, gain, clamp);
    const int64_t C = x.size(1);
    const Planes<A> planes(x, bias, C), of_y(d_y, std::nullopt, C), second(of_x, second_bias, C);
    const Operand<A> z{filters.up, planes}, along{filters.up, second};
    if (needs_upstream) run<A>(x, function, z, along, {}, filters.down, writer<A>(d_up), {});
    if (needs_input || needs_bias)
      run<A>(x, function, z, along, Operand<A>{filters.down_adjoint, of_y}, filters.up_adjoint,
             writer<A>(d_x, needs_input), writer<A>(d_bias, needs_bias));
  });
  return {d_up, d_x, d_bias};
}

GENKERN_REGISTER(CPU, m) {
  GENKERN_OP(m, filtered_act_forward);
  GENKERN_OP(m, filtered_act_backward);
  GENKERN_OP(m, filtered_act_backward_backward);
}

}  // namespace genkern::cpu
