// What the passes of the likelihoods share: their tensors as chunks of A, on threads by units.
#pragma once
#include <atomic>
#include <vector>

#include "../bind.h"
#include "likelihoods.h"
#include "second.h"

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
    const int64_t begin = (first + done) % period;
    const int64_t size = std::min(count - done, period - begin);
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
  template <typename A>
  void load(int64_t first, int64_t count, int64_t period, A* to) const {
    for_pieces(first, count, period, [&](int64_t begin, int64_t done, int64_t size) {
      switch (tensor_->scalar_type()) {
        case ScalarType::Byte:
          return load_as<uint8_t>(begin, size, to + done);
        case ScalarType::Int:
          return load_as<int32_t>(begin, size, to + done);
        default:
          return load_as<int64_t>(begin, size, to + done);
      }
    });
  }
  void check() const {
    const int64_t bad = bad_;
    GENKERN_CHECK(bad == levels_, "discretized_logistic_nll: target must be in [0, ", levels_ - 1,
                  "]; got ", bad == kTooLarge ? levels_ : bad);
  }

 private:
  static constexpr int64_t kTooLarge = INT64_MIN;  // `levels_` itself says that none is bad

  template <typename T, typename A>
  void load_as(int64_t first, int64_t count, A* to) const {
    const T* from = static_cast<const T*>(tensor_->const_data_ptr()) + first;
    T kept[kRowChunk], lowest = 0, highest = 0;
    if (mask_) {
      for (int64_t i = 0; i < count; ++i) kept[i] = mask_[first + i] ? from[i] : T(0);
      from = kept;
    }
    for (int64_t i = 0; i < count; ++i) {
      lowest = std::min(lowest, from[i]);
      highest = std::max(highest, from[i]);
    }
    const A last = A(levels_ - 1);
    for (int64_t i = 0; i < count; ++i) to[i] = 2 * A(from[i]) - last;
    const int64_t low = lowest, high = highest;
    if (low < 0) bad_ = low;
    if (high >= levels_) bad_ = high == levels_ ? kTooLarge : high;
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
  Buffer<A> location, scale, target, terms, upstream, d_location, d_scale, d_target;
  core::LogisticWork<A> logistic;
};

// The tensors as A, by chunks.
template <typename A>
class Chunks {
 public:
  explicit Chunks(const Inputs& in)
      : kind_(in.kind),
        period_(in.period()),
        D_(in.rows.D),
        location_(reader<A>(in.location)),
        scale_(in.shared() ? Reader<A>() : reader<A>(in.scale)),
        target_(reader<A>(in.target)),
        shared_(in.scale && in.shared() ? reader<A>(in.scale)[0] : A(in.fixed)),
        mask_(static_cast<const uint8_t*>(in.mask ? in.mask->const_data_ptr() : nullptr)),
        bins_(std::max<int64_t>(2, in.levels)),
        integers_(in.integers, mask_, in.levels) {}

  // The slopes of the integers' likelihood go beside its terms, where they are to be kept.
  void terms(int64_t first, int64_t count, Work<A>& work, const Slopes<A>& kept) const {
    using namespace core;
    const Elements<A> of = at(first, count, work);
    A* to = work.terms.data;
    if (kind_ == Likelihood::kBernoulli && mask_)
      bernoulli_terms<EventNormaliser>(of, count, to);
    else if (kind_ == Likelihood::kBernoulli)
      for (int64_t i = 0; i < count; i += D_)
        event_row_terms(of.location + i, of.target + i, std::min(D_, count - i), to + i);
    if (kind_ == Likelihood::kContinuousBernoulli)
      bernoulli_terms<DensityNormaliser>(of, count, to);
    if (kind_ == Likelihood::kGaussian)
      (of.scale ? gaussian_terms<false, A> : gaussian_terms<true, A>)(of, count, to);
    if (kind_ == Likelihood::kLogistic) logistic_terms(of, count, bins_, work.logistic, to, kept);
    keep(first, count, to);
  }
  void slopes(int64_t first, int64_t count, Work<A>& work, const Slopes<A>& kept,
              const Slopes<A>& to) const {
    using namespace core;
    const A* g = work.upstream.data;
    if (kind_ == Likelihood::kLogistic) {
      const auto product = [](auto a, auto b) { return a * b; };
      map(count, to.location, product, kept.location, g);
      map(count, to.scale, product, kept.scale, g);
    } else {
      const Elements<A> of = at(first, count, work);
      if (kind_ == Likelihood::kBernoulli) event_slopes(of, count, g, to);
      if (kind_ == Likelihood::kContinuousBernoulli)
        bernoulli_slopes<DensityNormaliser>(of, count, g, to);
      if (kind_ == Likelihood::kGaussian)
        (of.scale ? gaussian_slopes<false, A> : gaussian_slopes<true, A>)(of, count, g, to);
    }
    keep(first, count, to.location);
    if (kind_ >= Likelihood::kGaussian) keep(first, count, to.scale);
    if (to.target) keep(first, count, to.target);
  }
  // Second derivatives along v: `along` and `to` of second.h.
  void bends(int64_t first, int64_t count, Work<A>& work, const Elements<A>& v,
             const Slopes<A>& kept, A* along, const Slopes<A>& to) const {
    using namespace core;
    const A* g = work.upstream.data;
    const Elements<A> of = at(first, count, work);
    if (kind_ == Likelihood::kBernoulli) bernoulli_bends<EventVariance>(of, v, count, g, along, to);
    if (kind_ == Likelihood::kContinuousBernoulli)
      bernoulli_bends<DensityVariance>(of, v, count, g, along, to);
    if (kind_ == Likelihood::kGaussian)
      (of.scale ? gaussian_bends<false, A> : gaussian_bends<true, A>)(of, v, count, g, along, to);
    if (kind_ == Likelihood::kLogistic) logistic_bends(of, v, kept, count, bins_, g, along, to);
    for (A* found : {along, to.location}) keep(first, count, found);
    if (kind_ >= Likelihood::kGaussian) keep(first, count, to.scale);
    if (kind_ != Likelihood::kLogistic) keep(first, count, to.target);
  }
  void check() const {
    if (integers_) integers_.check();
  }

 private:
  Elements<A> at(int64_t first, int64_t count, Work<A>& work) const {
    const A* target = repeated(target_, first, count, period_, work.target.data);
    if (integers_) integers_.load(first, count, period_, work.target.data);
    return {location_.at(first, count, work.location.data),
            scale_.at(first, count, work.scale.data), integers_ ? work.target.data : target,
            shared_};
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
  int64_t period_, D_;
  Reader<A> location_, scale_, target_;
  A shared_;
  const uint8_t* mask_;
  core::Bins<A> bins_;
  Integers integers_;
};

// Calls f(unit, work) for every unit. A thread takes neighbouring ones: rows share pages.
template <typename A, typename F>
void for_units(const Rows& rows, const F& f) {
  constexpr int64_t kTurns = 8;  // of each thread
  const int64_t units = rows.units(), grain = rows.grain();
  const int64_t runs = std::min((units + grain - 1) / grain, num_threads() * kTurns);
  parallel_units(runs, 1, [&](Units taken) {
    Work<A> work;
    for (const int64_t run : taken)
      for (int64_t unit = units * run / runs; unit < units * (run + 1) / runs; ++unit)
        f(unit, work);
  });
}

// The upstream gradient of each element of a unit's chunks, whose rows start at `row`.
template <typename A>
void spread(const Reader<A>& upstream, const Rows& rows, int64_t row, int64_t length, A* to) {
  const int64_t each = std::min(kRowChunk, rows.D);
  for (int64_t i = 0; i < std::min(kRowChunk, length); i += rows.D)
    std::fill_n(to + i, each, upstream[row + i / rows.D]);
}

}  // namespace
}  // namespace genkern::cpu
