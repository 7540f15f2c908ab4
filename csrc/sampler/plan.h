// The plan of a model as genkern/sampling/compiled.py writes it: stages, in the order in which a
// step goes through them.
//
//   for (stage : stages)
//     for (place : places of the stage in this step) for (image : images)
//       for (u : units of the stage) {
//         register[part] = bias + sum over terms, channels of weight * source;     // products
//         registers through a few pointwise operations; some are stored            // operations
//       }
//
// A product of parts * units channels fills that many registers: what meets in a pointwise
// operation (the two halves before a gate, the four gates of a cell) is formed side by side.
#pragma once
#include <cstdint>
#include <vector>

#include "../core/blocks.h"
#include "../core/simd.h"

namespace genkern::core::sampler {

// Reads the numbers of a plan one after the other.
class Numbers {
 public:
  explicit Numbers(const int64_t* at) : at_(at) {}
  int64_t next() { return *at_++; }

 private:
  const int64_t* at_;
};

// Channels from `start` on of a node, where a table says that a place is kept. Of place p and image
// n: base + table[p] * slot + n * image + start.
struct Source {
  bool is_constant;
  int64_t base, slot, image, start;
  int64_t table;  // where it starts among the tables; -1: the same for every place
  int64_t zeros;  // the slot that holds zeros

  explicit Source(Numbers& n)
      : is_constant(n.next() != 0),
        base(n.next()),
        slot(n.next()),
        image(n.next()),
        start(n.next()),
        table(n.next()),
        zeros(n.next()) {}
};

// `count` places side by side, of each of which `length` channels are read: the table has so many
// entries for a place.
struct Term {
  Source source;
  int64_t length, count = 1;
};

struct Product {
  int64_t parts, length, weight, bias, first_register, packed;
  int64_t places, place_size;  // that have weights of their own; 1: all have the same
  std::vector<Term> terms;
};

enum class Code : int64_t {
  kLoad,
  kStore,
  kCopy,
  kRelu,
  kLeakyRelu,
  kElu,
  kEluOfMinus,
  kTanh,
  kSigmoid,
  kSilu,
  kExp,
  kAdd,
  kMul,
  kAddNumber,
  kMulNumber,
  kGated,
  kCell,
  kState,
  kGelu,
  kSoftplus,
  kAtLeast,
  kAtMost,
  kSelect,
  kTrunc,
  kRound,
  kSqrt,
  kReciprocal,
  kLookup
};

struct Operation {
  Code code;
  int64_t to, x, y, z, w, number;
  Source memory;  // of a load or a store; of a lookup, whose rows of x channels, from channel y on,
                  // z of them, lie at `number`: what names the row
};

// Vectors of a block of units: weights of a block lie side by side.
template <typename A>
inline int64_t vectors_of(int64_t units) {
  constexpr int64_t L = kLanes<A>;
  return units <= L ? 1 : units <= 2 * L ? 2 : 4;
}

struct Stage {
  int64_t units, places, ends, waves, registers, width, blocks;
  bool by_place = false;  // a place at a time: a product has weights for each
  std::vector<Product> products;
  std::vector<Operation> operations;
};

struct Plan {
  std::vector<Stage> stages;
  std::vector<Term> output;
  std::vector<Source> images;  // of each colour
  int64_t longest = 0, registers = 0, packed = 0, width = 0;
};

template <typename A>
Product read_product(Numbers& n, const Stage& stage, Plan& plan) {
  Product p;
  p.parts = n.next(), p.length = n.next(), p.weight = n.next(), p.bias = n.next();
  p.first_register = n.next(), p.places = n.next(), p.packed = plan.packed;
  for (int64_t left = n.next(); left > 0; --left) {
    const Source source(n);
    const int64_t length = n.next();
    p.terms.push_back({source, length, n.next()});
  }
  p.place_size = stage.blocks * p.parts * (p.length + 1) * stage.width;
  plan.packed += p.places * p.place_size;
  plan.longest = p.length > plan.longest ? p.length : plan.longest;
  return p;
}

template <typename A>
Plan read_plan(const int64_t* numbers) {
  Numbers n(numbers);
  Plan plan;
  for (int64_t left = n.next(); left > 0; --left) {
    Stage s;
    s.units = n.next(), s.places = n.next(), s.ends = n.next(), s.waves = n.next();
    s.registers = n.next();
    s.width = vectors_of<A>(s.units) * kLanes<A>;
    s.blocks = (s.units + s.width - 1) / s.width;
    for (int64_t products = n.next(); products > 0; --products) {
      s.products.push_back(read_product<A>(n, s, plan));
      s.by_place |= s.products.back().places > 1;
    }
    for (int64_t operations = n.next(); operations > 0; --operations) {
      const Code code{n.next()};
      const int64_t to = n.next(), x = n.next(), y = n.next(), z = n.next(), w = n.next();
      const int64_t number = n.next();
      s.operations.push_back({code, to, x, y, z, w, number, Source(n)});
    }
    plan.registers = s.registers > plan.registers ? s.registers : plan.registers;
    plan.width = s.width > plan.width ? s.width : plan.width;
    plan.stages.push_back(std::move(s));
  }
  for (int64_t left = n.next(); left > 0; --left) {
    const Source source(n);
    plan.output.push_back({source, n.next(), 1});
  }
  for (int64_t left = n.next(); left > 0; --left) plan.images.emplace_back(n);
  return plan;
}

}  // namespace genkern::core::sampler
