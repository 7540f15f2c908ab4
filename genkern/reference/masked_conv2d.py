"""What `masked_conv2d` means, in plain PyTorch. Masked taps are left out, never multiplied."""

import torch
import torch.nn.functional as F


def group_ends(channels: int, groups: int) -> list[int]:
    """End of each of ``groups`` contiguous channel groups; sizes differ by at most one."""
    return [(channels * (g + 1) + groups - 1) // groups for g in range(groups)]


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
    out_ends, in_ends = group_ends(C_out, data_channels), group_ends(C_in, data_channels)
    centre, start = [], 0
    for g, end in enumerate(out_ends):  # the centre, up to the channels this group may see
        live = in_ends[g] if mask_type == "B" else ([0, *in_ends])[g]
        centre.append(
            torch.einsum("nchw,oc->nohw", input[:, :live], weight[start:end, :live, a, b])
        )
        start = end
    return output + torch.cat(centre, dim=1)
