// How large the blocks are that work is cut into: chunks, segments, groups of images, and the
// thresholds between one way of working and another.
//
// -DGENKERN_SMALL_BLOCKS builds the ops for tests (GENKERN_CPU_ISA=small): blocks so small that
// every boundary of every blocking is crossed by shapes of a few elements.
#pragma once
#include <cstdint>

namespace genkern::core {

#if defined(GENKERN_SMALL_BLOCKS)
constexpr int64_t block_size(int64_t, int64_t in_tests) { return in_tests; }
#else
constexpr int64_t block_size(int64_t size, int64_t) { return size; }
#endif

}  // namespace genkern::core
