// z (num_samples, N, D) and kl (N,) of diagonal Gaussians mu, logvar (N, D), in one pass over the
// inputs. Short rows are worked off several at a time, long ones in segments; every sum runs in an
// order fixed by the shape alone.
#include "gaussian.h"

#include <algorithm>
#include <vector>

#include "../bind.h"
#include "../core/philox.h"

namespace genkern::cpu {

using core::GaussianGradients;
using core::GaussianParams;
using core::kChunk;
using core::NormalStream;

namespace {

using MaybeTensor = std::optional<Tensor>;

constexpr int64_t kSegment = 8 * kChunk;

// Where the noise of one thread comes from: given, or the Philox stream of a seed.
template <typename T>
class Noise {
  using A = core::Accumulate<T>;

 public:
  Noise(const T* eps, const int64_t* seed) : eps_(eps), stream_(seed ? uint64_t(*seed) : 0) {}

  const A* get(int64_t first, int64_t count, int64_t end) {
    if (!eps_) return stream_.get(first, count, end);
    if constexpr (std::is_same_v<T, A>) return eps_ + first;
    for (int64_t i = 0; i < count; ++i) converted_[i] = core::to_accumulate(eps_[first + i]);
    return converted_;
  }

 private:
  const T* eps_;
  NormalStream<A> stream_;
  alignas(64) A converted_[kChunk];
};

// The elements of rows (N, D) cut into units: several whole rows, or a segment of one.
struct Units {
  int64_t rows, D;
  int64_t rows_each = splits_rows() ? 1 : kChunk / std::max<int64_t>(1, D);
  int64_t per_row = splits_rows() ? (D + kSegment - 1) / kSegment : 1;

  bool splits_rows() const { return D > kChunk; }
  int64_t count() const { return (rows + rows_each - 1) / rows_each * per_row; }
  int64_t row(int64_t u) const { return u / per_row * rows_each; }
  int64_t begin(int64_t u) const { return row(u) * D + (u % per_row) * kSegment; }
  int64_t length(int64_t u) const {
    if (!splits_rows()) return std::min(rows_each, rows - row(u)) * D;
    return std::min(kSegment, D - (u % per_row) * kSegment);
  }
  // Units that are worth a thread.
  int64_t grain() const { return splits_rows() ? 1 : 8; }
};

Units units(const Tensor& mu) {
  const int64_t rows = mu.size(0);
  return {rows, rows ? mu.numel() / rows : 0};
}

template <typename T>
GaussianParams<T> params(const Tensor& mu, const Tensor& logvar, const MaybeTensor& prior_mu,
                         const MaybeTensor& prior_logvar) {
  return {data<const T>(mu), data<const T>(logvar), data<const T>(prior_mu),
          data<const T>(prior_logvar)};
}

int64_t sample_count(const MaybeTensor& eps, const MaybeTensor& seed,
                     std::optional<int64_t> num_samples) {
  return eps.has_value() || seed.has_value() ? num_samples.value_or(1) : 0;
}

}  // namespace

std::tuple<Tensor, Tensor> gaussian_forward(const Tensor& given_mu, const Tensor& given_logvar,
                                            const MaybeTensor& given_prior_mu,
                                            const MaybeTensor& given_prior_logvar,
                                            const MaybeTensor& given_eps, const MaybeTensor& seed,
                                            const MaybeTensor& annealed,
                                            std::optional<int64_t> num_samples, double free_bits,
                                            bool with_kl) {
  const Tensor mu = dense(given_mu), logvar = dense(given_logvar);
  const MaybeTensor prior_mu = dense(given_prior_mu), prior_logvar = dense(given_prior_logvar);
  const MaybeTensor eps = dense(given_eps);
  free_bits = option(free_bits, annealed);
  const Units work = units(mu);
  const int64_t samples = sample_count(eps, seed, num_samples), total = mu.numel();
  std::vector<int64_t> z_shape(mu.sizes().begin(), mu.sizes().end());
  if (num_samples.has_value()) z_shape.insert(z_shape.begin(), samples);
  Tensor z = samples || num_samples.has_value() ? new_large(mu, z_shape) : absent(mu);
  Tensor kl = with_kl ? new_tensor(mu, {work.rows}) : absent(mu);
  dispatch_floating(mu, [&]<typename T>(T) {
    using A = core::Accumulate<T>;
    const auto q = params<T>(mu, logvar, prior_mu, prior_logvar);
    const T* p_eps = data<const T>(eps);
    const int64_t* p_seed = data<const int64_t>(seed);
    T *p_z = data<T>(z), *p_kl = data<T>(kl);
    std::vector<A> sums(with_kl && work.splits_rows() ? work.count() : 0);
    if (with_kl && total == 0) std::fill_n(p_kl, work.rows, T{});
    parallel_for(0, work.count(), work.grain(), [&](int64_t first, int64_t last) {
      Noise<T> noise(p_eps, p_seed);
      alignas(64) A terms[kChunk];
      const auto add_kl = [&](int64_t u, int64_t count) {
        if (work.splits_rows()) {
          sums[u] += core::sum_span(terms, count);
          return;
        }
        const int64_t n = work.row(u), end = std::min(n + work.rows_each, work.rows);
        for (int64_t r = n; r < end; ++r)
          p_kl[r] = core::from_accumulate<T>(core::sum_span(terms + (r - n) * work.D, work.D));
      };
      for (int64_t s = 0; s < std::max<int64_t>(with_kl, samples); ++s) {
        const auto chunk = with_kl && s == 0 ? (samples ? &core::gaussian_chunk<true, true, T>
                                                        : &core::gaussian_chunk<true, false, T>)
                                             : &core::gaussian_chunk<false, true, T>;
        for (int64_t u = first; u < last; ++u) {
          const int64_t begin = work.begin(u), length = work.length(u);
          for (int64_t i = 0; i < length; i += kChunk) {
            const int64_t count = std::min(kChunk, length - i), e = begin + i, f = s * total + e;
            const A* given = samples ? noise.get(f, count, (s + 1) * total) : nullptr;
            chunk(q.at(e), A(free_bits), given, terms, p_z + f, count);
            if (with_kl && s == 0) add_kl(u, count);
          }
        }
      }
    });
    for (int64_t n = 0; with_kl && work.splits_rows() && n < work.rows; ++n) {
      double sum = 0;
      for (int64_t u = n * work.per_row; u < (n + 1) * work.per_row; ++u) sum += sums[u];
      p_kl[n] = core::from_accumulate<T>(A(sum));
    }
  });
  return {z, kl};
}

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> gaussian_backward(
    const MaybeTensor& given_d_z, const MaybeTensor& given_d_kl, const Tensor& given_mu,
    const Tensor& given_logvar, const MaybeTensor& given_prior_mu,
    const MaybeTensor& given_prior_logvar, const MaybeTensor& given_eps, const MaybeTensor& seed,
    const MaybeTensor& annealed, std::optional<int64_t> num_samples, double free_bits, bool with_kl,
    bool needs_mu, bool needs_logvar, bool needs_prior_mu, bool needs_prior_logvar,
    bool needs_eps) {
  const Tensor mu = dense(given_mu), logvar = dense(given_logvar);
  const MaybeTensor prior_mu = dense(given_prior_mu), prior_logvar = dense(given_prior_logvar);
  const MaybeTensor eps = dense(given_eps), d_z = dense(given_d_z);
  const MaybeTensor d_kl = with_kl ? dense(given_d_kl) : MaybeTensor();
  free_bits = option(free_bits, annealed);
  const Units work = units(mu);
  const int64_t total = mu.numel();
  const int64_t samples = d_z.has_value() ? sample_count(eps, seed, num_samples) : 0;
  const auto like = [&](bool wanted, const Tensor& t) {
    return wanted ? new_large(t, t.sizes()) : absent(t);
  };
  Tensor d_mu = like(needs_mu, mu), d_logvar = like(needs_logvar, mu);
  Tensor d_prior_mu = like(needs_prior_mu, mu);
  Tensor d_prior_logvar = like(needs_prior_logvar, mu);
  Tensor d_eps = needs_eps ? like(true, *eps) : like(false, mu);
  dispatch_floating(mu, [&]<typename T>(T) {
    using A = core::Accumulate<T>;
    const auto q = params<T>(mu, logvar, prior_mu, prior_logvar);
    const T *p_eps = data<const T>(eps), *p_d_z = data<const T>(d_z);
    const T* p_d_kl = data<const T>(d_kl);
    const int64_t* p_seed = data<const int64_t>(seed);
    const auto wanted = [](bool needed, const Tensor& t) { return needed ? data<T>(t) : nullptr; };
    T *p_d_mu = wanted(needs_mu, d_mu), *p_d_logvar = wanted(needs_logvar, d_logvar);
    T* p_d_prior_mu = wanted(needs_prior_mu, d_prior_mu);
    T* p_d_prior_logvar = wanted(needs_prior_logvar, d_prior_logvar);
    T* p_d_eps = wanted(needs_eps, d_eps);
    if (needs_eps && samples == 0) std::fill_n(p_d_eps, d_eps.numel(), T{});
    const auto chunk = p_d_kl ? (samples ? &core::gaussian_backward_chunk<true, true, T>
                                         : &core::gaussian_backward_chunk<true, false, T>)
                              : (samples ? &core::gaussian_backward_chunk<false, true, T>
                                         : &core::gaussian_backward_chunk<false, false, T>);
    const auto write = [](const A* from, T* to, int64_t first, int64_t count) {
      if (!to) return;
      to += first;
      core::for_vectors<A>(count, [&](int64_t, auto get, auto put) { put(to, get(from)); });
    };
    parallel_for(0, work.count(), work.grain(), [&](int64_t first, int64_t last) {
      Noise<T> noise(p_eps, p_seed);
      GaussianGradients<A> grad;
      alignas(64) A g[kChunk];
      if (q.prior_mu && !p_d_kl) {
        std::fill_n(grad.prior_mu, kChunk, A(0));
        std::fill_n(grad.prior_logvar, kChunk, A(0));
      }
      for (int64_t u = first; u < last; ++u) {
        const int64_t begin = work.begin(u), length = work.length(u);
        for (int64_t i = 0; p_d_kl && i < std::min(kChunk, length); i += work.D)
          std::fill_n(g + i, std::min(kChunk, work.D),
                      core::to_accumulate(p_d_kl[work.row(u) + i / work.D]));
        for (int64_t i = 0; i < length; i += kChunk) {
          const int64_t count = std::min(kChunk, length - i), e = begin + i;
          const A* given = samples ? noise.get(e, count, total) : nullptr;
          chunk(q.at(e), A(free_bits), g, given, p_d_z + e, grad, p_d_eps ? p_d_eps + e : nullptr,
                count);
          for (int64_t s = 1; s < samples; ++s) {
            const int64_t f = s * total + e;
            core::gaussian_sample_backward_chunk(q.logvar + e, noise.get(f, count, (s + 1) * total),
                                                 p_d_z + f, grad, p_d_eps ? p_d_eps + f : nullptr,
                                                 count);
          }
          write(grad.mu, p_d_mu, e, count);
          write(grad.logvar, p_d_logvar, e, count);
          write(grad.prior_mu, p_d_prior_mu, e, count);
          write(grad.prior_logvar, p_d_prior_logvar, e, count);
        }
      }
    });
  });
  return {d_mu, d_logvar, d_prior_mu, d_prior_logvar, d_eps};
}

GENKERN_REGISTER(CPU, m) {
  GENKERN_OP(m, gaussian_forward);
  GENKERN_OP(m, gaussian_backward);
}

}  // namespace genkern::cpu
