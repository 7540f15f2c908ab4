"""Models with a latent variable and an encoder."""
