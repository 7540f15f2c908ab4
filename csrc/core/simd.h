// One vector type for every instruction-set level: the compiler's generic vectors, as wide as the
// registers that the translation unit is compiled for. Loads and stores convert storage types.
#pragma once
#include <cmath>
#include <cstdint>
#include <cstring>
#include <iterator>

#include "dtypes.h"

#if defined(__SSE2__)
#include <immintrin.h>
#endif

// A wider vector than the registers is legal (and slow): it lets a machine without AVX-512 run the
// code that AVX-512 machines run.
#if !defined(GENKERN_VECTOR_BYTES)
#if defined(__AVX512F__)
#define GENKERN_VECTOR_BYTES 64
#elif defined(__AVX2__)
#define GENKERN_VECTOR_BYTES 32
#else
#define GENKERN_VECTOR_BYTES 16
#endif
#endif

#if defined(__AVX512F__) && GENKERN_VECTOR_BYTES == 64
#define GENKERN_AVX512 1
#elif defined(__AVX2__) && GENKERN_VECTOR_BYTES == 32
#define GENKERN_AVX2 1
#elif defined(__SSE2__) && GENKERN_VECTOR_BYTES == 16
#define GENKERN_SSE2 1
#endif

namespace genkern::core {

inline constexpr int kVectorBytes = GENKERN_VECTOR_BYTES;
#if defined(GENKERN_AVX512)
inline constexpr bool kIsAvx512 = true;
#else
inline constexpr bool kIsAvx512 = false;
#endif

template <typename T, int kBytes>
struct VectorOf {
  typedef T type __attribute__((vector_size(kBytes)));
};

// The register of T at this level, and how many T it holds.
template <typename T>
using Vec = typename VectorOf<T, kVectorBytes>::type;
template <typename T>
inline constexpr int kLanes = kVectorBytes / int(sizeof(T));

using VecF = Vec<float>;
using VecI = Vec<int32_t>;
using VecU = Vec<uint32_t>;

template <typename To, typename From>
inline To bit_cast(From from) {
  static_assert(sizeof(To) == sizeof(From));
  To to;
  std::memcpy(&to, &from, sizeof(to));
  return to;
}

template <typename T>
inline Vec<T> splat(T x) {
  return x - Vec<T>{};
}

// Two vectors that run side by side, and four as a twin of twins. Steps of a long chain wait for
// each other, and the processor looks ahead less far than such a chain is long: here the next one,
// or the next three, are independent.
template <typename V>
struct Twin {
  V a, b;
};
#define GENKERN_TWIN(op)                             \
  template <typename V>                              \
  inline Twin<V> operator op(Twin<V> x, Twin<V> y) { \
    return {x.a op y.a, x.b op y.b};                 \
  }                                                  \
  template <typename V, typename S>                  \
    requires std::is_arithmetic_v<S>                 \
  inline Twin<V> operator op(Twin<V> x, S y) {       \
    return {x.a op y, x.b op y};                     \
  }                                                  \
  template <typename V, typename S>                  \
    requires std::is_arithmetic_v<S>                 \
  inline Twin<V> operator op(S x, Twin<V> y) {       \
    return {x op y.a, x op y.b};                     \
  }
GENKERN_TWIN(+)
GENKERN_TWIN(-)
GENKERN_TWIN(*)
GENKERN_TWIN(/)
GENKERN_TWIN(&)
GENKERN_TWIN(|)
GENKERN_TWIN(^)
GENKERN_TWIN(<<)
GENKERN_TWIN(>>)
#undef GENKERN_TWIN

// What loops of long chains work on at a time; double, which serves no speed, one by one.
template <typename A>
using Four = std::conditional_t<std::is_same_v<A, float>, Twin<Twin<Vec<A>>>, Vec<A>>;

// Of a vector, a twin or a twin of twins: f of each vector, and what comes out in the same form.
template <typename F, typename V, typename... More>
inline auto by_vector(const F& f, V x, More... more) {
  return f(x, more...);
}
template <typename F, typename V, typename... More>
inline auto by_vector(const F& f, Twin<V> x, More... more) {
  return Twin{by_vector(f, x.a, more.a...), by_vector(f, x.b, more.b...)};
}

inline VecI bits_of(VecF x) { return bit_cast<VecI>(x); }
inline VecF float_of_bits(VecI x) { return bit_cast<VecF>(x); }
inline VecF to_float(VecI x) { return __builtin_convertvector(x, VecF); }
template <typename V>
inline auto bits_of(Twin<V> x) {
  return Twin{bits_of(x.a), bits_of(x.b)};
}
template <typename V>
inline auto float_of_bits(Twin<V> x) {
  return Twin{float_of_bits(x.a), float_of_bits(x.b)};
}
template <typename V>
inline auto to_float(Twin<V> x) {
  return Twin{to_float(x.a), to_float(x.b)};
}

// ---- scalar conversions --------------------------------------------------------------------

inline float to_float(BFloat16 x) { return std::bit_cast<float>(uint32_t(x.bits) << 16); }

inline BFloat16 to_bfloat16(float x) {
  const uint32_t bits = std::bit_cast<uint32_t>(x);
  if (x != x) return {0x7FC0};
  return {uint16_t((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16)};  // round to nearest even
}

inline float to_float(Half x) {
  const uint32_t sign = uint32_t(x.bits & 0x8000) << 16, magnitude = x.bits & 0x7FFF;
  // Subnormals come out right because the scaling is a float product.
  const float scaled = std::bit_cast<float>(magnitude << 13) * 0x1p112f;
  const uint32_t bits =
      magnitude >= 0x7C00 ? (magnitude << 13) | 0x7F800000u : std::bit_cast<uint32_t>(scaled);
  return std::bit_cast<float>(bits | sign);
}

inline Half to_half(float x) {
  const uint32_t bits = std::bit_cast<uint32_t>(x), magnitude = bits & 0x7FFFFFFFu;
  const uint16_t sign = uint16_t((bits >> 16) & 0x8000);
  if (magnitude > 0x7F800000u) return {uint16_t(sign | 0x7E00)};
  if (magnitude >= 0x477FF000u) return {uint16_t(sign | 0x7C00)};  // 65520 and above round to inf
  if (magnitude < 0x38800000u) {  // below 2^-14: the float adder rounds to a multiple of 2^-24
    const float sum = std::bit_cast<float>(magnitude) + 0.5f;
    return {uint16_t(sign | (std::bit_cast<uint32_t>(sum) - 0x3F000000u))};
  }
  const uint32_t rounded = magnitude + 0xFFF + ((magnitude >> 13) & 1);
  return {uint16_t(sign | ((rounded - 0x38000000u) >> 13))};
}

inline float to_accumulate(float x) { return x; }
inline double to_accumulate(double x) { return x; }
inline float to_accumulate(BFloat16 x) { return to_float(x); }
inline float to_accumulate(Half x) { return to_float(x); }

template <typename T>
inline T from_accumulate(Accumulate<T> x) {
  if constexpr (std::is_same_v<T, BFloat16>)
    return to_bfloat16(x);
  else if constexpr (std::is_same_v<T, Half>)
    return to_half(x);
  else
    return x;
}

// ---- vector loads and stores ---------------------------------------------------------------

typedef uint16_t HalfBits __attribute__((vector_size(kVectorBytes / 2)));

inline VecU widen_bits(const BFloat16* p) {
  HalfBits bits;
  std::memcpy(&bits, p, sizeof(bits));
  return __builtin_convertvector(bits, VecU);
}

// a0 b0 a1 b1 ..., one pair a lane.
inline VecU zip_bits(const BFloat16* a, const BFloat16* b) {
  return widen_bits(a) | (widen_bits(b) << 16);
}

template <typename T>
inline Vec<Accumulate<T>> load(const T* p) {
  if constexpr (std::is_same_v<T, BFloat16>) {
    return bit_cast<VecF>(widen_bits(p) << 16);
  } else if constexpr (std::is_same_v<T, Half>) {
#if defined(GENKERN_AVX512)
    return VecF(_mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p))));
#elif defined(GENKERN_AVX2)
    return VecF(_mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))));
#else
    VecF v;
    for (int i = 0; i < kLanes<float>; ++i) v[i] = to_float(p[i]);
    return v;
#endif
  } else {
    Vec<T> v;
    std::memcpy(&v, p, sizeof(v));
    return v;
  }
}

template <typename T>
inline void store(T* p, Vec<Accumulate<T>> v) {
  if constexpr (std::is_same_v<T, BFloat16>) {
    const VecU bits = bit_cast<VecU>(v);
    VecU rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16;
    rounded = v == v ? rounded : VecU{} + 0x7FC0;
    const HalfBits packed = __builtin_convertvector(rounded, HalfBits);
    std::memcpy(p, &packed, sizeof(packed));
  } else if constexpr (std::is_same_v<T, Half>) {
#if defined(GENKERN_AVX512)
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm512_cvtps_ph(__m512(v), 0));
#elif defined(GENKERN_AVX2)
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm256_cvtps_ph(__m256(v), 0));
#else
    for (int i = 0; i < kLanes<float>; ++i) p[i] = to_half(v[i]);
#endif
  } else {
    std::memcpy(p, &v, sizeof(v));
  }
}

// The first `count` < lanes elements; the other lanes are `fill`.
template <typename T>
inline Vec<Accumulate<T>> load_partial(const T* p, int64_t count, Accumulate<T> fill = 0) {
  Vec<Accumulate<T>> v = splat(fill);
  for (int64_t i = 0; i < count; ++i) v[i] = to_accumulate(p[i]);
  return v;
}

template <typename T>
inline void store_partial(T* p, Vec<Accumulate<T>> v, int64_t count) {
  for (int64_t i = 0; i < count; ++i) p[i] = from_accumulate<T>(v[i]);
}

namespace detail {
template <int kStart>
inline VecI zip_indices() {
  VecI indices;
  for (int i = 0; i < kLanes<float>; ++i)
    indices[i] = i / 4 * 4 + kStart + i % 4 / 2 + i % 2 * kLanes<float>;
  return indices;
}
}  // namespace detail

// a0 b0 a1 b1 and a2 b2 a3 b3, in every group of four lanes: what takes one instruction.
inline VecF zip_low(VecF a, VecF b) { return __builtin_shuffle(a, b, detail::zip_indices<0>()); }
inline VecF zip_high(VecF a, VecF b) { return __builtin_shuffle(a, b, detail::zip_indices<2>()); }

// a0 b0 a2 b2 ...: the low halves of the 64-bit lanes of a and of b.
inline VecU zip_halves(Vec<uint64_t> a, Vec<uint64_t> b) {
  VecU indices;
  for (int i = 0; i < kLanes<float>; ++i) indices[i] = i / 2 * 2 + i % 2 * kLanes<float>;
  return __builtin_shuffle(bit_cast<VecU>(a), bit_cast<VecU>(b), indices);
}

// Sum over the lanes, always in the same order.
template <typename V>
inline auto sum_lanes(V v) {
  using T = std::remove_cvref_t<decltype(v[0])>;
  T parts[sizeof(V) / sizeof(T)];
  std::memcpy(parts, &v, sizeof(v));
  for (size_t half = std::size(parts) / 2; half > 0; half /= 2)
    for (size_t i = 0; i < half; ++i) parts[i] += parts[i + half];
  return parts[0];
}

}  // namespace genkern::core
