"""Colorization: from lightness alone, tell the colour of every fourth pixel, among 313 bins of the plane of a and b.

Paper: Zhang et al. 2016, https://arxiv.org/abs/1603.08511, Sec. 2
Code:  https://github.com/richzhang/colorization (caffe branch), resources/caffe_traininglayers.py
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange

from jax_ssl import bounds, losses
from jax_ssl.core import Method, Task, one_view
from jax_ssl.errors import UserError
from jax_ssl.models import apply, colouring
from jax_ssl.models.input_stage import Grey
from jax_ssl.models.lab import lab_to_rgb, rgb_to_lab

STRIDE = 4  # pixels from one point whose colour is told to the next
UNIT = 20.0  # of a and b, as regression tells them: about their deviation
GREY = 3  # levels of 255 between the channels of a pixel, at most, that JPEG leaves in a grey image


class Net(nn.Module):
    """images (B, S, S, 3) in [0, 1] -> scores (B, S / 4, S / 4, K), from their lightness alone."""

    backbone: nn.Module
    decoder: nn.Module

    def __call__(self, images, train: bool = False):
        patches = self.backbone(images, train).patches
        places = rearrange(patches, "b (h w) d -> b h w d", h=round(patches.shape[1] ** 0.5))
        return self.decoder(places, images.shape[1] // STRIDE)


def input_stage(backbone, *, lightness_unit=1.0, **_):
    """The network sees grey images, when it is trained and when it is read."""
    return Grey(backbone, lightness_unit)


def look(images) -> None:
    """Raises UserError for training images, uint8 (n, H, W, 3), that are all grey."""
    if np.max(np.ptp(images.astype(np.int16), axis=-1)) <= GREY:
        raise UserError("All training images are grey, and colorization learns from colours: take another data.name.")


def make(backbone, clock, *, objective="classes", bins="official", neighbours=10, sigma=5.0, rebalance=1.0,
         uniform=0.5, target="nearest", decoder=(256, 256, 256), lightness_unit=1.0, temperature=0.38) -> Method:  # fmt: skip
    """objective: `classes`, or `regression` of a and b by their squared error. bins: `official`, 313, or `gamut`, the
    261 that some colour is nearest to. neighbours, sigma: of a soft code. rebalance: power by which a bin's gradient
    grows with its rarity in the training images; 0 = all alike; uniform: share of an even prior beside the true one.
    target: colours at `nearest` pixels, or the `mean` of squares. decoder: see `Colourer`. lightness_unit: L is
    divided by it. temperature: of the annealed mean that pictures show.
    """
    bounds.one_of("method.", dict(objective=objective), ("classes", "regression"))
    bounds.one_of("method.", dict(bins=bins), losses.COLOUR_BINS)
    bounds.one_of("method.", dict(target=target), ("nearest", "mean"))
    bounds.whole("method.", dict(neighbours=neighbours, decoder=tuple(decoder)))
    bounds.bounded("method.", dict(sigma=sigma, temperature=temperature, lightness_unit=lightness_unit), above=0)
    bounds.bounded("method.", dict(rebalance=rebalance), at_least=0)
    bounds.bounded("method.", dict(uniform=uniform), at_least=0, at_most=1)
    classes, centres = objective == "classes", losses.colour_bins(bins)
    outputs = len(centres) if classes else 2
    net = Net(input_stage(backbone, lightness_unit=lightness_unit), colouring.Colourer(tuple(decoder), outputs))

    def points(images):
        """L (B, h, w), and a and b (B, h, w, 2), at the points whose colour is told."""
        lab = rgb_to_lab(images)
        if target == "mean":
            lab = rearrange(lab, "b (h p) (w q) c -> b h w (p q) c", p=STRIDE, q=STRIDE).mean(3)
        else:
            lab = lab[:, ::STRIDE, ::STRIDE]
        return lab[..., 0], lab[..., 1:]

    def encode(ab):
        return losses.colour_code(ab, centres, neighbours, sigma)

    @jax.jit
    def count(images):
        """How many points of images, uint8 (n, S, S, 3), have each bin as their nearest: float32 (K,)."""
        nearest = losses.nearest_bin(points(images.astype(jnp.float32) / 255)[1], centres)
        return jnp.bincount(nearest.reshape(-1), length=len(centres)).astype(jnp.float32)

    def weights(state, power):
        counts = state.extra["counts"]  # zero until the images are counted: then all bins are alike
        return losses.colour_weights(losses.smooth_prior(counts + (counts.sum() == 0), centres, sigma), uniform, power)

    def init(rng, batch):
        images = one_view(batch)
        if images.shape[1] % STRIDE:
            raise UserError(f"Colours are told for every 4th pixel: {images.shape[1]} pixels are no multiple of 4.")
        params, stats = apply.init(net, rng, images)
        return params, {"stats": stats, "counts": jnp.zeros(len(centres))}

    def loss(params, state, batch, rng):
        images = batch["views"][:, 0]
        scores, stats = apply.train(net, params, state.extra["stats"], images, rng=rng)
        ab, extra = points(images)[1], state.extra | {"stats": stats}
        if not classes:
            error = jnp.square(scores - ab / UNIT).sum(-1) / 2
            return jnp.mean(error), (extra, {"uniform_loss": jnp.mean(jnp.square(ab / UNIT).sum(-1)) / 2})
        code = encode(ab) * losses.colourful(ab)[:, None, None, None]
        metrics = {"uniform_loss": jnp.log(float(outputs)), "cross_entropy": losses.colorization(scores, code)}
        value = losses.colorization(scores, code, weights(state, rebalance)) if rebalance else metrics["cross_entropy"]
        return value, (extra, metrics)

    def colours(scores, temperature):
        return losses.annealed_mean(scores, centres, temperature) if classes else scores * UNIT

    def tell(params, state, images):
        return net.apply({"params": params, **state.extra["stats"]}, images)

    def errors(scores, ab, rarity):
        """Of scores as this method gives them: the means that `colouring.summary` makes numbers of."""
        found = colouring.colour_errors(colours(scores, 1.0), ab, rarity)
        return found | ({"cross_entropy": losses.colorization(scores, encode(ab))} if classes else {})

    def measure(params, state, batch, rng):
        images = batch["views"][:, 0]
        ab = points(images)[1]
        rarity = weights(state, 1.0)[losses.nearest_bin(ab, centres)]
        return errors(tell(params, state, images), ab, rarity)

    def show(params, state, batch, rng):
        """Columns: what the network sees, the mean colours, the annealed mean (of classes), and the truth."""
        images = batch["views"][:8, 0]
        lightness, scores = rgb_to_lab(images)[..., :1], tell(params, state, images)
        whole = lambda ab: lab_to_rgb(jnp.concatenate([lightness, jax.image.resize(ab, (*images.shape[:3], 2), "linear")], -1))
        warm = [colours(scores, t) for t in ((1.0, temperature) if classes else (1.0,))]
        columns = [whole(jnp.zeros_like(warm[0])), *map(whole, warm), images]
        return {"colouring": jnp.stack(columns, axis=1)}
