"""Elementary functions of the kernels, in float32 and float64, of language built-ins alone.

`tl.exp` in float32 is ex2.approx of a rounded
product, whose error grows with |x|; the functions here keep a few ulp over the whole range.
libdevice is avoided: the interpreter has none.
"""

import torch
import triton
import triton.language as tl

from genkern import spec


def accumulator(dtype: torch.dtype) -> tl.dtype:
    """The type that values of ``dtype`` are computed in."""
    return getattr(tl, spec.dtype_name(spec.accumulation(dtype)))


@triton.jit
def exp(x):
    """e^x; float32 within 3 ulp, results below 2^-126 may be 0."""
    if x.dtype == tl.float64:
        return tl.exp(x)
    else:
        x = tl.maximum(x, -104.0, propagate_nan=tl.PropagateNan.ALL)
        x = tl.minimum(x, 89.0, propagate_nan=tl.PropagateNan.ALL)
        n = (x * 1.44269504 + 12582912.0) - 12582912.0  # x = n log 2 + r
        r = (x - n * 0.693359375) - n * -2.12194440e-4
        # Half of 2^n, so that n = 128 is representable.
        return (tl.exp(r) * tl.exp2(n - 1.0)) * 2.0


@triton.jit
def expm1_parts(x, e):
    """e^x - 1 and e^x - 1 - x, given e = e^x within a few ulp; float32 does not cancel around 0."""
    far = e - 1.0
    if x.dtype == tl.float64:
        # Kahan: (u - 1) x / log u, in which the error of u = e^x cancels.
        near = tl.where(far == 0.0, x, far * x / tl.log(tl.where(far == 0.0, 2.0, e)))
        em1 = tl.where(tl.abs(x) < 1.0, near, far)
        return em1, em1 - tl.where(x > 1e300, 1e300, x)
    else:
        p = 2.4801587e-5 * x + 1.9841270e-4
        p = p * x + 1.3888889e-3
        p = p * x + 8.3333333e-3
        p = p * x + 4.1666667e-2
        p = p * x + 1.6666667e-1
        p = p * x + 0.5
        rest = p * x * x
        is_near = tl.abs(x) < 0.5
        # The limit at +inf is +inf, and not inf - inf.
        far_rest = far - tl.minimum(x, 1e30, propagate_nan=tl.PropagateNan.ALL)
        return tl.where(is_near, rest + x, far), tl.where(is_near, rest, far_rest)


@triton.jit
def log_normal_range(x):
    """log x for positive, normal, finite x; float32 within 1 ulp."""
    if x.dtype == tl.float64:
        return tl.log(x)
    else:
        bits = x.to(tl.int32, bitcast=True)
        e = (bits - 0x3F3504F3) >> 23  # x = 2^e (1 + f), 1 + f in [sqrt(1/2), sqrt(2))
        f = (bits - (e << 23)).to(tl.float32, bitcast=True) - 1.0
        n = e.to(tl.float32)
        p = 7.0376836292e-2 * f - 1.1514610310e-1
        p = p * f + 1.1676998740e-1
        p = p * f - 1.2420140846e-1
        p = p * f + 1.4249322787e-1
        p = p * f - 1.6668057665e-1
        p = p * f + 2.0000714765e-1
        p = p * f - 2.4999993993e-1
        p = p * f + 3.3333331174e-1
        f2 = f * f
        y = p * f * f2 + n * -2.12194440e-4 - 0.5 * f2
        return f + y + n * 0.693359375


@triton.jit
def log1p_unit(x):
    """log(1 + x) for x in [0, 1]; float32 within 2 ulp."""
    u = 1.0 + x
    lost = (x - (u - 1.0)) / u  # what rounding 1 + x dropped
    return log_normal_range(u) + lost


@triton.jit
def _sinpi_cospi_quarter(r):
    """sin(pi r), cos(pi r) for r in [-1/4, 1/4]."""
    if r.dtype == tl.float64:
        x = r * 3.141592653589793
        x2 = x * x
        s = 2.8114572543455206e-15 * x2 - 7.647163731819816e-13  # Taylor, to x^17
        s = s * x2 + 1.6059043836821613e-10
        s = s * x2 - 2.505210838544172e-08
        s = s * x2 + 2.7557319223985893e-06
        s = s * x2 - 1.984126984126984e-04
        s = s * x2 + 8.333333333333333e-03
        s = s * x2 - 1.6666666666666666e-01
        s = s * x2 * x + x
        c = 4.779477332387385e-14 * x2 - 1.1470745597729725e-11  # to x^16
        c = c * x2 + 2.08767569878681e-09
        c = c * x2 - 2.755731922398589e-07
        c = c * x2 + 2.48015873015873e-05
        c = c * x2 - 1.388888888888889e-03
        c = c * x2 + 4.1666666666666664e-02
        c = c * x2 - 0.5
        return s, c * x2 + 1.0
    else:
        r2 = r * r
        s = 8.2145886e-2 * r2 - 5.9926453e-1
        s = s * r2 + 2.5501640
        s = s * r2 - 5.1677127
        s = (s * r2 - 8.7422777e-8) * r + 3.1415927 * r  # pi in two parts
        c = -2.5806880e-2 * r2 + 2.3533062e-1
        c = c * r2 - 1.3352628
        c = c * r2 + 4.0587121
        c = c * r2 - 4.9348022
        return s, c * r2 + 1.0


@triton.jit
def sincospi(t, DTYPE: tl.constexpr):
    """sin(pi t), cos(pi t) for float32 t in [-1, 1], computed in DTYPE; within 2 ulp."""
    shifted = 2.0 * t + 12582912.0
    q = shifted.to(tl.int32, bitcast=True) - 0x4B400000
    r = t - 0.5 * (shifted - 12582912.0)  # exact, in [-1/4, 1/4]
    s, c = _sinpi_cospi_quarter(r.to(DTYPE))
    is_swapped = (q & 1) != 0
    y = tl.where(is_swapped, c, s)
    x = tl.where(is_swapped, s, c)
    return tl.where((q & 2) != 0, -y, y), tl.where(((q + 1) & 2) != 0, -x, x)


@triton.jit
def normal_pair(a, b, DTYPE: tl.constexpr):
    """Box-Muller on two words: r cos(theta), r sin(theta), as `genkern.random.philox_normal`.

    r = sqrt(-2 log u), u = 2^-31 fl(a >> 1) + 2^-32, theta = pi 2^-31 fl(int32(b)).
    """
    u = (a >> 1).to(tl.int32).to(tl.float32) * 4.656612873077393e-10 + 2.3283064365386963e-10
    t = b.to(tl.int32, bitcast=True).to(tl.float32) * 4.656612873077393e-10
    radius = tl.sqrt(-2.0 * log_normal_range(u.to(DTYPE)))
    sine, cosine = sincospi(t, DTYPE)
    return radius * cosine, radius * sine


@triton.jit
def philox_words(seed, o_block):
    """The four words of Philox4x32-10 (Salmon et al. 2011) for the 64-bit counters `o_block`."""
    low = o_block.to(tl.uint32)
    high = (o_block >> 32).to(tl.uint32)
    zero = tl.zeros_like(low)
    return tl.philox(seed, low, high, zero, zero)


@triton.jit
def philox_normals(seed, o_block, DTYPE: tl.constexpr):
    """Normals (R, 4C) of the stream of `seed` for its blocks `o_block` (R, C)."""
    w0, w1, w2, w3 = philox_words(seed, o_block)
    n0, n1 = normal_pair(w0, w1, DTYPE)
    n2, n3 = normal_pair(w2, w3, DTYPE)
    b_normals = tl.join(tl.join(n0, n2), tl.join(n1, n3))
    return tl.reshape(b_normals, (o_block.shape[0], 4 * o_block.shape[1]))


@triton.jit
def philox_normals_at(seed, o_element, DTYPE: tl.constexpr):
    """Normals of the elements `o_element` of the stream, each from its own block: four times the
    work of `philox_normals`, for tiles that do not start at a block."""
    w0, w1, w2, w3 = philox_words(seed, o_element >> 2)
    upper = (o_element & 2) != 0
    even, odd = normal_pair(tl.where(upper, w2, w0), tl.where(upper, w3, w1), DTYPE)
    return tl.where((o_element & 1) != 0, odd, even)
