"""Activations with their first and second derivatives. Formulas: csrc/core/activation.h."""

import triton
import triton.language as tl

from genkern.triton_kernels.core.elementary import exp, expm1_parts, log1p_unit


@triton.jit
def _normal_tail(a, e):
    """The normal distribution function of -a for a >= 0, given e = exp(-a^2 / 2)."""
    if a.dtype == tl.float64:
        u = 1.0 / (1.0 + 0.25 * a)
        w = u + u - 1.0
        p = 1.92099155686640542e-9 * w - 3.29330822513005794e-9
        p = p * w - 1.53745011308721756e-8
        p = p * w + 3.73169532544881381e-8
        p = p * w + 6.12499366981973254e-8
        p = p * w - 2.53197785303296876e-7
        p = p * w - 1.52770310520023399e-7
        p = p * w + 1.47839794604702178e-6
        p = p * w + 1.77082958061439486e-7
        p = p * w - 8.7854547102318626e-6
        p = p * w - 4.76460431564352207e-7
        p = p * w + 0.0000577735465462254894
        p = p * w + 0.0000333359675202329725
        p = p * w - 0.000407704585817508979
        p = p * w - 0.000869923079858410902
        p = p * w + 0.00188504723933542056
        p = p * w + 0.0150991437220557767
        p = p * w + 0.0466304644900009028
        p = p * w + 0.096784350185568879
        p = p * w + 0.151974160492972106
        p = p * w + 0.188821282603937816
        return p * u * e
    else:
        u = 1.0 / (1.0 + 0.35 * a)
        w = u + u - 1.0
        p = -0.0001162907773 * w + 0.0002177278608
        p = p * w + 0.0006909763345
        p = p * w - 0.001757404303
        p = p * w - 0.005108517589
        p = p * w + 0.01023458733
        p = p * w + 0.07109886534
        p = p * w + 0.1714957586
        p = p * w + 0.253244279
        return p * u * e


@triton.jit
def bounded(z, limit):
    z = tl.minimum(z, limit, propagate_nan=tl.PropagateNan.ALL)
    return tl.maximum(z, -limit, propagate_nan=tl.PropagateNan.ALL)


@triton.jit
def _logistic(z):
    """sigmoid(z), its slope and its curvature."""
    e = exp(-tl.abs(z))
    r = 1.0 / (1.0 + e)
    m, _ = expm1_parts(-tl.abs(z), e)
    bend = e * r * r * r * m
    return tl.where(z < 0.0, e * r, r), e * r * r, tl.where(z < 0.0, -bend, bend)


@triton.jit
def jet(z, alpha, ACT: tl.constexpr):
    """Value, slope and curvature of an activation, by its place among the names."""
    positive = z > 0.0
    one = tl.where(positive, 1.0, 1.0).to(z.dtype)
    zero = one - one
    if ACT == 0:
        return z, one, zero
    elif ACT == 1:
        value = tl.maximum(z, 0.0, propagate_nan=tl.PropagateNan.ALL)
        return value, tl.where(positive, one, zero), zero
    elif ACT == 2:
        return tl.where(positive, z, alpha * z), tl.where(positive, one, alpha * one), zero
    elif ACT == 3:
        e = exp(-2.0 * tl.abs(z))
        m, _ = expm1_parts(-2.0 * tl.abs(z), e)
        q = 1.0 / (1.0 + e)
        t = tl.where(z < 0.0, m, -m) / (2.0 + m)
        return t, 4.0 * e * q * q, -8.0 * t * e * q * q
    elif ACT == 4:
        return _logistic(z)
    elif ACT == 5:
        e = exp(-tl.abs(z))
        m, _ = expm1_parts(-tl.abs(z), e)
        return tl.where(positive, z, m), tl.where(positive, one, e), tl.where(z >= 0.0, zero, e)
    elif ACT == 6:  # the interpreter rounds numbers that have names to float32
        e = 1.7580993408473766 * exp(-tl.abs(z))
        m, _ = expm1_parts(-tl.abs(z), exp(-tl.abs(z)))
        value = tl.where(positive, 1.0507009873554805 * z, 1.7580993408473766 * m)
        slope = tl.where(positive, 1.0507009873554805 * one, e)
        return value, slope, tl.where(z >= 0.0, zero, e)
    elif ACT == 7:
        s, slope, _ = _logistic(z)
        above = tl.maximum(z, 0.0, propagate_nan=tl.PropagateNan.ALL)
        return above + log1p_unit(exp(-tl.abs(z))), s, slope
    elif ACT == 8:
        limit = 746.0 if z.dtype == tl.float64 else 104.0  # beyond it inf * 0 must not come up
        x = bounded(z, limit)
        s, slope, bend = _logistic(x)
        low = tl.maximum(z, -limit, propagate_nan=tl.PropagateNan.ALL)
        return low * s, s + x * slope, 2.0 * slope + x * bend
    else:
        x = bounded(z, 39.0 if z.dtype == tl.float64 else 15.0)
        a = tl.abs(x)
        e = exp(-0.5 * a * a)
        tail = _normal_tail(a, e)
        density = 0.3989422804014327 * e
        value = tl.where(positive, z - a * tail, -a * tail)
        return value, tl.where(positive, 1.0 - tail, tail) + x * density, density * (2.0 - x * x)
