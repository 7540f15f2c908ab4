// Copies between channel planes and the channel-fastest rows that the convolution kernels read.
#pragma once
#include <algorithm>

#include "simd.h"

namespace genkern::core {

namespace detail {
template <typename A>
using LaneIndex = Vec<std::conditional_t<sizeof(A) == 8, int64_t, int32_t>>;

// a[start] b[start] a[start + 1] b[start + 1] ...
template <typename A>
inline Vec<A> zip(Vec<A> a, Vec<A> b, int start) {
  LaneIndex<A> indices;
  for (int i = 0; i < kLanes<A>; ++i) indices[i] = start + i / 2 + (i % 2) * kLanes<A>;
  return __builtin_shuffle(a, b, indices);
}
}  // namespace detail

// The square of registers `r`, transposed: log2(lanes) rounds of perfect shuffles.
template <typename A>
inline void transpose(Vec<A> (&r)[kLanes<A>]) {
  constexpr int L = kLanes<A>;
#pragma GCC unroll 16
  for (int round = 1; round < L; round *= 2) {
    Vec<A> t[L];
#pragma GCC unroll 16
    for (int i = 0; i < L / 2; ++i) {
      t[2 * i] = detail::zip<A>(r[i], r[i + L / 2], 0);
      t[2 * i + 1] = detail::zip<A>(r[i], r[i + L / 2], L / 2);
    }
#pragma GCC unroll 16
    for (int i = 0; i < L; ++i) r[i] = t[i];
  }
}

template <typename T>
inline void widen(const T* from, Accumulate<T>* to, int64_t count) {
  constexpr int L = kLanes<Accumulate<T>>;
  int64_t i = 0;
  for (; i + L <= count; i += L) store(to + i, load(from + i));
  for (; i < count; ++i) to[i] = to_accumulate(from[i]);
}

// to[x * channels + c] = from[c * stride_c + x * stride_x]
template <typename T>
void interleave(const T* from, int64_t stride_c, int64_t stride_x, int64_t channels, int64_t width,
                Accumulate<T>* to) {
  using A = Accumulate<T>;
  constexpr int L = kLanes<A>;
  if ((stride_x == 1 || width == 1) && channels == 1) return widen(from, to, width);
  if (stride_c == 1) {
    for (int64_t x = 0; x < width; ++x) widen(from + x * stride_x, to + x * channels, channels);
    return;
  }
  int64_t c_end = 0;
  if (stride_x == 1 && width >= L) {
    for (; c_end + L <= channels; c_end += L) {
      for (int64_t x = 0; x < width; x += L) {
        const int64_t start = std::min(x, width - L);  // the last square overlaps its neighbour
        Vec<A> r[L];
        for (int i = 0; i < L; ++i) r[i] = load(from + (c_end + i) * stride_c + start);
        transpose<A>(r);
        for (int i = 0; i < L; ++i) store(to + (start + i) * channels + c_end, r[i]);
      }
    }
  }
  for (int64_t c = c_end; c < channels; ++c)
    for (int64_t x = 0; x < width; ++x)
      to[x * channels + c] = to_accumulate(from[c * stride_c + x * stride_x]);
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
