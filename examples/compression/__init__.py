"""Lossless compression of images by a model with an exact likelihood and an entropy coder."""
