"""Faults of likelihoods that its tests must find."""

from tests.mutants.fault import Fault

VALUES, CONTRACT = "tests/likelihoods/values.py", "tests/likelihoods/contract.py"

FAULTS = [
    Fault(
        "the last group of four vectors loses its logarithm",
        "csrc/likelihoods/likelihoods.h",
        "if (i > 0) store(terms, load(terms) + log1p_finite(product));",
        "",
        VALUES,
        "rows_of_many_lengths",
    ),
    Fault(
        "masked elements have the gradient of what stands there",
        "csrc/likelihoods/chunks.h",
        "keep(first, count, to.location);",
        "",
        CONTRACT,
        "past_the_mask",
    ),
    Fault(
        "every sample adds the target's gradient of the first",
        "csrc/likelihoods/cpu.cpp",
        "chunks.slopes(s * in.period() + e, count, work, {}, at);",
        "chunks.slopes(e, count, work, {}, at);",
        VALUES,
        "share_their_target",
    ),
    Fault(
        "inf - inf where the tail outgrows the normaliser",
        "csrc/likelihoods/likelihoods.h",
        "store(terms, tail == INFINITY ? tail : nats);",
        "store(terms, nats);",
        CONTRACT,
        "limit_and_never_nan",
    ),
]
