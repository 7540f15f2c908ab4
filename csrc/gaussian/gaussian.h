// Diagonal Gaussians q = N(mu, e^l), a chunk of elements at a time (Kingma and Welling 2014,
// sec. 2.4 and app. B).
//   KL(q, N(0, 1))         = (mu^2 + e^l - 1 - l) / 2
//   KL(q, N(mu2, e^{l2}))  = (d^2 w + e^D - 1 - D) / 2,  d = mu - mu2, D = l - l2, w = e^{-l2}
//   z = mu + e^{l/2} eps
//
//   for (i = 0; i < count; ++i) {
//     terms[i] = max(KL of element i, free_bits);
//     z[i] = mu[i] + exp(l[i] / 2) * eps[i];
//     d_mu[i] = d_kl[i] * dKL/dmu + d_z[i];
//     d_l[i] = d_kl[i] * dKL/dl + d_z[i] * exp(l[i] / 2) * eps[i] / 2;
//   }
//
// The compiled loops differ in what they leave out: kKl, kSample.
#pragma once
#include "../core/loops.h"
#include "../core/vecmath.h"

namespace genkern::core {

// Parameters of the elements of a chunk; the last two are null for N(0, 1).
template <typename A>
struct GaussianChunk {
  const A *mu, *logvar, *prior_mu, *prior_logvar;
};

// d times a factor that may be infinite: no distance stays none.
template <typename V>
inline V scaled_distance(V d, V factor) {
  return d == 0 ? V{} : d * factor;
}

template <bool kKl, bool kSample, typename A>
void gaussian_chunk(const GaussianChunk<A>& q, A free_bits, const A* eps, A* terms, A* z,
                    int64_t count) {
  for_vectors<A>(count, [&](auto load, auto store) {
    const Vec<A> mu = load(q.mu), l = load(q.logvar);
    Vec<A> kl, root;
    if (kSample) {
      root = exp(A(0.5) * l);
      store(z, mu + root * load(eps));
    }
    if (!kKl) return;
    if (q.prior_mu) {
      const Vec<A> d = mu - load(q.prior_mu), l2 = load(q.prior_logvar);
      const Vec<A> u = scaled_distance(d, exp(A(-0.5) * l2));
      kl = A(0.5) * (u * u + expm1_minus_x(l - l2));
    } else {
      kl = A(0.5) * (mu * mu + (kSample ? expm1_of_root(l, root).minus_x : expm1_minus_x(l)));
    }
    store(terms, free_bits > 0 ? max(kl, splat(free_bits)) : kl);
  });
}

// Gradients of a chunk; those of the prior are written where there is one.
template <typename A>
struct GaussianGradients {
  alignas(64) A mu[kRowChunk], logvar[kRowChunk], prior_mu[kRowChunk], prior_logvar[kRowChunk];
};

// Elements at their free-bits floor have no gradient of the KL. d_eps may be null.
template <bool kKl, bool kSample, typename A>
void gaussian_backward_chunk(const GaussianChunk<A>& q, A free_bits, const A* d_kl, const A* eps,
                             const A* d_z, GaussianGradients<A>& grad, A* d_eps, int64_t count) {
  for_vectors<A>(count, [&](auto load, auto store) {
    const Vec<A> l = load(q.logvar);
    Vec<A> root, d_mu{}, d_logvar{};
    if (kSample) root = exp(A(0.5) * l);
    if (kKl) {
      const Vec<A> g = load(d_kl);
      Vec<A> delta = l, u = load(q.mu), scaled = u;  // d e^{-l2 / 2} and d w
      if (q.prior_mu) {
        const Vec<A> l2 = load(q.prior_logvar), inverse = exp(A(-0.5) * l2);
        delta = l - l2;
        u = scaled_distance(Vec<A>(u - load(q.prior_mu)), inverse);
        scaled = scaled_distance(u, inverse);
      }
      Expm1<Vec<A>> e;
      if (kSample && !q.prior_mu)
        e = expm1_of_root(l, root);
      else
        e = {expm1(delta), free_bits > 0 ? expm1_minus_x(delta) : Vec<A>{}};
      d_mu = g * scaled;
      d_logvar = A(0.5) * g * e.value;
      Vec<A> d_prior_logvar = A(-0.5) * g * (e.value + u * u);
      if (free_bits > 0) {
        const auto floored = A(0.5) * (u * u + e.minus_x) < free_bits;
        d_mu = floored ? Vec<A>{} : d_mu;
        d_logvar = floored ? Vec<A>{} : d_logvar;
        d_prior_logvar = floored ? Vec<A>{} : d_prior_logvar;
      }
      if (q.prior_mu) {
        store(grad.prior_mu, -d_mu);
        store(grad.prior_logvar, d_prior_logvar);
      }
    }
    if (kSample) {
      const Vec<A> g = load(d_z), d_noise = g * root;
      d_mu += g;
      d_logvar += A(0.5) * d_noise * load(eps);
      if (d_eps) store(d_eps, d_noise);
    }
    store(grad.mu, d_mu);
    store(grad.logvar, d_logvar);
  });
}

// Adds the gradient of a further sample of the same elements.
template <typename A>
void gaussian_sample_backward_chunk(const A* logvar, const A* eps, const A* d_z,
                                    GaussianGradients<A>& grad, A* d_eps, int64_t count) {
  for_vectors<A>(count, [&](auto load, auto store) {
    const Vec<A> g = load(d_z), d_noise = g * exp(A(0.5) * load(logvar));
    store(grad.mu, load(grad.mu) + g);
    store(grad.logvar, load(grad.logvar) + A(0.5) * d_noise * load(eps));
    if (d_eps) store(d_eps, d_noise);
  });
}

}  // namespace genkern::core
