"""A prior over the codes of a VQ-VAE: a class-conditional Gated PixelCNN over 32 x 32 codes of 512.

Codes enter as numbers in [-1, 1]. The public way is a forward pass for each code; it is timed for a
few of the 1,024 and multiplied. That it would draw the same codes is shown by one forward pass over
what was drawn: with the same noise it draws every code again.

Source: van den Oord et al. 2017, "Neural discrete representation learning", sec. 3.3 and 4.2.
"""

import argparse

import torch

import genkern
from examples.autoregressive.gated_pixel_cnn import ClassGatedPixelCNN
from examples.fast_sampling.public import public, timed
from examples.model import DataSpec
from genkern import sampling


@torch.no_grad()
def compare(
    *,
    side: int = 32,
    codes: int = 512,
    hidden: int = 64,
    layers: int = 10,
    batch: int = 16,
    forwards: int = 3,
) -> dict[str, float | str]:
    """Codes a second of both, and how many of the codes differ (0)."""
    torch.manual_seed(0)
    spec = DataSpec((1, side, side), codes, 10)
    model = ClassGatedPixelCNN(spec, hidden=hidden, layers=layers).eval()
    labels, output = torch.arange(batch) % 10, sampling.Categorical(codes)
    noise = sampling.draw_noise(batch, shape=spec.shape, output=output)
    options = {"shape": spec.shape, "output": output, "condition": labels, "noise": noise}
    seconds, drawn = timed(lambda: sampling.sample(model.features, batch, **options), 2)

    other = public(model)
    inputs = output.to_inputs(drawn, torch.float32)
    with genkern.use_backend("reference"):
        slow, params = timed(lambda: other.features(inputs, labels), forwards)
    again = output.draw(params.flatten(2), noise.flatten(2), 1.0, None).view_as(drawn)
    places = side * side
    return {
        "method": sampling.last_report().method,
        "codes_per_second": batch * places / seconds,
        "public_codes_per_second": batch / slow,
        "speedup": slow * places / seconds,
        "seconds": seconds,
        "public_seconds": slow * places,
        "different": int((again != drawn).sum()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--hidden", type=int, default=64)
    parser.add_argument("--layers", type=int, default=10)
    found = compare(**vars(parser.parse_args()))
    print(
        f"{found['codes_per_second']:,.0f} codes/s ({found['method']}, {found['seconds']:.2f} s); "
        f"a forward pass per code {found['public_codes_per_second']:,.1f} codes/s "
        f"({found['public_seconds']:,.0f} s from 3 passes): {found['speedup']:,.0f}x; "
        f"{found['different']} codes differ"
    )


if __name__ == "__main__":
    main()
