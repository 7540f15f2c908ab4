"""How far the rounding errors of a Diagonal LSTM carry: the scales of the bounds of its tests."""

import torch
import torch.nn.functional as F

# Sums err by the sum of their absolute terms, sigmoid passes on at most 1/4 of an error: first
# order, in units of one rounding.


def forward_errors(gates, K, h, c):
    """For each diagonal what the backward pass needs, and the errors `e_` of what comes out; the
    states (N, h, H) hold of each row the pixel that came last."""
    _, _, H, W = gates.shape
    diagonals, e_h, e_c = [], torch.zeros_like(h), torch.zeros_like(c)
    for t in range(H + W - 1):
        top, end = max(0, t - W + 1), min(H, t + 1)
        r, now = torch.arange(top, end), slice(top, end)
        x = gates[:, :, r, t - r]
        before = lambda s: F.pad(s, (1, 0))[:, :, top : end + 1]  # noqa: B023, E731
        e_gates = x.abs() + F.conv1d(before(h.abs() + e_h), K.abs())
        o, f, i, g = (x + F.conv1d(before(h), K)).chunk(4, 1)
        o, f, i, g = o.sigmoid(), f.sigmoid(), i.sigmoid(), g.tanh()
        eo, ef, ei, eg = e_gates.chunk(4, 1)
        v = dict(r=r, now=now, o=o, f=f, i=i, g=g, eo=eo, ef=ef, ei=ei, eg=eg)
        v |= dict(
            h=F.pad(h, (1, 0)), e_h=F.pad(e_h, (1, 0)), c=c[:, :, now], c_error=e_c[:, :, now]
        )
        h, c, e_h, e_c = h.clone(), c.clone(), e_h.clone(), e_c.clone()
        e_c[:, :, now] = (
            f * v["c_error"] + v["c"].abs() * (ef / 4 + f) + g.abs() * (ei / 4 + i) + i * eg
        )
        c[:, :, now] = f * v["c"] + i * g
        v["t"], v["e_t"] = c[:, :, now].tanh(), e_c[:, :, now]
        h[:, :, now] = o * v["t"]
        e_h[:, :, now] = v["e_out"] = o * v["e_t"] + v["t"].abs() * (eo / 4 + o)
        diagonals.append(v)
    return diagonals


def backward_errors(diagonals, K, d_h):
    """Magnitudes `a` of the gradients and their errors `b`, from the last diagonal to the first."""
    N, hidden, H, _ = d_h.shape
    d_gates = d_h.new_zeros(N, 4 * hidden, *d_h.shape[2:])
    weight, a_h = torch.zeros_like(K), d_h.new_zeros(N, hidden, H)
    b_h, a_c, b_c = torch.zeros_like(a_h), torch.zeros_like(a_h), torch.zeros_like(a_h)
    for t in reversed(range(len(diagonals))):
        v = diagonals[t]
        o, f, i, g, tanh, c, now, r = (v[n] for n in ("o", "f", "i", "g", "t", "c", "now", "r"))
        of_h = a_h[:, :, now] + d_h[:, :, r, t - r].abs()
        e_of_h = b_h[:, :, now] + of_h
        of_c = a_c[:, :, now] + of_h * o * (1 - tanh * tanh)
        e_of_c = b_c[:, :, now] + e_of_h * o + of_h * (v["eo"] / 4 + 2 * o * v["e_t"])
        a = [of_h * tanh.abs() / 4, of_c * c.abs() / 4, of_c * g.abs() / 4, of_c * i]
        b = [e_of_h * tanh.abs() / 4 + of_h * (v["e_t"] + v["eo"]) / 4]
        b += [e_of_c * c.abs() / 4 + of_c * (v["c_error"] + c.abs() * v["ef"]) / 4]
        b += [e_of_c * g.abs() / 4 + of_c * (v["eg"] + v["ei"]) / 4]
        b += [e_of_c * i + of_c * (v["ei"] / 4 + 2 * v["eg"])]
        a, b = torch.cat(a, 1), torch.cat(b, 1)
        b = b + a
        d_gates[:, :, r, t - r] = b
        a, b = (F.pad(x, (now.start, H - now.stop)) for x in (a, b))
        outer = lambda x, y: torch.nn.grad.conv1d_weight(x, K.shape, y)  # noqa: E731
        weight = weight + outer(v["h"].abs(), a + b) + outer(v["e_h"], a)
        a_h[:, :, now], b_h[:, :, now] = 0.0, 0.0
        a_h = a_h + F.conv_transpose1d(a, K.abs())[:, :, 1:]
        b_h = b_h + F.conv_transpose1d(a + b, K.abs())[:, :, 1:]
        a_c[:, :, now], b_c[:, :, now] = of_c * f, e_of_c * f + of_c * (v["ef"] / 4 + f)
    return d_gates, weight, b_h, b_c


def error_scales(gates, K, states, d_h, reverse):
    """Errors of h, and of the gradients of the four inputs."""
    if d_h.numel() == 0:
        return [0.0] * 5
    if reverse:
        h, d_gates, *rest = error_scales(gates.flip(3), K, states, d_h.flip(3), False)
        return [h.flip(3), d_gates.flip(3), *rest]
    zeros = d_h.new_zeros(d_h.shape[:3])
    diagonals = forward_errors(gates, K, *(zeros if s is None else s for s in states))
    e_h = torch.zeros_like(d_h)
    for t, v in enumerate(diagonals):
        e_h[:, :, v["r"], t - v["r"]] = v["e_out"]
    return [e_h, *backward_errors(diagonals, K, d_h)]
