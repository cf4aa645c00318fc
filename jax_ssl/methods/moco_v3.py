"""MoCo v3: contrast within a large batch instead of a queue, with a predictor; made for transformers.

Paper: Chen et al. 2021, https://arxiv.org/abs/2104.02057, Alg. 1
Code:  https://github.com/facebookresearch/moco-v3, moco/builder.py
"""

import jax
import jax.numpy as jnp

from jax_ssl import bounds
from jax_ssl.core import Method, two_views
from jax_ssl.losses import moco_v3, unit
from jax_ssl.losses.diagnostics import information, spread
from jax_ssl.models import apply
from jax_ssl.models.heads import Mlp, Predicted, Projected, check_widths
from jax_ssl.optim.schedules import teacher_momentum


def official_init(params):
    """Initial values rescaled as in the official vits.py: wider queries, keys and values, and class token N(0, 1e-6).

    There these are initialised as three matrices, so with a standard deviation sqrt(2) larger than as one.
    """
    factors = {"['qkv']['kernel']": 2**0.5, "['cls_token']": 1e-6 / 0.02}  # our ViT is initialised as MAE's

    def rescale(path, x):
        return x * next((f for end, f in factors.items() if jax.tree_util.keystr(path).endswith(end)), 1.0)

    return jax.tree_util.tree_map_with_path(rescale, params)


def make(backbone, clock, *, projector=(4096, 4096, 256), predictor=(4096, 256), predictor_norm=True, temperature=0.2,
         momentum=0.99) -> Method:  # fmt: skip
    """projector, predictor: widths of their layers; a ViT's projector has three, a ResNet's two.

    predictor_norm: batch norm after the predictor's last layer, as the paper has for a ViT but not for a ResNet.
    temperature: 0.2 with a ViT, 1 with a ResNet. momentum: of the teacher, rises to 1 along a cosine.
    The frozen patch embedding of the paper is `optim.frozen=("backbone/embed",)`.
    """
    check_widths(projector, predictor)
    bounds.bounded("method.", dict(temperature=temperature), above=0)
    bounds.bounded("method.", dict(momentum=momentum), at_least=0, at_most=1)
    groups = getattr(backbone, "norm_groups", 1)
    head = Mlp(projector, norm=True, last_norm=True, last_scale=False, norm_groups=groups)
    last = dict(last_norm=predictor_norm, last_scale=False, last_bias=False)
    student = Predicted(backbone, head, Mlp(predictor, norm=True, norm_groups=groups, **last))
    teacher = Projected(backbone, head)

    def init(rng, batch):
        params, extra = apply.init_with_teacher(student, teacher, rng, two_views(batch)[0])
        return official_init(params), extra

    def embed(params, state, batch, rng):
        return apply.train_with_teacher(student, teacher, params, state, two_views(batch), rng=rng)

    def loss(params, state, batch, rng):
        ((_, q1), (_, q2)), (k1, k2), extra = embed(params, state, batch, rng)
        value, candidates = moco_v3(q1, q2, k1, k2, temperature), len(q1)
        metrics = {"uniform_loss": 4 * temperature * jnp.log(float(candidates))} | spread(q1, q2)
        return value, (extra, metrics | information(value / (4 * temperature), candidates))

    def show(params, state, batch, rng):
        ((_, query), _), (_, key), _ = embed(params, state, batch, rng)
        return {"query_key_similarity": unit(query) @ unit(key).T}  # a bright diagonal: each image finds itself

    schedule = teacher_momentum(momentum, clock)
    return Method(init, loss, teacher=("backbone", "projector"), momentum=schedule, show=show, min_batch=2,
                  curves={"teacher_momentum": schedule})  # fmt: skip
