// A mixture of K discretized logistics over the integers of a pixel (Salimans et al. 2017,
// PixelCNN++, sec. 2.1, 2.2), with log P as in core/logistic.h. The colours of a component share
// one logarithm, that of the product of their quotients:
//
//   for (k < K) {
//     ll[k] = logits[k] - largest;
//     for (c < colours) ll[k] += log P(c);
//   }
//   nll = log sum exp(logits - largest) - log sum exp ll
#pragma once
#include "../core/logistic.h"
#include "../core/philox.h"

namespace genkern::core {

// e^r for |r| <= ln 2 / 2 within 2e-9.
inline constexpr double kExp[] = {1.0,
                                  1.0000000377269404,
                                  0.50000000471311554,
                                  0.16666415467018786,
                                  0.041666352837280417,
                                  0.0083751303641766854,
                                  0.0013941113387371316};

// tanh k of a plane within 2e-9, and its slope: 1 - 2 F and 4 F G with F = 1 / (1 + e^2k), G = 1 -
// F.
template <bool kGradients>
inline void couplings(const float* k, int64_t count, double* tanh, float* slope) {
  each_vector<float>(count, [&](int64_t i) {
    const VecF y = 2 * min(max(load(k + i), splat(-40.0f)), splat(40.0f));
    const VecF shifted = y * 1.44269504f + 12582912.0f, n = shifted - 12582912.0f;
    const VecF power = bit_cast<VecF>((bit_cast<VecI>(shifted) << 23) + 0x3F800000);
    const Twin<Vec<double>> r = widen(y) - widen(n) * 0.6931471805599453;
    Twin<Vec<double>> p = r * kExp[6] + kExp[5];
    for (int j = 4; j >= 0; --j) p = p * r + kExp[j];
    const Twin<Vec<double>> f = p * widen(power), F = {1 / (1 + f.a), 1 / (1 + f.b)};
    const Twin<Vec<double>> found = F * -2.0 + 1.0;
    store(tanh + i, found.a), store(tanh + i + kLanes<double>, found.b);
    if (kGradients) store(slope + i, narrow(F * 4.0 * (f * F)));
  });
}
template <bool kGradients>
inline void couplings(const double* k, int64_t count, double* to, double* slope) {
  each_vector<double>(count, [&](int64_t i) {
    const Vec<double> x = load(k + i), f = exp(-2 * abs(x));
    store(to + i, tanh(x)), store(slope + i, 4 * f / ((1 + f) * (1 + f)));
  });
}

// ---- a block of pixels -------------------------------------------------------------------------

// Planes of the parameters: logits, then for each colour means, log-scales and, where there are
// three, coefficients; K planes of each.
template <int kColours>
struct Planes {
  static constexpr int kEach = kColours == 3 ? 3 : 2, kCount = 1 + kColours * kEach;
  static constexpr int mean(int c) { return 1 + kEach * c; }
  static constexpr int log_scale(int c) { return 2 + kEach * c; }
  static constexpr int coefficient(int c) { return 3 + kEach * c; }
};

// One thread's view of a block: parameters and gradients (kCount, K, kPixels).
template <int kColours, typename A>
struct Block {
  using P = Planes<kColours>;
  const A* params;
  A* d_params;  // of a forward pass, null
  int64_t K, count;
  const Pixels<A>* x;  // 2 v - last of each colour, also as doubles
  const Pixels<double>* wide_x;

  const A* plane(int j, int64_t k) const { return params + (j * K + k) * kPixels; }
  A* d_plane(int j, int64_t k) const { return d_params + (j * K + k) * kPixels; }
};

// log of weight times probability of component k, without that of the weights' sum, into `joint`;
// with gradients, the slopes of log P into its planes.
template <bool kGradients, int kColours, typename A>
void component(const Block<kColours, A>& block, int64_t k, const Pixels<A>& largest,
               const Bins<A>& bins, Component<A>& work, Colour<A>& colour, A* joint) {
  using V = Vec<A>;
  using P = Planes<kColours>;
  const int64_t count = block.count;
  each_vector<A>(count, [&](int64_t i) {
    store(work.linear.at + i, load(block.plane(0, k) + i) - load(largest.at + i));
    store(work.top.at + i, splat(A(1)));
    store(work.bottom.at + i, splat(A(1)));
  });
  if constexpr (kColours == 3)
    for (int c = 0; c < 3; ++c)
      couplings<kGradients>(block.plane(P::coefficient(c), k), count, work.tanh[c].at,
                            work.slope[c].at);
  for (int c = 0; c < kColours; ++c) {
    const A* log_scale = block.plane(P::log_scale(c), k);
    centre<kColours>(block.plane(P::mean(c), k), log_scale, block.wide_x, c, count, bins, work,
                     colour);
    decays(block.x[c], count, bins, colour);
    add_colour<kGradients>(block.x[c], log_scale, count, bins, colour, work,
                           kGradients ? block.d_plane(P::log_scale(c), k) : nullptr);
    if constexpr (kGradients)
      each_vector<A>(count, [&](int64_t i) {
        const V d = load(colour.d_mean.at + i);
        store(block.d_plane(P::mean(c), k) + i, d);
        if constexpr (kColours == 3) {
          const auto of_coefficient = [&](int j, int of) {
            const V value = load(block.x[of].at + i) * bins.half;
            store(block.d_plane(P::coefficient(j), k) + i, d * value * load(work.slope[j].at + i));
          };
          if (c > 0) of_coefficient(c == 1 ? 0 : 1, 0);
          if (c > 1) of_coefficient(2, 1);
        }
      });
  }
  each_vector<A>(count, [&](int64_t i) {
    const V quotient = load(work.top.at + i) / load(work.bottom.at + i);
    store(joint + i, load(work.linear.at + i) + log(quotient));
  });
}

// Maximum over the K planes of `from`, and the sum of e^(from - maximum), which takes the place of
// `to`'s planes; where all are -inf, the maximum is 0.
template <typename A>
void exponentials(const A* from, int64_t K, int64_t count, Pixels<A>& largest, Pixels<A>& sum,
                  A* to) {
  using V = Vec<A>;
  each_vector<A>(count, [&](int64_t i) {
    V highest = splat(A(-INFINITY));
    for (int64_t k = 0; k < K; ++k) highest = max(load(from + k * kPixels + i), highest);
    store(largest.at + i, highest == -INFINITY ? V{} : highest);
    store(sum.at + i, V{});
  });
  for (int64_t k = 0; k < K; ++k)
    each_vector<A>(count, [&](int64_t i) {
      const V e = exp_minus_abs(load(from + k * kPixels + i) - load(largest.at + i));
      store(to + k * kPixels + i, e);
      store(sum.at + i, load(sum.at + i) + e);
    });
}

// nats of each pixel, and their gradients. `joint` and `weights` hold (K, kPixels).
template <bool kGradients, int kColours, typename A>
void mixture_block(const Block<kColours, A>& block, const Bins<A>& bins, A* joint, A* weights,
                   A* nats) {
  using V = Vec<A>;
  using P = Planes<kColours>;
  const int64_t K = block.K, count = block.count;
  Pixels<A> largest, prior, highest, total;
  Component<A> work;
  Colour<A> colour;
  exponentials(block.params, K, count, largest, prior, weights);
  for (int64_t k = 0; k < K; ++k)
    component<kGradients>(block, k, largest, bins, work, colour, joint + k * kPixels);
  exponentials(joint, K, count, highest, total, joint);
  each_vector<A>(count, [&](int64_t i) {
    const V found = load(highest.at + i) + log(load(total.at + i));
    store(nats + i, log(load(prior.at + i)) - found);
    if (kGradients) store(total.at + i, 1 / load(total.at + i));
    if (kGradients) store(prior.at + i, 1 / load(prior.at + i));
  });
  for (int64_t k = 0; kGradients && k < K; ++k)
    each_vector<A>(count, [&](int64_t i) {
      const V share = load(joint + k * kPixels + i) * load(total.at + i);
      const V weight = load(weights + k * kPixels + i) * load(prior.at + i);
      store(block.d_plane(0, k) + i, weight - share);
      for (int j = 1; j < P::kCount; ++j) {
        A* to = block.d_plane(j, k) + i;
        store(to, -share * load(to));
      }
    });
}

// ---- samples -----------------------------------------------------------------------------------

// Uniform numbers of the elements first, ..., first + count - 1 <= kPixels of a Philox stream.
class UniformStream {
 public:
  explicit UniformStream(uint64_t seed) : keys_(seed) {}

  const float* get(uint64_t first, int64_t count) {
    const uint64_t begin = first & ~uint64_t(3);
    for (uint64_t e = begin; e < first + count; e += kPhiloxElements) {
      VecU words[4];
      philox(keys_, e / 4, words);
      VecF u[4];
      for (int i = 0; i < 4; ++i)
        u[i] = to_float(bit_cast<VecI>(words[i] >> 1)) * 0x1p-31f + 0x1p-32f;
      put_blocks({u[0], u[2]}, {u[1], u[3]}, numbers_ + (e - begin));
    }
    return numbers_ + (first - begin);
  }

 private:
  PhiloxKeys keys_;
  alignas(64) float numbers_[kPixels + 4 + 2 * kPhiloxElements];
};

// The component of each pixel: the first whose cumulative weight exceeds u times the sum.
template <typename A>
void choose_components(const A* logits, int64_t K, const A* u, int64_t count, A inverse_temperature,
                       A* cumulative, int32_t* chosen) {
  using V = Vec<A>;
  for (int64_t i = 0; i < count; i += kLanes<A>) {
    V largest = splat(A(-INFINITY)), sum{}, index{};
    for (int64_t k = 0; k < K; ++k) largest = max(load(logits + k * kPixels + i), largest);
    for (int64_t k = 0; k < K; ++k) {
      const V logit = load(logits + k * kPixels + i) - largest;
      sum += exp_minus_abs(logit * inverse_temperature);
      store(cumulative + k * kPixels + i, sum);
    }
    const V limit = load(u + i) * sum;
    for (int64_t k = 0; k + 1 < K; ++k)
      index += load(cumulative + k * kPixels + i) <= limit ? splat(A(1)) : V{};
    for (int lane = 0; lane < kLanes<A>; ++lane) chosen[i + lane] = int32_t(index[lane]);
  }
}

// Integers of one colour, as numbers: mean (with what earlier colours add) and log-scale of the
// chosen components, u uniform. In place of the means.
template <typename A>
void draw_colour(A* mean, const A* log_scale, const A* u, int64_t count, A temperature,
                 const Bins<A>& bins) {
  using V = Vec<A>;
  for (int64_t i = 0; i < count; i += kLanes<A>) {
    const V uniform = min(max(load(u + i), splat(A(0x1p-32))), splat(A(1 - 0x1p-24)));
    const V logistic = log(uniform) - log(1 - uniform);
    const V s = max(load(log_scale + i), splat(A(kMinLogScale)));
    const V spread = temperature * exp(s) * logistic;
    const V v = (load(mean + i) + spread + 1) * (bins.last / 2);
    const V inside = min(max(v, V{}), splat(bins.last)) + A(0.5);
    for (int lane = 0; lane < kLanes<A>; ++lane)
      mean[i + lane] = inside[lane] >= 0 ? std::floor(inside[lane]) : 0;
  }
}

}  // namespace genkern::core
