"""VICReg: views agree (invariance), every dimension varies (variance), and no two are correlated (covariance).

Paper: Bardes et al. 2022, https://arxiv.org/abs/2105.04906, Sec. 4
Code:  https://github.com/facebookresearch/vicreg, main_vicreg.py
"""

import jax.numpy as jnp
from jax.lax import Precision

from jax_ssl import bounds
from jax_ssl.core import Method, two_views
from jax_ssl.losses import vicreg
from jax_ssl.losses.diagnostics import spread
from jax_ssl.models import apply
from jax_ssl.models.heads import Mlp, Projected, check_widths


def make(backbone, clock, *, projector=(8192, 8192, 8192), invariance=25.0, variance=25.0, covariance=1.0) -> Method:
    """projector: widths of the paper's "expander". invariance, variance, covariance: weights of the three terms.

    To switch the mechanism off: variance=0 lets all embeddings collapse to one point.
    """
    check_widths(projector)
    weights = dict(invariance=invariance, variance=variance, covariance=covariance)
    bounds.bounded("method.", weights, at_least=0)
    groups = getattr(backbone, "norm_groups", 1)
    net = Projected(backbone, Mlp(projector, norm=True, last_bias=False, norm_groups=groups))

    def init(rng, batch):
        params, stats = apply.init(net, rng, two_views(batch)[0])
        return params, {"stats": stats}

    def embed(params, state, batch, rng):
        return apply.train_each(net, params, state.extra["stats"], two_views(batch), rng=rng)

    def loss(params, state, batch, rng):
        (z1, z2), stats = embed(params, state, batch, rng)
        metrics = spread(z1, z2) | {"deviation": jnp.mean(z1.std(0))}  # the variance term wants 1 in each dimension
        return vicreg(z1, z2, invariance, variance, covariance), ({"stats": stats}, metrics)

    def show(params, state, batch, rng):
        (z1, _), _ = embed(params, state, batch, rng)
        z = (z1 - z1.mean(0))[:, :256]
        return {"covariance": jnp.matmul(z.T, z, precision=Precision.HIGHEST) / (len(z) - 1)}  # becomes diagonal

    return Method(init, loss, show=show, min_batch=2, guards={"method.variance": variance > 0})
