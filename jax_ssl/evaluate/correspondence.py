"""Do patches find their own place in a warped copy of their image? Matching under warps that are known exactly.

Protocol. Each test image is turned by up to 30 degrees, enlarged or reduced by up to a quarter, tilted a little, and
moved by SHIFT patches or more: without that, features of nothing but position would pass. Each patch of the image is
matched to the patch of the copy with the largest cosine. The error is the distance from the middle of the match to
where the middle of the patch went; patches that leave the frame are left out.

pck_patch:   share of patches with an error of one patch at most.
pck_tenth:   the same for a tenth of the image's side.
error:       mean error, in patches.
_pixels, _position, _chance: pck_patch of the pixels of the patches, of their position, and of random matches.

Keypoint transfer on real pairs (SPair) is another number. Letters: N images, P patches of each, D width of a feature.
"""

import jax
import jax.numpy as jnp
import numpy as np

from jax_ssl.errors import UserError
from jax_ssl.evaluate import rules
from jax_ssl.evaluate.resampling import mirror, sample
from jax_ssl.losses import unit
from jax_ssl.views import sizes

NEEDS = ("network", "squares")
SHIFT = 4  # patches, at least; up to one and a half times as many
BLOCK = 32  # images at a time
HIGHEST = jax.lax.Precision.HIGHEST


def measure(case, seed, *, images=200) -> tuple[dict, dict]:
    """Scores on at most `images` test images and a copy of each, and the protocol."""
    rows = rules.some(len(case.test), images, seed)
    side, found = case.test.images.shape[1], []
    for start in range(0, len(rows), BLOCK):
        pictures = case.test.images[rows[start : start + BLOCK]]
        (patches,) = case.outputs([pictures], patches_of)
        grid, _ = shape = grid_of(patches.shape[1], side, "Correspondence", SHIFT + 1)
        rng = np.random.default_rng((rules.seed32(seed), start))
        maps = warps(len(pictures), side, SHIFT * side / grid, rng)
        changed = warp(pictures, maps)
        (moved,) = case.outputs([changed], patches_of)
        rules.check_features("Correspondence", *(x.reshape(-1, x.shape[-1]) for x in (patches, moved)))
        ways = {"": (patches, moved), "_pixels": tuple(pixel_patches(x, shape) for x in (pictures, changed))}
        places = {way: match(*pair) for way, pair in ways.items()}
        places["_position"] = np.broadcast_to(np.arange(grid * grid), (len(pictures), grid * grid))
        places["_chance"] = rng.integers(0, grid * grid, (len(pictures), grid * grid))
        found.append({way: errors(place, maps, side) for way, place in places.items()})
    each = {way: np.concatenate([part[way] for part in found]) for way in found[0]}
    numbers = {"pck_patch": np.mean(each[""] <= 1), "pck_tenth": np.mean(each[""] <= grid / 10)}
    numbers |= {"error": np.mean(each[""])} | {f"pck_patch{way}": np.mean(each[way] <= 1) for way in each if way}
    protocol = {
        "name": "correspondence", "images": len(rows), "side": side, "patches": grid, "points": len(each[""]),
        "warps": f"homographies, shift of {SHIFT} patches or more", "match": "largest cosine",
    }  # fmt: skip
    return {name: float(value) for name, value in numbers.items()}, protocol


def patches_of(features):
    """What is read of the network's output."""
    return features.patches


def grid_of(patches: int, size: sizes.Size, measure: str, least: int) -> tuple[int, int]:
    """(rows, columns) of the patches of an image of that size, `least` of each at least; else raises UserError.

    measure: its name in the message.
    """
    (rows, columns), (height, width) = sizes.grid_of(patches, size), sizes.sides(size)
    if min(rows, columns) < least or abs(columns * height - rows * width) >= max(height, width):
        raise UserError(
            f"{measure} needs a map in the shape of the image, of {least} x {least} patches at least, and this network "
            f"gives {patches} patches: take larger images, or a network with patches."
        )
    return rows, columns


def warps(count: int, side: int, shift: float, rng) -> np.ndarray:
    """Homographies of pixels (x, y, 1), of which the first covers 0 to 1: float64 (N, 3, 3). shift: in pixels."""
    angle, scale = rng.uniform(-np.pi / 6, np.pi / 6, count), np.exp(rng.uniform(-0.22, 0.22, count))
    away, direction = rng.uniform(shift, 1.5 * shift, count), rng.uniform(0, 2 * np.pi, count)
    maps = np.zeros((count, 3, 3))
    maps[:, 0, 0] = maps[:, 1, 1] = scale * np.cos(angle)
    maps[:, 0, 1], maps[:, 1, 0] = -scale * np.sin(angle), scale * np.sin(angle)
    maps[:, :2, 2] = away[:, None] * np.stack([np.cos(direction), np.sin(direction)], 1)
    maps[:, 2, :2], maps[:, 2, 2] = rng.uniform(-0.1, 0.1, (count, 2)) / side, 1
    centre = np.array([[1, 0, side / 2], [0, 1, side / 2], [0, 0, 1]])
    return centre @ maps @ np.linalg.inv(centre)


def carried(points: np.ndarray, maps: np.ndarray) -> np.ndarray:
    """Where points (P, 2) go, (x, y), by each of N homographies: (N, P, 2)."""
    found = np.concatenate([points, np.ones((len(points), 1))], 1) @ maps.swapaxes(1, 2)
    return found[..., :2] / found[..., 2:]


def warp(images: np.ndarray, maps: np.ndarray) -> np.ndarray:
    """Images uint8 (N, S, S, 3), each carried by its homography; beyond their edges they are mirrored."""
    side = images.shape[1]
    points = centres(side, side)
    x, y = np.moveaxis(carried(points, np.linalg.inv(maps)) - 0.5, -1, 0).reshape(2, len(images), side, side)
    return np.round(sample(images, y, x, mirror)).astype(np.uint8)


def centres(grid: int, side: int) -> np.ndarray:
    """The middle of each of grid x grid patches, row by row, in pixels: (P, 2), (x, y)."""
    middle = (np.arange(grid) + 0.5) * side / grid
    return np.stack(np.meshgrid(middle, middle), -1).reshape(-1, 2)


def pixel_patches(images: np.ndarray, grid: tuple[int, int]) -> np.ndarray:
    """The pixels of each patch, less the mean colour: uint8 (N, H, W, 3) -> float32 (N, P, D)."""
    return cut(images.astype(np.float32) - images.mean((0, 1, 2), dtype=np.float32), grid)


def cut(images: np.ndarray, grid: tuple[int, int]) -> np.ndarray:
    """The pixels of each patch, row by row: (N, H, W) or (N, H, W, 3) -> (N, P, D). What is over at the end is left."""
    (rows, columns), count = grid, len(images)
    high, wide = images.shape[1] // rows, images.shape[2] // columns
    x = images[:, : high * rows, : wide * columns].reshape(count, rows, high, columns, wide, -1)
    return x.swapaxes(2, 3).reshape(count, rows * columns, -1)


def match(first, second) -> np.ndarray:
    """The patch of `second` that is most similar to each of `first`, both (N, P, D): int (N, P)."""
    return np.asarray(_match(jnp.asarray(first), jnp.asarray(second)))


@jax.jit
def _match(first, second):
    return jnp.argmax(jnp.matmul(unit(first), unit(second).swapaxes(1, 2), precision=HIGHEST), axis=2)


def errors(places: np.ndarray, maps: np.ndarray, side: int) -> np.ndarray:
    """Distance of each match from the truth, in patches, of those that stay within the frame: (points,).

    places: int (N, P), the patch of the copy that each patch was matched to.
    """
    grid = round(places.shape[1] ** 0.5)
    middles = centres(grid, side)
    truth = carried(middles, maps)
    seen = ((truth >= 0) & (truth < side)).all(-1)
    return (np.linalg.norm(middles[places] - truth, axis=-1) * grid / side)[seen]
