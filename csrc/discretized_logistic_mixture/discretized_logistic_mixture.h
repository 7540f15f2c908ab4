// A mixture of K discretized logistics over the integers of a pixel (Salimans et al. 2017,
// PixelCNN++, sec. 2.1, 2.2), with log P exact where the difference of sigmoids cancels.
//
// Lengths are counted in half-bins h = 1 / (levels - 1). With Z = (x - m) / h and tau = h e^-s,
// p = tau (Z + 1), q = tau (Z - 1), d = 2 tau:
//
//   sigmoid(p) - sigmoid(q) = (1 - e^-d) / ((1 + e^-p) (1 + e^q))
//   log P = -tau max(|Z| - 1, 0) + log((1 - e^-d) / ((1 + e) (1 + E))),   e, E = e^-min, e^-max of
//                                                                          |p|, |q|
//   d log P / dm = t (sigmoid(q) - sigmoid(-p)) = t sign(Z) (1 - e^-2 tau |Z|) (|Z| < 1 ? e : 1) /
//                                                 ((1 + e) (1 + E))
// and in the bins at the ends log P = log sigmoid(g tau), g = 1 +- Z. Nothing cancels, and the
// colours of a component share one logarithm, that of the product of their quotients:
//
//   for (k < K) {
//     ll[k] = logits[k] - largest;
//     for (c < colours) ll[k] += log P(c);
//   }
//   nll = log sum exp(logits - largest) - log sum exp ll
#pragma once
#include "../core/loops.h"
#include "../core/philox.h"

namespace genkern::core {

inline constexpr int64_t kPixels = block_size(64, 16);  // of a block: planes of so many elements
static_assert(kPixels % (64 / sizeof(float)) == 0);

// ---- arithmetic beyond vecmath.h ---------------------------------------------------------------

// Means are formed in double: at log-scale -7 an error of one float rounding of m is 7e-5 nats.
template <typename A>
using Wide = std::conditional_t<std::is_same_v<A, float>, Twin<Vec<double>>, Vec<double>>;

inline Vec<double> widen(Vec<double> v) { return v; }
inline Vec<double> narrow(Vec<double> v) { return v; }
inline Twin<Vec<double>> widen(VecF v) {
#if defined(GENKERN_AVX512)
  return {Vec<double>(_mm512_cvtps_pd(_mm512_castps512_ps256(__m512(v)))),
          Vec<double>(_mm512_cvtps_pd(_mm512_extractf32x8_ps(__m512(v), 1)))};
#elif defined(GENKERN_AVX2)
  return {Vec<double>(_mm256_cvtps_pd(_mm256_castps256_ps128(__m256(v)))),
          Vec<double>(_mm256_cvtps_pd(_mm256_extractf128_ps(__m256(v), 1)))};
#else
  typedef float Part __attribute__((vector_size(kVectorBytes / 2)));
  Part halves[2];
  std::memcpy(halves, &v, sizeof(v));
  return {__builtin_convertvector(halves[0], Vec<double>),
          __builtin_convertvector(halves[1], Vec<double>)};
#endif
}
inline VecF narrow(Twin<Vec<double>> v) {
#if defined(GENKERN_AVX512)
  return VecF(_mm512_insertf32x8(_mm512_castps256_ps512(_mm512_cvtpd_ps(__m512d(v.a))),
                                 _mm512_cvtpd_ps(__m512d(v.b)), 1));
#elif defined(GENKERN_AVX2)
  return VecF(_mm256_insertf128_ps(_mm256_castps128_ps256(_mm256_cvtpd_ps(__m256d(v.a))),
                                   _mm256_cvtpd_ps(__m256d(v.b)), 1));
#else
  typedef float Part __attribute__((vector_size(kVectorBytes / 2)));
  const Part halves[2] = {__builtin_convertvector(v.a, Part), __builtin_convertvector(v.b, Part)};
  VecF whole;
  std::memcpy(&whole, halves, sizeof(whole));
  return whole;
#endif
}

// As doubles in memory.
template <typename A>
inline Wide<A> load_wide(const double* p) {
  if constexpr (std::is_same_v<A, double>)
    return load(p);
  else
    return {load(p), load(p + kLanes<double>)};
}

// e^r for |r| <= ln 2 / 2 within 2e-9.
inline constexpr double kExp[] = {1.0,
                                  1.0000000377269404,
                                  0.50000000471311554,
                                  0.16666415467018786,
                                  0.041666352837280417,
                                  0.0083751303641766854,
                                  0.0013941113387371316};

template <typename V>
struct Decay {
  V rest, gone;  // e^-y, 1 - e^-y
};

// For y >= 0, both within 3 ulp; from y = 87.7 on 0 and 1, because 2^-127 comes out as 0.
inline Decay<VecF> decay(VecF y) {
  y = min(y, splat(88.0f));
  const VecF shifted = y * -1.44269504f + 12582912.0f, n = shifted - 12582912.0f;
  const VecF r = (-y - n * 0.693359375f) - n * -2.12194440e-4f, r2 = r * r;
  const VecF a = 1.9875691500e-4f * r + 1.3981999507e-3f;
  const VecF b = 8.3334519073e-3f * r + 4.1665795894e-2f;
  const VecF c = 1.6666665459e-1f * r + 5.0000001201e-1f;
  const VecF m = ((a * r2 + b) * r2 + c) * r2 + r;  // e^r - 1
  const VecF power = bit_cast<VecF>((bit_cast<VecI>(shifted) << 23) + 0x3F800000);
  return {power * m + power, (1.0f - power) - power * m};
}
inline Decay<Vec<double>> decay(Vec<double> y) { return {exp(-y), 0.0 - expm1(-y)}; }

// e^-s for s >= -7, within 2 ulp; from s = 87 on as at 87.
inline VecF inverse_scale(VecF s) {
  s = min(s, splat(87.0f));
  const VecF shifted = s * -1.44269504f + 12582912.0f, n = shifted - 12582912.0f;
  const VecF r = (-s - n * 0.693359375f) - n * -2.12194440e-4f, r2 = r * r;
  const VecF a = 1.9875691500e-4f * r + 1.3981999507e-3f;
  const VecF b = 8.3334519073e-3f * r + 4.1665795894e-2f;
  const VecF c = 1.6666665459e-1f * r + 5.0000001201e-1f;
  const VecF m = ((a * r2 + b) * r2 + c) * r2 + r;
  const VecF power = bit_cast<VecF>((bit_cast<VecI>(shifted) << 23) + 0x3F800000);
  return power * m + power;
}
inline Vec<double> inverse_scale(Vec<double> s) { return exp(-min(s, splat(700.0))); }

// Calls f(i) for the first element i of each vector of a block. Loops are short, one function each:
// an iteration must end before the processor's window does, or its steps only wait for each other.
template <typename A, typename F>
inline void each_vector(int64_t count, const F& f) {
  for (int64_t i = 0; i < count; i += kLanes<A>) f(i);
}

template <typename V>
inline bool any(V mask) {
#if defined(GENKERN_AVX512)
  return _mm512_test_epi64_mask(__m512i(mask), __m512i(mask)) != 0;
#elif defined(GENKERN_AVX2)
  return !_mm256_testz_si256(__m256i(mask), __m256i(mask));
#elif defined(GENKERN_SSE2)
  return _mm_movemask_epi8(__m128i(mask)) != 0;
#else
  for (size_t i = 0; i < sizeof(V) / sizeof(mask[0]); ++i)
    if (mask[i]) return true;
  return false;
#endif
}

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

// ---- one colour of one component ---------------------------------------------------------------

template <typename A>
struct Bins {
  explicit Bins(int64_t levels) : levels(levels), last(A(levels - 1)), half(1 / last) {}

  int64_t levels;
  A last, half;
  // From this log-scale on d is below kNarrow, and log(1 - e^-d) = log d falls linearly with it.
  // Far below eps, and the product of three colours, (kNarrow / 4)^3, is a normal number.
  static constexpr A kNarrow = std::is_same_v<A, double> ? A(0x1p-300) : A(0x1p-38);
  A narrow_from = std::log(2 * half) - std::log(kNarrow);
};

inline constexpr float kMinLogScale = -7.0f;

// Values of the pixels of a block.
template <typename A>
struct alignas(64) Pixels {
  A at[kPixels] = {};
};

// What a component is made of, for one colour: P = e^linear top / bottom, and slopes of log P.
template <typename A>
struct Colour {
  Pixels<A> t, Z, g, e, e_gone, d_rest, d_gone;  // steps on the way
  Pixels<A> d_mean;
};

template <typename A>
struct Component {
  Pixels<A> linear, top, bottom, slope[3];
  Pixels<double> tanh[3];
};

// t = e^-s, Z = (x - m) / h, where m = mean + shift and x = 2 v - last.
template <int kColours, typename A>
void centre(const A* mean, const A* log_scale, const Pixels<double>* x, int c, int64_t count,
            const Bins<A>& bins, const Component<A>& of, Colour<A>& to) {
  each_vector<A>(count, [&](int64_t i) {
    store(to.t.at + i, inverse_scale(max(load(log_scale + i), splat(A(kMinLogScale)))));
  });
  each_vector<A>(count, [&](int64_t i) {
    auto Z = load_wide<A>(x[c].at + i) - widen(load(mean + i)) * double(bins.last);
    if (kColours == 3 && c == 1)
      Z = Z - load_wide<A>(of.tanh[0].at + i) * load_wide<A>(x[0].at + i);
    if (kColours == 3 && c == 2)
      Z = Z - load_wide<A>(of.tanh[1].at + i) * load_wide<A>(x[0].at + i) -
          load_wide<A>(of.tanh[2].at + i) * load_wide<A>(x[1].at + i);
    store(to.Z.at + i, narrow(Z));
  });
}

// Powers of e: of the distance g to the nearer end of the bin, and of its width.
template <typename A>
void decays(const Pixels<A>& x, int64_t count, const Bins<A>& bins, Colour<A>& to) {
  using V = Vec<A>;
  each_vector<A>(count, [&](int64_t i) {
    const V tau = load(to.t.at + i) * bins.half, Z = load(to.Z.at + i), value = load(x.at + i);
    const V g = 1 - (value == -bins.last ? -Z : value == bins.last ? Z : abs(Z));
    const Decay<V> e = decay(tau * abs(g));
    store(to.g.at + i, g);
    store(to.e.at + i, e.rest);
    store(to.e_gone.at + i, e.gone);
  });
  each_vector<A>(count, [&](int64_t i) {
    const V tau = load(to.t.at + i) * bins.half;
    const Decay<V> d = decay(max(2 * tau, splat(Bins<A>::kNarrow)));
    store(to.d_rest.at + i, d.rest);
    store(to.d_gone.at + i, d.gone);
  });
}

// Adds a colour's log P to its component; d_mean and d_log_scale are the slopes of log P.
template <bool kGradients, typename A>
void add_colour(const Pixels<A>& x, const A* log_scale, int64_t count, const Bins<A>& bins,
                Colour<A>& from, Component<A>& to, A* d_log_scale) {
  using V = Vec<A>;
  each_vector<A>(count, [&](int64_t i) {
    const V t = load(from.t.at + i), tau = t * bins.half, Z = load(from.Z.at + i);
    const V value = load(x.at + i), one = splat(A(1)), zero{};
    const auto first = value == -bins.last, end = first | (value == bins.last);
    const V g = load(from.g.at + i), e = load(from.e.at + i);
    const V d_rest = load(from.d_rest.at + i), d_gone = load(from.d_gone.at + i);
    const auto far = g <= 0, near = (end == 0) & (far == 0);
    // e^-2 tau |Z| and its rest: beyond the bin, where |Z| = 1 + |g|, a product
    V centre_gone{}, other = end ? zero : e * d_rest;
    if (kGradients) {
      const V gone = load(from.e_gone.at + i), twice = gone * (2 - gone);
      centre_gone = twice + d_gone * (1 - twice);
    }
    if (any(near)) {
      const Decay<V> centre = decay(2 * tau * abs(Z));
      centre_gone = near ? centre.gone : centre_gone;
      other = near ? e * centre.rest : other;
    }
    const V bottom = (1 + e) * (1 + other), top = end ? one : d_gone, raw = load(log_scale + i);
    const V narrow = max(raw - bins.narrow_from, zero);
    store(to.linear.at + i,
          load(to.linear.at + i) + ((far ? tau * g : zero) - (end ? zero : narrow)));
    store(to.top.at + i, load(to.top.at + i) * top);
    store(to.bottom.at + i, load(to.bottom.at + i) * bottom);
    if constexpr (kGradients) {
      const V inverse = 1 / (bottom * top), over = inverse * top;
      const V pull = (end ? one : centre_gone) * (far ? one : e) * over;  // |d log P / dm| / t
      const V both = far ? 1 + other * (2 + e) : e + other * (1 + 2 * e);
      const V width = max(2 * tau, splat(Bins<A>::kNarrow));
      const V spread = tau * both * over + width * d_rest * (inverse * bottom);
      // Infinite times no slope at all is none.
      const V reach = max(min(end ? -g : abs(Z), splat(A(1e30))), splat(A(-1e30)));
      const V slope = tau * reach * pull - (end ? zero : spread);
      const auto negative = first | ((end == 0) & (Z < 0));
      store(from.d_mean.at + i, t * (negative ? -pull : pull));
      store(d_log_scale + i, raw < A(kMinLogScale) ? zero : slope);
    }
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
  explicit UniformStream(uint64_t seed) : seed_(seed) {}

  const float* get(uint64_t first, int64_t count) {
    const uint64_t begin = first & ~uint64_t(3);
    for (uint64_t e = begin; e < first + count; e += kPhiloxElements) {
      VecU words[4];
      philox(seed_, e / 4, words);
      VecF u[4];
      for (int i = 0; i < 4; ++i)
        u[i] = to_float(bit_cast<VecI>(words[i] >> 1)) * 0x1p-31f + 0x1p-32f;
      const VecF even_low = zip_low(u[0], u[2]), even_high = zip_high(u[0], u[2]);
      const VecF odd_low = zip_low(u[1], u[3]), odd_high = zip_high(u[1], u[3]);
      float* to = numbers_ + (e - begin);
      store(to, zip_low(even_low, odd_low));
      store(to + kLanes<float>, zip_high(even_low, odd_low));
      store(to + 2 * kLanes<float>, zip_low(even_high, odd_high));
      store(to + 3 * kLanes<float>, zip_high(even_high, odd_high));
    }
    return numbers_ + (first - begin);
  }

 private:
  uint64_t seed_;
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
