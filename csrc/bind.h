// The LibTorch stable ABI, under the names that the kernels use: the only file that names torch.
#pragma once
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#ifdef __CUDACC__
#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/csrc/stable/accelerator.h>
#endif

#include <atomic>
#include <cstdint>
#include <cstring>
#include <memory>
#include <new>
#include <optional>
#include <tuple>
#include <type_traits>
#include <utility>

#include "core/loops.h"

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace genkern {

using torch::headeronly::ScalarType;
using torch::stable::contiguous;
using torch::stable::empty_like;
using torch::stable::new_zeros;
using torch::stable::parallel_for;
using torch::stable::Tensor;

// torch::stable::new_empty looks the op up by name and boxes its arguments at every call.
inline Tensor new_tensor(const Tensor& like, torch::headeronly::IntHeaderOnlyArrayRef sizes,
                         std::optional<ScalarType> dtype = std::nullopt) {
  int32_t code = dtype.has_value() ? int32_t(*dtype) : 0;
  AtenTensorHandle handle;
  STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_aten_new_empty(
      like.get(), sizes.data(), int64_t(sizes.size()), dtype.has_value() ? &code : nullptr, nullptr,
      nullptr, 0, nullptr, &handle));
  return Tensor(handle);
}

// In the place of a result that was not asked for. The dispatcher wants a tensor there.
inline Tensor absent(const Tensor& like) { return new_tensor(like, {0}); }

inline Tensor new_channels_last(const Tensor& like,
                                torch::headeronly::IntHeaderOnlyArrayRef sizes) {
  return torch::stable::empty(sizes, like.scalar_type(), std::nullopt, like.device(), std::nullopt,
                              torch::headeronly::MemoryFormat::ChannelsLast);
}

// Zeros with the strides of `like`, if those leave no holes.
inline Tensor new_zeros_like(const Tensor& like) {
  Tensor result = empty_like(like);
  std::memset(result.mutable_data_ptr(), 0,
              size_t(result.numel() * int64_t(result.element_size())));
  return result;
}

inline int64_t num_threads() { return torch::stable::get_num_threads(); }

// The units of a piece of work that this thread takes: the next one whenever it asks, until none is
// left.
class Units {
 public:
  Units(std::atomic<int64_t>& next, int64_t count) : next_(next), count_(count) {}

  struct End {};
  struct Taken {
    Units& units;
    int64_t unit;
    int64_t operator*() const { return unit; }
    void operator++() { unit = units.take(); }
    bool operator!=(End) const { return unit < units.count_; }
  };
  Taken begin() { return {*this, take()}; }
  End end() const { return {}; }

 private:
  int64_t take() { return next_.fetch_add(1, std::memory_order_relaxed); }

  std::atomic<int64_t>& next_;
  int64_t count_;
};

// Work in more units than threads, each worth waking a thread if there are `grain` of them: a
// thread that the system delays (a busy machine) then holds up the others for one unit, not for its
// share. Whoever takes a unit, and when, must not show in the result.
//
//   parallel_units(count, grain, [&](Units units) {
//     const Scratch<float> scratch(like, size);  // of this thread
//     for (const int64_t unit : units) work(unit, scratch);
//   });
template <typename F>
void parallel_units(int64_t count, int64_t grain, const F& f) {
  std::atomic<int64_t> next{0};
  const int64_t threads = std::min(num_threads(), (count + grain - 1) / grain);
  if (threads <= 1) return f(Units(next, count));
  parallel_for(0, threads, 1, [&](int64_t, int64_t) {
    // Whoever comes when all is taken needs no scratch.
    if (next.load(std::memory_order_relaxed) < count) f(Units(next, count));
  });
}

// An uninitialised result, in huge pages where it holds some and the system gives them on request:
// a fault of 1 to 3 us for every 4 kB of it can cost as much as the work that fills it.
inline Tensor new_large(const Tensor& like, torch::headeronly::IntHeaderOnlyArrayRef shape,
                        std::optional<ScalarType> dtype = std::nullopt) {
  Tensor result = new_tensor(like, shape, dtype);
#if defined(MADV_HUGEPAGE)
  constexpr uintptr_t kHugePage = 2 << 20;
  const auto bytes = uintptr_t(result.numel() * int64_t(result.element_size()));
  if (bytes < kHugePage) return result;
  const auto begin = reinterpret_cast<uintptr_t>(result.data_ptr());
  const auto from = (begin + kHugePage - 1) / kHugePage * kHugePage,
             to = (begin + bytes) / kHugePage * kHugePage;
  if (from < to) madvise(reinterpret_cast<void*>(from), to - from, MADV_HUGEPAGE);
#endif
  return result;
}

#if defined(GENKERN_SMALL_BLOCKS) && defined(MADV_HUGEPAGE)
// In tests: a page that nothing may touch follows the memory, which holds NaN.
class ScratchMemory {
 public:
  ScratchMemory(const Tensor&, size_t bytes) : size_((bytes + kPage - 1) / kPage * kPage + kPage) {
    constexpr int kAccess = PROT_READ | PROT_WRITE, kKind = MAP_PRIVATE | MAP_ANONYMOUS;
    begin_ = static_cast<char*>(mmap(nullptr, size_, kAccess, kKind, -1, 0));
    STD_TORCH_CHECK(begin_ != MAP_FAILED, "genkern: no memory for scratch");
    mprotect(begin_ + size_ - kPage, kPage, PROT_NONE);
    data_ = std::memset(begin_ + size_ - kPage - bytes, 0xFF, bytes);
  }
  ScratchMemory(ScratchMemory&& other) noexcept
      : size_(std::exchange(other.size_, 0)), begin_(other.begin_), data_(other.data_) {}
  ~ScratchMemory() {
    if (size_ > 0) munmap(begin_, size_);
  }
  void* get() const { return data_; }

 private:
  static constexpr size_t kPage = 4096;
  size_t size_;
  char* begin_;
  void* data_;
};
#else
// Torch allocates what is large, so that its profiler counts it.
class ScratchMemory {
 public:
  ScratchMemory(const Tensor& like, size_t bytes) {
    constexpr size_t kLarge = 1 << 16, kLine = 64;
    if (bytes < kLarge)
      small_.reset(::operator new(bytes, std::align_val_t(kLine)));
    else
      large_ = new_tensor(like, {int64_t(bytes)}, ScalarType::Byte);
  }
  void* get() const { return small_ ? small_.get() : large_->mutable_data_ptr(); }

 private:
  struct Free {
    void operator()(void* p) const { ::operator delete(p, std::align_val_t(64)); }
  };
  std::unique_ptr<void, Free> small_;
  std::optional<Tensor> large_;  // an undefined Tensor is an allocation of its own
};
#endif

// Memory for the time of a call, not initialised unless asked. A tile may load whole registers at
// its end: they are there, whatever is in them.
template <typename E>
class Scratch {
 public:
  Scratch(const Tensor& like, int64_t count, bool zero = false)
      : memory_(like, size_t(count) * sizeof(E) + 2 * core::kVectorBytes) {
    if (zero) std::fill_n(get(), count, E{});
  }
  E* get() const { return static_cast<E*>(memory_.get()); }

 private:
  ScratchMemory memory_;
};

// The dtype of core::Accumulate of the element type of `t`.
inline auto accumulate_dtype(const Tensor& t) {
  return t.scalar_type() == ScalarType::Double ? ScalarType::Double : ScalarType::Float;
}

#define GENKERN_CHECK STD_TORCH_CHECK
#define GENKERN_REGISTER(key, m) STABLE_TORCH_LIBRARY_IMPL(genkern, key, m)
// The op of that name, and beside it one of the same arguments that does nothing.
#define GENKERN_OP(m, name) \
  m.impl(#name, TORCH_BOX(&name)), m.impl(#name "_floor", TORCH_BOX(&Floor<&name>::call))

inline const Tensor* as_tensor(const Tensor& t) { return &t; }
inline const Tensor* as_tensor(const std::optional<Tensor>& t) { return t ? &*t : nullptr; }
template <typename T>
const Tensor* as_tensor(const T&) {
  return nullptr;
}

// What a call costs that does no work: every result is a new tensor of one element.
template <auto op>
struct Floor;
template <typename Result, typename... Args, Result (*op)(Args...)>
struct Floor<op> {
  static Result call(Args... args) {
    const Tensor* like = nullptr;
    ((like = like ? like : as_tensor(args)), ...);
    if constexpr (std::is_same_v<Result, Tensor>)
      return new_tensor(*like, {1});
    else
      return [&]<size_t... i>(std::index_sequence<i...>) {
        return Result{(void(i), new_tensor(*like, {1}))...};
      }(std::make_index_sequence<std::tuple_size_v<Result>>{});
  }
};

// nullptr for an absent tensor.
template <typename T>
T* data(const Tensor& t) {
  if (!t.defined()) return nullptr;
  if constexpr (std::is_const_v<T>)
    return static_cast<T*>(t.const_data_ptr());
  else
    return static_cast<T*>(t.mutable_data_ptr());
}

template <typename T>
T* data(const std::optional<Tensor>& t) {
  return t.has_value() ? data<T>(*t) : nullptr;
}

// With strides that the kernels take for granted.
inline Tensor dense(const Tensor& t) { return t.is_contiguous() ? t : contiguous(t); }
inline std::optional<Tensor> dense(const std::optional<Tensor>& t) {
  return t.has_value() ? std::optional(dense(*t)) : t;
}
inline Tensor dense_channels_last(const Tensor& t) {
  return contiguous(t, torch::headeronly::MemoryFormat::ChannelsLast);
}

// An option that comes as a number or, where it changes from step to step, as a float64 tensor.
inline double option(double number, const std::optional<Tensor>& annealed) {
  return annealed.has_value() ? *data<const double>(*annealed) : number;
}

// Calls f(T{}) with the element type of `t`: float, double, core::BFloat16 or core::Half.
template <typename F>
decltype(auto) dispatch_floating(const Tensor& t, F&& f) {
  using enum torch::headeronly::ScalarType;
  switch (t.scalar_type()) {
    case Float:
      return f(float{});
    case Double:
      return f(double{});
    case BFloat16:
      return f(core::BFloat16{});
    case Half:
      return f(core::Half{});
    default:
      STD_TORCH_CHECK(false, "genkern: a compiled kernel was called with an unsupported dtype");
  }
}

// Calls f(A{}) with the type that the elements of `t` are summed in: float or double.
template <typename F>
decltype(auto) dispatch_accumulate(const Tensor& t, F&& f) {
  if (t.scalar_type() == ScalarType::Double) return f(double{});
  return f(float{});
}

inline core::Storage storage_of(const Tensor& t) {
  return dispatch_floating(t, []<typename T>(T) {
    if (std::is_same_v<T, core::BFloat16>) return core::Storage::kBFloat16;
    return std::is_same_v<T, core::Half> ? core::Storage::kHalf : core::Storage::kSame;
  });
}

template <typename A>
core::Reader<A> reader(const Tensor& t) {
  return {t.const_data_ptr(), storage_of(t)};
}
template <typename A>
core::Reader<A> reader(const std::optional<Tensor>& t) {
  return t.has_value() ? reader<A>(*t) : core::Reader<A>();
}
template <typename A>
core::Writer<A> writer(const Tensor& t, bool wanted = true) {
  return wanted ? core::Writer<A>{t.mutable_data_ptr(), storage_of(t)} : core::Writer<A>();
}

#ifdef __CUDACC__
// The header of a torch without CUDA leaves this declaration out.
extern "C" AOTITorchError aoti_torch_get_current_cuda_stream(int32_t device, void** stream);

using torch::stable::accelerator::DeviceGuard;

inline void* current_stream(int32_t device) {
  void* stream = nullptr;
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_current_cuda_stream(device, &stream));
  return stream;
}
#endif

}  // namespace genkern
