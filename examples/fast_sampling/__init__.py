"""Where slow sampling is the whole problem: three uses, each against the public way of doing it.

And whether a trained model's samples follow its likelihood.

python -m examples.fast_sampling.codes     # a prior over the codes of a VQ-VAE
python -m examples.fast_sampling.ising     # a variational network for the Ising model
python -m examples.fast_sampling.latent    # the context model of a learned image codec
    python -m examples.fast_sampling.agreement pixel_cnn --run RUN
"""
