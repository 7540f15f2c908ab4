// Threads that work on the same images and wait for each other after every stage.
#pragma once
#include <atomic>
#include <cstdint>
#include <thread>

namespace genkern::core::sampler {

// The stages are as short as a microsecond, so that a thread spins; where threads outnumber the
// processors, it soon lets another one run.
class Barrier {
 public:
  void reset(int64_t size) { size_ = size; }
  void wait() {
    if (size_ <= 1) return;
    const int64_t turn = turn_.load(std::memory_order_acquire);
    if (arrived_.fetch_add(1, std::memory_order_acq_rel) + 1 == size_) {
      arrived_.store(0, std::memory_order_relaxed);
      turn_.store(turn + 1, std::memory_order_release);
      return;
    }
    constexpr int kSpins = 4000;
    for (int spins = 0; turn_.load(std::memory_order_acquire) == turn; ++spins) {
      if (spins > kSpins)
        std::this_thread::yield();
      else
        pause();
    }
  }

 private:
  static void pause() {
#if defined(__SSE2__)
    __builtin_ia32_pause();
#endif
  }

  int64_t size_ = 1;
  alignas(64) std::atomic<int64_t> arrived_{0};
  alignas(64) std::atomic<int64_t> turn_{0};
};

// Who takes part. Every index of a parallel loop comes in; some may share a thread, which the loop
// does not tell, and some may come late or never run beside the others. Those that are there when
// all have come, or after a while, are the members, and the rest have nothing to do.
class Members {
 public:
  explicit Members(int64_t most) : most_(most) {}

  // The number of this member, or -1; `indices`: of the loop, that this thread stands for.
  int64_t enter(int64_t indices) {
    int64_t number = members_.load(std::memory_order_relaxed);
    do {
      if (number & kClosed) return -1;
    } while (!members_.compare_exchange_weak(number, number + 1, std::memory_order_acq_rel));
    came_.fetch_add(indices, std::memory_order_acq_rel);
    constexpr int kPatience = 1 << 14;
    for (int turns = 0; came_.load(std::memory_order_acquire) < most_ && turns < kPatience; ++turns)
      std::this_thread::yield();
    members_.fetch_or(kClosed, std::memory_order_acq_rel);
    return number;
  }
  int64_t count() const { return members_.load(std::memory_order_acquire) & ~kClosed; }

 private:
  static constexpr int64_t kClosed = int64_t(1) << 32;
  int64_t most_;
  std::atomic<int64_t> members_{0}, came_{0};
};

}  // namespace genkern::core::sampler
