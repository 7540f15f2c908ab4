"""What codes are good for, and what makes them: few labels, walks, clusters, posteriors, priors.

`python -m examples.latent.uses USE RUN [RUN]`; each use is one file here. Imports no torch.
"""

#: What the command and the page say of each.
USES = {
    "few_labels": "a classifier that starts from the encoder, with 10, 50 and 100 labels",
    "walks": "codes changed one dimension at a time, along great circles, by averaged differences",
    "clusters": "k-means of the codes and of the pixels, and the principal components of the codes",
    "gradients": "variance of the score-function and the reparameterised gradient (a VAE)",
    "kl_share": "the KL as a share of the bound, of VAEs and PixelVAEs: any number of runs",
    "richer_posterior": "a flow against a diagonal Gaussian as posterior of one decoder (a VAE)",
    "code_prior": "bits of a VQ-VAE whose code maps have a model: the runs of both",
}
