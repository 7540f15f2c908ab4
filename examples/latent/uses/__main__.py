"""`python -m examples.latent.uses USE RUN [RUN] [--out FOLDER] [--page FOLDER]`: figures, which
the page keeps; pictures in FOLDER."""

import argparse
import importlib
import sys
from collections.abc import Sequence
from pathlib import Path

from examples import page
from examples.errors import UsageError
from examples.latent.uses import USES


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser("python -m examples.latent.uses")
    told = "; ".join(f"{name}: {text}" for name, text in USES.items())
    parser.add_argument("use", metavar="USE", choices=USES, help=told)
    parser.add_argument("runs", metavar="RUN", nargs="+", type=Path, help="folders of runs")
    parser.add_argument("--out", type=Path, help="folder of the pictures; default: RUN")
    parser.add_argument("--page", type=Path, help="folder of a page that the figures are kept in")
    given = parser.parse_args(argv)
    # Only now, so that --help is quick.
    from examples.latent.uses.report import Report

    module = importlib.import_module(f"examples.latent.uses.{given.use}")
    report = Report(given.out or given.runs[0])
    try:
        module.main(given.runs, report)
        for path, _ in report.pictures:
            print(f"Wrote {path}")
        if given.page is not None:
            page.keep_use(given.page, report.row(given.use, given.runs), report.pictures)
    except UsageError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
