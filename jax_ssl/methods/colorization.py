"""Colorization: from lightness alone, tell the colour of every fourth pixel, among 313 bins of the plane of a and b.

Paper: Zhang et al. 2016, https://arxiv.org/abs/1603.08511, Sec. 2
Code:  https://github.com/richzhang/colorization (caffe branch), resources/caffe_traininglayers.py
"""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange

from jax_ssl import bounds, losses
from jax_ssl.core import Method, Task, one_view
from jax_ssl.errors import UserError
from jax_ssl.models import apply, palette
from jax_ssl.models.colouring import Colourer
from jax_ssl.models.input_stage import Grey
from jax_ssl.models.lab import lab_to_rgb, rgb_to_lab

UNIT = 20.0  # of a and b, as regression tells them: about their deviation
GREY = 8  # levels of 255 between the channels of a pixel, at most, that JPEG leaves in a grey image


class Net(nn.Module):
    """images (B, S, S, 3) in [0, 1] -> scores (B, S / 4, S / 4, K), from their lightness alone."""

    backbone: nn.Module
    decoder: nn.Module

    def __call__(self, images, train: bool = False):
        patches = self.backbone(images, train).patches
        places = rearrange(patches, "b (h w) d -> b h w d", h=round(patches.shape[1] ** 0.5))
        return self.decoder(places, images.shape[1] // palette.STRIDE)


def input_stage(backbone, *, lightness_unit=1.0, **_):
    """The network sees grey images, when it is trained and when it is read."""
    return Grey(backbone, lightness_unit)


def look(images: np.ndarray) -> None:
    """Raises UserError for training images, uint8 (n, H, W, 3), that are all grey."""
    if np.ptp(images.astype(np.int16), axis=-1).max() <= GREY:
        raise UserError("These images are all grey, and colorization learns from colours: name others in data.name.")


def make(backbone, clock, *, objective="classes", bins="official", neighbours=10, sigma=5.0, rebalance=1.0, uniform=0.5,
         target="nearest", decoder=(256, 256, 256), lightness_unit=1.0, temperature=0.38) -> Method:  # fmt: skip
    """objective: `classes`, or `regression` of a and b by their squared error. bins: `official`, 313, or `gamut`, the
    261 that some colour is nearest to. neighbours, sigma: of a soft code. rebalance: power by which a bin's gradient
    grows with its rarity in the training images; 0 = all alike; uniform: share of an even prior beside the true one.
    target: colours at the `nearest` pixel, or the `mean` of 4 x 4. decoder: widths, see `Colourer`. lightness_unit: L
    is divided by it. temperature: of the annealed mean that pictures show.
    """
    bounds.one_of("method.", dict(objective=objective), ("classes", "regression"))
    bounds.one_of("method.", dict(bins=bins), losses.COLOUR_BINS)
    bounds.one_of("method.", dict(target=target), ("nearest", "mean"))
    bounds.whole("method.", dict(neighbours=neighbours, decoder=tuple(decoder)))
    bounds.bounded("method.", dict(sigma=sigma, temperature=temperature, lightness_unit=lightness_unit), above=0)
    bounds.bounded("method.", dict(rebalance=rebalance), at_least=0)
    bounds.bounded("method.", dict(uniform=uniform), at_least=0, at_most=1)
    classes, centres = objective == "classes", losses.colour_bins(bins)
    colours = palette.Palette(centres, neighbours, sigma, uniform, temperature, target == "mean")
    outputs = len(centres) if classes else 2
    net = Net(input_stage(backbone, lightness_unit=lightness_unit), Colourer(tuple(decoder), outputs, backbone.dtype))

    def init(rng, batch):
        images = one_view(batch)
        if images.shape[1] % palette.STRIDE:
            raise UserError(
                f"Every 4th pixel has its colour told, and {images.shape[1]} pixels are no multiple of 4: change the "
                "size in data.crops."
            )
        params, stats = apply.init(net, rng, images)
        return params, {"stats": stats, "counts": jnp.zeros(len(centres))}

    def loss(params, state, batch, rng):
        images = batch["views"][:, 0]
        scores, stats = apply.train(net, params, state.extra["stats"], images, rng=rng)
        ab, extra = colours.points(images)[1], state.extra | {"stats": stats}
        if not classes:
            error = lambda told: jnp.mean(jnp.sum(jnp.square(told - ab / UNIT), axis=-1)) / 2
            return error(scores), (extra, {"uniform_loss": error(0.0)})
        code = colours.code(ab) * losses.colourful(ab)[:, None, None, None]
        metrics = {"uniform_loss": jnp.log(float(outputs)), "cross_entropy": losses.colorization(scores, code)}
        weights = colours.weights(extra["counts"], rebalance) if rebalance else None
        return losses.colorization(scores, code, weights), (extra, metrics)

    def tell(params, state, images):
        """The network's scores, and the mean and the annealed mean colours that they stand for, (B, h, w, 2)."""
        scores = net.apply({"params": params, **state.extra["stats"]}, images)
        if not classes:
            return scores, scores * UNIT, scores * UNIT
        return scores, *(losses.annealed_mean(scores, centres, t) for t in (1.0, temperature))

    def measure(params, state, batch, rng):
        images, counts = batch["views"][:, 0], state.extra["counts"]
        ab, (scores, mean, annealed) = colours.points(images)[1], tell(params, state, images)
        return colours.score(scores, ab, counts) if classes else colours.errors(mean, annealed, ab, counts)

    def show(params, state, batch, rng):
        """Columns: what the network sees, its mean colours, the annealed mean (of classes), and the truth."""
        images = batch["views"][:8, 0]
        _, mean, annealed = tell(params, state, images)

        def whole(ab):
            large = jax.image.resize(ab, (*images.shape[:3], 2), "linear")
            return lab_to_rgb(jnp.concatenate([rgb_to_lab(images)[..., :1], large], -1))

        told = [jnp.zeros_like(mean), mean] + [annealed] * classes
        return {"colouring": jnp.stack([*map(whole, told), images], axis=1)}

    chance = {"cross_entropy": math.log(outputs)} if classes else {}
    metric = ("auc_rebalanced" if rebalance else "cross_entropy") if classes else "rmse"
    better = "higher" if metric == "auc_rebalanced" else "lower"
    soft = dict(bins=bins, neighbours=neighbours, sigma=sigma, uniform=uniform)
    protocol = soft | dict(target=target, temperature=temperature)
    task = Task(measure, metric, better, chance, palette.baselines(colours), palette.summary, protocol)
    count = lambda images: colours.count(images.astype(jnp.float32) / 255)
    return Method(init, loss, show=show, per_image=True, task=task, pixels=(0, 1), look=look, tallies={"counts": count})
