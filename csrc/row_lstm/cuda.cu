// All rows of a Row LSTM, forward: persistent clusters of thread blocks, one image at a time each.
//
// row_lstm_kernel.h has the kernel; here is what it needs of CUDA, and the launch. Before sm_90
// there are no clusters, and a block owns all units.
//
// setup.py does not build this file: compiled for sm_80, sm_90 and sm_100, not yet run on a GPU.
#include <cooperative_groups.h>
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <algorithm>

#include "../bind.h"

namespace genkern::cuda {
namespace {

__device__ float load(float x) { return x; }
__device__ float load(core::BFloat16 x) { return __uint_as_float(uint32_t(x.bits) << 16); }
__device__ float load(core::Half x) { return __half2float(__ushort_as_half(x.bits)); }

__device__ void store(float* p, float x) { *p = x; }
__device__ void store(core::BFloat16* p, float x) {
  p->bits = __bfloat16_as_ushort(__float2bfloat16_rn(x));
}
__device__ void store(core::Half* p, float x) { p->bits = __half_as_ushort(__float2half_rn(x)); }

struct Cluster {
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 900
  cooperative_groups::cluster_group group = cooperative_groups::this_cluster();
  __device__ int rank() const { return int(group.block_rank()); }
  __device__ int size() const { return int(group.num_blocks()); }
  __device__ void sync() const { group.sync(); }
  __device__ float* of_block(float* shared, int rank) const {
    return group.map_shared_rank(shared, rank);
  }
#else
  __device__ int rank() const { return 0; }
  __device__ int size() const { return 1; }
  __device__ void sync() const { __syncthreads(); }
  __device__ float* of_block(float* shared, int) const { return shared; }
#endif
};

__device__ unsigned char* shared_memory() {
  extern __shared__ __align__(16) unsigned char memory[];
  return memory;
}

}  // namespace
}  // namespace genkern::cuda

#include "cuda_kernel.h"

namespace genkern::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kMaxCluster = 8;  // the largest that every sm_90 chip can schedule

void check(cudaError_t error) {
  GENKERN_CHECK(error == cudaSuccess, "row_lstm: ", cudaGetErrorString(error));
}

int attribute(cudaDeviceAttr name, int device) {
  int value = 0;
  check(cudaDeviceGetAttribute(&value, name, device));
  return value;
}

[[noreturn]] void too_large(int64_t hidden, int64_t width) {
  GENKERN_CHECK(false,
                "row_lstm: backend 'cuda' needs the recurrent weights in shared memory; got ",
                hidden, " hidden units, ", width, " columns");
}

template <typename T>
int64_t shared_bytes(const Shape& s, int K) {
  return (2 * int64_t(s.hidden) * s.span + int64_t(s.units) * s.width) * int64_t(sizeof(float)) +
         int64_t(s.hidden) * K * s.units * kGates * int64_t(sizeof(T));
}

// The smallest cluster whose shared memory holds the weights, doubled while chips stand idle.
template <typename T>
int cluster_size(Shape& s, int K, int device) {
  const bool has_clusters = attribute(cudaDevAttrComputeCapabilityMajor, device) >= 9;
  const int64_t room = attribute(cudaDevAttrMaxSharedMemoryPerBlockOptin, device);
  const int64_t processors = attribute(cudaDevAttrMultiProcessorCount, device);
  const int largest = has_clusters ? kMaxCluster : 1;
  for (int size = 1; size <= largest; size *= 2) {
    s.units = (s.hidden + size - 1) / size;
    const bool idle = 2 * size <= largest && 2 * size * s.images <= processors && s.units >= 8;
    if (shared_bytes<T>(s, K) <= room && !idle) return size;
  }
  too_large(s.hidden, s.width);
}

template <int K, typename T, typename... Pointers>
void launch(Shape s, int device, const T* x, Pointers... pointers) {
  const int size = cluster_size<T>(s, K, device);
  const int64_t bytes = shared_bytes<T>(s, K);
  const int64_t clusters = attribute(cudaDevAttrMultiProcessorCount, device) / size;

  auto* kernel = &row_lstm_forward_kernel<K, kThreads, T>;
  check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, int(bytes)));
  cudaLaunchAttribute cluster{};
  cluster.id = cudaLaunchAttributeClusterDimension;
  cluster.val.clusterDim.x = unsigned(size);
  cluster.val.clusterDim.y = cluster.val.clusterDim.z = 1;
  cudaLaunchConfig_t config{};
  config.gridDim = dim3(unsigned(size * std::clamp<int64_t>(clusters, 1, s.images)));
  config.blockDim = dim3(kThreads);
  config.dynamicSmemBytes = size_t(bytes);
  config.stream = static_cast<cudaStream_t>(current_stream(device));
  config.attrs = &cluster;
  config.numAttrs = size > 1 ? 1 : 0;
  check(cudaLaunchKernelEx(&config, kernel, s, x, pointers...));
}

using Results = std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor>;

Results row_lstm_forward(const Tensor& input_gates, const Tensor& weight_hh,
                         const std::optional<Tensor>& h0, const std::optional<Tensor>& c0,
                         bool save) {
  GENKERN_CHECK(input_gates.scalar_type() != ScalarType::Double,
                "row_lstm: backend 'cuda' takes float32, bfloat16 and float16; got float64");
  const int64_t N = input_gates.size(0), hidden = weight_hh.size(1);
  const int64_t H = input_gates.size(2), W = input_gates.size(3), rows = save ? N : 0;
  const int64_t padded = (hidden + 15) / 16 * 16;
  Tensor h = new_tensor(input_gates, {N, hidden, H, W});
  Tensor h_n = new_tensor(input_gates, {N, hidden, W});
  Tensor c_n = new_tensor(input_gates, {N, hidden, W});
  Tensor gates = new_tensor(input_gates, {rows, H, 4 * padded, W}, ScalarType::Float);
  Tensor cells = new_tensor(input_gates, {rows, H, padded, W}, ScalarType::Float);
  if (N * hidden * W == 0) return {h, h_n, c_n, gates, cells};
  if (hidden * W >= 1 << 20) too_large(hidden, W);  // beyond any shared memory: Shape has 32 bits
  const int device = input_gates.get_device_index();
  const DeviceGuard guard(device);
  const int64_t K = weight_hh.size(2), columns = (W + kPixels - 1) / kPixels;
  Shape s{N, H, int(hidden), int(padded), int(W), 0, int(columns), int(columns * kPixels + K - 1)};
  dispatch_floating(input_gates, [&]<typename T>(T) {
    if constexpr (!std::is_same_v<T, double>) {
      const auto run = [&]<int kTaps>(std::integral_constant<int, kTaps>) {
        launch<kTaps>(s, device, data<const T>(input_gates), data<const T>(weight_hh),
                      data<const T>(h0), data<const T>(c0), data<T>(h), data<T>(h_n), data<T>(c_n),
                      save ? data<float>(gates) : nullptr, save ? data<float>(cells) : nullptr);
      };
      if (K == 1) return run(std::integral_constant<int, 1>{});
      if (K == 3) return run(std::integral_constant<int, 3>{});
      GENKERN_CHECK(false, "row_lstm: backend 'cuda' takes kernels of width 1 or 3; got ", K);
    }
  });
  return {h, h_n, c_n, gates, cells};
}

GENKERN_REGISTER(CUDA, m) { GENKERN_OP(m, row_lstm_forward); }

}  // namespace
}  // namespace genkern::cuda
