"""What codes are good for: few labels, walks, clusters, gradients, a prior of code maps.

`python -m examples.latent.uses USE RUN [RUN]`; each use is one file here.
"""
