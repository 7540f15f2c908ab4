"""The calls of stage 2 in two dtypes: what compute-sanitizer watches. Arguments: families."""

import importlib
import sys
from pathlib import Path

import torch

from tests.gpu.kit import Setting, on_device
from tests.gpu.stage import prepare


def main(families: list[str]) -> None:
    prepare()
    with on_device(Setting(families, "cuda", 0, 0.0, Path())):
        for family in families:
            for op, call in importlib.import_module(f"tests.{family}.gpu").CALLS.items():
                for dtype in (torch.float32, torch.bfloat16):
                    call(dtype)
                    print(op, dtype, flush=True)
        torch.cuda.synchronize()
    print("finished")


if __name__ == "__main__":
    main(sys.argv[1].split(","))
