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
        "baseline",  # blocks of the small level have no four vectors
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
    Fault(
        "double backward forgets the gradient of the log-variance in the location",
        "csrc/likelihoods/second.h",
        "scaled_distance(p + u * v_l, w)",
        "scaled_distance(p, w)",
        VALUES,
        "match_the_float64_reference",
    ),
    Fault(
        "the end of a bin at infinity bends the likelihood",
        "csrc/likelihoods/second.h",
        "last ? none : logistic_density(p)",
        "logistic_density(p)",
        VALUES,
        "match_the_float64_reference",
    ),
    Fault(
        "double backward of a target that samples share sees the first one's direction",
        "csrc/likelihoods/cpu_second.cpp",
        "v.at(first, count, bends)",
        "v.at(e, count, bends)",
        VALUES,
        "share_their_target",
    ),
]
