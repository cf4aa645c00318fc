"""Does the class token attend to the object? Attention masks of the last block against true foregrounds.

Paper: Caron et al. 2021, https://arxiv.org/abs/2104.14294, Sec. 4.2.2 and Fig. 4 (Jaccard similarity, 60 % of the mass)
Code:  https://github.com/facebookresearch/dino, visualize_attention.py
"""

import functools

import jax
import numpy as np

from jax_ssl.encoder import Encoder, temporary_bytes
from jax_ssl.errors import UserError
from jax_ssl.evaluate.rules import seed32
from jax_ssl.models.vit import attention, has_class_token
from jax_ssl.views.sizes import Size, sides

MASS = 0.6  # share of the attention that a mask holds


def check_class_token(backbone) -> None:
    """Raises UserError for a network without a class token."""
    if not has_class_token(backbone):
        raise UserError(
            "Attention is that of the class token, and this network has none (it averages its patches): "
            "draw pca or correspondences, or train a vit with model.pool='cls'."
        )


def class_attention(encode: Encoder, images) -> np.ndarray:
    """The class token's attention to the patches in each head of the last block.

    images: normalised float32 (B, H, W, 3). Returns float32 (B, heads, H / patch, W / patch). Attention to the class
    token and to registers is left out; the rest sums to one. Raises UserError for a network without a class token, or
    whose attention is not finite.
    """
    check_class_token(encode.backbone)
    rows = images.shape[1] // encode.backbone.patch
    # One image at a time: at a high resolution, the attention of all pairs of tokens fills the memory.
    maps = [np.asarray(_class_row(encode.backbone, encode.variables, image[None])) for image in images]
    if not np.isfinite(maps).all():
        raise UserError("The network's attention is not finite: its weights are damaged, take an earlier checkpoint.")
    return np.concatenate(maps).reshape(len(images), encode.backbone.heads, rows, -1)


def memory(encode: Encoder, size: Size) -> int:
    """Bytes of memory for the attention of one image of this size, without the weights."""
    image = jax.ShapeDtypeStruct((1, *sides(size), 3), np.float32)
    return temporary_bytes(_class_row.lower(encode.backbone, encode.variables, image).compile())


@functools.partial(jax.jit, static_argnums=0)
def _class_row(backbone, variables, images):
    row = attention(backbone, variables, images)[:, :, 0, 1 + backbone.registers :]
    return row / row.sum(-1, keepdims=True)


def attention_mask(maps: np.ndarray, mass: float = MASS) -> np.ndarray:
    """The fewest patches that hold at least `mass` of a map's attention: (..., h, w) -> bool (..., h, w)."""
    flat = np.asarray(maps, np.float64).reshape(*maps.shape[:-2], -1)
    order = np.argsort(-flat, axis=-1, kind="stable")
    ranked = np.take_along_axis(flat, order, axis=-1)
    # A patch is needed while those before it hold less than `mass`. The 1e-9 allows for rounding of the sums.
    before = np.cumsum(ranked, axis=-1) - ranked
    needed = before < mass * flat.sum(-1, keepdims=True) - 1e-9
    mask = np.empty_like(needed)
    np.put_along_axis(mask, order, needed, axis=-1)
    return mask.reshape(maps.shape)


def jaccard(masks: np.ndarray, foreground: np.ndarray) -> np.ndarray:
    """Intersection over union of each head's mask with the foreground of its image: float64 (B, heads).

    masks: bool (B, heads, h, w), patches. foreground: bool (B, H, W), pixels, H and W multiples of h and w. Where both
    are empty it is 1.
    """
    patch = foreground.shape[1] // masks.shape[2]
    masks = masks.repeat(patch, axis=2).repeat(patch, axis=3)
    truth = foreground[:, None]
    shared, either = ((pair).sum((2, 3)) for pair in (masks & truth, masks | truth))
    return np.where(either == 0, 1.0, shared / np.maximum(either, 1))


def head_overlaps(maps: np.ndarray, foreground: np.ndarray, mass: float = MASS) -> dict[str, float]:
    """Jaccard similarity of each image's best head (the paper's number) and of all heads, means over images.

    maps: attention (B, heads, h, w); foreground: bool (B, H, W). The best head is chosen by the true foreground, which
    favours networks with many heads: compare networks with equally many heads, and with `noise_overlaps`.
    """
    overlaps = jaccard(attention_mask(maps, mass), foreground)
    return {"jaccard_best_head": float(overlaps.max(1).mean()), "jaccard_mean_head": float(overlaps.mean())}


def noise_overlaps(
    shape: tuple[int, ...], foreground: np.ndarray, seed: int = 0, mass: float = MASS
) -> dict[str, float]:
    """`head_overlaps` of attention that is uniform noise of `shape` (B, heads, h, w), as a baseline."""
    return head_overlaps(np.random.default_rng(seed32(seed)).uniform(size=shape), foreground, mass)
