"""Barlow Twins: each dimension of the embedding correlates with itself across views, and with no other dimension.

Paper: Zbontar et al. 2021, https://arxiv.org/abs/2103.03230, Alg. 1
Code:  https://github.com/facebookresearch/barlowtwins, main.py
"""

import jax.numpy as jnp
from jax.lax import Precision

from jax_ssl import bounds
from jax_ssl.core import Method, two_views
from jax_ssl.losses import barlow_twins
from jax_ssl.losses.diagnostics import spread
from jax_ssl.models import apply
from jax_ssl.models.heads import Mlp, Projected, check_widths


def make(backbone, clock, *, projector=(8192, 8192, 8192), lambd=0.0051, loss_scale=1.0) -> Method:
    """projector: widths of its layers. lambd: weight of the off-diagonal terms.

    loss_scale: factor of the loss. The official code divides its gradient by its number of GPUs, 16. 1/16 does the
    same, which matters for weight decay and for parameters without a trust ratio.
    """
    check_widths(projector)
    bounds.bounded("method.", dict(lambd=lambd), at_least=0)
    bounds.bounded("method.", dict(loss_scale=loss_scale), above=0)
    groups = getattr(backbone, "norm_groups", 1)
    net = Projected(backbone, Mlp(projector, norm=True, last_bias=False, norm_groups=groups))

    def init(rng, batch):
        params, stats = apply.init(net, rng, two_views(batch)[0])
        return params, {"stats": stats}

    def embed(params, state, batch, rng):
        return apply.train_each(net, params, state.extra["stats"], two_views(batch), rng=rng)

    def loss(params, state, batch, rng):
        (z1, z2), stats = embed(params, state, batch, rng)
        metrics = spread(z1, z2) | {"uniform_loss": jnp.float32(loss_scale * projector[-1])}
        return loss_scale * barlow_twins(z1, z2, lambd), ({"stats": stats}, metrics)

    def show(params, state, batch, rng):
        (z1, z2), _ = embed(params, state, batch, rng)
        a, b = ((z - z.mean(0)) / (z.std(0) + 1e-5) for z in (z1[:, :256], z2[:, :256]))
        return {"cross_correlation": jnp.matmul(a.T, b, precision=Precision.HIGHEST) / len(a)}  # becomes the identity

    return Method(init, loss, show=show, min_batch=2, guards={"method.lambd": lambd > 0})
