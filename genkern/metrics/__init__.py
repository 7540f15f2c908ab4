"""Estimates of how good a generative model is, each with its interval."""

from genkern.metrics.annealing import AIS
from genkern.metrics.estimate import Estimate
from genkern.metrics.latent import ActiveUnits, active_units, log_likelihood, posterior_gap

__all__ = [
    "AIS",
    "ActiveUnits",
    "Estimate",
    "active_units",
    "log_likelihood",
    "posterior_gap",
]
from genkern.metrics.modes import Modes, modes

__all__ = ["Modes", "modes"]
