// The tensors that both passes of the Gaussian ops read, and which loops they take.
#pragma once
#include "../bind.h"
#include "chunks.h"

namespace genkern::cpu {

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
enum Kind { kNone, kRows, kElements, kLogProb };  // of the result beside z: the KL, or log q

inline Rows rows_of(const Tensor& mu) {
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
    for (int i = 1; i < 4; ++i)
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

}  // namespace genkern::cpu
