// Diagonal Gaussians q = N(mu, e^l), a chunk of elements at a time (Kingma and Welling 2014,
// sec. 2.4 and app. B).
//   KL(q, N(0, 1))         = (mu^2 + e^l - 1 - l) / 2
//   KL(q, N(mu2, e^{l2}))  = (d^2 w + e^D - 1 - D) / 2,  d = mu - mu2, D = l - l2, w = e^{-l2}
//   z = mu + e^{l/2} eps
#pragma once
#include "../core/vecmath.h"

namespace genkern::core {

inline constexpr int64_t kChunk = 1024;

// Calls body(i, load, store) for the vectors of [0, count), the last one partial.
template <typename A, typename F>
inline void for_vectors(int64_t count, F&& body) {
  constexpr int kL = kLanes<A>;
  int64_t i = 0;
  for (; i + kL <= count; i += kL)
    body(
        i, [i](const auto* p) { return load(p + i); }, [i](auto* p, Vec<A> v) { store(p + i, v); });
  if (i < count)
    body(
        i, [=](const auto* p) { return load_partial(p + i, count - i); },
        [=](auto* p, Vec<A> v) { store_partial(p + i, v, count - i); });
}

template <typename T>
struct GaussianParams {
  const T *mu, *logvar, *prior_mu, *prior_logvar;  // the last two are null for N(0, I)

  GaussianParams at(int64_t i) const {
    return {mu + i, logvar + i, prior_mu ? prior_mu + i : nullptr,
            prior_logvar ? prior_logvar + i : nullptr};
  }
};

// kKl: terms[i] = max(KL of element i, free_bits).  kSample: z[i] = mu + e^{l/2} eps
template <bool kKl, bool kSample, typename T>
void gaussian_chunk(const GaussianParams<T>& q, Accumulate<T> free_bits, const Accumulate<T>* eps,
                    Accumulate<T>* terms, T* z, int64_t count) {
  using A = Accumulate<T>;
  for_vectors<A>(count, [&](int64_t, auto get, auto put) {
    const Vec<A> mu = get(q.mu), l = get(q.logvar);
    Vec<A> kl, root;
    if (kSample) {
      root = exp(A(0.5) * l);
      put(z, mu + root * get(eps));
    }
    if (!kKl) return;
    if (q.prior_mu) {
      const Vec<A> d = mu - get(q.prior_mu), l2 = get(q.prior_logvar);
      kl = A(0.5) * (d * d * exp(-l2) + expm1_minus_x(l - l2));
    } else {
      kl = A(0.5) * (mu * mu + (kSample ? expm1_of_root(l, root).minus_x : expm1_minus_x(l)));
    }
    put(terms, free_bits > 0 ? max(kl, splat(free_bits)) : kl);
  });
}

// Gradients of one chunk, in the accumulation type; the prior's are null when not needed.
template <typename A>
struct GaussianGradients {
  alignas(64) A mu[kChunk], logvar[kChunk], prior_mu[kChunk], prior_logvar[kChunk];
};

// kKl: d_kl[i] times the gradient of the KL of element i; elements at their free-bits floor have
// none.  kSample: plus that of z = mu + e^{l/2} eps; d_eps may be null.
template <bool kKl, bool kSample, typename T>
void gaussian_backward_chunk(const GaussianParams<T>& q, Accumulate<T> free_bits,
                             const Accumulate<T>* d_kl, const Accumulate<T>* eps, const T* d_z,
                             GaussianGradients<Accumulate<T>>& grad, T* d_eps, int64_t count) {
  using A = Accumulate<T>;
  for_vectors<A>(count, [&](int64_t, auto get, auto put) {
    const Vec<A> l = get(q.logvar);
    Vec<A> root, d_mu{}, d_logvar{};
    if (kSample) root = exp(A(0.5) * l);
    if (kKl) {
      const Vec<A> g = get(d_kl);
      Vec<A> d = get(q.mu), delta = l, w = splat(A(1));
      if (q.prior_mu) {
        const Vec<A> l2 = get(q.prior_logvar);
        d = d - get(q.prior_mu);
        delta = l - l2;
        w = exp(-l2);
      }
      Expm1<Vec<A>> e;
      if (kSample && !q.prior_mu)
        e = expm1_of_root(l, root);
      else
        e = {expm1(delta), free_bits > 0 ? expm1_minus_x(delta) : Vec<A>{}};
      const Vec<A> scaled = d * w;
      d_mu = g * scaled;
      d_logvar = A(0.5) * g * e.value;
      Vec<A> d_prior_logvar = A(-0.5) * g * (e.value + d * scaled);
      if (free_bits > 0) {
        const auto floored = A(0.5) * (d * scaled + e.minus_x) < free_bits;
        d_mu = floored ? Vec<A>{} : d_mu;
        d_logvar = floored ? Vec<A>{} : d_logvar;
        d_prior_logvar = floored ? Vec<A>{} : d_prior_logvar;
      }
      if (q.prior_mu) {
        put(grad.prior_mu, -d_mu);
        put(grad.prior_logvar, d_prior_logvar);
      }
    }
    if (kSample) {
      const Vec<A> g = get(d_z), d_noise = g * root;
      d_mu += g;
      d_logvar += A(0.5) * d_noise * get(eps);
      if (d_eps) put(d_eps, d_noise);
    }
    put(grad.mu, d_mu);
    put(grad.logvar, d_logvar);
  });
}

// Adds the gradient of a further sample of the same elements.
template <typename T>
void gaussian_sample_backward_chunk(const T* logvar, const Accumulate<T>* eps, const T* d_z,
                                    GaussianGradients<Accumulate<T>>& grad, T* d_eps,
                                    int64_t count) {
  using A = Accumulate<T>;
  for_vectors<A>(count, [&](int64_t, auto get, auto put) {
    const Vec<A> g = get(d_z), d_noise = g * exp(A(0.5) * get(logvar));
    put(grad.mu, get(grad.mu) + g);
    put(grad.logvar, get(grad.logvar) + A(0.5) * d_noise * get(eps));
    if (d_eps) put(d_eps, d_noise);
  });
}

}  // namespace genkern::core
