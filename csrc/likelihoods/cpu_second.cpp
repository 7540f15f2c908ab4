// Double backward of the likelihoods: gradients of the gradients g dL/d(location, scale, target),
// along the directions v (`second_0` to `second_2`), in g, location, scale and target.
//
//   for (n < S N) for (d < D) d_upstream[n] += mask[n % N, d] ? v . grad L : 0;
//   for (n < S N) for (d < D) d_location[n, d] = mask[n % N, d] ? upstream[n] * L_m. v : 0; ...
//
// As in the backward pass, what belongs to one shared scale is a sum over all, and what belongs to
// the target a sum over the S samples.
#include "chunks.h"

namespace genkern::cpu {
namespace {

// Where what is formed of a chunk goes that is not written in place.
template <typename A>
struct Bends {
  Buffer<A> v_location, v_scale, v_target, along;
};

// The directions v; nothing is 0.
template <typename A>
struct Directions {
  Reader<A> location, scale, target;
  int64_t period;
  bool shared;

  Elements<A> at(int64_t first, int64_t count, Bends<A>& work) const {
    const A* along_target = repeated(target, first, count, period, work.v_target.data);
    const A* along_scale = shared ? nullptr : scale.at(first, count, work.v_scale.data);
    if (!along_scale) {
      std::fill_n(work.v_scale.data, count, scale ? scale[0] : A(0));
      along_scale = work.v_scale.data;
    }
    return {or_zeros(location.at(first, count, work.v_location.data), count, work.v_location),
            along_scale, or_zeros(along_target, count, work.v_target), A(0)};
  }

 private:
  static const A* or_zeros(const A* given, int64_t count, Buffer<A>& buffer) {
    if (given) return given;
    std::fill_n(buffer.data, count, A(0));
    return buffer.data;
  }
};

template <typename A>
struct Results {
  Writer<A> upstream, location, scale, target;
};

// `kept`: slopes of the integers' likelihood. Of the target only where there is one sample.
template <typename A>
void second(const Inputs& in, const Directions<A>& v, const Reader<A>& upstream, const A* kept,
            const Results<A>& to) {
  const Rows& rows = in.rows;
  const int64_t total = in.location.numel();
  const Chunks<A> chunks(in);
  core::RowSums<A> sums(rows, to.upstream);
  const bool whole_scale = to.scale && !in.shared();
  const Writer<A> target = in.samples == 1 ? to.target : Writer<A>();
  std::vector<double> partial(to.scale && in.shared() ? rows.units() : 0);
  for_units<A>(rows, [&](int64_t unit, Work<A>& work) {
    Bends<A> bends;
    const int64_t length = rows.length(unit), end = rows.begin(unit) + length;
    spread(upstream, rows, rows.row(unit), length, work.upstream.data);
    for (int64_t e = rows.begin(unit); e < end; e += kRowChunk) {
      const int64_t count = std::min(kRowChunk, end - e);
      const Slopes<A> at{to.location.at(e, work.d_location.data),
                         whole_scale ? to.scale.at(e, work.d_scale.data) : work.d_scale.data,
                         target.at(e, work.d_target.data)};
      A* first = const_cast<A*>(kept);  // only read
      chunks.bends(e, count, work, v.at(e, count, bends), {first + e, first + total + e},
                   bends.along.data, at);
      if (to.upstream) sums.add(unit, count, bends.along.data);
      to.location.put(e, count, at.location);
      if (whole_scale) to.scale.put(e, count, at.scale);
      if (!partial.empty())
        partial[unit] += core::sum<A>(count, [](auto value) { return value; }, at.scale);
      target.put(e, count, at.target);
    }
  });
  sums.write();
  if (!to.scale || whole_scale) return;
  double sum = 0;
  for (const double part : partial) sum += part;
  const A rounded = A(sum);
  to.scale.put(0, 1, &rounded);
}

// What the target gets that several samples share: the sum over them, in order.
template <typename A>
void second_of_target(const Inputs& in, const Directions<A>& v, const Reader<A>& upstream,
                      const Writer<A>& to) {
  const Rows rows{in.items, in.rows.D};
  const Chunks<A> chunks(in);
  for_units<A>(rows, [&](int64_t unit, Work<A>& work) {
    Bends<A> bends;
    const int64_t length = rows.length(unit), end = rows.begin(unit) + length;
    const auto add = [](auto a, auto b) { return a + b; };
    A* sum = work.terms.data;
    for (int64_t e = rows.begin(unit); e < end; e += kRowChunk) {
      const int64_t count = std::min(kRowChunk, end - e);
      const Slopes<A> at{work.d_location.data, work.d_scale.data, work.d_target.data};
      std::fill_n(sum, count, A(0));
      for (int64_t s = 0; s < in.samples; ++s) {
        const int64_t first = s * in.period() + e;
        spread(upstream, rows, s * in.items + rows.row(unit), length, work.upstream.data);
        chunks.bends(first, count, work, v.at(first, count, bends), {}, bends.along.data, at);
        core::map(count, sum, add, sum, at.target);
      }
      to.put(e, count, sum);
    }
  });
}

std::tuple<Tensor, Tensor, Tensor, Tensor> likelihoods_backward_backward(
    const MaybeTensor& second_location, const MaybeTensor& second_scale,
    const MaybeTensor& second_target, const MaybeTensor& given, const Tensor& location,
    const MaybeTensor& scale, const MaybeTensor& target, const MaybeTensor& integers,
    const MaybeTensor& mask, const Tensor& kept, int64_t kind, double fixed, int64_t levels, bool,
    bool, bool, bool needs_upstream, bool needs_location, bool needs_scale, bool needs_target) {
  const Inputs in = inputs_of(location, scale, target, integers, mask, kind, fixed, levels);
  const Tensor upstream = dense(*given), slopes = dense(kept);
  const MaybeTensor v[] = {dense(second_location), dense(second_scale), dense(second_target)};
  const auto like = [&](bool wanted, const MaybeTensor& t) {
    return wanted ? new_large(*t, t->sizes()) : absent(location);
  };
  needs_scale &= scale.has_value(), needs_target &= target.has_value();
  Tensor d_upstream = like(needs_upstream, given), d_location = like(needs_location, location);
  Tensor d_scale = like(needs_scale, scale), d_target = like(needs_target, target);
  dispatch_accumulate(location, [&]<typename A>(A) {
    const Results<A> to{writer<A>(d_upstream, needs_upstream),
                        writer<A>(d_location, needs_location), writer<A>(d_scale, needs_scale),
                        writer<A>(d_target, needs_target)};
    const Directions<A> along{reader<A>(v[0]), reader<A>(v[1]), reader<A>(v[2]), in.period(),
                              in.shared()};
    const Reader<A> from = reader<A>(upstream);
    const bool summed = in.samples != 1;
    if (to.upstream || to.location || to.scale || !summed)
      second(in, along, from, data<const A>(slopes), to);
    if (to.target && summed) second_of_target(in, along, from, to.target);
  });
  return {d_upstream, d_location, d_scale, d_target};
}

GENKERN_REGISTER(CPU, m) { GENKERN_OP(m, likelihoods_backward_backward); }

}  // namespace
}  // namespace genkern::cpu
