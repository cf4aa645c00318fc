"""Tiles and patches as a method trains on them: cut at random places, and each changed on its own.

Letters: B images, N squares of an image, C channels. Every function takes its random numbers from a key; a probability
or size of zero changes nothing and costs nothing.
"""

import jax
import jax.numpy as jnp
import numpy as np

GREEN_MAGENTA = np.float32([1, -2, 1]) / np.float32(6**0.5)


def cut_at(images, top, left, side: int):
    """Squares whose first pixel is at `top`, `left`: (B, H, W, C), int (B, N) each -> (B, N, side, side, C)."""
    one = lambda image, y, x: jax.lax.dynamic_slice(image, (y, x, 0), (side, side, image.shape[-1]))
    return jax.vmap(jax.vmap(one, (None, 0, 0)))(images, top, left)


def cut_jittered(rng, images, rows, columns, side: int, jitter: int):
    """Squares near rows x columns: one of side - jitter, moved by up to `jitter` and padded with zeros to `side`.

    (B, H, W, C) -> (B, N, side, side, C).
    """
    at = jnp.array([(y, x) for y in rows for x in columns])
    at = at + jax.random.randint(rng, (len(images), len(at), 2), 0, jitter + 1)
    squares = cut_at(images, at[..., 0], at[..., 1], side - jitter)
    edge = (jitter // 2, jitter - jitter // 2)
    return jnp.pad(squares, ((0, 0), (0, 0), edge, edge, (0, 0)))


def without_green_magenta(rng, images, probability: float):
    """Some images lose the axis of green against magenta, which chromatic aberration shifts: (B, H, W, 3).

    Noroozi & Favaro's code, data_transformer.cpp: times I - v v^T with v = (1, -2, 1) / sqrt(6). images: less the mean
    colour, as there; a grey pixel stays nearly what it is.
    """
    if not probability:
        return images
    chosen = jax.random.bernoulli(rng, probability, (len(images), 1, 1, 1))
    along = jnp.sum(images * GREEN_MAGENTA, axis=-1, keepdims=True)
    return images - jnp.where(chosen, along, 0.0) * GREEN_MAGENTA


def one_channel(rng, squares, probability: float):
    """Some squares keep one of their channels, and the others become zero: (B, N, h, w, C)."""
    if not probability:
        return squares
    which, kept = jax.random.split(rng)
    shape, channels = (*squares.shape[:2], 1, 1, 1), squares.shape[-1]
    chosen = jax.random.bernoulli(which, probability, shape)
    keep = jnp.arange(channels) == jax.random.randint(kept, shape, 0, channels)
    return jnp.where(chosen & ~keep, 0.0, squares)


def mirrored(rng, squares, probability: float):
    """Some squares, left and right changed: (B, N, h, w, C)."""
    if not probability:
        return squares
    chosen = jax.random.bernoulli(rng, probability, (*squares.shape[:2], 1, 1, 1))
    return jnp.where(chosen, squares[..., ::-1, :], squares)


def relit(rng, squares, strength: float):
    """Each square times 1 +- strength, and plus as much: contrast and brightness of (B, N, h, w, C), normalised."""
    if not strength:
        return squares
    gain, shift = jax.random.uniform(rng, (2, *squares.shape[:2], 1, 1, 1), minval=-strength, maxval=strength)
    return squares * (1 + gain) + shift


def warped(rng, squares, degrees: float):
    """Each square turned and sheared by up to `degrees` about its middle: (B, N, h, w, C); edges are repeated."""
    if not degrees:
        return squares
    angle, shear = jax.random.uniform(rng, (2, *squares.shape[:2]), minval=-1, maxval=1) * jnp.deg2rad(degrees)
    sides = squares.shape[2:4]
    middle = jnp.array([(side - 1) / 2 for side in sides])
    grid = jnp.stack(jnp.meshgrid(*map(jnp.arange, sides), indexing="ij")) - middle[:, None, None]

    def one(square, angle, shear):
        cos, sin = jnp.cos(angle), jnp.sin(angle)
        turn = jnp.array([[cos, -sin], [sin, cos]]) @ jnp.array([[1.0, 0.0], [jnp.tan(shear), 1.0]])
        places = list(jnp.einsum("ij,jhw->ihw", turn, grid) + middle[:, None, None])
        read = lambda plane: jax.scipy.ndimage.map_coordinates(plane, places, order=1, mode="nearest")
        return jax.vmap(read, -1, -1)(square)

    return jax.vmap(jax.vmap(one))(squares, angle, shear)
