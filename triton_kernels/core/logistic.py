"""One discretized logistic, as csrc/core/logistic.h."""

import triton
import triton.language as tl

from genkern.triton_kernels.core.elementary import exp, expm1_parts, log_normal_range

# Widths below which log(1 - e^-d) is log d; the product of three over four each is a normal number,
# and above what log_or_nothing takes for 0.
_NARROW, _NARROW_DOUBLE = tl.constexpr(2.0**-38), tl.constexpr(2.0**-300)
_LOG_NARROW, _LOG_NARROW_DOUBLE = (
    tl.constexpr(-26.33959286127792),
    tl.constexpr(-207.94415416798357),
)
_LEAST, _LEAST_DOUBLE = tl.constexpr(1e-37), tl.constexpr(1e-300)


@triton.jit
def decay(y):
    """e^-y and 1 - e^-y for y >= 0, neither by a difference."""
    e = exp(-y)
    m, _ = expm1_parts(-y, e)
    return e, -m


@triton.jit
def log_or_nothing(x):
    """log x for x in [0, 1e30]; of less than the normal range, -inf."""
    LEAST: tl.constexpr = _LEAST_DOUBLE if x.dtype == tl.float64 else _LEAST
    return tl.where(x < LEAST, float("-inf"), log_normal_range(tl.maximum(x, LEAST)))


@triton.jit
def log_bin(value, Z, raw, last):
    """linear and quotient of log P = linear + log(quotient); its slopes in mean and log-scale."""
    s = tl.maximum(raw, -7.0, propagate_nan=tl.PropagateNan.ALL)
    t = exp(-s)
    tau = t / last
    first = value == -last
    end = first | (value == last)
    away = tl.abs(Z)
    g = 1.0 - tl.where(end, tl.where(first, -Z, Z), away)
    far = g <= 0.0
    e, _ = decay(tau * tl.abs(g))
    NARROW: tl.constexpr = _NARROW_DOUBLE if s.dtype == tl.float64 else _NARROW
    LOG_NARROW: tl.constexpr = _LOG_NARROW_DOUBLE if s.dtype == tl.float64 else _LOG_NARROW
    width = tl.maximum(2.0 * tau, NARROW)
    d_rest, d_gone = decay(width)
    c_rest, c_gone = decay(2.0 * tau * away)
    other = tl.where(end, 0.0, e * tl.where(far, d_rest, c_rest))
    bottom = (1.0 + e) * (1.0 + other)
    top = tl.where(end, 1.0, d_gone)
    log_width = log_normal_range(2.0 / last + tl.zeros_like(s)) - s
    narrow = tl.minimum(log_width - LOG_NARROW, 0.0)
    linear = tl.where(far, tau * g, 0.0) + tl.where(end, 0.0, narrow)
    pull = tl.where(end, 1.0, c_gone) * tl.where(far, 1.0, e) / bottom
    both = tl.where(far, 1.0 + other * (2.0 + e), e + other * (1.0 + 2.0 * e)) / bottom
    spread = tau * both + width * d_rest / d_gone
    reach = tl.where(end, -g, away)
    reach = tl.maximum(tl.minimum(reach, 1e30), -1e30)  # infinite times no slope at all is none
    d_log_scale = tau * reach * pull - tl.where(end, 0.0, spread)
    d_log_scale = tl.where(raw < -7.0, 0.0, d_log_scale)
    negative = first | ((end == 0) & (Z < 0.0))
    return linear, top / bottom, t * tl.where(negative, -pull, pull), d_log_scale
