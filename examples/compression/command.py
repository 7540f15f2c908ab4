"""The options of `compress` and `decompress`, checked before torch is imported."""

import argparse
from pathlib import Path
from typing import Any

from examples import options, paths, registry

METHODS = ("auto", "naive", "incremental", "wavefront")
NUMBER = options.Number(int, 1, 10**6)
CODED, ARRAY = "a .gkc file", "a .npy file"


def _run(args: argparse.Namespace) -> Path:
    registry.exact_entry(args.model)
    return paths.run_to_read("--run", f"runs/{args.model}" if args.run is None else args.run)


def compress_options(parser: Any) -> None:
    parser.add_argument("model", metavar="MODEL", help="python -m examples list")
    parser.add("run", "the folder of a run", "default runs/MODEL")
    parser.add("images", ARRAY, "uint8 (N, C, H, W); default: the test split of the run's data")
    parser.add("data_dir", "a folder", "of local data files; default: the run's")
    parser.add("num", NUMBER, "images at most")
    parser.add("method", ", ".join(METHODS), "of genkern.sampling; default auto")
    parser.add("out", f"{CODED} that can be written", "default RUN/images.gkc")


def run_compress(args: argparse.Namespace) -> int:
    run = _run(args)
    given: dict[str, Any] = {"data_dir": args.data_dir}
    if args.data_dir is not None:
        paths.folder_to_read("--data-dir", args.data_dir)
    if args.images is not None:
        given["source"] = paths.file_to_read("--images", args.images, ".npy")
    if args.num is not None:
        given["num"] = NUMBER.read("--num", args.num)
    if args.method is not None:
        given["method"] = options.Choice(METHODS).read("--method", args.method)
    default = str(run / "images.gkc")
    out = paths.file_to_write("--out", default if args.out is None else args.out, ".gkc")
    from examples.compression.files import compress

    return compress(args.model, run, out, **given)


def decompress_options(parser: Any) -> None:
    parser.add_argument("model", metavar="MODEL", help="python -m examples list")
    parser.add("run", "the folder of a run", "default runs/MODEL")
    parser.add("input", CODED, "of `compress`; default RUN/images.gkc")
    parser.add("out", f"{ARRAY} that can be written", "default RUN/images.npy")


def run_decompress(args: argparse.Namespace) -> int:
    run = _run(args)
    source = str(run / "images.gkc") if args.input is None else args.input
    coded = paths.file_to_read("--input", source, ".gkc")
    default = str(run / "images.npy")
    out = paths.file_to_write("--out", default if args.out is None else args.out, ".npy")
    from examples.compression.files import decompress

    return decompress(args.model, run, coded, out)


COMMANDS = {
    "compress": ("images to a file, lossless", compress_options, run_compress),
    "decompress": ("and back", decompress_options, run_decompress),
}
