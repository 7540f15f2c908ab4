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
// block of the cluster; one barrier of the cluster a row, none of the grid.
//
// Whoever includes this file provides Cluster, shared_memory(), load and store: cuda.cu those
// of CUDA, tests/row_lstm_emulation.cpp those of host threads.
#pragma once
#include <cstdint>

#include "cell.h"

namespace genkern::cuda {
namespace {

constexpr int kPixels = 4, kGates = 4;

struct Shape {
  int64_t images, height;
  int hidden, padded, width;
  int units;    // of a block
  int columns;  // groups of kPixels pixels of a row
  int span;     // pixels of a row of the state, halo and rounding included
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

template <int K, int kThreads, typename T>
__global__ void __launch_bounds__(kThreads)
    row_lstm_forward_kernel(const Shape s, const T* p_x, const T* p_w, const T* p_h0, const T* p_c0,
                            T* p_h, T* p_hn, T* p_cn, float* p_gates, float* p_cells) {
  const Cluster cluster;
  const int slot = s.hidden * s.span;
  float* state = reinterpret_cast<float*>(shared_memory());    // [2][hidden][span]
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

}  // namespace
}  // namespace genkern::cuda
