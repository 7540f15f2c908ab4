// Integers from the parameters of a pixel and given uniform numbers, by inverse CDF.
#pragma once
#include <algorithm>
#include <cmath>
#include <vector>

#include "../core/loops.h"
#include "../core/vecmath.h"

namespace genkern::core::sampler {

enum class Kind : int64_t { kBernoulli, kCategorical, kMixture, kGaussian };

struct Drawing {
  Kind kind;
  int64_t levels, top_k;
  double temperature;
  double scale, offset;  // the network input of integer v is scale * v + offset
  bool wants_log_prob;   // of a normal: else log p is NaN or not, and no more
};

// log(1 + e^x)
inline double softplus_of(double x) {
  return std::max(x, 0.0) + std::log1p(std::exp(-std::abs(x)));
}

// 1 where u < sigmoid(a / T). log p, at T = 1, is added to `log_p`.
template <typename A>
int64_t draw_bernoulli(const Drawing& d, A a, A u, int64_t given, double& log_p) {
  int64_t x = given;
  if (x < 0) {
    const double limit =
        d.temperature > 0 ? 1 / (1 + std::exp(-double(a) / d.temperature)) : double(a > 0);
    x = double(u) < limit;
  }
  log_p -= softplus_of(x > 0 ? -double(a) : double(a));
  return x;
}

// sum over v of e^{(l[v] - largest) / T}, and each term; sums of float in double, level by level.
template <typename A>
double exponentials_of(const A* l, int64_t count, A largest, double inverse_temperature, A* to) {
  for_vectors<A>(count, [&](auto load, auto store) {
    store(to, exp_minus_abs((load(l) - largest) * A(inverse_temperature)));
  });
  double sum = 0;
  for (int64_t v = 0; v < count; ++v) sum += double(to[v]);
  return sum;
}

// The first level whose cumulative probability exceeds u.
template <typename A>
int64_t draw_categorical(const Drawing& d, const A* l, A u, int64_t given, double& log_p,
                         std::vector<A>& work) {
  const int64_t count = d.levels;
  work.resize(2 * count);
  A *terms = work.data(), *sorted = terms + count;
  const A largest = *std::max_element(l, l + count);
  int64_t x = given;
  if (x < 0) {
    if (d.temperature > 0) {
      double sum = exponentials_of(l, count, largest, 1 / d.temperature, terms);
      if (d.top_k > 0 && d.top_k < count) {
        std::copy_n(l, count, sorted);
        std::nth_element(sorted, sorted + d.top_k - 1, sorted + count, std::greater<A>());
        const A least = sorted[d.top_k - 1];
        sum = 0;
        for (int64_t v = 0; v < count; ++v) sum += double(terms[v] = l[v] < least ? A{} : terms[v]);
      }
      const double limit = double(u) * sum;
      double cumulative = 0;
      int64_t last = 0;
      for (int64_t v = 0; v < count && x < 0; ++v) {
        if (terms[v] > 0) last = v;
        cumulative += double(terms[v]);
        if (cumulative > limit) x = v;
      }
      if (x < 0) x = last;
    } else {
      x = std::max_element(l, l + count) - l;
    }
  }
  log_p += double(l[x] - largest) - std::log(exponentials_of(l, count, largest, 1.0, terms));
  return x;
}

// log P(v) of a discretized logistic, integers at 2 v / (levels - 1) - 1 (Salimans et al. 2017,
// sec. 2.1): log(sigm(p) - sigm(q)) without the difference.
inline double log_chance(double mean, double log_scale, int64_t v, int64_t levels) {
  const double t = std::exp(-std::max(log_scale, -7.0)), half = 1.0 / double(levels - 1);
  const double z = 2 * half * double(v) - 1 - mean;
  const double p = t * (z + half), q = t * (z - half);
  if (v == 0) return -softplus_of(-p);
  if (v == levels - 1) return -softplus_of(q);
  return -softplus_of(-p) - softplus_of(q) + std::log(-std::expm1(-2 * half * t));
}

// Parameters of a pixel, of K components: [K logits | for each colour: K means, K log-scales and,
// of three colours, K coefficients].
template <typename A>
struct Mixture {
  const A* params;
  int64_t K, colours, levels;

  int64_t each() const { return colours == 1 ? 2 : 3; }
  A log_scale(int64_t k, int64_t c) const { return params[K * (2 + each() * c) + k]; }
  // Given the colours x before c.
  template <typename B>
  B mean(int64_t k, int64_t c, const int64_t* x) const {
    B mean = params[K * (1 + each() * c) + k];
    for (int64_t before = 0; before < c; ++before) {  // green has coefficient 0, blue has 1 and 2
      const int64_t which = before + std::max<int64_t>(0, c - 1);
      const B at = B(2) * B(x[before]) / B(levels - 1) - B(1);
      mean += std::tanh(B(params[K * (3 + each() * which) + k])) * at;
    }
    return mean;
  }
};

// The colours of a pixel. u[0] chooses the component, u[1 + c] the value of colour c; `x` holds
// what is given, or -1, and then everything.
template <typename A>
void draw_mixture(const Drawing& d, const A* params, int64_t K, int64_t colours, const A* u,
                  int64_t* x, double& log_p, std::vector<A>& work) {
  const Mixture<A> mixture{params, K, colours, d.levels};
  work.assign(params, params + K);
  A* joint = work.data();
  const auto mean_of = [&](int64_t k, int64_t c) { return mixture.template mean<A>(k, c, x); };
  const auto scale_of = [&](int64_t k, int64_t c) { return mixture.log_scale(k, c); };
  // What is given of the pixel, from the first colour on, says which component it is of.
  for (int64_t c = 0; c < colours && x[c] >= 0; ++c)
    for (int64_t k = 0; k < K; ++k)
      joint[k] += A(log_chance(mean_of(k, c), scale_of(k, c), x[c], d.levels));
  int64_t chosen = std::max_element(joint, joint + K) - joint;
  if (d.temperature > 0) {
    const A largest = joint[chosen];
    double sum = 0, cumulative = 0;
    for (int64_t k = 0; k < K; ++k) sum += std::exp(double(joint[k] - largest) / d.temperature);
    for (chosen = 0; chosen + 1 < K; ++chosen) {
      cumulative += std::exp(double(joint[chosen] - largest) / d.temperature);
      if (cumulative > double(u[0]) * sum) break;
    }
  }
  for (int64_t c = 0; c < colours; ++c) {
    if (x[c] >= 0) continue;
    const double uniform = std::clamp(double(u[1 + c]), 0x1p-32, 1 - 0x1p-24);
    const double logistic = std::log(uniform) - std::log1p(-uniform);
    const double scale = std::exp(std::max(double(scale_of(chosen, c)), -7.0));
    const double at = double(mean_of(chosen, c)) + d.temperature * scale * logistic;
    const double level = 0.5 * double(d.levels - 1) * (1 + at);
    x[c] = int64_t(std::nearbyint(std::clamp(level, 0.0, double(d.levels - 1))));
  }
  double top = -INFINITY, sum = 0, weights = 0;
  std::vector<double> logs(K);
  const double largest = *std::max_element(params, params + K);
  for (int64_t k = 0; k < K; ++k) {
    logs[k] = params[k];
    for (int64_t c = 0; c < colours; ++c)
      logs[k] += log_chance(mean_of(k, c), scale_of(k, c), x[c], d.levels);
    top = std::max(top, logs[k]);
    weights += std::exp(double(params[k]) - largest);
  }
  for (int64_t k = 0; k < K; ++k) sum += std::exp(logs[k] - top);
  log_p += top + std::log(sum) - largest - std::log(weights);
}

}  // namespace genkern::core::sampler
