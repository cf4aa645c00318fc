"""I-JEPA: from a part of an image, predict the teacher's features of blocks that are hidden from the student.

Paper: Assran et al. 2023, https://arxiv.org/abs/2301.08243
Code:  https://github.com/facebookresearch/ijepa, src/train.py, src/masks/multiblock.py
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from jax_ssl import bounds, masking
from jax_ssl.core import Method, one_view
from jax_ssl.errors import UserError
from jax_ssl.losses import smooth_l1
from jax_ssl.losses.diagnostics import feature_std, pair_cosine
from jax_ssl.models import apply
from jax_ssl.models.micro import MicroBatched
from jax_ssl.models.predictor import Predictor
from jax_ssl.optim.schedules import linear


class Net(nn.Module):
    """images, indices of the context (B, K) and of the targets (B, M, T) -> features at the targets (B, M, T, D)."""

    backbone: nn.Module
    predictor: nn.Module

    def __call__(self, images, context, target, weight=None, train: bool = False):
        grid = (images.shape[1] // self.backbone.patch, images.shape[2] // self.backbone.patch)
        seen = self.backbone(images, train, keep=context).patches
        return self.predictor(seen, context, target, grid, train, weight)


def make(backbone, clock, *, predictor_width=384, predictor_depth=12, predictor_heads=16, targets=4,
         target_scale=(0.15, 0.2), target_ratio=(0.75, 1.5), context_scale=(0.85, 1.0), context_kept=0.3,
         momentum=0.996, final_momentum=1.0) -> Method:  # fmt: skip
    """targets: number of target blocks. target_scale, context_scale: smallest and largest share of the image's area.

    target_ratio: height over width. context_kept: share of an image's patches that enter the encoder, a fixed number;
    they are drawn from the context block without the targets. The official code takes as many as the image with
    the fewest has. momentum: of the teacher, linear to final_momentum.
    """
    if isinstance(backbone, MicroBatched):
        raise UserError("micro_batch is not for I-JEPA, which needs the patches of whole images: set it to 0.")
    if getattr(backbone, "pool", None) != "mean":
        raise UserError("I-JEPA needs model.name='vit' with model.pool='mean': it has patches and no class token.")
    bounds.rising_pair("method.", dict(target_scale=target_scale), above=0, below=1)
    bounds.rising_pair("method.", dict(context_scale=context_scale), above=0, at_most=1)
    bounds.rising_pair("method.", dict(target_ratio=target_ratio), above=0)
    bounds.bounded("method.", dict(context_kept=context_kept), above=0, below=1)
    bounds.bounded("method.", dict(momentum=momentum, final_momentum=final_momentum), at_least=0, at_most=1)
    sizes = dict(predictor_width=predictor_width, predictor_depth=predictor_depth, predictor_heads=predictor_heads)
    bounds.whole("method.", sizes | dict(targets=targets))
    if predictor_width % predictor_heads or predictor_width % 4:
        raise UserError(
            f"method.predictor_width={predictor_width} must be a multiple of 4 and of "
            f"method.predictor_heads={predictor_heads}."
        )
    predictor = Predictor(
        predictor_width, predictor_depth, predictor_heads, backbone.width, backbone.remat, backbone.dtype,
        backbone.epsilon, initial=backbone.initial, attention=backbone.attention, unroll=backbone.unroll,
    )  # fmt: skip
    net, teacher = Net(backbone, predictor), apply.without_drop_path(backbone)

    def cut(rng, images):
        grid = (images.shape[1] // backbone.patch, images.shape[2] // backbone.patch)
        if min(grid) < 2:
            raise UserError(
                f"No blocks can be cut from {grid[0]} x {grid[1]} patches of an image: take a smaller model.patch or a "
                "larger size in data.crops."
            )
        kept = max(1, int(context_kept * grid[0] * grid[1]))
        return masking.multi_block(rng, len(images), grid, targets, target_scale, target_ratio, context_scale, kept)

    def init(rng, batch):
        images = one_view(batch)
        params, stats = apply.init(net, rng, images, *cut(rng, images))
        return params, {"stats": stats}

    def loss(params, state, batch, rng):
        images = batch["views"][:, 0]
        context, target, weight = cut(rng, images)
        predicted, _ = apply.train(net, params, state.extra["stats"], images, context, target, weight, rng=rng)
        features, _ = apply.train(teacher, state.teacher["backbone"], state.extra["stats"], images)
        whole = jax.nn.standardize(features.patches, epsilon=1e-5)  # a layer norm without scale and offset
        goal = jax.vmap(lambda patches, at: patches[at])(whole, target)
        metrics = {"uniform_loss": smooth_l1(jnp.zeros_like(goal), goal, weight[:, None])}
        metrics |= {"feature_std": feature_std(features.pooled), "pair_cosine": pair_cosine(features.pooled)}
        return smooth_l1(predicted, goal, weight[:, None]), (state.extra, metrics)

    def show(params, state, batch, rng):
        """Columns: the image, its context, and each block that is predicted from it."""
        images = batch["views"][:8, 0]
        patches = (images.shape[1] // backbone.patch) * (images.shape[2] // backbone.patch)
        context, target, _ = cut(rng, images)
        only = lambda at: masking.cover(images, ~jax.vmap(lambda a: jnp.zeros(patches, bool).at[a].set(True))(at),
                                        backbone.patch)  # fmt: skip
        return {"blocks": jnp.stack([images, only(context), *(only(target[:, m]) for m in range(targets))], axis=1)}

    schedule = linear(momentum, final_momentum, clock)
    return Method(init, loss, teacher=("backbone",), momentum=schedule, show=show, min_batch=2,
                  curves={"teacher_momentum": schedule})  # fmt: skip
