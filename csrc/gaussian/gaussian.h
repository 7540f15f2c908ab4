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
// The compiled loops differ in what they leave out: kKl, kSample, kPrior.
#pragma once
#include <limits>

#include "../core/loops.h"
#include "../core/vecmath.h"

namespace genkern::core {

// What a scale is given as: the logarithm of the variance, that of sigma, or s of
// sigma = log(1 + e^s).
enum class Scale { kLogvar, kLogStd, kSoftplus };

namespace detail {
// Below it log(1 + e^s) = e^s, up to half an ulp of the logarithm.
template <typename A>
inline constexpr A kSoftplusTail = sizeof(A) == 4 ? A(-20) : A(-40);
}  // namespace detail

template <typename A>
[[gnu::flatten]] void to_logvar(Scale scale, const A* given, A* logvar, int64_t count) {
  if (scale == Scale::kLogStd) return map(count, logvar, [](auto s) { return s + s; }, given);
  const auto of_softplus = [](auto s) {
    return 2 * (s < detail::kSoftplusTail<A> ? s : log(softplus(s)));
  };
  map(count, logvar, of_softplus, given);
}

// gradient *= d logvar / d given; 2 sigmoid(s) / log(1 + e^s) for a softplus.
template <typename A>
[[gnu::flatten]] void times_slope(Scale scale, const A* given, A* gradient, int64_t count) {
  if (scale == Scale::kLogStd) return map(count, gradient, [](auto g) { return g + g; }, gradient);
  const auto of_softplus = [](auto g, auto s) {
    const auto slope = sigmoid(s) / softplus(s);
    return 2 * g * (s < detail::kSoftplusTail<A> ? splat(A(1)) : slope);
  };
  map(count, gradient, of_softplus, gradient, given);
}

// Parameters of the elements of a chunk; the last two are null for N(0, 1).
template <typename A>
struct GaussianChunk {
  const A *mu, *logvar, *prior_mu, *prior_logvar;
};

template <bool kKl, bool kSample, bool kPrior, typename A>
[[gnu::flatten]] void gaussian_chunk(const GaussianChunk<A>& q, A free_bits, const A* eps, A* terms,
                                     A* z, int64_t count) {
  const A floor = free_bits > 0 ? free_bits : -std::numeric_limits<A>::infinity();
  for_fours<A>(count, [=](auto load, auto store) {
    const auto mu = load(q.mu), l = load(q.logvar);
    using V = std::remove_const_t<decltype(mu)>;
    if (kSample) store(z, mu + exponentials(l).root * load(eps));
    if (!kKl) return;
    V delta = l, u = mu;
    if (kPrior) {
      const V l2 = load(q.prior_logvar);
      delta = l - l2;
      u = scaled_distance(mu - load(q.prior_mu), exponentials(A(-1) * l2).root);
    }
    store(terms, at_least(A(0.5) * u * u + exponentials(delta).half_minus_x, floor));
  });
}

// Where the gradients of a chunk go; those of the prior are written where there is one.
template <typename A>
struct GaussianGradients {
  A *mu, *logvar, *prior_mu, *prior_logvar;
};

// d_eps may be null.
template <bool kKl, bool kSample, bool kPrior, typename A>
[[gnu::flatten]] void gaussian_backward_chunk(const GaussianChunk<A>& q, const A* d_kl,
                                              const A* eps, const A* d_z,
                                              const GaussianGradients<A>& grad, A* d_eps,
                                              int64_t count) {
  for_fours<A>(count, [=](auto load, auto store) {
    const auto l = load(q.logvar);
    using V = std::remove_const_t<decltype(l)>;
    V d_mu{}, d_logvar{};
    if (kKl) {
      const V g = load(d_kl);
      V delta = l, u = load(q.mu), scaled = u;  // d e^{-l2 / 2} and d w
      if (kPrior) {
        const V l2 = load(q.prior_logvar), inverse = exponentials(A(-1) * l2).root;
        delta = l - l2;
        u = scaled_distance(u - load(q.prior_mu), inverse);
        scaled = scaled_distance(u, inverse);
      }
      d_mu = kPrior ? scaled_distance(g, scaled) : g * scaled;  // g is 0 at the floor
      d_logvar = g * exponentials(delta).half_expm1;
      if (kPrior) {
        store(grad.prior_mu, A(-1) * d_mu);
        store(grad.prior_logvar, A(-0.5) * (g * u * u) - d_logvar);
      }
    }
    if (kSample) {
      const V g = load(d_z), d_noise = g * exponentials(l).root;
      d_mu = d_mu + g;
      d_logvar = d_logvar + A(0.5) * d_noise * load(eps);
      if (d_eps) store(d_eps, d_noise);
    }
    store(grad.mu, d_mu);
    store(grad.logvar, d_logvar);
  });
}

// Further samples of the same elements: sigma is at hand.
template <typename A>
void sigma_chunk(const A* logvar, A* sigma, int64_t count) {
  map(count, sigma, [](auto l) { return exponentials(l).root; }, logvar);
}
template <typename A>
void gaussian_sample_chunk(const A* mu, const A* sigma, const A* eps, A* z, int64_t count) {
  map(count, z, [](auto m, auto s, auto e) { return m + s * e; }, mu, sigma, eps);
}
template <typename A>
void gaussian_sample_backward_chunk(const A* sigma, const A* eps, const A* d_z,
                                    const GaussianGradients<A>& grad, A* d_eps, int64_t count) {
  for_vectors<A>(count, [=](auto load, auto store) {
    const auto g = load(d_z), d_noise = g * load(sigma);
    store(grad.mu, load(grad.mu) + g);
    store(grad.logvar, load(grad.logvar) + A(0.5) * d_noise * load(eps));
    if (d_eps) store(d_eps, d_noise);
  });
}

// log q of what was drawn, element by element: -(eps^2 + l + log 2 pi) / 2.
template <typename A>
void log_prob_chunk(const A* logvar, const A* eps, A* terms, int64_t count) {
  constexpr A kLog2Pi = A(1.8378770664093454836);
  map(count, terms, [](auto l, auto e) { return A(-0.5) * (e * e + (l + kLog2Pi)); }, logvar, eps);
}

}  // namespace genkern::core
