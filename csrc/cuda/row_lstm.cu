// All rows of a Row LSTM, forward: persistent clusters of thread blocks, one image at a time each.
//
//   [o, f, i, g] = x[r] + K_ss * h[r - 1];  c = sigmoid(f) c + sigmoid(i) tanh(g);
//   h[r] = sigmoid(o) tanh(c)               van den Oord et al. 2016, sec. 3.1
//
// x (N, 4 hidden, H, W), w (4 hidden, hidden, K), h0, c0, h_n, c_n (N, hidden, W), h (N, hidden, H,
// W); saved: gates (N, H, 4 padded, W), cells (N, H, padded, W), in the layout that
// triton_kernels/row_lstm_backward.py reads. All contiguous.
//
// A block owns `units` hidden units, keeps their recurrent weights in shared memory over all rows
// and images, and holds a copy of the whole state above the row, [hidden][W and a zero halo], which
// the K taps read shifted. What a block finds for its units it writes into the other slot of every
// block of the cluster; one barrier of the cluster a row, none of the grid. Before sm_90 there are
// no clusters, and a block owns all units.
//
// setup.py does not build this file: it compiles for sm_80, sm_90 and sm_100 and is not yet run.
#include <cooperative_groups.h>
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <algorithm>

#include "../bind.h"
#include "../core/row_lstm_cell.h"

namespace genkern::cuda {
namespace {

constexpr int kThreads = 256, kPixels = 4, kGates = 4;
constexpr int kMaxCluster = 8;  // the largest that every sm_90 chip can schedule

struct Shape {
  int64_t images, height;
  int hidden, padded, width;
  int units;    // of a block
  int columns;  // groups of kPixels pixels of a row
  int span;     // pixels of a row of the state, halo and rounding included
};

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

// sum[gate][p] += sum_{j, t} w[j, t, gate] h[j, x + p + t], for one unit and kPixels pixels.
template <int K, typename T>
__device__ void add_products(const Shape& s, const float* h, const T* w,
                             float (&sum)[kGates][kPixels]) {
  for (int j = 0; j < s.hidden; ++j, h += s.span) {
    float window[kPixels + K - 1];
#pragma unroll
    for (int p = 0; p < kPixels + K - 1; ++p) window[p] = h[p];
#pragma unroll
    for (int t = 0; t < K; ++t, w += s.units * kGates)
#pragma unroll
      for (int gate = 0; gate < kGates; ++gate) {
        const float factor = load(w[gate]);
#pragma unroll
        for (int p = 0; p < kPixels; ++p) sum[gate][p] += factor * window[p + t];
      }
  }
}

template <int K, typename T>
__global__ void __launch_bounds__(kThreads)
    row_lstm_forward_kernel(const Shape s, const T* p_x, const T* p_w, const T* p_h0, const T* p_c0,
                            T* p_h, T* p_hn, T* p_cn, float* p_gates, float* p_cells) {
  extern __shared__ __align__(16) unsigned char memory[];
  const Cluster cluster;
  const int slot = s.hidden * s.span;
  float* state = reinterpret_cast<float*>(memory);             // [2][hidden][span]
  float* cell = state + 2 * slot;                              // [units][width]
  T* weight = reinterpret_cast<T*>(cell + s.units * s.width);  // [hidden][K][units][gate]
  const int first = cluster.rank() * s.units;                  // unit
  const int count = max(0, min(s.units, s.hidden - first));
  const int64_t plane = s.height * s.width, row_size = int64_t(s.hidden) * s.width;

  for (int i = threadIdx.x; i < s.hidden * K * s.units * kGates; i += kThreads) {
    const int gate = i % kGates, u = i / kGates % s.units, q = i / kGates / s.units;
    if (u < count) weight[i] = p_w[(int64_t(gate) * s.hidden + first + u) * s.hidden * K + q];
  }
  for (int64_t n = blockIdx.x / cluster.size(); n < s.images; n += gridDim.x / cluster.size()) {
    for (int i = threadIdx.x; i < slot; i += kThreads) {
      const int j = i / s.span, x = i % s.span - K / 2;
      const bool given = p_h0 != nullptr && x >= 0 && x < s.width;
      state[i] = given ? load(p_h0[n * row_size + int64_t(j) * s.width + x]) : 0.0f;
      state[slot + i] = 0;
    }
    for (int i = threadIdx.x; i < count * s.width; i += kThreads)
      cell[i] = p_c0 ? load(p_c0[n * row_size + int64_t(first) * s.width + i]) : 0.0f;
    cluster.sync();  // every slot is cleared before another block writes into it

    for (int64_t r = 0; r < s.height; ++r) {
      const float* before = state + r % 2 * slot;
      float* after = state + (r + 1) % 2 * slot;
      for (int task = threadIdx.x; task < count * s.columns; task += kThreads) {
        const int local = task / s.columns, u = first + local;
        const int x0 = task % s.columns * kPixels, pixels = min(kPixels, s.width - x0);
        float sum[kGates][kPixels] = {};
        for (int gate = 0; gate < kGates; ++gate)
          for (int p = 0; p < pixels; ++p)
            sum[gate][p] =
                load(p_x[((n * kGates + gate) * s.hidden + u) * plane + r * s.width + x0 + p]);
        add_products<K>(s, before + x0, weight + local * kGates, sum);
        for (int p = 0; p < pixels; ++p) {
          float& above = cell[local * s.width + x0 + p];
          const core::row_lstm::Cell<float> y = core::row_lstm::cell_update<core::ScalarMath>(
              sum[0][p], sum[1][p], sum[2][p], sum[3][p], above);
          above = y.c;
          for (int block = 0; block < cluster.size(); ++block)
            cluster.of_block(after, block)[u * s.span + K / 2 + x0 + p] = y.h;
          store(p_h + (n * s.hidden + u) * plane + r * s.width + x0 + p, y.h);
          const int64_t at = int64_t(u) * s.width + x0 + p;
          if (p_gates) {
            const int64_t saved = int64_t(s.padded) * s.width, row = (n * s.height + r) * saved;
            p_cells[row + at] = y.c;
            p_gates[4 * row + at] = y.o;
            p_gates[4 * row + saved + at] = y.f;
            p_gates[4 * row + 2 * saved + at] = y.i;
            p_gates[4 * row + 3 * saved + at] = y.g;
          }
          if (r + 1 == s.height) {
            store(p_hn + n * row_size + at, y.h);
            store(p_cn + n * row_size + at, y.c);
          }
        }
      }
      cluster.sync();  // the row is complete in every block, and the row above is read by all
    }
  }
}

// ---- host ------------------------------------------------------------------------------------

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

  auto* kernel = &row_lstm_forward_kernel<K, T>;
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
  Tensor h = new_empty(input_gates, {N, hidden, H, W});
  Tensor h_n = new_empty(input_gates, {N, hidden, W});
  Tensor c_n = new_empty(input_gates, {N, hidden, W});
  Tensor gates = new_empty(input_gates, {rows, H, 4 * padded, W}, ScalarType::Float);
  Tensor cells = new_empty(input_gates, {rows, H, padded, W}, ScalarType::Float);
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

GENKERN_REGISTER(CUDA, m) { m.impl("row_lstm_forward", TORCH_BOX(&row_lstm_forward)); }

}  // namespace
}  // namespace genkern::cuda
