"""Faults of pixel_cross_entropy that its tests must find."""

from tests.mutants.fault import Fault

PIXELS = "tests/pixel_cross_entropy/values.py"

FAULTS = [
    Fault(
        "what the levels before have added is not rescaled",
        "csrc/pixel_cross_entropy/pixel_cross_entropy.h",
        "for (int v = 0; v < NV; ++v) total[v] *= scale[v];",
        "for (int v = 0; v < 0; ++v) total[v] *= scale[v];",
        PIXELS,
        "around_the_blocks",
    ),
    Fault(
        "the pixels that fill up a panel have slopes",
        "csrc/pixel_cross_entropy/head_backward.h",
        "l < levels && live < P;",
        "l < levels && live < 0;",
        PIXELS,
        "around_the_blocks",
    ),
    Fault(
        "the first block of every further part is skipped",
        "csrc/pixel_cross_entropy/head_backward.h",
        "int64_t unit = blocks.count() * part / parts,",
        "int64_t unit = blocks.count() * part / parts + (part > 0),",
        PIXELS,
        "around_the_blocks",
    ),
    Fault(
        "a colour sees the features of the next one",
        "csrc/pixel_cross_entropy/head.h",
        "return masked ? (features * (colour + 1)",
        "return masked ? (features * std::min(colour + 2, colours)",
        PIXELS,
        "does_not_see",
    ),
]
