"""V-JEPA's attentive probe: a whole block around the learned query, with norms and an MLP, where CAPI's has none.

Protocol `attentive-vjepa`: the query attends to the normalised patches, by matrices of queries, keys and values with
biases and as many heads as the network has; what it sees is added to it, then what an MLP of four times the width makes
of it; a linear layer tells the class. There is no output projection: V-JEPA's code has one and never calls it. AdamW,
gradients clipped to a norm of 1, no warm-up, a cosine to 0; the weight decay of 0.001 falls along a cosine to a
thousandth and leaves biases and norms alone. The rate is 0.001 in V-JEPA, and here the best of V-JEPA 2's five on a
tenth of the training images, on which none was trained. Images, views and steps are those of attentive.py; V-JEPA has
20 epochs of 1 024 images with AutoAugment.

Bardes et al. 2024 (V-JEPA), https://arxiv.org/abs/2404.08471; https://github.com/facebookresearch/jepa,
src/models/attentive_pooler.py, evals/image_classification_frozen/eval.py. Letters as in attentive.py.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jax_ssl.evaluate.attentive import WIDTH_OF_HEAD, Kind, averaged, by_head, directions, measure_kind, product

NEEDS = ("labels", "network")
SHOWN = ("top1", "held_out_top1", "train_top1")
RATES = (1e-4, 3e-4, 1e-3, 3e-3, 5e-3)  # whatever the batch
EPSILON = 1e-5  # of the norms


class Probe(NamedTuple):
    """query (D,); matrices (D, D) of query, key and value; norms of the patches and before the MLP; (D, 4 D), (4 D, D).

    Keys have no bias, as in attentive.py.
    """

    query: jax.Array
    query_kernel: jax.Array
    query_bias: jax.Array
    key: jax.Array
    value: jax.Array
    value_bias: jax.Array
    scale: jax.Array
    offset: jax.Array
    mlp_scale: jax.Array
    mlp_offset: jax.Array
    widen: jax.Array
    widen_bias: jax.Array
    narrow: jax.Array
    narrow_bias: jax.Array
    kernel: jax.Array
    bias: jax.Array


DECAYED = Probe(*(float(name in ("query", "query_kernel", "key", "value", "widen", "narrow", "kernel"))
                  for name in Probe._fields))  # fmt: skip


def measure(case, seed, *, images=10_000, steps=1000) -> tuple[dict, dict]:
    """{top1, held_out_top1, train_top1} of a probe trained on the patches of at most `images` training images."""
    kind = kind_of(getattr(case.encode.backbone, "heads", 0))
    return measure_kind(kind, "attentive_vjepa", case, seed, images, steps)


@functools.cache
def kind_of(heads: int) -> Kind:
    """The probe with so many heads; 0, or a number that does not divide the width: heads of 64 features, or one."""
    return Kind(
        "attentive-vjepa", start, functools.partial(logits, heads=heads), DECAYED, RATES, (1e-3,), scaling="absolute",
        second_moment=0.999, warmup=0.0, last_decay=1e-3, clip=1.0,
        said=(("heads", heads or f"of {WIDTH_OF_HEAD} features"), ("clip", 1.0), ("last_weight_decay", 1e-6)),
    )  # fmt: skip


@functools.partial(jax.jit, static_argnums=(1, 2))
def start(key, width: int, classes: int) -> Probe:
    """The probe before its first step: normal numbers of deviation 0.02; the last layer is torch's."""
    normal = lambda number, *shape: 0.02 * jax.random.normal(jax.random.fold_in(key, number), shape)
    uniform = lambda number, *shape: jax.random.uniform(
        jax.random.fold_in(key, number), shape, minval=-(width**-0.5), maxval=width**-0.5
    )
    zeros, ones = jnp.zeros(width), jnp.ones(width)
    return Probe(
        query=normal(0, width), query_kernel=normal(1, width, width), query_bias=zeros, key=normal(2, width, width),
        value=normal(3, width, width), value_bias=zeros, scale=ones, offset=zeros, mlp_scale=ones, mlp_offset=zeros,
        widen=normal(4, width, 4 * width), widen_bias=jnp.zeros(4 * width),
        narrow=normal(5, 4 * width, width) / 2**0.5,  # as the first block of a stack
        narrow_bias=zeros, kernel=uniform(6, width, classes), bias=uniform(7, classes),
    )  # fmt: skip


def logits(probe: Probe, patches, heads: int = 0):
    """Logits of the classes: patches (B, P, D) -> float32 (B, C).

    Scale and offset of the patches' norm are applied to what is multiplied with the patches, and not to each of them.
    """
    width = len(probe.query)
    heads = heads if heads and width % heads == 0 else width // WIDTH_OF_HEAD
    heads = heads if heads and width % heads == 0 else 1
    query = product("d,dk->k", probe.query, probe.query_kernel) + probe.query_bias
    direction = directions(query, probe.key, heads) * probe.scale[:, None]  # the offset adds the same to all scores
    seen = averaged(standardised(patches), direction) * probe.scale + probe.offset
    values = product("bhd,dhk->bhk", seen, by_head(probe.value, heads)).reshape(len(patches), width)
    x = probe.query + values + probe.value_bias
    wide = product("bd,dk->bk", standardised(x) * probe.mlp_scale + probe.mlp_offset, probe.widen) + probe.widen_bias
    x += product("bk,kd->bd", jax.nn.gelu(wide, approximate=False), probe.narrow) + probe.narrow_bias
    return product("bd,dc->bc", x, probe.kernel) + probe.bias


def standardised(x):
    """x less its mean and over its deviation, along the last axis."""
    mean = x.mean(-1, keepdims=True)
    return (x - mean) / jnp.sqrt(jnp.mean((x - mean) ** 2, -1, keepdims=True) + EPSILON)
