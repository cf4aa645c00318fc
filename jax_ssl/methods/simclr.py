"""SimCLR: pull two views of an image together; push all other images of the global batch away.

Paper: Chen et al. 2020, https://arxiv.org/abs/2002.05709, Eq. 1; v2 (three-layer projector) 2006.10029
Code:  https://github.com/google-research/simclr, tf2/objective.py, tf2/model.py
"""

import flax.linen as nn
import jax.numpy as jnp
from einops import rearrange

from jax_ssl import bounds
from jax_ssl.core import Method, two_views
from jax_ssl.losses import nt_xent, unit
from jax_ssl.losses.diagnostics import information, spread
from jax_ssl.models import apply
from jax_ssl.models.heads import Mlp, Projected, check_widths

KERNEL_INIT = nn.initializers.normal(0.01)


def make(backbone, clock, *, projector=(2048, 128), temperature=0.1) -> Method:
    """projector: widths of its layers, two in v1, three in v2. temperature: 0.1 on ImageNet, 0.5 on CIFAR-10.

    The loss is the paper's mean over 2B views; the official code sums the means of the two views, which is twice that.
    """
    check_widths(projector)
    bounds.bounded("method.", dict(temperature=temperature), above=0)
    groups = getattr(backbone, "norm_groups", 1)
    head = Mlp(projector, norm=True, last_norm=True, norm_groups=groups, kernel_init=KERNEL_INIT)
    net = Projected(backbone, head)

    def init(rng, batch):
        params, stats = apply.init(net, rng, two_views(batch)[0])
        return params, {"stats": stats}

    def embed(params, state, batch, rng):
        # Both views in one forward pass: batch norm uses the statistics of both, as in the official code.
        images = rearrange(batch["views"], "b v h w c -> (b v) h w c")
        embedded, stats = apply.train(net, params, state.extra["stats"], images, rng=rng)
        return rearrange(embedded, "(b v) d -> v b d", v=2), stats

    def loss(params, state, batch, rng):
        (first, second), stats = embed(params, state, batch, rng)
        value, candidates = nt_xent(first, second, temperature), 2 * len(first) - 1
        metrics = {"uniform_loss": jnp.log(float(candidates))} | spread(first, second) | information(value, candidates)
        return value, ({"stats": stats}, metrics)

    def show(params, state, batch, rng):
        (first, second), _ = embed(params, state, batch, rng)
        return {"similarity": unit(first) @ unit(second).T}  # a bright diagonal: each image finds itself

    return Method(init, loss, show=show, min_batch=2)
