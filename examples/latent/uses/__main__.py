"""`python -m examples.latent.uses USE RUN [RUN] [--out FOLDER]`: figures; pictures in FOLDER."""

import argparse
import importlib
import sys
from pathlib import Path

from examples.errors import UsageError

USES = {
    "few_labels": "a classifier that starts from the encoder, with 10, 50 and 100 labels",
    "walks": "pictures of traversals, slerp and arithmetic of averaged codes",
    "clusters": "k-means and PCA of the codes",
    "gradients": "variance of the score-function and the reparameterised gradient (a VAE)",
    "kl_share": "the KL as a share of the bound, of VAEs and PixelVAEs: any number of runs",
    "code_prior": "bits of a VQ-VAE whose code maps have a model: the runs of both",
}


def main() -> int:
    parser = argparse.ArgumentParser("python -m examples.latent.uses")
    told = "; ".join(f"{name}: {text}" for name, text in USES.items())
    parser.add_argument("use", metavar="USE", choices=USES, help=told)
    parser.add_argument("runs", metavar="RUN", nargs="+", type=Path, help="folders of runs")
    parser.add_argument("--out", type=Path, help="folder of the pictures; default: RUN")
    given = parser.parse_args()
    module = importlib.import_module(f"examples.latent.uses.{given.use}")
    try:
        module.main(given.runs, given.out or given.runs[0])
    except UsageError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
