"""A stage of a step: products, and the pointwise operations on what they give.

    for (place : places of the stage in this step) for (image : images)
      for (u : units of the stage) {
        value[part] = bias + sum over k of weight[part * units + u, k] * x_k(place, image);
        values through a few operations; some are stored
      }

x_k, the k-th factor, is memory[base[k] + table[k][place] * slot[k] + image * image_stride[k]]: each
factor says where it stands, so that shifts, concatenations and rings of rows are one loop. Which
step it is stands in memory as well: a launch is the same for all of them.

What a stage does is known when the kernel is compiled (`Facts`), where everything stands is read
from the plan (triton_kernels/sampler/plan.py).
"""

import triton
import triton.language as tl

from genkern.triton_kernels.core.elementary import exp, expm1_parts
from genkern.triton_kernels.core.lstm import sigmoid, tanh

# As in csrc/sampler/plan.h.
LOAD, STORE, COPY, RELU, LEAKY_RELU, ELU, ELU_OF_MINUS, TANH, SIGMOID = map(tl.constexpr, range(9))
SILU, EXP, ADD, MUL, ADD_NUMBER, MUL_NUMBER, GATED, CELL, STATE = map(tl.constexpr, range(9, 18))
# Numbers of the plan: of a stage before its products, of a product, of an operation.
HEAD, OF_PRODUCT, OF_OPERATION = tl.constexpr(4), tl.constexpr(4), tl.constexpr(5)


@triton.jit
def address(p_tables, base, slot, image, table, place, n, mask):
    """Where the values of a place and an image stand; a table of -1: the same for every place."""
    at = tl.load(p_tables + table + place, mask & (table >= 0), 0)
    return base + at.to(tl.int64) * slot + n * image


@triton.jit
def gather(p_columns, count, o_k, m_k, place, n, m_row, p_tables, p_constants, p_cache,
           CONSTANTS: tl.constexpr, ACC: tl.constexpr):  # fmt: skip
    """Factors `o_k` (K,) of the rows `place`, `n` (R,), (R, K); `count` factors have columns."""
    mask = m_row[:, None] & m_k[None, :]
    base = tl.load(p_columns + o_k, m_k, 0)[None, :]
    slot = tl.load(p_columns + count + o_k, m_k, 0)[None, :]
    image = tl.load(p_columns + 2 * count + o_k, m_k, 0)[None, :]
    table = tl.load(p_columns + 3 * count + o_k, m_k, -1)[None, :]
    o = address(p_tables, base, slot, image, table, place[:, None], n[:, None], mask)
    if CONSTANTS:
        constant = tl.load(p_columns + 4 * count + o_k, m_k, 0)[None, :] != 0
        x = tl.load(p_constants + o, mask & constant, 0.0).to(ACC)
        return tl.where(constant, x, tl.load(p_cache + o, mask & (constant == 0), 0.0).to(ACC))
    else:
        return tl.load(p_cache + o, mask, 0.0).to(ACC)


@triton.jit
def _product(p_own, units, o_unit, m_unit, place, n, m_row, p_plan, p_tables, p_weights,
             p_constants, p_cache, P: tl.constexpr, F: tl.constexpr, T: tl.constexpr):  # fmt: skip
    """A block of units of every part: a tuple of (R, U)."""
    p_weights += tl.load(p_own)
    count = tl.load(p_own + 1)
    bias = tl.load(p_own + 2)
    p_columns = p_plan + tl.load(p_own + 3)
    PARTS: tl.constexpr = P.PARTS
    sums = ()
    for part in tl.static_range(PARTS):
        first = tl.zeros((T.rows, T.units), F.ACC)
        if P.BIAS:
            b = tl.load(p_weights + bias + part * units + o_unit, m_unit, 0.0).to(F.ACC)
            first += b[None, :]
        sums = sums + (first,)  # noqa: RUF005
    for start in range(0, count, T.step):
        o_k = start + tl.arange(0, T.step)
        m_k = o_k < count
        x = gather(p_columns, count, o_k, m_k, place, n, m_row, p_tables, p_constants, p_cache,
                   P.CONSTANTS, F.ACC)  # fmt: skip
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
def _elu(x, a):
    em1, _ = expm1_parts(x, exp(x))
    return tl.where(x > 0.0, x, a * em1)


@triton.jit
def _function(x, y, z, w, a, CODE: tl.constexpr):
    """Of values x, y, z, w and a number a."""
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
    else:
        tl.static_assert(CODE == STATE)
        return sigmoid(x) * tanh(y)


@triton.jit
def _memory(p_own, p_tables, o_unit, place, n, m):
    """Offsets (R, U) of the operation's own memory."""
    base, slot = tl.load(p_own), tl.load(p_own + 1)
    image, table = tl.load(p_own + 2), tl.load(p_own + 3)
    at = address(p_tables, base, slot, image, table, place[:, None], n[:, None], m)
    return at + o_unit[None, :]


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
            p_constants, p_cache, F.PRODUCTS[i], F, T,
        )  # fmt: skip
        p_own += OF_PRODUCT
    for i in tl.static_range(STEPS):
        A: tl.constexpr = F.OPERATIONS[i]
        if A.CODE == LOAD:
            p_from = p_constants if A.CONSTANT else p_cache
            o = _memory(p_own, p_tables, o_unit, place, n, m)
            values = values + (tl.load(p_from + o, m, 0.0).to(F.ACC),)  # noqa: RUF005
        elif A.CODE == STORE:
            o = _memory(p_own, p_tables, o_unit, place, n, m)
            tl.store(p_cache + o, values[A.X].to(p_cache.dtype.element_ty), m)
        else:
            a = tl.load(p_constants + tl.load(p_own + 4)).to(F.ACC)
            values = values + (  # noqa: RUF005
                _function(values[A.X], values[A.Y], values[A.Z], values[A.W], a, A.CODE),
            )
        p_own += OF_OPERATION


@triton.jit(do_not_specialize=["at", "N", "wave"])
def sampler_stage_kernel(
    p_step, p_plan, p_tables, p_weights, p_constants, p_cache,
    at: tl.int64, N: tl.int64, wave: tl.int64, F: tl.constexpr, T: tl.constexpr,
):  # fmt: skip
    """`at`: where the stage begins in the plan. Rows are the images of the first place, and so on;
    of a stage with waves, those of one of them."""
    step = tl.load(p_step)
    p_own = p_plan + at
    units, places = tl.load(p_own), tl.load(p_own + 1)
    p_ends = p_tables + tl.load(p_own + 2) + step
    begin = tl.load(p_ends).to(tl.int64)
    rows = (tl.load(p_ends + 1).to(tl.int64) - begin) * N
    blocks = tl.cdiv(units, T.units)
    i = tl.program_id(0).to(tl.int64)
    o_row = (i // blocks) * T.rows + tl.arange(0, T.rows)
    o_unit = (i % blocks) * T.units + tl.arange(0, T.units)
    m_row = o_row < rows
    o_place = begin + o_row // N
    if F.WAVES:
        m_row = m_row & (tl.load(p_tables + tl.load(p_own + 3) + o_place, m_row, -1) == wave)
    if tl.max(m_row.to(tl.int32), 0) > 0:
        place = tl.load(p_tables + places + o_place, m_row, 0).to(tl.int64)
        _rows(p_own + HEAD, units, o_unit, place, o_row % N, m_row, p_plan, p_tables, p_weights,
              p_constants, p_cache, F, T)  # fmt: skip
