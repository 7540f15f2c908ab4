"""Faults of norm_act that its tests must find."""

from tests.mutants.fault import Fault

VALUES = "tests/norm_act/values.py"

FAULTS = [
    Fault(
        "the variance of chunks leaves out how far their means are apart",
        "csrc/norm_act/norm_act.h",
        "apart * apart * a.count * share",
        "0 * apart * a.count * share",
        VALUES,
        "sizes_around_the_chunks",
    ),
    Fault(
        "an image has the affine map of its place and not of its class",
        "csrc/norm_act/cpu.cpp",
        "labels_ ? at()[n] : n",
        "n % rows.size(0)",
        VALUES,
        "through_classes_and_styles",
    ),
    Fault(
        "double backward does not see that the standard deviation depends on the input",
        "csrc/norm_act/cpu.cpp",
        "a_h + s_ * t_u",
        "a_h",
        VALUES,
        "match_the_float64_reference",
    ),
]
