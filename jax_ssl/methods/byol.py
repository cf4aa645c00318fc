"""BYOL: predict the projection of the other view by a teacher, a slow copy of the network; no negatives.

Paper: Grill et al. 2020, https://arxiv.org/abs/2006.07733, Sec. 3.1 and appendix J
Code:  https://github.com/google-deepmind/deepmind-research, byol/byol_experiment.py, byol/utils/networks.py
"""

from jax_ssl import bounds
from jax_ssl.core import Method, two_views
from jax_ssl.losses import byol, unit
from jax_ssl.losses.diagnostics import spread
from jax_ssl.models import apply
from jax_ssl.models.heads import Mlp, Predicted, Projected, check_widths
from jax_ssl.optim.schedules import teacher_momentum


def make(backbone, clock, *, projector=(4096, 256), predictor=(4096, 256), momentum=0.996) -> Method:
    """projector, predictor: widths of their layers. momentum: of the teacher, rises to 1 along a cosine.

    To switch a mechanism off: predictor=() compares projections directly; momentum=0 makes the teacher equal to the
    student of the last step (still without gradient).
    """
    check_widths(projector, predictor)
    bounds.bounded("method.", dict(momentum=momentum), at_least=0, at_most=1)
    groups = getattr(backbone, "norm_groups", 1)
    head = Mlp(projector, norm=True, last_bias=False, norm_groups=groups)
    student = Predicted(backbone, head, Mlp(predictor, norm=True, last_bias=False, norm_groups=groups))
    teacher = Projected(backbone, head)

    schedule = teacher_momentum(momentum, clock)

    def init(rng, batch):
        return apply.init_with_teacher(student, teacher, rng, two_views(batch)[0])

    def embed(params, state, batch, rng):
        return apply.train_with_teacher(student, teacher, params, state, two_views(batch), rng=rng)

    def loss(params, state, batch, rng):
        ((z1, p1), (z2, p2)), (t1, t2), extra = embed(params, state, batch, rng)
        return byol(p1, p2, t1, t2), (extra, spread(z1, z2))

    def show(params, state, batch, rng):
        ((_, prediction), _), (_, target), _ = embed(params, state, batch, rng)
        return {"prediction_teacher_similarity": unit(prediction) @ unit(target).T}  # a bright diagonal

    return Method(
        init, loss, teacher=("backbone", "projector"),
        momentum=schedule, show=show, fresh_teacher=True, min_batch=2, curves={"teacher_momentum": schedule},
        guards={"method.predictor": bool(predictor), "method.momentum": momentum > 0},
    )  # fmt: skip
