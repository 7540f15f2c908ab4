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
    Fault(
        "what is formed again is kept all the same",
        "genkern/family.py",
        "register_hooks(lambda tensor: None, again)",
        "register_hooks(lambda tensor: tensor, again)",
        "tests/gated_activation/contract.py",
        "is_not_kept",
        "",
    ),
    Fault(
        "what a user has hooks on is an error",
        "genkern/family.py",
        "contextlib.suppress(RuntimeError)",
        "contextlib.suppress(KeyError)",
        "tests/gated_activation/contract.py",
        "hooks_of_users",
        "",
    ),
]
