"""Faults of bias_act that its tests must find."""

from tests.mutants.fault import Fault

VALUES = "tests/bias_act/values.py"

FAULTS = [
    Fault(
        "the curvature of the activation has the wrong sign below 0",
        "csrc/core/activation.h",
        "z < 0 ? -bend : bend",
        "bend",
        VALUES,
        "every_activation_over_its_range",
    ),
    Fault(
        "double backward does not see the gradient of the bias",
        "csrc/bias_act/cpu.cpp",
        "of_both(axis, reader<A>(of_d_x), second_bias)",
        "of_both(axis, reader<A>(of_d_x), MaybeTensor())",
        VALUES,
        "match_the_float64_reference",
    ),
    Fault(
        "runs of a channel start with their chunk",
        "csrc/bias_act/cpu.cpp",
        "std::min(count - i, run - place % run)",
        "std::min(count - i, run)",
        VALUES,
        "sizes_around_the_chunks",
    ),
]
