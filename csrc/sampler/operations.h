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
    case Code::kLoad:
    case Code::kStore:
      return;
  }
}

}  // namespace genkern::core::sampler
