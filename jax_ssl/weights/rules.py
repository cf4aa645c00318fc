"""The language of naming schemes: how one tensor of another library becomes (a part of) one of ours.

A target is a path in {"backbone": ViT's parameters, "decoder": Decoder's, "predictor": Predictor's, "positions": codes
as the file holds them, "pooled_norm": a norm behind the mean of the patches}. Tensors of one block carry its number,
the pattern's only group; convert.py stacks them along the leading axis.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

IMAGENET = dict(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))


class Rule(NamedTuple):
    """Tensors whose whole name matches `pattern` go, transformed, to `target`, as the `part`-th of its last axis."""

    pattern: str
    target: str
    transform: Callable[[np.ndarray], np.ndarray]
    part: int = 0


class Part(NamedTuple):
    """Rules for the files that hold a name like `sign`; in those, each of their targets has to be filled."""

    sign: str
    rules: tuple[Rule, ...]


class Scheme(NamedTuple):
    """A library's names. sign: a pattern that its files match; without: one that no name in its files matches.

    ignored: names that are nothing here, such as a classifier. What no weights file tells: epsilon of the layer norms,
    pixels (mean and std that images were normalised with), and offset, added to the number of patches in the scale by
    which learned positions are resized.
    """

    name: str
    sign: str
    rules: tuple[Rule, ...]
    parts: tuple[Part, ...] = ()
    without: str = r"(?!)"
    ignored: str = r"(?!)"
    epsilon: float = 1e-6
    pixels: dict = IMAGENET
    offset: float = 0.0


def same(x):
    return x


def transpose(x):
    """A torch Linear keeps (out, in), a Flax Dense (in, out)."""
    out, into = x.shape
    return x.reshape(out, into).T


def patch_kernel(x):
    """A convolution (D, C, p, p) whose stride is its size, as a matrix over cut-out patches: (p p C, D)."""
    out, channels, rows, columns = x.shape
    return x.transpose(2, 3, 1, 0).reshape(rows * columns * channels, out)


def token(x):
    """(D,), (1, D) or (1, 1, D)."""
    return x.reshape(1, 1, -1)


def linear(pattern: str, target: str, part: int = 0, kernel=transpose) -> tuple[Rule, Rule]:
    weight = Rule(rf"{pattern}\.weight", f"{target}/kernel", kernel, part)
    return weight, Rule(rf"{pattern}\.bias", f"{target}/bias", same, part)


def norm(pattern: str, target: str) -> tuple[Rule, Rule]:
    return Rule(rf"{pattern}\.weight", f"{target}/scale", same), Rule(rf"{pattern}\.bias", f"{target}/bias", same)
