"""Losses of self-supervised learning: pure functions of arrays for the global batch, fp32 inside."""

from jax_ssl.losses.contrastive import info_nce, nt_xent, unit
from jax_ssl.losses.masked import mae, patchify, unpatchify

__all__ = ["info_nce", "mae", "nt_xent", "patchify", "unit", "unpatchify"]
