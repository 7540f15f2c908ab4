"""discretized_logistic_mixture_nll and _sample: the output distribution of PixelCNN++."""

import torch

from genkern import checks, library, random, spec
from genkern.family import Family
from genkern.reference import discretized_logistic_mixture as reference

_NLL, _SAMPLE = "discretized_logistic_mixture_nll", "discretized_logistic_mixture_sample"
_TARGETS = (torch.uint8, torch.int32, torch.int64)
_LARGEST = 2**24  # levels: integers that float32 holds exactly


def _integers(levels: int) -> torch.dtype:
    return torch.uint8 if levels <= 256 else torch.int32


def _results(params, target, noise, seed, levels, data_channels, temperature, channels_last, save):
    nothing = params.new_empty(0)
    # In the parameters' order in memory; of half precision in float32: losses may be scaled.
    size = (params.shape[0], params.shape[1] * params.shape[2] * params.shape[3]) if save else (0,)
    kept = params.new_empty(size, dtype=spec.accumulation(params.dtype) if save else params.dtype)
    if target is not None:
        return params.new_empty(params.shape[0]), params.new_empty(0, dtype=torch.uint8), kept
    shape = (params.shape[0], data_channels, *params.shape[2:])
    return nothing, params.new_empty(shape, dtype=_integers(levels)), kept


def _reference(params, target, noise, seed, levels, data_channels, temperature, channels_last):
    if target is not None:
        if not library.is_transforming():
            checks.check_levels(_NLL, target, levels)
        return reference.nll(params, target, levels), params.new_empty(0, dtype=torch.uint8)
    if noise is None:
        shape = (params.shape[0], 1 + data_channels, *params.shape[2:])
        noise = random.philox_uniform(seed, shape, spec.accumulation(params.dtype))
    found = reference.sample(params.detach(), noise, levels, data_channels, temperature)
    return params.new_empty(0), found.to(_integers(levels))


def _gradients(*arguments):
    params, channels_last, needed = arguments[2], arguments[-2], arguments[-1]
    if not needed:
        return params.new_empty(0)
    return spec.empty_image(params, params.shape[1], channels_last)


_mixture = Family(
    "discretized_logistic_mixture",
    "(Tensor params, Tensor? target, Tensor? noise, Tensor? seed, SymInt levels, "
    "int data_channels, float temperature, bool channels_last) -> (Tensor, Tensor)",
    results=_results,
    reference=_reference,
    gradients=_gradients,
    constants=3,
    saved=("gradients",),
)


def _admit_params(op: str, params: torch.Tensor) -> torch.Tensor:
    if not checks.are_plain(params):
        (params,) = checks.admit(op, checks.LOSS, {"params": params})
    if params.ndim != 4:
        raise ValueError(f"{op}: params must have shape (N, C, H, W); got {tuple(params.shape)}")
    return params


def _check_channels(op: str, params: torch.Tensor, colours: int) -> None:
    each, channels = reference.PARAMETERS[colours], params.shape[1]
    if channels == 0 or channels % each:
        raise ValueError(
            f"{op}: params.shape[1] must be a positive multiple of {each} for {colours} "
            f"colour{'s' if colours > 1 else ''}; got {channels}"
        )


def _check_target(params: torch.Tensor, target: torch.Tensor) -> None:
    checks.check_target(_NLL, target, _TARGETS, "params", params)
    shape = target.shape
    if len(shape) != 4 or shape[1] not in (1, 3) or (shape[0], *shape[2:]) != (
        params.shape[0], *params.shape[2:]
    ):  # fmt: skip
        raise ValueError(
            f"{_NLL}: target must have shape (N, 1 or 3, H, W), N, H, W of params "
            f"{tuple(params.shape)}; got {tuple(shape)}"
        )


def discretized_logistic_mixture_nll(
    params: torch.Tensor,
    target: torch.Tensor,
    *,
    levels: int = 256,
    reduction: str = "none",
) -> torch.Tensor:
    r"""Negative log-likelihood of integers under a mixture of discretized logistics, in nats.

    .. math::
        -\log P(v) = -\sum_{pixels} \log \sum_k \pi_k \prod_c
        \left[\sigma\left(\tfrac{x_c + h - m_{kc}}{s_{kc}}\right) -
        \sigma\left(\tfrac{x_c - h - m_{kc}}{s_{kc}}\right)\right],
        \quad x = 2 v / (levels - 1) - 1, \; h = 1 / (levels - 1)

    where the bins of v = 0 and v = levels - 1 reach to -inf and +inf, and
    log s = max(log-scale, -7). With colours, :math:`m_R = \mu_R`,
    :math:`m_G = \mu_G + \tanh(a) x_R`, :math:`m_B = \mu_B + \tanh(b) x_R + \tanh(c) x_G`, with x
    of the target. Equivalent to ``-(torch.log_softmax(logits, 1) + log_p.sum(2)).logsumexp(1)``
    summed over the pixels, with log_p the logarithm of the difference without its cancellation:
    no probability is replaced by a density. The forward pass forms the gradients as well where they
    are needed, and keeps them for the backward pass, in the place of ``params``' intermediates.

    Args:
        params: (N, 10K, H, W) for RGB: K logits, then for each of R, G, B: K means, K log-scales,
            K coefficients a, b, c before their tanh (the layout of PixelCNN++); (N, 3K, H, W) for
            grey: K logits, K means, K log-scales. float32, float64, bfloat16 or float16, any
            strides.
        target: (N, 3, H, W) or (N, 1, H, W); uint8, int32 or int64 in 0 .. levels - 1.
        levels: how many values a sub-pixel may have; 2 to 2^24.
        reduction: "none" (N,), "mean" over the batch or "sum".

    Returns:
        (N,) or a scalar, nats of an image, in the dtype of ``params`` (float32 under autocast).
        On CUDA an image with a target outside of its range is NaN.

    Raises:
        TypeError: an argument is not a dense tensor of a supported dtype, or an option has another
            type.
        ValueError: a shape does not fit, ``levels`` or ``reduction`` is out of its range; on the
            CPU, a target is outside of 0 .. levels - 1 (a RuntimeError inside of torch.compile).
        RuntimeError: devices differ.

    Differentiable any number of times in ``params``; log-scales below -7 have no gradient.
    Source: Salimans et al. 2017, "PixelCNN++", sec. 2.1 and 2.2.
    """
    if type(reduction) is not str or reduction != "none":
        checks.check_option(_NLL, "reduction", reduction, checks.REDUCTIONS)
    if type(levels) is not int or not 2 <= levels <= _LARGEST:
        levels = checks.check_number(
            _NLL, "levels", levels, minimum=2, maximum=_LARGEST, integer=True
        )
    params = _admit_params(_NLL, params)
    _check_target(params, target)
    colours = target.shape[1]
    _check_channels(_NLL, params, colours)
    channels_last = spec.is_channels_last(params)
    try:
        nats, _ = _mixture(params, target, None, None, levels, colours, 1.0, channels_last)
    except RuntimeError:
        checks.check_levels(_NLL, target, levels)  # why it did
        raise
    return nats if reduction == "none" else checks.reduce(nats, reduction)


def _noise(params, colours, noise, generator):
    """(noise, seed): the noise itself where the program has to run without genkern."""
    dtype = spec.accumulation(params.dtype)
    shape = (params.shape[0], 1 + colours, *params.shape[2:])
    if generator is not None and not isinstance(generator, torch.Generator):
        got = type(generator).__name__
        raise TypeError(f"{_SAMPLE}: generator must be a torch.Generator; got {got}")
    if noise is None:
        if not library.is_exporting():
            return None, random.draw_seed(params.device, generator)
        if generator is None:
            return torch.rand(shape, dtype=dtype, device=params.device), None
        return torch.rand(shape, dtype=dtype, device=params.device, generator=generator), None
    if generator is not None:
        raise ValueError(f"{_SAMPLE}: generator must be None where noise is given; got both")
    checks.check_tensor(_SAMPLE, "noise", noise)
    if noise.device != params.device or noise.dtype != dtype:
        raise RuntimeError(
            f"{_SAMPLE}: noise must be {spec.dtype_name(dtype)} on {params.device}; "
            f"got {spec.dtype_name(noise.dtype)} on {noise.device}"
        )
    checks.check_shape(_SAMPLE, "noise", noise, shape, "(N, 1 + data_channels, H, W)")
    return noise.detach(), None


def discretized_logistic_mixture_sample(
    params: torch.Tensor,
    *,
    levels: int = 256,
    data_channels: int = 3,
    temperature: float = 1.0,
    generator: torch.Generator | None = None,
    noise: torch.Tensor | None = None,
) -> torch.Tensor:
    r"""Integers drawn from a mixture of discretized logistics: from what the nll gives chances of.

    .. math::
        k \sim softmax(logits / T), \quad
        v_c = round\left(\tfrac{levels - 1}{2}
        \left(1 + m_{kc} + T s_{kc} \log\tfrac{u_c}{1 - u_c}\right)\right)

    clipped to 0 .. levels - 1, u uniform in (0, 1); m and s as in
    `discretized_logistic_mixture_nll`, where m of green and blue take the values drawn for red and
    green, on the grid. T = ``temperature`` scales the logits and the scales: 1 samples the model,
    0 gives the mean of the likeliest component. The component is drawn by inverse CDF as well: the
    first whose cumulative weight exceeds u_0 times the sum.

    Args:
        params: as in `discretized_logistic_mixture_nll`; (N, 10K, H, W) or (N, 3K, H, W).
        levels: how many values a sub-pixel may have; 2 to 2^24.
        data_channels: 3 (RGB) or 1 (grey).
        temperature: at least 0.
        generator: draws the seed of the noise, a Philox stream that is the same for any layout,
            thread count and device; default torch's generator of the device. torch.compile takes
            the default alone.
        noise: (N, 1 + data_channels, H, W), uniform in [0, 1]: channel 0 chooses the component,
            the others are u of the colours. float32, and float64 where ``params`` are.

    Returns:
        (N, data_channels, H, W): uint8 up to 256 levels, int32 beyond.

    Raises:
        TypeError: an argument is not a dense tensor of a supported dtype, or an option has another
            type.
        ValueError: a shape does not fit, an option is out of its range, or both ``generator`` and
            ``noise`` are given.
        RuntimeError: device or dtype of ``noise`` do not fit.

    Not differentiable.
    Source: Salimans et al. 2017, "PixelCNN++", sec. 2.1 and 2.2.
    """
    levels = checks.check_number(
        _SAMPLE, "levels", levels, minimum=2, maximum=_LARGEST, integer=True
    )
    colours = checks.check_number(
        _SAMPLE, "data_channels", data_channels, minimum=1, maximum=3, integer=True
    )
    if colours == 2:
        raise ValueError(f"{_SAMPLE}: data_channels must be 1 or 3; got 2")
    temperature = checks.check_number(
        _SAMPLE, "temperature", temperature, minimum=0.0, maximum=1e30
    )
    params = _admit_params(_SAMPLE, params)
    _check_channels(_SAMPLE, params, colours)
    noise, seed = _noise(params, colours, noise, generator)
    _, found = _mixture(
        params.detach(), None, noise, seed, levels, colours, float(temperature),
        spec.is_channels_last(params),
    )  # fmt: skip
    return found
