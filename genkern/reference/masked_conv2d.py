"""What `masked_conv2d` means, in plain PyTorch. Masked taps are left out, never multiplied."""

import torch
import torch.nn.functional as F


def group_ends(channels: int, groups: int) -> list[int]:
    """End of each of ``groups`` contiguous channel groups; sizes differ by at most one."""
    return [(channels * (g + 1) + groups - 1) // groups for g in range(groups)]


def live_taps(
    shape: torch.Size | tuple[int, ...], mask_type: str = "B", data_channels: int = 1
) -> torch.Tensor:
    """The mask that others multiply the weight by, bool, of ``shape`` (C_out, C_in, kh, kw)."""
    C_out, C_in, kh, kw = shape
    a, b = kh // 2, kw // 2
    live = torch.zeros(C_out, C_in, kh, kw, dtype=torch.bool, device="cpu")
    live[:, :, :a] = True
    live[:, :, a, :b] = True
    start = 0
    for end, seen in zip(*_colours(C_out, C_in, mask_type, data_channels), strict=True):
        live[start:end, :seen, a, b] = True
        start = end
    return live


def _colours(C_out: int, C_in: int, mask_type: str, groups: int) -> tuple[list[int], list[int]]:
    """End of each group of output channels, and of the input channels that its centre sees."""
    in_ends = group_ends(C_in, groups)
    return group_ends(C_out, groups), in_ends if mask_type == "B" else [0, *in_ends[:-1]]


def forward(
    input: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None = None,
    mask_type: str = "B",
    data_channels: int = 1,
    dilation: int = 1,
) -> torch.Tensor:
    C_out, C_in, kh, kw = weight.shape
    a, b = kh // 2, kw // 2  # the centre tap
    left, right = dilation * b, dilation * (kw - 1 - b)
    H = input.shape[2]
    output = input.new_zeros(input.shape[0], C_out, *input.shape[2:])
    if bias is not None:
        output = output + bias[:, None, None]
    if a > 0 and input.numel():  # the rows above the centre
        above = F.pad(input, (left, right, dilation * a, 0))[:, :, : H + dilation * (a - 1)]
        output = output + F.conv2d(above, weight[:, :, :a], dilation=dilation)
    if b > 0 and input.numel():  # the row of the centre, to its left
        row = F.pad(input, (left, 0))[:, :, :, :-dilation]
        output = output + F.conv2d(row, weight[:, :, a : a + 1, :b], dilation=dilation)
    start = 0
    ends, visible = _colours(C_out, C_in, mask_type, data_channels)
    for end, seen in zip(ends, visible, strict=True):
        if seen:  # a sum of no products is left out: some runtimes of exported graphs crash on it
            centre = torch.einsum("nchw,oc->nohw", input[:, :seen], weight[start:end, :seen, a, b])
            output = output + F.pad(centre, (0, 0, 0, 0, start, C_out - end))
        start = end
    if (input.numel() == 0 or a == b == 0) and not any(visible):  # no tap is live
        output = output + input[:, :0].sum() + weight[:0].sum()  # 0, and gradients of 0
    return output
