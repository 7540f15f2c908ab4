"""Faults of upfirdn2d that its tests must find."""

from tests.mutants.fault import Fault

VALUES = "tests/upfirdn2d/values.py"

FAULTS = [
    Fault(
        "the adjoint runs with the filter as it is",
        "csrc/upfirdn2d/cpu.cpp",
        "axes.adjoint(), true, gain",
        "axes.adjoint(), false, gain",
        VALUES,
        "match_the_float64_reference",
    ),
    Fault(
        "the rows above an image are its first row",
        "csrc/core/fir.h",
        "if (0 <= at && at < in) f(k, at);",
        "if (at < in) f(k, std::max<int64_t>(0, at));",
        VALUES,
        "match_the_float64_reference",
    ),
    Fault(
        "half precision reads a row too few for a block",
        "csrc/core/fir.h",
        "floor_divide(start(end - 1), up) + 1",
        "floor_divide(start(end - 1), up)",
        VALUES,
        "blocks_of_rows",
    ),
]
