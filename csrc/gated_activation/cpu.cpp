// The gated activation and its gradients: rows on threads, each sum on one thread.
#include "../bind.h"
#include "gated_activation.h"

namespace genkern::cpu {
namespace {

using core::GatedRows;
using core::kChunk;
using MaybeTensor = std::optional<Tensor>;

enum class Condition { kNone, kChannels, kPixels };

// What one call reads. The condition of a chunk of a row is one value, or one for each element.
template <typename A>
struct Inputs {
  GatedRows rows;
  core::Reader<A> x, condition;
  Condition kind;

  // Calls f(place of the chunk in x, its length, chunk): input and condition.
  template <typename F>
  void for_chunks(int64_t row, const F& f) const {
    core::Buffer<A> a, b, more;
    for (int64_t i = 0; i < rows.length(); i += kChunk) {
      const int64_t count = std::min(kChunk, rows.length() - i), at = rows.begin(row) + i;
      core::GatedChunk<A> chunk{half(row, i, at, 0, count, a, more),
                                half(row, i, at, 1, count, b, more)};
      if (is_shifted()) {
        const int64_t channel = rows.condition(row);
        chunk.is_shifted = true;
        chunk.shift_a = condition[channel], chunk.shift_b = condition[channel + rows.C];
      }
      f(at, count, chunk);
    }
  }

 private:
  // The condition is one value for the whole row.
  bool is_shifted() const { return kind == Condition::kChannels && !rows.channels_last; }

  // Half of a chunk, with the condition of each element.
  const A* half(int64_t row, int64_t i, int64_t at, int64_t second, int64_t count,
                core::Buffer<A>& to, core::Buffer<A>& more) const {
    const int64_t place = at + second * rows.distance();
    const A* values = x.at(place, count, to.data);
    if (kind == Condition::kNone || is_shifted()) return values;
    const auto add = [](auto u, auto v) { return u + v; };
    const int64_t channel = rows.condition(row) + second * rows.C;
    if (kind == Condition::kPixels)
      core::map(count, to.data, add, values, condition.at(place, count, more.data));
    else
      core::map(count, to.data, add, values, condition.at(channel + i, count, more.data));
    return to.data;
  }
};

Tensor in_format(const Tensor& t, bool channels_last) {
  return channels_last ? dense_channels_last(t) : dense(t);
}

template <typename A>
Inputs<A> inputs_of(const Tensor& x, const MaybeTensor& condition, bool channels_last) {
  const GatedRows rows{x.size(0), x.size(1) / 2, x.size(2) * x.size(3), channels_last};
  const auto kind = !condition              ? Condition::kNone
                    : condition->dim() == 2 ? Condition::kChannels
                                            : Condition::kPixels;
  return {rows, reader<A>(x), reader<A>(condition), kind};
}

// Rows that are worth a thread.
int64_t grain(const GatedRows& rows) {
  return core::block_size(1 << 14, 40) / std::max<int64_t>(1, rows.length()) + 1;
}

// d_condition (N, 2C): sums over the pixels of an image, in order.
template <typename A>
struct ChannelSums {
  const GatedRows& rows;
  std::vector<A> sums;

  ChannelSums(const GatedRows& rows, bool wanted)
      : rows(rows), sums(wanted ? rows.N * 2 * rows.C : 0) {}
  void add(int64_t row, int64_t i, int64_t second, int64_t count, const A* d) {
    if (sums.empty()) return;
    A* to = sums.data() + rows.condition(row) + second * rows.C;
    if (rows.channels_last)
      core::map(count, to + i, [](auto u, auto v) { return u + v; }, to + i, d);
    else
      *to += core::sum_span(d, count);
  }
};

template <typename A>
void backward(const Inputs<A>& in, const core::Reader<A>& upstream, const core::Writer<A>& d_x,
              const core::Writer<A>& d_pixels, ChannelSums<A>& sums) {
  const GatedRows& rows = in.rows;
  // Rows of one image add to the same sums where the channels come last.
  const int64_t together = rows.channels_last && !sums.sums.empty() ? rows.pixels : 1;
  if (rows.count() == 0) return;
  parallel_for(0, rows.count() / together, grain(rows) / together + 1, [&](int64_t u, int64_t end) {
    core::Buffer<A> up, d_a, d_b;
    for (int64_t row = u * together; row < end * together; ++row)
      in.for_chunks(row, [&](int64_t at, int64_t count, const core::GatedChunk<A>& chunk) {
        const int64_t i = at - rows.begin(row);
        const A* d = upstream.at(row * rows.length() + i, count, up.data);
        A* of_a = d_x.at(at, d_a.data);
        A* of_b = d_x.at(at + rows.distance(), d_b.data);
        core::gated_backward_chunk(count, chunk, d, of_a, of_b);
        for (const auto& to : {d_x, d_pixels}) {
          to.put(at, count, of_a);
          to.put(at + rows.distance(), count, of_b);
        }
        sums.add(row, i, 0, count, of_a), sums.add(row, i, 1, count, of_b);
      });
  });
}
}  // namespace

Tensor gated_activation_forward(const Tensor& given, const MaybeTensor& given_condition,
                                bool channels_last) {
  const Tensor x = in_format(given, channels_last);
  const bool pixels = given_condition && given_condition->dim() == 4;
  const MaybeTensor condition =
      pixels ? in_format(*given_condition, channels_last) : dense(given_condition);
  const std::array<int64_t, 4> size{x.size(0), x.size(1) / 2, x.size(2), x.size(3)};
  Tensor y = channels_last ? new_channels_last(x, size) : new_large(x, size);
  dispatch_accumulate(x, [&]<typename A>(A) {
    const auto in = inputs_of<A>(x, condition, channels_last);
    const auto to = writer<A>(y);
    parallel_for(0, in.rows.count(), grain(in.rows), [&](int64_t row, int64_t end) {
      core::Buffer<A> result;
      for (; row < end; ++row)
        in.for_chunks(row, [&](int64_t at, int64_t count, const core::GatedChunk<A>& chunk) {
          const int64_t place = row * in.rows.length() + at - in.rows.begin(row);
          A* values = to.at(place, result.data);
          core::gated_chunk(count, chunk, values);
          to.put(place, count, values);
        });
    });
  });
  return y;
}

std::tuple<Tensor, Tensor> gated_activation_backward(const MaybeTensor& upstream,
                                                     const Tensor& given,
                                                     const MaybeTensor& given_condition,
                                                     bool channels_last, bool needs_input,
                                                     bool needs_condition) {
  const Tensor x = in_format(given, channels_last), d = in_format(*upstream, channels_last);
  const bool pixels = given_condition && given_condition->dim() == 4;
  const MaybeTensor condition =
      pixels ? in_format(*given_condition, channels_last) : dense(given_condition);
  const auto image = [&](bool wanted) {
    if (!wanted) return absent(x);
    return channels_last ? new_channels_last(x, x.sizes()) : new_large(x, x.sizes());
  };
  Tensor d_x = image(needs_input);
  Tensor d_condition =
      needs_condition && !pixels ? new_tensor(x, {x.size(0), x.size(1)}) : image(needs_condition);
  dispatch_accumulate(x, [&]<typename A>(A) {
    const auto in = inputs_of<A>(x, condition, channels_last);
    ChannelSums<A> sums(in.rows, needs_condition && !pixels);
    backward(in, reader<A>(d), writer<A>(d_x, needs_input),
             writer<A>(d_condition, needs_condition && pixels), sums);
    writer<A>(d_condition, !sums.sums.empty()).put(0, int64_t(sums.sums.size()), sums.sums.data());
  });
  return {d_x, d_condition};
}

GENKERN_REGISTER(CPU, m) {
  GENKERN_OP(m, gated_activation_forward);
  GENKERN_OP(m, gated_activation_backward);
}

}  // namespace genkern::cpu
