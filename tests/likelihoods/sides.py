"""Both sides of a comparison of likelihoods: the op and its definition, and how far apart they may
be; their second derivatives."""

import torch

import genkern
from genkern.reference import likelihoods as reference
from tests.core.helpers import double
from tests.core.tolerance import assert_close

F64 = torch.float64


def fused(kind, target=None, mask=None, levels=16, fixed=0.0):
    """From (location, scale, target) to nats; integers and the mask belong to the call."""

    def call(location, scale, real):
        at = lambda t: t if t is None else t.to(location.device)  # noqa: E731
        if kind == "gaussian":
            logvar = fixed if scale is None else scale
            return genkern.gaussian_nll(location, logvar, real, mask=at(mask))
        if kind == "logistic":
            return genkern.discretized_logistic_nll(
                location, scale, at(target), levels=levels, mask=at(mask)
            )
        continuous = kind == "continuous"
        return genkern.bernoulli_nll(location, real, continuous=continuous, mask=at(mask))

    return call


def number(value, like):
    return torch.tensor(value, dtype=like.dtype, device=like.device)


def plain(kind, target=None, mask=None, levels=16, fixed=0.0, ref=reference):
    """The same of the reference; float64."""

    def call(location, scale, real):
        at = lambda t: t if t is None else t.to(location.device)  # noqa: E731
        if kind == "gaussian":
            logvar = number(fixed, location) if scale is None else scale
            return ref.per_item(ref.gaussian, location, logvar, real, at(mask))
        if kind == "logistic":
            function = lambda m, s, v: ref.discretized_logistic(m, s, v, levels)  # noqa: E731
            return ref.per_item(function, location, scale, at(target), at(mask))
        function = lambda a, _, x: ref.bernoulli(a, x, kind == "continuous")  # noqa: E731
        return ref.per_item(function, location, None, real, at(mask))

    return call


def sizes_of(kind, location, scale, target, levels):
    """Of an element: nats and slopes in absolute values, each as the sum of what is rounded."""
    if kind in ("bernoulli", "continuous"):
        wrong = torch.where(location > 0, 1 - target, target).abs()
        size, rest = location.abs(), torch.exp(-location.abs())
        if kind == "bernoulli":
            return wrong * size + rest, wrong + rest, None, size
        # Absolute ones: densities pass through 1.
        return wrong * size + torch.log1p(size), wrong + 1 / (1 + size), None, size
    if kind == "gaussian":
        inverse = torch.exp(-0.5 * scale)
        u = ((target - location) * inverse).abs() * (1 + scale.abs())
        return u.square() + scale.abs() + 1, u * inverse, 1 + u.square(), u * inverse
    x = (2 * target.to(F64) - (levels - 1)) / (levels - 1)
    t = torch.exp(-scale.clamp(min=reference.MIN_LOG_SCALE))
    nats = 2 + (x.abs() + location.abs()) * t + scale.abs()
    return nats, t * nats, 2 + nats, None


def second(function, inputs, upstream, directions):
    """Gradients in upstream and inputs of the gradients along ``directions``."""
    leaves = [x if x is None else x.detach().requires_grad_() for x in (upstream, *inputs)]
    wanted = [x for x in leaves if x is not None]
    found = torch.autograd.grad(
        function(*leaves[1:]), wanted[1:], leaves[0], create_graph=True, materialize_grads=True
    )
    pairs = [(y, v) for y, v in zip(found, directions, strict=True) if y.requires_grad]
    ys, vs = zip(*pairs, strict=True)
    return torch.autograd.grad(ys, wanted, vs, allow_unused=True, materialize_grads=True)


def bends_of(kind, location, scale, target, levels, g, v):
    """Of an element: what double backward adds to each of upstream, location, scale and target in
    absolute values, as the sum of what is rounded; v has 0 for what has no direction."""
    _, d_m, d_s, d_x = sizes_of(kind, location, scale, target, levels)
    v_m, v_s, v_x = (x.abs() for x in v)
    if kind in ("bernoulli", "continuous"):
        density = torch.exp(-location.abs()) if kind == "bernoulli" else 1 / (1 + location.square())
        return v_m * d_m + v_x * d_x, g * (v_m * density + v_x), None, g * v_m
    if kind == "gaussian":
        inverse = torch.exp(-0.5 * scale) * (1 + scale.abs())
        u = ((target - location) * inverse).abs()
        along = (v_m + v_x) * inverse
        of_m = g * inverse * (along + u * v_s)
        return v_s * (1 + u.square()) + u * along, of_m, g * u * (along + u * v_s), of_m
    t = torch.exp(-scale.clamp(min=reference.MIN_LOG_SCALE))
    of_m, of_s = t * (t * d_s * v_m + d_s * v_s), d_s * (t * v_m + v_s)
    return v_m * d_m + v_s * d_s, g * of_m, g * of_s, None


def check_second(case, inputs, upstream, ref=reference):
    """Gradients of the gradients along drawn directions, against the float64 reference."""
    kind, options = case
    generator = torch.Generator().manual_seed(1)
    directions = [torch.randn(x.shape, generator=generator, dtype=F64, device="cpu").to(x)
                  for x in inputs if x is not None]  # fmt: skip
    got = second(fused(kind, **options), inputs, upstream, directions)
    definition = plain(kind, **options, ref=ref)
    want = second(definition, double(inputs), upstream.double(), double(directions))
    location, scale, real = double(inputs)
    given = iter(double(directions))
    v = [number(0.0, location) if x is None else next(given) for x in inputs]
    if scale is None:
        scale = number(options.get("fixed", 0.0), location)
    target = options["target"].to(location.device) if kind == "logistic" else real
    batch = upstream.ndim
    g = upstream.double().abs().view(*upstream.shape, *(1,) * (location.ndim - batch))
    sizes = bends_of(kind, location, scale, target, options.get("levels", 16), g, v)
    names = ("d_upstream", "d_location", "d_scale", "d_target")
    pairs = iter(zip(got, want, strict=True))
    for name, size, tensor in zip(names, sizes, (upstream, *inputs), strict=True):
        if tensor is None:
            continue
        found, wanted = next(pairs)
        whole = size.expand(location.shape)
        if name == "d_upstream":
            size = whole.flatten(batch).sum(batch) if whole.ndim > batch else whole
        else:
            size = whole.sum_to_size(tensor.shape)
        assert found.dtype == tensor.dtype
        terms = location.numel() // max(1, tensor.numel())
        assert_close(found, wanted, terms=max(1, terms), scale=size, name=f"second {name}")
