// Copies between channel planes and the channel-fastest rows that the convolution kernels read:
//
//   for (x = 0; x < width; ++x)
//     for (c = 0; c < channels; ++c)
//       to[x * channels + c] = from[c * stride_c + x];      // interleave; deinterleave goes back
//
// Squares, as many rows as a register has lanes, are turned within registers. 4 lanes:
//
//   a0 a1 a2 a3      a0 c0 a1 c1      a0 b0 c0 d0
//   b0 b1 b2 b3  ->  a2 c2 a3 c3  ->  a1 b1 c1 d1
//   c0 c1 c2 c3      b0 d0 b1 d1      a2 b2 c2 d2
//   d0 d1 d2 d3      b2 d2 b3 d3      a3 b3 c3 d3
//
// With more lanes this happens in each 16-byte part, then the parts are exchanged.
#pragma once
#include <algorithm>

#include "bf16_pairs.h"

namespace genkern::core {

namespace detail {
template <typename A>
using LaneIndex = Vec<std::conditional_t<sizeof(A) == 8, int64_t, int32_t>>;

inline constexpr int kPart = 16;  // bytes within which shuffles are cheap on every x86 level

// Alternates the elements of the lower (upper) halves of each 16-byte part of a and b.
template <typename A, bool kUpper>
inline Vec<A> zip_parts(Vec<A> a, Vec<A> b) {
  constexpr int E = kPart / sizeof(A);
  LaneIndex<A> indices;
  for (int i = 0; i < kLanes<A>; ++i)
    indices[i] = i / E * E + (kUpper ? E / 2 : 0) + i % E / 2 + (i % 2) * kLanes<A>;
  return __builtin_shuffle(a, b, indices);
}

// Of each pair of runs of elements: the first (second) of a, then that of b.
template <typename A, int kRun, bool kSecond>
inline Vec<A> pair_runs(Vec<A> a, Vec<A> b) {
  LaneIndex<A> indices;
  for (int i = 0; i < kLanes<A>; ++i) {
    const int base = i / (2 * kRun) * (2 * kRun) + i % kRun + (kSecond ? kRun : 0);
    indices[i] = base + ((i / kRun) % 2) * kLanes<A>;
  }
  return __builtin_shuffle(a, b, indices);
}

template <typename A, int kRun>
__attribute__((always_inline)) inline void transpose_parts(Vec<A> (&r)[kLanes<A>]) {
  if constexpr (kRun < kLanes<A>) {
#pragma GCC unroll 16
    for (int i = 0; i < kLanes<A>; ++i)
      if (!(i & kRun)) {
        const Vec<A> a = r[i], b = r[i + kRun];
        r[i] = pair_runs<A, kRun, false>(a, b);
        r[i + kRun] = pair_runs<A, kRun, true>(a, b);
      }
    transpose_parts<A, 2 * kRun>(r);
  }
}
}  // namespace detail

// The square of registers `r`, transposed: within 16-byte parts first, then the parts.
template <typename A>
__attribute__((always_inline)) inline void transpose(Vec<A> (&r)[kLanes<A>]) {
  constexpr int L = kLanes<A>, E = detail::kPart / int(sizeof(A));
#pragma GCC unroll 4
  for (int round = 1; round < E; round *= 2) {
    Vec<A> t[L];
#pragma GCC unroll 16
    for (int i = 0; i < L; i += 2) {
      const int from = i / E * E + i % E / 2;
      t[i] = detail::zip_parts<A, false>(r[from], r[from + E / 2]);
      t[i + 1] = detail::zip_parts<A, true>(r[from], r[from + E / 2]);
    }
#pragma GCC unroll 16
    for (int i = 0; i < L; ++i) r[i] = t[i];
  }
  detail::transpose_parts<A, E>(r);
}

template <typename T, typename E>
inline void widen(const T* from, E* to, int64_t count) {
  constexpr int L = kLanes<Accumulate<T>>;
  int64_t i = 0;
  if constexpr (std::is_same_v<E, T>)
    for (; i + L <= count; i += L) std::memcpy(to + i, from + i, L * sizeof(E));
  else
    for (; i + L <= count; i += L) store(to + i, load(from + i));
  for (; i < count; ++i) to[i] = element<E>(from[i]);
}

// Squares of interleave, `kRows` channels (or pairs of them) high and a register wide.
template <int kRows, typename T, typename E>
void interleave_rows(const T* from, int64_t stride_c, int64_t channels, int64_t width, E* to) {
  using A = Accumulate<T>;
  constexpr int L = kLanes<A>;
  for (int64_t x = 0; x < width; x += L) {
    const int64_t start = std::min(x, width - L);  // the last square overlaps its neighbour
    Vec<A> r[L] = {};
    for (int i = 0; i < kRows; ++i)
      if constexpr (std::is_same_v<E, BFloat16>)
        r[i] = bit_cast<VecF>(
            zip_bits(from + 2 * i * stride_c + start, from + (2 * i + 1) * stride_c + start));
      else
        r[i] = load(from + i * stride_c + start);
    transpose<A>(r);
    for (int i = 0; i < L; ++i) std::memcpy(to + (start + i) * channels, &r[i], kRows * sizeof(A));
  }
}

// to[x * channels + c] = from[c * stride_c + x * stride_x]
template <typename T, typename E>
void interleave(const T* from, int64_t stride_c, int64_t stride_x, int64_t channels, int64_t width,
                E* to) {
  constexpr int L = kLanes<Accumulate<T>>;
  if ((stride_x == 1 || width == 1) && channels == 1) return widen(from, to, width);
  if (stride_c == 1) {
    for (int64_t x = 0; x < width; ++x) widen(from + x * stride_x, to + x * channels, channels);
    return;
  }
  int64_t c = 0;
  if (stride_x == 1 && width >= L) {
    constexpr bool kPairs = std::is_same_v<E, BFloat16>;
    constexpr int kSquare = kPairs ? 2 * L : L;
    for (; c + kSquare <= channels; c += kSquare)
      interleave_rows<L>(from + c * stride_c, stride_c, channels, width, to + c);
    if constexpr (kPairs)
      if (c + L <= channels) {
        interleave_rows<L / 2>(from + c * stride_c, stride_c, channels, width, to + c);
        c += L;
      }
  }
  for (; c < channels; ++c)
    for (int64_t x = 0; x < width; ++x)
      to[x * channels + c] = element<E>(from[c * stride_c + x * stride_x]);
}

// to[c * stride_c + x * stride_x] = from[x * lanes + c]
template <typename T>
void deinterleave(const Accumulate<T>* from, int64_t lanes, int64_t channels, int64_t width, T* to,
                  int64_t stride_c, int64_t stride_x) {
  using A = Accumulate<T>;
  constexpr int L = kLanes<A>;
  if (stride_c == 1) {
    for (int64_t x = 0; x < width; ++x) {
      int64_t c = 0;
      for (; c + L <= channels; c += L) store(to + x * stride_x + c, load(from + x * lanes + c));
      for (; c < channels; ++c) to[x * stride_x + c] = from_accumulate<T>(from[x * lanes + c]);
    }
    return;
  }
  if (stride_x != 1 || width < L) {
    for (int64_t c = 0; c < channels; ++c)
      for (int64_t x = 0; x < width; ++x)
        to[c * stride_c + x * stride_x] = from_accumulate<T>(from[x * lanes + c]);
    return;
  }
  for (int64_t c = 0; c < channels; c += L) {
    const int64_t live = std::min<int64_t>(L, channels - c);  // `from` holds whole registers
    for (int64_t x = 0; x < width; x += L) {
      const int64_t start = std::min(x, width - L);
      Vec<A> r[L];
      for (int i = 0; i < L; ++i) r[i] = load(from + (start + i) * lanes + c);
      transpose<A>(r);
      for (int i = 0; i < L; ++i)
        if (i < live) store(to + (c + i) * stride_c + start, r[i]);
    }
  }
}

}  // namespace genkern::core
