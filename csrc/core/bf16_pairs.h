// Products of bfloat16 by twos, as AVX512-BF16 makes them: two multiply-adds a lane, and half the
// bytes. A factor of a tile is one float or double, or a pair of neighbouring bfloat16.
//
//   sum[l] += a[2 l] b[2 l] + a[2 l + 1] b[2 l + 1], in float32
//
// VDPBF16PS rounds after each of the two products, as two fused multiply-adds do, to nearest
// whatever the rounding mode; it takes subnormal factors for 0 and makes no subnormal sums.
#pragma once
#include <cstdlib>

#include "simd.h"

namespace genkern::core {

// Whether bfloat16 is multiplied in pairs: where the CPU has the instruction. GENKERN_BF16_PAIRS=0
// turns it off; =1 lets the levels below AVX-512 form the same sums, slower, to test them anywhere.
inline bool multiplies_pairs(bool avx512) {
  const char* set = std::getenv("GENKERN_BF16_PAIRS");
  if (set && set[0] == '0') return false;
#if defined(__x86_64__)
  if (avx512) return __builtin_cpu_supports("avx512bf16");
#endif
  return set && set[0] == '1';
}

inline bool bf16_pairs() {
  static const bool pairs = multiplies_pairs(kIsAvx512);
  return pairs;
}

// Calls f with the type of the factors that T is multiplied as.
template <typename T, typename F>
decltype(auto) dispatch_factors(F&& f) {
  if constexpr (std::is_same_v<T, BFloat16>)
    if (bf16_pairs()) return f(BFloat16{});
  return f(Accumulate<T>{});
}

// Elements of a factor.
template <typename E>
inline constexpr int kFactor = std::is_same_v<E, BFloat16> ? 2 : 1;
template <typename E>
using Factors = Vec<std::conditional_t<std::is_same_v<E, BFloat16>, uint32_t, E>>;

template <typename E>
inline Factors<E> load_factors(const E* p) {
  Factors<E> v;
  std::memcpy(&v, p, sizeof(v));
  return v;
}

template <typename E>
inline Factors<E> splat_factor(const E* p) {
  std::remove_cvref_t<decltype(Factors<E>{}[0])> x;
  std::memcpy(&x, p, sizeof(x));
  return splat(x);
}

// x as an element of factors of type E.
template <typename E, typename T>
inline E element(T x) {
  if constexpr (std::is_same_v<E, T>)
    return x;
  else
    return from_accumulate<E>(to_accumulate(x));
}

// The first element of each factor, the second one replaced by 0.
template <typename E>
inline Factors<E> first_of(Factors<E> x) {
  if constexpr (std::is_same_v<E, BFloat16>)
    return x & 0xFFFFu;
  else
    return x;
}

template <typename E>
inline Vec<Accumulate<E>> first_element(Factors<E> x) {
  if constexpr (std::is_same_v<E, BFloat16>)
    return bit_cast<VecF>(x << 16);
  else
    return x;
}

template <typename V>
inline V add_product(V sum, V x, V y) {
  return x * y + sum;
}

inline VecF add_product(VecF sum, VecU x, VecU y) {
#if defined(GENKERN_AVX512)
  asm("vdpbf16ps %2, %1, %0" : "+v"(sum) : "v"(x), "v"(y));
  return sum;
#else
  constexpr uint32_t kSecond = 0xFFFF0000;
  sum += bit_cast<VecF>(x & kSecond) * bit_cast<VecF>(y & kSecond);
  return sum + bit_cast<VecF>(x << 16) * bit_cast<VecF>(y << 16);
#endif
}

}  // namespace genkern::core
