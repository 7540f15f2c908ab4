// Integers of a rounded normal distribution, and log P of them.
#pragma once
#include <algorithm>
#include <cmath>

#include "draw.h"

namespace genkern::core::sampler {

template <size_t N>
inline double polynomial(const double (&coefficients)[N], double x) {
  double sum = coefficients[N - 1];
  for (size_t i = N - 1; i-- > 0;) sum = sum * x + coefficients[i];
  return sum;
}

// The quantile of the standard normal distribution at p in (0, 1): rational functions of three
// ranges, relative error 1e-16 (Wichura 1988, "Algorithm AS 241", PPND16).
inline double normal_quantile(double p) {
  static constexpr double kMiddle[] = {3.3871328727963666080e0, 1.3314166789178437745e2,
                                       1.9715909503065514427e3, 1.3731693765509461125e4,
                                       4.5921953931549871457e4, 6.7265770927008700853e4,
                                       3.3430575583588128105e4, 2.5090809287301226727e3};
  static constexpr double kUnderMiddle[] = {1.0,
                                            4.2313330701600911252e1,
                                            6.8718700749205790830e2,
                                            5.3941960214247511077e3,
                                            2.1213794301586595867e4,
                                            3.9307895800092710610e4,
                                            2.8729085735721942674e4,
                                            5.2264952788528545610e3};
  static constexpr double kTail[] = {1.42343711074968357734e0,  4.63033784615654529590e0,
                                     5.76949722146069140550e0,  3.64784832476320460504e0,
                                     1.27045825245236838258e0,  2.41780725177450611770e-1,
                                     2.27238449892691845833e-2, 7.74545014278341407640e-4};
  static constexpr double kUnderTail[] = {1.0,
                                          2.05319162663775882187e0,
                                          1.67638483018380384940e0,
                                          6.89767334985100004550e-1,
                                          1.48103976427480074590e-1,
                                          1.51986665636164571966e-2,
                                          5.47593808499534494600e-4,
                                          1.05075007164441684324e-9};
  static constexpr double kFar[] = {6.65790464350110377720e0,  5.46378491116411436990e0,
                                    1.78482653991729133580e0,  2.96560571828504891230e-1,
                                    2.65321895265761230930e-2, 1.24266094738807843860e-3,
                                    2.71155556874348757815e-5, 2.01033439929228813265e-7};
  static constexpr double kUnderFar[] = {1.0,
                                         5.99832206555887937690e-1,
                                         1.36929880922735805310e-1,
                                         1.48753612908506148525e-2,
                                         7.86869131145613259100e-4,
                                         1.84631831751005468180e-5,
                                         1.42151175831644588870e-7,
                                         2.04426310338993978564e-15};
  const double q = p - 0.5;
  if (std::abs(q) <= 0.425) {
    const double r = 0.180625 - q * q;
    return q * polynomial(kMiddle, r) / polynomial(kUnderMiddle, r);
  }
  const double r = std::sqrt(-std::log(q < 0 ? p : 1 - p));
  const double far = r <= 5 ? polynomial(kTail, r - 1.6) / polynomial(kUnderTail, r - 1.6)
                            : polynomial(kFar, r - 5) / polynomial(kUnderFar, r - 5);
  return q < 0 ? -far : far;
}

// log of the standard normal distribution function; far out by its asymptotic series.
inline double log_normal_below(double x) {
  if (x > -30) return std::log(0.5 * std::erfc(-x * M_SQRT1_2));
  if (std::isinf(x)) return x;
  const double r = 1 / (x * x);
  const double series = 1 - r * (1 - 3 * r * (1 - 5 * r * (1 - 7 * r * (1 - 9 * r))));
  return -0.5 * x * x - std::log(-x) - 0.91893853320467274 + std::log(series);
}

// log P(v): of bounds on the side of the lower tail, whose difference is formed from logarithms; of
// a narrow bin, from the density in its middle.
inline double log_chance_of_normal(const Drawing& d, double mean, double sigma, int64_t v) {
  constexpr double kNarrow = 1e-4;
  const double width = d.scale / sigma, middle = (d.scale * double(v) + d.offset - mean) / sigma;
  const bool is_first = v == 0, is_last = v == d.levels - 1;
  if (width < kNarrow && std::abs(middle) * width < 10 * kNarrow && !is_first && !is_last)
    return -0.5 * middle * middle - 0.91893853320467274 + std::log(width) +
           (middle * middle - 1) * width * width / 24;
  double low = is_first ? -INFINITY : middle - width / 2;
  double high = is_last ? INFINITY : middle + width / 2;
  if (low + high > 0) {
    std::swap(low, high);
    low = -low, high = -high;
  }
  const double of_high = log_normal_below(high);
  return of_high + std::log1p(-std::exp(log_normal_below(low) - of_high));
}

// The integer of one colour: round((mean + T sigma z - offset) / scale), z the quantile at u.
template <typename A>
int64_t draw_gaussian(const Drawing& d, A mean, A log_scale, A u, int64_t given, double& log_p) {
  const double m = mean, s = log_scale, sigma = std::exp(std::max(s, -7.0));
  int64_t x = given;
  if (x < 0) {
    const double z = normal_quantile(std::clamp(double(u), 0x1p-32, 1 - 0x1p-24));
    const double level = (m + d.temperature * sigma * z - d.offset) / d.scale;
    // What is not finite is told by log p.
    x = int64_t(std::nearbyint(std::min(std::max(0.0, level), double(d.levels - 1))));
  }
  log_p += 0 * (m + s);
  if (d.wants_log_prob) log_p += log_chance_of_normal(d, m, sigma, x);
  return x;
}

}  // namespace genkern::core::sampler
