"""Where the class token of a vision transformer looks, as images."""

import jax
import jax.numpy as jnp
from einops import rearrange

from jax_ssl.models import vit

BLACK, WHITE = -2.0, 2.2  # roughly, in the units of normalised images


def attention_rows(backbone, params, images) -> dict:
    """{"attention": rows of [image, the attention of each head in the last block]}; {} without a class token.

    images: (B, V, H, W, 3), of which the first view is drawn. -> (B, 1 + heads, H, W, 3) in the units of the images.
    Caron et al. 2021, https://arxiv.org/abs/2104.14294, Fig. 1.
    """
    backbone = getattr(backbone, "backbone", backbone)
    if not vit.has_class_token(backbone):
        return {}
    rows, columns = images.shape[2] // backbone.patch, images.shape[3] // backbone.patch
    images = images[: max(1, min(8, 2**19 // (rows * columns) ** 2)), 0]  # the maps of all blocks are made: (N, N) each
    maps = vit.attention(backbone, {"params": params}, images)[:, :, 0, 1 + backbone.registers :]
    least, most = (extreme(maps, axis=-1, keepdims=True) for extreme in (jnp.min, jnp.max))
    maps = (maps - least) / jnp.maximum(most - least, 1e-9)  # each map from black to white: heads differ in sharpness
    maps = rearrange(maps, "b k (h w) -> b k h w", h=rows, w=columns)
    maps = jax.image.resize(maps, (*maps.shape[:2], *images.shape[1:3]), "nearest")
    drawn = jnp.repeat(BLACK + (WHITE - BLACK) * maps[..., None], 3, axis=-1)
    return {"attention": jnp.concatenate([images[:, None], drawn], axis=1)}
