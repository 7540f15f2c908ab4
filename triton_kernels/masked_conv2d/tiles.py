"""Tiles of the kernels of masked_conv2d: (kernel, major compute capability, bytes of an element):
extents in the order of the kernel's plan, warps, stages. A chip without an entry takes that of
sm_80.

`python -m benchmarks tune` on a GPU rewrites both tables. MEASURED: (major, bytes): where; what is
not named there is an estimate.
"""

TILES: dict[tuple[str, int, int], tuple[int, ...]] = {
    ("masked_conv2d", 8, 2): (128, 64, 32, 4, 4),
    ("masked_conv2d", 8, 4): (64, 64, 16, 4, 3),
    ("masked_conv2d", 8, 8): (32, 32, 16, 4, 2),
    ("masked_conv2d", 9, 2): (128, 128, 64, 8, 3),
    ("masked_conv2d", 10, 2): (128, 128, 64, 8, 3),
    ("masked_conv2d_scattered", 8, 2): (64, 64, 32, 4, 2),
    ("masked_conv2d_scattered_weight", 8, 2): (32, 64, 64, 4, 2),
    ("masked_conv2d_weight", 8, 2): (64, 64, 64, 4, 3),
    ("masked_conv2d_weight", 8, 4): (32, 32, 32, 4, 3),
    ("masked_conv2d_weight", 8, 8): (16, 32, 32, 4, 2),
}
MEASURED: dict[tuple[int, int], str] = {}
