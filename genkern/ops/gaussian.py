"""Provisional: the reference. Replaced by the slice's owner."""
import torch

from genkern.reference import gaussian as reference


def gaussian_kl(mu, logvar, *, prior=None, free_bits=0.0, reduction="none"):
    return reference.kl(mu, logvar, *(prior or (None, None)), free_bits)


def gaussian_rsample(mu, logvar, *, num_samples=None, eps=None, generator=None):
    return reference.rsample(mu, logvar, torch.randn_like(mu) if eps is None else eps)


def gaussian_kl_rsample(mu, logvar, *, prior=None, free_bits=0.0, reduction="none",
                        num_samples=None, eps=None, generator=None):
    return gaussian_rsample(mu, logvar, eps=eps), gaussian_kl(mu, logvar, free_bits=free_bits)
