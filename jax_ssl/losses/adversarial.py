"""Filling a hole: the squared error of what is painted, and a critic that tells paintings from photographs.

Pathak et al. 2016, https://arxiv.org/abs/1604.07379; official code https://github.com/pathak22/context-encoder,
train.lua and train_random.lua.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax.lax import stop_gradient

BORDER_WEIGHT = 10.0  # of pixels that the network sees and paints again


def hole_weight(size: int, overlap: int, border: float = BORDER_WEIGHT) -> np.ndarray:
    """How much each pixel of a square painting counts: `border` where it overlaps what is seen, else 1. (size, size)"""
    weight = np.full((size, size), border, np.float32)
    weight[overlap : size - overlap, overlap : size - overlap] = 1.0
    return weight


def reconstruction(prediction, target, weight):
    """Mean of weight times the squared error; (B, h, w, C) twice, weight (h, w) or (B, h, w). Returns a fp32 scalar.

    Officially the weight multiplies the gradient, and the error that is printed is the one without it.
    """
    error = jnp.square(prediction.astype(jnp.float32) - target.astype(jnp.float32))
    return jnp.mean(jnp.asarray(weight, jnp.float32)[..., None] * error)


def binary_cross_entropy(logits, real: bool):
    """Mean of -log sigmoid(logits) if they should say `real`, or of -log(1 - sigmoid(logits)). A fp32 scalar."""
    logits = logits.astype(jnp.float32)
    return jnp.mean(jax.nn.softplus(-logits if real else logits))


def critic(real, fake):
    """What the critic minimises: real logits should say real, fake ones fake. Any shapes. Returns a fp32 scalar."""
    return binary_cross_entropy(real, True) + binary_cross_entropy(fake, False)


def context_encoder(prediction, target, weight, fake, share=0.999):
    """What the painter minimises: `share` of the squared error, and the rest of being taken for real by the critic.

    prediction, target: (B, h, w, C); weight: as of `reconstruction`; fake: the critic's logits of the prediction. For
    share 1 it is the squared error alone. Returns a fp32 scalar.
    """
    return share * reconstruction(prediction, target, weight) + (1 - share) * binary_cross_entropy(fake, True)


def adversarial_game(judge: Callable, params, state, painted, target, weight, share=0.999):
    """Both players' losses in one scalar, with each player's own gradient: (fp32 loss, {name: part}, new state).

    judge(params, state, images) -> (logits, new state): the critic. painted: (B, h, w, C), from the painter, whose
    gradient comes through it; target: the true pixels; weight, share: as of `context_encoder`.

    Two stop-gradients part the players: the painter plays against the critic as it stands, and the critic judges the
    painting as it lies there. So one gradient of the sum is the gradient of each at the old parameters of both: the
    simultaneous game, which two optimisers play that step at once. (The official code steps the critic first.)
    Real and painted images are judged apart, as batches of their own, and the critic's state, its batch statistics,
    sees the real ones first.
    """
    real, state = judge(params, state, target)
    fake, new_state = judge(params, state, stop_gradient(painted))
    fooled, _ = judge(stop_gradient(params), state, painted)
    ours, theirs = context_encoder(painted, target, weight, fooled, share), critic(real, fake)
    parts = {
        "critic_loss": theirs,
        "adversarial_loss": binary_cross_entropy(fooled, True),
        "critic_right": (jnp.mean(real > 0) + jnp.mean(fake <= 0)) / 2,
    }
    return ours + theirs, parts, new_state
