"""Models trained against a discriminator."""
