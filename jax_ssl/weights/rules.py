"""The parts of a naming scheme: how a tensor of another library becomes (a part of) one of ours.

A target is a path in {"backbone": the network's parameters, "decoder": Decoder's, "predictor": Predictor's,
"projector": a head's, "positions": positions as the file holds them, "pooled_norm": a norm after the mean of the
patches, "stats": running statistics, "extra": what a method remembers}. The number of a block is the only group of a
pattern; convert.py stacks the tensors of all blocks along a leading axis.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from jax_ssl.views.sizes import Size

IMAGENET = dict(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
INCEPTION = dict(mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
PLAIN = dict(mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))  # pixels from 0 to 1
NUMBER = r"\.(\d{1,3})\."
BLOCKS = "backbone/encoder/blocks"


class Rule(NamedTuple):
    """A tensor whose whole name matches `pattern`, transformed, is the `part`-th part of the last axis of `target`."""

    pattern: str
    target: str
    transform: Callable[[np.ndarray], np.ndarray]
    part: int = 0


class Part(NamedTuple):
    """Optional rules, for files with a name that matches `sign` and none that matches `without`.

    There, every target of the rules has to be filled. Names are those behind the prefix of the network, and the whole
    names of what lies beside it.
    """

    sign: str
    rules: tuple[Rule, ...]
    without: str = r"(?!)"


class Scheme(NamedTuple):
    """How a library names its tensors, and what its files do not hold.

    sign: a pattern that some name in its files matches, behind a prefix such as `backbone.`, which is taken off.
    prefix: a pattern that the prefix matches. without: a pattern that no name matches. rules: or a function from {name:
    tensor} to them. ignored: names that are not needed, such as a classifier. kind: `vit` or `resnet`. Not in the
    files: epsilon of the layer norms, pixels (mean and std of the images), and offset, which is added to the number of
    patches in the scale by which learned positions are resized. model: more keywords for the network; heads: {width:
    heads} where they are other than usual. question: what a user has to say because the names do not, if anything.
    size: of the images, where a config.json or the user says it: a number of positions does not tell their grid.
    """

    name: str
    sign: str
    rules: tuple[Rule, ...] | Callable[[dict], tuple[Rule, ...]]
    parts: tuple[Part, ...] = ()
    prefix: str = r".*"
    without: str = r"(?!)"
    ignored: str = r"(?!)"
    kind: str = "vit"
    epsilon: float = 1e-6
    pixels: dict = IMAGENET
    offset: float = 0.0
    model: dict = {}
    heads: dict = {}
    question: str = ""
    size: Size | None = None


def same(x):
    return x


def transpose(x):
    """The kernel (out, in) of a torch Linear as that of a Flax Dense, (in, out)."""
    out, into = x.shape
    return x.reshape(out, into).T


def patch_kernel(x):
    """The kernel (D, C, p, p) of a convolution with stride p as a matrix over flat patches: (p p C, D)."""
    out, channels, rows, columns = x.shape
    return x.transpose(2, 3, 1, 0).reshape(rows * columns * channels, out)


def token(x):
    """A token of shape (D,), (1, D) or (1, 1, D) as (1, 1, D)."""
    return x.reshape(1, 1, -1)


def vector(x):
    """A token of shape (D,) as (1, 1, D)."""
    return x.reshape(1, 1, len(x))


def token_row(x):
    """Positions (1 + N, D), or (1, 1 + N, D), as the latter."""
    return x.reshape(1, *x.shape[-2:])


def without_key(x):
    """The bias of query, key and value with zeros for the key, which DINOv3 masks."""
    query, key, value = np.split(x, 3)
    return np.concatenate([query, np.zeros_like(key), value])


def convolution(x):
    """The kernel (D, C, h, w) of a torch convolution as that of a Flax one, (h, w, C, D)."""
    out, channels, rows, columns = x.shape
    return x.reshape(out, channels, rows, columns).transpose(2, 3, 1, 0)


def linear(pattern: str, target: str, part: int = 0, kernel=transpose) -> tuple[Rule, Rule]:
    """The rules for weight and bias of a linear layer."""
    weight = Rule(rf"{pattern}\.weight", f"{target}/kernel", kernel, part)
    return weight, Rule(rf"{pattern}\.bias", f"{target}/bias", same, part)


def option(*rules: Rule) -> Part:
    """A Part for files that have the first of these rules' names."""
    return Part(rules[0].pattern, rules)


def norm(pattern: str, target: str) -> tuple[Rule, Rule]:
    """The rules for weight and bias of a layer norm."""
    return Rule(rf"{pattern}\.weight", f"{target}/scale", same), Rule(rf"{pattern}\.bias", f"{target}/bias", same)
