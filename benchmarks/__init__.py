"""Measures genkern against eager PyTorch, torch.compile and the best library call.

    python -m benchmarks run --quick

A figure is printed only after its result passed against the float64 reference; see `measure.py`
for how times are taken and `machine.py` for the ceilings they are compared with.
"""
