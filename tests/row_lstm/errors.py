"""How far the rounding errors of a Row LSTM carry: the scales of the bounds of its tests."""

import torch
import torch.nn.functional as F

from tests.core.tolerance import bound


def forward_errors(gates, K, h, c, own=1.0, fed=0.0):
    """For each row what the backward pass needs, and first-order rounding errors `e_`: a sum errs
    by the sum of its absolute terms, sigmoid passes on at most 1/4 of an error. In units of the
    roundings of every operation (``own``), or of those of a state when it is fed back (``fed``)."""
    k, rows = K.shape[2] // 2, []
    e_h, e_c = torch.zeros_like(h), torch.zeros_like(c)
    for r in range(gates.shape[2]):
        x = gates[:, :, r]
        e_gates = own * x.abs() + F.conv1d(own * h.abs() + e_h, K.abs(), padding=k)
        o, f, i, g = (x + F.conv1d(h, K, padding=k)).chunk(4, 1)
        o, f, i, g = o.sigmoid(), f.sigmoid(), i.sigmoid(), g.tanh()
        eo, ef, ei, eg = e_gates.chunk(4, 1)
        row = dict(o=o, f=f, i=i, g=g, eo=eo, ef=ef, ei=ei, eg=eg, h=h, e_h=e_h, c=c, e_c=e_c)
        e_c = f * e_c + c.abs() * (ef / 4 + own * f) + g.abs() * (ei / 4 + own * i) + i * eg
        c = f * c + i * g
        row["t"], row["e_t"] = c.tanh(), e_c
        h = o * c.tanh()
        row["e_out"] = o * e_c + row["t"].abs() * (eo / 4 + own * o)
        e_h = row["e_out"] + fed * h.abs()
        rows.append(row)
    return rows, row["e_out"], e_c


def backward_errors(rows, K, d_h, d_h_n, d_c_n, own=1.0, fed=0.0):
    """Magnitudes `a` of the gradients and their errors `b`, row by row from the last one; here
    ``fed`` are the roundings of the gates' gradients too."""
    k, weight, d_gates = K.shape[2] // 2, torch.zeros_like(K), []
    a_h, a_c = d_h_n.abs(), d_c_n.abs()
    b_h, b_c = torch.zeros_like(a_h), torch.zeros_like(a_c)
    for r in reversed(range(len(rows))):
        v = rows[r]
        o, f, i, g, t, c = (v[n] for n in ("o", "f", "i", "g", "t", "c"))
        a_h = a_h + d_h[:, :, r].abs()
        b_h = b_h + own * a_h
        b_c = b_c + b_h * o + a_h * (v["eo"] / 4 + 2 * o * v["e_t"])
        a_c = a_c + a_h * o * (1 - t * t)
        a = [a_h * t.abs() / 4, a_c * c.abs() / 4, a_c * g.abs() / 4, a_c * i]
        b = [b_h * t.abs() / 4 + a_h * (v["e_t"] + v["eo"]) / 4]
        b += [b_c * c.abs() / 4 + a_c * (v["e_c"] + c.abs() * v["ef"]) / 4]
        b += [b_c * g.abs() / 4 + a_c * (v["eg"] + v["ei"]) / 4]
        b += [b_c * i + a_c * (v["ei"] / 4 + 2 * v["eg"])]
        a, b = torch.cat(a, 1), torch.cat(b, 1)
        b = b + (own + fed) * a
        d_gates.append(b)
        outer = lambda x, y: torch.nn.grad.conv1d_weight(x, K.shape, y, padding=k)  # noqa: E731
        weight = weight + outer(v["h"].abs(), own * a + b) + outer(v["e_h"], a)
        a_h, b_h = (F.conv_transpose1d(x, K.abs(), padding=k) for x in (a, own * a + b))
        a_c, b_c = a_c * f, b_c * f + a_c * (v["ef"] / 4 + own * f)
    return torch.stack(d_gates[::-1], 2), weight, b_h, b_c


def error_scales(gates, K, states, upstream, **units):
    """Errors of h, h_n, c_n, and of the gradients of the four inputs."""
    if gates.numel() == 0:
        return [0.0] * 7
    zeros = torch.zeros_like(upstream[1])
    rows, e_h, e_c = forward_errors(gates, K, *(zeros if s is None else s for s in states), **units)
    values = [torch.stack([v["e_out"] for v in rows], 2), e_h, e_c]
    return [*values, *backward_errors(rows, K, *upstream, **units)]


class Stored(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.bfloat16().double()

    @staticmethod
    def backward(ctx, gradient):
        return gradient


class StoredGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        return gradient.bfloat16().double()


def stored_step(input_gates_row, h, c, weight_hh):
    """`reference.step` with the state and the gradients of the gates as bfloat16 results are."""
    sums = F.conv1d(Stored.apply(h), weight_hh, padding=weight_hh.shape[2] // 2)
    o, f, i, g = StoredGradient.apply(input_gates_row + sums).chunk(4, dim=1)
    c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
    return torch.sigmoid(o) * torch.tanh(c), c


def assert_nearly_all_close(got, want, *, terms, scale, name):
    # A float32 error turns the rounding of a state now and then, into an error of bfloat16.
    off = (got.double() - want).abs() > bound(want, got.dtype, terms, scale)
    assert off.sum() <= 1 + 0.01 * off.numel(), f"{name}: {int(off.sum())} of {off.numel()} off"
