"""Triton kernels, installed as ``genkern.triton_kernels``."""
