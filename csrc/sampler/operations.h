// The pointwise operations of a stage, on registers of rows x a block of units.
#pragma once
#include "../core/loops.h"
#include "../core/vecmath.h"
#include "plan.h"

namespace genkern::core::sampler {

template <typename V>
inline V minus_one_of_exp(V x) {
  return expm1(x);
}

// What networks have little of, in scalar arithmetic.
template <typename V, typename F>
inline V lane_by_lane(V x, const F& f) {
  for (size_t i = 0; i < sizeof(V) / sizeof(x[0]); ++i) x[i] = f(x[i]);
  return x;
}

// to[i] = f(...) of whole registers: `count` is a multiple of the lanes.
template <typename A>
void operate(const Operation& op, int64_t count, A* registers, int64_t size, A number) {
  using V = Vec<A>;
  A* to = registers + op.to * size;
  const A *x = registers + op.x * size, *y = registers + op.y * size, *z = registers + op.z * size,
          *w = registers + op.w * size;
  const V a = splat(number);
  const auto each = [&](const auto& f) {
    for (int64_t i = 0; i < count; i += kLanes<A>) store(to + i, V(f(i)));
  };
  const auto elu = [&](V v) { return v > 0 ? v : a * minus_one_of_exp(min(v, V{})); };
  switch (op.code) {
    case Code::kCopy:
      return each([&](int64_t i) { return load(x + i); });
    case Code::kRelu:
      return each([&](int64_t i) { return max(load(x + i), V{}); });
    case Code::kLeakyRelu:
      return each([&](int64_t i) {
        const V v = load(x + i);
        return v > 0 ? v : a * v;
      });
    case Code::kElu:
      return each([&](int64_t i) { return elu(load(x + i)); });
    case Code::kEluOfMinus:
      return each([&](int64_t i) { return elu(0 - load(x + i)); });
    case Code::kTanh:
      return each([&](int64_t i) { return quick_tanh(load(x + i)); });
    case Code::kSigmoid:
      return each([&](int64_t i) { return sigmoid(load(x + i)); });
    case Code::kSilu:
      return each([&](int64_t i) { return load(x + i) * sigmoid(load(x + i)); });
    case Code::kExp:
      return each([&](int64_t i) { return exp(load(x + i)); });
    case Code::kAdd:
      return each([&](int64_t i) { return load(x + i) + a * load(y + i); });
    case Code::kMul:
      return each([&](int64_t i) { return load(x + i) * load(y + i); });
    case Code::kAddNumber:
      return each([&](int64_t i) { return load(x + i) + a; });
    case Code::kMulNumber:
      return each([&](int64_t i) { return load(x + i) * a; });
    case Code::kGated:
      return each([&](int64_t i) { return quick_tanh(load(x + i)) * sigmoid(load(y + i)); });
    case Code::kCell:
      return each([&](int64_t i) {
        return sigmoid(load(x + i)) * load(w + i) + sigmoid(load(y + i)) * quick_tanh(load(z + i));
      });
    case Code::kState:
      return each([&](int64_t i) { return sigmoid(load(x + i)) * quick_tanh(load(y + i)); });
    case Code::kGelu:
      return each([&](int64_t i) {
        const auto gelu = [](A v) { return v * A(0.5) * std::erfc(-v * A(M_SQRT1_2)); };
        return lane_by_lane(load(x + i), gelu);
      });
    case Code::kSoftplus:  // torch's is the identity beyond a limit
      return each([&](int64_t i) {
        const V v = load(x + i);
        return v > a ? v : softplus(v);
      });
    case Code::kAtLeast:
      return each([&](int64_t i) { return max(load(x + i), a); });
    case Code::kAtMost:
      return each([&](int64_t i) { return min(load(x + i), a); });
    case Code::kSelect:
      return each([&](int64_t i) { return load(x + i) > 0 ? load(y + i) : load(z + i); });
    case Code::kTrunc:
      return each(
          [&](int64_t i) { return lane_by_lane(load(x + i), [](A v) { return std::trunc(v); }); });
    case Code::kRound:
      return each([&](int64_t i) {
        return lane_by_lane(load(x + i), [](A v) { return std::nearbyint(v); });
      });
    case Code::kSqrt:
      return each([&](int64_t i) { return core::sqrt(load(x + i)); });
    case Code::kReciprocal:
      return each([&](int64_t i) { return 1 / load(x + i); });
    case Code::kLoad:
    case Code::kStore:
    case Code::kLookup:
      return;
  }
}

}  // namespace genkern::core::sampler
