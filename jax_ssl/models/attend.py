"""Softmax attention in float32 that is fast on a CPU as well: heads to the front, each matmul by itself.

XLA's CPU compiler fuses the softmax into the matmul behind it, and turns heads inside of matmuls; both are loops that
take three times as long as the matmuls alone. Barriers keep the steps apart, and the gradient is written out so that
they do in there too. Elsewhere there are no barriers, and compilers fuse as they like: the choice is made when a
program is compiled for a platform, not where it is traced.

Letters: b images, q and k tokens that ask and are asked, h heads, d channels of a head.
"""

from functools import partial

import jax
import jax.numpy as jnp

barrier = jax.lax.optimization_barrier


def no_barrier(x):
    return x


def swap_heads(*arrays):
    """Tokens and heads change places: (b, q, h, d) -> (b, h, q, d), or back."""
    return tuple(x.swapaxes(1, 2) for x in arrays)


def forward(query, key, value, relative, separate):
    """(mixed (b, q, h, d), weights (b, h, q, k))."""
    query, key, value = separate(swap_heads(query, key, value))
    logits = separate(jnp.einsum("bhqd,bhkd->bhqk", query, key)) * query.shape[-1] ** -0.5
    weights = separate(jax.nn.softmax(logits if relative is None else logits + relative))
    mixed = separate(jnp.einsum("bhqk,bhkd->bhqd", weights, value))
    return swap_heads(mixed)[0], weights


def backward(query, key, value, weights, mixed, g, separate):
    """Gradients of query, key and value, and of the logits."""
    query, key, value, mixed, g = separate(swap_heads(query, key, value, mixed, g))
    scale = query.shape[-1] ** -0.5
    to_value = separate(jnp.einsum("bhqk,bhqd->bhkd", weights, g))
    to_weights = separate(jnp.einsum("bhqd,bhkd->bhqk", g, value))
    to_logits = separate(weights * (to_weights - jnp.sum(g * mixed, axis=-1, keepdims=True)))
    to_query = separate(jnp.einsum("bhqk,bhkd->bhqd", to_logits, key * scale))
    to_key = separate(jnp.einsum("bhqk,bhqd->bhkd", to_logits, query * scale))
    return *swap_heads(to_query, to_key, to_value), to_logits


@jax.custom_vjp
def attend(query, key, value, relative):
    """softmax(query key^T / sqrt(d) + relative) value, all float32: (b, q, h, d), (b, k, h, d) twice -> (b, q, h, d).

    relative: None, or what broadcasts to (b, h, q, k).
    """
    return _forward(query, key, value, relative)[0]


def _forward(query, key, value, relative):
    ways = dict(cpu=partial(forward, separate=barrier), default=partial(forward, separate=no_barrier))
    mixed, weights = jax.lax.platform_dependent(query, key, value, relative, **ways)
    return mixed, (query, key, value, relative, weights, mixed)


def _backward(saved, g):
    query, key, value, relative, weights, mixed = saved
    ways = dict(cpu=partial(backward, separate=barrier), default=partial(backward, separate=no_barrier))
    *found, to_logits = jax.lax.platform_dependent(query, key, value, weights, mixed, g, **ways)
    spread = lambda relative: jnp.broadcast_to(relative, to_logits.shape)
    to_relative = None if relative is None else jax.linear_transpose(spread, relative)(to_logits)[0]
    return *found, to_relative


attend.defvjp(_forward, _backward)
