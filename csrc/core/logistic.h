// Discretized logistics: log P of an integer, exact where the difference of sigmoids cancels, and
// its slopes (Salimans et al. 2017, PixelCNN++, sec. 2.1).
//
// Lengths are counted in half-bins h = 1 / (levels - 1). With Z = (x - m) / h and tau = h e^-s,
// p = tau (Z + 1), q = tau (Z - 1), d = 2 tau:
//
//   sigmoid(p) - sigmoid(q) = (1 - e^-d) / ((1 + e^-p) (1 + e^q))
//   log P = -tau max(|Z| - 1, 0) + log((1 - e^-d) / ((1 + e) (1 + E))),   e, E = e^-min, e^-max of
//                                                                          |p|, |q|
//   d log P / dm = t (sigmoid(q) - sigmoid(-p)) = t sign(Z) (1 - e^-2 tau |Z|) (|Z| < 1 ? e : 1) /
//                                                 ((1 + e) (1 + E))
// and in the bins at the ends log P = log sigmoid(g tau), g = 1 +- Z. Nothing cancels. The
// logarithm is left to the caller, so that the factors of a product share one.
#pragma once
#include "loops.h"
#include "vecmath.h"

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

}  // namespace genkern::core
