"""Draws the random numbers of all views, as a pure function of (seed, epoch, sample, stream).

A *recipe* is a dict of numbers (`configs/crops.py`). A *group* is a list of recipes, each repeated `count` times, and
has V views in all. The random numbers are hashes of counters and do not depend on batch, host or device. So an image
gets the same crops in any batch, on any number of hosts, after any interruption.
"""

import itertools

import numpy as np

from jax_ssl.errors import UserError

ORDERS = np.array(list(itertools.permutations(range(4))), np.int32)  # the 24 orders of the four jitter operations
PROBABILITIES = ("flip", "jitter_probability", "grey", "blur", "solarize")
KEYS = ("count", "size", "scale", "ratio", "interpolation", "jitter", "grey_first", "blur_sigma", *PROBABILITIES)

# The index of each random number of a view. New ones may be appended; moving one changes the views of every old run.
# Ten candidates of area and aspect: torchvision's RandomResizedCrop tries ten boxes before a central crop.
AREA, ASPECT, PLACE, FLIP = slice(0, 10), slice(10, 20), slice(20, 22), 22
JITTER_ON, JITTER, ORDER, GREY, BLUR_ON, SIGMA, SOLARIZE = 23, slice(24, 28), 28, 29, 30, 31, 32
SLOTS = 33

GOLDEN = np.uint64(0x9E3779B97F4A7C15)  # SplitMix64's increment: 2**64 / golden ratio


def check_crops(crops) -> None:
    """Raises UserError, with the remedy, for crops that can't be made. crops: {group name: list of recipes}."""
    for name, group in crops.items():
        where = f"data.crops.{name}"
        if not group:
            raise UserError(f"{where} has no recipe: give it at least one, or remove the group.")
        for number, recipe in enumerate(group):
            _check_recipe(recipe, f"{where}[{number}]")
        for key in ("size", "interpolation", "grey_first"):
            values = sorted({recipe[key] for recipe in group})
            if len(values) > 1:
                raise UserError(f"{where} mixes {key} {values}: put recipes of different {key} into different groups.")


def _check_recipe(recipe, where: str) -> None:
    """Raises UserError unless the recipe has every key, and every number is in its range."""
    wrong = set(KEYS) ^ set(recipe.keys())
    if wrong:
        raise UserError(f"{where} has missing or unknown keys {sorted(wrong)}: a recipe has the keys {sorted(KEYS)}.")
    for key in PROBABILITIES:
        if not 0 <= recipe[key] <= 1:
            raise UserError(f"{where}.{key} is {recipe[key]}: a probability lies in [0, 1].")
    for key, largest in (("scale", 1.0), ("ratio", np.inf), ("blur_sigma", np.inf)):
        if len(recipe[key]) != 2 or not 0 < recipe[key][0] <= recipe[key][1] <= largest:
            raise UserError(f"{where}.{key} is {tuple(recipe[key])}: give (low, high), 0 < low <= high <= {largest}.")
    strengths = tuple(recipe["jitter"])
    if len(strengths) != 4 or min(strengths) < 0 or strengths[3] > 0.5:
        raise UserError(f"{where}.jitter is {strengths}: give four strengths >= 0, the last (hue) at most 0.5.")
    if recipe["interpolation"] not in ("bilinear", "bicubic"):
        raise UserError(f"{where}.interpolation is {recipe['interpolation']!r}: choose 'bilinear' or 'bicubic'.")
    for key in ("count", "size"):
        if int(recipe[key]) != recipe[key] or recipe[key] < 1:
            raise UserError(f"{where}.{key} is {recipe[key]}: give a whole number of at least 1.")


def mix(counter: np.ndarray) -> np.ndarray:
    """The output function of SplitMix64, a hash: uint64 -> uint64, one to one. Steele et al. 2014, Figure 16."""
    counter = (counter ^ (counter >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    counter = (counter ^ (counter >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return counter ^ (counter >> np.uint64(31))


def uniforms(seed: int, epoch: np.ndarray, sample: np.ndarray, stream: int, views: int) -> np.ndarray:
    """Uniform random numbers in [0, 1) for all draws: float32 (B, V, SLOTS). epoch, sample: int (B,)."""
    state = np.full(np.shape(sample), seed & (2**64 - 1), np.uint64)
    for word in (epoch, sample, np.full_like(state, stream)):
        state = mix(state + GOLDEN) ^ np.asarray(word).astype(np.uint64)
    steps = np.arange(1, views * SLOTS + 1, dtype=np.uint64) * GOLDEN
    bits = mix(mix(state + GOLDEN)[:, None] + steps)  # (B, V * SLOTS)
    # 24 bits are all that a float32 in [0, 1) can hold; a 25th could round up to 1.
    return ((bits >> np.uint64(40)).astype(np.float32) * np.float32(2**-24)).reshape(-1, views, SLOTS)


def draws(group, seed: int, epoch: np.ndarray, sample: np.ndarray, stream: int) -> dict[str, np.ndarray]:
    """The random factors of each view of each image. epoch, sample: int64 (B,). stream: the group's number.

    Returns arrays (B, V, ...): area, aspect (10 candidates each), place (2), ratio (2: the recipe's limits), flip,
    jitter (4 factors: brightness, contrast, saturation, hue; 1 1 1 0 when off), order (4: which operation comes first,
    second, ...), grey, sigma (0 = no blur), solarize. As in torchvision's RandomResizedCrop, ColorJitter, RandomApply.
    """
    recipes = [recipe for recipe in group for _ in range(recipe["count"])]
    unit = uniforms(seed, epoch, sample, stream, len(recipes))

    def column(key):
        return np.array([recipe[key] for recipe in recipes], np.float32)  # (V,) or (V, numbers)

    def between(low, high, slot):
        return low + (high - low) * unit[..., slot]

    scale, log_ratio = column("scale"), np.log(column("ratio"))
    blur_sigma, strength = column("blur_sigma"), column("jitter")
    lowest = np.concatenate([np.maximum(0, 1 - strength[:, :3]), -strength[:, 3:]], axis=1)
    highest = np.concatenate([1 + strength[:, :3], strength[:, 3:]], axis=1)
    jittered = unit[..., JITTER_ON] < column("jitter_probability")
    blurred = unit[..., BLUR_ON] < column("blur")
    return {
        "area": between(scale[:, :1], scale[:, 1:], AREA),
        "aspect": np.exp(between(log_ratio[:, :1], log_ratio[:, 1:], ASPECT)),
        "place": unit[..., PLACE],
        "ratio": np.broadcast_to(column("ratio"), (len(unit), len(recipes), 2)),
        "flip": unit[..., FLIP] < column("flip"),
        "jitter": np.where(jittered[..., None], between(lowest, highest, JITTER), np.float32([1, 1, 1, 0])),
        "order": ORDERS[(unit[..., ORDER] * len(ORDERS)).astype(np.int32)],
        "grey": unit[..., GREY] < column("grey"),
        "sigma": np.where(blurred, between(blur_sigma[:, 0], blur_sigma[:, 1], SIGMA), np.float32(0)),
        "solarize": unit[..., SOLARIZE] < column("solarize"),
    }


def boxes(drawn: dict[str, np.ndarray], height, width) -> np.ndarray:
    """The part of its image that each view shows: int32 (B, V, 4) top, left, height, width.

    height, width: of the images in pixels, int or int (B,). As torchvision's RandomResizedCrop.get_params: the first of
    ten candidates that fits, else the largest central crop with an allowed ratio. Computed in float64.
    """
    height, width = (np.reshape(np.asarray(side, np.float64), (-1, 1)) for side in (height, width))  # (B or 1, 1)
    area = drawn["area"].astype(np.float64) * (height * width)[..., None]  # (B, V, 10)
    aspect = drawn["aspect"].astype(np.float64)
    wide, high = np.rint(np.sqrt(area * aspect)), np.rint(np.sqrt(area / aspect))
    fits = (wide > 0) & (wide <= width[..., None]) & (high > 0) & (high <= height[..., None])
    first = fits.argmax(axis=-1)[..., None]
    wide, high = (np.take_along_axis(side, first, axis=-1)[..., 0] for side in (wide, high))  # (B, V)
    place = drawn["place"].astype(np.float64)
    top = np.floor(place[..., 0] * (height - high + 1))
    left = np.floor(place[..., 1] * (width - wide + 1))

    smallest, largest = drawn["ratio"][..., 0].astype(np.float64), drawn["ratio"][..., 1].astype(np.float64)
    central_high = np.minimum(height, np.maximum(1, np.rint(width / smallest)))
    central_wide = np.minimum(width, np.maximum(1, np.rint(height * largest)))
    central = (height - central_high) // 2, (width - central_wide) // 2, central_high, central_wide
    tried, central = (np.stack(np.broadcast_arrays(*four), axis=-1) for four in ((top, left, high, wide), central))
    return np.where(fits.any(axis=-1, keepdims=True), tried, central).astype(np.int32)
