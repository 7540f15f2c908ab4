// The backward pass of the Gaussian ops: one unit of rows at a time, and gradients of parameters
// that are broadcast.
#pragma once
#include <algorithm>

#include "inputs.h"

namespace genkern::cpu {

// Gradients of the results; null where nothing depends on one.
template <typename A>
struct Upstream {
  Reader<A> z, kl, log_prob;
  Kind kind;
};
template <typename A>
struct Gradients {
  Writer<A> mu, logvar, prior_mu, prior_logvar, eps;
};

// Adds to each element of a chunk of `unit` what its row has; `first` is row 0.
template <typename A>
void add_of_rows(const Reader<A>& from, int64_t first, const Rows& rows, int64_t unit,
                 int64_t length, A* to) {
  const int64_t each = std::min(kRowChunk, rows.D);
  for (int64_t i = 0; i < std::min(kRowChunk, length); i += rows.D) {
    const A value = from[first + rows.row(unit) + i / rows.D];
    for (int64_t k = 0; k < each; ++k) to[i + k] += value;
  }
}

template <typename A>
class Backward {
 public:
  Backward(const Inputs& in, const Rows& rows, A free_bits, const Upstream<A>& d,
           const Gradients<A>& to)
      : in_(in),
        rows_(rows),
        d_(d),
        to_(to),
        free_bits_(free_bits),
        has_floor_(d.kl && free_bits > 0),
        samples_(d.z || (d.log_prob && to.eps) ? in.samples : 0),
        first_loop_(backward_loop<A>(bool(d.kl), in.prior(), samples_ > 0)),
        kl_loop_(forward_loop<A>(in.prior(), false)),
        parameters_(in.parameters<A>()),
        noise_(in.noise<A>()) {
    if (samples_ && !d.z) std::fill_n(zeros_.data, kRowChunk, A(0));
  }

  void unit(int64_t unit) {
    const int64_t length = rows_.length(unit), end = rows_.begin(unit) + length;
    if (d_.kl && d_.kind == kRows) {
      clear(of_rows_, length);
      add_of_rows(d_.kl, 0, rows_, unit, length, of_rows_.data);
    }
    if (d_.log_prob) clear(of_log_prob_, length);
    for (int64_t s = 0; d_.log_prob && s < in_.samples; ++s)
      add_of_rows(d_.log_prob, s * rows_.count, rows_, unit, length, of_log_prob_.data);
    for (int64_t e = rows_.begin(unit); e < end; e += kRowChunk)
      chunk(unit, e, std::min(kRowChunk, end - e));
  }

 private:
  static void clear(Buffer<A>& buffer, int64_t length) {
    std::fill_n(buffer.data, std::min(kRowChunk, length), A(0));
  }

  void chunk(int64_t unit, int64_t e, int64_t count) {
    const GaussianChunk<A> q = parameters_.at(e, count);
    const GaussianGradients<A> grad{
        to_.mu.at(e, buffers_[0].data), to_.logvar.at(e, buffers_[1].data),
        to_.prior_mu.at(e, buffers_[2].data), to_.prior_logvar.at(e, buffers_[3].data)};
    const A* d_kl = upstream_of_kl(q, e, count);
    if (samples_ > 1) core::sigma_chunk(q.logvar, sigma_.data, count);
    for (int64_t s = 0; s < std::max<int64_t>(1, samples_); ++s) {
      const int64_t drawn = s * in_.total() + e;
      const A* eps = samples_ ? noise_.get(drawn, count, (s + 1) * in_.total()) : nullptr;
      const A* d_z = d_.z ? d_.z.at(drawn, count, d_z_.data) : zeros_.data;
      A* d_eps = to_.eps ? to_.eps.at(drawn, d_eps_.data) : nullptr;
      if (s == 0)
        first_loop_(q, d_kl, eps, d_z, grad, d_eps, count);
      else
        core::gaussian_sample_backward_chunk(sigma_.data, eps, d_z, grad, d_eps, count);
      if (d_.log_prob && d_eps) {
        clear(d_z_, count);
        add_of_rows(d_.log_prob, s * rows_.count, rows_, unit, count, d_z_.data);
        const auto minus = [](auto g, auto e, auto d) { return g - e * d; };
        core::map(count, d_eps, minus, d_eps, eps, d_z_.data);
      }
      if (samples_) to_.eps.put(drawn, count, d_eps);
    }
    finish(grad, e, count);
  }

  const A* upstream_of_kl(const GaussianChunk<A>& q, int64_t e, int64_t count) {
    const A* given = d_.kind == kElements && d_.kl ? d_.kl.at(e, count, d_kl_.data) : of_rows_.data;
    if (!has_floor_) return given;
    // Elements at the floor have no gradient of the KL.
    const A floor = free_bits_;
    const auto above = [=](auto kl, auto g) { return core::zero_below(floor, kl, g); };
    kl_loop_(q, A(0), nullptr, terms_.data, nullptr, count);
    core::map(count, d_kl_.data, above, terms_.data, given);
    return d_kl_.data;
  }

  void finish(const GaussianGradients<A>& grad, int64_t e, int64_t count) {
    if (in_.prior() && !d_.kl) {
      std::fill_n(grad.prior_mu, count, A(0));
      std::fill_n(grad.prior_logvar, count, A(0));
    }
    if (d_.log_prob) {
      const auto minus_half = [](auto g, auto d) { return g - A(0.5) * d; };
      core::map(count, grad.logvar, minus_half, grad.logvar, of_log_prob_.data);
    }
    parameters_.to_given(1, e, count, grad.logvar);
    parameters_.to_given(3, e, count, grad.prior_logvar);
    to_.mu.put(e, count, grad.mu);
    to_.logvar.put(e, count, grad.logvar);
    to_.prior_mu.put(e, count, grad.prior_mu);
    to_.prior_logvar.put(e, count, grad.prior_logvar);
  }

  const Inputs& in_;
  const Rows& rows_;
  const Upstream<A>& d_;
  const Gradients<A>& to_;
  A free_bits_;
  bool has_floor_;
  int64_t samples_;
  decltype(backward_loop<A>(true, true, true)) first_loop_;
  decltype(forward_loop<A>(true, true)) kl_loop_;
  Parameters<A> parameters_;
  Noise<A> noise_;
  Buffer<A> buffers_[4], of_rows_, of_log_prob_, d_kl_, terms_, sigma_, d_z_, d_eps_, zeros_;
};

// The gradient of one of the parameters: written in place or, of a tensor that is broadcast, first
// of every element, and then summed in an order that the shapes fix.
template <typename A>
class Gradient {
 public:
  Gradient(const Inputs& in, int which, const Tensor& to, bool wanted)
      : shape_(in.shapes[which]), total_(in.total()), to_(writer<A>(to, wanted)) {
    if (wanted && shape_.any()) full_.emplace(to, total_);
  }
  Writer<A> writer_of_elements() const {
    return full_ ? Writer<A>{full_->get(), core::Storage::kSame} : to_;
  }
  void sum(const Tensor& like) const {
    if (!full_) return;
    const int64_t own = shape_.own(), repeats = total_ / own;  // own is 0 only where total is
    const int64_t parts = std::min<int64_t>(16, repeats),
                  each = parts ? (repeats + parts - 1) / parts * own : 0;
    const Scratch<double> sums(like, parts * own, true);
    parallel_units(parts, 1, [&](Units units) {
      for (const int64_t part : units)
        shape_.add(full_->get(), std::min(total_, part * each), std::min(total_, (part + 1) * each),
                   sums.get() + part * own);
    });
    for (int64_t i = 0; i < own; ++i) {
      double sum = 0;
      for (int64_t part = 0; part < parts; ++part) sum += sums.get()[part * own + i];
      const A rounded = A(sum);
      to_.put(i, 1, &rounded);
    }
  }

 private:
  const Broadcast& shape_;
  int64_t total_;
  Writer<A> to_;
  std::optional<Scratch<A>> full_;
};

}  // namespace genkern::cpu
