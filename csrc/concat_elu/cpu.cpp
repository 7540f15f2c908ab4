// The concatenated ELU and its gradient: chunks of rows on threads.
#include "../threads.h"
#include "concat_elu.h"

namespace genkern::cpu {
namespace {

Tensor in_format(const Tensor& t, bool channels_last) {
  return channels_last ? dense_channels_last(t) : dense(t);
}

// Rows of x, each cut into chunks.
struct ConcatRows {
  int64_t count, length;

  ConcatRows(const Tensor& x, bool channels_last)
      : count(x.size(0) * (channels_last ? x.size(2) * x.size(3) : 1)),
        length(count == 0 ? 0 : x.numel() / count) {}

  // Calls f(place in x, place of the same channels in y, elements); those of -x are `length` on.
  template <typename F>
  void for_chunks(const F& f) const {
    constexpr int64_t kElements = core::block_size(1 << 14, 40);  // worth a thread
    const int64_t each = std::min(length, core::kChunk);
    if (each == 0) return;
    const int64_t chunks = (length + each - 1) / each;
    parallel_for(0, count * chunks, kElements / each + 1, [&](int64_t unit, int64_t end) {
      for (; unit < end; ++unit) {
        const int64_t row = unit / chunks, i = unit % chunks * each;
        f(row * length + i, row * 2 * length + i, std::min(each, length - i));
      }
    });
  }
};
}  // namespace

Tensor concat_elu_forward(const Tensor& given, bool channels_last) {
  const Tensor x = in_format(given, channels_last);
  std::vector<int64_t> shape(x.sizes().begin(), x.sizes().end());
  shape[1] *= 2;
  Tensor y = channels_last ? new_channels_last(x, shape) : new_large(x, shape);
  dispatch_accumulate(x, [&]<typename A>(A) {
    const ConcatRows rows(x, channels_last);
    const auto from = reader<A>(x);
    const auto to = writer<A>(y);
    rows.for_chunks([&](int64_t at, int64_t place, int64_t count) {
      core::Buffer<A> buffer, first, second;
      const A* values = from.at(at, count, buffer.data);
      A* positive = to.at(place, first.data);
      A* negative = to.at(place + rows.length, second.data);
      core::for_vectors<A>(count, [&](auto load, auto store) {
        const auto pair = core::concat_elu(load(values));
        store(positive, pair.positive), store(negative, pair.negative);
      });
      to.put(place, count, positive);
      to.put(place + rows.length, count, negative);
    });
  });
  return y;
}

Tensor concat_elu_backward(const std::optional<Tensor>& upstream, const Tensor& given,
                           bool channels_last, bool needs_input) {
  if (!needs_input) return absent(given);
  const Tensor x = in_format(given, channels_last), d_y = in_format(*upstream, channels_last);
  Tensor d_x = channels_last ? new_channels_last(x, x.sizes()) : new_large(x, x.sizes());
  dispatch_accumulate(x, [&]<typename A>(A) {
    const ConcatRows rows(x, channels_last);
    const auto from = reader<A>(x), up = reader<A>(d_y);
    const auto to = writer<A>(d_x);
    rows.for_chunks([&](int64_t at, int64_t place, int64_t count) {
      core::Buffer<A> buffer, first, second, result;
      const A* values = from.at(at, count, buffer.data);
      const A* positive = up.at(place, count, first.data);
      const A* negative = up.at(place + rows.length, count, second.data);
      A* d = to.at(at, result.data);
      core::for_vectors<A>(count, [&](auto load, auto store) {
        const auto slopes = core::concat_elu_slopes(load(values));
        store(d, load(positive) * slopes.positive + load(negative) * slopes.negative);
      });
      to.put(at, count, d);
    });
  });
  return d_x;
}

GENKERN_REGISTER(CPU, m) {
  GENKERN_OP(m, concat_elu_forward);
  GENKERN_OP(m, concat_elu_backward);
}

}  // namespace genkern::cpu
