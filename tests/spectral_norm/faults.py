"""Faults of spectral_norm that its tests must find."""

from tests.mutants.fault import Fault

VALUES = "tests/spectral_norm/values.py"

FAULTS = [
    Fault(
        "the gradient does not run through sigma",
        "csrc/spectral_norm/cpu.cpp",
        "return (g - k * b) / s;",
        "return (g - A(0) * k * b) / s;",
        VALUES,
        "match_the_float64_reference",
    ),
    Fault(
        "v of a transposed convolution is that of its first input",
        "csrc/spectral_norm/cpu.cpp",
        "parts[row] += core::sum<A>(count, product, x, &v[row / R * inner + i]);",
        "parts[row] += core::sum<A>(count, product, x, &v[i]);",
        VALUES,
        "steps_match",
    ),
    Fault(
        "vectors are not normalised",
        "csrc/spectral_norm/spectral_norm.h",
        "for (A& v : x) v = A(double(v) / by);",
        "for (A& v : x) v = A(double(v) / (by * 0 + 1));",
        VALUES,
        "known_singular_values",
    ),
]
