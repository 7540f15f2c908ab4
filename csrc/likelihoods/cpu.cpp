// nll (N,) or (S, N) of independent elements: location and scale (S, N, D), target and mask (N, D),
// the same for every sample.
//
//   for (n < S N) for (d < D) nll[n] += mask[n % N, d] ? nats(location[n, d], ...) : 0;
//   for (n < S N) for (d < D) d_location[n, d] = mask[n % N, d] ? upstream[n] * slope : 0;
//
// The gradient of one shared scale is the sum over all, that of the target the sum over S.
#include <atomic>
#include <vector>

#include "../bind.h"
#include "likelihoods.h"

namespace genkern::cpu {
namespace {

using core::Elements;
using core::kRowChunk;
using core::Likelihood;
using core::Reader;
using core::Rows;
using core::Slopes;
using core::Writer;
using MaybeTensor = std::optional<Tensor>;
template <typename A>
using Buffer = core::Buffer<A, kRowChunk>;

// ---- what is read ----------------------------------------------------------------------------

// Calls f(begin, done, count) for the pieces of elements first, ..., first + count - 1 of a tensor
// of `period` elements that is repeated: element `begin` of it is the one at `done`.
template <typename F>
void for_pieces(int64_t first, int64_t count, int64_t period, const F& f) {
  for (int64_t done = 0; done < count;) {
    const int64_t begin = (first + done) % period, size = std::min(count - done, period - begin);
    f(begin, done, size);
    done += size;
  }
}

template <typename A>
const A* repeated(const Reader<A>& from, int64_t first, int64_t count, int64_t period, A* buffer) {
  if (!from) return nullptr;
  const int64_t begin = first % period;
  if (begin + count <= period) return from.at(begin, count, buffer);
  for_pieces(first, count, period, [&](int64_t at, int64_t done, int64_t size) {
    const A* values = from.at(at, size, buffer + done);
    if (values != buffer + done) std::copy_n(values, size, buffer + done);
  });
  return buffer;
}

// Integers of any type as 2 v - (levels - 1); remembers one that is no level, unless it is masked.
class Integers {
 public:
  Integers(const MaybeTensor& target, const uint8_t* mask, int64_t levels)
      : tensor_(target), mask_(mask), levels_(levels), bad_(levels) {}

  explicit operator bool() const { return tensor_.has_value(); }
  void load(int64_t first, int64_t count, int64_t period, double* to) const {
    switch (tensor_->scalar_type()) {
      case ScalarType::Byte:
        return load_as<uint8_t>(first, count, period, to);
      case ScalarType::Int:
        return load_as<int32_t>(first, count, period, to);
      default:
        return load_as<int64_t>(first, count, period, to);
    }
  }
  void check() const {
    const int64_t bad = bad_;
    GENKERN_CHECK(bad == levels_, "discretized_logistic_nll: target must be in [0, ", levels_ - 1,
                  "]; got ", bad == kTooLarge ? levels_ : bad);
  }

 private:
  static constexpr int64_t kTooLarge = INT64_MIN;  // `levels_` itself says that none is bad

  template <typename T>
  void load_as(int64_t first, int64_t count, int64_t period, double* to) const {
    const T* from = static_cast<const T*>(tensor_->const_data_ptr());
    for_pieces(first, count, period, [&](int64_t begin, int64_t done, int64_t size) {
      int64_t lowest = 0, highest = 0;
      for (int64_t i = 0; i < size; ++i) {
        int64_t v = from[begin + i];
        if (mask_ && !mask_[begin + i]) v = 0;
        lowest = std::min(lowest, v), highest = std::max(highest, v);
        to[done + i] = double(2 * v - (levels_ - 1));
      }
      const int64_t bad = lowest < 0 ? lowest : highest;
      if (lowest < 0 || highest >= levels_) bad_ = bad == levels_ ? kTooLarge : bad;
    });
  }

  MaybeTensor tensor_;
  const uint8_t* mask_;
  int64_t levels_;
  mutable std::atomic<int64_t> bad_;
};

// The tensors of a call, and how they are laid out.
struct Inputs {
  Tensor location;
  MaybeTensor scale, target, integers, mask;
  Likelihood kind;
  double fixed;  // the scale where there is no tensor
  int64_t levels, samples, items;
  Rows rows;

  int64_t period() const { return items * rows.D; }
  bool shared() const { return !scale || (scale->numel() == 1 && location.numel() != 1); }
};

Inputs inputs_of(const Tensor& location, const MaybeTensor& scale, const MaybeTensor& target,
                 const MaybeTensor& integers, const MaybeTensor& mask, int64_t kind, double fixed,
                 int64_t levels) {
  const auto size = location.sizes();
  const int64_t batch = location.dim() - (target ? *target : *integers).dim() + 1;
  int64_t rows = 1, D = 1;
  for (int64_t i = 0; i < location.dim(); ++i) (i < batch ? rows : D) *= size[i];
  return {dense(location),  dense(scale), dense(target), dense(integers),          dense(mask),
          Likelihood(kind), fixed,        levels,        batch == 2 ? size[0] : 1, size[batch - 1],
          {rows, D}};
}

// What one thread works in.
template <typename A>
struct Work {
  Buffer<A> location, scale, target, terms, upstream;
  Buffer<double> integers;
  Buffer<A> d_location, d_scale, d_target;
  core::LogisticWork<A> logistic;
};

// The tensors as A, by chunks.
template <typename A>
class Chunks {
 public:
  explicit Chunks(const Inputs& in)
      : kind_(in.kind),
        period_(in.period()),
        location_(reader<A>(in.location)),
        scale_(in.shared() ? Reader<A>() : reader<A>(in.scale)),
        target_(reader<A>(in.target)),
        shared_(in.scale && in.shared() ? reader<A>(in.scale)[0] : A(in.fixed)),
        mask_(static_cast<const uint8_t*>(in.mask ? in.mask->const_data_ptr() : nullptr)),
        bins_(std::max<int64_t>(2, in.levels)),
        integers_(in.integers, mask_, in.levels) {}

  void terms(int64_t first, int64_t count, Work<A>& work) const {
    using namespace core;
    const Elements<A> of = at(first, count, work);
    A* to = work.terms.data;
    if (kind_ == Likelihood::kBernoulli) bernoulli_terms<EventNormaliser>(of, count, to);
    if (kind_ == Likelihood::kContinuousBernoulli)
      bernoulli_terms<DensityNormaliser>(of, count, to);
    if (kind_ == Likelihood::kGaussian)
      (of.scale ? gaussian_terms<false, A> : gaussian_terms<true, A>)(of, count, to);
    if (kind_ == Likelihood::kLogistic) logistic_terms(of, count, bins_, work.logistic, to);
    keep(first, count, to);
  }
  void slopes(int64_t first, int64_t count, Work<A>& work, const Slopes<A>& to) const {
    using namespace core;
    const Elements<A> of = at(first, count, work);
    const A* g = work.upstream.data;
    if (kind_ == Likelihood::kBernoulli) bernoulli_slopes<EventNormaliser>(of, count, g, to);
    if (kind_ == Likelihood::kContinuousBernoulli)
      bernoulli_slopes<DensityNormaliser>(of, count, g, to);
    if (kind_ == Likelihood::kGaussian)
      (of.scale ? gaussian_slopes<false, A> : gaussian_slopes<true, A>)(of, count, g, to);
    if (kind_ == Likelihood::kLogistic) logistic_slopes(of, count, bins_, work.logistic, g, to);
    keep(first, count, to.location);
    if (kind_ >= Likelihood::kGaussian) keep(first, count, to.scale);
    if (to.target) keep(first, count, to.target);
  }
  void check() const {
    if (integers_) integers_.check();
  }

 private:
  Elements<A> at(int64_t first, int64_t count, Work<A>& work) const {
    if (integers_) integers_.load(first, count, period_, work.integers.data);
    return {
        location_.at(first, count, work.location.data), scale_.at(first, count, work.scale.data),
        repeated(target_, first, count, period_, work.target.data), shared_, work.integers.data};
  }
  // 0 where an element is masked, whatever has come out there.
  void keep(int64_t first, int64_t count, A* values) const {
    if (!mask_) return;
    for_pieces(first, count, period_, [&](int64_t begin, int64_t done, int64_t size) {
      for (int64_t i = 0; i < size; ++i)
        values[done + i] = mask_[begin + i] ? values[done + i] : A(0);
    });
  }

  Likelihood kind_;
  int64_t period_;
  Reader<A> location_, scale_, target_;
  A shared_;
  const uint8_t* mask_;
  core::Bins<A> bins_;
  Integers integers_;
};

// ---- both passes -----------------------------------------------------------------------------

template <typename A>
void forward(const Inputs& in, const Writer<A>& to) {
  const Rows& rows = in.rows;
  const Chunks<A> chunks(in);
  core::RowSums<A> sums(rows, to);
  parallel_units(rows.units(), rows.grain(), [&](Units taken) {
    Work<A> work;
    for (const int64_t unit : taken) {
      const int64_t end = rows.begin(unit) + rows.length(unit);
      for (int64_t e = rows.begin(unit); e < end; e += kRowChunk) {
        const int64_t count = std::min(kRowChunk, end - e);
        chunks.terms(e, count, work);
        sums.add(unit, count, work.terms.data);
      }
    }
  });
  sums.write();
  chunks.check();
}

// The upstream gradient of each element of a unit's chunks, whose rows start at `row`.
template <typename A>
void spread(const Reader<A>& upstream, const Rows& rows, int64_t row, int64_t length, A* to) {
  const int64_t each = std::min(kRowChunk, rows.D);
  for (int64_t i = 0; i < std::min(kRowChunk, length); i += rows.D)
    std::fill_n(to + i, each, upstream[row + i / rows.D]);
}

template <typename A>
struct Gradients {
  Writer<A> location, scale, target;
};

// Gradients of each element; of the target only where there is one sample.
template <typename A>
void backward(const Inputs& in, const Reader<A>& upstream, const Gradients<A>& to) {
  const Rows& rows = in.rows;
  const Chunks<A> chunks(in);
  const bool whole_scale = to.scale && !in.shared(), with_target = to.target && in.samples == 1;
  std::vector<double> partial(to.scale && in.shared() ? rows.units() : 0);
  parallel_units(rows.units(), rows.grain(), [&](Units taken) {
    Work<A> work;
    for (const int64_t unit : taken) {
      const int64_t length = rows.length(unit), end = rows.begin(unit) + length;
      spread(upstream, rows, rows.row(unit), length, work.upstream.data);
      for (int64_t e = rows.begin(unit); e < end; e += kRowChunk) {
        const int64_t count = std::min(kRowChunk, end - e);
        const Slopes<A> at{to.location.at(e, work.d_location.data),
                           whole_scale ? to.scale.at(e, work.d_scale.data) : work.d_scale.data,
                           with_target ? to.target.at(e, work.d_target.data) : nullptr};
        chunks.slopes(e, count, work, at);
        to.location.put(e, count, at.location);
        if (whole_scale) to.scale.put(e, count, at.scale);
        if (!partial.empty())
          partial[unit] += core::sum<A>(count, [](auto v) { return v; }, at.scale);
        if (with_target) to.target.put(e, count, at.target);
      }
    }
  });
  if (!to.scale || whole_scale) return;
  double total = 0;
  for (const double part : partial) total += part;
  const A rounded = A(total);
  to.scale.put(0, 1, &rounded);
}

// The gradient of a target that several samples share: the sum over them, in order.
template <typename A>
void target_backward(const Inputs& in, const Reader<A>& upstream, const Writer<A>& to) {
  const Rows rows{in.items, in.rows.D};
  const Chunks<A> chunks(in);
  parallel_units(rows.units(), rows.grain(), [&](Units taken) {
    Work<A> work;
    Buffer<A> total;
    for (const int64_t unit : taken) {
      const int64_t length = rows.length(unit), end = rows.begin(unit) + length;
      for (int64_t e = rows.begin(unit); e < end; e += kRowChunk) {
        const int64_t count = std::min(kRowChunk, end - e);
        std::fill_n(total.data, count, A(0));
        for (int64_t s = 0; s < in.samples; ++s) {
          spread(upstream, rows, s * in.items + rows.row(unit), length, work.upstream.data);
          chunks.slopes(s * in.period() + e, count, work,
                        {work.d_location.data, work.d_scale.data, work.d_target.data});
          core::map(
              count, total.data, [](auto a, auto b) { return a + b; }, total.data,
              work.d_target.data);
        }
        to.put(e, count, total.data);
      }
    }
  });
}
}  // namespace

Tensor likelihoods_forward(const Tensor& location, const MaybeTensor& scale,
                           const MaybeTensor& target, const MaybeTensor& integers,
                           const MaybeTensor& mask, int64_t kind, double fixed, int64_t levels) {
  const Inputs in = inputs_of(location, scale, target, integers, mask, kind, fixed, levels);
  const auto size = location.sizes();
  const bool sampled = (target ? *target : *integers).dim() < location.dim();
  Tensor nll = sampled ? new_tensor(location, {size[0], size[1]}) : new_tensor(location, {size[0]});
  dispatch_accumulate(location, [&]<typename A>(A) { forward(in, writer<A>(nll)); });
  return nll;
}

std::tuple<Tensor, Tensor, Tensor> likelihoods_backward(
    const MaybeTensor& given, const Tensor& location, const MaybeTensor& scale,
    const MaybeTensor& target, const MaybeTensor& integers, const MaybeTensor& mask, int64_t kind,
    double fixed, int64_t levels, bool needs_location, bool needs_scale, bool needs_target) {
  const Inputs in = inputs_of(location, scale, target, integers, mask, kind, fixed, levels);
  const Tensor upstream = dense(*given);
  const auto like = [&](bool wanted, const MaybeTensor& t) {
    return wanted ? new_large(*t, t->sizes()) : absent(location);
  };
  needs_scale &= scale.has_value(), needs_target &= target.has_value();
  Tensor d_location = like(needs_location, location);
  Tensor d_scale = like(needs_scale, scale), d_target = like(needs_target, target);
  dispatch_accumulate(location, [&]<typename A>(A) {
    const Gradients<A> to{writer<A>(d_location, needs_location), writer<A>(d_scale, needs_scale),
                          writer<A>(d_target, needs_target)};
    const bool summed = in.samples != 1;
    if (to.location || to.scale || !summed) backward(in, reader<A>(upstream), to);
    if (to.target && summed) target_backward(in, reader<A>(upstream), to.target);
  });
  return {d_location, d_scale, d_target};
}

GENKERN_REGISTER(CPU, m) {
  GENKERN_OP(m, likelihoods_forward);
  GENKERN_OP(m, likelihoods_backward);
}

}  // namespace genkern::cpu
