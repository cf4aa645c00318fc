"""Losses of masked image modelling: fill in what was hidden.

Letters: B images, N patches, P values in a patch (patch side squared times channels).
"""

import jax.numpy as jnp
from einops import rearrange


def patchify(images, patch):
    """Cut images into square patches, row by row. (B, H, W, C) -> (B, N, P), P ordered row, column, channel."""
    return rearrange(images, "b (h p) (w q) c -> b (h w) (p q c)", p=patch, q=patch)


def unpatchify(patches, patch, rows):
    """Put patches back together. (B, N, P) -> (B, rows * patch, N / rows * patch, C), the inverse of `patchify`."""
    return rearrange(patches, "b (h w) (p q c) -> b (h p) (w q) c", h=rows, p=patch, q=patch)


def mae(prediction, patches, mask, norm_pix):
    """Squared error of the predicted pixels, averaged within a patch and then over the hidden patches of the batch.

    prediction, patches: (B, N, P). mask: (B, N), 1 or True = hidden. norm_pix: predict each patch standardised by its
    own mean and unbiased variance; the prediction is taken as it is. Returns a fp32 scalar.
    He et al. 2022, https://arxiv.org/abs/2111.06377, Sec. 3 "Reconstruction target".
    """
    prediction, target, hidden = (x.astype(jnp.float32) for x in (prediction, patches, mask))
    if norm_pix:
        mean = target.mean(-1, keepdims=True)
        target = (target - mean) / jnp.sqrt(target.var(-1, ddof=1, keepdims=True) + 1e-6)
    error = jnp.square(prediction - target).mean(-1)
    return jnp.sum(error * hidden) / jnp.sum(hidden)
