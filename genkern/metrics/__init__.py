"""Estimates of how good a generative model is, each with its interval."""

from genkern.metrics.modes import Modes, modes

__all__ = ["Modes", "modes"]
