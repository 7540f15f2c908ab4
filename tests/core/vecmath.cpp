// Prints, for each function of csrc/core/vecmath.h and for the noise, its largest error in ulp
// against the C library in double; compiled and read by test_vecmath.py.
#include <algorithm>
#include <cstdio>

#include "core/philox.h"

using namespace genkern::core;

double ulp(double exact) {
  const float x = std::fabs(float(exact));
  return std::nextafter(x, INFINITY) - x;
}

// Points of [low, high], evenly spaced or (logarithmic) of even ratio.
template <typename F, typename G>
void measure(const char* name, F function, G exact, double low, double high, bool logarithmic) {
  constexpr int kPoints = 1 << 20;
  double worst = 0;
  for (int i = 0; i < kPoints; i += kLanes<float>) {
    VecF x;
    for (int lane = 0; lane < kLanes<float>; ++lane) {
      const double u = double(i + lane) / (kPoints - 1);
      x[lane] = float(logarithmic ? low * std::pow(high / low, u) : low + u * (high - low));
    }
    const VecF y = function(x);
    for (int lane = 0; lane < kLanes<float>; ++lane) {
      const double want = exact(double(x[lane]));
      if (std::isinf(float(want)) && std::isinf(y[lane])) continue;
      const double error = std::fabs(y[lane] - want) / ulp(want);
      if (!(error <= worst)) worst = error;
    }
  }
  std::printf("%s %.3f\n", name, worst);
}

void measure_noise() {
  alignas(64) float single[kNormalsStep];
  alignas(64) double exact[kNormalsStep];
  const PhiloxKeys keys(2026);
  double worst = 0;
  for (uint64_t counter = 0; counter < 400000; counter += kNormalsStep / 4) {
    philox_normals(keys, counter, kNormalsStep, single);
    philox_normals(keys, counter, kNormalsStep, exact);
    for (int i = 0; i < kNormalsStep; ++i)
      worst = std::fmax(worst, std::fabs(single[i] - exact[i]) / ulp(exact[i]));
  }
  std::printf("normal %.3f\n", worst);
}

// Philox4x32-10 as published, one block: Salmon et al. 2011, sec. 3.3.
void philox_block(uint64_t seed, uint64_t counter, uint32_t c[4]) {
  uint32_t k0 = uint32_t(seed), k1 = uint32_t(seed >> 32);
  c[0] = uint32_t(counter), c[1] = uint32_t(counter >> 32), c[2] = c[3] = 0;
  for (int round = 0; round < 10; ++round) {
    const uint64_t p0 = uint64_t(0xD2511F53u) * c[0], p1 = uint64_t(0xCD9E8D57u) * c[2];
    const uint32_t next[4] = {uint32_t(p1 >> 32) ^ c[1] ^ k0, uint32_t(p1),
                              uint32_t(p0 >> 32) ^ c[3] ^ k1, uint32_t(p0)};
    std::copy_n(next, 4, c);
    k0 += 0x9E3779B9u, k1 += 0xBB67AE85u;
  }
}

// Words that differ around counters of 32 bits and more, where a stream passes 2^34 elements.
void check_counters() {
  int bad = 0;
  for (uint64_t start : {0ull, (1ull << 32) - 9, (1ull << 32) + 5, (5ull << 32) - 1, ~0ull - 40}) {
    for (uint64_t seed : {0ull, 2026ull, 0x123456789ABCDEFull}) {
      VecU words[4 * kCounters];
      philox<kCounters>(seed, start, words);
      for (int i = 0; i < kCounters * kLanes<float>; ++i) {
        const int vector = i / kLanes<float>, lane = i % kLanes<float>;
        uint32_t want[4];
        philox_block(seed, start + uint64_t(i - lane + block_in_lane(lane)), want);
        for (int w = 0; w < 4; ++w) bad += words[4 * vector + w][lane] != want[w];
      }
    }
  }
  std::printf("counters %d\n", bad);
}

// Pieces of a stream around element 2^34, in and out of order, against the blocks themselves.
void check_stream() {
  constexpr uint64_t kBegin = (1ull << 34) - 4 * kNormalsStep;
  constexpr int kSteps = 8, kCount = kSteps * kNormalsStep;
  alignas(64) float want[kCount];
  for (int b = 0; b < kCount; b += kNormalsStep)
    philox_normals(7, (kBegin + uint64_t(b)) / 4, 1, want + b);
  NormalStream<float> stream(7);
  int bad = 0;
  for (const int size : {1, 3, 30})
    for (int first = kCount - size; first >= 0; first -= size)
      for (const int at : {first, kCount - size - first}) {
        const float* got = stream.get(kBegin + uint64_t(at), size, kBegin + kCount);
        for (int i = 0; i < size; ++i) bad += got[i] != want[at + i];
      }
  std::printf("stream %d\n", bad);
}

// The smallest uniform number is 2^-32, never 0: the largest radius is sqrt(-2 log 2^-32).
void check_smallest_uniform() {
  const Twin<VecU> zero{VecU{}, VecU{}};
  const VecF first = box_muller(zero, zero).a.a;
  const double radius = std::sqrt(64 * std::log(2.0));
  std::printf("radius %.3f\n", std::fabs(first[0] - radius) / ulp(radius));
}

// Where results leave the normal numbers, or the range.
void check_edges() {
  const float low = sigmoid(splat(-87.5f))[0], lower = sigmoid(splat(-103.0f))[0];
  const float lowest = sigmoid(splat(-INFINITY))[0], highest = sigmoid(splat(INFINITY))[0];
  int bad = (low != 0) + (lower != 0) + (lowest != 0) + (highest != 1);
  bad += sigmoid(splat(-87.2f))[0] == 0;
  const float nan = sigmoid(splat(NAN))[0];
  bad += nan == nan;
  for (const float x : {65520.0f, 65535.0f, 65536.0f, 66000.0f, 70000.0f, 1e5f, 1e30f, 3.4e38f}) {
    Half stored[kLanes<float>];
    store(stored, splat(-x));
    bad += to_half(x).bits != 0x7C00 || stored[0].bits != 0xFC00;
  }
  bad += to_half(65519.996f).bits != 0x7BFF;
  std::printf("edges %d\n", bad);
}

// float -> half -> float and float -> bfloat16 -> float against the vector stores.
void check_conversions() {
  int bad = 0;
  for (uint32_t i = 0; i < 0x10000; ++i) {
    const float values[] = {to_float(Half{uint16_t(i)}), to_float(BFloat16{uint16_t(i)})};
    for (const float value : values) {
      for (const float factor : {1.0f, 0.99951f, 1.00049f, 1.0003f}) {
        const float x = value * factor;
        Half halves[kLanes<float>];
        BFloat16 bfloats[kLanes<float>];
        store(halves, splat(x));
        store(bfloats, splat(x));
        const Half half = to_half(x);
        const BFloat16 bfloat = to_bfloat16(x);
        if (x != x) {
          bad += to_float(halves[0]) == to_float(halves[0]) || to_float(half) == to_float(half);
          bad +=
              to_float(bfloats[0]) == to_float(bfloats[0]) || to_float(bfloat) == to_float(bfloat);
          continue;
        }
        bad += half.bits != halves[0].bits || bfloat.bits != bfloats[0].bits;
        bad += load(halves)[0] != to_float(half) || load(bfloats)[0] != to_float(bfloat);
        if (factor == 1.0f) bad += to_float(half) != x && value == values[0];
      }
    }
  }
  std::printf("conversions %d\n", bad);
}

int main() {
  const auto sigmoid_exact = [](double x) { return 1 / (1 + std::exp(-x)); };
  const auto softplus_exact = [](double x) {
    return std::fmax(x, 0) + std::log1p(std::exp(-std::fabs(x)));
  };
  const auto minus_x = [](double x) {
    return std::fabs(x) < 1e-3 ? x * x * (0.5 + x / 6 + x * x / 24) : std::expm1(x) - x;
  };
  measure(
      "exp", [](VecF x) { return exp(x); }, [](double x) { return std::exp(x); }, -103, 88.7, 0);
  const auto exact_expm1 = [](double x) { return std::expm1(x); };
  measure("expm1", [](VecF x) { return expm1(x); }, exact_expm1, -30, 88.7, 0);
  measure("expm1", [](VecF x) { return expm1(x); }, exact_expm1, 1e-30, 2, 1);
  const auto root = [](VecF x) { return exponentials(x).root; };
  const auto expm1_of = [](VecF x) { return 2.0f * exponentials(x).half_expm1; };
  const auto minus_x_of = [](VecF x) { return 2.0f * exponentials(x).half_minus_x; };
  measure("root", root, [](double x) { return std::exp(0.5 * x); }, -173, 177.4, 0);
  measure("expm1_of_root", expm1_of, exact_expm1, -30, 88.7, 0);
  measure("expm1_of_root", expm1_of, exact_expm1, 1e-30, 2, 1);
  measure("minus_x_of_root", minus_x_of, minus_x, -3, 3, 0);
  measure("minus_x_of_root", minus_x_of, minus_x, 1e-15, 80, 1);
  const auto exact_log = [](double x) { return std::log(x); };
  measure("log", [](VecF x) { return log(x); }, exact_log, 1.2e-38, 3e38, 1);
  measure("log", [](VecF x) { return log(x); }, exact_log, 0.5, 2, 0);
  const auto exact_log1p = [](double x) { return std::log1p(x); };
  measure("log1p", [](VecF x) { return log1p_nonnegative(x); }, exact_log1p, 1e-30, 3e38, 1);
  measure("log1p", [](VecF x) { return log1p_nonnegative(x); }, exact_log1p, 0, 1, 0);
  measure("sigmoid", [](VecF x) { return sigmoid(x); }, sigmoid_exact, -80, 80, 0);
  const auto exact_tanh = [](double x) { return std::tanh(x); };
  measure("tanh", [](VecF x) { return tanh(x); }, exact_tanh, -10, 10, 0);
  measure("tanh", [](VecF x) { return tanh(x); }, exact_tanh, 1e-30, 10, 1);
  measure("quick_tanh", [](VecF x) { return quick_tanh(x); }, exact_tanh, -10, 10, 0);
  measure("quick_tanh", [](VecF x) { return quick_tanh(x); }, exact_tanh, 1e-30, 10, 1);
  const auto each = [](auto f) {
    return [f](VecF x) {
      for (int lane = 0; lane < kLanes<float>; ++lane) x[lane] = f(x[lane]);
      return x;
    };
  };
  const auto scalar_sigmoid = each([](float x) { return ScalarMath::sigmoid(x); });
  const auto scalar_tanh = each([](float x) { return ScalarMath::tanh(x); });
  measure("scalar_sigmoid", scalar_sigmoid, sigmoid_exact, -80, 80, 0);
  measure("scalar_tanh", scalar_tanh, exact_tanh, -10, 10, 0);
  measure("scalar_tanh", scalar_tanh, exact_tanh, 1e-30, 10, 1);
  measure("softplus", [](VecF x) { return softplus(x); }, softplus_exact, -80, 80, 0);
  measure_noise();
  check_counters();
  check_stream();
  check_smallest_uniform();
  check_edges();
  check_conversions();
}
