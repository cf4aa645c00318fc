"""Stochastic depth that saves time: a branch that most of its rows skip is computed for the others alone."""

from math import gcd

import jax
import jax.numpy as jnp

from jax_ssl.sharding import batch_constraint


def add_to_some(branch, x, rate: float, key):
    """x plus branch of a random subset of its rows, scaled up to what all of them would add; the others cost nothing.

    x (B, N, D), B a multiple of 8. Of every 16 (or 8) rows in a row, floor(16 (1 - rate)) are chosen: rows of one
    device, so that on a mesh nothing moves, and yet the same ones on any mesh. dinov2, layers/block.py,
    drop_add_residual_stochastic_depth, which chooses among all rows of a device.
    """
    group = gcd(len(x), 16)
    keep = max(1, int(group * (1 - rate)))
    groups = x.reshape(-1, group, *x.shape[1:])
    chosen = jnp.argsort(jax.random.uniform(key, groups.shape[:2]), axis=1)[:, :keep]
    safe = dict(mode="promise_in_bounds", unique_indices=True)
    some = jax.vmap(lambda rows, i: rows.at[i].get(**safe))(groups, chosen)
    y = branch(batch_constraint(some.reshape(-1, *x.shape[1:])))
    y = (y * (group / keep)).astype(x.dtype).reshape(some.shape)
    return jax.vmap(lambda rows, i, y: rows.at[i].add(y, **safe))(groups, chosen, y).reshape(x.shape)
