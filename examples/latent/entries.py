"""The latent-variable models of the registry. Imports no torch."""

from examples.entry import LARGE, Entry
from examples.options import Choice, Number

FORM = {"form": Choice(("linear", "deep", "convolutional"))}
MODELS = {
    "adversarial_autoencoder": Entry(
        "examples.latent.adversarial_autoencoder:AdversarialAutoencoder",
        *(4000, 1e-3, 64),
        small={"hidden": 32, "latent": 4},
        limits=FORM,
        players={"discriminator": {"beta1": 0.5}, "generator": {"beta1": 0.5, "lr": 3e-4}},
    ),
    "autoencoder": Entry(
        "examples.latent.autoencoder:Autoencoder",
        *(4000, 1e-3, 64),
        small={"hidden": 32, "latent": 4},
        limits=FORM,
    ),
    "denoising_autoencoder": Entry(
        "examples.latent.denoising_autoencoder:DenoisingAutoencoder",
        *(5000, 1e-3, 64),
        small={"hidden": 32, "walk": 3},
        limits=FORM | {"noise": Number(float, 0, 1)},
    ),
    "iaf_vae": Entry(
        "examples.latent.iaf_vae:IAFVAE",
        *(2000, 1e-3, 64),
        small={"hidden": 32, "latent": 4, "flows": 2, "width": 16, "context": 4},
        needs="levels",
        bounds=True,
        limits={"flows": Number(int, 0, 100)},
    ),
    "ladder_vae": Entry(
        "examples.latent.ladder_vae:LadderVAE",
        *(2000, 2e-3, 64),
        small={"hidden": 32, "latent": 4, "top": 2},
        needs="levels",
        bounds=True,
    ),
    "mixture_prior_vae": Entry(
        "examples.latent.mixture_prior:MixturePriorVAE",
        *(2000, 2e-3, 64),
        small={"hidden": 32, "latent": 4, "components": 4},
        needs="levels",
        bounds=True,
    ),
    "pixel_vae": Entry(
        "examples.latent.pixel_vae:PixelVAE",
        *(2000, 2e-3, 64),
        small={"hidden": 32, "latent": 4, "channels": 8},
        large={"steps": 600, **LARGE},
        bounds=True,
    ),
    "ppca": Entry(
        "examples.latent.ppca:PPCA",
        *(2000, 1e-2, 64),
        small={"latent": 4},
        needs="levels",
        bounds=True,
    ),
    "vae": Entry(
        "examples.latent.vae:VAE",
        *(2000, 2e-3, 64),
        small={"hidden": 32, "latent": 4},
        needs="levels",
        bounds=True,
        limits={"bound": Choice(("elbo", "iwae")), "gradient": Choice(("plain", "dreg"))},
    ),
    "vq_vae": Entry(
        "examples.latent.vq_vae:VQVAE",
        *(3000, 2e-3, 64),
        small={"hidden": 8, "codes": 16},
        limits={"codes": Number(int, 2, 256), "downs": Number(int, 1, 5)},
    ),
}
