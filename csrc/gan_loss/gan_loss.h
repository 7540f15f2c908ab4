// Terms of the GAN losses and their slopes: one value per logit, on vectors of any width.
// Goodfellow et al. 2014 (bce), Lim & Ye 2017 (hinge), Mao et al. 2017 (lsgan),
// Arjovsky et al. 2017 (wgan), Jolicoeur-Martineau 2019 (rabce).
#pragma once
#include "../core/loops.h"
#include "../core/vecmath.h"

namespace genkern::core {

// The numbers are those of genkern/ops/gan_loss.py.
enum class GanKind : int64_t { kBce, kHinge, kLsgan, kWgan, kRabce };
enum class GanMode : int64_t { kDiscriminator, kGenerator, kSaturatingGenerator };
enum class GanTerm { kCrossEntropy, kHinge, kSquare, kLinear };

// The term of one set of logits.
struct GanSide {
  double scale, target;
};

// y = scale (target softplus(-x) + (1 - target) softplus(x))
//   = scale (log1p(e^-|x|) + m |x|),  m = target for x < 0, else 1 - target
// A factor of exactly 0 drops the tail, so that the limits at +-inf come out as 0 and not as NaN.
template <typename A>
struct GanCrossEntropy {
  A scale, target;
  Vec<A> tail(Vec<A> x) const {
    const Vec<A> m = x < 0 ? splat(target) : splat(1 - target);
    return m == 0 ? Vec<A>{} : m * abs(x);
  }
  Vec<A> value(Vec<A> x) const { return scale * (log1p_finite(exp_minus_abs(x)) + tail(x)); }
  // sigmoid(x) - target, written so that neither end of sigmoid loses its small values.
  Vec<A> slope(Vec<A> x) const {
    const Vec<A> e = exp_minus_abs(x);
    const A low = -scale * target, high = scale * (1 - target);
    return (x < 0 ? high * e + low : low * e + high) / (1 + e);
  }
};

// y = max(1 + scale x, 0);  the slope at the kink is 0, as that of torch.relu.
template <typename A>
struct GanHinge {
  A scale, target;
  Vec<A> value(Vec<A> x) const { return max(1 + scale * x, Vec<A>{}); }
  Vec<A> slope(Vec<A> x) const { return 1 + scale * x <= 0 ? Vec<A>{} : splat(scale); }
};

// y = scale (x - target)^2
template <typename A>
struct GanSquare {
  A scale, target;
  Vec<A> value(Vec<A> x) const { return scale * (x - target) * (x - target); }
  Vec<A> slope(Vec<A> x) const { return 2 * scale * (x - target); }
};

// y = scale x
template <typename A>
struct GanLinear {
  A scale, target;
  Vec<A> value(Vec<A> x) const { return scale * x; }
  Vec<A> slope(Vec<A>) const { return splat(scale); }
};

inline GanTerm gan_term(GanKind kind, GanMode mode) {
  switch (kind) {
    case GanKind::kHinge:
      return mode == GanMode::kDiscriminator ? GanTerm::kHinge : GanTerm::kLinear;
    case GanKind::kLsgan:
      return GanTerm::kSquare;
    case GanKind::kWgan:
      return GanTerm::kLinear;
    default:
      return GanTerm::kCrossEntropy;
  }
}

inline GanSide gan_real_side(GanKind kind, GanMode mode, double target) {
  if (kind == GanKind::kHinge || kind == GanKind::kWgan) return {-1, 0};
  const double scale = kind == GanKind::kBce ? 1 : 0.5;
  if (mode == GanMode::kDiscriminator) return {scale, target};
  return mode == GanMode::kGenerator ? GanSide{scale, 0} : GanSide{-scale, 1};
}

// `target` is the label of the fakes, or what a generator that does not saturate wants them to be.
inline GanSide gan_fake_side(GanKind kind, GanMode mode, double target) {
  const bool discriminator = mode == GanMode::kDiscriminator;
  if (kind == GanKind::kHinge || kind == GanKind::kWgan) return {discriminator ? 1.0 : -1.0, 0};
  const double scale = kind == GanKind::kBce ? 1 : 0.5;
  return mode == GanMode::kSaturatingGenerator ? GanSide{-scale, 0} : GanSide{scale, target};
}

// Calls f(term of the real side, term of the fake side).
template <typename A, typename F>
inline auto with_gan_terms(GanTerm term, const GanSide& real, const GanSide& fake, const F& f) {
  const auto call = [&]<typename Term>(Term) {
    return f(Term{A(real.scale), A(real.target)}, Term{A(fake.scale), A(fake.target)});
  };
  switch (term) {
    case GanTerm::kHinge:
      return call(GanHinge<A>{});
    case GanTerm::kSquare:
      return call(GanSquare<A>{});
    case GanTerm::kLinear:
      return call(GanLinear<A>{});
    default:
      return call(GanCrossEntropy<A>{});
  }
}

// sum of term.value(x[i] - shift)
template <typename A, typename Term>
inline double sum_values(int64_t count, const A* x, A shift, const Term& term) {
  return sum<A>(count, [=](Vec<A> v) { return term.value(v - shift); }, x);
}

// The sum of log(1 + e^-|v|) + tail(v), v = x[i] - shift. Four vectors share one logarithm; it is
// taken one step later, beside the exponentials that do not wait for it. Tails are added as
// quarters, so that four large ones stay finite.
template <typename A, typename Tail>
inline double sum_softplus(int64_t count, const A* x, A shift, Tail tail) {
  using V = Vec<A>;
  constexpr int64_t kStep = sizeof(Four<A>) / sizeof(A);
  WideSum logs, quarters;
  V product{};
  int64_t i = 0;
  for (; i + kStep <= count; i += kStep) {
    const V log = log1p_finite(product);
    product = joint(exp_minus_abs(load_all<Four<A>>(x + i) - shift));
    V tails{};
    for (int64_t at = i; at < i + kStep; at += kLanes<A>)
      tails += A(0.25) * tail(load(x + at) - shift);
    logs.add(log);
    quarters.add(tails);
  }
  logs.add(log1p_finite(product));
  const auto rest = [=](V v) { return log1p_finite(exp_minus_abs(v - shift)) + tail(v - shift); };
  return logs.total() + 4 * quarters.total() + sum<A>(count - i, rest, x + i);
}

template <typename A>
inline double sum_values(int64_t count, const A* x, A shift, const GanCrossEntropy<A>& term) {
  using V = Vec<A>;
  const A high = 1 - term.target, low = -term.target;
  if (low != 0 && high != 0)
    return term.scale * sum_softplus(count, x, shift, [=](V v) { return max(high * v, low * v); });
  const A sign = high + low;  // the target is 0 or 1: no product of 0 and inf
  return term.scale * sum_softplus(count, x, shift, [=](V v) { return max(sign * v, V{}); });
}

}  // namespace genkern::core
