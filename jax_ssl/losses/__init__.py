"""Losses of self-supervised learning: pure functions of arrays for the global batch, fp32 inside."""

from jax_ssl.losses.contrastive import info_nce, moco_v3, nt_xent, unit
from jax_ssl.losses.masked import mae, patchify, unpatchify
from jax_ssl.losses.prototypes import sinkhorn, swapped_prediction, swav, swav_targets
from jax_ssl.losses.redundancy import barlow_twins, vicreg
from jax_ssl.losses.siamese import byol, simsiam

__all__ = [
    "barlow_twins", "byol", "info_nce", "mae", "moco_v3", "nt_xent", "patchify", "simsiam", "sinkhorn",
    "swapped_prediction", "swav", "swav_targets", "unit", "unpatchify", "vicreg",
]  # fmt: skip
