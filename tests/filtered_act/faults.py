"""Faults of filtered_act that its tests must find."""

from tests.mutants.fault import Fault

VALUES = "tests/filtered_act/values.py"

FAULTS = [
    Fault(
        "every channel has the bias of the first one",
        "csrc/filtered_act/cpu.cpp",
        "const A number = numbers.empty() ? A(0) : numbers[plane % C];",
        "const A number = numbers.empty() ? A(0) : numbers[0];",
        VALUES,
        "match_the_float64_reference",
    ),
    Fault(
        "the clamp bounds no gradient",
        "csrc/filtered_act/filtered_act.h",
        "return abs(gain * of.value) > clamp ? decltype(u){} : gain * u * of.slope;",
        "return abs(gain * of.value) > clamp + 1e9f ? decltype(u){} : gain * u * of.slope;",
        VALUES,
        "match_the_float64_reference",
    ),
    Fault(
        "a block of rows reads one row too few of the large image",
        "csrc/filtered_act/cpu.cpp",
        "for (int64_t i = low; i < high; ++i) between.row",
        "for (int64_t i = low; i + 1 < high; ++i) between.row",
        VALUES,
        "blocks_of_rows",
    ),
]
