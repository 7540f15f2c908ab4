"""The plan of a model: its graph, the steps, and when and where everything is computed."""

import itertools
from collections.abc import Callable, Hashable

import numpy as np
import torch

from genkern.sampling import rules, schedule
from genkern.sampling.graph import CPU, Constant, Image, Node, NoSteps, NotCausal
from genkern.sampling.record import record

assert rules.__all__  # they register themselves
Places = list[tuple[int, int]]


class Plan:
    """What a `Stepper` runs.

    Attributes:
        graph, output, colours: as `record` returns them; ``keep`` as it takes it.
        in_order: whether the colours of a pixel are drawn one after the other.
        slope: of a wavefront, or None.
        steps: the places of each step that is drawn or given, and its colour or None.
        given: how many of the steps are given.
        times, batches: of each node that is computed.
    """

    def __init__(
        self,
        model: Callable[..., torch.Tensor],
        shape: tuple[int, ...],
        dtype: torch.dtype,
        condition: tuple,
        *,
        wavefront: bool = False,
        first: int = 0,
        device: torch.device = CPU,
        keep: bool = False,
    ) -> None:
        self.grid = (shape[2], shape[3])
        H, W = self.grid
        self.slope = None
        raster = np.arange(H * W, dtype=np.int32).reshape(H, W)
        for in_order in (False, True)[: shape[1]]:
            self.graph, self.output, self.colours = record(
                model, shape, dtype, *condition, together=not in_order, device=device, keep=keep
            )
            if self._is_causal(raster, in_order):
                break
        else:
            raise NotCausal(
                "sampling: the output at a pixel must not see it or later pixels; of a dense "
                "kernel whose outputs see more than 8 different sets of inputs, each sees all, and "
                "a weight that is NaN is not 0"
            )
        number = raster
        if wavefront:
            self.slope = self._find_slope()
            number = np.arange(H)[:, None] * self.slope + np.arange(W)
        self._set_steps(number, first)
        self._schedule()

    # ---- orders

    def _order(self, number: np.ndarray, in_order: bool, given: int = 0) -> schedule.Order:
        """Of steps with a number for each place (H, W)."""
        C, nodes = len(self.colours), [colour.node for colour in self.colours]
        if not in_order:
            return schedule.Order(dict.fromkeys(nodes, number), given)
        return schedule.Order({node: number * C + c for c, node in enumerate(nodes)}, given)

    def _due(self, order: schedule.Order) -> np.ndarray:
        """(P, H, W): the step that needs each channel of the output."""
        P, C = self.output.channels, len(self.colours)
        number = [order.drawn[colour.node] for colour in self.colours]
        if not self.in_order:
            return np.broadcast_to(number[0], (P, *self.grid))
        return np.repeat(np.stack(number), P // C, axis=0)

    def _is_causal(self, number: np.ndarray, in_order: bool) -> bool:
        self.in_order = in_order
        if in_order and self.output.channels % len(self.colours):
            return False
        order = self._order(number, in_order)
        known, due, start = schedule.known(self.graph, order), self._due(order), 0
        for piece in self.output.pieces:
            soonest = due[start : start + piece.length].min(axis=0).ravel()
            start += piece.length
            if (known[piece.node][piece.table.ravel()] > soonest).any():
                return False
        self.known = known
        return True

    def _find_slope(self) -> int:
        H, W = self.grid
        low, high = 1, W - 1
        rows, columns = np.arange(H, dtype=np.int32)[:, None], np.arange(W)
        number = lambda slope: rows * slope + columns  # noqa: E731
        if high < 1 or not self._is_causal(number(high).astype(np.int32), self.in_order):
            raise NoSteps(
                "sampling: no pixels of different rows are independent, because one sees all of "
                "the row above it (or the image is too narrow)"
            )
        while low < high:
            middle = (low + high) // 2
            if self._is_causal(number(middle).astype(np.int32), self.in_order):
                high = middle
            else:
                low = middle + 1
        return low

    def _set_steps(self, number: np.ndarray, first: int) -> None:
        """The leading ``first`` steps become as few as they can: a row of an image each."""
        C = len(self.colours) if self.in_order else 1
        H, W = self.grid
        kinds = np.unique(number)
        number = np.searchsorted(kinds, number).astype(np.int32)
        if not 0 <= first <= len(kinds) * C:
            raise ValueError(f"sampling: first must be from 0 to {len(kinds) * C}; got {first}")
        self.skipped = first
        drawn = self._order(number, self.in_order).drawn
        rows = np.arange(H, dtype=np.int32)[:, None] * np.ones((1, W), np.int32)
        if self.slope is None and not self.graph.by_pixels:
            given = int(rows[number * C < first].max(initial=-1)) + 1
            before = {node: np.where(at < first, rows, at - first + given)
                      for node, at in drawn.items()}  # fmt: skip
        else:
            given, before = first, drawn
        self.order = schedule.Order(before, given)
        self.count = given + len(kinds) * C - first
        self.steps: list[tuple[Places, int | None]] = []
        places = np.argsort(number, axis=None, kind="stable")
        ends = np.searchsorted(number.ravel()[places], np.arange(len(kinds) + 1))
        named = [divmod(place, W) for place in places.tolist()]
        for begin, end in itertools.pairwise(ends.tolist()):
            self.steps += [(named[begin:end], c if self.in_order else None) for c in range(C)]

    # ---- when and where

    def _schedule(self) -> None:
        known, due = self.known, self._due(self.order)
        if self.order.given or self.slope is not None:
            known = schedule.known(self.graph, self.order)
        self.times = schedule.needed(self.graph, self.order, self.output, due, known)
        uses = schedule.last_uses(
            self.graph, self.output, self.order, self.times, lambda c: due[c].ravel()
        )
        self.uses = uses
        self.batches: dict[Node, schedule.Batches] = {}
        self.stages: list[list[Node]] = []
        self._slots: dict[Hashable, schedule.Slots] = {}
        alike: dict[bytes, schedule.Batches] = {}
        for first, last, is_scan in schedule.parts(self.graph):
            members = [
                node for node in self.graph.nodes[first:last]
                if not isinstance(node, (Image, Constant))
            ]  # fmt: skip
            self.stages += [members] if is_scan else [[node] for node in members]
            for node in members:
                times = self.times[node]
                key = times.tobytes() + bytes([is_scan])
                if is_scan or key not in alike:
                    waves = schedule.waves_of(members, times) if is_scan else None
                    alike[key] = schedule.Batches(times, self.count, waves)
                self.batches[node] = alike[key]

    def slots(self, node: Node) -> schedule.Slots:
        """Where a node is kept."""
        batches, uses = self.batches[node], self.uses[node]
        key = node.grid, id(batches), uses.tobytes()
        if key not in self._slots:
            self._slots[key] = schedule.slots_of(node, self.times[node], uses, batches)
        return self._slots[key]

    def slots_read(self, node: Node, table: np.ndarray) -> np.ndarray:
        """Where the places that a table names are kept."""
        flat = table.ravel()
        if isinstance(node, (Image, Constant)):
            return np.where(flat < 0, node.grid[0] * node.grid[1], flat)
        return self.slots(node).at[flat]
