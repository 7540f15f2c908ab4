// loss = R_i term_real(r_i - [mean f]) + R_j term_fake(f_j - [mean r]),  R the mean or the sum
// d_r_i = up_i term_real'(r_i - [mean f]) - [1/n_r sum_j up_j term_fake'(f_j - mean r)], d_f alike
// Brackets: in the relativistic kind only (Jolicoeur-Martineau 2019, sec. 4).
// real logits r (n_r,), fake logits f (n_f,), contiguous; r is absent where no term needs it.
//
//   for (i = 0; i < n; ++i) loss += weight * term(x[i] - shift);             // of each side
//   for (i = 0; i < n; ++i) d_x[i] = upstream[i] * weight * slope(x[i] - shift) - mean;
//
// shift is the mean of the other side's logits, mean that of its upstream * weight * slope.
#include "../threads.h"
#include "gan_loss.h"

namespace genkern::cpu {
namespace {

using core::GanKind;
using core::GanMode;

enum class Reduction : int64_t { kNone, kMean, kSum };

struct Problem {
  GanKind kind;
  GanMode mode;
  double real_target, fake_target;
  Reduction reduction;

  bool relativistic() const { return kind == GanKind::kRabce; }
  double weight(int64_t n) const { return reduction == Reduction::kMean ? 1.0 / double(n) : 1.0; }

  // Calls f(term of the real side, term of the fake side): for every chunk anew, so that threads
  // and conversions are compiled once and not once for each kind.
  template <typename A, typename F>
  auto with_terms(const F& f) const {
    return core::with_gan_terms<A>(core::gan_term(kind, mode),
                                   core::gan_real_side(kind, mode, real_target),
                                   core::gan_fake_side(kind, mode, fake_target), f);
  }
};

// One set of logits: where they are, and what is subtracted from them.
template <typename A>
struct Logits {
  core::Reader<A> x;
  int64_t n = 0;
  bool real = false, present = false;
  A shift = 0;

  template <typename Term>
  const Term& choose(const Term& of_real, const Term& of_fake) const {
    return real ? of_real : of_fake;
  }
};

template <typename A>
Logits<A> logits(const std::optional<Tensor>& t, bool real) {
  if (!t.has_value()) return {{}, 0, real};
  return {reader<A>(*t), t->numel(), real, true};
}

template <typename A>
double mean(const Logits<A>& logits) {
  const auto sum = [&](int64_t first, int64_t count) {
    core::Buffer<A> buffer;
    const A* x = logits.x.at(first, count, buffer.data);
    return core::sum<A>(count, [](core::Vec<A> v) { return v; }, x);
  };
  return sum_chunks(logits.n, sum) / double(logits.n);
}

// In the relativistic kind each side is compared with the mean of the other one.
template <typename A>
void set_shifts(const Problem& problem, Logits<A>& real, Logits<A>& fake) {
  if (!problem.relativistic()) return;
  real.shift = A(mean(fake));
  fake.shift = A(mean(real));
}

template <typename A>
double sum_values(const Problem& problem, const Logits<A>& logits) {
  return sum_chunks(logits.n, [&](int64_t first, int64_t count) {
    core::Buffer<A> buffer;
    const A* x = logits.x.at(first, count, buffer.data);
    return problem.with_terms<A>([&](const auto& of_real, const auto& of_fake) {
      return core::sum_values(count, x, logits.shift, logits.choose(of_real, of_fake));
    });
  });
}

template <typename A>
void forward(const Problem& problem, Logits<A> real, Logits<A> fake, const core::Writer<A>& out) {
  set_shifts(problem, real, fake);
  if (problem.reduction != Reduction::kNone) {
    double loss = sum_values(problem, fake) * problem.weight(fake.n);
    if (real.present) loss += sum_values(problem, real) * problem.weight(real.n);
    const A rounded = A(loss);
    return out.put(0, 1, &rounded);
  }
  for_chunks(fake.n, [&](int64_t, int64_t first, int64_t count) {
    core::Buffer<A> of_fake, of_real, result;
    const A *f = fake.x.at(first, count, of_fake.data), *r = real.x.at(first, count, of_real.data);
    A* y = out.at(first, result.data);
    problem.with_terms<A>([&](const auto& real_term, const auto& fake_term) {
      const auto one = [&](auto v) { return fake_term.value(v - fake.shift); };
      const auto two = [&](auto v, auto w) { return one(v) + real_term.value(w - real.shift); };
      if (real.present)
        core::map(count, y, two, f, r);
      else
        core::map(count, y, one, f);
    });
    out.put(first, count, y);
  });
}

// The upstream gradient of a loss: a number, or one for each element.
template <typename A>
struct Upstream {
  core::Reader<A> elements;
  A number;
};

// Calls f(count, slopes, x...) for a chunk: slopes(x...) is the upstream gradient times the slope.
template <typename A, typename F>
auto with_slopes(const Problem& problem, const Upstream<A>& upstream, const Logits<A>& logits,
                 int64_t first, int64_t count, const F& f) {
  core::Buffer<A> of_x, of_upstream;
  const A* x = logits.x.at(first, count, of_x.data);
  const A* d = upstream.elements.at(first, count, of_upstream.data);
  const A factor = A(upstream.number * problem.weight(logits.n)), shift = logits.shift;
  return problem.with_terms<A>([&](const auto& of_real, const auto& of_fake) {
    const auto term = logits.choose(of_real, of_fake);
    const auto alone = [=](auto v) { return factor * term.slope(v - shift); };
    if (!d) return f(alone, x);
    return f([=](auto v, auto g) { return alone(v) * g; }, x, d);
  });
}

template <typename A>
double sum_slopes(const Problem& problem, const Upstream<A>& upstream, const Logits<A>& logits) {
  return sum_chunks(logits.n, [&](int64_t first, int64_t count) {
    return with_slopes(problem, upstream, logits, first, count,
                       [=](auto slopes, auto... x) { return core::sum<A>(count, slopes, x...); });
  });
}

template <typename A>
void write_gradient(const Problem& problem, const Upstream<A>& upstream, const Logits<A>& logits,
                    const Logits<A>& other, const core::Writer<A>& to) {
  if (!to) return;
  A mean = 0;
  if (problem.relativistic()) mean = A(sum_slopes(problem, upstream, other) / double(logits.n));
  for_chunks(logits.n, [&](int64_t, int64_t first, int64_t count) {
    core::Buffer<A> result;
    A* y = to.at(first, result.data);
    with_slopes(problem, upstream, logits, first, count, [&](auto slopes, auto... x) {
      core::map(count, y, [=](auto... v) { return slopes(v...) - mean; }, x...);
    });
    to.put(first, count, y);
  });
}

Problem problem_of(int64_t kind, int64_t mode, double real_target, double fake_target,
                   int64_t reduction) {
  return {GanKind(kind), GanMode(mode), real_target, fake_target, Reduction(reduction)};
}
}  // namespace

Tensor gan_loss_forward(const std::optional<Tensor>& real, const Tensor& fake,
                        const std::optional<Tensor>& annealed, int64_t kind, int64_t mode,
                        double label_smoothing, double real_label, double fake_label,
                        int64_t reduction) {
  const auto problem =
      problem_of(kind, mode, real_label - option(label_smoothing, annealed), fake_label, reduction);
  const std::optional<Tensor> r = dense(real), f = dense(fake);
  Tensor out =
      problem.reduction == Reduction::kNone ? new_large(fake, fake.sizes()) : new_tensor(fake, {});
  dispatch_accumulate(fake, [&]<typename A>(A) {
    forward<A>(problem, logits<A>(r, true), logits<A>(f, false), writer<A>(out));
  });
  return out;
}

// A gradient that is not wanted comes back with no elements.
std::tuple<Tensor, Tensor> gan_loss_backward(const std::optional<Tensor>& d_loss,
                                             const std::optional<Tensor>& real, const Tensor& fake,
                                             const std::optional<Tensor>& annealed, int64_t kind,
                                             int64_t mode, double label_smoothing,
                                             double real_label, double fake_label,
                                             int64_t reduction, bool needs_real, bool needs_fake) {
  const auto problem =
      problem_of(kind, mode, real_label - option(label_smoothing, annealed), fake_label, reduction);
  const std::optional<Tensor> d = dense(d_loss), r = dense(real), f = dense(fake);
  Tensor d_real = needs_real ? new_large(*real, real->sizes()) : absent(fake);
  Tensor d_fake = needs_fake ? new_large(fake, fake.sizes()) : absent(fake);
  dispatch_accumulate(fake, [&]<typename A>(A) {
    Logits<A> of_real = logits<A>(r, true), of_fake = logits<A>(f, false);
    set_shifts(problem, of_real, of_fake);
    const bool elementwise = problem.reduction == Reduction::kNone;
    const core::Reader<A> upstream = reader<A>(d);
    const Upstream<A> up = elementwise ? Upstream<A>{upstream, 1} : Upstream<A>{{}, upstream[0]};
    write_gradient(problem, up, of_real, of_fake, writer<A>(d_real, needs_real));
    write_gradient(problem, up, of_fake, of_real, writer<A>(d_fake, needs_fake));
  });
  return {d_real, d_fake};
}

GENKERN_REGISTER(CPU, m) {
  GENKERN_OP(m, gan_loss_forward);
  GENKERN_OP(m, gan_loss_backward);
}

}  // namespace genkern::cpu
