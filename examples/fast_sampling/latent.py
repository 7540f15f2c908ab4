"""The sequential part of decoding a learned image codec: its context model, pixel after pixel.

A 5 x 5 convolution with mask A over an integer latent of 192 channels, and two 1 x 1 layers over it
and what the hyperprior says, give the mean and the scale of each channel of the next pixel; the
entropy decoder then gives its integers. Here integers come from fixed noise in the decoder's place,
the same in both ways, so that what is timed is the rest. The public way: for each pixel, `F.conv2d`
on a 5 x 5 crop, then the two layers.

A decoder has one model for all images: `genkern.sampling.unchanged` records it once, and each image
brings its hyperprior. Also timed: recording the model for each image, and a decoder in Python, that
is called for each step with the means and the scales of its pixels.

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

MOST = 127
INTEGERS = sampling.Gaussian(2 * MOST + 1, inputs=(1.0, -float(MOST)))


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


def rounded(params: torch.Tensor, normal: torch.Tensor) -> torch.Tensor:
    """The integers (N, C, P) of parameters (N, 2C, P), as `genkern.sampling.Gaussian` draws them,
    of normal noise."""
    mean, log_scale = params.double().chunk(2, dim=1)
    return (mean + log_scale.clamp(min=-7.0).exp() * normal).round().clamp(-MOST, MOST)


@torch.no_grad()
def by_crops(model: Context, hyper: torch.Tensor, normal: torch.Tensor) -> torch.Tensor:
    """The loop of public codecs: a convolution of a 5 x 5 crop for each pixel."""
    N, C, H, W = normal.shape
    live = live_taps(model.context.weight.shape, "A").to(hyper)
    weight, latent = model.context.weight * live, hyper.new_zeros(N, C, H + 4, W + 4)
    for i in range(H):
        for j in range(W):
            crop = latent[:, :, i : i + 5, j : j + 5]
            context = F.conv2d(crop, weight, model.context.bias)
            both = torch.cat([hyper[:, :, i : i + 1, j : j + 1], context], dim=1)
            params = model.second(F.leaky_relu(model.first(both)))
            latent[:, :, i + 2, j + 2] = rounded(params[..., 0, 0], normal[:, :, i, j])
    return latent[:, :, 2:-2, 2:-2]


def by_steps(model: Context, hyper: torch.Tensor, method: str, **options) -> torch.Tensor:
    """The engine's latent; options: the noise, or the decoder in its place."""
    N, twice, H, W = hyper.shape
    found = sampling.sample(
        model, N, shape=(twice // 2, H, W), output=INTEGERS, condition=hyper, method=method,
        **options,
    )  # fmt: skip
    return INTEGERS.to_inputs(found, hyper.dtype)


def compare(
    *, channels: int = 192, hidden: int = 640, side: int = 16, batch: int = 1, repeats: int = 3
) -> dict[str, float]:
    """Milliseconds of each way for one latent, and how many of its integers differ (0)."""
    torch.manual_seed(0)
    model = Context(channels, hidden).eval()
    hyper = torch.randn(batch, 2 * channels, side, side)
    noise = sampling.draw_noise(batch, shape=(channels, side, side), output=INTEGERS)
    normal = torch.special.ndtri(noise.double().clamp(2.0**-32, 1 - 2.0**-24))

    def decode(params: torch.Tensor, step: sampling.Step) -> torch.Tensor:
        return rounded(params, normal[:, :, step.rows, step.cols]).long() + MOST

    slow, public = timed(lambda: by_crops(model, hyper, normal), repeats)
    ways = {
        "incremental": lambda: by_steps(model, hyper, "incremental", noise=noise),
        "wavefront": lambda: by_steps(model, hyper, "wavefront", noise=noise),
        "python": lambda: by_steps(model, hyper, "wavefront", choose=decode),
    }
    found, different = {"public_ms": 1e3 * slow}, 0

    def measure(name: str, way) -> None:
        nonlocal different
        seconds, latent = timed(way, repeats)
        found[f"{name}_ms"] = 1e3 * seconds
        different += int((latent != public).sum())

    with sampling.unchanged(model):
        for name, way in ways.items():
            measure(name, way)
    measure("anew", ways["wavefront"])
    found["different"] = different
    found["speedup"] = found["public_ms"] / min(found["incremental_ms"], found["wavefront_ms"])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    for name, default in (("channels", 192), ("hidden", 640), ("side", 16), ("batch", 1)):
        parser.add_argument(f"--{name}", type=int, default=default)
    found = compare(**vars(parser.parse_args()))
    print(
        f"crops {found['public_ms']:.1f} ms; pixel by pixel {found['incremental_ms']:.1f} ms, "
        f"wavefronts {found['wavefront_ms']:.1f} ms: {found['speedup']:.1f}x; wavefronts recorded "
        f"for each image {found['anew_ms']:.1f} ms, with a decoder in Python "
        f"{found['python_ms']:.1f} ms; {found['different']} integers differ"
    )


if __name__ == "__main__":
    main()
