"""Faults of gated_activation that its tests must find."""

from tests.mutants.fault import Fault

FAULTS = [
    Fault(
        "the slope of tanh is half of what it is",
        "csrc/gated_activation/gated_activation.h",
        "constexpr float kBias = kRound + 127, kBiasOf4 = kBias + 2;",
        "constexpr float kBias = kRound + 127, kBiasOf4 = kBias + 1;",
        "tests/gated_activation/values.py",
        "match_the_float64_reference",
    ),
]
