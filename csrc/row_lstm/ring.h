// The rows that the backward pass holds of each image. Slot r % slots has d_gates of row r beside h
// of row r - 1, the two factors of the gradient of the weight; h[r - 1] comes when row r - 1 is
// done:
//
//   slots = 3, H = 6, rows 5, 4, 3 done   | d_gates 3, ___ | d_gates 4, h 3 | d_gates 5, h 4 |
//   rows 5 and 4 are multiplied; then rows 2 and 1:
//                                         | d_gates 3, h 2 | d_gates 1, ___ | d_gates 2, h 1 |
//   rows 3 and 2 are multiplied
//
// The boundary row, 3 here, waits in its slot while the slots - 1 others are written anew. Where a
// factor is a pair (bfloat16), two rows are zipped into one.
#pragma once
#include "../bind.h"
#include "../core/bf16_pairs.h"
#include "panels.h"

namespace genkern::cpu {
namespace {

template <typename E>
class Ring {
  using A = core::Accumulate<E>;
  using Shape = core::row_lstm::Shape<A>;
  static constexpr int64_t L = core::kLanes<A>, F = core::kFactor<E>;

 public:
  // `with_states`: for the gradient of the weight.
  Ring(const Tensor& like, const Shape& shape, int64_t images, int64_t slots, bool with_states)
      : shape_(shape),
        slots_(slots),
        pairs_(with_states && F > 1 ? slots / 2 : 0),
        gates_(like, images * slots * 4 * shape.state_size()),
        states_(like, with_states ? images * slots * shape.state_size() : 0),
        gate_pairs_(like, images * pairs_ * 4 * shape.state_size() * F),
        state_pairs_(like, images * pairs_ * shape.state_size() * F),
        d_cell_(like, images * shape.blocks() * shape.W * L) {
    for (int64_t panel = 0; panel < images * slots * shape.blocks(); ++panel) {
      clear_halo(gates_.get() + panel * shape.span() * 4 * L, 4 * L);
      if (with_states) clear_halo(states_.get() + panel * shape.span() * L, L);
    }
  }

  int64_t slots() const { return slots_; }
  int64_t pairs() const { return pairs_; }
  E* gates(int64_t image, int64_t r) const {
    return gates_.get() + slot(image, r) * 4 * shape_.state_size();
  }
  E* states(int64_t image, int64_t r) const {  // the state above row r
    return states_.get() + slot(image, r) * shape_.state_size();
  }
  A* d_cell(int64_t image, int64_t block) const {
    return d_cell_.get() + (image * shape_.blocks() + block) * shape_.W * L;
  }
  E* gate_pair(int64_t p) const { return gate_pairs_.get() + p * 4 * F * shape_.state_size(); }
  E* state_pair(int64_t p) const { return state_pairs_.get() + p * F * shape_.state_size(); }

  // Rows end > r >= begin of one image, two by two, or the first one and zeros.
  void pair_rows(int64_t image, int64_t begin, int64_t end) const {
    const int64_t size = shape_.state_size();
    for (int64_t r = end - 1, p = image * pairs_; r >= begin; r -= 2, ++p) {
      const bool alone = r == begin;
      zip(gates(image, r), alone ? nullptr : gates(image, r - 1), 4 * size, gate_pair(p));
      zip(states(image, r), alone ? nullptr : states(image, r - 1), size, state_pair(p));
    }
  }

 private:
  int64_t slot(int64_t image, int64_t r) const { return image * slots_ + r % slots_; }

  void clear_halo(E* panel, int64_t pixel) const {
    const int64_t halo = shape_.halo();
    std::fill_n(panel, halo * pixel, E{});
    std::fill_n(panel + (halo + shape_.W) * pixel, halo * pixel, E{});
  }

  static void zip(const E* first, const E* second, int64_t size, E* to) {
    for (int64_t i = 0; i < size; i += L) {
      const core::VecU factors =
          second ? core::zip_bits(first + i, second + i) : core::widen_bits(first + i);
      std::memcpy(to + 2 * i, &factors, sizeof(factors));
    }
  }

  Shape shape_;
  int64_t slots_, pairs_;
  Scratch<E> gates_, states_, gate_pairs_, state_pairs_;
  Scratch<A> d_cell_;
};

}  // namespace
}  // namespace genkern::cpu
