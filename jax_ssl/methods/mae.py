"""MAE: hide most patches of an image, encode the rest, and predict the pixels of the hidden ones by a light decoder.

Paper: He et al. 2022, https://arxiv.org/abs/2111.06377
Code:  https://github.com/facebookresearch/mae, models_mae.py
"""

import flax.linen as nn
import jax.numpy as jnp

from jax_ssl import bounds, masking
from jax_ssl.core import Method, one_view
from jax_ssl.errors import UserError
from jax_ssl.losses import mae, patchify, unpatchify
from jax_ssl.models import apply
from jax_ssl.models.decoder import Decoder


class Net(nn.Module):
    """images, indices of the visible patches, and the place of each patch in [visible, hidden] -> predicted patches."""

    backbone: nn.Module
    decoder: nn.Module

    def __call__(self, images, keep, restore, train: bool = False):
        features = self.backbone(images, train, keep=keep)
        grid = (images.shape[1] // self.backbone.patch, images.shape[2] // self.backbone.patch)
        return self.decoder(features.pooled, features.patches, restore, grid)


def make(backbone, clock, *, mask_ratio=0.75, sampling="random", norm_pix=True,
         decoder_width=512, decoder_depth=8, decoder_heads=16) -> Method:  # fmt: skip
    """sampling: `random`, `block` or `grid`. norm_pix: standardise each target patch by its own mean and variance."""
    if getattr(backbone, "pool", None) != "cls":
        raise UserError("MAE needs model.name='vit' with model.pool='cls': its decoder reads the class token.")
    bounds.one_of("method.", dict(sampling=sampling), ("random", "block", "grid"))
    bounds.bounded("method.", dict(mask_ratio=mask_ratio), at_least=0, below=1)  # 0 is allowed, to compare speed
    sizes = dict(decoder_width=decoder_width, decoder_depth=decoder_depth, decoder_heads=decoder_heads)
    bounds.whole("method.", sizes)
    if decoder_width % decoder_heads or decoder_width % 4:
        raise UserError(
            f"method.decoder_width={decoder_width} must be a multiple of 4 and of method.decoder_heads={decoder_heads}."
        )
    patch = backbone.patch
    decoder = Decoder(
        decoder_width, decoder_depth, decoder_heads, patch**2 * 3, backbone.remat, backbone.dtype,
        attention=backbone.attention, unroll=backbone.unroll,
    )  # fmt: skip
    net = Net(backbone, decoder)

    def split(rng, images):
        grid = (images.shape[1] // patch, images.shape[2] // patch)
        keep = int(grid[0] * grid[1] * (1 - mask_ratio))
        sampler = {
            "random": masking.random_scores,
            "grid": masking.grid_scores,
            "block": lambda *args: masking.block_scores(*args, hidden=grid[0] * grid[1] - keep),
        }[sampling]
        return masking.split(sampler(rng, len(images), grid), keep)

    def init(rng, batch):
        images = one_view(batch)
        keep, restore, _ = split(rng, images)
        if mask_ratio:  # checked here only, because a picture may hide everything
            grid, hidden = (images.shape[1] // patch, images.shape[2] // patch), restore.shape[1] - keep.shape[1]
            masking.check_hidden(hidden, grid, f"method.mask_ratio={mask_ratio}")
        params, stats = apply.init(net, rng, images, keep, restore)
        return params, {"stats": stats}

    def predict(params, state, images, rng):
        keep, restore, hidden = split(rng, images)
        prediction, _ = apply.train(net, params, state.extra["stats"], images, keep, restore, rng=rng)
        return prediction, patchify(images, patch), hidden

    def loss(params, state, batch, rng):
        prediction, patches, hidden = predict(params, state, batch["views"][:, 0], rng)
        metrics = {"uniform_loss": mae(jnp.zeros_like(prediction), patches, hidden, norm_pix)}
        return mae(prediction, patches, hidden, norm_pix), ({"stats": state.extra["stats"]}, metrics)

    def show(params, state, batch, rng):
        """Three columns: the image, its visible patches, and the prediction in the holes."""
        images = batch["views"][:, 0]
        prediction, patches, hidden = predict(params, state, images, rng)
        if norm_pix:  # back to pixels: undo the standardisation of the target by the true mean and variance
            mean, var = patches.mean(-1, keepdims=True), patches.var(-1, keepdims=True, ddof=1)
            prediction = prediction * jnp.sqrt(var + 1e-6) + mean
        visible = 1 - hidden[..., None]
        columns = [patches, patches * visible, patches * visible + prediction * (1 - visible)]
        rows = images.shape[1] // patch
        return {"reconstruction": jnp.stack([unpatchify(c, patch, rows) for c in columns], axis=1)}

    return Method(init, loss, show=show, per_image=True)
