"""SimMIM: replace large squares of an image by a learned token and predict their pixels by one linear layer.

Paper: Xie et al. 2022, https://arxiv.org/abs/2111.09886
Code:  https://github.com/microsoft/SimMIM, models/simmim.py, data/data_simmim.py
"""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp

from jax_ssl import bounds, losses, masking
from jax_ssl.core import Method, one_view
from jax_ssl.errors import UserError
from jax_ssl.losses import patchify, unpatchify
from jax_ssl.models import apply
from jax_ssl.models.dense import Dense
from jax_ssl.models.transformer import rescale_residuals

HEAD = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")  # PyTorch's default for a convolution


class Net(nn.Module):
    """images and which patches are hidden, bool (B, N) -> the pixels of every patch, float32 (B, N, P)."""

    backbone: nn.Module

    @nn.compact
    def __call__(self, images, hidden, train: bool = False):
        patches = self.backbone(images, train, mask=hidden).patches
        dense = Dense(self.backbone.patch**2 * 3, dtype=self.backbone.dtype, kernel_init=HEAD, name="predict")
        return dense(patches).astype(jnp.float32)


def make(backbone, clock, *, mask_ratio=0.6, mask_cell=32) -> Method:
    """mask_cell: side of the hidden squares in pixels. mask_ratio: share of the squares that are hidden, rounded up."""
    if not hasattr(backbone, "patch") or not hasattr(backbone, "depth"):
        raise UserError("SimMIM hides patches of a transformer: set model.name='vit'.")
    patch = backbone.patch
    bounds.bounded("method.", dict(mask_ratio=mask_ratio), above=0, below=1)
    bounds.whole("method.", dict(mask_cell=mask_cell))
    if mask_cell % patch:
        raise UserError(f"method.mask_cell={mask_cell} must be a multiple of model.patch={patch}.")
    net = Net(backbone)

    def hide(rng, images):
        rows, columns = (side // mask_cell for side in images.shape[1:3])
        if (rows * mask_cell, columns * mask_cell) != images.shape[1:3]:
            raise UserError(
                f"method.mask_cell={mask_cell} does not divide images of {images.shape[1]} x {images.shape[2]} pixels: "
                "change it or the size in data.crops."
            )
        cell = mask_cell // patch
        scores = masking.cell_scores(rng, len(images), (rows * cell, columns * cell), cell)
        kept = rows * columns - math.ceil(rows * columns * mask_ratio)
        masking.check_hidden(rows * columns - kept, (rows, columns), f"method.mask_ratio={mask_ratio}")
        return masking.split(scores, kept * cell**2)[2] > 0

    def init(rng, batch):
        images = one_view(batch)
        params, stats = apply.init(net, rng, images, hide(rng, images))
        return params | {"backbone": rescale_residuals(params["backbone"])}, {"stats": stats}

    def predict(params, state, images, rng):
        hidden = hide(jax.random.fold_in(rng, 0), images)
        drop_path = jax.random.fold_in(rng, 1)
        prediction, _ = apply.train(net, params, state.extra["stats"], images, hidden, rng=drop_path)
        return prediction, patchify(images, patch), hidden

    def loss(params, state, batch, rng):
        prediction, patches, hidden = predict(params, state, batch["views"][:, 0], rng)
        metrics = {"uniform_loss": losses.simmim(jnp.zeros_like(prediction), patches, hidden)}  # 0 is the mean colour
        return losses.simmim(prediction, patches, hidden), ({"stats": state.extra["stats"]}, metrics)

    def show(params, state, batch, rng):
        """Three columns: the image, its visible patches, and the prediction in the holes."""
        images = batch["views"][:, 0]
        prediction, patches, hidden = predict(params, state, images, rng)
        hidden = hidden[..., None]
        columns = [patches, jnp.where(hidden, 0, patches), jnp.where(hidden, prediction, patches)]
        rows = images.shape[1] // patch
        return {"reconstruction": jnp.stack([unpatchify(c, patch, rows) for c in columns], axis=1)}

    return Method(init, loss, show=show, per_image=True)
