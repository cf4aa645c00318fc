"""SimSiam: two views, one network, a predictor and a stop-gradient, which prevent a constant output.

Paper: Chen & He 2021, https://arxiv.org/abs/2011.10566, Alg. 1
Code:  https://github.com/facebookresearch/simsiam, simsiam/builder.py
"""

from jax_ssl.core import Method, two_views
from jax_ssl.losses import simsiam, unit
from jax_ssl.losses.diagnostics import spread
from jax_ssl.models import apply
from jax_ssl.models.heads import Mlp, Predicted, check_widths


def make(backbone, clock, *, projector=(2048, 2048, 2048), predictor=(512, 2048), stop_gradient=True) -> Method:
    """projector, predictor: widths of their layers; the predictor is a bottleneck that ends as wide as the projector.

    To switch a mechanism off: stop_gradient=False or predictor=(). Without either of them the network collapses.
    """
    check_widths(projector, predictor)
    groups = getattr(backbone, "norm_groups", 1)
    head = Mlp(projector, norm=True, last_norm=True, last_scale=False, norm_groups=groups)
    net = Predicted(backbone, head, Mlp(predictor, norm=True, norm_groups=groups))

    def init(rng, batch):
        params, stats = apply.init(net, rng, two_views(batch)[0])
        return {"predictor": {}} | params, {"stats": stats}

    def embed(params, state, batch, rng):
        return apply.train_each(net, params, state.extra["stats"], two_views(batch), rng=rng)

    def loss(params, state, batch, rng):
        ((z1, p1), (z2, p2)), stats = embed(params, state, batch, rng)
        return simsiam(p1, p2, z1, z2, stop_gradient), ({"stats": stats}, spread(z1, z2))

    def show(params, state, batch, rng):
        ((z1, p1), (z2, p2)), _ = embed(params, state, batch, rng)
        return {"prediction_projection_similarity": unit(p1) @ unit(z2).T}  # a bright diagonal

    return Method(
        init, loss, show=show, min_batch=2,
        guards={"method.stop_gradient": stop_gradient, "method.predictor": bool(predictor)},
    )  # fmt: skip
