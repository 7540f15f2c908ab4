"""A stage of a step: products, and the pointwise operations on what they give.

    for (place : places of the stage in this step) for (image : images)
      for (u : units of the stage) {
        value[part] = bias + sum over k of weight[part * units + u, k] * x_k(place, image);
        values through a few operations; some are stored
      }

x_k, the k-th factor, is memory[base[k] + table[k][place] * slot[k] + image * image_stride[k]]: each
factor says where it stands, so that shifts, concatenations and rings of rows are one loop. Places
may have weights of their own. Which step it is stands in memory as well: a launch is the same for
all of them.

What a stage does is known when the kernel is compiled (`Facts`), where everything stands is read
from the plan (triton_kernels/sampler/plan.py).
"""

import triton
import triton.language as tl

from genkern.triton_kernels.core.elementary import exp, expm1_parts, log1p_unit
from genkern.triton_kernels.core.lstm import sigmoid, tanh

# As in csrc/sampler/plan.h.
LOAD, STORE, COPY, RELU, LEAKY_RELU, ELU, ELU_OF_MINUS, TANH, SIGMOID = map(tl.constexpr, range(9))
SILU, EXP, ADD, MUL, ADD_NUMBER, MUL_NUMBER, GATED, CELL, STATE = map(tl.constexpr, range(9, 18))
GELU, SOFTPLUS, AT_LEAST, AT_MOST, SELECT, TRUNC, ROUND = map(tl.constexpr, range(18, 25))
SQRT, RECIPROCAL, LOOKUP = map(tl.constexpr, range(25, 28))
# Numbers of the plan: of a stage before its products, of a product, of an operation.
HEAD, OF_PRODUCT, OF_OPERATION = tl.constexpr(4), tl.constexpr(4), tl.constexpr(7)


@triton.jit
def gather(p_columns, count, o_k, m_k, place, n, m_row, p_tables, p_constants, p_cache,
           CONSTANTS: tl.constexpr, STRIDES: tl.constexpr, ACC: tl.constexpr):  # fmt: skip
    """Factors `o_k` (K,) of the rows `place`, `n` (R,), (R, K); `count` factors have columns.
    STRIDES: a place has several entries in the tables."""
    mask = m_row[:, None] & m_k[None, :]
    base = tl.load(p_columns + o_k, m_k, 0)[None, :]
    slot = tl.load(p_columns + count + o_k, m_k, 0)[None, :]
    image = tl.load(p_columns + 2 * count + o_k, m_k, 0)[None, :]
    table = tl.load(p_columns + 3 * count + o_k, m_k, -1)[None, :]
    at = place[:, None]
    if STRIDES:
        at = at * tl.load(p_columns + 5 * count + o_k, m_k, 0)[None, :]
    # A table of -1: the same for every place.
    at = tl.load(p_tables + table + at, mask & (table >= 0), 0).to(tl.int64)
    o = base + at * slot + n[:, None] * image
    if CONSTANTS:
        constant = tl.load(p_columns + 4 * count + o_k, m_k, 0)[None, :] != 0
        x = tl.load(p_constants + o, mask & constant, 0.0).to(ACC)
        return tl.where(constant, x, tl.load(p_cache + o, mask & (constant == 0), 0.0).to(ACC))
    else:
        return tl.load(p_cache + o, mask, 0.0).to(ACC)


@triton.jit
def _product(p_own, units, o_unit, m_unit, place, n, m_row, p_plan, p_tables, p_weights,
             p_constants, p_cache, WHICH: tl.constexpr, F: tl.constexpr,
             T: tl.constexpr):  # fmt: skip
    """A block of units of every part: a tuple of (R, U)."""
    P: tl.constexpr = F.PRODUCTS[WHICH]
    PARTS: tl.constexpr = P.PARTS
    R: tl.constexpr = T.rows
    U: tl.constexpr = T.units
    K: tl.constexpr = T.step
    count = tl.load(p_own + 1)
    p_columns = p_plan + tl.load(p_own + 3)
    p_bias = p_weights + tl.load(p_own + 2)
    p_weights += tl.load(p_own)
    if P.BY_PLACE:  # all rows are of one
        channels = tl.max(place, 0) * PARTS * units
        p_weights += channels * count
        p_bias += channels
    sums = ()
    for part in tl.static_range(PARTS):
        first = tl.zeros((R, U), F.ACC)
        if P.BIAS:
            b = tl.load(p_bias + part * units + o_unit, m_unit, 0.0).to(F.ACC)
            first += b[None, :]
        sums = sums + (first,)  # noqa: RUF005
    for start in range(0, count, K):
        o_k = start + tl.arange(0, K)
        m_k = o_k < count
        x = gather(p_columns, count, o_k, m_k, place, n, m_row, p_tables, p_constants, p_cache,
                   P.CONSTANTS, P.BY_PLACE, F.ACC)  # fmt: skip
        more = ()
        for part in tl.static_range(PARTS):
            o = (part * units + o_unit)[None, :] * count + o_k[:, None]
            w = tl.load(p_weights + o, m_unit[None, :] & m_k[:, None], 0.0).to(F.ACC)
            more = more + (  # noqa: RUF005
                tl.dot(x, w, sums[part], input_precision=F.PRECISION, out_dtype=F.ACC),
            )
        sums = more
    return sums


@triton.jit
def _to_integers(x, NEAREST: tl.constexpr):
    """Towards zero, or to the nearest and even one; what is large has no fraction."""
    y = x.to(tl.float64)
    if NEAREST:
        y = (y + 6755399441055744.0) - 6755399441055744.0
    else:
        y = y.to(tl.int64).to(tl.float64)
    return tl.where(tl.abs(x) < 2147483648.0, y.to(x.dtype), x)


@triton.jit
def _elu(x, a):
    em1, _ = expm1_parts(x, exp(x))
    return tl.where(x > 0.0, x, a * em1)


@triton.jit
def _function(values, a, WHICH: tl.constexpr, F: tl.constexpr):
    """Of values x, y, z, w and a number a."""
    A: tl.constexpr = F.OPERATIONS[WHICH]
    CODE: tl.constexpr = A.CODE
    x, y, z, w = values[A.X], values[A.Y], values[A.Z], values[A.W]
    if CODE == COPY:
        return x
    elif CODE == RELU:
        return tl.where(x < 0.0, 0.0, x)
    elif CODE == LEAKY_RELU:
        return tl.where(x > 0.0, x, a * x)
    elif CODE == ELU:
        return _elu(x, a)
    elif CODE == ELU_OF_MINUS:
        return _elu(-x, a)
    elif CODE == TANH:
        return tanh(x)
    elif CODE == SIGMOID:
        return sigmoid(x)
    elif CODE == SILU:
        return x * sigmoid(x)
    elif CODE == EXP:
        return exp(x)
    elif CODE == ADD:
        return x + a * y
    elif CODE == MUL:
        return x * y
    elif CODE == ADD_NUMBER:
        return x + a
    elif CODE == MUL_NUMBER:
        return x * a
    elif CODE == GATED:
        return tanh(x) * sigmoid(y)
    elif CODE == CELL:
        return sigmoid(x) * w + sigmoid(y) * tanh(z)
    elif CODE == STATE:
        return sigmoid(x) * tanh(y)
    elif CODE == GELU:
        return 0.5 * x * (1.0 + tl.erf(x * 0.7071067811865476))
    elif CODE == SOFTPLUS:
        return tl.where(x > a, x, tl.where(x > 0.0, x, 0.0) + log1p_unit(exp(-tl.abs(x))))
    elif CODE == AT_LEAST:
        return tl.where(x < a, a, x)
    elif CODE == AT_MOST:
        return tl.where(x > a, a, x)
    elif CODE == SELECT:
        return tl.where(x > 0.0, y, z)
    elif CODE == TRUNC:
        return _to_integers(x, False)
    elif CODE == ROUND:
        return _to_integers(x, True)
    elif CODE == SQRT:
        return tl.sqrt(x)
    else:
        tl.static_assert(CODE == RECIPROCAL)
        return 1.0 / x


@triton.jit
def _memory(p_own, p_tables, o_unit, place, n, m_row):
    """Offsets (R, U) of the operation's own memory."""
    base, slot = tl.load(p_own), tl.load(p_own + 1)
    image, table = tl.load(p_own + 2), tl.load(p_own + 3)
    at = tl.load(p_tables + table + place, m_row & (table >= 0), 0).to(tl.int64)
    return (base + at * slot + n * image)[:, None] + o_unit[None, :]


@triton.jit
def _look_up(p_own, p_from, p_constants, p_tables, o_unit, place, n, m_row, m):
    """Rows of constants that the channel in the operation's memory names; NaN: the first one."""
    o = _memory(p_own, p_tables, o_unit * 0, place, n, m_row)
    name = tl.load(p_from + o, m, 0.0)
    last = (tl.load(p_own + 6) - 1).to(tl.float32)
    row = tl.where(name > 0.0, tl.where(name < last, name, last), 0.0).to(tl.int64)
    return tl.load(p_constants + tl.load(p_own + 4) + row * tl.load(p_own + 5) + o_unit, m, 0.0)


@triton.jit
def _rows(p_own, units, o_unit, place, n, m_row, p_plan, p_tables, p_weights, p_constants, p_cache,
          F: tl.constexpr, T: tl.constexpr):  # fmt: skip
    m_unit = o_unit < units
    m = m_row[:, None] & m_unit[None, :]
    COUNT: tl.constexpr = F.COUNT
    STEPS: tl.constexpr = F.STEPS
    values = ()
    for i in tl.static_range(COUNT):
        values = values + _product(
            p_own, units, o_unit, m_unit, place, n, m_row, p_plan, p_tables, p_weights,
            p_constants, p_cache, i, F, T,
        )  # fmt: skip
        p_own += OF_PRODUCT
    for i in tl.static_range(STEPS):
        p_from = p_constants if F.OPERATIONS[i].CONSTANT else p_cache
        if F.OPERATIONS[i].CODE == LOAD:
            o = _memory(p_own, p_tables, o_unit, place, n, m_row)
            values = values + (tl.load(p_from + o, m, 0.0).to(F.ACC),)  # noqa: RUF005
        elif F.OPERATIONS[i].CODE == STORE:
            o = _memory(p_own, p_tables, o_unit, place, n, m_row)
            tl.store(p_cache + o, values[F.OPERATIONS[i].X].to(p_cache.dtype.element_ty), m)
        elif F.OPERATIONS[i].CODE == LOOKUP:
            x = _look_up(p_own, p_from, p_constants, p_tables, o_unit, place, n, m_row, m)
            values = values + (x.to(F.ACC),)  # noqa: RUF005
        else:
            a = tl.load(p_constants + tl.load(p_own + 4)).to(F.ACC)
            values = values + (_function(values, a, i, F),)  # noqa: RUF005
        p_own += OF_OPERATION


@triton.jit(do_not_specialize=["at", "N", "wave"])
def sampler_stage_kernel(
    p_step, p_plan, p_tables, p_weights, p_constants, p_cache,
    at: tl.int64, N: tl.int64, wave: tl.int64, F: tl.constexpr, T: tl.constexpr,
):  # fmt: skip
    """`at`: where the stage begins in the plan. Rows are the images of the first place, and so on;
    of a stage with waves, those of one of them."""
    R: tl.constexpr = T.rows
    U: tl.constexpr = T.units
    step = tl.load(p_step)
    p_own = p_plan + at
    units, places = tl.load(p_own), tl.load(p_own + 1)
    p_ends = p_tables + tl.load(p_own + 2) + step
    begin, end = tl.load(p_ends).to(tl.int64), tl.load(p_ends + 1).to(tl.int64)
    blocks = tl.cdiv(units, U)
    i_unit = tl.program_id(0).to(tl.int64) % blocks
    i_row = tl.program_id(0).to(tl.int64) // blocks
    if F.BY_PLACE:  # a place at a time: it has weights of its own
        each = tl.cdiv(N, R)
        n = (i_row % each) * R + tl.arange(0, R)
        o_place = begin + i_row // each + 0 * n
        m_row = (n < N) & (o_place < end)
    else:
        o_row = i_row * R + tl.arange(0, R)
        n = o_row % N
        o_place = begin + o_row // N
        m_row = o_place < end
    if F.WAVES:
        m_row = m_row & (tl.load(p_tables + tl.load(p_own + 3) + o_place, m_row, -1) == wave)
    if tl.max(m_row.to(tl.int32), 0) > 0:
        o_unit = i_unit * U + tl.arange(0, U)
        place = tl.load(p_tables + places + o_place, m_row, 0).to(tl.int64)
        _rows(p_own + HEAD, units, o_unit, place, n, m_row, p_plan, p_tables, p_weights,
              p_constants, p_cache, F, T)  # fmt: skip
