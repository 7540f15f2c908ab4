"""The calls of stage 2 in two dtypes: what compute-sanitizer watches. Arguments: families."""

import sys
from pathlib import Path

import torch

from tests.gpu.kit import Setting, material, on_device
from tests.gpu.stage import prepare


def main(families: list[str]) -> None:
    prepare()
    with on_device(Setting(families, "cuda", 0, 0.0, Path())):
        for family in families:
            for op, call in material(family).calls.items():
                for dtype in (torch.float32, torch.bfloat16):
                    call(dtype)
                    print(op, dtype, flush=True)
        torch.cuda.synchronize()
    print("finished")


if __name__ == "__main__":
    main(sys.argv[1].split(","))
