// nll (N,) or (S, N) of independent elements: location and scale (S, N, D), target and mask (N, D),
// the same for every sample.
//
//   for (n < S N) for (d < D) nll[n] += mask[n % N, d] ? nats(location[n, d], ...) : 0;
//   for (n < S N) for (d < D) d_location[n, d] = mask[n % N, d] ? upstream[n] * slope : 0;
//
// The gradient of one shared scale is the sum over all, that of the target the sum over S.
#include "chunks.h"

namespace genkern::cpu {
namespace {

// `kept`: slopes of the integers' likelihood, (2, S, N, D), or nothing.
template <typename A>
void forward(const Inputs& in, const Writer<A>& to, A* kept) {
  const Rows& rows = in.rows;
  const int64_t total = in.location.numel();
  const Chunks<A> chunks(in);
  core::RowSums<A> sums(rows, to);
  for_units<A>(rows, [&](int64_t unit, Work<A>& work) {
    const int64_t end = rows.begin(unit) + rows.length(unit);
    for (int64_t e = rows.begin(unit); e < end; e += kRowChunk) {
      const int64_t count = std::min(kRowChunk, end - e);
      chunks.terms(e, count, work, kept ? Slopes<A>{kept + e, kept + total + e} : Slopes<A>{});
      sums.add(unit, count, work.terms.data);
    }
  });
  sums.write();
  chunks.check();
}

template <typename A>
struct Gradients {
  Writer<A> location, scale, target;
};

// Gradients of each element; of the target only where there is one sample.
template <typename A>
void backward(const Inputs& in, const Reader<A>& upstream, const A* kept, const Gradients<A>& to) {
  const Rows& rows = in.rows;
  const int64_t total = in.location.numel();
  const Chunks<A> chunks(in);
  const bool whole_scale = to.scale && !in.shared(), with_target = to.target && in.samples == 1;
  std::vector<double> partial(to.scale && in.shared() ? rows.units() : 0);
  for_units<A>(rows, [&](int64_t unit, Work<A>& work) {
    const int64_t length = rows.length(unit), end = rows.begin(unit) + length;
    spread(upstream, rows, rows.row(unit), length, work.upstream.data);
    for (int64_t e = rows.begin(unit); e < end; e += kRowChunk) {
      const int64_t count = std::min(kRowChunk, end - e);
      const Slopes<A> at{to.location.at(e, work.d_location.data),
                         whole_scale ? to.scale.at(e, work.d_scale.data) : work.d_scale.data,
                         with_target ? to.target.at(e, work.d_target.data) : nullptr};
      // As many bytes of the one as of the other; they are only read.
      A* first = const_cast<A*>(kept);
      chunks.slopes(e, count, work, {first + e, first + total + e}, at);
      to.location.put(e, count, at.location);
      if (whole_scale) to.scale.put(e, count, at.scale);
      if (!partial.empty())
        partial[unit] += core::sum<A>(count, [](auto v) { return v; }, at.scale);
      if (with_target) to.target.put(e, count, at.target);
    }
  });
  if (!to.scale || whole_scale) return;
  double sum = 0;
  for (const double part : partial) sum += part;
  const A rounded = A(sum);
  to.scale.put(0, 1, &rounded);
}

// The gradient of a target that several samples share: the sum over them, in order.
template <typename A>
void target_backward(const Inputs& in, const Reader<A>& upstream, const Writer<A>& to) {
  const Rows rows{in.items, in.rows.D};
  const Chunks<A> chunks(in);
  for_units<A>(rows, [&](int64_t unit, Work<A>& work) {
    const int64_t length = rows.length(unit), end = rows.begin(unit) + length;
    const auto add = [](auto a, auto b) { return a + b; };
    A* sum = work.terms.data;
    for (int64_t e = rows.begin(unit); e < end; e += kRowChunk) {
      const int64_t count = std::min(kRowChunk, end - e);
      const Slopes<A> at{work.d_location.data, work.d_scale.data, work.d_target.data};
      std::fill_n(sum, count, A(0));
      for (int64_t s = 0; s < in.samples; ++s) {
        spread(upstream, rows, s * in.items + rows.row(unit), length, work.upstream.data);
        chunks.slopes(s * in.period() + e, count, work, {}, at);
        core::map(count, sum, add, sum, at.target);
      }
      to.put(e, count, sum);
    }
  });
}
}  // namespace

std::tuple<Tensor, Tensor> likelihoods_forward(const Tensor& location, const MaybeTensor& scale,
                                               const MaybeTensor& target,
                                               const MaybeTensor& integers, const MaybeTensor& mask,
                                               int64_t kind, double fixed, int64_t levels,
                                               bool save) {
  const Inputs in = inputs_of(location, scale, target, integers, mask, kind, fixed, levels);
  const auto size = location.sizes();
  const bool sampled = (target ? *target : *integers).dim() < location.dim();
  Tensor nll = sampled ? new_tensor(location, {size[0], size[1]}) : new_tensor(location, {size[0]});
  const bool keep = save && in.kind == Likelihood::kLogistic;
  Tensor kept = keep ? new_large(location, {2, location.numel()}, accumulate_dtype(location))
                     : absent(location);
  dispatch_accumulate(location, [&]<typename A>(A) {
    forward(in, writer<A>(nll), keep ? data<A>(kept) : nullptr);
  });
  return {nll, kept};
}

std::tuple<Tensor, Tensor, Tensor> likelihoods_backward(
    const MaybeTensor& given, const Tensor& location, const MaybeTensor& scale,
    const MaybeTensor& target, const MaybeTensor& integers, const MaybeTensor& mask,
    const Tensor& kept, int64_t kind, double fixed, int64_t levels, bool needs_location,
    bool needs_scale, bool needs_target) {
  const Inputs in = inputs_of(location, scale, target, integers, mask, kind, fixed, levels);
  const Tensor upstream = dense(*given), slopes = dense(kept);
  const auto like = [&](bool wanted, const MaybeTensor& t) {
    return wanted ? new_large(*t, t->sizes()) : absent(location);
  };
  needs_scale &= scale.has_value(), needs_target &= target.has_value();
  Tensor d_location = like(needs_location, location);
  Tensor d_scale = like(needs_scale, scale), d_target = like(needs_target, target);
  dispatch_accumulate(location, [&]<typename A>(A) {
    const Gradients<A> to{writer<A>(d_location, needs_location), writer<A>(d_scale, needs_scale),
                          writer<A>(d_target, needs_target)};
    const Reader<A> from = reader<A>(upstream);
    const bool summed = in.samples != 1;
    if (to.location || to.scale || !summed) backward(in, from, data<const A>(slopes), to);
    if (to.target && summed) target_backward(in, from, to.target);
  });
  return {d_location, d_scale, d_target};
}

GENKERN_REGISTER(CPU, m) {
  GENKERN_OP(m, likelihoods_forward);
  GENKERN_OP(m, likelihoods_backward);
}

}  // namespace genkern::cpu
