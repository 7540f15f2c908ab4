// The masked linear layer and its gradients: packing, threads, ops. The maths: masked_linear.h.
//
//   for (block : rows, as many as their packed weights fit into the caches)      // on threads
//     for (steps : of the sum, as many as a panel has in L1)
//       for (panel : 16 rows of the batch)
//         for (tile : rows of the block) sums[row][n] += packed[row][l] * panel[l][n];
//
// Every sum is formed by one thread in an order that depends on the shapes and degrees alone.
#include <array>

#include "../bind.h"
#include "../core/transpose.h"
#include "masked_linear.h"

namespace genkern::cpu {
namespace {

using namespace core::masked_linear;
using core::Accumulate;
using core::block_size;
using core::kLanes;
using MaybeTensor = std::optional<Tensor>;

// Multiplications that are worth waking another thread.
constexpr int64_t kWork = block_size(1 << 19, 64);
// Steps of one partial sum; panels of the batch of one partial sum over it.
constexpr int64_t kSteps = block_size(128, 3);
constexpr int64_t kPanels = block_size(16, 2);
// Elements of a block of packed weights or of their gradients: a part of L2, or all of it where a
// block of fewer rows would read the lines of the weight more often.
constexpr int64_t kPacked = block_size(1 << 15, 40);
constexpr int64_t kPackedColumns = block_size(1 << 17, 40);
// Rows of a block at least: so many tiles share a panel while it is in L1.
template <typename A>
constexpr int64_t kFewRows = block_size(4, 2) * kTileRows<A>;

int64_t grain(int64_t work_each) { return kWork / (work_each + 1) + 1; }

std::vector<int64_t> degrees_of(const Tensor& t, bool reversed) {
  const Tensor degrees = dense(t);
  std::vector<int64_t> found(size_t(t.numel()));
  for (size_t i = 0; i < found.size(); ++i)
    found[i] = reversed ? ~data<const int64_t>(degrees)[i] : data<const int64_t>(degrees)[i];
  return found;
}

// Rows of a batch (..., D).
template <typename Sizes>
int64_t batch_of(const Sizes& sizes) {
  int64_t rows = 1;
  for (size_t i = 0; i + 1 < sizes.size(); ++i) rows *= sizes[i];
  return rows;
}

// A weight, seen from its rows or, for the gradient of the input, from its columns.
template <typename T>
struct Weight {
  T* data;
  int64_t row, column;  // strides, in elements

  Weight(const Tensor& t, bool mirrored)
      : data(genkern::data<T>(t)), row(t.stride(mirrored)), column(t.stride(!mirrored)) {}
};

// ---- panels ----------------------------------------------------------------------------------

// A batch (N, D) with N on the lanes: to[panel][step][lane], the steps in the order of `columns`.
template <typename A>
struct Panels {
  int64_t batch, steps;
  Scratch<A> memory;

  Panels(const Tensor& like, int64_t batch, int64_t steps)
      : batch(batch), steps(steps), memory(like, count() * steps * kWidth<A>) {}
  int64_t count() const { return (batch + kWidth<A> - 1) / kWidth<A>; }
  int64_t width() const { return count() * kWidth<A>; }
  A* at(int64_t panel, int64_t step) const {
    return memory.get() + (panel * steps + step) * kWidth<A>;
  }
  template <typename T>
  void fill(const T* from, const std::vector<int64_t>& columns) const {
    parallel_for(0, count() * steps, grain(8 * kWidth<A>), [&](int64_t unit, int64_t end) {
      for (; unit < end; ++unit) {
        const int64_t n = unit / steps * kWidth<A>, lanes = std::min(batch - n, int64_t(kWidth<A>));
        const T* column = from + n * steps + columns[unit % steps];
        A* to = memory.get() + unit * kWidth<A>;
        for (int64_t c = 0; c < lanes; ++c) to[c] = core::element<A>(column[c * steps]);
        for (int64_t c = lanes; c < kWidth<A>; ++c) to[c] = 0;
      }
    });
  }
};

// A batch (N, D) with D on the lanes, in the order of `columns`: to[panel][n][lane].
template <typename T, typename A>
void fill_columns(const T* from, int64_t batch, const std::vector<int64_t>& columns, A* to) {
  const int64_t D = int64_t(columns.size());
  parallel_for(0, batch, grain(8 * D), [&](int64_t n, int64_t end) {
    for (; n < end; ++n)
      for (int64_t first = 0; first < D; first += kWidth<A>) {
        A* lanes = to + (first * batch + n * kWidth<A>);
        const int64_t count = std::min(D - first, int64_t(kWidth<A>));
        for (int64_t c = 0; c < count; ++c)
          lanes[c] = core::element<A>(from[n * D + columns[first + c]]);
        for (int64_t c = count; c < kWidth<A>; ++c) lanes[c] = 0;
      }
  });
}

// ---- output and gradient of the input --------------------------------------------------------

struct Block {
  int64_t row_begin, row_end, step_begin, step_end;
};

// The live weights of a block in the order of its steps; the others are never read.
template <typename T, typename A>
void pack_rows(const Stairs& s, const Weight<const T>& w, const Block& block, A* to,
               int64_t to_row) {
  for (int64_t r = block.row_begin; r < block.row_end; ++r, to += to_row) {
    const T* from = w.data + s.rows[r] * w.row;
    const int64_t begin = block.step_begin, end = std::min(block.step_end, s.length[r]);
    if (s.in_order && w.column == 1)
      core::widen(from + begin, to, std::max<int64_t>(0, end - begin));
    else
      for (int64_t l = begin; l < end; ++l)
        to[l - begin] = core::element<A>(from[s.columns[l] * w.column]);
  }
}

// The same where a column is a line of the memory: a few of them stay in L1 while all rows pass.
template <typename T, typename A>
void pack_columns(const Stairs& s, const Weight<const T>& w, const Block& block, A* to,
                  int64_t to_row) {
  constexpr int kColumns = 8;
  int64_t first = block.row_begin;  // from here on rows are live
  for (int64_t l = block.step_begin; l < block.step_end; l += kColumns) {
    while (first < block.row_end && s.length[first] <= l) ++first;
    const int64_t end = std::min(l + kColumns, block.step_end);
    const T* columns[kColumns];
    for (int64_t c = l; c < end; ++c) columns[c - l] = w.data + s.columns[c] * w.column;
    for (int64_t r = first; r < block.row_end; ++r) {
      const int64_t at = s.rows[r] * w.row, live = std::min(end, s.length[r]) - l;
      A* steps = to + (r - block.row_begin) * to_row + l - block.step_begin;
      if (live == kColumns)
        for (int c = 0; c < kColumns; ++c) steps[c] = core::element<A>(columns[c][at]);
      else
        for (int64_t c = 0; c < live; ++c) steps[c] = core::element<A>(columns[c][at]);
    }
  }
}

template <typename A>
void multiply(const Stairs& s, const Panels<A>& panels, const Block& block, const A* packed,
              int64_t packed_row, A* sums) {
  for (int64_t l = block.step_begin; l < block.step_end; l += kSteps) {
    const int64_t end = std::min(l + kSteps, block.step_end);
    for (int64_t p = 0; p < panels.count(); ++p) {
      const bool narrow = panels.batch - p * kWidth<A> <= kLanes<A>;
      core::for_each_tile<kTileRows<A>>(
          block.row_end - block.row_begin, [&]<int M>(int64_t r, std::integral_constant<int, M>) {
            const int64_t row = block.row_begin + r;
            if (s.length[row + M - 1] <= l) return;
            const auto tile = narrow ? stairs_tile<A, M, 1> : stairs_tile<A, M, 2>;
            tile(sums + p * kWidth<A>, panels.width(), &s.rows[row], &s.length[row], l, end,
                 packed + r * packed_row + l - block.step_begin, packed_row, panels.at(p, l));
          });
    }
  }
}

// sums[row][n] = bias[row] + sum over the row's live columns of w[row][column] panels[column][n]
template <typename T, typename A>
void product(const Tensor& like, const Stairs& s, const Weight<const T>& w, const Panels<A>& panels,
             const T* bias, int64_t bias_stride, A* sums) {
  const int64_t width = panels.width();
  parallel_for(0, s.work(), grain(width), [&](int64_t work, int64_t work_end) {
    const int64_t first = s.row_at(work), last = s.row_at(work_end);
    for (int64_t r = first; r < last; ++r)
      std::fill_n(sums + s.rows[r] * width, width,
                  bias ? core::element<A>(bias[s.rows[r] * bias_stride]) : A(0));
    const int64_t longest = first < last ? s.length[last - 1] : 0;
    if (longest == 0) return;
    // What is near in memory is read together: whole rows, or all rows of a few columns.
    const bool by_rows = w.column <= w.row;
    const int64_t steps = by_rows ? longest : std::min(longest, kSteps);
    const int64_t fitting = (by_rows ? kPacked : kPackedColumns) / steps;
    const int64_t rows = std::min(std::max(kFewRows<A>, fitting), last - first);
    const int64_t packed_row = steps + kLanes<A>;  // rows 2^n bytes apart share few cache lines
    const Scratch<A> packed(like, rows * packed_row);
    for (int64_t l = 0; l < longest; l += steps) {
      int64_t r =
          std::upper_bound(s.length.begin() + first, s.length.begin() + last, l) - s.length.begin();
      for (; r < last; r += rows) {
        const Block block{r, std::min(r + rows, last), l, std::min(l + steps, longest)};
        if (by_rows)
          pack_rows(s, w, block, packed.get(), packed_row);
        else
          pack_columns(s, w, block, packed.get(), packed_row);
        multiply(s, panels, block, packed.get(), packed_row, sums);
      }
    }
  });
}

// to[n][row] = sums[row][n]
template <typename T, typename A>
void turn(const A* sums, int64_t width, int64_t batch, int64_t rows, T* to) {
  constexpr int64_t kEach = block_size(64, 9);
  parallel_for(0, (rows + kEach - 1) / kEach, grain(8 * kEach * width), [&](int64_t b, int64_t e) {
    for (; b < e; ++b) {
      const int64_t first = b * kEach, count = std::min(kEach, rows - first);
      core::deinterleave<T>(sums + first * width, width, batch, count, to + first, rows, 1);
    }
  });
}

// ---- gradients of weight and bias ------------------------------------------------------------

// Outputs in the order in which `d_output` has them on its steps, each with its live inputs.
struct Outputs {
  const std::vector<int64_t>& order;
  std::vector<int64_t> length, start{0};

  Outputs(const Stairs& s, const std::vector<int64_t>& order) : order(order) {
    std::vector<int64_t> of_output(order.size());
    for (size_t r = 0; r < s.rows.size(); ++r) of_output[s.rows[r]] = s.length[r];
    for (const int64_t o : order) {
      length.push_back(of_output[o]);
      start.push_back(start.back() + of_output[o] + 1);
    }
  }
  int64_t at(int64_t work) const {
    return std::lower_bound(start.begin(), start.end() - 1, work) - start.begin();
  }
};

// Dead weights get an exact 0.
template <typename T, typename A>
void weight_gradient(const Tensor& like, const Outputs& outputs, const Stairs& stairs, const A* x,
                     const Panels<A>& d_output, const Weight<T>& to) {
  const std::vector<int64_t>& inputs = stairs.columns;
  const int64_t I = int64_t(inputs.size()), N = d_output.batch;
  parallel_for(0, outputs.start.back(), grain(N), [&](int64_t work, int64_t work_end) {
    const int64_t first = outputs.at(work), last = outputs.at(work_end);
    if (first == last) return;
    const int64_t columns = (outputs.length[first] + kWidth<A> - 1) / kWidth<A> * kWidth<A>;
    const int64_t fitting = kPacked / std::max<int64_t>(1, columns);
    const int64_t rows = std::min(std::max(kFewRows<A>, fitting), last - first);
    const Scratch<A> sums(like, rows * columns);
    for (int64_t row = first; row < last; row += rows) {
      const int64_t count = std::min(rows, last - row);
      std::fill_n(sums.get(), count * columns, A(0));
      for (int64_t p = 0; p < d_output.count(); p += kPanels)
        for (int64_t c = 0; c < outputs.length[row]; c += kWidth<A>)
          core::for_each_tile<kTileRows<A>>(
              count, [&]<int M>(int64_t m, std::integral_constant<int, M>) {
                if (outputs.length[row + m] <= c) return;
                const int64_t n = p * kWidth<A>;
                weight_tile<A, M>(sums.get() + m * columns + c, columns,
                                  std::min(N - n, kPanels * kWidth<A>), d_output.at(p, row + m),
                                  d_output.steps * kWidth<A>, x + c * N + n * kWidth<A>);
              });
      for (int64_t m = 0; m < count; ++m) {
        T* weights = to.data + outputs.order[row + m] * to.row;
        const A* sum = sums.get() + m * columns;
        const int64_t live = outputs.length[row + m];
        if (stairs.in_order && to.column == 1) {
          for (int64_t i = 0; i < live; ++i) weights[i] = core::from_accumulate<T>(sum[i]);
          std::fill(weights + live, weights + I, T{});
          continue;
        }
        for (int64_t i = 0; i < live; ++i)
          weights[inputs[i] * to.column] = core::from_accumulate<T>(sum[i]);
        for (int64_t i = live; i < I; ++i) weights[inputs[i] * to.column] = T{};
      }
    }
  });
}

template <typename T, typename A>
void bias_gradient(const std::vector<int64_t>& order, const Panels<A>& d_output, T* to) {
  const int64_t O = int64_t(order.size());
  parallel_for(0, O, grain(d_output.width()), [&](int64_t o, int64_t end) {
    for (; o < end; ++o) {
      core::Vec<A> sum{};
      for (int64_t p = 0; p < d_output.count(); ++p)
        sum += core::load(d_output.at(p, o)) + core::load(d_output.at(p, o) + kLanes<A>);
      to[order[o]] = core::from_accumulate<T>(core::sum_lanes(sum));
    }
  });
}

// The strides of the weight; what is large and contiguous in huge pages.
Tensor gradient_like(const Tensor& weight) {
  return weight.is_contiguous() ? new_large(weight, weight.sizes()) : empty_like(weight);
}

template <typename T>
void backward(const Tensor& d_y, const Tensor& x, const Tensor& weight, const Stairs& stairs,
              const Stairs& mirrored, Tensor* d_x, Tensor* d_weight, Tensor* d_bias) {
  using A = Accumulate<T>;
  const int64_t I = weight.size(1), O = weight.size(0), N = batch_of(d_y.sizes());
  const Panels<A> d_output(d_y, N, O);
  d_output.fill(data<const T>(d_y), mirrored.columns);
  if (d_x) {
    const Scratch<A> sums(d_y, I * d_output.width());
    product<T>(d_y, mirrored, Weight<const T>(weight, true), d_output, nullptr, 0, sums.get());
    turn(sums.get(), d_output.width(), N, I, data<T>(*d_x));
  }
  if (d_weight) {
    const Outputs outputs(stairs, mirrored.columns);
    const int64_t panels = (I + kWidth<A> - 1) / kWidth<A>;
    const Scratch<A> columns(d_y, panels * N * kWidth<A>);
    fill_columns(data<const T>(x), N, stairs.columns, columns.get());
    weight_gradient(d_y, outputs, stairs, columns.get(), d_output, Weight<T>(*d_weight, false));
  }
  if (d_bias) bias_gradient(mirrored.columns, d_output, data<T>(*d_bias));
}

}  // namespace

Tensor masked_linear_forward(const Tensor& input, const Tensor& weight, const MaybeTensor& bias,
                             const Tensor& in_degrees, const Tensor& out_degrees, bool strict) {
  const Tensor x = dense(input);
  std::vector<int64_t> shape(x.sizes().begin(), x.sizes().end());
  shape.back() = weight.size(0);
  Tensor y = new_large(x, shape);
  if (y.numel() == 0) return y;
  const Stairs stairs =
      stairs_of(degrees_of(out_degrees, false), degrees_of(in_degrees, false), strict);
  dispatch_floating(x, [&]<typename T>(T) {
    using A = Accumulate<T>;
    const int64_t O = weight.size(0), N = batch_of(x.sizes());
    const Panels<A> panels(x, N, weight.size(1));
    panels.fill(data<const T>(x), stairs.columns);
    const Scratch<A> sums(x, O * panels.width());
    product<T>(x, stairs, Weight<const T>(weight, false), panels, data<const T>(bias),
               bias ? bias->stride(0) : 0, sums.get());
    turn(sums.get(), panels.width(), N, O, data<T>(y));
  });
  return y;
}

std::tuple<Tensor, Tensor, Tensor> masked_linear_backward(
    const MaybeTensor& upstream, const Tensor& input, const Tensor& weight,
    const MaybeTensor& /*bias*/, const Tensor& in_degrees, const Tensor& out_degrees, bool strict,
    bool need_input, bool need_weight, bool need_bias) {
  const Tensor x = dense(input), d_y = dense(*upstream);
  Tensor d_x = need_input ? new_large(x, x.sizes()) : absent(x);
  Tensor d_weight = need_weight ? gradient_like(weight) : absent(x);
  Tensor d_bias = need_bias ? new_tensor(weight, {weight.size(0)}) : absent(x);
  const auto outputs = degrees_of(out_degrees, false), inputs = degrees_of(in_degrees, false);
  const Stairs stairs = stairs_of(outputs, inputs, strict);
  const Stairs mirrored =
      stairs_of(degrees_of(in_degrees, true), degrees_of(out_degrees, true), strict);
  dispatch_floating(x, [&]<typename T>(T) {
    backward<T>(d_y, x, weight, stairs, mirrored, need_input ? &d_x : nullptr,
                need_weight ? &d_weight : nullptr, need_bias ? &d_bias : nullptr);
  });
  return {d_x, d_weight, d_bias};
}

GENKERN_REGISTER(CPU, m) {
  GENKERN_OP(m, masked_linear_forward);
  GENKERN_OP(m, masked_linear_backward);
}

}  // namespace genkern::cpu
