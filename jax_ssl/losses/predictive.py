"""Losses of predicting a network's features instead of pixels or assignments."""

import jax.numpy as jnp
from jax.lax import stop_gradient


def smooth_l1(prediction, target, weight=1.0):
    """Mean of e^2 / 2 where the absolute error e is below one, and of e - 1/2 elsewhere.

    prediction, target: any equal shapes, any float type; the target gets no gradient. weight: the weight of each error
    in the mean, broadcast to the shape of the errors. Returns a fp32 scalar. I-JEPA's target is
    `jax.nn.standardize(features, epsilon=1e-5)`, a layer norm without learned scale.
    Girshick 2015, https://arxiv.org/abs/1504.08083, Eq. 3; Assran et al. 2023, https://arxiv.org/abs/2301.08243: the
    official code, src/train.py, uses this loss, while Eq. 1 of the paper has the squared distance.
    """
    error = jnp.abs(prediction.astype(jnp.float32) - stop_gradient(target).astype(jnp.float32))
    weight = jnp.broadcast_to(weight, error.shape)
    return jnp.sum(weight * jnp.where(error < 1, jnp.square(error) / 2, error - 0.5)) / jnp.sum(weight)
