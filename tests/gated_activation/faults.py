"""Faults of gated_activation that its tests must find."""

from tests.mutants.fault import Fault

FAULTS = [
    Fault(
        "the slope of tanh is half of what it is",
        "csrc/gated_activation/gated_activation.h",
        "constexpr float kBiasOf4 = kRound + 127 + 2;",
        "constexpr float kBiasOf4 = kRound + 127 + 1;",
        "tests/gated_activation/values.py",
        "match_the_float64_reference",
    ),
    Fault(
        "the condition of the second half is that of the first",
        "csrc/gated_activation/cpu.cpp",
        "chunk.shift_b = condition[channel + rows.C];",
        "chunk.shift_b = condition[channel];",
        "tests/gated_activation/values.py",
        "match_the_float64_reference",
    ),
]
