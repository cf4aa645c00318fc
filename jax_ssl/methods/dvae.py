"""dVAE: encode an image as a grid of discrete codes and decode it again; BEiT's tokenizer.

Paper: Ramesh et al. 2021, https://arxiv.org/abs/2102.12092, Sec. 2.1 (stage one of DALL-E)
Code:  https://github.com/openai/DALL-E, and https://github.com/microsoft/unilm, beit/modeling_discrete_vae.py
"""

import jax.numpy as jnp

from jax_ssl import bounds, losses
from jax_ssl.core import Method, one_view
from jax_ssl.errors import UserError
from jax_ssl.losses.diagnostics import prototype_use
from jax_ssl.models.dvae import DVae, Encoder
from jax_ssl.optim.schedules import cosine


def make(backbone, clock, *, temperature=1.0, final_temperature=0.0625, kl_weight=0.0) -> Method:
    """temperature: of the relaxed (Gumbel-softmax) sampling of codes, along a cosine to `final_temperature`.

    kl_weight: weight of the codes' KL divergence from a uniform distribution, in nats; see `losses.dvae`.
    """
    if not isinstance(backbone, Encoder):
        raise UserError("method.name=dvae needs model.name='dvae': its decoder mirrors that encoder.")
    bounds.bounded("method.", dict(temperature=temperature, final_temperature=final_temperature), above=0)
    bounds.bounded("method.", dict(kl_weight=kl_weight), at_least=0)
    net, vocabulary = DVae(backbone), backbone.vocabulary
    code_temperature = cosine(temperature, final_temperature, clock)

    def init(rng, batch):
        return net.init(rng, one_view(batch), rng, 1.0)["params"], {"stats": {}}

    def loss(params, state, batch, rng):
        images = batch["views"][:, 0]
        logits, decoded = net.apply({"params": params}, images, rng, code_temperature(state.step))
        use = jnp.bincount(jnp.argmax(logits, axis=-1).reshape(-1), length=vocabulary) / logits[..., 0].size
        metrics = {
            "reconstruction": losses.dvae(decoded, images, logits, 0.0),
            # The best loss of an output that ignores the image: one colour for all.
            "uniform_loss": jnp.mean(jnp.var(images, axis=(0, 1, 2))),
            "prototype_use": prototype_use(use[None])["prototype_use"],
        }
        return losses.dvae(decoded, images, logits, kl_weight), ({"stats": {}}, metrics)

    def show(params, state, batch, rng):
        """Two columns: the image, and the image decoded from its likeliest codes."""
        images = batch["views"][:8, 0]
        codes = jnp.argmax(net.apply({"params": params}, images, method="logits"), axis=-1)
        decoded = net.apply({"params": params}, codes, net.rows(images), method="paint")
        return {"reconstruction": jnp.stack([images, decoded], axis=1)}

    return Method(init, loss, show=show, per_image=True, curves={"code_temperature": code_temperature})
