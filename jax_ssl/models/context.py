"""From the vectors of a grid of patches to what lies rows below: masked networks that never look down.

Paper: Henaff et al. 2019 (CPC v2), https://arxiv.org/abs/1905.09272, Sec. 2.1 and its pseudo-code
       van den Oord et al. 2018 (CPC v1), https://arxiv.org/abs/1807.03748, Sec. 3.3
No official code exists.
"""

import flax.linen as nn
import jax.numpy as jnp

TURNS = (0, 2, 1, 3)  # quarters that bring to the top: the top, the bottom, the right and the left side


class Context(nn.Module):
    """Residual blocks of masked convolutions: (B, h, w, D) -> (B, h, w, D); row r knows of rows 0 to r, all columns.

    A convolution is a matmul of shifted maps: what XLA's CPU convolutions with few places are slow at.
    """

    depth: int
    width: int
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, z):
        dense = lambda width: nn.Dense(width, dtype=self.dtype)
        for _ in range(self.depth):
            x = nn.relu(dense(self.width)(z))
            beside = jnp.pad(x, ((0, 0), (0, 0), (1, 1), (0, 0)))
            x = dense(self.width)(jnp.concatenate([beside[:, :, :-2], x, beside[:, :, 2:]], axis=-1))
            above = jnp.pad(x, ((0, 0), (1, 0), (0, 0), (0, 0)))[:, :-1]
            x = nn.relu(dense(self.width)(jnp.concatenate([above, x], axis=-1)))
            z = z + dense(z.shape[-1])(x)
        return nn.relu(z)


class Predict(nn.Module):
    """A context and a linear map for each offset: (B, h, w, D) -> (B, h, w, offsets, target)."""

    depth: int
    width: int
    offsets: int
    target: int
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, z):
        context = Context(self.depth, self.width, self.dtype, name="context")(z)
        preds = nn.Dense(self.offsets * self.target, dtype=self.dtype, name="steps")(context)
        return preds.reshape(*z.shape[:3], self.offsets, self.target)


class Cpc(nn.Module):
    """squares (B, N, side, side, C), row by row -> (preds (K, B, h, w, offsets, T), targets (K, B, h, w, T), z).

    The grid is turned in K directions of TURNS, so that each predicts what is below, with a context of its own. target:
    the width T of what is compared; 0 compares with the encoder's own vectors z, (B, N, D).
    """

    backbone: nn.Module
    directions: int
    depth: int
    width: int
    offsets: int
    target: int

    @nn.compact
    def __call__(self, squares, rows: int, train: bool = False):
        dtype = self.backbone.dtype
        z = self.backbone(squares.reshape(-1, *squares.shape[2:]), train).pooled
        grid = z.reshape(len(squares), rows, -1, z.shape[-1])
        targets = nn.Dense(self.target, dtype=dtype, name="target")(grid) if self.target else grid
        turned = lambda x: jnp.stack([jnp.rot90(x, turn, (1, 2)) for turn in TURNS[: self.directions]])
        each = nn.vmap(Predict, variable_axes={"params": 0}, split_rngs={"params": True})
        predict = each(self.depth, self.width, self.offsets, targets.shape[-1], dtype, name="predict")
        return predict(turned(grid)), turned(targets), z.reshape(*squares.shape[:2], -1)
