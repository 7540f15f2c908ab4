"""Faults of discretized_logistic_mixture that its tests must find."""

from tests.mutants.fault import Fault

MIXTURE = "tests/discretized_logistic_mixture/values.py"

FAULTS = [
    Fault(
        "the width of a bin is lost where its centre is near",
        "csrc/core/logistic.h",
        "other = near ? e * centre.rest : other;",
        "",
        "tests/discretized_logistic_mixture/test_fifty_digits.py",
        "every_bin",
    ),
    Fault(
        "infinite times no slope at all is NaN",
        "csrc/core/logistic.h",
        "max(min(end ? -g : abs(Z), splat(A(1e30))), splat(A(-1e30)))",
        "(end ? -g : abs(Z))",
        MIXTURE,
        "limits_and_never_nan",
    ),
    Fault(
        "the last level is no edge of the allowed targets",
        "csrc/discretized_logistic_mixture/cpu.cpp",
        "uint64_t(v) >= uint64_t(levels_)",
        "uint64_t(v) > uint64_t(levels_)",
        MIXTURE,
        "no_level_is_an_error",
    ),
]
