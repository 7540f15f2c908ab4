// Philox4x32-10 (Salmon et al. 2011, sec. 3.3), one block of four words a lane, and Box-Muller on
// its words. Element e of a stream is word e % 4 of the block with counter e / 4.
#pragma once
#include "vecmath.h"

namespace genkern::core {

inline constexpr int kPhiloxElements = 4 * kLanes<float>;  // normals of one vector of counters

// High and low halves of the 64-bit products a * b.
inline void multiply_wide(VecU a, uint32_t b, VecU& high, VecU& low) {
  low = a * b;
#if defined(GENKERN_AVX512)
  const __m512i factor = _mm512_set1_epi64(b);
  const __m512i even = _mm512_srli_epi64(_mm512_mul_epu32(__m512i(a), factor), 32);
  const __m512i odd = _mm512_mul_epu32(_mm512_srli_epi64(__m512i(a), 32), factor);
  high = VecU(_mm512_mask_blend_epi32(0xAAAA, even, odd));
#elif defined(GENKERN_AVX2)
  const __m256i factor = _mm256_set1_epi64x(b);
  const __m256i even = _mm256_srli_epi64(_mm256_mul_epu32(__m256i(a), factor), 32);
  const __m256i odd = _mm256_mul_epu32(_mm256_srli_epi64(__m256i(a), 32), factor);
  high = VecU(_mm256_blend_epi32(even, odd, 0xAA));
#else
  for (int i = 0; i < kLanes<float>; ++i) high[i] = uint32_t((uint64_t(a[i]) * b) >> 32);
#endif
}

// Words of the blocks `counter`, `counter` + 1, ... one block a lane.
inline void philox(uint64_t seed, uint64_t counter, VecU words[4]) {
  VecU lane;
  for (int i = 0; i < kLanes<float>; ++i) lane[i] = i;
  const VecU low = splat(uint32_t(counter));
  VecU c0 = low + lane, c1 = uint32_t(counter >> 32) - bit_cast<VecU>(c0 < low);  // the carry
  VecU c2{}, c3{};
  uint32_t k0 = uint32_t(seed), k1 = uint32_t(seed >> 32);
  for (int round = 0; round < 10; ++round) {
    VecU high0, low0, high1, low1;
    multiply_wide(c0, 0xD2511F53u, high0, low0);
    multiply_wide(c2, 0xCD9E8D57u, high1, low1);
    c0 = high1 ^ c1 ^ k0;
    c1 = low1;
    c2 = high0 ^ c3 ^ k1;
    c3 = low0;
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  words[0] = c0, words[1] = c1, words[2] = c2, words[3] = c3;
}

// r = sqrt(-2 log u), u = (a >> 1) 2^-31 + 2^-32, theta = pi int32(b) 2^-31; within 4 ulp (log,
// sqrt, sine and their product).
inline void box_muller(VecU a, VecU b, VecF& first, VecF& second) {
  const VecF u = __builtin_convertvector(bit_cast<VecI>(a >> 1), VecF) * 0x1p-31f + 0x1p-32f;
  const VecF radius = sqrt(-2.0f * log_normal(u));
  VecF sine, cosine;
  sincospi(__builtin_convertvector(bit_cast<VecI>(b), VecF) * 0x1p-31f, sine, cosine);
  first = radius * cosine;
  second = radius * sine;
}

// The normals 4 counter, ..., 4 counter + kPhiloxElements - 1 of the stream, in that order.
inline void philox_normals(uint64_t seed, uint64_t counter, float* out) {
  VecU words[4];
  philox(seed, counter, words);
  VecF n[4];
  box_muller(words[0], words[1], n[0], n[1]);
  box_muller(words[2], words[3], n[2], n[3]);
  // Two rounds of zipping put the four normals of a block side by side.
  const VecF even_low = zip_low(n[0], n[2]), even_high = zip_high(n[0], n[2]);
  const VecF odd_low = zip_low(n[1], n[3]), odd_high = zip_high(n[1], n[3]);
  store(out, zip_low(even_low, odd_low));
  store(out + kLanes<float>, zip_high(even_low, odd_low));
  store(out + 2 * kLanes<float>, zip_low(even_high, odd_high));
  store(out + 3 * kLanes<float>, zip_high(even_high, odd_high));
}

// The same normals in double: from the same words, so they differ by the rounding of float alone.
inline void philox_normals(uint64_t seed, uint64_t counter, double* out) {
  VecU words[4];
  philox(seed, counter, words);
  for (int i = 0; i < kLanes<float>; ++i) {
    for (int pair = 0; pair < 4; pair += 2) {
      const float u = float(int32_t(words[pair][i] >> 1)) * 0x1p-31f + 0x1p-32f;
      const double theta = double(float(int32_t(words[pair + 1][i]))) * (M_PI * 0x1p-31);
      const double radius = std::sqrt(-2.0 * std::log(double(u)));
      out[4 * i + pair] = radius * std::cos(theta);
      out[4 * i + pair + 1] = radius * std::sin(theta);
    }
  }
}

// Random access to the normals of a stream, a window at a time.
template <typename A>
class NormalStream {
 public:
  static constexpr int kWindow = 1024;

  explicit NormalStream(uint64_t seed) : seed_(seed) {}

  // The `count` <= kWindow normals from element `first` on; `end` bounds what is generated ahead.
  const A* get(uint64_t first, int64_t count, uint64_t end) {
    if (first < begin_ || first + count > end_) {
      begin_ = first & ~uint64_t(3);
      end_ = begin_;
      const uint64_t stop = end < begin_ + kWindow ? end : begin_ + kWindow;
      const uint64_t needed = first + count > stop ? first + count : stop;
      for (; end_ < needed; end_ += kPhiloxElements)
        philox_normals(seed_, end_ / 4, normals_ + (end_ - begin_));
    }
    return normals_ + (first - begin_);
  }

 private:
  uint64_t seed_, begin_ = 0, end_ = 0;
  alignas(64) A normals_[kWindow + 2 * kPhiloxElements];
};

}  // namespace genkern::core
