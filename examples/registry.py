"""The models that `python -m examples` knows: one line each."""

import importlib
from dataclasses import dataclass

from examples.errors import unknown_name
from examples.model import GenerativeModel


@dataclass(frozen=True)
class Entry:
    """Where a model is, and the training options that suit it on the digits."""

    path: str
    steps: int
    lr: float
    batch_size: int
    beta1: float = 0.9
    ema_decay: float = 0.99


MODELS = {
    "gan": Entry("adversarial.gan:GAN", 3000, 1e-3, 64, beta1=0.5, ema_decay=0.995),
    "pixel_cnn": Entry("autoregressive.pixel_cnn:PixelCNN", 2000, 2e-3, 64),
    "pixel_rnn": Entry("autoregressive.pixel_rnn:PixelRNN", 2000, 2e-3, 64),
    "vae": Entry("latent.vae:VAE", 2000, 2e-3, 64),
}


def entry(name: str) -> Entry:
    if name not in MODELS:
        raise unknown_name("model", name, MODELS)
    return MODELS[name]


def model_class(name: str) -> type[GenerativeModel]:
    module, _, attribute = entry(name).path.partition(":")
    return getattr(importlib.import_module(f"examples.{module}"), attribute)
