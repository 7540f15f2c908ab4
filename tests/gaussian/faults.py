"""Faults of gaussian that its tests must find."""

from tests.mutants.fault import Fault

GAUSSIAN = "tests/gaussian/values.py"

FAULTS = [
    Fault(
        "elements at the free-bits floor lose their gradient",
        "csrc/core/vecmath.h",
        "u < bound ? decltype(v){} : v",
        "u <= bound ? decltype(v){} : v",
        GAUSSIAN,
        "at_their_floor",
    ),
    Fault(
        "blocks of noise come out in the order of the lanes",
        "csrc/core/philox.h",
        "return lane % 4 * (kLanes<float> / 4) + lane / 4;",
        "return lane;",
        GAUSSIAN,
        "philox_stream_in_logical_order",
    ),
    Fault(
        "the noise's gradient is not written where nothing depends on it",
        "csrc/gaussian/cpu.cpp",
        "if (needs_eps && !d_z.has_value()) d_eps = new_zeros_like(*in.eps);",
        "if (needs_eps && !d_z.has_value()) d_eps = new_large(*in.eps, in.eps->sizes());",
        GAUSSIAN,
        "of_its_own_sample",
    ),
    Fault(
        "every sample takes the upstream gradient of the first",
        "csrc/gaussian/cpu.cpp",
        "d_z.at(drawn, count, d_z_buffer.data)",
        "d_z.at(e, count, d_z_buffer.data)",
        GAUSSIAN,
        "of_its_own_sample",
    ),
]
