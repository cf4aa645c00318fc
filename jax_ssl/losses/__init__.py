"""Losses of self-supervised learning: pure functions of arrays of the global batch.

Inputs are of any float type; a loss is computed and returned in float32, as a scalar unless its docstring says
otherwise. Shapes are not checked: arrays that do not fit raise JAX's own errors.
"""

from jax_ssl.losses.adversarial import (
    BORDER_WEIGHT,
    adversarial_game,
    binary_cross_entropy,
    context_encoder,
    critic,
    hole_weight,
    reconstruction,
)
from jax_ssl.losses.classification import label_cross_entropy
from jax_ssl.losses.colorization import (
    COLOUR_BINS,
    RELEASED_TEMPERATURE,
    annealed_mean,
    colorization,
    colour_bins,
    colour_code,
    colour_weights,
    colourful,
    nearest_bin,
    smooth_prior,
)
from jax_ssl.losses.contrastive import clip, cpc, info_nce, moco_v3, nt_xent, unit
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
    "BORDER_WEIGHT", "COLOUR_BINS", "RELEASED_TEMPERATURE", "adversarial_game", "annealed_mean", "barlow_twins", "beit",
    "binary_cross_entropy", "byol", "clip", "colorization", "colour_bins", "colour_code", "colour_weights", "colourful",
    "context_encoder", "cpc", "critic", "cross_entropy", "dino", "dino_center", "dino_targets", "dvae", "hole_weight",
    "ibot_patch", "info_nce", "koleo", "label_cross_entropy", "mae", "masked_cross_entropy", "moco_v3", "nearest_bin",
    "nt_xent", "patch_weights", "patchify", "reconstruction", "simmim", "simsiam", "sinkhorn", "sinkhorn_center",
    "smooth_l1", "smooth_prior", "sum_in_chunks", "swapped_prediction", "swav", "swav_targets", "unit", "unpatchify",
    "vicreg", "view_cross_entropy",
]  # fmt: skip
