"""The attention of the class token in the last block: a heat map for each head, and the most attended patches.

Paper: Caron et al. 2021, https://arxiv.org/abs/2104.14294, Figs. 1 and 3
Code:  https://github.com/facebookresearch/dino, visualize_attention.py
"""

import numpy as np
from PIL import Image

from jax_ssl.encoder import Encoder
from jax_ssl.evaluate.emergence import MASS, attention_mask, class_attention
from jax_ssl.views.sizes import scaled_to
from jax_ssl.visualize import pictures


def draw(encode: Encoder, images: np.ndarray, mass: float = MASS) -> Image.Image:
    """A row for each image: itself, the attention of each head, and the patches with most of all heads' attention.

    images: uint8 (B, H, W, 3). mass: share of the attention that these patches have. Heat is relative to the largest
    value of its map. Raises UserError for a network without a class token.
    """
    attention = class_attention(encode, encode.normalise(images))
    heads = attention.shape[1]
    cell = scaled_to(pictures.cell(heads + 2), images.shape[1:3])
    pixels = pictures.fit(images / 255, cell)
    maps = [
        pictures.heat(np.clip(pictures.fit(attention[:, head], cell, smooth=True), 0, None)) for head in range(heads)
    ]
    mask = pictures.fit(attention_mask(attention.mean(1), mass), cell)
    titles = ["image", *(f"head {head + 1}" for head in range(heads)), f"{100 * mass:.0f} % of all heads"]
    return pictures.sheet([pixels, *maps, spotlight(pixels, mask)], titles)


def spotlight(images: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Images (B, H, W, 3) in [0, 1], made dark and grey outside of the mask (B, H, W), from 0 to 1."""
    outside = 0.3 * images.mean(-1, keepdims=True)
    return outside + (images - outside) * np.clip(mask, 0, 1)[..., None]
