"""Losses of masked image modelling: predict the hidden patches of an image.

Letters: B images, N patches, P values in a patch (patch side squared times channels), M hidden patches of an image, K
codes in the vocabulary of a tokenizer.
"""

import jax
import jax.numpy as jnp
from einops import rearrange


def patchify(images, patch):
    """Cut images into square patches, row by row. (B, H, W, C) -> (B, N, P), P ordered row, column, channel.

    patch: side of a patch in pixels; H and W are multiples of it, else einops.EinopsError is raised.
    """
    return rearrange(images, "b (h p) (w q) c -> b (h w) (p q c)", p=patch, q=patch)


def unpatchify(patches, patch, rows):
    """Put patches back together, the inverse of `patchify`. (B, N, P) -> (B, rows * patch, N / rows * patch, C).

    patch: side of a patch in pixels. rows: how many patches an image is high.
    """
    return rearrange(patches, "b (h w) (p q c) -> b (h p) (w q) c", h=rows, p=patch, q=patch)


def mae(prediction, patches, mask, norm_pix):
    """Squared error of the predicted pixels, averaged within a patch and then over the hidden patches of the batch.

    prediction, patches: (B, N, P), any float type. mask: (B, N), 1 or True = hidden. norm_pix: the target is each patch
    standardised by its own mean and unbiased variance. Returns a fp32 scalar.
    He et al. 2022, https://arxiv.org/abs/2111.06377, Sec. 3 "Reconstruction target".
    """
    prediction, target, hidden = (x.astype(jnp.float32) for x in (prediction, patches, mask))
    if norm_pix:
        mean = target.mean(-1, keepdims=True)
        target = (target - mean) / jnp.sqrt(target.var(-1, ddof=1, keepdims=True) + 1e-6)
    error = jnp.square(prediction - target).mean(-1)
    return jnp.sum(error * hidden) / jnp.maximum(jnp.sum(hidden), 1)


def simmim(prediction, patches, mask):
    """Absolute error of the predicted pixels, averaged over the hidden pixels of the batch and their three channels.

    prediction, patches: (B, N, P), any float type, 3 channels. mask: (B, N), 1 or True = hidden. Returns a fp32 scalar.
    Xie et al. 2022, https://arxiv.org/abs/2111.09886, Eq. 1; official code models/simmim.py, SimMIM.forward.
    """
    prediction, target, hidden = (x.astype(jnp.float32) for x in (prediction, patches, mask))
    error = jnp.sum(jnp.abs(prediction - target), axis=-1)
    pixels = jnp.sum(hidden) * (target.shape[-1] // 3)
    return jnp.sum(error * hidden) / (pixels + 1e-5) / 3


def beit(logits, codes):
    """Cross-entropy of predicting the code of each hidden patch, averaged over all of them.

    logits: (B, M, K) scores of the hidden patches only. codes: (B, M) int, the tokenizer's. Returns a fp32 scalar; log
    K for uniform scores. Bao et al. 2022, https://arxiv.org/abs/2106.08254, Eq. 2; official code
    engine_for_pretraining.py.
    """
    chosen = jnp.take_along_axis(jax.nn.log_softmax(logits.astype(jnp.float32)), codes[..., None], axis=-1)
    return -jnp.mean(chosen)


def dvae(decoded, images, logits, kl_weight):
    """Squared error of an image decoded from its codes, plus `kl_weight` times the codes' KL divergence from uniform.

    decoded, images: any equal shapes; the error is a mean over all values. logits: (B, N, K) scores of the codes. The
    divergence is in nats, a mean over images and patches. Returns a fp32 scalar.
    Ramesh et al. 2021, https://arxiv.org/abs/2102.12092, Eq. 1, with a Gaussian for the logit-Laplace. BEiT's official
    code, modeling_discrete_vae.py, sums the divergence over images and patches: its weight is ours over B N.
    """
    error = jnp.mean(jnp.square(decoded.astype(jnp.float32) - images.astype(jnp.float32)))
    logp = jax.nn.log_softmax(logits.astype(jnp.float32))
    divergence = jnp.mean(jnp.sum(jnp.exp(logp) * logp, axis=-1)) + jnp.log(float(logits.shape[-1]))
    return error + kl_weight * divergence
