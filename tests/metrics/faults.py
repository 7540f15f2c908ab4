"""Faults of genkern.metrics that its tests must find."""

from tests.mutants.fault import Fault

TESTS = "tests/metrics/test_log_likelihood.py"

FAULTS = [
    Fault(
        "every proposal of HMC is accepted",
        "genkern/metrics/annealing.py",
        "taken = torch.rand_like(log_ratio).log() < log_ratio",
        "taken = log_ratio > -math.inf",
        TESTS,
        "unbiased_with_few_temperatures",
        "",
    ),
    Fault(
        "chains move at the temperature that they come from",
        "genkern/metrics/annealing.py",
        "self.move(state, betas[t], steps[t - 1])",
        "self.move(state, betas[t - 1], steps[t - 1])",
        TESTS,
        "unbiased_with_few_temperatures",
        "",
    ),
    Fault(
        "the energy before a move has no momentum in it",
        "genkern/metrics/annealing.py",
        "before = state.log_density(beta) - kinetic(momentum)",
        "before = state.log_density(beta)",
        TESTS,
        "closed_form",
        "",
    ),
    Fault(
        "the interval is that of one sample's weight",
        "genkern/metrics/estimate.py",
        "variance = ((self.samples * share - 1) / (self.samples - 1)).clamp(min=0)",
        "variance = (self.samples * share - 1).clamp(min=0)",
        TESTS,
        "closed_form",
        "",
    ),
    Fault(
        "the noise of the samples counts as activity",
        "genkern/metrics/latent.py",
        "(second - second.mean(0))",
        "(first - first.mean(0))",
        TESTS,
        "are_not_active",
        "",
    ),
    Fault(
        "the last chunk has as many samples as the others",
        "genkern/metrics/latent.py",
        "min(size, count - start)",
        "size",
        TESTS,
        "not_the_estimate",
        "",
    ),
]
