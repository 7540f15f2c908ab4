"""What `masked_conv2d` means, in plain PyTorch. Masked taps are left out, never multiplied."""

from collections.abc import Iterator

import torch
import torch.nn.functional as F


def group_ends(channels: int, groups: int) -> list[int]:
    """End of each of ``groups`` contiguous channel groups; sizes differ by at most one."""
    return [(channels * (g + 1) + groups - 1) // groups for g in range(groups)]


def anchor(mask_type: str, kh: int, kw: int) -> tuple[int, int]:
    """Row and column of the tap that stands at the output pixel itself.

    One past the last row or column where the pixel is not in the kernel.
    """
    return {
        "A": (kh // 2, kw // 2),
        "B": (kh // 2, kw // 2),
        "rows": (kh - 1, kw // 2),
        "rows_above": (kh, kw // 2),
        "left": (kh - 1, kw - 1),
        "left_before": (kh - 1, kw),
    }[mask_type]


def has_centre(mask_type: str) -> bool:
    """Whether the anchor is the last tap: what it sees of the pixel depends on the colours."""
    return mask_type in ("A", "B", "left")


def live_taps(
    shape: torch.Size | tuple[int, ...],
    mask_type: str = "B",
    data_channels: int = 1,
    parts: int = 1,
) -> torch.Tensor:
    """The mask that others multiply the weight by, bool, of ``shape`` (C_out, C_in, kh, kw)."""
    C_out, C_in, kh, kw = shape
    if not has_centre(mask_type):
        return torch.ones(tuple(shape), dtype=torch.bool, device="cpu")
    a, b = anchor(mask_type, kh, kw)
    live = torch.zeros(C_out, C_in, kh, kw, dtype=torch.bool, device="cpu")
    live[:, :, :a] = True
    live[:, :, a, :b] = True
    for start, end, seen in colours(C_out, C_in, mask_type, data_channels, parts):
        live[start:end, :seen, a, b] = True
    return live


def colours(
    C_out: int, C_in: int, mask_type: str, groups: int, parts: int
) -> Iterator[tuple[int, int, int]]:
    """Each group of output channels, [start, end), and the end of the input channels that its
    centre sees. Each of the ``parts`` of the output has groups of its own."""
    in_ends = group_ends(C_in, groups)
    visible = [0, *in_ends[:-1]] if mask_type == "A" else in_ends
    size = C_out // parts
    for part in range(parts):
        start = 0
        for end, seen in zip(group_ends(size, groups), visible, strict=True):
            yield part * size + start, part * size + end, seen
            start = end


def forward(
    input: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None = None,
    mask_type: str = "B",
    data_channels: int = 1,
    dilation: int = 1,
    parts: int = 1,
) -> torch.Tensor:
    C_out, C_in, kh, kw = weight.shape
    a, b = anchor(mask_type, kh, kw)
    products = []
    if not has_centre(mask_type):  # every tap is live
        products += _convolve(input, weight, -a, -b, dilation)
    else:
        products += _convolve(input, weight[:, :, :a], -a, -b, dilation)
        products += _convolve(input, weight[:, :, a : a + 1, :b], 0, -b, dilation)
        for start, end, seen in colours(C_out, C_in, mask_type, data_channels, parts):
            if seen:  # some runtimes of exported graphs crash on a sum of no products
                kernel = weight[start:end, :seen, a, b]
                centre = torch.einsum("nchw,oc->nohw", input[:, :seen], kernel)
                products.append(F.pad(centre, (0, 0, 0, 0, start, C_out - end)))
    if not products:  # no tap is live
        products = [input[:, :0].sum() + weight[:0].sum()]  # 0, and gradients of 0
    output = input.new_zeros(input.shape[0], C_out, *input.shape[2:])
    if bias is not None:
        output = output + bias[:, None, None]
    for product in products:
        output = output + product
    return output


def _convolve(
    input: torch.Tensor, kernel: torch.Tensor, row: int, column: int, dilation: int
) -> list[torch.Tensor]:
    """The convolution whose first tap stands ``row`` rows and ``column`` columns from the output
    pixel (negative: above, to the left), zeros around the image; nothing if there is no tap."""
    kh, kw = kernel.shape[2:]
    if kh == 0 or kw == 0 or input.numel() == 0:
        return []
    H, W = input.shape[2:]
    right = max(0, column + kw - 1)
    image = F.pad(input, (-column * dilation, right * dilation, -row * dilation, 0))
    image = image[:, :, : H + (kh - 1) * dilation, : W + (kw - 1) * dilation]
    return [F.conv2d(image, kernel, dilation=dilation)]
