"""Relative positions: a learned number for each head and each offset between two patches, for attention's logits."""

from math import isqrt

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jax_ssl.errors import UserError


class RelativeBias(nn.Module):
    """() -> (heads, N, N) float32, queries first, for N tokens of a grid, behind a class token if there is one.

    The table (rows, heads) starts at zero. Its rows: (2 h - 1) (2 w - 1) offsets, query minus key, row by row; with a
    class token three more, for it as the query, as the key, and as both. On another grid than the first, which then
    has to be a square, the offsets are resized bilinearly.
    Bao et al. 2022, https://arxiv.org/abs/2106.08254; unilm, beit/modeling_finetune.py, RelativePositionBias; for the
    resizing Transformers' modeling_beit.py.
    """

    heads: int
    rows: int
    columns: int
    class_token: bool

    @nn.compact
    def __call__(self):
        shape = (2 * self.rows - 1, 2 * self.columns - 1, self.heads)
        extra = 3 * self.class_token
        if self.has_variable("params", "table"):
            table = self.get_variable("params", "table")
        else:
            table = self.param("table", nn.initializers.zeros, (shape[0] * shape[1] + extra, self.heads), jnp.float32)
        if len(table) != shape[0] * shape[1] + extra:
            table = _resize(table, shape, extra)
        return jnp.moveaxis(table[index(self.rows, self.columns, self.class_token)], -1, 0)


def index(rows: int, columns: int, class_token: bool) -> np.ndarray:
    """int (N, N): the table's row for every pair of query and key."""
    place = np.stack(np.mgrid[:rows, :columns], axis=-1).reshape(-1, 2)
    offset = place[:, None] - place[None] + (rows - 1, columns - 1)
    pairs = offset[..., 0] * (2 * columns - 1) + offset[..., 1]
    if not class_token:
        return pairs
    count = (2 * rows - 1) * (2 * columns - 1)
    whole = np.pad(pairs, ((1, 0), (1, 0)))
    whole[0, :], whole[:, 0], whole[0, 0] = count, count + 1, count + 2
    return whole


def _resize(table, shape, extra: int):
    offsets, rest = table[: len(table) - extra], table[len(table) - extra :]
    side = isqrt(len(offsets))
    if side**2 != len(offsets):
        raise UserError("Relative positions that were learned on a grid that is no square serve images of one size.")
    resized = jax.image.resize(offsets.reshape(side, side, -1), shape, "linear", antialias=False)
    return jnp.concatenate([resized.reshape(-1, table.shape[-1]), rest])
