// z (num_samples, N, D) and kl (N,) of diagonal Gaussians mu, logvar (N, D), in one pass over the
// inputs:
//
//   for (n = 0; n < N; ++n)
//     for (d = 0; d < D; ++d) {
//       kl[n] += max(KL(mu[n, d], logvar[n, d]), free_bits);
//       for (s = 0; s < num_samples; ++s)
//         z[s, n, d] = mu[n, d] + exp(logvar[n, d] / 2) * eps[s, n, d];
//     }
//
// Short rows are worked off several at a time, long ones in segments (core/loops.h: Rows).
#include <algorithm>
#include <vector>

#include "../bind.h"
#include "../core/philox.h"
#include "gaussian.h"

namespace genkern::cpu {
namespace {

using core::GaussianChunk;
using core::GaussianGradients;
using core::kRowChunk;
using core::NormalStream;
using core::Reader;
using core::Rows;
using core::Writer;

using MaybeTensor = std::optional<Tensor>;
template <typename A>
using Buffer = core::Buffer<A, kRowChunk>;

Rows rows_of(const Tensor& mu) {
  const int64_t rows = mu.size(0);
  return {rows, rows ? mu.numel() / rows : 0};
}

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
  Buffer<A> given_;
};

// The tensors that both passes read.
struct Inputs {
  Tensor mu, logvar;
  MaybeTensor prior_mu, prior_logvar, eps, seed;
  int64_t samples;  // of the noise; 0 without any
};

Inputs inputs_of(const Tensor& mu, const Tensor& logvar, const MaybeTensor& prior_mu,
                 const MaybeTensor& prior_logvar, const MaybeTensor& eps, const MaybeTensor& seed,
                 std::optional<int64_t> num_samples) {
  const bool sampled = eps.has_value() || seed.has_value();
  return {dense(mu),
          dense(logvar),
          dense(prior_mu),
          dense(prior_logvar),
          dense(eps),
          seed,
          sampled ? num_samples.value_or(1) : 0};
}

// One thread's view of them as A, by chunks.
template <typename A>
class Chunks {
 public:
  explicit Chunks(const Inputs& in)
      : noise(reader<A>(in.eps), data<const int64_t>(in.seed)),
        readers_{reader<A>(in.mu), reader<A>(in.logvar), reader<A>(in.prior_mu),
                 reader<A>(in.prior_logvar)} {}

  GaussianChunk<A> at(int64_t first, int64_t count) {
    const auto get = [&](int i) { return readers_[i].at(first, count, buffers_[i].data); };
    return {get(0), get(1), get(2), get(3)};
  }
  Noise<A> noise;

 private:
  Reader<A> readers_[4];
  Buffer<A> buffers_[4];
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
void forward(const Inputs& in, const Rows& rows, A free_bits, bool with_kl, const Writer<A>& z,
             core::RowSums<A>& kl) {
  const int64_t total = in.mu.numel(), passes = std::max<int64_t>(with_kl, in.samples);
  parallel_for(0, rows.units(), rows.grain(), [&](int64_t begin_unit, int64_t end_unit) {
    Chunks<A> chunks(in);
    Buffer<A> terms, z_buffer;
    for (int64_t s = 0; s < passes; ++s) {
      const bool adds_kl = with_kl && s == 0;
      const auto work = adds_kl ? forward_loop<A>(in.prior_mu.has_value(), in.samples)
                                : &core::gaussian_chunk<false, true, false, A>;
      for (int64_t unit = begin_unit; unit < end_unit; ++unit) {
        const int64_t end = rows.begin(unit) + rows.length(unit);
        for (int64_t e = rows.begin(unit); e < end; e += kRowChunk) {
          const int64_t count = std::min(kRowChunk, end - e), drawn = s * total + e;
          const A* eps = in.samples ? chunks.noise.get(drawn, count, (s + 1) * total) : nullptr;
          A* to = z.at(drawn, z_buffer.data);
          work(chunks.at(e, count), free_bits, eps, terms.data, to, count);
          if (in.samples) z.put(drawn, count, to);
          if (adds_kl) kl.add(unit, count, terms.data);
        }
      }
    }
  });
  kl.write();
}

template <typename A>
struct Gradients {
  Writer<A> mu, logvar, prior_mu, prior_logvar, eps;
};

// d_kl of each element of a chunk that starts at element `first` of its row.
template <typename A>
void spread_over_rows(const Reader<A>& d_kl, const Rows& rows, int64_t unit, int64_t length,
                      A* spread) {
  const int64_t each = std::min(kRowChunk, rows.D);
  for (int64_t i = 0; i < std::min(kRowChunk, length); i += rows.D)
    std::fill_n(spread + i, each, d_kl[rows.row(unit) + i / rows.D]);
}

template <typename A>
void backward(const Inputs& in, const Rows& rows, A free_bits, const Reader<A>& d_z,
              const Reader<A>& d_kl, const Gradients<A>& to) {
  const int64_t total = in.mu.numel(), samples = d_z ? in.samples : 0;
  const bool prior = in.prior_mu.has_value(), has_floor = d_kl && free_bits > 0;
  const auto work = backward_loop<A>(bool(d_kl), prior, samples > 0);
  const auto kl_terms = forward_loop<A>(prior, false);
  parallel_for(0, rows.units(), rows.grain(), [&](int64_t begin_unit, int64_t end_unit) {
    Chunks<A> chunks(in);
    GaussianGradients<A> grad;
    Buffer<A> d_kl_spread, d_kl_above, terms, d_z_buffer, d_eps_buffer;
    if (in.prior_mu && !d_kl) {
      std::fill_n(grad.prior_mu, kRowChunk, A(0));
      std::fill_n(grad.prior_logvar, kRowChunk, A(0));
    }
    for (int64_t unit = begin_unit; unit < end_unit; ++unit) {
      const int64_t length = rows.length(unit), end = rows.begin(unit) + length;
      if (d_kl) spread_over_rows(d_kl, rows, unit, length, d_kl_spread.data);
      for (int64_t e = rows.begin(unit); e < end; e += kRowChunk) {
        const int64_t count = std::min(kRowChunk, end - e);
        const GaussianChunk<A> q = chunks.at(e, count);
        if (has_floor) {  // elements at it have no gradient of the KL
          const auto above = [=](auto kl, auto g) { return core::zero_below(free_bits, kl, g); };
          kl_terms(q, A(0), nullptr, terms.data, nullptr, count);
          core::map(count, d_kl_above.data, above, terms.data, d_kl_spread.data);
        }
        const A* of_kl = has_floor ? d_kl_above.data : d_kl_spread.data;
        for (int64_t s = 0; s < std::max<int64_t>(1, samples); ++s) {
          const int64_t drawn = s * total + e;
          const A* eps = samples ? chunks.noise.get(drawn, count, (s + 1) * total) : nullptr;
          const A* upstream = samples ? d_z.at(drawn, count, d_z_buffer.data) : nullptr;
          A* d_eps = to.eps ? to.eps.at(drawn, d_eps_buffer.data) : nullptr;
          if (s == 0)
            work(q, of_kl, eps, upstream, grad, d_eps, count);
          else
            core::gaussian_sample_backward_chunk(q.logvar, eps, upstream, grad, d_eps, count);
          if (samples) to.eps.put(drawn, count, d_eps);
        }
        to.mu.put(e, count, grad.mu);
        to.logvar.put(e, count, grad.logvar);
        to.prior_mu.put(e, count, grad.prior_mu);
        to.prior_logvar.put(e, count, grad.prior_logvar);
      }
    }
  });
}

}  // namespace

std::tuple<Tensor, Tensor> gaussian_forward(const Tensor& mu, const Tensor& logvar,
                                            const MaybeTensor& prior_mu,
                                            const MaybeTensor& prior_logvar, const MaybeTensor& eps,
                                            const MaybeTensor& seed, const MaybeTensor& annealed,
                                            std::optional<int64_t> num_samples, double free_bits,
                                            bool with_kl) {
  const Inputs in = inputs_of(mu, logvar, prior_mu, prior_logvar, eps, seed, num_samples);
  const Rows rows = rows_of(mu);
  std::vector<int64_t> z_shape(mu.sizes().begin(), mu.sizes().end());
  if (num_samples.has_value()) z_shape.insert(z_shape.begin(), in.samples);
  const bool with_z = in.samples || num_samples.has_value();
  Tensor z = with_z ? new_large(mu, z_shape) : absent(mu);
  Tensor kl = with_kl ? new_tensor(mu, {rows.count}) : absent(mu);
  dispatch_accumulate(mu, [&]<typename A>(A) {
    core::RowSums<A> sums(rows, writer<A>(kl, with_kl));
    forward(in, rows, A(option(free_bits, annealed)), with_kl, writer<A>(z, with_z), sums);
  });
  return {z, kl};
}

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> gaussian_backward(
    const MaybeTensor& given_d_z, const MaybeTensor& given_d_kl, const Tensor& mu,
    const Tensor& logvar, const MaybeTensor& prior_mu, const MaybeTensor& prior_logvar,
    const MaybeTensor& eps, const MaybeTensor& seed, const MaybeTensor& annealed,
    std::optional<int64_t> num_samples, double free_bits, bool with_kl, bool needs_mu,
    bool needs_logvar, bool needs_prior_mu, bool needs_prior_logvar, bool needs_eps) {
  const Inputs in = inputs_of(mu, logvar, prior_mu, prior_logvar, eps, seed, num_samples);
  const MaybeTensor d_z = dense(given_d_z), d_kl = with_kl ? dense(given_d_kl) : MaybeTensor();
  const auto like = [&](bool wanted, const Tensor& t) {
    return wanted ? new_large(t, t.sizes()) : absent(t);
  };
  Tensor d_mu = like(needs_mu, mu), d_logvar = like(needs_logvar, mu);
  Tensor d_prior_mu = like(needs_prior_mu, mu);
  Tensor d_prior_logvar = like(needs_prior_logvar, mu);
  Tensor d_eps = needs_eps ? like(d_z.has_value(), *in.eps) : absent(mu);
  if (needs_eps && !d_z.has_value()) d_eps = new_zeros_like(*in.eps);
  dispatch_accumulate(mu, [&]<typename A>(A) {
    const Gradients<A> to{writer<A>(d_mu, needs_mu), writer<A>(d_logvar, needs_logvar),
                          writer<A>(d_prior_mu, needs_prior_mu),
                          writer<A>(d_prior_logvar, needs_prior_logvar),
                          writer<A>(d_eps, needs_eps)};
    backward(in, rows_of(mu), A(option(free_bits, annealed)), reader<A>(d_z), reader<A>(d_kl), to);
  });
  return {d_mu, d_logvar, d_prior_mu, d_prior_logvar, d_eps};
}

GENKERN_REGISTER(CPU, m) {
  GENKERN_OP(m, gaussian_forward);
  GENKERN_OP(m, gaussian_backward);
}

}  // namespace genkern::cpu
