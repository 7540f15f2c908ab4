// What the Gaussian loops read and add up, by chunks of the elements of mu in logical order:
// parameters that may be broadcast, on one of three scales, and the noise.
#pragma once
#include <algorithm>
#include <span>
#include <vector>

#include "../core/philox.h"
#include "gaussian.h"

namespace genkern::core {

// How a dense tensor is broadcast to the shape of mu. Dimensions are taken together where they are
// alike, innermost first:
//
//   mu (N, C, H, W), logvar (C, 1, 1):   { H W, step 0 }, { C, step 1 }, { N, step 0 }
//
// The innermost one is a run: along it the elements of the tensor stay, or step by one.
class Broadcast {
 public:
  Broadcast() = default;
  Broadcast(std::span<const int64_t> mu, std::span<const int64_t> own) {
    if (std::equal(mu.begin(), mu.end(), own.begin(), own.end())) return;
    int64_t step = 1;
    for (size_t i = 0; i < mu.size(); ++i) {
      const int64_t size = mu[mu.size() - 1 - i];
      const bool kept = i < own.size() && own[own.size() - 1 - i] == size;
      elements_ *= size;
      if (size == 1) continue;
      if (!dims_.empty() && (dims_.back().step > 0) == kept)
        dims_.back().size *= size;
      else
        dims_.push_back({size, kept ? step : 0});
      if (kept) step *= size;
    }
    own_ = step;
  }

  bool any() const { return own_ != elements_; }
  int64_t own() const { return own_; }  // elements of the tensor

  // Elements first, ..., first + count - 1 of the broadcast tensor.
  template <typename A>
  void fill(const Reader<A>& from, int64_t first, int64_t count, A* to) const {
    for_runs(first, first + count, [&](int64_t e, int64_t n, int64_t own, bool steps) {
      A* at = to + (e - first);
      if (!steps)
        std::fill_n(at, n, from[own]);
      else if (const A* source = from.at(own, n, at); source != at)
        std::copy_n(source, n, at);
    });
  }
  // Adds elements [begin, end) of a gradient to those of the tensor, in order.
  template <typename A>
  void add(const A* gradient, int64_t begin, int64_t end, double* to) const {
    for_runs(begin, end, [&](int64_t e, int64_t n, int64_t own, bool steps) {
      for (int64_t i = 0; steps && i < n; ++i) to[own + i] += gradient[e + i];
      for (int64_t i = 0; !steps && i < n; i += kRowChunk)
        to[own] += sum_span(gradient + e + i, std::min(kRowChunk, n - i));
    });
  }

 private:
  struct Dim {
    int64_t size, step;
  };
  // Calls f(element, elements, place in the tensor, whether it steps) for every piece of a run.
  template <typename F>
  void for_runs(int64_t begin, int64_t end, const F& f) const {
    const int64_t run = dims_.empty() ? 1 : dims_[0].size;
    for (int64_t e = begin, n; e < end; e += n) {
      n = std::min(end - e, run - e % run);
      int64_t own = 0, rest = e;
      for (const auto& [size, step] : dims_) own += rest % size * step, rest /= size;
      f(e, n, own, !dims_.empty() && dims_[0].step > 0);
    }
  }
  std::vector<Dim> dims_;
  int64_t elements_ = 1, own_ = 1;
};

// Where the noise of one thread comes from: given, or the Philox stream of a seed.
template <typename A>
class Noise {
 public:
  Noise(const Reader<A>& eps, const int64_t* seed)
      : eps_(eps), stream_(seed ? uint64_t(*seed) : 0) {}

  const A* get(int64_t first, int64_t count, int64_t end) {
    return eps_ ? eps_.at(first, count, given_.data) : stream_.get(first, count, end);
  }

 private:
  static_assert(NormalStream<A>::kWindow >= kRowChunk);
  Reader<A> eps_;
  NormalStream<A> stream_;
  Buffer<A, kRowChunk> given_;
};

// One thread's view of mu, logvar and those of the prior, by chunks.
template <typename A>
class Parameters {
 public:
  struct Input {
    Reader<A> from;
    const Broadcast* shape;
  };
  Parameters(const Input (&inputs)[4], Scale scale) : scale_(scale) {
    std::copy_n(inputs, 4, inputs_);
  }

  GaussianChunk<A> at(int64_t first, int64_t count) {
    const A* found[4];
    for (int i = 0; i < 4; ++i) {
      found[i] = given(i, first, count, buffers_[i].data);
      if (i % 2 == 1 && found[i] && scale_ != Scale::kLogvar) {
        to_logvar(scale_, found[i], buffers_[i].data, count);
        found[i] = buffers_[i].data;
      }
    }
    return {found[0], found[1], found[2], found[3]};
  }
  // Makes of a gradient of logvar (1) or of the prior's (3) that of what was given.
  void to_given(int which, int64_t first, int64_t count, A* gradient) {
    if (scale_ == Scale::kLogvar || !inputs_[which].from) return;
    times_slope(scale_, given(which, first, count, slopes_.data), gradient, count);
  }

 private:
  const A* given(int i, int64_t first, int64_t count, A* buffer) const {
    const auto& [from, shape] = inputs_[i];
    if (!from || !shape->any()) return from.at(first, count, buffer);
    shape->fill(from, first, count, buffer);
    return buffer;
  }
  Input inputs_[4];
  Scale scale_;
  Buffer<A, kRowChunk> buffers_[4], slopes_;
};

}  // namespace genkern::core
