// Storage types and the type each one is accumulated in.
#pragma once
#include <bit>
#include <cstdint>
#include <type_traits>

namespace genkern::core {

struct BFloat16 {
  uint16_t bits;
};

struct Half {
  uint16_t bits;
};

template <typename T>
using Accumulate = std::conditional_t<std::is_same_v<T, double>, double, float>;

}  // namespace genkern::core
