// y = every down-th value of gain f * pad(x with up - 1 zeros behind each value)
//                                                     Karras et al. 2020, StyleGAN2, appendix B
//
// The adjoint is the same with up and down exchanged, f reversed, and other padding. The loops, and
// how a row is cut into phases: core/fir.h.
#pragma once
#include "../core/fir.h"

namespace genkern::core {

struct FirAxes {
  FirAxis rows, columns;

  FirAxes adjoint() const { return {rows.adjoint(), columns.adjoint()}; }
};

}  // namespace genkern::core
