"""From paper units (epochs, learning rate per 256 images) to optax."""

from jax_ssl.optim.optimizers import adamw, larc, lars, make, sgd

__all__ = ["adamw", "larc", "lars", "make", "sgd"]
