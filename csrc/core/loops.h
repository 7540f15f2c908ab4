// Loops over contiguous elements, in vectors:
//
//   for (i = 0; i < count; ++i) y[i] = f(x1[i], x2[i], ...);           map
//   for (i = 0; i < count; ++i) sum += f(x1[i], x2[i], ...);           sum, in one fixed order
//   for (n = 0; n < rows; ++n) y[n] = sum of terms[n * D + d] over d   RowSums, likewise
//
// All arithmetic is in A, float or double. Half precision is converted by chunk: a loop is compiled
// for two types and not for four. `f` takes and returns vectors, Vec<A>.
#pragma once
#include <algorithm>
#include <vector>

#include "blocks.h"
#include "simd.h"

namespace genkern::core {

// ---- tensors as A ----------------------------------------------------------------------------

// Elements are worked on by chunks of this size, and sums run within chunks and then over them.
inline constexpr int64_t kChunk = block_size(4096, 40);

template <typename A, int64_t kSize = kChunk>
struct Buffer {
  alignas(64) A data[kSize];
};

// How elements lie in memory that are A in arithmetic.
enum class Storage { kSame, kBFloat16, kHalf };

// `count` elements of half precision to float, and back.
template <typename T>
[[gnu::noinline]] inline void widen_span(const T* from, int64_t count, float* to) {
  int64_t i = 0;
  for (; i + kLanes<float> <= count; i += kLanes<float>) store(to + i, load(from + i));
  for (; i < count; ++i) to[i] = to_float(from[i]);
}
template <typename T>
[[gnu::noinline]] inline void narrow_span(const float* from, int64_t count, T* to) {
  int64_t i = 0;
  for (; i + kLanes<float> <= count; i += kLanes<float>) store(to + i, load(from + i));
  for (; i < count; ++i) to[i] = from_accumulate<T>(from[i]);
}

// A tensor that is read, or nothing.
template <typename A>
struct Reader {
  const void* data = nullptr;
  Storage storage = Storage::kSame;

  explicit operator bool() const { return data != nullptr; }
  // Elements first, ..., first + count - 1: in place, or converted into `buffer`; null for nothing.
  const A* at(int64_t first, int64_t count, A* buffer) const {
    if constexpr (std::is_same_v<A, float>) {
      if (storage == Storage::kBFloat16) {
        widen_span(static_cast<const BFloat16*>(data) + first, count, buffer);
        return buffer;
      }
      if (storage == Storage::kHalf) {
        widen_span(static_cast<const Half*>(data) + first, count, buffer);
        return buffer;
      }
    }
    return data ? static_cast<const A*>(data) + first : nullptr;
  }
  A operator[](int64_t i) const {
    A x;
    return *at(i, 1, &x);
  }
};

// A tensor that is written, or nothing.
template <typename A>
struct Writer {
  void* data = nullptr;
  Storage storage = Storage::kSame;

  explicit operator bool() const { return data != nullptr; }
  // Where elements from `first` on are to be formed: in place, or in `buffer`; then put() them.
  A* at(int64_t first, A* buffer) const {
    return data && storage == Storage::kSame ? static_cast<A*>(data) + first : buffer;
  }
  void put(int64_t first, int64_t count, const A* from) const {
    if (!data) return;
    if constexpr (std::is_same_v<A, float>) {
      if (storage == Storage::kBFloat16)
        return narrow_span(from, count, static_cast<BFloat16*>(data) + first);
      if (storage == Storage::kHalf)
        return narrow_span(from, count, static_cast<Half*>(data) + first);
    }
    A* to = static_cast<A*>(data) + first;
    if (to != from) std::copy_n(from, count, to);
  }
};

// ---- one chunk -------------------------------------------------------------------------------

// Calls body(load, store) for the vectors of [0, count): load(p) is the vector of p that is being
// worked on. The last one may be partial: load fills it up with zeros, store drops these lanes.
template <typename A, typename F>
inline void for_vectors(int64_t count, F&& body) {
  constexpr int kStep = kLanes<A>;
  int64_t i = 0;
  for (; i + kStep <= count; i += kStep)
    body([i](const A* p) { return load(p + i); }, [i](A* p, Vec<A> v) { store(p + i, v); });
  if (i < count)
    body([=](const A* p) { return load_partial(p + i, count - i); },
         [=](A* p, Vec<A> v) { store_partial(p + i, v, count - i); });
}

// As many vectors as V, a vector, a twin or more, is of.
template <typename V, typename A>
inline V load_all(const A* p) {
  if constexpr (std::is_same_v<V, Vec<A>>) {
    return load(p);
  } else {
    using Half = decltype(V::a);
    return {load_all<Half>(p), load_all<Half>(p + sizeof(Half) / sizeof(A))};
  }
}

namespace detail {
template <typename V, typename A>
inline V load_up_to(const A* p, int64_t count) {
  if constexpr (std::is_same_v<V, Vec<A>>) {
    return count >= kLanes<A> ? load(p) : load_partial(p, count);
  } else {
    using Half = decltype(V::a);
    constexpr int64_t kHalf = sizeof(Half) / sizeof(A);
    return {load_up_to<Half>(p, count), load_up_to<Half>(p + kHalf, count - kHalf)};
  }
}
template <typename A>
inline void store_up_to(A* p, Vec<A> v, int64_t count) {
  if (count >= kLanes<A>)
    store(p, v);
  else
    for (int i = 0; i < kLanes<A> && i < count; ++i) p[i] = v[i];
}
template <typename A, typename V>
inline void store_up_to(A* p, Twin<V> v, int64_t count) {
  constexpr int64_t kHalf = sizeof(V) / sizeof(A);
  store_up_to(p, v.a, count);
  store_up_to(p + kHalf, v.b, count - kHalf);
}
}  // namespace detail

// The same, by Four<A>: steps of four vectors, of which no one waits for another.
template <typename A, typename F>
inline void for_fours(int64_t count, F&& body) {
  using V = Four<A>;
  constexpr int64_t kStep = sizeof(V) / sizeof(A);
  int64_t i = 0;
  for (; i + kStep <= count; i += kStep)
    body([i](const A* p) { return load_all<V>(p + i); },
         [i](A* p, V v) { detail::store_up_to(p + i, v, kStep); });
  if (const int64_t rest = count - i; rest > 0)
    body([=](const A* p) { return detail::load_up_to<V>(p + i, rest); },
         [=](A* p, V v) { detail::store_up_to(p + i, v, rest); });
}

// y[i] = f(x[i]...)
template <typename A, typename F, typename... X>
inline void map(int64_t count, A* y, const F& f, const X*... x) {
  for_vectors<A>(count, [&](auto load, auto store) { store(y, f(load(x)...)); });
}

// ---- sums ------------------------------------------------------------------------------------

// Lanes below `count`; the others are 0.
template <typename V>
inline V first_lanes(V v, int64_t count) {
  V kept{};
  for (int64_t i = 0; i < count; ++i) kept[i] = v[i];
  return kept;
}

// Adds a vector to double accumulators: terms of 1e-8 and of 1e38 keep their digits, and float
// sums of any length lose nothing.
struct WideSum {
  Vec<double> parts[2]{};

  void add(Vec<double> v) { parts[0] += v; }
  void add(VecF v) {
#if defined(GENKERN_AVX512)
    parts[0] += Vec<double>(_mm512_cvtps_pd(_mm512_castps512_ps256(__m512(v))));
    parts[1] += Vec<double>(_mm512_cvtps_pd(_mm512_extractf32x8_ps(__m512(v), 1)));
#elif defined(GENKERN_AVX2)
    parts[0] += Vec<double>(_mm256_cvtps_pd(_mm256_castps256_ps128(__m256(v))));
    parts[1] += Vec<double>(_mm256_cvtps_pd(_mm256_extractf128_ps(__m256(v), 1)));
#else
    typedef float Part __attribute__((vector_size(kVectorBytes / 2)));
    Part halves[2];
    std::memcpy(halves, &v, sizeof(v));
    for (int i = 0; i < 2; ++i) parts[i] += __builtin_convertvector(halves[i], Vec<double>);
#endif
  }
  double total() const { return sum_lanes(parts[0] + parts[1]); }
};

// sum of f(x[i]...)
template <typename A, typename F, typename... X>
inline double sum(int64_t count, const F& f, const X*... x) {
  constexpr int kStep = kLanes<A>;
  WideSum sum;
  int64_t i = 0;
  for (; i + kStep <= count; i += kStep) sum.add(f(load(x + i)...));
  if (i < count) sum.add(first_lanes(f(load_partial(x + i, count - i)...), count - i));
  return sum.total();
}

// Sum of p[0, count) in A, in an order that depends on `count` alone.
template <typename A>
inline A sum_span(const A* p, int64_t count) {
  constexpr int kStep = kLanes<A>;
  Vec<A> sum{}, more[3]{};  // one sum alone waits for its own additions
  int64_t i = 0;
  for (; i + 4 * kStep <= count; i += 4 * kStep) {
    sum += load(p + i);
    for (int k = 0; k < 3; ++k) more[k] += load(p + i + (k + 1) * kStep);
  }
  for (; i + kStep <= count; i += kStep) sum += load(p + i);
  A tail = 0;
  for (; i < count; ++i) tail += p[i];
  return sum_lanes((sum + more[0]) + (more[1] + more[2])) + tail;
}

// ---- rows ------------------------------------------------------------------------------------

// Short rows are taken together up to so many elements; longer ones are summed by so many.
inline constexpr int64_t kRowChunk = block_size(1024, 24);

// Rows (N, D) cut into units of work: several whole rows, or a segment of one.
//
//   N = 5, D = 300:    | row 0, 1, 2          | row 3, 4   |
//   N = 2, D = 20000:  | row 0: 8192 elements | 8192 | 3616 | row 1: 8192 | 8192 | 3616 |
struct Rows {
  static constexpr int64_t kSegment = block_size(8, 2) * kRowChunk;

  int64_t count, D;
  int64_t each = split() ? 1 : kRowChunk / std::max<int64_t>(1, D);
  int64_t segments = split() ? (D + kSegment - 1) / kSegment : 1;

  bool split() const { return D > kRowChunk; }
  int64_t units() const { return (count + each - 1) / each * segments; }
  int64_t row(int64_t unit) const { return unit / segments * each; }
  int64_t begin(int64_t unit) const { return row(unit) * D + unit % segments * kSegment; }
  int64_t length(int64_t unit) const {
    if (split()) return std::min(kSegment, D - unit % segments * kSegment);
    return std::min(each, count - row(unit)) * D;
  }
  // Units that are worth a thread.
  int64_t grain() const { return split() ? 1 : block_size(8, 1); }
};

// The sum of each row, formed in an order that the shape alone fixes. The threads add the chunks of
// a unit in order, each unit on one thread; write() comes after all of them.
template <typename A>
class RowSums {
 public:
  RowSums(const Rows& rows, const Writer<A>& to)
      : rows_(rows), to_(to), segments_(to && rows.split() ? rows.units() : 0) {}

  void add(int64_t unit, int64_t count, const A* terms) {
    if (rows_.split()) {
      segments_[unit] += sum_span(terms, count);
      return;
    }
    A sums[kRowChunk];  // a chunk is the whole unit
    const int64_t first = rows_.row(unit), rows = std::min(rows_.each, rows_.count - first);
    for (int64_t r = 0; r < rows; ++r) sums[r] = sum_span(terms + r * rows_.D, rows_.D);
    to_.put(first, rows, sums);
  }
  void write() const {
    if (!to_) return;
    for (int64_t n = 0; n < rows_.count && (rows_.split() || rows_.D == 0); ++n) {
      double sum = 0;
      for (int64_t s = 0; s < rows_.segments && rows_.split(); ++s)
        sum += segments_[n * rows_.segments + s];
      const A rounded = A(sum);
      to_.put(n, 1, &rounded);
    }
  }

 private:
  Rows rows_;
  Writer<A> to_;
  std::vector<A> segments_;
};

}  // namespace genkern::core
