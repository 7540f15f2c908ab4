"""Calls of a model that differ in chosen elements of an image alone."""

import contextlib
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import nn

from genkern import checks

Model = Callable[[torch.Tensor], torch.Tensor]
COLOUR_ORDERS = ("contiguous", "interleaved")


class Grid:
    """The places of an image: their order, and the channels that belong to each."""

    def __init__(
        self, op: str, shape: Sequence[int], data_channels: int, colour_order: str, order: object
    ) -> None:
        if not isinstance(shape, (tuple, list, torch.Size)) or len(shape) != 3:
            raise ValueError(f"{op}: shape must be (C, H, W) of one image; got {shape!r}")
        for size in shape:
            checks.check_number(op, "shape", size, minimum=1, integer=True)
        self.op = op
        self.C, self.H, self.W = (int(size) for size in shape)
        self.colours = checks.check_number(
            op, "data_channels", data_channels, minimum=1, maximum=self.C, integer=True
        )
        checks.check_option(op, "colour_order", colour_order, COLOUR_ORDERS)
        self.interleaved = colour_order == "interleaved"
        self.places = self.H * self.W * self.colours
        pixels = self._pixels(order)
        self.order = (pixels[:, None] * self.colours + torch.arange(self.colours)).flatten()
        self.rank = self.order.argsort()

    def _pixels(self, order: object) -> torch.Tensor:
        every = torch.arange(self.H * self.W)
        if isinstance(order, str):
            checks.check_option(self.op, "order", order, ("raster",))
            return every
        pixels = torch.as_tensor(order).cpu()
        if pixels.shape != every.shape or not torch.equal(pixels.sort().values, every):
            raise ValueError(
                f"{self.op}: order must be 'raster' or a permutation of 0 ... {len(every) - 1}; "
                f"got {len(pixels.unique())} different numbers in shape {tuple(pixels.shape)}"
            )
        return pixels.long()

    def of(self, channels: int) -> torch.Tensor:
        """The place of every element of an image, (channels, H, W)."""
        index, groups = torch.arange(channels), self.colours
        colour = index % groups if self.interleaved else index * groups // channels
        pixel = torch.arange(self.H * self.W).view(self.H, self.W)
        return pixel * groups + colour[:, None, None]

    def at(self, places: torch.Tensor) -> torch.Tensor:
        """For each of the places, the elements of an image that belong to it: (n, C, H, W)."""
        return self.of(self.C) == places[:, None, None, None]

    def from_on(self, places: torch.Tensor, inclusive: bool) -> torch.Tensor:
        """For each of the places, the elements that come later, or the place itself too."""
        ranks, own = self.rank[self.of(self.C)], self.rank[places][:, None, None, None]
        return ranks >= own if inclusive else ranks > own

    def by_place(self, found: torch.Tensor) -> torch.Tensor:
        """Elements (n, channels, H, W) to places (n, places): any of its elements."""
        counts = torch.zeros(len(found), self.places, dtype=torch.int64)
        counts.index_add_(1, self.of(found.shape[1]).flatten(), found.flatten(1).long())
        return counts > 0

    def first(self, elements: torch.Tensor) -> int:
        """The earliest place of the elements of an image that are marked."""
        return int(self.order[self.rank[self.of(self.C)[elements]].min()])

    def name(self, place: int) -> str:
        pixel, colour = divmod(place, self.colours)
        return f"({pixel // self.W}, {pixel % self.W}, {colour})"


class Probe:
    """Calls a model on one image and changes of it: equal seeds, equal buffers, equal sizes.

    An output is compared with that of the unchanged image at the same position of an equally
    large batch, where the same instructions form it.
    """

    def __init__(self, op: str, model: Model, grid: Grid, batch_size: int, seed: int) -> None:
        if not callable(model):
            raise TypeError(f"{op}: model must be callable; got {type(model).__name__}")
        self.op, self.model, self.grid = op, model, grid
        self.batch_size = checks.check_number(op, "batch_size", batch_size, minimum=1, integer=True)
        self.seed = checks.check_number(op, "seed", seed, minimum=0, integer=True)
        owner = model if isinstance(model, nn.Module) else getattr(model, "__self__", None)
        self.module = owner if isinstance(owner, nn.Module) else None
        parameters = [] if self.module is None else list(self.module.parameters())
        like = next((p for p in parameters if p.is_floating_point()), torch.empty(0))
        generator = torch.Generator().manual_seed(self.seed)
        drawn = torch.randn(2, grid.C, grid.H, grid.W, generator=generator, dtype=torch.float64)
        self.image, self.other = drawn.to(like.device, like.dtype)
        self.buffers: list[tuple[torch.Tensor, torch.Tensor]] = []
        self.known: dict[tuple[bool, int], torch.Tensor] = {}

    @contextlib.contextmanager
    def kept(self) -> Iterator[None]:
        """Leaves the modes and the buffers of the model as they were."""
        modules = [] if self.module is None else list(self.module.modules())
        modes = [(m, m.training) for m in modules]
        self.buffers = [(b, b.clone()) for m in modules for b in m.buffers(recurse=False)]
        try:
            yield
        finally:
            self._restore()
            for module, training in modes:
                module.training = training

    def _restore(self) -> None:
        with torch.no_grad():
            for buffer, saved in self.buffers:
                buffer.copy_(saved)

    def _call(self, images: torch.Tensor) -> torch.Tensor:
        self._restore()
        devices = [images.device] if images.is_cuda else []
        with torch.random.fork_rng(devices):
            torch.manual_seed(self.seed)
            return self.model(images)

    def check_outputs(self) -> None:
        """What the model makes of one image is what the tests can read."""
        with torch.no_grad():
            output = self._call(self.image[None])
        grid = self.grid
        if not isinstance(output, torch.Tensor) or output.ndim != 4:
            tensor = isinstance(output, torch.Tensor)
            got = str(tuple(output.shape)) if tensor else type(output).__name__
        elif (output.shape[0], *output.shape[2:]) != (1, grid.H, grid.W):
            got = str(tuple(output.shape))
        elif output.shape[1] < grid.colours:
            got = f"{output.shape[1]} channels for {grid.colours} colours"
        elif not output.isfinite().all():
            got = "values that are not finite"
        else:
            return
        raise ValueError(
            f"{self.op}: model must return finite (N, C_out, {grid.H}, {grid.W}), at least one "
            f"channel a colour, for images (N, {grid.C}, {grid.H}, {grid.W}); got {got}"
        )

    def chunks(self) -> Iterator[torch.Tensor]:
        """All places in their order, as many at a time as a call takes images."""
        yield from self.grid.order.split(self.batch_size)

    @torch.no_grad()
    def differs(self, changed: torch.Tensor, value: float | None = None) -> torch.Tensor:
        """Where outputs (n, C_out, H, W) are others, once the ``changed`` elements are others."""
        training = self.module is not None and self.module.training
        key = training, len(changed)
        if key not in self.known:
            self.known[key] = self._call(self.image.repeat(len(changed), 1, 1, 1))
        other = self.other if value is None else torch.full_like(self.image, value)
        images = torch.where(changed.to(self.image.device), other, self.image)
        return (self._call(images) != self.known[key]).cpu()

    @torch.enable_grad()
    def gradients(self, places: torch.Tensor) -> torch.Tensor:
        """Of the output at each place, its channels added with random weights: (n, C, H, W)."""
        images = self.image.repeat(len(places), 1, 1, 1).requires_grad_()
        outputs = self._call(images)
        if not outputs.requires_grad:
            return torch.zeros(images.shape)
        generator = torch.Generator().manual_seed(self.seed)
        weights = torch.rand(outputs.shape, generator=generator) + 0.5
        own = self.grid.of(outputs.shape[1]) == places[:, None, None, None]
        upstream = torch.where(own, weights, 0.0).to(outputs)
        (found,) = torch.autograd.grad(outputs, images, upstream, allow_unused=True)
        return torch.zeros(images.shape) if found is None else found.cpu()
