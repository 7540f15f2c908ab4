// Philox4x32-10 (Salmon et al. 2011, sec. 3.3), one block of four words a lane, and Box-Muller on
// its words. Element e of a stream is word e % 4 of the block with counter e / 4:
//
//   for (e = first; e < last; ++e) {
//     a, b, c, d = philox(seed, e / 4);                                    // words of 32 bits
//     x[e] = {radius(a) cos b, radius(a) sin b, radius(c) cos d, radius(c) sin d}[e % 4];
//   }
#pragma once
#include "blocks.h"
#include "vecmath.h"

namespace genkern::core {

inline constexpr int kPhiloxElements = 4 * kLanes<float>;  // normals of one vector of counters

using VecQ = Vec<uint64_t>;

// The 64-bit products of the low halves of a with b.
inline VecQ multiply_low_halves(VecQ a, uint32_t b) {
#if defined(GENKERN_AVX512)
  return VecQ(_mm512_mul_epu32(__m512i(a), _mm512_set1_epi64(b)));
#elif defined(GENKERN_AVX2)
  return VecQ(_mm256_mul_epu32(__m256i(a), _mm256_set1_epi64x(b)));
#elif defined(GENKERN_SSE2)
  return VecQ(_mm_mul_epu32(__m128i(a), _mm_set1_epi64x(b)));
#else
  return (a & 0xFFFFFFFFu) * uint64_t(b);
#endif
}

// Words of the blocks `counter`, `counter` + 1, ... one block a lane. The rounds hold the even and
// the odd blocks apart, a word in the low half of 64 bits: what stands in the high half, the high
// word of an earlier product, no multiplication reads.
inline void philox(uint64_t seed, uint64_t counter, VecU words[4]) {
  VecQ c0[2], c1[2], c2[2] = {}, c3[2] = {};
  for (int odd = 0; odd < 2; ++odd) {
    VecQ lane;
    for (int i = 0; i < kLanes<uint64_t>; ++i) lane[i] = 2 * i + odd;
    c0[odd] = counter + lane;
    c1[odd] = c0[odd] >> 32;
  }
  uint32_t k0 = uint32_t(seed), k1 = uint32_t(seed >> 32);
  for (int round = 0; round < 10; ++round) {
    for (int odd = 0; odd < 2; ++odd) {  // side by side: one alone waits for its own products
      const VecQ p0 = multiply_low_halves(c0[odd], 0xD2511F53u);
      const VecQ p1 = multiply_low_halves(c2[odd], 0xCD9E8D57u);
      c0[odd] = (p1 >> 32) ^ c1[odd] ^ k0;
      c1[odd] = p1;
      c2[odd] = (p0 >> 32) ^ c3[odd] ^ k1;
      c3[odd] = p0;
    }
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  const auto join = [](const VecQ c[2]) {
    return bit_cast<VecU>((c[0] & 0xFFFFFFFFu) | (c[1] << 32));
  };
  words[0] = join(c0), words[1] = join(c1), words[2] = join(c2), words[3] = join(c3);
}

// r = sqrt(-2 log u), u = (a >> 1) 2^-31 + 2^-32, theta = pi int32(b) 2^-31; within 4 ulp (log,
// sqrt, sine and their product). Two pairs of words at a time.
inline void box_muller(Twin<VecU> a, Twin<VecU> b, Twin<VecF>& first, Twin<VecF>& second) {
  const auto to_signed = [](Twin<VecU> x) {
    return Twin<VecI>{bit_cast<VecI>(x.a), bit_cast<VecI>(x.b)};
  };
  const Twin<VecF> u = to_float(to_signed(a >> 1)) * 0x1p-31f + 0x1p-32f;
  const Twin<VecF> square = log_normal(u) * -2.0f;
  Twin<VecF> sine, cosine;
  sincospi(to_float(to_signed(b)) * 0x1p-31f, sine, cosine);
  const Twin<VecF> radius = {sqrt(square.a), sqrt(square.b)};
  first = radius * cosine;
  second = radius * sine;
}

// The normals 4 counter, ..., 4 counter + kPhiloxElements - 1 of the stream, in that order.
inline void philox_normals(uint64_t seed, uint64_t counter, float* out) {
  VecU words[4];
  philox(seed, counter, words);
  Twin<VecF> even, odd;
  box_muller({words[0], words[2]}, {words[1], words[3]}, even, odd);
  // Two rounds of zipping put the four normals of a block side by side.
  const VecF even_low = zip_low(even.a, even.b), even_high = zip_high(even.a, even.b);
  const VecF odd_low = zip_low(odd.a, odd.b), odd_high = zip_high(odd.a, odd.b);
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
  static constexpr int kWindow = block_size(1024, 32);

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
