"""Provisional: the reference. Replaced by the slice's owner."""

from genkern.reference import masked_conv2d as reference


def masked_conv2d(input, weight, bias=None, *, mask_type="B", data_channels=1, dilation=1):
    return reference.forward(input, weight, bias, mask_type, data_channels, dilation)
