"""BEiT: hide blocks of patches and predict the code that a tokenizer gives to each of them.

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
from jax_ssl.weights.tokenizer import Tokenizer, is_run, load_tokenizer, without_weights


class Net(nn.Module):
    """images, mask of hidden patches (B, N), bool, and their indices (B, M), int -> scores of their codes (B, M, K)."""

    backbone: nn.Module
    vocabulary: int

    @nn.compact
    def __call__(self, images, hidden, places, train: bool = False):
        patches = self.backbone(images, train, mask=hidden).patches
        chosen = jnp.take_along_axis(patches, places[..., None], axis=1)  # the head gets the hidden patches only
        return Dense(self.vocabulary, kernel_init=cut_normal, precision=Precision.HIGHEST, name="head")(chosen)


def resize(pixels, side):
    """Pixels (B, H, W, 3) in [0, 1] at another resolution, by Lanczos as in the official code, which uses PIL."""
    if pixels.shape[1:3] == tuple(side):
        return pixels
    # Lanczos overshoots at edges; 8-bit images cannot.
    return jnp.clip(jax.image.resize(pixels, (len(pixels), *side, 3), "lanczos3"), 0, 1)


def own_tokenizer(mean, std, *, temperature, final_temperature, **network) -> Tokenizer:
    """The tokenizer of `method.beside`, on images normalised alike, to be trained together with the transformer."""
    try:
        encoder = dvae.make(**network)
    except UserError as error:  # its keys are those of a tokenizer in a run of its own
        raise UserError(str(error).replace("model.", "method.beside.")) from None
    return without_weights(dvae.DVae(encoder), mean, std)


def make(backbone, clock, planned=False, *, tokenizer, beside, mask_ratio=0.383, mean=(0.5,) * 3,
         std=(0.5,) * 3) -> Method:  # fmt: skip
    """tokenizer: the folder of a run of method dvae. Its codes are the targets; it is frozen.

    "" = one with the settings `beside` is trained together with the transformer, by its loss on the same images, for
    a first try in one command. mean, std: data.mean and data.std, as the tokenizer may use another normalisation.
    planned: no setting; a plan says so. A tokenizer yet to be trained then has the shapes of `beside`.
    """
    if not hasattr(backbone, "patch") or not hasattr(backbone, "depth"):
        raise UserError("BEiT hides patches of a transformer: set model.name='vit'.")
    bounds.bounded("method.", dict(mask_ratio=mask_ratio), above=0, below=1)
    bounds.bounded("method.", dict(std=std), above=0)
    temperatures = dict(temperature=beside["temperature"], final_temperature=beside["final_temperature"])
    bounds.bounded("method.beside.", temperatures, above=0)
    own = not tokenizer or (planned and not is_run(tokenizer))
    teacher = own_tokenizer(mean, std, **beside) if own else load_tokenizer(tokenizer)
    patch, stride, vocabulary = backbone.patch, teacher.net.backbone.stride, teacher.net.backbone.vocabulary
    if stride > patch:
        raise UserError(
            f"A code of the tokenizer covers {stride} x {stride} pixels, and model.patch={patch}: an image of "
            f"{stride * patch} pixels has {stride} x {stride} patches and only {patch} x {patch} codes; train a "
            f"tokenizer with fewer model.groups, or set a larger model.patch."
        )
    net = Net(backbone, vocabulary)
    mean, std, own_mean, own_std = (np.asarray(x, np.float32) for x in (mean, std, teacher.mean, teacher.std))
    temperature = cosine(*temperatures.values(), clock)

    def hide(rng, images):
        grid = (images.shape[1] // patch, images.shape[2] // patch)
        count = max(1, int(mask_ratio * grid[0] * grid[1]))
        masking.check_hidden(count, grid, f"method.mask_ratio={mask_ratio}")
        places, _, visible = masking.split(-masking.block_scores(rng, len(images), grid, count), count)
        return visible == 0, places

    def tokenizer_input(images):
        """The images as the tokenizer takes them, at the resolution at which a code covers a patch."""
        pixels = resize(images * std + mean, [side // patch * stride for side in images.shape[1:3]])
        return (pixels - own_mean) / own_std

    def init(rng, batch):
        images = one_view(batch)
        params, stats = apply.init(net, rng, images, *hide(rng, images))
        params |= {"backbone": rescale_residuals(params["backbone"])}
        if tokenizer:
            return params, {"stats": stats, "tokenizer": jax.tree.map(jnp.asarray, teacher.params())}
        tokenizer_params = teacher.net.init(rng, tokenizer_input(images), rng, 1.0)["params"]
        return params | {"tokenizer": tokenizer_params}, {"stats": stats}

    def predict(params, state, images, rng):
        hidden, places = hide(jax.random.fold_in(rng, 0), images)
        trained = {name: params[name] for name in ("backbone", "head")}
        drop_path = jax.random.fold_in(rng, 1)
        scores, _ = apply.train(net, trained, state.extra["stats"], images, hidden, places, rng=drop_path)
        return scores, hidden, places

    def loss(params, state, batch, rng):
        images = batch["views"][:, 0]
        scores, _, places = predict(params, state, images, rng)
        if tokenizer:
            logits = teacher.net.apply({"params": state.extra["tokenizer"]}, tokenizer_input(images), method="logits")
            error = 0.0
        else:
            inputs, draw = tokenizer_input(images), jax.random.fold_in(rng, 2)
            logits, decoded = teacher.net.apply({"params": params["tokenizer"]}, inputs, draw, temperature(state.step))
            error = losses.dvae(decoded, inputs, logits, 0.0)
        codes = jnp.argmax(stop_gradient(logits), axis=-1)
        targets = jnp.take_along_axis(codes, places, axis=1)
        code_loss = losses.beit(scores, targets)
        use = jnp.bincount(codes.reshape(-1), length=vocabulary) / codes.size
        metrics = {
            "code_loss": code_loss,
            "code_accuracy": jnp.mean(jnp.argmax(scores, axis=-1) == targets),
            "uniform_loss": jnp.log(float(vocabulary)) + error,
            "prototype_use": prototype_use(use[None])["prototype_use"],
        }
        return code_loss + error, (state.extra, metrics)

    def show(params, state, batch, rng):
        """Four columns: the image, its visible patches, and the holes filled by the predicted and the true codes."""
        images = batch["views"][:8, 0]
        scores, hidden, places = predict(params, state, images, rng)
        variables = {"params": state.extra["tokenizer"] if tokenizer else params["tokenizer"]}
        true_codes = jnp.argmax(teacher.net.apply(variables, tokenizer_input(images), method="logits"), axis=-1)
        predicted_codes = true_codes.at[jnp.arange(len(images))[:, None], places].set(jnp.argmax(scores, axis=-1))
        rows = images.shape[1] // patch
        holes = losses.unpatchify(hidden[..., None].repeat(patch**2 * 3, axis=-1), patch, rows)

        def fill(codes):
            decoded = teacher.net.apply(variables, codes, rows, method="paint") * own_std + own_mean
            decoded = jax.image.resize(decoded, images.shape, "nearest")
            return jnp.where(holes, (decoded - mean) / std, images)

        columns = [images, jnp.where(holes, 0, images), fill(predicted_codes), fill(true_codes)]
        return {"reconstruction": jnp.stack(columns, axis=1)}

    curves = {} if tokenizer else {"tokenizer_temperature": temperature}
    return Method(init, loss, show=show, per_image=True, curves=curves)
