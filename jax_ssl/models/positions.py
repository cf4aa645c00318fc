"""Where a patch is: fixed sine-cosine codes, learned codes at any grid, and how to resize the latter."""

import jax.numpy as jnp
import numpy as np


def sincos(grid: tuple[int, int], width: int, first: str = "column") -> np.ndarray:
    """Fixed 2-D codes, float32 (h * w, width), rows of the grid first.

    Half of the channels encodes one axis, half the other, each as [sines, cosines] of width / 4 frequencies.
    first: the axis in the first half. MAE and I-JEPA put the column there (models_mae.py calls it emb_h, but fills it
    from the x coordinate), MoCo v3 the row.
    """
    frequencies = 10000.0 ** (-np.arange(width // 4, dtype=np.float64) / (width // 4))
    row, column = (axis.reshape(-1, 1) for axis in np.mgrid[: grid[0], : grid[1]].astype(np.float64))
    axes = (column, row) if first == "column" else (row, column)
    halves = [np.concatenate([np.sin(axis * frequencies), np.cos(axis * frequencies)], 1) for axis in axes]
    return np.concatenate(halves, 1).astype(np.float32)


def resize(positions, grid: tuple[int, int]):
    """Learned codes (h, w, D) on another grid -> (h', w', D): bicubic with a = -0.75, no antialiasing, as in torch."""
    rows, columns = (_cubic(new, old) for new, old in zip(grid, positions.shape[:2]))
    return jnp.einsum("ih,jw,hwd->ijd", rows, columns, positions, precision="highest")


def _cubic(new: int, old: int, a: float = -0.75) -> np.ndarray:
    """The (new, old) matrix of one-dimensional cubic interpolation, half-pixel centres, edges repeated."""
    centre = (np.arange(new) + 0.5) * old / new - 0.5
    start = np.floor(centre).astype(int) - 1
    matrix = np.zeros((new, old))
    for tap in range(4):
        distance = np.abs(centre - (start + tap))
        near = ((a + 2) * distance - (a + 3)) * distance**2 + 1
        far = ((a * distance - 5 * a) * distance + 8 * a) * distance - 4 * a
        np.add.at(matrix, (np.arange(new), np.clip(start + tap, 0, old - 1)), np.where(distance <= 1, near, far))
    return matrix.astype(np.float32)
