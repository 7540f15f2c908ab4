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

#include "backward.h"

namespace genkern::cpu {
namespace {

template <typename A>
struct Results {
  Writer<A> z, kl_elements;
  RowSums<A> kl;
  std::vector<RowSums<A>> log_prob;  // of each sample
};

template <typename A>
void forward(const Inputs& in, const Rows& rows, A free_bits, Kind kind, Results<A>& to) {
  const int64_t total = in.total();
  const bool kl = kind == kRows || kind == kElements;
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
            if (kind == kRows) to.kl.add(unit, count, terms.data);
            if (kind == kElements) to.kl_elements.put(e, count, terms.data);
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

// The part of a tensor from one of its elements on.
template <typename A>
Writer<A> after(const Writer<A>& to, int64_t first) {
  const int64_t bytes = to.storage == core::Storage::kSame ? sizeof(A) : 2;
  return {static_cast<char*>(to.data) + first * bytes, to.storage};
}

}  // namespace

std::tuple<Tensor, Tensor> gaussian_forward(const Tensor& mu, const Tensor& logvar,
                                            const MaybeTensor& prior_mu,
                                            const MaybeTensor& prior_logvar, const MaybeTensor& eps,
                                            const MaybeTensor& seed, const MaybeTensor& annealed,
                                            std::optional<int64_t> num_samples, double free_bits,
                                            int64_t scale, int64_t kind) {
  const Inputs in(mu, logvar, prior_mu, prior_logvar, eps, seed, num_samples, scale);
  const Rows rows = rows_of(mu);
  std::vector<int64_t> z_shape(mu.sizes().begin(), mu.sizes().end());
  if (num_samples.has_value()) z_shape.insert(z_shape.begin(), *num_samples);
  const bool with_z = eps.has_value() || seed.has_value();
  Tensor z = with_z ? new_large(mu, z_shape) : absent(mu);
  const Tensor second = kind == kElements ? new_large(mu, mu.sizes())
                        : kind == kNone   ? absent(mu)
                        : kind == kRows || !num_samples.has_value()
                            ? new_tensor(mu, {rows.count})
                            : new_tensor(mu, {*num_samples, rows.count});
  dispatch_accumulate(mu, [&]<typename A>(A) {
    Results<A> to{writer<A>(z, with_z),
                  writer<A>(second, kind == kElements),
                  RowSums<A>(rows, writer<A>(second, kind == kRows)),
                  {}};
    for (int64_t s = 0; kind == kLogProb && s < in.samples; ++s)
      to.log_prob.emplace_back(rows, after(writer<A>(second), s * rows.count));
    forward(in, rows, A(option(free_bits, annealed)), Kind(kind), to);
  });
  return {z, second};
}

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> gaussian_backward(
    const MaybeTensor& given_d_z, const MaybeTensor& given_d_second, const Tensor& mu,
    const Tensor& logvar, const MaybeTensor& prior_mu, const MaybeTensor& prior_logvar,
    const MaybeTensor& eps, const MaybeTensor& seed, const MaybeTensor& annealed,
    std::optional<int64_t> num_samples, double free_bits, int64_t scale, int64_t kind,
    bool needs_mu, bool needs_logvar, bool needs_prior_mu, bool needs_prior_logvar,
    bool needs_eps) {
  const Inputs in(mu, logvar, prior_mu, prior_logvar, eps, seed, num_samples, scale);
  const MaybeTensor d_z = dense(given_d_z),
                    d_second = kind == kNone ? MaybeTensor() : dense(given_d_second);
  const auto like = [&](bool wanted, const MaybeTensor& t) {
    return wanted ? new_large(*t, t->sizes()) : absent(mu);
  };
  const bool needs[] = {needs_mu, needs_logvar, needs_prior_mu, needs_prior_logvar};
  Tensor found[4] = {like(needs_mu, mu), like(needs_logvar, logvar), like(needs_prior_mu, prior_mu),
                     like(needs_prior_logvar, prior_logvar)};
  const bool of_noise = d_z.has_value() || (kind == kLogProb && d_second.has_value());
  Tensor d_eps = needs_eps ? of_noise ? like(true, eps) : new_zeros_like(*in.eps) : absent(mu);
  dispatch_accumulate(mu, [&]<typename A>(A) {
    const auto gradient = [&](int i) { return Gradient<A>(in, i, found[i], needs[i]); };
    const Gradient<A> of[] = {gradient(0), gradient(1), gradient(2), gradient(3)};
    const Gradients<A> to{of[0].writer_of_elements(), of[1].writer_of_elements(),
                          of[2].writer_of_elements(), of[3].writer_of_elements(),
                          writer<A>(d_eps, needs_eps)};
    const Reader<A> second = reader<A>(d_second), none{};
    const Upstream<A> d{reader<A>(d_z), kind == kLogProb ? none : second,
                        kind == kLogProb ? second : none, Kind(kind)};
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
