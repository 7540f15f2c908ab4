// Bias and activation, and both of its derivatives: chunks on threads, each sum in a fixed order.
#include "../threads.h"
#include "bias_act.h"

namespace genkern::cpu {
namespace {

using core::ActOptions;
using core::Buffer;
using core::kChunk;
using core::kRowChunk;
using core::Reader;
using core::Writer;
using MaybeTensor = std::optional<Tensor>;

// Where the bias of an element is: x is (outer, C, inner) in memory.
struct Axis {
  int64_t outer, C, inner;

  int64_t count() const { return outer * C * inner; }
};

Axis axis_of(const Tensor& x, int64_t dim, bool channels_last) {
  if (channels_last) return {x.size(0) * x.size(2) * x.size(3), x.size(1), 1};
  Axis axis{1, 1, 1};
  for (int64_t i = 0; i < x.dim(); ++i)
    (i < dim ? axis.outer : i == dim ? axis.C : axis.inner) *= x.size(i);
  return axis;
}

Tensor in_format(const Tensor& t, bool channels_last) {
  return channels_last ? dense_channels_last(t) : dense(t);
}
MaybeTensor in_format(const MaybeTensor& t, bool channels_last) {
  return t ? MaybeTensor(in_format(*t, channels_last)) : t;
}
Tensor new_like(const Tensor& x, bool channels_last, bool wanted) {
  if (!wanted) return absent(x);
  return channels_last ? new_channels_last(x, x.sizes()) : new_large(x, x.sizes());
}

// The sum of a tensor, or of zeros, and of one value for each channel, or none.
template <typename A>
class Biased {
 public:
  Biased(const Axis& axis, const Reader<A>& x, const MaybeTensor& bias)
      : axis_(axis), x_(x), bias_(bias ? axis.C * repeats() : 0) {
    if (!bias) return;
    const Tensor values = dense(*bias);
    const auto from = reader<A>(values);
    for (size_t i = 0; i < bias_.size(); ++i) bias_[i] = from[int64_t(i) % axis.C];
  }

  const A* at(int64_t first, int64_t count, A* buffer) const {
    const A* from = x_.at(first, count, buffer);
    if (bias_.empty() && from) return from;
    if (!from) from = std::fill_n(buffer, count, A(0)) - count;
    const int64_t run = axis_.inner == 1 ? int64_t(bias_.size()) : axis_.inner;
    for (int64_t i = 0; i < count && !bias_.empty();) {
      const int64_t place = first + i, rest = std::min(count - i, run - place % run);
      A* to = buffer + i;
      if (axis_.inner == 1)
        core::map(rest, to, [](auto u, auto v) { return u + v; }, from + i, &bias_[place % run]);
      else
        core::map(rest, to, [b = bias_[place / run % axis_.C]](auto u) { return u + b; }, from + i);
      i += rest;
    }
    return buffer;
  }

 private:
  // Few channels that lie side by side are laid out several times: runs of many vectors.
  int64_t repeats() const { return axis_.inner == 1 ? 256 / std::max<int64_t>(1, axis_.C) + 1 : 1; }

  Axis axis_;
  Reader<A> x_;
  std::vector<A> bias_;
};

// d_bias[c]: the sum over a plane, in the order of core::RowSums, and these sums in order.
template <typename A, typename F>
void sum_planes(const Axis& axis, const Writer<A>& d_bias, const F& terms) {
  std::vector<A> planes(axis.outer * axis.C);
  const core::Rows rows{axis.outer * axis.C, axis.inner};
  core::RowSums<A> sums(rows, Writer<A>{planes.data()});
  parallel_for(0, rows.units(), rows.grain(), [&](int64_t unit, int64_t end_unit) {
    for (; unit < end_unit; ++unit) {
      const int64_t end = rows.begin(unit) + rows.length(unit);
      for (int64_t i = rows.begin(unit); i < end; i += kRowChunk) {
        const int64_t count = std::min(kRowChunk, end - i);
        terms(i, count, [&](const A* d) { sums.add(unit, count, d); });
      }
    }
  });
  sums.write();
  for (int64_t c = 0; c < axis.C; ++c) {
    double sum = 0;
    for (int64_t o = 0; o < axis.outer; ++o) sum += planes[o * axis.C + c];
    const A rounded = A(sum);
    d_bias.put(c, 1, &rounded);
  }
}

// The same where channels lie side by side: rows of C, in blocks that the shape alone fixes.
template <typename A, typename F>
void sum_columns(const Axis& axis, const Writer<A>& d_bias, const F& terms) {
  constexpr int64_t kBlocks = core::block_size(64, 3);
  const int64_t C = axis.C, blocks = std::min(axis.outer, kBlocks);
  const int64_t together = std::max<int64_t>(1, kRowChunk / std::max<int64_t>(1, C));
  std::vector<double> sums(blocks * C);
  const int64_t grain = core::block_size(1 << 14, 40) * blocks / (axis.count() + 1) + 1;
  parallel_for(0, C > 0 ? blocks : 0, grain, [&](int64_t block, int64_t end_block) {
    for (; block < end_block; ++block) {
      double* to = &sums[block * C];
      const int64_t begin = axis.outer * block / blocks * C;
      const int64_t end = axis.outer * (block + 1) / blocks * C;
      for (int64_t i = begin; i < end;) {
        const int64_t column = i % C, whole = C > kRowChunk ? C - column : together * C;
        const int64_t count = std::min({kRowChunk, whole, end - i});
        terms(i, count, [&](const A* d) {
          for (int64_t j = 0; j < count; j += C)
            for (int64_t k = 0; k < std::min(C, count - j); ++k) to[column + k] += d[j + k];
        });
        i += count;
      }
    }
  });
  for (int64_t c = 0; c < C; ++c) {
    double sum = 0;
    for (int64_t block = 0; block < blocks; ++block) sum += sums[block * C + c];
    const A rounded = A(sum);
    d_bias.put(c, 1, &rounded);
  }
}

// Calls terms(first, count, add) for all elements, and writes the sums of what it adds.
template <typename A, typename F>
void for_terms(const Axis& axis, const Writer<A>& d_bias, const F& terms) {
  if (!d_bias)
    for_chunks(axis.count(), [&](int64_t, int64_t first, int64_t count) {
      terms(first, count, [](const A*) {});
    });
  else if (axis.inner == 1)
    sum_columns(axis, d_bias, terms);
  else
    sum_planes(axis, d_bias, terms);
}

template <typename A>
ActOptions<A> options_of(int64_t act, double alpha, double gain, std::optional<double> clamp) {
  return {core::Act(act), A(alpha), A(gain), A(clamp.value_or(INFINITY))};
}
}  // namespace

Tensor bias_act_forward(const Tensor& given, const MaybeTensor& bias, int64_t act, double alpha,
                        double gain, std::optional<double> clamp, int64_t dim, bool channels_last) {
  const Tensor x = in_format(given, channels_last);
  Tensor y = new_like(x, channels_last, true);
  dispatch_accumulate(x, [&]<typename A>(A) {
    const Axis axis = axis_of(x, dim, channels_last);
    const auto options = options_of<A>(act, alpha, gain, clamp);
    const Biased<A> in(axis, reader<A>(x), bias);
    const auto to = writer<A>(y);
    for_chunks(axis.count(), [&](int64_t, int64_t first, int64_t count) {
      Buffer<A> result;
      A* values = to.at(first, result.data);
      const A* z = in.at(first, count, values);  // one buffer less in the first cache
      if (z != values || !options.is_identity()) core::act_chunk(options, count, z, values);
      to.put(first, count, values);
    });
  });
  return y;
}

std::tuple<Tensor, Tensor> bias_act_backward(const MaybeTensor& upstream, const Tensor& given,
                                             const MaybeTensor& bias, int64_t act, double alpha,
                                             double gain, std::optional<double> clamp, int64_t dim,
                                             bool channels_last, bool needs_input,
                                             bool needs_bias) {
  const Tensor x = in_format(given, channels_last), d_y = in_format(*upstream, channels_last);
  Tensor d_x = new_like(x, channels_last, needs_input);
  Tensor d_bias = needs_bias ? new_tensor(x, bias->sizes()) : absent(x);
  dispatch_accumulate(x, [&]<typename A>(A) {
    const Axis axis = axis_of(x, dim, channels_last);
    const auto options = options_of<A>(act, alpha, gain, clamp);
    const Biased<A> in(axis, reader<A>(x), bias);
    const auto up = reader<A>(d_y);
    const auto to = writer<A>(d_x, needs_input);
    for_terms(axis, writer<A>(d_bias, needs_bias), [&](int64_t first, int64_t count, auto add) {
      Buffer<A> sum, of_y, result;
      const A* z = in.at(first, count, sum.data);
      const A* d = up.at(first, count, of_y.data);
      A* of_x = to.at(first, result.data);
      core::act_slope_chunk(options, count, z, d, of_x);
      add(of_x);
      to.put(first, count, of_x);
    });
  });
  return {d_x, d_bias};
}

std::tuple<Tensor, Tensor, Tensor> bias_act_backward_backward(
    const MaybeTensor& second_x, const MaybeTensor& second_bias, const MaybeTensor& upstream,
    const Tensor& given, const MaybeTensor& bias, int64_t act, double alpha, double gain,
    std::optional<double> clamp, int64_t dim, bool channels_last, bool, bool, bool needs_upstream,
    bool needs_input, bool needs_bias) {
  const Tensor x = in_format(given, channels_last), d_y = in_format(*upstream, channels_last);
  const MaybeTensor of_d_x = in_format(second_x, channels_last);
  Tensor d_up = new_like(x, channels_last, needs_upstream);
  Tensor d_x = new_like(x, channels_last, needs_input);
  Tensor d_bias = needs_bias ? new_tensor(x, bias->sizes()) : absent(x);
  dispatch_accumulate(x, [&]<typename A>(A) {
    const Axis axis = axis_of(x, dim, channels_last);
    const auto options = options_of<A>(act, alpha, gain, clamp);
    const Biased<A> in(axis, reader<A>(x), bias), of_both(axis, reader<A>(of_d_x), second_bias);
    const auto up = reader<A>(d_y);
    const auto to_up = writer<A>(d_up, needs_upstream), to = writer<A>(d_x, needs_input);
    for_terms(axis, writer<A>(d_bias, needs_bias), [&](int64_t first, int64_t count, auto add) {
      Buffer<A> sum, of_y, second, result, bent;
      const A* z = in.at(first, count, sum.data);
      const A* d = up.at(first, count, of_y.data);
      const A* g = of_both.at(first, count, second.data);
      A *of_up = to_up.at(first, result.data), *of_x = to.at(first, bent.data);
      core::act_bend_chunk(options, count, z, g, d, of_up, of_x);
      add(of_x);
      to_up.put(first, count, of_up);
      to.put(first, count, of_x);
    });
  });
  return {d_up, d_x, d_bias};
}

GENKERN_REGISTER(CPU, m) {
  GENKERN_OP(m, bias_act_forward);
  GENKERN_OP(m, bias_act_backward);
  GENKERN_OP(m, bias_act_backward_backward);
}

}  // namespace genkern::cpu
