"""The sequential part of decoding a learned image codec: its context model, pixel after pixel.

A 5 x 5 convolution with mask A over an integer latent of 192 channels, and two 1 x 1 layers over it
and what the hyperprior says, give the mean and the scale of each channel of the next pixel; the
entropy decoder then gives its integers. Here integers come from fixed noise in the decoder's place,
the same in both ways, so that what is timed is the rest. The public way: for each pixel, `F.conv2d`
on a 5 x 5 crop, then the two layers.

Source: Minnen et al. 2018, "Joint autoregressive and hierarchical priors for learned image
compression", sec. 3; the loop is that of public codecs.
"""

import argparse

import torch
import torch.nn.functional as F
from torch import nn

from examples.fast_sampling.public import timed
from genkern import sampling
from genkern.nn import MaskedConv2d
from genkern.reference.masked_conv2d import live_taps


class Context(nn.Module):
    """Latent (N, C, H, W) and hyperprior (N, 2C, H, W) to means and log-scales (N, 2C, H, W)."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.context = MaskedConv2d(channels, 2 * channels, 5, mask_type="A")
        self.first = nn.Conv2d(4 * channels, hidden, 1)
        self.second = nn.Conv2d(hidden, 2 * channels, 1)

    def forward(self, latent: torch.Tensor, hyper: torch.Tensor) -> torch.Tensor:
        both = torch.cat([hyper, self.context(latent)], dim=1)
        return self.second(F.leaky_relu(self.first(both)))


class Gaussian(sampling.Output):
    """Integers of a normal distribution, rounded: all channels of a pixel at once."""

    by_colour = False

    def __init__(self, most: int = 127) -> None:
        super().__init__(2 * most + 1, (1.0, -float(most)))
        self.most = most

    def channels(self, colours: int) -> int:
        return 2 * colours

    def draw(
        self, params: torch.Tensor, noise: torch.Tensor, temperature: float, top_k: int | None
    ) -> torch.Tensor:
        mean, log_scale = params.chunk(2, dim=1)
        value = mean + log_scale.clamp(-4.0, 4.0).exp() * noise
        return value.round().clamp(-self.most, self.most).long() + self.most

    def masses(self, params: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
        """Of integers; the outer levels take the tails."""
        mean, log_scale = params.double().chunk(2, dim=1)
        scale = log_scale.clamp(-4.0, 4.0).exp()
        last, below = self.levels - 1, values - self.most - 0.5
        high = torch.special.ndtr((below + 1 - mean) / scale).where(values < last, 1.0)
        return high - torch.special.ndtr((below - mean) / scale).where(values > 0, 0.0)

    def probabilities(
        self, params: torch.Tensor, before: torch.Tensor | None = None
    ) -> torch.Tensor:
        channel = 0 if before is None else before.shape[1]
        own = params.unflatten(1, (2, -1))[:, :, channel]
        return self.masses(own, torch.arange(self.levels)[:, None])

    def log_prob(self, params: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
        return self.masses(params, values).log().flatten(1).sum(1)


@torch.no_grad()
def by_crops(
    model: Context, hyper: torch.Tensor, normal: torch.Tensor, output: Gaussian
) -> torch.Tensor:
    """The loop of public codecs: a convolution of a 5 x 5 crop for each pixel."""
    N, C, H, W = normal.shape
    live = live_taps(model.context.weight.shape, "A").to(normal)
    weight, latent = model.context.weight * live, normal.new_zeros(N, C, H + 4, W + 4)
    for i in range(H):
        for j in range(W):
            crop = latent[:, :, i : i + 5, j : j + 5]
            context = F.conv2d(crop, weight, model.context.bias)
            both = torch.cat([hyper[:, :, i : i + 1, j : j + 1], context], dim=1)
            params = model.second(F.leaky_relu(model.first(both)))
            values = output.draw(params[..., 0], normal[:, :, i, j, None], 1.0, None)
            latent[:, :, i + 2, j + 2] = output.to_inputs(values[..., 0], normal.dtype)
    return latent[:, :, 2:-2, 2:-2]


def by_steps(
    model: Context, hyper: torch.Tensor, normal: torch.Tensor, output: Gaussian, method: str
) -> torch.Tensor:
    def choose(params: torch.Tensor, step: sampling.Step) -> torch.Tensor:
        return output.draw(params, normal[:, :, step.rows, step.cols], 1.0, None)

    N, C, H, W = normal.shape
    found = sampling.sample(
        model, N, shape=(C, H, W), output=output, condition=hyper, choose=choose, method=method
    )
    return output.to_inputs(found, normal.dtype)


def compare(
    *, channels: int = 192, hidden: int = 640, side: int = 16, batch: int = 1, repeats: int = 3
) -> dict[str, float | str]:
    """Milliseconds of both ways for one latent, and how many of its integers differ (0)."""
    torch.manual_seed(0)
    model, output = Context(channels, hidden).eval(), Gaussian()
    hyper = torch.randn(batch, 2 * channels, side, side)
    normal = torch.randn(batch, channels, side, side)
    slow, public = timed(lambda: by_crops(model, hyper, normal, output), repeats)
    found: dict[str, float | str] = {"public_ms": 1e3 * slow}
    for method in ("incremental", "wavefront"):
        run = lambda method=method: by_steps(model, hyper, normal, output, method)  # noqa: E731
        seconds, ours = timed(run, repeats)
        found[f"{method}_ms"] = 1e3 * seconds
        found[f"{method}_different"] = int((ours != public).sum())
    found["speedup"] = slow * 1e3 / min(found["incremental_ms"], found["wavefront_ms"])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    for name, default in (("channels", 192), ("hidden", 640), ("side", 16), ("batch", 1)):
        parser.add_argument(f"--{name}", type=int, default=default)
    found = compare(**vars(parser.parse_args()))
    ways = ", ".join(
        f"{method} {found[f'{method}_ms']:.1f} ms ({found[f'{method}_different']} integers differ)"
        for method in ("incremental", "wavefront")
    )
    print(f"crops {found['public_ms']:.1f} ms; {ways}: {found['speedup']:.1f}x")


if __name__ == "__main__":
    main()
