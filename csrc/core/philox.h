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

// The keys of the ten rounds of a seed, each in every lane: what a round adds is then an operand in
// memory, and not four instructions.
struct PhiloxKeys {
  VecQ even[10], odd[10];

  PhiloxKeys(uint64_t seed) {
    uint32_t k0 = uint32_t(seed), k1 = uint32_t(seed >> 32);
    for (int round = 0; round < 10; ++round, k0 += 0x9E3779B9u, k1 += 0xBB67AE85u)
      even[round] = splat(uint64_t(k0)), odd[round] = splat(uint64_t(k1));
  }
};

// Which block stands in a lane, as a distance from the first: so that a 4x4 transpose within
// groups of four lanes puts the blocks one after the other. For eight lanes: 0 2 4 6 1 3 5 7.
constexpr int block_in_lane(int lane) { return lane % 4 * (kLanes<float> / 4) + lane / 4; }

// Words of the blocks `counter`, `counter` + 1, ..., one block a lane. The rounds hold the even and
// the odd lanes apart, a word in the low half of 64 bits: what stands in the high half, the high
// word of an earlier product, no multiplication reads.
inline void philox(const PhiloxKeys& keys, uint64_t counter, VecU words[4]) {
  VecQ c0[2], c1[2], c2[2], c3[2];
  for (int odd = 0; odd < 2; ++odd) {  // the first round: c2 and c3 are 0
    VecQ lane;
    for (int i = 0; i < kLanes<uint64_t>; ++i) lane[i] = uint64_t(block_in_lane(2 * i + odd));
    const VecQ first = counter + lane, p0 = multiply_low_halves(first, 0xD2511F53u);
    c0[odd] = (first >> 32) ^ keys.even[0];
    c1[odd] = VecQ{};
    c2[odd] = (p0 >> 32) ^ keys.odd[0];
    c3[odd] = p0;
  }
#pragma GCC unroll 9
  for (int round = 1; round < 10; ++round) {
    for (int odd = 0; odd < 2; ++odd) {  // side by side: one alone waits for its own products
      const VecQ p0 = multiply_low_halves(c0[odd], 0xD2511F53u);
      const VecQ p1 = multiply_low_halves(c2[odd], 0xCD9E8D57u);
      c0[odd] = (p1 >> 32) ^ (c1[odd] ^ keys.even[round]);
      c1[odd] = p1;
      c2[odd] = (p0 >> 32) ^ (c3[odd] ^ keys.odd[round]);
      c3[odd] = p0;
    }
  }
  words[0] = zip_halves(c0[0], c0[1]), words[1] = zip_halves(c1[0], c1[1]);
  words[2] = zip_halves(c2[0], c2[1]), words[3] = zip_halves(c3[0], c3[1]);
}

// r = sqrt(-2 log u), u = (a >> 1) 2^-31 + 2^-32, theta = pi int32(b) 2^-31; within 4 ulp (log,
// sqrt, sine and their product). Two pairs of words at a time.
inline void box_muller(Twin<VecU> a, Twin<VecU> b, Twin<VecF>& first, Twin<VecF>& second) {
  const auto to_signed = [](Twin<VecU> x) {
    return Twin<VecI>{bit_cast<VecI>(x.a), bit_cast<VecI>(x.b)};
  };
  const Twin<VecF> u = to_float(to_signed(a >> 1)) * 0x1p-31f + 0x1p-32f;
  const Twin<VecF> square = minus_2_log_normal(u);
  Twin<VecF> sine, cosine;
  sincospi(to_float(to_signed(b)) * 0x1p-31f, sine, cosine);
  const Twin<VecF> radius = {sqrt(square.a), sqrt(square.b)};
  first = radius * cosine;
  second = radius * sine;
}

// The normals 4 counter, ..., 4 counter + kPhiloxElements - 1 of the stream, in that order.
inline void philox_normals(const PhiloxKeys& keys, uint64_t counter, float* out) {
  VecU words[4];
  philox(keys, counter, words);
  Twin<VecF> even, odd;
  box_muller({words[0], words[2]}, {words[1], words[3]}, even, odd);
  // The transpose: two rounds of zipping put the four normals of a block side by side.
  const VecF low[2] = {zip_low(even.a, even.b), zip_low(odd.a, odd.b)};
  const VecF high[2] = {zip_high(even.a, even.b), zip_high(odd.a, odd.b)};
  store(out, zip_low(low[0], low[1]));
  store(out + kLanes<float>, zip_high(low[0], low[1]));
  store(out + 2 * kLanes<float>, zip_low(high[0], high[1]));
  store(out + 3 * kLanes<float>, zip_high(high[0], high[1]));
}

// The same normals in double: from the same words, so they differ by the rounding of float alone.
inline void philox_normals(const PhiloxKeys& keys, uint64_t counter, double* out) {
  VecU words[4];
  philox(keys, counter, words);
  for (int i = 0; i < kLanes<float>; ++i) {
    for (int pair = 0; pair < 4; pair += 2) {
      const float u = float(int32_t(words[pair][i] >> 1)) * 0x1p-31f + 0x1p-32f;
      const double theta = double(float(int32_t(words[pair + 1][i]))) * (M_PI * 0x1p-31);
      const double radius = std::sqrt(-2.0 * std::log(double(u)));
      double* to = out + 4 * block_in_lane(i) + pair;
      to[0] = radius * std::cos(theta);
      to[1] = radius * std::sin(theta);
    }
  }
}

// Random access to the normals of a stream, a window at a time.
template <typename A>
class NormalStream {
 public:
  static constexpr int kWindow = block_size(1024, 32);

  explicit NormalStream(uint64_t seed) : keys_(seed) {}

  // The `count` <= kWindow normals from element `first` on; `end` bounds what is generated ahead.
  const A* get(uint64_t first, int64_t count, uint64_t end) {
    if (first < begin_ || first + count > end_) {
      begin_ = first & ~uint64_t(3);
      end_ = begin_;
      const uint64_t stop = end < begin_ + kWindow ? end : begin_ + kWindow;
      const uint64_t needed = first + count > stop ? first + count : stop;
      for (; end_ < needed; end_ += kPhiloxElements)
        philox_normals(keys_, end_ / 4, normals_ + (end_ - begin_));
    }
    return normals_ + (first - begin_);
  }

 private:
  PhiloxKeys keys_;
  uint64_t begin_ = 0, end_ = 0;
  alignas(64) A normals_[kWindow + 2 * kPhiloxElements];
};

}  // namespace genkern::core
