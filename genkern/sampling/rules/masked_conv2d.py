"""How a masked convolution is computed: its live taps, a node for each colour."""

import torch

from genkern.ops.masked_conv2d import MASK_TYPES, anchor, colours, has_centre
from genkern.sampling.graph import Graph, Piece, Term, View, identity
from genkern.sampling.record import register_step
from genkern.sampling.rules.aten import tap, terms_of


def _terms(x: View, weight: torch.Tensor, mask_type: str, apart: int, seen: int) -> list[Term]:
    """Of output channels that see ``seen`` channels of their own pixel."""
    _, _, kh, kw = weight.shape
    a, b = anchor(mask_type, kh, kw)
    found = []
    for u in range(kh):
        for v in range(kw):
            if has_centre(mask_type) and (u, v) > (a, b):
                continue
            table = tap(x.grid, x.grid, (u - a) * apart, (v - b) * apart)
            part, kernel = x, weight[:, :, u, v]
            if has_centre(mask_type) and (u, v) == (a, b):
                part, kernel = x.narrow(0, seen), kernel[:, :seen]
            found += terms_of(part, table, kernel)
    return found


@register_step("genkern::masked_conv2d_forward")
def masked_conv2d(graph, x, weight, bias, code, data_channels, parts, dilation, channels_last):
    mask_type, C_out = MASK_TYPES[code], weight.shape[0]
    if not has_centre(mask_type):
        return graph.product(C_out, x.grid, _terms(x, weight, mask_type, dilation, 0), bias)
    return _by_colour(graph, x, weight, bias, mask_type, data_channels, parts, dilation)


def _by_colour(graph: Graph, x: View, weight, bias, mask_type, data_channels, parts, dilation):
    """A node for each colour, with its channels of every part."""
    C_out, C_in = weight.shape[:2]
    blocks = list(colours(C_out, C_in, mask_type, data_channels, parts))
    pieces: dict[int, Piece] = {}
    for colour in range(data_channels):
        own = blocks[colour::data_channels]
        rows = torch.cat([torch.arange(start, end) for start, end, _ in own])
        terms = _terms(x, weight[rows], mask_type, dilation, own[0][2])
        node = graph.weighted(len(rows), x.grid, terms, None if bias is None else bias[rows])
        at = 0
        for start, end, _ in own:
            pieces[start] = Piece(node, at, end - start, identity(x.grid))
            at += end - start
    return View([pieces[start] for start in sorted(pieces)], x.grid)
