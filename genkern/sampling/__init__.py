"""Fast exact sampling of autoregressive models of images."""

from genkern.sampling.gaussian import Gaussian
from genkern.sampling.graph import NoRule, NotCausal
from genkern.sampling.kept import unchanged
from genkern.sampling.methods import METHODS, Report, last_report
from genkern.sampling.outputs import (
    Bernoulli,
    Categorical,
    LogisticMixture,
    Output,
    WrongOutput,
)
from genkern.sampling.record import register_step
from genkern.sampling.request import Step, draw_noise
from genkern.sampling.sampler import sample

__all__ = [
    "METHODS",
    "Bernoulli",
    "Categorical",
    "Gaussian",
    "LogisticMixture",
    "NoRule",
    "NotCausal",
    "Output",
    "Report",
    "Step",
    "WrongOutput",
    "draw_noise",
    "last_report",
    "register_step",
    "sample",
    "unchanged",
]
