"""RotNet: turn an image by 0, 90, 180 and 270 degrees, and ask which way is up.

Paper: Gidaris et al. 2018, https://arxiv.org/abs/1803.07728, Eq. 2
Code:  https://github.com/gidariss/FeatureLearningRotNet, dataloader.py, algorithms/ClassificationModel.py
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
from einops import rearrange

from jax_ssl import bounds
from jax_ssl.core import Method, Task, one_view
from jax_ssl.losses import label_cross_entropy
from jax_ssl.losses.diagnostics import feature_std
from jax_ssl.models import apply
from jax_ssl.models.heads import Mlp

TURNS = 4
BASELINE_SIDE = 32  # pixels of the images that the linear baseline sees


class Net(nn.Module):
    """images (B, H, W, 3) -> (scores of the four turns (B, 4), pooled features (B, D))."""

    backbone: nn.Module
    projector: nn.Module
    whole_map: bool  # does the head read all places of the last map, or their mean?

    def __call__(self, images, train: bool = False):
        features = self.backbone(images, train)
        read = rearrange(features.patches, "b n d -> b (n d)") if self.whole_map else features.pooled
        return self.projector(read, train), features.pooled


def rotations(images):
    """All four turns of square images, neighbours in one batch: (B, S, S, C) -> (4 B, S, S, C).

    Counter-clockwise, by transposing and mirroring alone: interpolation and borders would give the answer away.
    """
    return rearrange(jnp.stack([jnp.rot90(images, turn, (1, 2)) for turn in range(TURNS)], 1), "b r ... -> (b r) ...")


def answers(count: int):
    """The turns of `count` images from `rotations`: int32 (count,)."""
    return jnp.arange(count) % TURNS


def on_pixels(batches, rng, linear):
    """The baseline: a linear model of the pixels of turned images, made small."""

    def puzzle(batch):
        images = batch["views"][:, 0]
        side = min(images.shape[1], BASELINE_SIDE)
        turned = rotations(jax.image.resize(images, (len(images), side, side, 3), "linear"))
        return turned.reshape(len(turned), -1), answers(len(turned))

    pixels, turns = (jnp.concatenate(parts) for parts in zip(*map(puzzle, batches)))
    predict = linear(pixels, turns, TURNS)

    def measure(batch, rng):
        pixels, turns = puzzle(batch)
        return {"accuracy": jnp.mean(predict(pixels) == turns)}

    return measure


def make(backbone, clock, *, head=(), whole_map=False) -> Method:
    """head: widths of hidden layers between the features and the four scores. whole_map: the head reads the map."""
    bounds.whole("method.", dict(head=tuple(head)))
    groups = getattr(backbone, "norm_groups", 1)
    net = Net(backbone, Mlp((*head, TURNS), norm=True, norm_groups=groups), whole_map)

    def init(rng, batch):
        params, stats = apply.init(net, rng, rotations(one_view(batch)))
        return params, {"stats": stats}

    def loss(params, state, batch, rng):
        turned = rotations(batch["views"][:, 0])
        (scores, pooled), stats = apply.train(net, params, state.extra["stats"], turned, rng=rng)
        turns = answers(len(turned))
        metrics = {
            "uniform_loss": jnp.log(float(TURNS)),
            "turns_right": jnp.mean(jnp.argmax(scores, -1) == turns),
            "feature_std": feature_std(pooled),
        }
        return label_cross_entropy(scores, turns), ({"stats": stats}, metrics)

    def answer(params, state, images):
        """The turned images, and what the network answers: (4 B, S, S, 3) and int32 (4 B,)."""
        turned = rotations(images)
        scores, _ = net.apply({"params": params, **state.extra["stats"]}, turned)
        return turned, jnp.argmax(scores, -1)

    def measure(params, state, batch, rng):
        turned, said = answer(params, state, batch["views"][:, 0])
        return {"accuracy": jnp.mean(said == answers(len(turned)))}

    def show(params, state, batch, rng):
        """Columns: the image in its four turns, and each turned back by the answer, upright where that was right."""
        turned, said = answer(params, state, batch["views"][:8, 0])
        back = jax.vmap(lambda image, turn: rotations(image[None])[-turn % TURNS])(turned, said)
        rows = lambda x: rearrange(x, "(b r) ... -> b r ...", r=TURNS)
        both = jnp.concatenate([rows(turned), rows(back)], axis=1)
        return {"rotations": both, "right": rows(said == answers(len(said)))}

    task = Task(measure, chance={"accuracy": 1 / TURNS}, baselines={"linear on pixels": on_pixels})
    return Method(init, loss, show=show, per_image=True, task=task)
