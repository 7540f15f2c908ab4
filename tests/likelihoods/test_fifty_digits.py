"""The likelihoods against an evaluation with 50 digits, at extreme inputs."""

import functools

import mpmath
import torch

import genkern

F64 = torch.float64


def slope(function, x):
    """The derivative, by a difference of so many digits that 30 are left."""
    h = mpmath.mpf(10) ** -40 * (1 + abs(x))
    return (function(x + h) - function(x - h)) / (2 * h)


def softplus(a):
    return mpmath.log(1 + mpmath.exp(a))


def log_quotient(a):
    return mpmath.log((mpmath.exp(a) - 1) / a) if a else mpmath.mpf(0)


def bernoulli(a, x, normaliser):
    f = lambda a: normaliser(a) - x * a  # noqa: E731
    return f(a), slope(f, a), -a


def gaussian(m, s, x):
    r = (x - m) * mpmath.exp(-s)
    nats = ((x - m) * r + s + mpmath.log(2 * mpmath.pi)) / 2
    return nats, -r, (1 - (x - m) * r) / 2


def logistic(m, s, v, levels):
    x, h = mpmath.mpf(2 * v) / (levels - 1) - 1, mpmath.mpf(1) / (levels - 1)

    def nll(m, s):
        t = mpmath.exp(-s)
        sigmoid = lambda z: 1 / (1 + mpmath.exp(-z))  # noqa: E731
        lower, upper = v == 0, v == levels - 1
        p, q = t * (x - m + h), t * (x - m - h)
        if p + q > 0:  # by symmetry on the left, where no difference is of numbers near 1
            p, q, lower, upper = -q, -p, upper, lower
        return -mpmath.log((1 if upper else sigmoid(p)) - (0 if lower else sigmoid(q)))

    return nll(m, s), slope(lambda m: nll(m, s), m), slope(lambda s: nll(m, s), s)


LOGITS = (-1e4, -100.0, -30.0, -3.0, -1.0, -0.99, -1e-2, -1e-6, -1e-30, 0.0, 1e-12, 1e-3, 0.7, 1.01,
          5.0, 60.0, 1e4)  # fmt: skip
LOGVARS = (-80.0, -40.0, -3.0, -1e-4, 0.0, 1.0, 33.0, 80.0)
DISTANCES = (0.0, 1e-12, 1e-3, -0.7, 3.0, -1e5)


def number(x):
    return mpmath.mpf(torch.tensor(x).item())


@functools.cache
def exact():
    """For each kind, arguments (rows of three) and nats, slopes (rows of three)."""
    found = {}
    with mpmath.workdps(120):  # differences of 1e-40 leave more than fifty
        args = [(a, x) for a in LOGITS for x in (0.0, 0.3, 0.5, 1.0)]
        for name, normaliser in (("bernoulli", softplus), ("continuous", log_quotient)):
            rows = [(a, 0.0, x) for a, x in args]
            found[name] = rows, [bernoulli(number(a), number(x), normaliser) for a, x in args]
        rows = [(0.25, s, 0.25 + d) for s in LOGVARS for d in DISTANCES]
        found["gaussian"] = rows, [gaussian(*map(number, row)) for row in rows]
        rows = [(m, s, v) for m in (-0.37, 0.998, 30.0) for s in (-7.0, -3.0, 0.0, 9.0)
                for v in (0, 1, 80, 254, 255)]  # fmt: skip
        values = [logistic(number(m), number(s), v, 256) for m, s, v in rows]
        found["logistic"] = rows, values
    as_tensors = {}
    for name, (rows, values) in found.items():
        numbers = [[float(y) for y in row] for row in values]
        as_tensors[name] = torch.tensor(rows), torch.tensor(numbers, dtype=F64)
    return as_tensors


def computed(name, rows, dtype):
    """nats and the two slopes that ``exact`` has."""
    location, scale, target = (rows[:, i : i + 1].to(dtype).requires_grad_() for i in range(3))
    if name == "gaussian":
        nats, wanted = genkern.gaussian_nll(location, scale, target), (location, scale)
    elif name == "logistic":
        v = target.detach().long()
        nats, wanted = genkern.discretized_logistic_nll(location, scale, v), (location, scale)
    else:
        nats = genkern.bernoulli_nll(location, target, continuous=name == "continuous")
        wanted = location, target
    grads = torch.autograd.grad(nats.sum(), wanted)
    return torch.cat([nats[:, None], *grads], 1).detach().double()


def test_every_likelihood_against_fifty_digits():
    """Of float32: a few ulp of the value, and of what an element's own cancellation leaves."""
    for name, (rows, want) in exact().items():
        got = computed(name, rows, torch.float32)
        # What passes through 0: densities of 1, the slope of a scale, the slope at the mean.
        m, s = rows[:, 0].double(), rows[:, 1].double()
        size = torch.full_like(want, 1e-3 if name == "bernoulli" else 1.0)
        if name == "bernoulli":  # nothing cancels but sigmoid - x, near 0
            size = torch.zeros_like(want)
            size[:, 1] = (rows[:, 2] % 1 != 0).double()
        if name == "continuous":  # relative to |a| around 0, where the density tends to 1
            size[:, 0] = m.abs().clamp(max=1)
        if name == "logistic":
            z = (2 * rows[:, 2].double() / 255 - 1 - m).abs()
            size = torch.stack([torch.ones_like(m), want[:, 1].abs(), 1 + z * (-s).exp()], 1)
        limit = 16 * 2**-23 * (want.abs() + size)
        if name == "logistic":
            limit[:, 1:] *= 8
        same = got == want.float().double()  # infinite beyond float32
        bad = ((got - want).abs() > limit + 1e-37) & ~same
        assert not bad.any(), (name, rows[bad.any(1)], got[bad.any(1)], want[bad.any(1)])


def test_float64_keeps_its_digits():
    for name, (rows, want) in exact().items():
        got = computed(name, rows, F64)
        if name == "gaussian":  # the rounded 0.25 + d is the same number in both
            assert torch.isfinite(got).all()
        error = (got - want).abs() / (1 + want.abs())
        assert error.max() < 1e-13, (name, error.max())
