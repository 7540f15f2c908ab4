// z (num_samples, N, D), kl (N,) or (N, D) and log_prob (num_samples, N) of diagonal Gaussians mu,
// logvar (N, D), in one pass over the inputs:
//
//   for (n = 0; n < N; ++n)
//     for (d = 0; d < D; ++d) {
//       kl[n] += max(KL(mu[n, d], logvar[n, d]), free_bits);
//       for (s = 0; s < num_samples; ++s) {
//         z[s, n, d] = mu[n, d] + exp(logvar[n, d] / 2) * eps[s, n, d];
//         log_prob[s, n] -= (eps[s, n, d]^2 + logvar[n, d] + log(2 pi)) / 2;
//       }
//     }
//
// Short rows are worked off several at a time, long ones in segments (core/loops.h: Rows).
#include <algorithm>
#include <vector>

#include "../bind.h"
#include "chunks.h"

namespace genkern::cpu {
namespace {

using core::Broadcast;
using core::GaussianChunk;
using core::GaussianGradients;
using core::kRowChunk;
using core::Noise;
using core::Parameters;
using core::Reader;
using core::Rows;
using core::RowSums;
using core::Scale;
using core::Writer;

using MaybeTensor = std::optional<Tensor>;
template <typename A>
using Buffer = core::Buffer<A, kRowChunk>;
enum KlOf { kNone, kRows, kElements };

Rows rows_of(const Tensor& mu) {
  const int64_t rows = mu.size(0);
  return {rows, rows ? mu.numel() / rows : 0};
}

// The tensors that both passes read: mu, logvar and those of the prior, and the noise.
struct Inputs {
  Inputs(const Tensor& mu, const Tensor& logvar, const MaybeTensor& prior_mu,
         const MaybeTensor& prior_logvar, const MaybeTensor& eps, const MaybeTensor& seed,
         std::optional<int64_t> num_samples, int64_t scale)
      : given{dense(mu), dense(logvar), dense(prior_mu), dense(prior_logvar)},
        eps(dense(eps)),
        seed(seed),
        samples(eps.has_value() || seed.has_value() ? num_samples.value_or(1) : 0),
        scale(Scale(scale)) {
    for (int i = 0; i < 4; ++i)
      if (given[i]) shapes[i] = Broadcast(span_of(mu), span_of(*given[i]));
  }

  int64_t total() const { return given[0]->numel(); }
  bool prior() const { return given[2].has_value(); }
  template <typename A>
  Parameters<A> parameters() const {
    const auto input = [&](int i) {
      return typename Parameters<A>::Input{reader<A>(given[i]), &shapes[i]};
    };
    return {{input(0), input(1), input(2), input(3)}, scale};
  }
  template <typename A>
  Noise<A> noise() const {
    return {reader<A>(eps), data<const int64_t>(seed)};
  }

  MaybeTensor given[4];
  Broadcast shapes[4];
  MaybeTensor eps, seed;
  int64_t samples;  // of the noise; 0 without any
  Scale scale;

 private:
  static std::span<const int64_t> span_of(const Tensor& t) {
    return {t.sizes().data(), t.sizes().size()};
  }
};

// The loop that forms the KL, and a sample beside it or none.
template <typename A>
auto forward_loop(bool prior, bool sample) {
  using core::gaussian_chunk;
  if (prior)
    return sample ? &gaussian_chunk<true, true, true, A> : &gaussian_chunk<true, false, true, A>;
  return sample ? &gaussian_chunk<true, true, false, A> : &gaussian_chunk<true, false, false, A>;
}
template <typename A>
auto backward_loop(bool kl, bool prior, bool sample) {
  using core::gaussian_backward_chunk;
  if (!kl)
    return sample ? &gaussian_backward_chunk<false, true, false, A>
                  : &gaussian_backward_chunk<false, false, false, A>;
  if (prior)
    return sample ? &gaussian_backward_chunk<true, true, true, A>
                  : &gaussian_backward_chunk<true, false, true, A>;
  return sample ? &gaussian_backward_chunk<true, true, false, A>
                : &gaussian_backward_chunk<true, false, false, A>;
}

template <typename A>
struct Results {
  Writer<A> z, kl_elements;
  RowSums<A> kl;
  std::vector<RowSums<A>> log_prob;  // of each sample
};

template <typename A>
void forward(const Inputs& in, const Rows& rows, A free_bits, KlOf kl, Results<A>& to) {
  const int64_t total = in.total();
  const auto first_loop =
      kl ? forward_loop<A>(in.prior(), in.samples) : &core::gaussian_chunk<false, true, false, A>;
  if (!kl && !in.samples) return;
  parallel_for(0, rows.units(), rows.grain(), [&](int64_t begin_unit, int64_t end_unit) {
    auto parameters = in.parameters<A>();
    auto noise = in.noise<A>();
    Buffer<A> terms, z_buffer, sigma;
    for (int64_t unit = begin_unit; unit < end_unit; ++unit) {
      const int64_t end = rows.begin(unit) + rows.length(unit);
      for (int64_t e = rows.begin(unit); e < end; e += kRowChunk) {
        const int64_t count = std::min(kRowChunk, end - e);
        const GaussianChunk<A> q = parameters.at(e, count);
        if (in.samples > 1) core::sigma_chunk(q.logvar, sigma.data, count);
        for (int64_t s = 0; s < std::max<int64_t>(1, in.samples); ++s) {
          const int64_t drawn = s * total + e;
          const A* eps = in.samples ? noise.get(drawn, count, (s + 1) * total) : nullptr;
          A* z = to.z.at(drawn, z_buffer.data);
          if (s > 0) {
            core::gaussian_sample_chunk(q.mu, sigma.data, eps, z, count);
          } else {
            first_loop(q, free_bits, eps, terms.data, z, count);
            if (kl == kRows) to.kl.add(unit, count, terms.data);
            if (kl == kElements) to.kl_elements.put(e, count, terms.data);
          }
          if (in.samples) to.z.put(drawn, count, z);
          if (to.log_prob.empty()) continue;
          core::log_prob_chunk(q.logvar, eps, terms.data, count);
          to.log_prob[s].add(unit, count, terms.data);
        }
      }
    }
  });
  to.kl.write();
  for (const RowSums<A>& sums : to.log_prob) sums.write();
}

// Gradients of the results; null where nothing depends on one.
template <typename A>
struct Upstream {
  Reader<A> z, kl, log_prob;
  KlOf kl_of;
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
        noise_(in.noise<A>()) {}

  void unit(int64_t unit) {
    const int64_t length = rows_.length(unit), end = rows_.begin(unit) + length;
    std::fill_n(of_rows_.data, kRowChunk, A(0));
    if (d_.kl && d_.kl_of == kRows) add_of_rows(d_.kl, 0, rows_, unit, length, of_rows_.data);
    std::fill_n(of_log_prob_.data, kRowChunk, A(0));
    for (int64_t s = 0; d_.log_prob && s < in_.samples; ++s)
      add_of_rows(d_.log_prob, s * rows_.count, rows_, unit, length, of_log_prob_.data);
    for (int64_t e = rows_.begin(unit); e < end; e += kRowChunk)
      chunk(unit, e, std::min(kRowChunk, end - e));
  }

 private:
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
        std::fill_n(d_z_.data, count, A(0));
        add_of_rows(d_.log_prob, s * rows_.count, rows_, unit, count, d_z_.data);
        const auto minus = [](auto g, auto e, auto d) { return g - e * d; };
        core::map(count, d_eps, minus, d_eps, eps, d_z_.data);
      }
      if (samples_) to_.eps.put(drawn, count, d_eps);
    }
    finish(grad, e, count);
  }

  const A* upstream_of_kl(const GaussianChunk<A>& q, int64_t e, int64_t count) {
    const A* given =
        d_.kl_of == kElements && d_.kl ? d_.kl.at(e, count, d_kl_.data) : of_rows_.data;
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
  Buffer<A> buffers_[4], of_rows_, of_log_prob_, d_kl_, terms_, sigma_, d_z_, d_eps_, zeros_{};
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

// The part of a tensor from one of its elements on.
template <typename A>
Writer<A> after(const Writer<A>& to, int64_t first) {
  const int64_t bytes = to.storage == core::Storage::kSame ? sizeof(A) : 2;
  return {static_cast<char*>(to.data) + first * bytes, to.storage};
}

}  // namespace

std::tuple<Tensor, Tensor, Tensor> gaussian_forward(
    const Tensor& mu, const Tensor& logvar, const MaybeTensor& prior_mu,
    const MaybeTensor& prior_logvar, const MaybeTensor& eps, const MaybeTensor& seed,
    const MaybeTensor& annealed, std::optional<int64_t> num_samples, double free_bits,
    int64_t scale, int64_t kl_of, bool with_log_prob) {
  const Inputs in(mu, logvar, prior_mu, prior_logvar, eps, seed, num_samples, scale);
  const Rows rows = rows_of(mu);
  std::vector<int64_t> z_shape(mu.sizes().begin(), mu.sizes().end()), log_prob_shape{rows.count};
  if (num_samples.has_value()) {
    z_shape.insert(z_shape.begin(), *num_samples);
    log_prob_shape.insert(log_prob_shape.begin(), *num_samples);
  }
  const bool with_z = eps.has_value() || seed.has_value();
  Tensor z = with_z ? new_large(mu, z_shape) : absent(mu);
  Tensor kl = kl_of == kElements ? new_large(mu, mu.sizes())
              : kl_of == kRows   ? new_tensor(mu, {rows.count})
                                 : absent(mu);
  Tensor log_prob = with_log_prob ? new_tensor(mu, log_prob_shape) : absent(mu);
  dispatch_accumulate(mu, [&]<typename A>(A) {
    Results<A> to{writer<A>(z, with_z),
                  writer<A>(kl, kl_of == kElements),
                  RowSums<A>(rows, writer<A>(kl, kl_of == kRows)),
                  {}};
    for (int64_t s = 0; with_log_prob && s < in.samples; ++s)
      to.log_prob.emplace_back(rows, after(writer<A>(log_prob), s * rows.count));
    forward(in, rows, A(option(free_bits, annealed)), KlOf(kl_of), to);
  });
  return {z, kl, log_prob};
}

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> gaussian_backward(
    const MaybeTensor& given_d_z, const MaybeTensor& given_d_kl,
    const MaybeTensor& given_d_log_prob, const Tensor& mu, const Tensor& logvar,
    const MaybeTensor& prior_mu, const MaybeTensor& prior_logvar, const MaybeTensor& eps,
    const MaybeTensor& seed, const MaybeTensor& annealed, std::optional<int64_t> num_samples,
    double free_bits, int64_t scale, int64_t kl_of, bool with_log_prob, bool needs_mu,
    bool needs_logvar, bool needs_prior_mu, bool needs_prior_logvar, bool needs_eps) {
  const Inputs in(mu, logvar, prior_mu, prior_logvar, eps, seed, num_samples, scale);
  const MaybeTensor d_z = dense(given_d_z), d_kl = kl_of ? dense(given_d_kl) : MaybeTensor(),
                    d_log_prob = with_log_prob ? dense(given_d_log_prob) : MaybeTensor();
  const auto like = [&](bool wanted, const MaybeTensor& t) {
    return wanted ? new_large(*t, t->sizes()) : absent(mu);
  };
  const bool needs[] = {needs_mu, needs_logvar, needs_prior_mu, needs_prior_logvar};
  Tensor found[4] = {like(needs_mu, mu), like(needs_logvar, logvar), like(needs_prior_mu, prior_mu),
                     like(needs_prior_logvar, prior_logvar)};
  const bool of_noise = d_z.has_value() || d_log_prob.has_value();
  Tensor d_eps = needs_eps ? of_noise ? like(true, eps) : new_zeros_like(*in.eps) : absent(mu);
  dispatch_accumulate(mu, [&]<typename A>(A) {
    const auto gradient = [&](int i) { return Gradient<A>(in, i, found[i], needs[i]); };
    const Gradient<A> of[] = {gradient(0), gradient(1), gradient(2), gradient(3)};
    const Gradients<A> to{of[0].writer_of_elements(), of[1].writer_of_elements(),
                          of[2].writer_of_elements(), of[3].writer_of_elements(),
                          writer<A>(d_eps, needs_eps)};
    const Upstream<A> d{reader<A>(d_z), reader<A>(d_kl), reader<A>(d_log_prob), KlOf(kl_of)};
    const Rows rows = rows_of(mu);
    const A floor = A(option(free_bits, annealed));
    parallel_for(0, rows.units(), rows.grain(), [&](int64_t begin, int64_t end) {
      Backward<A> work(in, rows, floor, d, to);
      for (int64_t unit = begin; unit < end; ++unit) work.unit(unit);
    });
    for (const Gradient<A>& g : of) g.sum(mu);
  });
  return {found[0], found[1], found[2], found[3], d_eps};
}

GENKERN_REGISTER(CPU, m) {
  GENKERN_OP(m, gaussian_forward);
  GENKERN_OP(m, gaussian_backward);
}

}  // namespace genkern::cpu
