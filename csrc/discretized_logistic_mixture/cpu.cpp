// The negative log-likelihood of a mixture of discretized logistics, its gradient, and samples:
// blocks of pixels on threads. A block of the parameters lies together while it is worked on, in
// float or double, whatever their dtype and memory format: in place, the planes of an image of
// 32 x 32 are 4 kB apart and drive each other out of the cache.
//
//   for (n < N) for (block of the pixels of image n) {
//     planes[j][p] = params[n][j][p];                    // (10 K, kPixels)
//     partial[n][block] = sum of the nats of its pixels;
//   }
//   nll[n] = sum of partial[n][...], in order
#include <atomic>
#include <cmath>

#include "../bind.h"
#include "../core/transpose.h"
#include "discretized_logistic_mixture.h"

namespace genkern::cpu {
namespace {

using core::Bins;
using core::kPixels;
using core::Pixels;
using core::Reader;
using core::Writer;
using MaybeTensor = std::optional<Tensor>;

// Images (N, C, pixels) cut into blocks.
struct Blocks {
  int64_t N, C, pixels;
  bool channels_last;
  int64_t each = (pixels + kPixels - 1) / kPixels;

  int64_t units() const { return N * each; }
  int64_t image(int64_t unit) const { return unit / each; }
  int64_t begin(int64_t unit) const { return unit % each * kPixels; }
  int64_t count(int64_t unit) const { return std::min(kPixels, pixels - begin(unit)); }
  // Where pixel p of plane j of image n lies.
  int64_t place(int64_t n, int64_t j, int64_t p) const {
    return channels_last ? (n * pixels + p) * C + j : (n * C + j) * pixels + p;
  }
  // Units that are worth a thread: about 20 us.
  int64_t grain() const { return core::block_size(1 + 400 / (C + 1), 1); }
};

Tensor in_format(const Tensor& t, bool channels_last) {
  return channels_last ? dense_channels_last(t) : dense(t);
}

Tensor new_image(const Tensor& like, bool channels_last) {
  return channels_last ? new_channels_last(like, like.sizes()) : new_large(like, like.sizes());
}

Blocks blocks_of(const Tensor& params, bool channels_last) {
  return {params.size(0), params.size(1), params.size(2) * params.size(3), channels_last};
}

// One thread's copies: planes of parameters and of gradients, rows of channels, sums over k.
template <typename A>
class Workspace {
 public:
  Workspace(const Tensor& like, const Blocks& blocks, int64_t K, bool with_gradients)
      : size_(blocks.C * kPixels),
        planes_(like, size_, /*zero=*/true),
        gradients_(like, with_gradients ? size_ : 0),
        rows_(like, blocks.channels_last ? size_ : 0),
        joint_(like, K * kPixels),
        weights_(like, K * kPixels) {}

  A* planes() const { return planes_.get(); }
  A* gradients() const { return gradients_.get(); }
  A* rows() const { return rows_.get(); }
  A* joint() const { return joint_.get(); }
  A* weights() const { return weights_.get(); }

 private:
  int64_t size_;
  Scratch<A> planes_, gradients_, rows_, joint_, weights_;
};

template <typename A>
void load_planes(const Reader<A>& from, const Blocks& blocks, int64_t unit, int64_t planes,
                 const Workspace<A>& work) {
  const int64_t n = blocks.image(unit), begin = blocks.begin(unit), count = blocks.count(unit);
  if (!blocks.channels_last) {
    for (int64_t j = 0; j < planes; ++j) {
      A* to = work.planes() + j * kPixels;
      const A* values = from.at(blocks.place(n, j, begin), count, to);
      if (values != to) std::copy_n(values, count, to);
    }
    return;
  }
  // Squares of the transposition read whole registers, beyond the last row too: a copy has them.
  const int64_t size = count * blocks.C;
  const A* values = from.at(blocks.place(n, 0, begin), size, work.rows());
  if (values != work.rows()) std::copy_n(values, size, work.rows());
  core::deinterleave<A>(work.rows(), blocks.C, planes, count, work.planes(), kPixels, 1);
}

template <typename A>
void store_planes(const Writer<A>& to, const Blocks& blocks, int64_t unit,
                  const Workspace<A>& work) {
  const int64_t n = blocks.image(unit), begin = blocks.begin(unit), count = blocks.count(unit);
  if (!blocks.channels_last) {
    for (int64_t j = 0; j < blocks.C; ++j)
      to.put(blocks.place(n, j, begin), count, work.gradients() + j * kPixels);
    return;
  }
  const int64_t first = blocks.place(n, 0, begin);
  A* rows = to.at(first, work.rows());
  core::interleave(work.gradients(), kPixels, 1, blocks.C, count, rows);
  to.put(first, count * blocks.C, rows);
}

// Integers of any type as 2 v - last; remembers one that is outside of the levels.
class Targets {
 public:
  Targets(const Tensor& target, int64_t levels)
      : tensor_(dense(target)), levels_(levels), bad_(levels) {}

  template <typename A>
  void load(const Blocks& blocks, int64_t unit, int64_t colours, Pixels<A>* x,
            Pixels<double>* wide) const {
    switch (tensor_.scalar_type()) {
      case ScalarType::Byte:
        return load_as<uint8_t>(blocks, unit, colours, x, wide);
      case ScalarType::Int:
        return load_as<int32_t>(blocks, unit, colours, x, wide);
      default:
        return load_as<int64_t>(blocks, unit, colours, x, wide);
    }
  }
  void check() const {
    const int64_t bad = bad_;
    GENKERN_CHECK(bad == levels_, "discretized_logistic_mixture_nll: target must be in [0, ",
                  levels_ - 1, "]; got ", bad == kTooLarge ? levels_ : bad);
  }

 private:
  static constexpr int64_t kTooLarge = INT64_MIN;
  template <typename T, typename A>
  void load_as(const Blocks& blocks, int64_t unit, int64_t colours, Pixels<A>* x,
               Pixels<double>* wide) const {
    const T* from = static_cast<const T*>(tensor_.const_data_ptr());
    const int64_t n = blocks.image(unit), begin = blocks.begin(unit), count = blocks.count(unit);
    for (int64_t c = 0; c < colours; ++c) {
      const T* values = from + (n * colours + c) * blocks.pixels + begin;
      for (int64_t p = 0; p < count; ++p) {
        const int64_t v = values[p];
        if (uint64_t(v) >= uint64_t(levels_)) bad_ = v == levels_ ? kTooLarge : v;
        wide[c].at[p] = double(2 * v - (levels_ - 1)), x[c].at[p] = A(wide[c].at[p]);
      }
    }
  }

  Tensor tensor_;
  int64_t levels_;
  mutable std::atomic<int64_t> bad_;
};

// With somewhere to put them, also the gradients of the nats.
template <bool kGradients, int kColours, typename A>
void forward(const Tensor& params, const Blocks& blocks, const Targets& targets, int64_t levels,
             const Writer<A>& to, const Writer<A>& gradients) {
  const int64_t K = blocks.C / core::Planes<kColours>::kCount;
  const Bins<A> bins(levels);
  std::vector<double> partial(blocks.units());
  parallel_for(0, blocks.units(), blocks.grain(), [&](int64_t unit, int64_t end) {
    const Workspace<A> work(params, blocks, K, kGradients);
    Pixels<A> x[kColours], nats;
    Pixels<double> wide[kColours];
    for (; unit < end; ++unit) {
      const int64_t count = blocks.count(unit);
      load_planes(reader<A>(params), blocks, unit, blocks.C, work);
      targets.load(blocks, unit, kColours, x, wide);
      const core::Block<kColours, A> block{work.planes(), work.gradients(), K, count, x, wide};
      core::mixture_block<kGradients>(block, bins, work.joint(), work.weights(), nats.at);
      partial[unit] = core::sum<A>(count, [](auto v) { return v; }, nats.at);
      if (kGradients) store_planes(gradients, blocks, unit, work);
    }
  });
  targets.check();
  for (int64_t n = 0; n < blocks.N; ++n) {
    double sum = 0;
    for (int64_t b = 0; b < blocks.each; ++b) sum += partial[n * blocks.each + b];
    const A rounded = A(sum);
    to.put(n, 1, &rounded);
  }
}

// d[n] = upstream[n] * gradients[n]
template <typename A>
void scale(const Reader<A>& gradients, const Reader<A>& upstream, int64_t N, int64_t size,
           const Writer<A>& to) {
  const int64_t chunks = (size + core::kChunk - 1) / core::kChunk;
  parallel_for(0, N * chunks, core::block_size(4, 1), [&](int64_t unit, int64_t end) {
    core::Buffer<A> from_buffer, to_buffer;
    for (; unit < end; ++unit) {
      const int64_t begin = unit % chunks * core::kChunk, first = unit / chunks * size + begin;
      const int64_t count = std::min(core::kChunk, size - begin);
      const A factor = upstream[unit / chunks];
      const A* from = gradients.at(first, count, from_buffer.data);
      A* result = to.at(first, to_buffer.data);
      core::map(count, result, [factor](auto v) { return factor * v; }, from);
      to.put(first, count, result);
    }
  });
}

// Noise of one thread: given, or uniform numbers of a stream.
template <typename A>
class Noise {
 public:
  Noise(const Reader<A>& given, const int64_t* seed)
      : given_(given), stream_(seed ? uint64_t(*seed) : 0) {}

  void copy(int64_t first, int64_t count, A* to) {
    if (given_) {
      const A* values = given_.at(first, count, to);
      if (values != to) std::copy_n(values, count, to);
    } else {
      std::copy_n(stream_.get(first, count), count, to);
    }
  }

 private:
  Reader<A> given_;
  core::UniformStream stream_;
};

// The colours of the pixels of a block, one after the other: x of those drawn goes into the means.
template <int kColours, typename A>
void draw_block(const Reader<A>& params, const Blocks& blocks, int64_t unit, int64_t K,
                const int32_t* chosen, const Pixels<A>* u, const Bins<A>& bins, A temperature,
                Pixels<A>* v) {
  using P = core::Planes<kColours>;
  const int64_t n = blocks.image(unit), begin = blocks.begin(unit), count = blocks.count(unit);
  const auto parameter = [&](int plane, int64_t p) {
    return params[blocks.place(n, plane * K + chosen[p], begin + p)];
  };
  Pixels<A> log_scale;
  for (int c = 0; c < kColours; ++c) {
    A* mean = v[c].at;
    for (int64_t p = 0; p < count; ++p) {
      mean[p] = parameter(P::mean(c), p), log_scale.at[p] = parameter(P::log_scale(c), p);
      for (int i = 0; i < c; ++i) {
        const A k = std::tanh(parameter(P::coefficient(i + (c == 2)), p));
        mean[p] += k * ((2 * v[i].at[p] - bins.last) * bins.half);
      }
    }
    core::draw_colour(mean, log_scale.at, u[c].at, count, temperature, bins);
  }
}

template <int kColours, typename A>
void sample(const Tensor& params, const MaybeTensor& noise, const MaybeTensor& seed,
            const Blocks& blocks, int64_t levels, A temperature, const Tensor& to) {
  const int64_t K = blocks.C / core::Planes<kColours>::kCount;
  const Bins<A> bins(levels);
  const A inverse = 1 / std::max(temperature, A(1e-30));
  uint8_t* bytes = levels <= 256 ? static_cast<uint8_t*>(to.mutable_data_ptr()) : nullptr;
  int32_t* words = levels > 256 ? static_cast<int32_t*>(to.mutable_data_ptr()) : nullptr;
  parallel_for(0, blocks.units(), blocks.grain(), [&](int64_t unit, int64_t end) {
    const Workspace<A> work(params, blocks, K, /*gradients=*/false);
    Noise<A> source(reader<A>(noise), data<const int64_t>(seed));
    Pixels<A> drawn[kColours], u[1 + kColours];
    int32_t chosen[kPixels];
    for (; unit < end; ++unit) {
      const int64_t n = blocks.image(unit), begin = blocks.begin(unit), count = blocks.count(unit);
      for (int64_t j = 0; j <= kColours; ++j)
        source.copy((n * (1 + kColours) + j) * blocks.pixels + begin, count, u[j].at);
      load_planes(reader<A>(params), blocks, unit, K, work);
      core::choose_components(work.planes(), K, u[0].at, count, inverse, work.weights(), chosen);
      draw_block<kColours>(reader<A>(params), blocks, unit, K, chosen, u + 1, bins, temperature,
                           drawn);
      for (int64_t c = 0; c < kColours; ++c) {
        const int64_t first = (n * kColours + c) * blocks.pixels + begin;
        for (int64_t p = 0; p < count; ++p) {
          const A v = drawn[c].at[p];
          if (bytes)
            bytes[first + p] = uint8_t(v);
          else
            words[first + p] = int32_t(v);
        }
      }
    }
  });
}

// Calls f(std::integral_constant<int, colours>).
template <typename F>
void with_colours(int64_t colours, const F& f) {
  if (colours == 3) return f(std::integral_constant<int, 3>());
  f(std::integral_constant<int, 1>());
}

}  // namespace

std::tuple<Tensor, Tensor, Tensor> discretized_logistic_mixture_forward(
    const Tensor& given, const MaybeTensor& target, const MaybeTensor& noise,
    const MaybeTensor& seed, int64_t levels, int64_t data_channels, double temperature,
    bool channels_last, bool save) {
  const Tensor params = in_format(given, channels_last);
  const Blocks blocks = blocks_of(params, channels_last);
  const auto size = params.sizes();
  const auto integers = levels <= 256 || target ? ScalarType::Byte : ScalarType::Int;
  Tensor nll = target ? new_tensor(params, {blocks.N}) : absent(params);
  Tensor found = target ? new_tensor(params, {0}, integers)
                        : new_tensor(params, {size[0], data_channels, size[2], size[3]}, integers);
  Tensor saved =
      save ? new_large(params, {blocks.N, blocks.C * blocks.pixels}, accumulate_dtype(params))
           : absent(params);
  dispatch_accumulate(params, [&]<typename A>(A) {
    with_colours(data_channels, [&]<int kColours>(std::integral_constant<int, kColours>) {
      if (!target)
        return sample<kColours>(params, dense(noise), seed, blocks, levels, A(temperature), found);
      const Targets targets(*target, levels);
      const auto work = save ? &forward<true, kColours, A> : &forward<false, kColours, A>;
      work(params, blocks, targets, levels, writer<A>(nll), writer<A>(saved, save));
    });
  });
  return {nll, found, saved};
}

Tensor discretized_logistic_mixture_backward(const MaybeTensor& upstream, const MaybeTensor&,
                                             const Tensor& params, const MaybeTensor&,
                                             const MaybeTensor&, const MaybeTensor&,
                                             const Tensor& given, int64_t, int64_t, double,
                                             bool channels_last, bool needs_params) {
  if (!needs_params) return absent(params);
  const Tensor saved = dense(given), d = dense(*upstream);
  Tensor d_params = new_image(params, channels_last);
  const int64_t N = params.size(0), size = N ? params.numel() / N : 0;
  dispatch_accumulate(params, [&]<typename A>(A) {
    scale(reader<A>(saved), reader<A>(d), N, size, writer<A>(d_params));
  });
  return d_params;
}

GENKERN_REGISTER(CPU, m) {
  GENKERN_OP(m, discretized_logistic_mixture_forward);
  GENKERN_OP(m, discretized_logistic_mixture_backward);
}

}  // namespace genkern::cpu
