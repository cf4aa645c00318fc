"""Where a patch is: fixed sine-cosine codes, learned codes at any grid and how to resize them, rotary positions."""

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


def resize(positions, grid: tuple[int, int], offset: float = 0.0, antialias: bool = False):
    """Learned codes (h, w, D) on another grid -> (h', w', D), bicubic as torch's interpolate does it.

    offset: added to h' and w' in the scale (alone), as DINO and DINOv2 do with 0.1. antialias: torch then takes
    a = -0.5 in place of -0.75, and a wider filter when it shrinks (DINOv2 with registers).
    """
    rows, columns = (_cubic(new, old, offset, antialias) for new, old in zip(grid, positions.shape[:2]))
    return jnp.einsum("ih,jw,hwd->ijd", rows, columns, positions, precision="highest")


def rotary(grid: tuple[int, int], size: int, first: int, base: float = 100.0) -> tuple[np.ndarray, np.ndarray]:
    """Sines and cosines by which attention turns queries and keys of `size` channels, (first + h w, size) both.

    Centres of patches lie in [-1, 1] along each axis, whatever the grid; a quarter of the channels has the angles of
    the row, a quarter those of the column, and the other half the same again. `first` tokens before the patches stay as
    they are. Simeoni et al. 2025, https://arxiv.org/abs/2508.10104; dinov3, layers/rope_position_encoding.py.
    """
    periods = base ** (2 * np.arange(size // 4) / (size // 2))
    row, column = ((np.mgrid[: grid[0], : grid[1]][i].reshape(-1, 1) + 0.5) / grid[i] * 2 - 1 for i in (0, 1))
    angles = np.tile(2 * np.pi * np.concatenate([row / periods, column / periods], axis=1), 2)
    angles = np.concatenate([np.zeros((first, size)), angles])
    return np.sin(angles).astype(np.float32), np.cos(angles).astype(np.float32)


def rotate(x, sines, cosines):
    """Turns x (B, N, heads, d) by the angles of each token, channel i with channel i + d / 2; returns x's dtype."""
    y = x.astype(jnp.float32)
    left, right = jnp.split(y, 2, axis=-1)
    turned = jnp.concatenate([-right, left], axis=-1)
    return (y * cosines[:, None] + turned * sines[:, None]).astype(x.dtype)


def _cubic(new: int, old: int, offset: float, antialias: bool) -> np.ndarray:
    """The (new, old) matrix of one-dimensional cubic interpolation, half-pixel centres."""
    a, scale = -0.5 if antialias else -0.75, old / (new + offset)
    stretch = max(scale, 1.0) if antialias else 1.0
    centre = (np.arange(new) + 0.5) * scale - 0.5
    reach = int(np.ceil(2 * stretch))
    matrix = np.zeros((new, old))
    for tap in range(-reach, reach + 1):
        place = np.floor(centre).astype(int) + tap
        distance = np.abs(centre - place) / stretch
        near = ((a + 2) * distance - (a + 3)) * distance**2 + 1
        far = ((a * distance - 5 * a) * distance + 8 * a) * distance - 4 * a
        weight = np.where(distance <= 1, near, np.where(distance < 2, far, 0))
        if antialias:  # leaves out what lies beyond the edge; the other repeats the edge
            weight = weight * ((place >= 0) & (place < old))
        np.add.at(matrix, (np.arange(new), np.clip(place, 0, old - 1)), weight)
    return (matrix / matrix.sum(1, keepdims=True)).astype(np.float32)
