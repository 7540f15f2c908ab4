"""What `pixel_cross_entropy` means, in plain PyTorch."""

import torch
import torch.nn.functional as F


def seen_features(channels: int, colours: int, masked: bool) -> list[int]:
    """How many of the first features the logits of each colour are made of."""
    if not masked:
        return [channels] * colours
    return [(channels * (c + 1) + colours - 1) // colours for c in range(colours)]


def logits_of(
    features: torch.Tensor,
    colours: int,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    masked: bool,
) -> torch.Tensor:
    """The 1x1 head: (N, colours, levels, H, W). Features that a colour does not see are left out,
    never multiplied."""
    levels = weight.shape[0] // colours
    found = []
    for c, seen in enumerate(seen_features(features.shape[1], colours, masked)):
        rows = slice(c * levels, (c + 1) * levels)
        kernel = weight[rows, :seen].reshape(levels, seen, 1, 1)
        found.append(torch.einsum("nchw,lc->nlhw", features[:, :seen], kernel[:, :, 0, 0]))
        if bias is not None:
            found[-1] = found[-1] + bias[rows, None, None]
    return torch.stack(found, 1)


def forward(
    features: torch.Tensor,
    target: torch.Tensor,
    weight: torch.Tensor | None = None,
    bias: torch.Tensor | None = None,
    masked: bool = False,
) -> torch.Tensor:
    """features (N, C_in, H, W), or the logits (N, colours * levels, H, W) or (N, colours, levels,
    H, W) where weight is None; target (N, colours, H, W). Nats of each image, (N,)."""
    colours = target.shape[1]
    if weight is not None:
        logits = logits_of(features, colours, weight, bias, masked)
    else:
        logits = features if features.ndim == 5 else features.unflatten(1, (colours, -1))
    log_p = F.log_softmax(logits, 2)
    return -log_p.gather(2, target.long()[:, :, None]).sum((1, 2, 3, 4))
