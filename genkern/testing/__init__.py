"""Tests that users run on models of their own."""

from genkern.testing.causality import assert_causal, dependencies

__all__ = ["assert_causal", "dependencies"]
