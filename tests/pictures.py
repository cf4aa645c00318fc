"""Pictures, a recipe with everything in it, and its draws: what the tests of the view operations share."""

import numpy as np
from PIL import Image

from jax_ssl.views.draws import draws

RECIPE = dict(
    count=2,
    size=32,
    scale=(0.2, 0.9),
    ratio=(3 / 4, 4 / 3),
    interpolation="bicubic",
    flip=0.5,
    jitter=(0.4, 0.8, 1.2, 0.1),
    jitter_probability=0.8,
    grey=0.2,
    grey_first=False,
    blur=0.3,
    blur_sigma=(0.1, 2.0),
    solarize=0.1,
)
STRONG = dict(RECIPE, scale=(0.08, 1.0), jitter=(0.8, 0.8, 0.8, 0.2), blur=0.5, solarize=0.3)


def some_image(height, width, seed=0):
    """A smooth uint8 picture with noise on it."""
    random = np.random.RandomState(seed)
    coarse = Image.fromarray(random.randint(0, 256, (5, 5, 3)).astype(np.uint8))
    noise = random.randint(-25, 26, (height, width, 3))
    return np.clip(np.asarray(coarse.resize((width, height), Image.BICUBIC)) + noise, 0, 255).astype(np.uint8)


def drawn_for(group, count, seed=0):
    return draws(group, seed, np.zeros(count, np.int64), np.arange(count), 0)
