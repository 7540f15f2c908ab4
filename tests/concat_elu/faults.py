"""Faults of concat_elu that its tests must find."""

from tests.mutants.fault import Fault

ELU = "tests/concat_elu/values.py"

FAULTS = [
    Fault(
        "elu(-x) has the slope of elu(x)",
        "csrc/concat_elu/concat_elu.h",
        "{x > 0 ? one : e, x > 0 ? -e : -one}",
        "{x > 0 ? one : e, x > 0 ? e : -one}",
        ELU,
        "match_the_float64_reference",
    ),
    Fault(
        "the last chunk of a row of the concatenated ELU is a whole one",
        "csrc/concat_elu/cpu.cpp",
        "std::min(each, length - i));",
        "std::min(each, count * length - row * length - i));",
        ELU,
        "sizes_around_the_chunks",
    ),
]
