"""A matrix that connects units of lower degrees to units of higher degrees."""

import torch
import torch.nn.functional as F


def masked_linear(
    input: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None = None,
    *,
    in_degrees: torch.Tensor,
    out_degrees: torch.Tensor,
    strict: bool = False,
) -> torch.Tensor:
    """``F.linear`` with weights that are 0 unless out_degree >= in_degree (``strict``: >).

    Source: Germain et al. 2015, "MADE: masked autoencoder for distribution estimation", eq. 8, 9.
    """
    out, into = out_degrees[:, None], in_degrees
    dead = out <= into if strict else out < into
    return F.linear(input, weight.masked_fill(dead, 0.0), bias)
