// Chances of every level of a colour of a pixel, for an entropy coder: of a mixture
//
//   P(v) = sum_k w_k (sigmoid(b_kv) - sigmoid(b_k,v-1)),   b_kv = e^-s_k ((2 v + 1) h - 1 - m_k)
//
// with h = 1 / (levels - 1), half a bin, and the weights w of the components given the colours that
// are known. The difference is formed as sigmoid(b_v) sigmoid(-b_v-1) (1 - e^{-2 h e^-s}), in which
// nothing cancels.
#pragma once
#include "draw.h"

namespace genkern::core::sampler {

template <typename A>
class Chances {
 public:
  explicit Chances(int64_t levels)
      : levels_(levels), up_(levels + kLanes<A>), down_(levels + kLanes<A>) {}

  // Given the first `known` colours x, those of the next one: (levels,).
  void of(const Mixture<A>& mixture, const int64_t* x, int64_t known, A* to) {
    weigh(mixture, x, known);
    std::fill_n(to, levels_, A{});
    for (int64_t k = 0; k < mixture.K; ++k) {
      const double mean = mixture.template mean<double>(k, known, x);
      add(weights_[k], mean, double(mixture.log_scale(k, known)), to);
    }
  }

 private:
  void weigh(const Mixture<A>& mixture, const int64_t* x, int64_t known) {
    weights_.assign(mixture.params, mixture.params + mixture.K);
    for (int64_t c = 0; c < known; ++c)
      for (int64_t k = 0; k < mixture.K; ++k)
        weights_[k] += log_chance(mixture.template mean<double>(k, c, x),
                                  double(mixture.log_scale(k, c)), x[c], levels_);
    const double largest = *std::max_element(weights_.begin(), weights_.end());
    double sum = 0;
    for (double& w : weights_) sum += w = std::exp(w - largest);
    for (double& w : weights_) w /= sum;
  }

  void add(double weight, double mean, double log_scale, A* to) {
    const double t = std::exp(-std::max(log_scale, -7.0)), half = 1.0 / double(levels_ - 1);
    const int64_t ends = levels_ - 1;
    for (int64_t v = 0; v < ends; ++v) up_[v] = A(t * (half * double(2 * v + 1) - 1 - mean));
    for (int64_t v = 0; v < ends; v += kLanes<A>) {
      const auto b = load(&up_[v]), e = exp_minus_abs(b), r = 1 / (1 + e);
      store(&up_[v], b > 0 ? r : e * r);
      store(&down_[v], b > 0 ? e * r : r);
    }
    const A inside = A(-std::expm1(-2 * half * t) * weight);
    to[0] += A(weight) * up_[0];
    for (int64_t v = 1; v < ends; ++v) to[v] += inside * up_[v] * down_[v - 1];
    to[ends] += A(weight) * down_[ends - 1];
  }

  const int64_t levels_;
  std::vector<A> up_, down_;  // of the upper end of each level, and 1 - it
  std::vector<double> weights_;
};

}  // namespace genkern::core::sampler
