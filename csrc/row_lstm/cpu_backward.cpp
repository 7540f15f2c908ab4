// All rows of a Row LSTM, backward: the op. How the rows are worked on: backward.h.
#include "backward.h"
#include "weights.h"

namespace genkern::cpu {
namespace {

// Adds up the image groups of d_weight, in order, into the parameter's layout.
template <typename T>
void unpack(const rl::Shape<Accumulate<T>>& s, const Accumulate<T>* packed, int64_t groups,
            T* d_weight) {
  parallel_units(s.blocks(), 1, [&](Units blocks) {
    for (const int64_t b : blocks)
      rl::for_each_weight<1>(s, b, [&](int64_t to, int64_t from) {
        Accumulate<T> sum = 0;
        for (int64_t g = 0; g < groups; ++g) sum += packed[g * s.weight_size() + from];
        d_weight[to] = core::from_accumulate<T>(sum);
      });
  });
}

using Gradients = std::tuple<Tensor, Tensor, Tensor, Tensor>;

// Gradients that are not needed come back empty.
Gradients row_lstm_backward(const std::optional<Tensor>& given_d_h,
                            const std::optional<Tensor>& given_d_h_n,
                            const std::optional<Tensor>& given_d_c_n, const Tensor& /*input_gates*/,
                            const Tensor& given_weight_hh, const std::optional<Tensor>& given_h0,
                            const std::optional<Tensor>& given_c0, const Tensor& gates,
                            const Tensor& cells, bool need_input, bool need_weight, bool need_h0,
                            bool need_c0) {
  const std::optional<Tensor> d_h = dense(given_d_h), d_h_n = dense(given_d_h_n);
  const std::optional<Tensor> d_c_n = dense(given_d_c_n), h0 = dense(given_h0);
  const std::optional<Tensor> c0 = dense(given_c0);
  const Tensor weight_hh = dense(given_weight_hh);
  return dispatch_floating(weight_hh, [&]<typename T>(T) -> Gradients {
    using A = Accumulate<T>;
    const rl::Shape<A> s{gates.size(0), weight_hh.size(1), gates.size(1), gates.size(3),
                         weight_hh.size(2)};
    const auto result = [&](bool need, std::initializer_list<int64_t> shape) {
      return need ? new_large(weight_hh, shape) : absent(weight_hh);
    };
    Tensor d_input = result(need_input, {s.N, 4 * s.hidden, s.H, s.W});
    Tensor d_weight = result(need_weight, {4 * s.hidden, s.hidden, s.taps});
    Tensor d_h0 = result(need_h0, {s.N, s.hidden, s.W});
    Tensor d_c0 = result(need_c0, {s.N, s.hidden, s.W});
    if (s.N * s.hidden * s.W == 0) {
      if (need_weight) std::fill_n(data<T>(d_weight), 4 * s.hidden * s.hidden * s.taps, T{});
      return {d_input, d_weight, d_h0, d_c0};
    }
    core::dispatch_factors<T>([&]<typename E>(E) {
      const Scratch<E> packed(weight_hh, s.weight_size());
      const T* weight = data<const T>(weight_hh);
      parallel_units((s.blocks() + 1) / 2, 1, [&](Units pairs) {
        for (const int64_t p : pairs) rl::pack_transposed(s, p, weight, packed.get());
      });
      Backward<T, E> work{s,
                          weight_hh,
                          data<const T>(d_h),
                          data<const T>(d_h_n),
                          data<const T>(d_c_n),
                          data<const T>(h0),
                          data<const T>(c0),
                          packed.get(),
                          data<const A>(gates),
                          data<const A>(cells),
                          need_input ? data<T>(d_input) : nullptr,
                          need_h0 ? data<T>(d_h0) : nullptr,
                          need_c0 ? data<T>(d_c0) : nullptr,
                          nullptr};
      const int64_t groups = need_weight ? work.groups() : 0;
      const Scratch<A> d_packed(weight_hh, groups * s.weight_size(), /*zero=*/true);
      if (need_weight) work.d_weight = d_packed.get();
      work.run();
      if (need_weight) unpack(s, d_packed.get(), groups, data<T>(d_weight));
    });
    return {d_input, d_weight, d_h0, d_c0};
  });
}

GENKERN_REGISTER(CPU, m) { GENKERN_OP(m, row_lstm_backward); }

}  // namespace
}  // namespace genkern::cpu
