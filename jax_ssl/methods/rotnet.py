"""RotNet: turn an image by 0, 90, 180 and 270 degrees, and ask which way is up.

Paper: Gidaris et al. 2018, https://arxiv.org/abs/1803.07728, Eq. 2
Code:  https://github.com/gidariss/FeatureLearningRotNet, dataloader.py, algorithms/ClassificationModel.py
"""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
from einops import rearrange

from jax_ssl import bounds
from jax_ssl.core import Method, Task, linear_baseline, one_view
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


def turned_first(images, rng):
    """All four turns in the order that VISSL has, before the crop, so that borders give the answer away.

    Shapes as of `rotations`. The middle three quarters of the rows stand for a picture of 4:3. Turned by 90 or 270
    degrees, such a picture leaves bars of its frame empty; here they have the mean colour. A random part of the frame,
    at least half of it, is then made square.
    """
    side = images.shape[1]
    band = slice(side // 8, side - side // 8)
    picture = jnp.zeros_like(images).at[:, band].set(images[:, band])
    frames = rotations(picture)[:, band]
    area, top, left = jax.random.uniform(rng, (3, len(frames)))
    length = jnp.sqrt(0.5 + 0.5 * area)[:, None] * jnp.array(frames.shape[1:3])
    corner = jnp.stack([top, left], 1) * (jnp.array(frames.shape[1:3]) - length)

    def crop(frame, corner, length):
        scale = side / length
        shape = (side, side, frame.shape[-1])
        return jax.image.scale_and_translate(frame, shape, (0, 1), scale, -corner * scale, "linear")

    return jax.vmap(crop)(frames, corner, length)


def answers(count: int):
    """The turns of `count` images from `rotations`: int32 (count,)."""
    return jnp.arange(count) % TURNS


def pixels(turn, batch, rng):
    """The pixels of images turned by `turn`, made small, and the answers: (4 B, pixels) and int32 (4 B,)."""
    turned = turn(batch["views"][:, 0], rng)
    side = min(turned.shape[1], BASELINE_SIDE)
    small = jax.image.resize(turned, (len(turned), side, side, 3), "linear")
    return small.reshape(len(small), -1), answers(len(small))


def make(backbone, clock, *, head=(), whole_map=False, turned="last") -> Method:
    """head: widths of hidden layers between the features and the four scores. whole_map: the head reads the map.

    turned: `last`, behind crop and resize; `first` gives the answer away, as the suite `turned` of `ablate` shows.
    """
    bounds.whole("method.", dict(head=tuple(head)))
    bounds.one_of("method.", dict(turned=turned), ("last", "first"))
    turn = turned_first if turned == "first" else lambda images, rng: rotations(images)
    groups = getattr(backbone, "norm_groups", 1)
    net = Net(backbone, Mlp((*head, TURNS), norm=True, norm_groups=groups), whole_map)

    def init(rng, batch):
        params, stats = apply.init(net, rng, rotations(one_view(batch)))
        return params, {"stats": stats}

    def loss(params, state, batch, rng):
        images = turn(batch["views"][:, 0], rng)
        (scores, pooled), stats = apply.train(net, params, state.extra["stats"], images, rng=rng)
        turns = answers(len(images))
        metrics = {
            "uniform_loss": jnp.log(float(TURNS)),
            "turns_right": jnp.mean(jnp.argmax(scores, -1) == turns),
            "feature_std": feature_std(pooled),
        }
        return label_cross_entropy(scores, turns), ({"stats": stats}, metrics)

    def answer(params, state, images, rng):
        """The turned images, and what the network answers: (4 B, S, S, 3) and int32 (4 B,)."""
        images = turn(images, rng)
        scores, _ = net.apply({"params": params, **state.extra["stats"]}, images)
        return images, jnp.argmax(scores, -1)

    def measure(params, state, batch, rng):
        _, said = answer(params, state, batch["views"][:, 0], rng)
        return {"accuracy": jnp.mean(said == answers(len(said)))}

    def show(params, state, batch, rng):
        """Columns: the image in its four turns, and each turned back by the answer, upright where that was right."""
        images, said = answer(params, state, batch["views"][:8, 0], rng)
        back = jax.vmap(lambda image, turns: rotations(image[None])[-turns % TURNS])(images, said)
        rows = lambda x: rearrange(x, "(b r) ... -> b r ...", r=TURNS)
        both = jnp.concatenate([rows(images), rows(back)], axis=1)
        return {"rotations": both, "right": rows(said == answers(len(said)))}

    baselines = {"linear on pixels": linear_baseline(partial(pixels, turn), TURNS)}
    task = Task(measure, chance={"accuracy": 1 / TURNS}, baselines=baselines, protocol=dict(turned=turned))
    return Method(init, loss, show=show, per_image=True, task=task)
