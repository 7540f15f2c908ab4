// The categorical cross-entropy of integer images, nats per image, and its gradients: of logits
// that are there (logits.h), or of the features that a 1x1 head makes them from (head.h).
#include "head_backward.h"
#include "logits.h"

namespace genkern::cpu {
namespace {

using namespace pixel_cross_entropy;

// The weight and the bias as A, for the time of a call.
template <typename T>
class LoadedHead {
 public:
  LoadedHead(const Tensor& weight, const MaybeTensor& bias, int64_t colours, bool masked)
      : features_(weight.size(1)),
        colours_(colours),
        masked_(masked),
        weight_(weight, weight.numel()),
        bias_(weight, bias ? weight.size(0) : 0),
        rows_(weight.size(0)) {
    load_weight<T>(weight, features_, weight_.get());
    for (int64_t r = 0; bias && r < rows_; ++r)
      bias_.get()[r] = core::to_accumulate(data<const T>(*bias)[r * bias->stride(0)]);
    with_bias_ = bias.has_value();
  }
  Head<Accumulate<T>> head() const {
    return {features_, colours_,      rows_ / colours_,
            masked_,   weight_.get(), with_bias_ ? bias_.get() : nullptr};
  }

 private:
  int64_t features_, colours_;
  bool masked_, with_bias_;
  Scratch<Accumulate<T>> weight_, bias_;
  int64_t rows_;
};

void check_targets(bool good, const Tensor& target, int64_t levels) {
  if (good) return;
  const Targets targets(target, levels);
  int64_t got = 0, i = 0;
  while (i < target.numel() && targets.read(i, 1, &got)) ++i;
  GENKERN_CHECK(false, "pixel_cross_entropy: target must be in [0, ", levels - 1, "]; got ", got);
}
}  // namespace

std::tuple<Tensor, Tensor, Tensor> pixel_cross_entropy_forward(const Tensor& given,
                                                               const MaybeTensor& weight,
                                                               const MaybeTensor& bias,
                                                               const Tensor& target, bool masked,
                                                               bool channels_last, bool save) {
  const Tensor x = one_run(given, channels_last);
  const int64_t colours = target.size(1);
  const Layout s = layout_of(x, weight ? 1 : colours);
  const Targets targets(target, weight ? weight->size(0) / colours : s.rows);
  Tensor nats = new_tensor(x, {target.size(0)});
  const auto saved = [&] {
    return save ? new_tensor(x, target.sizes(), accumulate_dtype(x))
                : new_tensor(x, {0}, accumulate_dtype(x));
  };
  Tensor maximum = saved(), scale = saved();
  dispatch_floating(x, [&]<typename T>(T) {
    using A = Accumulate<T>;
    A *m = save ? data<A>(maximum) : nullptr, *r = save ? data<A>(scale) : nullptr;
    if (weight) {
      const LoadedHead<T> head(*weight, bias, colours, masked);
      check_targets(head_forward<T>(x, s, head.head(), targets, nats, m, r), target,
                    targets.levels());
    } else {
      check_targets(logits_forward<T>(x, s, targets, nats, m, r), target, targets.levels());
    }
  });
  return {nats, maximum, scale};
}

std::tuple<Tensor, Tensor, Tensor> pixel_cross_entropy_backward(
    const MaybeTensor& upstream, const Tensor& given, const MaybeTensor& weight,
    const MaybeTensor& bias, const Tensor& target, const Tensor& maximum, const Tensor& scale,
    bool masked, bool channels_last, bool needs_features, bool needs_weight, bool needs_bias) {
  const Tensor x = one_run(given, channels_last), d = dense(*upstream);
  const int64_t colours = target.size(1);
  const Layout s = layout_of(x, weight ? 1 : colours);
  const Targets targets(target, weight ? weight->size(0) / colours : s.rows);
  const Tensor saved[] = {dense(maximum), dense(scale)};
  needs_weight &= weight.has_value(), needs_bias &= bias.has_value();
  Tensor d_x = needs_features ? new_like(given, channels_last) : absent(x);
  Tensor d_weight = needs_weight ? new_zeros_like(*weight) : absent(x);
  Tensor d_bias = needs_bias ? new_zeros(x, {bias->size(0)}) : absent(x);
  const Layout to = needs_features ? layout_of(d_x, s.C) : s;
  dispatch_floating(x, [&]<typename T>(T) {
    using A = Accumulate<T>;
    const A *m = data<const A>(saved[0]), *r = data<const A>(saved[1]);
    if (!weight) {
      if (needs_features) logits_backward<T>(x, s, targets, m, r, reader<A>(d), d_x, to);
      return;
    }
    const LoadedHead<T> head(*weight, bias, colours, masked);
    const HeadPass<T> pass{
        data<const T>(x), s,      m, r, reader<A>(d), needs_features ? data<T>(d_x) : nullptr, to,
        nullptr,          nullptr};
    head_backward<T>(x, head.head(), targets, pass, needs_weight ? &d_weight : nullptr,
                     needs_bias ? &d_bias : nullptr);
  });
  return {d_x, d_weight, d_bias};
}

GENKERN_REGISTER(CPU, m) {
  GENKERN_OP(m, pixel_cross_entropy_forward);
  GENKERN_OP(m, pixel_cross_entropy_backward);
}

}  // namespace genkern::cpu
