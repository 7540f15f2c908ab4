"""Tiles of the kernels of diagonal_lstm: (kernel, major compute capability, bytes of an element):
extents in the order of the kernel's plan, warps, stages. A chip without an entry takes that of
sm_80.

`python -m benchmarks tune` on a GPU rewrites both tables. MEASURED: (major, bytes): where; what is
not named there is an estimate.
"""

TILES: dict[tuple[str, int, int], tuple[int, ...]] = {
    ("diagonal_lstm_backward", 8, 2): (64, 16, 32, 4, 2),
    ("diagonal_lstm_backward", 8, 4): (64, 16, 16, 4, 2),
    ("diagonal_lstm_backward", 8, 8): (16, 16, 16, 4, 1),
    ("diagonal_lstm_forward", 8, 2): (32, 16, 32, 4, 2),
    ("diagonal_lstm_forward", 8, 4): (32, 16, 16, 4, 2),
    ("diagonal_lstm_forward", 8, 8): (16, 16, 16, 4, 1),
    ("diagonal_lstm_weight", 8, 2): (64, 32, 64, 8, 2),
    ("diagonal_lstm_weight", 8, 4): (32, 32, 32, 4, 2),
    ("diagonal_lstm_weight", 8, 8): (16, 32, 16, 4, 1),
}
MEASURED: dict[tuple[int, int], str] = {}
