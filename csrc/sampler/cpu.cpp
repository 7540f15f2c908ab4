// The sampling engine: packing of weights, and the loop over the steps. What is computed: plan.h.
#include <unordered_map>

#include "../bind.h"
#include "chances.h"
#include "engine.h"
#include "normal.h"
#include "team.h"

namespace genkern::cpu {
namespace {

using namespace core::sampler;

// Images of the batch -> shares: as many teams as there are images, or threads; several threads to
// a team where images are few.
Share share_of(int64_t member, int64_t members, int64_t images) {
  const int64_t teams = std::min(members, std::max<int64_t>(1, images));
  const int64_t team = member * teams / members;
  const int64_t first = (team * members + teams - 1) / teams;
  const int64_t last = ((team + 1) * members + teams - 1) / teams;
  return {images * team / teams, images * (team + 1) / teams, member - first, last - first};
}

// What a call draws with; absent where it only computes.
template <typename A>
struct Draws {
  Drawing drawing;
  const A *noise, *table;  // (N, channels, places), (levels,)
  const int64_t* given;    // (N, C, places), or null
  int64_t* integers;       // (N, C, places)
  double* log_prob;        // (N, places of these steps)
  const int32_t *ends, *places, *colours;
  int64_t noise_channels, grid, each;  // places of an image; parameters of a colour
  int64_t first, count;                // of the places of these steps
};

template <typename A>
class Drawer {
 public:
  explicit Drawer(const Draws<A>& draws) : draws_(draws) {}

  void draw(const Worker<A>& worker, int64_t step) {
    const Share& share = worker.share();
    const int64_t begin = draws_.ends[step], places = draws_.ends[step + 1] - begin;
    for (int64_t i = share.rank; i < places * share.images(); i += share.size)
      draw_place(worker, begin + i / share.images(), draws_.colours[step],
                 share.begin + i % share.images());
  }

 private:
  // `e`: which of the places of all steps.
  void draw_place(const Worker<A>& worker, int64_t e, int64_t colour, int64_t n) {
    const int64_t colours = int64_t(worker.plan().images.size()), place = draws_.places[e];
    read_parameters(worker, place, n);
    const int64_t begin = colour < 0 ? 0 : colour, end = colour < 0 ? colours : colour + 1;
    drawn_.assign(colours, -1), noise_.resize(draws_.noise_channels);
    for (int64_t c = begin; c < end; ++c)
      if (draws_.given) drawn_[c] = draws_.given[(n * colours + c) * draws_.grid + place];
    for (int64_t c = 0; c < draws_.noise_channels; ++c)
      noise_[c] = draws_.noise[(n * draws_.noise_channels + c) * draws_.grid + place];
    draw_colours(begin, end, draws_.log_prob[n * draws_.count + e - draws_.first]);
    for (int64_t c = begin; c < end; ++c) {
      draws_.integers[(n * colours + c) * draws_.grid + place] = drawn_[c];
      worker.write(worker.plan().images[c], place, n, 1, draws_.table + drawn_[c]);
    }
  }

  void draw_colours(int64_t begin, int64_t end, double& log_p) {
    const Drawing& d = draws_.drawing;
    if (d.kind == Kind::kMixture) {
      const int64_t colours = int64_t(drawn_.size()), each = colours == 1 ? 3 : 10;
      const int64_t components = int64_t(parameters_.size()) / each;
      return draw_mixture(d, parameters_.data(), components, colours, noise_.data(), drawn_.data(),
                          log_p, work_);
    }
    if (d.kind == Kind::kGaussian) {
      for (int64_t c = begin; c < end; ++c)
        drawn_[c] =
            draw_gaussian(d, parameters_[c], parameters_[end + c], noise_[c], drawn_[c], log_p);
      return;
    }
    for (int64_t c = begin; c < end; ++c) {
      const A* own = parameters_.data() + c * draws_.each;
      drawn_[c] = d.kind == Kind::kBernoulli
                      ? draw_bernoulli(d, *own, noise_[c], drawn_[c], log_p)
                      : draw_categorical(d, own, noise_[c], drawn_[c], log_p, work_);
    }
  }

  void read_parameters(const Worker<A>& worker, int64_t place, int64_t n) {
    parameters_.clear();
    for (const Term& piece : worker.plan().output) {
      parameters_.resize(parameters_.size() + piece.length);
      worker.read(piece.source, place, n, piece.length, &parameters_.back() + 1 - piece.length);
    }
  }

  const Draws<A>& draws_;
  std::vector<A> parameters_, work_, noise_;
  std::vector<int64_t> drawn_;
};

template <typename A>
void run(const Plan& plan, const Memory<A>& memory, const Tensor& like, int64_t images,
         int64_t first, int64_t last, const Draws<A>* draws) {
  const int64_t threads = num_threads();
  Members members(threads);
  std::vector<Barrier> barriers(threads);
  std::atomic<int64_t> ready{0};
  const auto work = [&](int64_t begin, int64_t end) {
    const int64_t member = members.enter(end - begin);
    if (member < 0) return;
    const Share share = share_of(member, members.count(), images);
    Barrier& barrier = barriers[member - share.rank];
    if (share.rank == 0) barrier.reset(share.size);
    // Nobody waits at a barrier before it knows its size.
    ready.fetch_add(1);
    while (ready.load() < members.count()) std::this_thread::yield();
    if (share.images() == 0) return;
    const Scratch<A> scratch(like, Worker<A>::scratch_size(plan));
    Worker<A> worker(plan, memory, share, scratch.get());
    std::optional<Drawer<A>> drawer;
    if (draws) drawer.emplace(*draws);
    for (int64_t step = first; step < last; ++step) {
      for (const Stage& stage : plan.stages) worker.run(stage, step, [&] { barrier.wait(); });
      if (!draws) continue;
      drawer->draw(worker, step);
      barrier.wait();
    }
  };
  if (threads == 1) return work(0, 1);
  parallel_for(0, threads, 1, work);
}

template <typename A>
Memory<A> memory_of(const Tensor& tables, const Tensor& packed, const Tensor& constants,
                    const Tensor& cache) {
  return {data<A>(cache), data<const A>(constants), data<const A>(packed),
          data<const int32_t>(tables)};
}

}  // namespace

// What the numbers of a plan call an element of the weights is the first one of some `columns`.
template <typename A>
std::unordered_map<int64_t, const Columns<A>*> by_first(const std::vector<int64_t>& columns,
                                                        const std::vector<Tensor>& weights,
                                                        std::vector<Columns<A>>& all) {
  for (const Tensor& w : weights) {
    const bool is_bias = w.dim() == 1;
    all.push_back(
        {data<const A>(w), w.stride(0), is_bias ? 0 : w.stride(1), is_bias ? 1 : w.size(1)});
  }
  std::unordered_map<int64_t, const Columns<A>*> found;
  size_t at = 0;
  int64_t element = 0;
  for (const int64_t count : columns) {
    found[element] = &all[at];
    for (const size_t last = at + count; at < last; ++at) element += weights[at].numel();
  }
  return found;
}

// `weights`: (channels, factors) or a bias; `columns`: how many of them side by side form each one.
Tensor sampler_pack(const Tensor& numbers, const std::vector<Tensor>& weights,
                    const std::vector<int64_t>& columns) {
  return dispatch_accumulate(weights[0], [&]<typename A>(A) {
    const Plan plan = read_plan<A>(data<const int64_t>(numbers));
    std::vector<Columns<A>> all;
    const auto first = by_first<A>(columns, weights, all);
    const auto columns_at = [&](int64_t element) {
      return element < 0 ? nullptr : first.at(element);
    };
    Tensor packed = new_large(weights[0], {plan.packed + 4 * core::kLanes<A>});
    parallel_units(int64_t(plan.stages.size()), 1, [&](Units units) {
      for (const int64_t unit : units)
        for (const Product& p : plan.stages[unit].products)
          pack(plan.stages[unit], p, columns_at(p.weight), columns_at(p.bias), data<A>(packed));
    });
    return packed;
  });
}

// Steps [first, last), without drawing. Writes into `cache`.
void sampler_steps(const Tensor& numbers, const Tensor& tables, const Tensor& packed,
                   const Tensor& constants, const Tensor& cache, int64_t images, int64_t first,
                   int64_t last) {
  dispatch_accumulate(cache, [&]<typename A>(A) {
    const Plan plan = read_plan<A>(data<const int64_t>(numbers));
    const Memory<A> memory = memory_of<A>(tables, packed, constants, cache);
    run<A>(plan, memory, cache, images, first, last, nullptr);
  });
}

// Steps [first, last): what is drawn goes into `cache`, `integers` and `log_prob`. `draws`: where
// the ends of the steps, their places and their colours stand in `tables`.
void sampler_draw(const Tensor& numbers, const Tensor& tables, const Tensor& packed,
                  const Tensor& constants, const Tensor& cache, const Tensor& noise,
                  const Tensor& table, const std::optional<Tensor>& given, const Tensor& integers,
                  const Tensor& log_prob, int64_t ends, int64_t places, int64_t colours,
                  int64_t kind, int64_t levels, int64_t top_k, double temperature, double scale,
                  double offset, bool wants_log_prob, int64_t first, int64_t last) {
  dispatch_accumulate(cache, [&]<typename A>(A) {
    const Plan plan = read_plan<A>(data<const int64_t>(numbers));
    const Memory<A> memory = memory_of<A>(tables, packed, constants, cache);
    const int32_t* at = data<const int32_t>(tables);
    const int64_t begin = at[ends + first], count = at[ends + last] - begin, N = noise.size(0);
    // One number for each draw: their sum does not depend on who drew what.
    std::vector<double> chances(N * count);
    const Draws<A> draws{{Kind(kind), levels, top_k, temperature, scale, offset, wants_log_prob},
                         data<const A>(noise),
                         data<const A>(table),
                         data<const int64_t>(given),
                         data<int64_t>(integers),
                         chances.data(),
                         at + ends,
                         at + places,
                         at + colours,
                         noise.size(1),
                         noise.size(2) * noise.size(3),
                         Kind(kind) == Kind::kBernoulli ? 1 : levels,
                         begin,
                         count};
    run<A>(plan, memory, cache, N, first, last, &draws);
    double* total = data<double>(log_prob);
    for (int64_t n = 0; n < N; ++n)
      for (int64_t e = 0; e < count; ++e) total[n] += chances[n * count + e];
  });
}

// Of a mixture (rows, parameters) given the colours that are known (rows, some): (rows, levels).
Tensor sampler_chances(const Tensor& params, const Tensor& known, int64_t levels, int64_t colours) {
  return dispatch_accumulate(params, [&]<typename A>(A) {
    const int64_t rows = params.size(0), width = params.size(1), given = known.size(1);
    const int64_t components = width / (colours == 1 ? 3 : 10);
    Tensor found = new_tensor(params, {rows, levels});
    const A* from = data<const A>(params);
    const int64_t* x = data<const int64_t>(known);
    A* to = data<A>(found);
    parallel_units(rows, 8, [&](Units units) {
      Chances<A> chances(levels);
      for (const int64_t row : units) {
        const Mixture<A> mixture{from + row * width, components, colours, levels};
        chances.of(mixture, x + row * given, given, to + row * levels);
      }
    });
    return found;
  });
}

GENKERN_REGISTER(CPU, m) {
  m.impl("sampler_pack", TORCH_BOX(&sampler_pack));
  m.impl("sampler_steps", TORCH_BOX(&sampler_steps));
  m.impl("sampler_draw", TORCH_BOX(&sampler_draw));
  m.impl("sampler_chances", TORCH_BOX(&sampler_chances));
}

}  // namespace genkern::cpu
