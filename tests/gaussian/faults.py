"""Faults of gaussian that its tests must find."""

from tests.mutants.fault import Fault

GAUSSIAN = "tests/gaussian/values.py"
OPTIONS = "tests/gaussian/test_options.py"

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
        "of_noise ? like(true, eps) : new_zeros_like(*in.eps)",
        "of_noise ? like(true, eps) : new_large(*in.eps, in.eps->sizes())",
        GAUSSIAN,
        "of_its_own_sample",
    ),
    Fault(
        "every sample takes the upstream gradient of the first",
        "csrc/gaussian/backward.h",
        "d_.z.at(drawn, count, d_z_.data)",
        "d_.z.at(e, count, d_z_.data)",
        GAUSSIAN,
        "of_its_own_sample",
    ),
    Fault(
        "the gradient of a broadcast scale lacks the last part of its sum",
        "csrc/gaussian/backward.h",
        "for (int64_t part = 0; part < parts; ++part) sum",
        "for (int64_t part = 0; part + 1 < parts; ++part) sum",
        OPTIONS,
        "options_match",
    ),
    Fault(
        "the density's gradient in the noise has the wrong sign",
        "csrc/gaussian/backward.h",
        "return g - e * d;",
        "return g + e * d;",
        OPTIONS,
        "options_match",
    ),
    Fault(
        "the slope of a softplus scale is halved in its tail",
        "csrc/gaussian/gaussian.h",
        "? splat(A(1)) : slope",
        "? splat(A(0.5)) : slope",
        OPTIONS,
        "exact_in_its_tails",
    ),
]
