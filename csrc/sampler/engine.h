// Steps of a plan: what a thread does for its images and its blocks of units.
#pragma once
#include <algorithm>
#include <cstring>
#include <vector>

#include "operations.h"
#include "products.h"

namespace genkern::core::sampler {

// Images [begin, end), and the blocks of every stage that member `rank` of `size` takes.
struct Share {
  int64_t begin, end, rank, size;
  int64_t images() const { return end - begin; }
};

template <typename A>
struct Memory {
  A* cache;
  const A *constants, *packed;
  const int32_t* tables;
};

template <typename A>
class Worker {
 public:
  // `scratch`: of scratch_size() elements.
  Worker(const Plan& plan, const Memory<A>& memory, const Share& share, A* scratch)
      : plan_(plan),
        memory_(memory),
        share_(share),
        rows_(scratch),
        registers_(scratch + kRows * row_of(plan)) {}

  static int64_t row_of(const Plan& plan) { return (plan.longest + 15) / 16 * 16 + 16; }
  static int64_t scratch_size(const Plan& plan) {
    return kRows * (row_of(plan) + (plan.registers + 1) * plan.width);
  }

  // A stage of a step; `wait` returns when all that work on these images have come that far.
  template <typename Wait>
  void run(const Stage& stage, int64_t step, const Wait& wait) {
    const int32_t* ends = memory_.tables + stage.ends;
    int64_t begin = ends[step];
    const int64_t end = ends[step + 1];
    if (begin == end) return;
    while (begin < end) {
      int64_t last = end;
      if (stage.waves >= 0) {
        const int32_t* waves = memory_.tables + stage.waves;
        last = begin + 1;
        while (last < end && waves[last] == waves[begin]) ++last;
      }
      const int32_t* places = memory_.tables + stage.places;
      const int64_t each = stage.by_place ? 1 : last - begin;
      for (int64_t at = begin; at < last; at += each) run_wave(stage, places + at, each);
      begin = last;
      wait();
    }
  }

  // `length` channels of image n at a place.
  void read(const Source& source, int64_t place, int64_t n, int64_t length, A* to) const {
    read_slot(source, slot_of(source, place), n, length, to);
  }

  void read_slot(const Source& source, int64_t slot, int64_t n, int64_t length, A* to) const {
    if (slot == source.zeros) {
      std::fill_n(to, length, A{});
      return;
    }
    const A* from = (source.is_constant ? memory_.constants : memory_.cache) + source.base +
                    source.start + slot * source.slot + n * source.image;
    if (length == 1)
      *to = *from;
    else
      std::memcpy(to, from, length * sizeof(A));
  }

  void write(const Source& source, int64_t place, int64_t n, int64_t length, const A* from) const {
    std::copy_n(from, length,
                memory_.cache + source.base + source.start + slot_of(source, place) * source.slot +
                    n * source.image);
  }

  const Share& share() const { return share_; }
  const Plan& plan() const { return plan_; }

 private:
  int64_t slot_of(const Source& source, int64_t place) const {
    return source.table < 0 ? 0 : memory_.tables[source.table + place];
  }

  void run_wave(const Stage& stage, const int32_t* places, int64_t count) {
    const int64_t first = stage.blocks * share_.rank / share_.size;
    const int64_t last = stage.blocks * (share_.rank + 1) / share_.size;
    if (first == last) return;
    const int64_t rows = count * share_.images();
    for (int64_t from = 0; from < rows; from += kRows) {
      const int64_t chunk = std::min(kRows, rows - from);
      for (int64_t r = 0; r < chunk; ++r) {
        place_[r] = places[(from + r) / share_.images()];
        image_[r] = share_.begin + (from + r) % share_.images();
      }
      run_rows(stage, chunk, first, last);
    }
  }

  void run_rows(const Stage& stage, int64_t rows, int64_t first, int64_t last) {
    const int64_t size = kRows * stage.width;
    // The gathered rows of one product at a time; with several, blocks come again for each.
    if (stage.products.size() == 1) gather(stage.products[0], rows);
    for (int64_t block = first; block < last; ++block) {
      for (const Product& product : stage.products) {
        if (stage.products.size() > 1) gather(product, rows);
        const int64_t place = product.places > 1 ? place_[0] : 0;
        const A* packed = memory_.packed + product.packed + place * product.place_size +
                          block * product.parts * (product.length + 1) * stage.width;
        for (int64_t part = 0; part < product.parts; ++part)
          multiply(rows_, row_, rows, runs_, packed + part * (product.length + 1) * stage.width,
                   stage.width, registers_ + (product.first_register + part) * size);
      }
      for (const Operation& op : stage.operations) operate(stage, op, rows, block, size);
    }
  }

  void operate(const Stage& stage, const Operation& op, int64_t rows, int64_t block, int64_t size) {
    const int64_t at = block * stage.width, valid = std::min(stage.width, stage.units - at);
    if (op.code == Code::kLookup) return look_up(stage, op, rows, at, valid, size);
    if (op.code != Code::kLoad && op.code != Code::kStore) {
      const A number = op.number < 0 ? A{} : memory_.constants[op.number];
      return sampler::operate(op, rows * stage.width, registers_, size, number);
    }
    Source source = op.memory;
    source.start += at;
    if (op.code == Code::kLoad) {
      A* to = registers_ + op.to * size;
      for (int64_t r = 0; r < rows; ++r, to += stage.width) {
        read(source, place_[r], image_[r], valid, to);
        std::fill(to + valid, to + stage.width, A{});
      }
    } else {
      const A* from = registers_ + op.x * size;
      for (int64_t r = 0; r < rows; ++r, from += stage.width)
        write(source, place_[r], image_[r], valid, from);
    }
  }

  void look_up(const Stage& stage, const Operation& op, int64_t rows, int64_t at, int64_t valid,
               int64_t size) {
    A* to = registers_ + op.to * size;
    for (int64_t r = 0; r < rows; ++r, to += stage.width) {
      A name;
      read(op.memory, place_[r], image_[r], 1, &name);
      const int64_t row = name > 0 ? int64_t(std::min(name, A(op.z - 1))) : 0;  // NaN: 0
      std::copy_n(memory_.constants + op.number + row * op.x + op.y + at, valid, to);
      std::fill(to + valid, to + stage.width, A{});
    }
  }

  // The factors of each row side by side, without the terms that are zero for all rows.
  void gather(const Product& product, int64_t rows) {
    runs_.clear();
    row_ = (product.length + 15) / 16 * 16 + 16;
    int64_t begin = 0, weight = 0;
    for (const Term& term : product.terms)
      for (int64_t t = 0; t < term.count; ++t, weight += term.length) {
        if (is_zero(term, t, rows)) continue;
        for (int64_t r = 0; r < rows; ++r)
          read_slot(term.source, slot_of(term, t, place_[r]), image_[r], term.length,
                    rows_ + r * row_ + begin);
        if (!runs_.empty() && runs_.back().weight + runs_.back().length == weight)
          runs_.back().length += term.length;
        else
          runs_.push_back({begin, weight, term.length});
        begin += term.length;
      }
  }

  int64_t slot_of(const Term& term, int64_t t, int64_t place) const {
    const Source& source = term.source;
    return source.table < 0 ? 0 : memory_.tables[source.table + place * term.count + t];
  }

  bool is_zero(const Term& term, int64_t t, int64_t rows) const {
    for (int64_t r = 0; r < rows; ++r)
      if (slot_of(term, t, place_[r]) != term.source.zeros) return false;
    return true;
  }

  const Plan& plan_;
  const Memory<A> memory_;
  const Share share_;
  A *rows_, *registers_;
  int64_t row_ = 0;
  int64_t place_[kRows], image_[kRows];
  std::vector<Run> runs_;
};

}  // namespace genkern::core::sampler
