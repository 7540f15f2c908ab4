// Normalisation and activation, and both derivatives: a thread has a group of planes that share
// their statistics, so that all its sums are formed in one order, while they are in the cache.
#include <vector>

#include "../threads.h"
#include "norm_act.h"

namespace genkern::cpu {
namespace {

using core::Act;
using core::BendTerms;
using core::Buffer;
using core::kChunk;
using core::Moments;
using core::Plane;
using core::Reader;
using core::SlopeTerms;
using core::Writer;
using MaybeTensor = std::optional<Tensor>;

// x is (N, C, S) in memory. A group is a channel of an image, or, over the batch, a channel.
struct Shape {
  int64_t N, C, S;
  bool over_batch;

  int64_t groups() const { return over_batch ? C : N * C; }
  int64_t planes() const { return over_batch ? N : 1; }  // of a group
  int64_t plane(int64_t group, int64_t i) const { return over_batch ? i * C + group : group; }
  double count() const { return double(planes() * S); }  // elements of a group
};

Shape shape_of(const Tensor& x, bool over_batch) {
  Shape shape{x.size(0), x.size(1), 1, over_batch};
  for (int64_t i = 2; i < x.dim(); ++i) shape.S *= x.size(i);
  return shape;
}

// Calls f(group) for every group: several small ones make a unit of work.
template <typename F>
void for_groups(const Shape& shape, const F& f) {
  constexpr int64_t kGrain = core::block_size(4, 1);  // units that are worth a thread
  const int64_t size = std::max<int64_t>(1, shape.planes() * shape.S);
  const int64_t each = std::max<int64_t>(1, kChunk / size);
  const int64_t units = (shape.groups() + each - 1) / each;
  const int64_t grain = std::max<int64_t>(1, kGrain * kChunk / (each * size));
  parallel_units(units, grain, [&](Units taken) {
    for (const int64_t unit : taken)
      for (int64_t g = unit * each; g < std::min(shape.groups(), (unit + 1) * each); ++g) f(g);
  });
}

// Calls f(first element, elements) for the chunks of a plane.
template <typename F>
void for_chunks_of(const Shape& shape, int64_t plane, const F& f) {
  for (int64_t i = 0; i < shape.S; i += kChunk)
    f(plane * shape.S + i, std::min(kChunk, shape.S - i));
}

// Which row of the affine maps an image has: of its class, of its own, or the only one.
class Rows {
 public:
  Rows(const Shape& shape, const MaybeTensor& weight, const MaybeTensor& bias,
       const MaybeTensor& labels)
      : labels_(dense(labels)) {
    const int64_t classes = labels ? (weight ? *weight : *bias).size(0) : 0;
    for (int64_t n = 0; n < shape.N && labels; ++n)
      GENKERN_CHECK(0 <= at()[n] && at()[n] < classes, "genkern: labels must be in [0, ",
                    classes - 1, "]; got ", at()[n]);
  }
  // In `rows`, the affine maps or their gradients, which may have one row for all.
  int64_t of(int64_t n, const Tensor& rows) const {
    return rows.dim() == 1 ? 0 : labels_ ? at()[n] : n;
  }

 private:
  const int64_t* at() const { return data<const int64_t>(*labels_); }

  MaybeTensor labels_;
};

// The values of the affine maps by plane, and what their gradients are summed to.
template <typename A>
class PerPlane {
 public:
  PerPlane(const Shape& shape, const Rows& rows, const MaybeTensor& values, double otherwise)
      : values_(shape.N * shape.C, A(otherwise)) {
    if (!values) return;
    const Tensor given = dense(*values);
    const auto from = reader<A>(given);
    for (int64_t n = 0; n < shape.N; ++n) {
      Buffer<A> row;
      for (int64_t c = 0; c < shape.C; c += kChunk) {
        const int64_t count = std::min(kChunk, shape.C - c);
        const A* p = from.at(rows.of(n, given) * shape.C + c, count, row.data);
        std::copy_n(p, count, &values_[n * shape.C + c]);
      }
    }
  }
  A operator[](int64_t plane) const { return values_[plane]; }

 private:
  std::vector<A> values_;
};

// The sums of planes to the rows of the affine maps, in the order of the batch.
Tensor sum_rows(const Shape& shape, const Rows& rows, const std::vector<double>& planes,
                const Tensor& like, const MaybeTensor& of, bool wanted) {
  if (!wanted) return absent(like);
  Tensor result = new_tensor(like, of->sizes());
  std::vector<double> sums(result.numel(), 0);
  for (int64_t n = 0; n < shape.N; ++n)
    for (int64_t c = 0; c < shape.C; ++c)
      sums[rows.of(n, *of) * shape.C + c] += planes[n * shape.C + c];
  dispatch_accumulate(like, [&]<typename A>(A) {
    const auto to = writer<A>(result);
    for (size_t i = 0; i < sums.size(); ++i) {
      const A rounded = A(sums[i]);
      to.put(int64_t(i), 1, &rounded);
    }
  });
  return result;
}

// Contiguous in, and out in the format that is asked for.
Tensor new_image(const Tensor& x, bool wanted) {
  return wanted ? new_large(x, x.sizes()) : absent(x);
}
Tensor in_format(const Tensor& result, bool channels_last) {
  return channels_last && result.dim() == 4 ? dense_channels_last(result) : result;
}

// Everything that a group needs to know of its planes.
template <typename A>
struct Affine {
  const Shape& shape;
  Act act;
  A alpha;
  double eps;
  PerPlane<A> weight, bias;

  double scale(double variance) const { return 1 / std::sqrt(variance + eps); }
  Plane<A> plane(int64_t p, double mean, double s) const {
    return {A(mean), A(s * weight[p]), bias[p], alpha};
  }
};

// Means and variances by group: given ones are by channel.
template <typename A>
struct Statistics {
  const A *mean, *variance;
  bool constant;
  int64_t C;

  Statistics(const Shape& shape, const MaybeTensor& mean, const MaybeTensor& variance,
             const Tensor& batch_mean, const Tensor& batch_variance)
      : mean(data<const A>(mean ? *mean : batch_mean)),
        variance(data<const A>(variance ? *variance : batch_variance)),
        constant(mean.has_value()),
        C(shape.C) {}
  int64_t at(int64_t group) const { return constant ? group % C : group; }
};
}  // namespace

std::tuple<Tensor, Tensor, Tensor> norm_act_forward(
    const Tensor& given, const MaybeTensor& weight, const MaybeTensor& bias,
    const MaybeTensor& labels, const MaybeTensor& given_mean, const MaybeTensor& given_variance,
    bool over_batch, int64_t act, double alpha, double eps, bool channels_last, bool save) {
  const Tensor x = dense(given);
  const bool constant = given_mean.has_value();
  const Shape shape = shape_of(x, over_batch && !constant);
  const Rows rows(shape, weight, bias, labels);
  Tensor y = new_image(x, true), mean = absent(x), variance = absent(x);
  if (!constant && save) {
    const auto dtype = accumulate_dtype(x);
    mean = over_batch ? new_tensor(x, {shape.C}, dtype) : new_tensor(x, {shape.N, shape.C}, dtype);
    variance = new_tensor(x, mean.sizes(), dtype);
  }
  const MaybeTensor running_mean = dense(given_mean), running_variance = dense(given_variance);
  dispatch_accumulate(x, [&]<typename A>(A) {
    const Affine<A> affine{
        shape, Act(act), A(alpha), eps, {shape, rows, weight, 1}, {shape, rows, bias, 0}};
    const auto from = reader<A>(x);
    const auto to = writer<A>(y);
    const A *const known_mean = data<const A>(running_mean), *const known_variance =
                                                                 data<const A>(running_variance);
    A *const to_mean = save && !constant ? data<A>(mean) : nullptr, *const to_variance =
                                                                        save && !constant
                                                                            ? data<A>(variance)
                                                                            : nullptr;
    for_groups(shape, [&](int64_t group) {
      Buffer<A> values, result;
      Moments sum;
      for (int64_t i = 0; i < shape.planes() && !constant; ++i)
        for_chunks_of(shape, shape.plane(group, i), [&](int64_t first, int64_t count) {
          sum = sum + core::moments(count, from.at(first, count, values.data));
        });
      const A m = constant ? known_mean[group % shape.C] : A(sum.mean);
      const A v = constant ? known_variance[group % shape.C] : A(sum.variance());
      if (to_mean) to_mean[group] = m, to_variance[group] = v;
      const double s = affine.scale(v);
      for (int64_t i = 0; i < shape.planes(); ++i) {
        const int64_t p = shape.plane(group, i);
        const Plane<A> plane = affine.plane(p, m, s);
        for_chunks_of(shape, p, [&](int64_t first, int64_t count) {
          A* out = to.at(first, result.data);
          core::normal_chunk(affine.act, plane, count, from.at(first, count, values.data), out);
          to.put(first, count, out);
        });
      }
    });
  });
  return {in_format(y, channels_last), mean, variance};
}

std::tuple<Tensor, Tensor, Tensor> norm_act_backward(
    const MaybeTensor& upstream, const Tensor& given, const MaybeTensor& weight,
    const MaybeTensor& bias, const MaybeTensor& labels, const MaybeTensor& given_mean,
    const MaybeTensor& given_variance, const Tensor& batch_mean, const Tensor& batch_variance,
    bool over_batch, int64_t act, double alpha, double eps, bool channels_last, bool needs_input,
    bool needs_weight, bool needs_bias) {
  const Tensor x = dense(given), d_y = dense(*upstream);
  const MaybeTensor running_mean = dense(given_mean), running_variance = dense(given_variance);
  const Shape shape = shape_of(x, over_batch && !given_mean.has_value());
  const Rows rows(shape, weight, bias, labels);
  Tensor d_x = new_image(x, needs_input);
  std::vector<double> of_weight(shape.N * shape.C), of_bias(shape.N * shape.C);
  dispatch_accumulate(x, [&]<typename A>(A) {
    const Affine<A> affine{
        shape, Act(act), A(alpha), eps, {shape, rows, weight, 1}, {shape, rows, bias, 0}};
    const Statistics<A> known(shape, running_mean, running_variance, batch_mean, batch_variance);
    const auto from = reader<A>(x), up = reader<A>(d_y);
    const auto to = writer<A>(d_x, needs_input);
    for_groups(shape, [&](int64_t group) {
      Buffer<A> values, of_y, result;
      const double m = known.mean[known.at(group)];
      const double s = affine.scale(known.variance[known.at(group)]);
      double t = 0, t_h = 0;
      const bool sums = !known.constant || needs_weight || needs_bias;
      for (int64_t i = 0; i < shape.planes() && sums; ++i) {
        const int64_t p = shape.plane(group, i);
        const Plane<A> plane = affine.plane(p, m, s);
        double q = 0, q_h = 0;
        for_chunks_of(shape, p, [&](int64_t first, int64_t count) {
          const auto [one, two] =
              core::slope_sums(affine.act, plane, count, from.at(first, count, values.data),
                               up.at(first, count, of_y.data));
          q += one, q_h += s * two;
        });
        of_bias[p] = q, of_weight[p] = q_h;
        t += affine.weight[p] * q, t_h += affine.weight[p] * q_h;
      }
      if (!needs_input) return;
      const double share = known.constant ? 0 : 1 / shape.count();
      t *= share, t_h *= share;
      for (int64_t i = 0; i < shape.planes(); ++i) {
        const int64_t p = shape.plane(group, i);
        const Plane<A> plane = affine.plane(p, m, s);
        const SlopeTerms<A> terms{A(s * affine.weight[p]), A(-s * s * t_h), A(-s * t)};
        for_chunks_of(shape, p, [&](int64_t first, int64_t count) {
          A* out = to.at(first, result.data);
          core::slope_chunk(affine.act, plane, terms, count, from.at(first, count, values.data),
                            up.at(first, count, of_y.data), out);
          to.put(first, count, out);
        });
      }
    });
  });
  return {in_format(d_x, channels_last && needs_input),
          sum_rows(shape, rows, of_weight, x, weight, needs_weight),
          sum_rows(shape, rows, of_bias, x, bias, needs_bias)};
}

namespace {

// Sums over the planes of a group in double backward; the names are those of norm_act.h.
template <typename A>
class GroupOfSecond {
 public:
  GroupOfSecond(const Affine<A>& affine, const PerPlane<A>& g_weight, const PerPlane<A>& g_bias,
                double m, double s, bool constant)
      : affine_(affine), g_weight_(g_weight), g_bias_(g_bias), m_(m), s_(s) {
    share_ = constant ? 0 : 1 / affine.shape.count();
  }

  Plane<A> plane(int64_t p) const { return affine_.plane(p, m_, s_); }

  // The sums of the plane p: q, q (x - m), g, g (x - m), q g
  void add(int64_t p, const std::array<double, 5>& sums) {
    const auto [q, q_c, g, g_c, q_g] = sums;
    const double w = affine_.weight[p] * share_;
    t_ += w * q, t_h_ += w * s_ * q_c, g_ += share_ * g, g_h_ += share_ * s_ * g_c;
    t_g_ += w * q_g;
    a_ += share_ * g_weight_[p] * q, a_h_ += share_ * g_weight_[p] * s_ * q_c;
  }
  // Behind all of them: sum s q u over the plane
  double of_weight(const std::array<double, 5>& sums) const {
    const auto [q, q_c, g, g_c, q_g] = sums;
    return s_ * (q_g - g_ * q - g_h_ * s_ * q_c);
  }
  // sum e, sum e (x - m)
  void add_bend(int64_t p, double e, double e_c) {
    a_ += share_ * affine_.weight[p] * e, a_h_ += share_ * affine_.weight[p] * s_ * e_c;
  }
  BendTerms<A> terms(int64_t p) const {
    const double w = affine_.weight[p], g_w = g_weight_[p], t_u = t_g_ - t_ * g_ - t_h_ * g_h_;
    const double a = a_ - s_ * (t_ * g_h_ + g_ * t_h_), a_h = a_h_ - 2 * s_ * t_h_ * g_h_;
    return {A(w * s_),
            A(s_ * (g_w - w * s_ * g_h_)),
            A(g_bias_[p] - w * s_ * g_),
            A(s_ * w),
            A(s_ * (g_w - s_ * w * g_h_)),
            A(-s_ * s_ * t_h_),
            A(-s_ * s_ * (a_h + s_ * t_u)),
            A(-s_ * a)};
  }

 private:
  const Affine<A>& affine_;
  const PerPlane<A>&g_weight_, &g_bias_;
  double m_, s_, share_;
  double t_ = 0, t_h_ = 0, g_ = 0, g_h_ = 0, t_g_ = 0, a_ = 0, a_h_ = 0;  // means over the group
};

// A tensor of the shape of x, or zeros.
template <typename A>
const A* or_zeros(const Reader<A>& from, int64_t first, int64_t count, A* buffer) {
  return from ? from.at(first, count, buffer) : std::fill_n(buffer, count, A(0)) - count;
}
}  // namespace

std::tuple<Tensor, Tensor, Tensor, Tensor> norm_act_backward_backward(
    const MaybeTensor& second_x, const MaybeTensor& second_weight, const MaybeTensor& second_bias,
    const MaybeTensor& upstream, const Tensor& given, const MaybeTensor& weight,
    const MaybeTensor& bias, const MaybeTensor& labels, const MaybeTensor& given_mean,
    const MaybeTensor& given_variance, const Tensor& batch_mean, const Tensor& batch_variance,
    bool over_batch, int64_t act, double alpha, double eps, bool channels_last, bool, bool, bool,
    bool needs_upstream, bool needs_input, bool needs_weight, bool needs_bias) {
  const Tensor x = dense(given), d_y = dense(*upstream);
  const MaybeTensor of_d_x = dense(second_x);
  const MaybeTensor running_mean = dense(given_mean), running_variance = dense(given_variance);
  const Shape shape = shape_of(x, over_batch && !given_mean.has_value());
  const Rows rows(shape, weight, bias, labels);
  Tensor d_up = new_image(x, needs_upstream), d_x = new_image(x, needs_input);
  std::vector<double> of_weight(shape.N * shape.C), of_bias(shape.N * shape.C);
  dispatch_accumulate(x, [&]<typename A>(A) {
    const Affine<A> affine{
        shape, Act(act), A(alpha), eps, {shape, rows, weight, 1}, {shape, rows, bias, 0}};
    const PerPlane<A> g_weight(shape, rows, second_weight, 0), g_bias(shape, rows, second_bias, 0);
    const Statistics<A> known(shape, running_mean, running_variance, batch_mean, batch_variance);
    const auto from = reader<A>(x), up = reader<A>(d_y), of_g = reader<A>(of_d_x);
    const auto to_up = writer<A>(d_up, needs_upstream), to = writer<A>(d_x, needs_input);
    for_groups(shape, [&](int64_t group) {
      Buffer<A> values, of_y, second, result, bent;
      const double m = known.mean[known.at(group)];
      const double s = affine.scale(known.variance[known.at(group)]);
      GroupOfSecond<A> sums(affine, g_weight, g_bias, m, s, known.constant);
      // Calls f(x, d, g, first element, elements) for the chunks of a plane.
      const auto for_operands = [&](int64_t p, const auto& f) {
        for_chunks_of(shape, p, [&](int64_t first, int64_t count) {
          f(from.at(first, count, values.data), up.at(first, count, of_y.data),
            or_zeros(of_g, first, count, second.data), first, count);
        });
      };
      std::vector<std::array<double, 5>> of_planes(shape.planes());
      for (int64_t i = 0; i < shape.planes(); ++i) {
        const int64_t p = shape.plane(group, i);
        for_operands(p, [&](const A* x, const A* d, const A* g, int64_t, int64_t count) {
          const auto found = core::product_sums(affine.act, sums.plane(p), count, x, d, g);
          for (int k = 0; k < 5; ++k) of_planes[i][k] += found[k];
        });
        sums.add(p, of_planes[i]);
      }
      for (int64_t i = 0; i < shape.planes(); ++i) {
        const int64_t p = shape.plane(group, i);
        const BendTerms<A> terms = sums.terms(p);
        of_weight[p] = sums.of_weight(of_planes[i]);
        if (core::is_flat(affine.act)) continue;
        double e = 0, e_c = 0;
        for_operands(p, [&](const A* x, const A* d, const A* g, int64_t, int64_t count) {
          const auto found = core::bend_sums(affine.act, sums.plane(p), terms, count, x, d, g);
          e += found[0], e_c += found[1];
        });
        of_weight[p] += s * e_c, of_bias[p] = e;
        of_planes[i] = {e, e_c};
      }
      for (int64_t i = 0; i < shape.planes() && !core::is_flat(affine.act); ++i)
        sums.add_bend(shape.plane(group, i), of_planes[i][0], of_planes[i][1]);
      for (int64_t i = 0; i < shape.planes() && (needs_upstream || needs_input); ++i) {
        const int64_t p = shape.plane(group, i);
        const BendTerms<A> terms = sums.terms(p);
        for_operands(p, [&](const A* x, const A* d, const A* g, int64_t first, int64_t count) {
          A *of_up = to_up.at(first, result.data), *of_x = to.at(first, bent.data);
          core::bend_chunk(affine.act, sums.plane(p), terms, count, x, d, g, of_up, of_x);
          to_up.put(first, count, of_up);
          to.put(first, count, of_x);
        });
      }
    });
  });
  return {in_format(d_up, channels_last && needs_upstream),
          in_format(d_x, channels_last && needs_input),
          sum_rows(shape, rows, of_weight, x, weight, needs_weight),
          sum_rows(shape, rows, of_bias, x, bias, needs_bias)};
}

GENKERN_REGISTER(CPU, m) {
  GENKERN_OP(m, norm_act_forward);
  GENKERN_OP(m, norm_act_backward);
  GENKERN_OP(m, norm_act_backward_backward);
}

}  // namespace genkern::cpu
