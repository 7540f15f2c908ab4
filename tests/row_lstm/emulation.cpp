// Runs csrc/cuda/row_lstm_kernel.h on the host, a thread for each CUDA thread and a barrier for
// each cluster, against a loop over the definition; compiled and read by test_cuda_sources.py.
#include <algorithm>
#include <barrier>
#include <cstdio>
#include <thread>
#include <vector>

#define __device__
#define __global__
#define __launch_bounds__(threads)

struct Index {
  unsigned x;
};
thread_local Index threadIdx, blockIdx;
Index gridDim;

namespace genkern::cuda {
namespace {

using std::max, std::min;

struct Shared {
  std::barrier<> barrier;
  std::vector<std::vector<float>> of_block;
};
thread_local Shared* shared;
thread_local int block_rank;

unsigned char* shared_memory() {
  return reinterpret_cast<unsigned char*>(shared->of_block[block_rank].data());
}

struct Cluster {
  int rank() const { return block_rank; }
  int size() const { return int(shared->of_block.size()); }
  void sync() const { shared->barrier.arrive_and_wait(); }
  float* of_block(float* p, int rank) const {
    return shared->of_block[rank].data() + (p - shared->of_block[block_rank].data());
  }
};

float load(float x) { return x; }
void store(float* p, float x) { *p = x; }

}  // namespace
}  // namespace genkern::cuda

#include "row_lstm/cuda_kernel.h"

namespace genkern::cuda {
namespace {

using Floats = std::vector<float>;

Floats values(int64_t count, float scale) {
  static uint32_t state = 1;
  Floats x(count);
  for (float& v : x) {
    state = state * 1664525 + 1013904223;
    v = scale * (float(state >> 8) / (1 << 23) - 1);
  }
  return x;
}

struct Problem {
  Shape s;
  int K;
  bool given, save;
  Floats x, w, h0, c0, h, h_n, c_n, gates, cells;

  Problem(int N, int hidden, int H, int W, int K, bool given, bool save)
      : s{N, H, hidden, (hidden + 15) / 16 * 16, W, 0, (W + 3) / 4, (W + 3) / 4 * 4 + K - 1},
        K(K),
        given(given),
        save(save),
        x(values(int64_t(N) * 4 * hidden * H * W, 3)),
        w(values(4 * hidden * hidden * K, 1.0f / hidden)),
        h0(values(N * hidden * W, 1)),
        c0(values(N * hidden * W, 1)),
        h(N * hidden * H * W, NAN),
        h_n(N * hidden * W, NAN),
        c_n(h_n),
        gates(int64_t(N) * H * 4 * s.padded * W, NAN),
        cells(gates.size() / 4, NAN) {}
};

template <int K, int kThreads>
void launch(Problem& p, int clusters, int blocks) {
  Shape s = p.s;
  s.units = (s.hidden + blocks - 1) / blocks;
  const size_t bytes = 2 * s.hidden * s.span + s.units * s.width + s.hidden * K * s.units * kGates;
  gridDim.x = unsigned(clusters * blocks);
  std::vector<Shared*> all;
  std::vector<std::thread> threads;
  for (int c = 0; c < clusters; ++c) {
    all.push_back(new Shared{std::barrier<>(blocks * kThreads),
                             std::vector<Floats>(blocks, Floats(bytes, NAN))});
    for (int i = 0; i < blocks * kThreads; ++i)
      threads.emplace_back([&, c, i, memory = all.back()] {
        shared = memory, block_rank = i / kThreads;
        threadIdx.x = unsigned(i % kThreads), blockIdx.x = unsigned(c * blocks + block_rank);
        row_lstm_forward_kernel<K, kThreads>(
            s, p.x.data(), p.w.data(), p.given ? p.h0.data() : nullptr,
            p.given ? p.c0.data() : nullptr, p.h.data(), p.h_n.data(), p.c_n.data(),
            p.save ? p.gates.data() : nullptr, p.save ? p.cells.data() : nullptr);
      });
  }
  for (std::thread& thread : threads) thread.join();
  for (Shared* memory : all) delete memory;
}

// Largest difference from the definition, computed in double.
double error(const Problem& p) {
  const Shape& s = p.s;
  const int hidden = s.hidden, H = int(s.height), W = s.width;
  const auto sigmoid = [](double v) { return 1 / (1 + std::exp(-v)); };
  double worst = 0;
  const auto compare = [&](float got, double want) {
    const double difference = std::fabs(got - want);
    if (!(difference <= worst)) worst = std::isnan(difference) ? INFINITY : difference;
  };
  for (int n = 0; n < s.images; ++n) {
    std::vector<double> h(hidden * W), c(hidden * W), next(hidden * W);
    for (int i = 0; p.given && i < hidden * W; ++i)
      h[i] = p.h0[n * hidden * W + i], c[i] = p.c0[n * hidden * W + i];
    for (int r = 0; r < H; ++r) {
      for (int u = 0; u < hidden; ++u)
        for (int x = 0; x < W; ++x) {
          double gate[4];
          for (int g = 0; g < 4; ++g) {
            const int row = g * hidden + u;
            gate[g] = p.x[((n * 4 * hidden + row) * H + r) * W + x];
            for (int j = 0; j < hidden; ++j)
              for (int t = 0; t < p.K; ++t)
                if (const int from = x + t - p.K / 2; from >= 0 && from < W)
                  gate[g] += p.w[(row * hidden + j) * p.K + t] * h[j * W + from];
            gate[g] = g < 3 ? sigmoid(gate[g]) : std::tanh(gate[g]);
            if (p.save) compare(p.gates[(((n * H + r) * 4 + g) * s.padded + u) * W + x], gate[g]);
          }
          const int at = u * W + x;
          c[at] = gate[1] * c[at] + gate[2] * gate[3];
          next[at] = gate[0] * std::tanh(c[at]);
          compare(p.h[((n * hidden + u) * H + r) * W + x], next[at]);
          if (p.save) compare(p.cells[((n * H + r) * s.padded + u) * W + x], c[at]);
        }
      h.swap(next);
    }
    for (int i = 0; i < hidden * W; ++i)
      compare(p.h_n[n * hidden * W + i], h[i]), compare(p.c_n[n * hidden * W + i], c[i]);
  }
  return worst;
}

template <int K>
double run(int N, int hidden, int H, int W, bool given, bool save, int clusters, int blocks) {
  Problem p(N, hidden, H, W, K, given, save);
  launch<K, 8>(p, clusters, blocks);
  return error(p);
}

}  // namespace
}  // namespace genkern::cuda

int main() {
  using genkern::cuda::run;
  // One block, several, one without units of its own (5 units by 2 on 4 blocks), idle clusters.
  double worst = run<3>(3, 5, 4, 7, true, true, 1, 1);
  worst = std::max(worst, run<3>(3, 6, 4, 7, true, true, 2, 2));
  worst = std::max(worst, run<3>(2, 5, 5, 9, false, true, 1, 4));
  worst = std::max(worst, run<1>(5, 9, 3, 4, true, false, 2, 2));
  worst = std::max(worst, run<3>(1, 1, 1, 1, false, false, 3, 1));
  std::printf("%.3g\n", worst);
}
