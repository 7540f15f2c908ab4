// The loops of core/loops.h on threads, over tensors. A pointwise op is one call of map():
//
//   Tensor silu_forward(const Tensor& x) {
//     return map([](auto v) { return v * core::sigmoid(v); }, x);
//   }
//   Tensor silu_backward(const std::optional<Tensor>& d_y, const Tensor& x) {
//     const auto gradient = [](auto g, auto v) {
//       const auto s = core::sigmoid(v);
//       return g * s * (1 + v * (1 - s));
//     };
//     return map(gradient, *d_y, x);
//   }
#pragma once
#include <array>
#include <span>
#include <tuple>
#include <vector>

#include "bind.h"

namespace genkern {

// Calls f(chunk, first element, elements) for every chunk of n elements, on threads where it pays.
template <typename F>
void for_chunks(int64_t n, const F& f) {
  constexpr int64_t kGrain = core::block_size(4, 1);  // that a thread takes at least: about 10 us
  constexpr int64_t kTurns = 8;  // of each thread: neighbouring chunks share pages
  const int64_t chunks = (n + core::kChunk - 1) / core::kChunk;
  const auto run = [&](int64_t begin, int64_t end) {
    for (int64_t c = begin; c < end; ++c) {
      const int64_t first = c * core::kChunk;
      f(c, first, std::min(core::kChunk, n - first));
    }
  };
  if (chunks <= kGrain) return run(0, chunks);
  const int64_t units = std::min((chunks + kGrain - 1) / kGrain, num_threads() * kTurns);
  parallel_units(units, 1, [&](Units taken) {
    for (const int64_t u : taken) run(chunks * u / units, chunks * (u + 1) / units);
  });
}

// The sum over the chunks of f(first element, elements), in order: its bits depend on n alone.
template <typename F>
double sum_chunks(int64_t n, const F& f) {
  constexpr int64_t kFew = core::block_size(16, 3);  // up to so many chunks, no heap memory
  const int64_t chunks = (n + core::kChunk - 1) / core::kChunk;
  std::array<double, kFew> few;
  std::vector<double> many(chunks > kFew ? chunks : 0);
  const std::span<double> parts = chunks > kFew ? std::span(many) : std::span(few).first(chunks);
  for_chunks(n, [&](int64_t c, int64_t first, int64_t count) { parts[c] = f(first, count); });
  double total = 0;
  for (int64_t c = 0; c < chunks; ++c) total += parts[c];
  return total;
}

// to[i] = f(from[i]...) for i in [0, n)
template <typename A, typename F, typename... From>
void map(int64_t n, const core::Writer<A>& to, const F& f, const From&... from) {
  for_chunks(n, [&](int64_t, int64_t first, int64_t count) {
    core::Buffer<A> result, inputs[sizeof...(From)];
    A* y = to.at(first, result.data);
    int next = 0;
    const std::array<const A*, sizeof...(From)> x{from.at(first, count, inputs[next++].data)...};
    std::apply([&](auto... p) { core::map(count, y, f, p...); }, x);
    to.put(first, count, y);
  });
}

// A pointwise op: y[i] = f(x[i], more[i]...), tensors of one dtype and shape, any strides.
template <typename F, typename... More>
Tensor map(const F& f, const Tensor& x, const More&... more) {
  const std::array<Tensor, 1 + sizeof...(More)> inputs{dense(x), dense(more)...};
  Tensor y = new_large(x, x.sizes());
  dispatch_accumulate(x, [&]<typename A>(A) {
    [&]<size_t... i>(std::index_sequence<i...>) {
      map(x.numel(), writer<A>(y), f, reader<A>(inputs[i])...);
    }(std::make_index_sequence<1 + sizeof...(More)>{});
  });
  return y;
}

}  // namespace genkern
