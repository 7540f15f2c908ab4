// loss = R_i term_real(r_i - [mean f]) + R_j term_fake(f_j - [mean r]),  R the mean or the sum
// d_r_i = up_i term_real'(r_i - [mean f]) - [1/n_r sum_j up_j term_fake'(f_j - mean r)], d_f alike
// Brackets: in the relativistic kind only (Jolicoeur-Martineau 2019, sec. 4).
// real logits r (n_r,), fake logits f (n_f,), contiguous; r is absent where no term needs it.
#include "gan_loss.h"

#include <algorithm>
#include <vector>

#include "../bind.h"

namespace genkern::cpu {
namespace {

using core::Accumulate;
using core::GanKind;
using core::GanMode;

// Sums run over chunks of this size, then over the chunks in order: the bits of the result do not
// depend on the number of threads.
constexpr int64_t kChunk = 4096;
constexpr int64_t kGrain = 4;  // chunks that a thread takes at least: about 10 us of work

enum class Reduction : int64_t { kNone, kMean, kSum };

struct Problem {
  GanKind kind;
  GanMode mode;
  double label_smoothing;
  Reduction reduction;

  bool relativistic() const { return kind == GanKind::kRabce; }
  double weight(int64_t n) const { return reduction == Reduction::kMean ? 1.0 / double(n) : 1.0; }
};

template <typename T>
struct Logits {
  const T* p = nullptr;
  int64_t n = 0;
  bool present = false;
};

// A number for the real and one for the fake side.
struct Pair {
  double real = 0, fake = 0;
};

template <typename T>
Logits<T> logits(const std::optional<Tensor>& t) {
  return t.has_value() ? Logits<T>{data<const T>(*t), t->numel(), true} : Logits<T>{};
}

int64_t chunks(int64_t n) { return (n + kChunk - 1) / kChunk; }

// f(chunk, first element, elements) for every chunk of n elements, on threads where it pays.
template <typename F>
void for_chunks(int64_t n, F f) {
  const auto run = [&](int64_t begin, int64_t end) {
    for (int64_t c = begin; c < end; ++c) f(c, c * kChunk, std::min(kChunk, n - c * kChunk));
  };
  if (chunks(n) <= kGrain)
    run(0, chunks(n));
  else
    parallel_for(0, chunks(n), kGrain, run);
}

// sum over the chunks of [0, n) of f(first element, elements), in order
template <typename F>
double sum_chunks(int64_t n, F f) {
  constexpr int64_t kSmall = 16;  // up to so many chunks, no heap memory
  double small[kSmall];
  std::vector<double> large(chunks(n) > kSmall ? chunks(n) : 0);
  double* parts = chunks(n) > kSmall ? large.data() : small;
  for_chunks(n, [&](int64_t c, int64_t first, int64_t count) { parts[c] = f(first, count); });
  double total = 0;
  for (int64_t c = 0; c < chunks(n); ++c) total += parts[c];
  return total;
}

// sum over [0, n) of f(load, first element of the chunk)
template <typename T, typename F>
double sum(int64_t n, F f) {
  return sum_chunks(n, [&](int64_t first, int64_t count) {
    return core::sum_terms<T>(count, [&](auto load) { return f(load, first); });
  });
}

// sum of the terms of one side
template <typename T, typename Term>
double sum_side(const Logits<T>& x, double shift, const Term& term) {
  return sum_chunks(x.n, [&](int64_t first, int64_t count) {
    return core::sum_values<T>(count, term,
                               [&](auto load) { return load(x.p + first) - Accumulate<T>(shift); });
  });
}

// y[i] = f(load, first element of the chunk) over [0, n)
template <typename T, typename F>
void map(T* y, int64_t n, F f) {
  for_chunks(n, [&](int64_t, int64_t first, int64_t count) {
    core::map_terms(y + first, count, [&](auto load) { return f(load, first); });
  });
}

// What is subtracted from the logits of a side: the mean of the other side.
template <typename T>
Pair shifts(const Problem& problem, const Logits<T>& real, const Logits<T>& fake) {
  if (!problem.relativistic()) return {};
  const auto mean = [](const Logits<T>& x) {
    return sum<T>(x.n, [&](auto load, int64_t first) { return load(x.p + first); }) / double(x.n);
  };
  return {mean(fake), mean(real)};
}

// Calls f with the terms of the real and of the fake side.
template <typename A, typename F>
void with_terms(const Problem& problem, F f) {
  const auto real = core::gan_real_side(problem.kind, problem.mode, 1 - problem.label_smoothing);
  const auto fake = core::gan_fake_side(problem.kind, problem.mode);
  const auto call = [&]<typename Term>(Term) {
    f(Term{A(real.scale), A(real.target)}, Term{A(fake.scale), A(fake.target)});
  };
  switch (core::gan_term(problem.kind, problem.mode)) {
    case core::GanTerm::kHinge:
      return call(core::GanHinge<A>{});
    case core::GanTerm::kSquare:
      return call(core::GanSquare<A>{});
    case core::GanTerm::kLinear:
      return call(core::GanLinear<A>{});
    case core::GanTerm::kCrossEntropy:
      return call(core::GanCrossEntropy<A>{});
  }
}

template <typename T>
void forward(const Problem& problem, const Logits<T>& real, const Logits<T>& fake, T* out) {
  using A = Accumulate<T>;
  const Pair shift = shifts(problem, real, fake);
  with_terms<A>(problem, [&](auto real_term, auto fake_term) {
    if (problem.reduction != Reduction::kNone) {
      double loss = sum_side(fake, shift.fake, fake_term) * problem.weight(fake.n);
      if (real.present) loss += sum_side(real, shift.real, real_term) * problem.weight(real.n);
      *out = core::from_accumulate<T>(A(loss));
      return;
    }
    map(out, fake.n, [&](auto load, int64_t first) {
      const auto y = fake_term.value(load(fake.p + first) - A(shift.fake));
      if (!real.present) return y;
      return y + real_term.value(load(real.p + first) - A(shift.real));
    });
  });
}

// Gradients go where their pointers are not null.
template <typename T>
void backward(const Problem& problem, const T* d_loss, const Logits<T>& real, const Logits<T>& fake,
              T* d_real, T* d_fake) {
  using A = Accumulate<T>;
  const Pair shift = shifts(problem, real, fake);
  const bool elementwise = problem.reduction == Reduction::kNone;
  const A scalar = elementwise ? A(1) : core::to_accumulate(*d_loss);
  with_terms<A>(problem, [&](auto real_term, auto fake_term) {
    // The upstream gradient times the slope of a side's term.
    const auto slopes = [&](const Logits<T>& x, double shift, auto term) {
      const A factor = A(scalar * problem.weight(x.n));
      return [=](auto load, int64_t first) {
        const auto slope = factor * term.slope(load(x.p + first) - A(shift));
        return elementwise ? slope * load(d_loss + first) : slope;
      };
    };
    const auto of_real = slopes(real, shift.real, real_term);
    const auto of_fake = slopes(fake, shift.fake, fake_term);
    const auto write = [&](T* d_x, int64_t n, auto of_side, auto of_other, int64_t n_other) {
      if (!d_x) return;
      A mean = 0;
      if (problem.relativistic()) mean = A(sum<T>(n_other, of_other) / double(n));
      map(d_x, n, [&](auto load, int64_t i) { return of_side(load, i) - mean; });
    };
    write(d_real, real.n, of_real, of_fake, fake.n);
    write(d_fake, fake.n, of_fake, of_real, real.n);
  });
}

Problem problem_of(int64_t kind, int64_t mode, double label_smoothing, int64_t reduction) {
  return {GanKind(kind), GanMode(mode), label_smoothing, Reduction(reduction)};
}
}  // namespace

Tensor gan_loss_forward(const std::optional<Tensor>& real, const Tensor& fake,
                        const std::optional<Tensor>& annealed, int64_t kind, int64_t mode,
                        double label_smoothing, int64_t reduction) {
  const auto problem = problem_of(kind, mode, option(label_smoothing, annealed), reduction);
  const std::optional<Tensor> r = dense(real), f = dense(fake);
  Tensor out =
      problem.reduction == Reduction::kNone ? new_large(fake, fake.sizes()) : new_tensor(fake, {});
  dispatch_floating(
      fake, [&]<typename T>(T) { forward<T>(problem, logits<T>(r), logits<T>(f), data<T>(out)); });
  return out;
}

// A gradient that is not wanted comes back with no elements.
std::tuple<Tensor, Tensor> gan_loss_backward(const std::optional<Tensor>& d_loss,
                                             const std::optional<Tensor>& real, const Tensor& fake,
                                             const std::optional<Tensor>& annealed, int64_t kind,
                                             int64_t mode, double label_smoothing,
                                             int64_t reduction, bool needs_real, bool needs_fake) {
  const auto problem = problem_of(kind, mode, option(label_smoothing, annealed), reduction);
  const std::optional<Tensor> d = dense(d_loss), r = dense(real), f = dense(fake);
  Tensor d_real = needs_real ? new_large(*real, real->sizes()) : absent(fake);
  Tensor d_fake = needs_fake ? new_large(fake, fake.sizes()) : absent(fake);
  dispatch_floating(fake, [&]<typename T>(T) {
    backward<T>(problem, data<const T>(*d), logits<T>(r), logits<T>(f),
                needs_real ? data<T>(d_real) : nullptr, needs_fake ? data<T>(d_fake) : nullptr);
  });
  return {d_real, d_fake};
}

GENKERN_REGISTER(CPU, m) {
  GENKERN_OP(m, gan_loss_forward);
  GENKERN_OP(m, gan_loss_backward);
}

}  // namespace genkern::cpu
