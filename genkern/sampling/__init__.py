"""Fast exact sampling of autoregressive models of images."""

from genkern.sampling.graph import NoRule, NotCausal
from genkern.sampling.outputs import Bernoulli, Categorical, LogisticMixture, Output
from genkern.sampling.record import register_step
from genkern.sampling.request import Step, WrongOutput, draw_noise
from genkern.sampling.sampler import METHODS, Report, last_report, sample

__all__ = [
    "METHODS",
    "Bernoulli",
    "Categorical",
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
]
