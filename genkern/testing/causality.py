"""Which outputs of a model depend on which inputs."""

from collections.abc import Sequence

import torch

from genkern import checks
from genkern.testing.probe import Grid, Model, Probe

MODES = ("eval", "train")


def assert_causal(
    model: Model,
    shape: Sequence[int],
    *,
    data_channels: int = 1,
    colour_order: str = "contiguous",
    order: str | Sequence[int] | torch.Tensor = "raster",
    strict: bool = True,
    nan: bool = True,
    modes: Sequence[str] = MODES,
    batch_size: int = 16,
    seed: int = 0,
) -> None:
    r"""Fails unless every output of an autoregressive model depends on earlier inputs only.

    .. math:: y_{p, c} = f(x_{p'} : p' < p;\; x_{p, c'} : c' < c) \qquad (c' \le c
              \text{ where } strict \text{ is false})

    A place is a pixel p and a colour c. Three tests of each place, of a random image: all that is
    not earlier becomes NaN, and the output must stay finite and equal; it becomes other finite
    numbers, and the output must stay equal; and the Jacobian must be exactly 0 there. Values are
    compared bit for bit (but for the sign of a zero), since a leak that a tolerance hides is one.

    Equivalent to ``assert not dependencies(model, shape).triu().any()`` for finite inputs. NaN
    finds, besides, masks that multiply: 0 times NaN is NaN.

    The model is called with equal seeds and buffers, so that dropout and running statistics do
    not disturb the tests; modes and buffers are afterwards what they were. Of a bound method, the
    model is its object.

    Args:
        model: nn.Module or function, images (N, C, H, W) to (N, C_out, H, W) with finite values;
            a layer too. The images have the dtype and the device of its parameters, or float32 on
            the CPU. What takes integers is wrapped, ``lambda x: model(x.mul(8).clamp(0,
            15).long())``, and tested with ``nan=False``.
        shape: (C, H, W) of one image.
        data_channels: colours, an order of their own within a pixel; 1: a pixel's channels are
            one place. At most C and C_out.
        colour_order: which colour a channel has, of images and outputs: "contiguous" groups whose
            sizes differ by at most one, or "interleaved", channel mod ``data_channels``.
        order: of the pixels: "raster", or their numbers row * W + col from the first to the last.
        strict: whether an output must not see its own place; False for a layer after the first.
        nan: whether to test with NaN; False where dead products are formed and are meant to be,
            as in attention.
        modes: of an nn.Module: "eval", "train", or both.
        batch_size: images in a call.
        seed: of the images, and of the model's noise.

    Raises:
        AssertionError: names the first output that depends on a place which is not earlier, and
            the first such place, as (row, col, colour).
        TypeError, ValueError: an argument has another type or is out of range, or the outputs are
            not finite or of another shape.

    Source: the construction is van den Oord et al. 2016, "Pixel recurrent neural networks", sec.
    2.2 and 3.4.
    """
    for name, flag in (("strict", strict), ("nan", nan)):
        checks.check_bool("assert_causal", name, flag)
    for mode in modes:
        checks.check_option("assert_causal", "modes", mode, MODES)
    grid = Grid("assert_causal", shape, data_channels, colour_order, order)
    probe = Probe("assert_causal", model, grid, batch_size, seed)
    with probe.kept():
        for mode in modes if probe.module is not None else ("",):
            if probe.module is not None:
                probe.module.train(mode == "train")
            probe.check_outputs()
            found = _first_leak(probe, strict, nan)
            if found is not None:
                where = f"in {mode} mode, " if mode else ""
                raise AssertionError(f"assert_causal: {where}{found}")


def dependencies(
    model: Model,
    shape: Sequence[int],
    *,
    data_channels: int = 1,
    colour_order: str = "contiguous",
    batch_size: int = 16,
    seed: int = 0,
) -> torch.Tensor:
    r"""Which outputs of a model depend on which inputs, as it stands (in train or eval mode).

    .. math:: D_{ij} = \left[ \partial y_i / \partial x_j \ne 0, \text{ or another } x_j
              \text{ makes another } y_i \right]

    for a random image. A causal model has no element on or above the diagonal, and one without a
    blind spot has all below it: ``torch.equal(D, torch.ones_like(D).tril(-1))``.

    Args:
        model, shape, data_channels, colour_order, batch_size, seed: as of `assert_causal`.

    Returns:
        bool (places, places), outputs by inputs; places in raster order, the colours of a pixel
        next to each other: (row * W + col) * data_channels + colour.

    Raises:
        TypeError, ValueError: as `assert_causal`.
    """
    grid = Grid("dependencies", shape, data_channels, colour_order, "raster")
    probe = Probe("dependencies", model, grid, batch_size, seed)
    found = torch.zeros(grid.places, grid.places, dtype=torch.bool)
    with probe.kept():
        probe.check_outputs()
        for places in probe.chunks():
            found[places] |= grid.by_place(probe.gradients(places) != 0)
            changed = probe.differs(grid.at(places))
            found[:, places] |= grid.by_place(changed).T
    return found


def _first_leak(probe: Probe, strict: bool, nan: bool) -> str | None:
    """The first output that depends on what is not earlier, and on what, in words."""
    grid = probe.grid
    for places in probe.chunks():
        hidden = grid.from_on(places, strict)
        slopes = (probe.gradients(places) != 0) & hidden
        values = {"another value": None, "NaN": torch.nan} if nan else {"another value": None}
        others = {what: probe.differs(hidden, value) for what, value in values.items()}
        for index, place in enumerate(places.tolist()):
            if slopes[index].any():
                # A call of one image: in a batch it may be that of another image's output.
                alone = (probe.gradients(places[index : index + 1])[0] != 0) & hidden[index]
                first = grid.first(alone) if alone.any() else None
                return _sentence(grid, place, first, "its derivative there is not 0")
            for what, other in others.items():
                if other[index][grid.of(other.shape[1]) == place].any():
                    seen = _culprit(probe, place, hidden[index], values[what])
                    return _sentence(grid, place, seen, f"{what} there reaches it")
    return None


def _sentence(grid: Grid, place: int, seen: int | None, why: str) -> str:
    what = "later inputs together, or on other images" if seen is None else grid.name(seen)
    return (
        f"output {grid.name(place)} must depend on earlier inputs (row, col, colour) only; "
        f"got a dependence on {what} ({why})"
    )


def _culprit(probe: Probe, place: int, hidden: torch.Tensor, value: float | None) -> int | None:
    """The first of the hidden places that alone changes the output; one image in a call."""
    grid = probe.grid
    for seen in sorted(set(grid.of(grid.C)[hidden].tolist()), key=grid.rank.tolist().__getitem__):
        changed = probe.differs(grid.at(torch.tensor([seen])), value)[0]
        if changed[grid.of(changed.shape[0]) == place].any():
            return seen
    return None
