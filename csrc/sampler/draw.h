// Integers from the parameters of a pixel and given uniform numbers, by inverse CDF.
#pragma once
#include <algorithm>
#include <cmath>
#include <vector>

#include "../core/loops.h"
#include "../core/vecmath.h"

namespace genkern::core::sampler {

enum class Kind : int64_t { kBernoulli, kCategorical, kMixture };

struct Drawing {
  Kind kind;
  int64_t levels, top_k;
  double temperature;
};

// log(1 + e^x)
inline double softplus_of(double x) { return std::max(x, 0.0) + std::log1p(std::exp(-std::abs(x))); }

// 1 where u < sigmoid(a / T). log p, at T = 1, is added to `log_p`.
template <typename A>
int64_t draw_bernoulli(const Drawing& d, A a, A u, int64_t given, double& log_p) {
  int64_t x = given;
  if (x < 0) {
    const double limit = d.temperature > 0 ? 1 / (1 + std::exp(-double(a) / d.temperature))
                                           : double(a > 0);
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

}  // namespace genkern::core::sampler
