"""Faults of what families share that the tests of tests/core must find."""

from tests.mutants.fault import Fault

VECMATH = "tests/core/test_vecmath.py"

FAULTS = [
    Fault(
        "Philox's high counter word is zero",
        "csrc/core/philox.h",
        "c0[k] = (first >> 32) ^ keys.even[0];",
        "c0[k] = keys.even[0];",
        VECMATH,
        "baseline",
        "",
    ),
    Fault(
        "uniform numbers start at 0",
        "csrc/core/philox.h",
        "const auto u = to_float(by_vector(to_signed, a >> 1)) * 0x1p-31f + 0x1p-32f;",
        "const auto u = to_float(by_vector(to_signed, a >> 1)) * 0x1p-31f + 0.0f;",
        VECMATH,
        "baseline",
        "",
    ),
    Fault(
        "uniform numbers start at 0, in both precisions",
        "csrc/core/philox.h",
        "0x1p-31f + 0x1p-32f;",
        "0x1p-31f + 0.0f;",
        VECMATH,
        "baseline",
        "",
    ),
    Fault(
        "sigmoid keeps what is below the normal numbers",
        "csrc/core/vecmath.h",
        "return x < -87.3f ? VecF{} : y;",
        "return y;",
        VECMATH,
        "baseline",
        "",
    ),
    Fault(
        "half precision rounds to infinity too late",
        "csrc/core/simd.h",
        "if (magnitude >= 0x477FF000u)",
        "if (magnitude >= 0x47810000u)",
        VECMATH,
        "baseline",
        "",
    ),
]
