"""BEiT: hide blocks of patches and tell, of each, which code of a vocabulary a tokenizer gives it.

Paper: Bao et al. 2022, https://arxiv.org/abs/2106.08254
Code:  https://github.com/microsoft/unilm, beit/modeling_pretrain.py, engine_for_pretraining.py
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.lax import Precision, stop_gradient

from jax_ssl import bounds, losses, masking
from jax_ssl.core import Method, one_view
from jax_ssl.errors import UserError
from jax_ssl.losses.diagnostics import prototype_use
from jax_ssl.models import apply, dvae
from jax_ssl.models.dense import Dense
from jax_ssl.models.transformer import cut_normal, rescale_residuals
from jax_ssl.optim.schedules import cosine
from jax_ssl.weights.tokenizer import Tokenizer, load_tokenizer


class Net(nn.Module):
    """images, which patches are hidden, bool (B, N), and where, int (B, M) -> scores of their codes (B, M, K)."""

    backbone: nn.Module
    vocabulary: int

    @nn.compact
    def __call__(self, images, hidden, places, train: bool = False):
        patches = self.backbone(images, train, mask=hidden).patches
        chosen = jnp.take_along_axis(patches, places[..., None], axis=1)  # the head sees no others
        return Dense(self.vocabulary, kernel_init=cut_normal, precision=Precision.HIGHEST, name="head")(chosen)


def resized(pixels, side):
    """Pixels (B, H, W, 3) in [0, 1] at another resolution, by Lanczos as the official code takes it from PIL."""
    if pixels.shape[1:3] == tuple(side):
        return pixels
    # It overshoots at edges, where 8-bit images cannot.
    return jnp.clip(jax.image.resize(pixels, (len(pixels), *side, 3), "lanczos3"), 0, 1)


def own_tokenizer(mean, std, *, temperature, final_temperature, **network) -> Tokenizer:
    """One without weights, to be learned beside the transformer on images that are normalised as its are."""
    try:
        encoder = dvae.make(**network)
    except UserError as error:  # which calls the settings as those of a tokenizer that is trained for itself
        raise UserError(str(error).replace("model.", "method.beside.")) from None
    return Tokenizer(dvae.DVae(encoder), dict, mean, std)


def make(backbone, clock, *, tokenizer, beside, mask_ratio=0.383, mean=(0.5,) * 3, std=(0.5,) * 3) -> Method:
    """tokenizer: the folder of a run of method dvae, whose codes are the targets; frozen.

    "" = one learns beside the transformer, by its own loss on the same images, and its codes of the moment are the
    targets: for a first look from one command; the paper's has learned before. beside: its settings.
    mean, std: how views are normalised, data.mean and data.std: the tokenizer may have learned on others.
    """
    if not hasattr(backbone, "patch") or not hasattr(backbone, "depth"):
        raise UserError("BEiT hides patches of a transformer: set model.name='vit'.")
    bounds.bounded("method.", dict(mask_ratio=mask_ratio), above=0, below=1)
    bounds.bounded("method.", dict(std=std), above=0)
    temperatures = dict(temperature=beside["temperature"], final_temperature=beside["final_temperature"])
    bounds.bounded("method.beside.", temperatures, above=0)
    teacher = load_tokenizer(tokenizer) if tokenizer else own_tokenizer(mean, std, **beside)
    codes = teacher.net.backbone
    patch, stride, vocabulary = backbone.patch, codes.stride, codes.vocabulary
    if stride > patch:
        raise UserError(
            f"A code of the tokenizer covers {stride} x {stride} pixels, and model.patch={patch}: an image of "
            f"{stride * patch} pixels has {stride} x {stride} patches and only {patch} x {patch} codes; train a "
            f"tokenizer with fewer model.groups, or take a larger patch."
        )
    net = Net(backbone, vocabulary)
    mean, std, own_mean, own_std = (np.asarray(x, np.float32) for x in (mean, std, teacher.mean, teacher.std))
    warmth = cosine(*temperatures.values(), clock)

    def hide(rng, images):
        grid = (images.shape[1] // patch, images.shape[2] // patch)
        count = max(1, int(mask_ratio * grid[0] * grid[1]))
        masking.check_hidden(count, grid, f"method.mask_ratio={mask_ratio}")
        places, _, shown = masking.split(-masking.block_scores(rng, len(images), grid, count), count)
        return shown == 0, places

    def readable(images):
        """The images as the tokenizer takes them, at the resolution at which a code covers a patch."""
        pixels = resized(images * std + mean, [side // patch * stride for side in images.shape[1:3]])
        return (pixels - own_mean) / own_std

    def init(rng, batch):
        images = one_view(batch)
        params, stats = apply.init(net, rng, images, *hide(rng, images))
        params |= {"backbone": rescale_residuals(params["backbone"])}
        if tokenizer:
            return params, {"stats": stats, "tokenizer": jax.tree.map(jnp.asarray, teacher.params())}
        return params | {"tokenizer": teacher.net.init(rng, readable(images), rng, 1.0)["params"]}, {"stats": stats}

    def predict(params, state, images, rng):
        hidden, places = hide(jax.random.fold_in(rng, 0), images)
        ours = {name: params[name] for name in ("backbone", "head")}
        drop_path = jax.random.fold_in(rng, 1)
        scores, _ = apply.train(net, ours, state.extra["stats"], images, hidden, places, rng=drop_path)
        return scores, hidden, places

    def loss(params, state, batch, rng):
        images = batch["views"][:, 0]
        scores, _, places = predict(params, state, images, rng)
        if tokenizer:
            logits = teacher.net.apply({"params": state.extra["tokenizer"]}, readable(images), method="logits")
            error = 0.0
        else:
            seen, draw = readable(images), jax.random.fold_in(rng, 2)
            logits, painted = teacher.net.apply({"params": params["tokenizer"]}, seen, draw, warmth(state.step))
            error = losses.dvae(painted, seen, logits, 0.0)
        codes = jnp.argmax(stop_gradient(logits), axis=-1)
        wanted = jnp.take_along_axis(codes, places, axis=1)
        told = losses.beit(scores, wanted)
        use = jnp.bincount(codes.reshape(-1), length=vocabulary) / codes.size
        metrics = {
            "code_loss": told,
            "code_accuracy": jnp.mean(jnp.argmax(scores, axis=-1) == wanted),
            "uniform_loss": jnp.log(float(vocabulary)) + error,
            "prototype_use": prototype_use(use[None])["prototype_use"],
        }
        return told + error, (state.extra, metrics)

    def show(params, state, batch, rng):
        """Four columns: the image, what is left of it, the predicted codes painted in the holes, and the right ones."""
        images = batch["views"][:8, 0]
        scores, hidden, places = predict(params, state, images, rng)
        variables = {"params": state.extra["tokenizer"] if tokenizer else params["tokenizer"]}
        right = jnp.argmax(teacher.net.apply(variables, readable(images), method="logits"), axis=-1)
        told = right.at[jnp.arange(len(images))[:, None], places].set(jnp.argmax(scores, axis=-1))
        rows = images.shape[1] // patch
        holes = losses.unpatchify(hidden[..., None].repeat(patch**2 * 3, axis=-1), patch, rows)

        def fill(codes):
            painted = teacher.net.apply(variables, codes, rows, method="paint") * own_std + own_mean
            painted = jax.image.resize(painted, images.shape, "nearest")
            return jnp.where(holes, (painted - mean) / std, images)

        return {"reconstruction": jnp.stack([images, jnp.where(holes, 0, images), fill(told), fill(right)], axis=1)}

    curves = {} if tokenizer else {"tokenizer_temperature": warmth}
    return Method(init, loss, show=show, per_image=True, curves=curves)
