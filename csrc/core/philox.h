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

// How many vectors of counters go through the rounds side by side: as many as registers hold. The
// chain of one is long enough that the processor does not see the next one.
inline constexpr int kCounters = kVectorBytes == 64 ? 2 : 1;

// Words of the blocks `counter`, `counter` + 1, ..., one block a lane; those of the next vector
// follow. The rounds hold the even and the odd lanes apart, a word in the low half of 64 bits: what
// stands in the high half, the high word of an earlier product, no multiplication reads.
template <int kVectors = 1>
inline void philox(const PhiloxKeys& keys, uint64_t counter, VecU words[4 * kVectors]) {
  constexpr int kChains = 2 * kVectors;  // side by side: one alone waits for its own products
  VecQ c0[kChains], c1[kChains], c2[kChains], c3[kChains];
#pragma GCC unroll 4
  for (int k = 0; k < kChains; ++k) {  // the first round: c2 and c3 are 0
    VecQ lane;
    for (int i = 0; i < kLanes<uint64_t>; ++i)
      lane[i] = uint64_t(k / 2 * kLanes<float> + block_in_lane(2 * i + k % 2));
    const VecQ first = counter + lane, p0 = multiply_low_halves(first, 0xD2511F53u);
    c0[k] = (first >> 32) ^ keys.even[0];
    c1[k] = VecQ{};
    c2[k] = (p0 >> 32) ^ keys.odd[0];
    c3[k] = p0;
  }
#pragma GCC unroll 9
  for (int round = 1; round < 10; ++round) {
#pragma GCC unroll 4
    for (int k = 0; k < kChains; ++k) {
      const VecQ p0 = multiply_low_halves(c0[k], 0xD2511F53u);
      const VecQ p1 = multiply_low_halves(c2[k], 0xCD9E8D57u);
      c0[k] = (p1 >> 32) ^ (c1[k] ^ keys.even[round]);
      c1[k] = p1;
      c2[k] = (p0 >> 32) ^ (c3[k] ^ keys.odd[round]);
      c3[k] = p0;
    }
  }
#pragma GCC unroll 2
  for (int v = 0; v < kVectors; ++v) {
    const int even = 2 * v, odd = even + 1;
    words[4 * v] = zip_halves(c0[even], c0[odd]), words[4 * v + 1] = zip_halves(c1[even], c1[odd]);
    words[4 * v + 2] = zip_halves(c2[even], c2[odd]);
    words[4 * v + 3] = zip_halves(c3[even], c3[odd]);
  }
}

// sqrt(-2 log u) {cos theta, sin theta}, u = (a >> 1) 2^-31 + 2^-32, theta = pi int32(b) 2^-31;
// within 4 ulp (log, sqrt, sine and their product).
template <typename U>
inline auto box_muller(U a, U b) {
  const auto to_signed = [](auto x) { return bit_cast<VecI>(x); };
  const auto u = to_float(by_vector(to_signed, a >> 1)) * 0x1p-31f + 0x1p-32f;
  const auto radius = by_vector([](auto x) { return sqrt(x); }, minus_2_log_normal(u));
  auto sine = u, cosine = u;
  sincospi(to_float(by_vector(to_signed, b)) * 0x1p-31f, sine, cosine);
  return Twin{radius * cosine, radius * sine};
}

namespace detail {
// Words w and w + 2 of a vector of blocks, or of several that follow each other.
template <int kVectors>
inline auto words_at(const float* p, int w) {
  const auto word = [p](int w) { return bit_cast<VecU>(load(p + w * kLanes<float>)); };
  if constexpr (kVectors == 1)
    return Twin<VecU>{word(w), word(w + 2)};
  else
    return Twin<Twin<VecU>>{words_at<1>(p, w), words_at<1>(p + kPhiloxElements, w)};
}
}  // namespace detail

// What was made of words 0 and 2 (even) and of 1 and 3 (odd), one block a lane, block after block:
// two rounds of zipping are the transpose.
inline void put_blocks(Twin<VecF> even, Twin<VecF> odd, float* out) {
  const VecF low[2] = {zip_low(even.a, even.b), zip_low(odd.a, odd.b)};
  const VecF high[2] = {zip_high(even.a, even.b), zip_high(odd.a, odd.b)};
  store(out, zip_low(low[0], low[1]));
  store(out + kLanes<float>, zip_high(low[0], low[1]));
  store(out + 2 * kLanes<float>, zip_low(high[0], high[1]));
  store(out + 3 * kLanes<float>, zip_high(high[0], high[1]));
}
inline void put_blocks(Twin<Twin<VecF>> even, Twin<Twin<VecF>> odd, float* out) {
  put_blocks(even.a, odd.a, out);
  put_blocks(even.b, odd.b, out + kPhiloxElements);
}

// The normals 4 counter, ..., 4 counter + count - 1 of the stream, in that order, and on to the end
// of a step. In two loops, words first: together they are too long to overlap with the next step.
inline constexpr int kNormalsStep = kCounters * kPhiloxElements;
[[gnu::flatten]] inline void philox_normals(const PhiloxKeys& keys, uint64_t counter, int64_t count,
                                            float* out) {
  for (int64_t e = 0; e < count; e += kNormalsStep) {
    VecU words[4 * kCounters];
    philox<kCounters>(keys, counter + uint64_t(e / 4), words);
    for (int i = 0; i < 4 * kCounters; ++i)
      store(out + e + i * kLanes<float>, bit_cast<VecF>(words[i]));
  }
  for (int64_t e = 0; e < count; e += kNormalsStep) {
    using detail::words_at;
    const auto [even, odd] =
        box_muller(words_at<kCounters>(out + e, 0), words_at<kCounters>(out + e, 1));
    put_blocks(even, odd, out + e);
  }
}

// The same normals in double: from the same words, so they differ by the rounding of float alone.
inline void philox_normals(const PhiloxKeys& keys, uint64_t counter, int64_t count, double* out) {
  for (int64_t e = 0; e < count; e += kPhiloxElements) {
    VecU words[4];
    philox(keys, counter + uint64_t(e / 4), words);
    for (int i = 0; i < kLanes<float>; ++i) {
      for (int pair = 0; pair < 4; pair += 2) {
        const float u = float(int32_t(words[pair][i] >> 1)) * 0x1p-31f + 0x1p-32f;
        const double theta = double(float(int32_t(words[pair + 1][i]))) * (M_PI * 0x1p-31);
        const double radius = std::sqrt(-2.0 * std::log(double(u)));
        double* to = out + e + 4 * block_in_lane(i) + pair;
        to[0] = radius * std::cos(theta);
        to[1] = radius * std::sin(theta);
      }
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
      const uint64_t stop = end < begin_ + kWindow ? end : begin_ + kWindow;
      end_ = first + count > stop ? first + count : stop;
      philox_normals(keys_, begin_ / 4, int64_t(end_ - begin_), normals_);
    }
    return normals_ + (first - begin_);
  }

 private:
  PhiloxKeys keys_;
  uint64_t begin_ = 0, end_ = 0;
  alignas(64) A normals_[kWindow + 2 * kNormalsStep];
};

}  // namespace genkern::core
