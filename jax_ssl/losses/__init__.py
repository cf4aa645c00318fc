"""Losses of self-supervised learning: pure functions of arrays of the global batch.

Inputs are of any float type; a loss is computed and returned in float32, as a scalar unless its docstring says
otherwise. Shapes are not checked: arrays that do not fit raise JAX's own errors.
"""

from jax_ssl.losses.contrastive import clip, info_nce, moco_v3, nt_xent, unit
from jax_ssl.losses.distillation import (
    cross_entropy,
    dino,
    dino_center,
    dino_targets,
    ibot_patch,
    koleo,
    masked_cross_entropy,
    patch_weights,
    sum_in_chunks,
    view_cross_entropy,
)
from jax_ssl.losses.masked import beit, dvae, mae, patchify, simmim, unpatchify
from jax_ssl.losses.predictive import smooth_l1
from jax_ssl.losses.prototypes import sinkhorn, sinkhorn_center, swapped_prediction, swav, swav_targets
from jax_ssl.losses.redundancy import barlow_twins, vicreg
from jax_ssl.losses.siamese import byol, simsiam

__all__ = [
    "barlow_twins", "beit", "byol", "clip", "cross_entropy", "dino", "dino_center", "dino_targets", "dvae",
    "ibot_patch", "info_nce", "koleo", "mae", "masked_cross_entropy", "moco_v3", "nt_xent", "patch_weights",
    "patchify", "simmim", "simsiam", "sinkhorn", "sinkhorn_center", "smooth_l1", "sum_in_chunks",
    "swapped_prediction", "swav", "swav_targets", "unit", "unpatchify", "vicreg", "view_cross_entropy",
]  # fmt: skip
