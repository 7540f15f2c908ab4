"""Faults of gradient_penalty that its tests must find."""

from tests.mutants.fault import Fault

VALUES = "tests/gradient_penalty/values.py"

FAULTS = [
    Fault(
        "double backward takes the slope for a constant",
        "csrc/gradient_penalty/cpu.cpp",
        "return c * w + e * (scale * v);",
        "return c * w + A(0) * e * scale * v;",
        VALUES,
        "match_the_float64_reference",
    ),
    Fault(
        "the slope at a gradient of zero is not 0",
        "csrc/gradient_penalty/gradient_penalty.h",
        "return r == 0 || is_flat(r) ? 0 : 2 * weight * (1 - target / r);",
        "return is_flat(r) ? 0 : 2 * weight * (1 - target / r);",
        VALUES,
        "every_derivative_is_zero",
    ),
    Fault(
        "rows of many segments count their first one alone",
        "csrc/gradient_penalty/cpu.cpp",
        "sums[n] += segments[n * rows.segments + s];",
        "sums[n] = segments[n * rows.segments];",
        VALUES,
        "several_segments",
    ),
]
