"""L-BFGS for many small convex problems at once: each has its own history and step, and all share every pass over data.

Nocedal & Wright 2006, algorithms 7.4 and 7.5, with a step that is halved until the loss falls (Armijo). That is enough
for a convex loss, where a step and the change of the gradient that it makes always point the same way.

Letters: H problems, P parameters of each, M remembered steps.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

MEMORY = 10
SMALLEST = 2.0**-20  # share of a step below which a search ends
TINY = 1e-30


def minimise(loss: Callable, start: jax.Array, iterations, tolerance: float) -> tuple[jax.Array, jax.Array, jax.Array]:
    """(parameters (H, P), iterations (H,), norms of the gradients as shares of those at zero (H,)). For jax.jit.

    loss: (H, P) -> values (H,) and gradients (H, P), each of its own problem. start: (H, P). A problem whose gradient
    is below `tolerance` times that at zero is solved, and stays as it is while others go on.
    """
    first = norm(loss(jnp.zeros_like(start))[1])  # whatever the start is: a good one must not ask for a better end
    unsolved = lambda gradient: norm(gradient) > tolerance * first

    def iterate(carry):
        count, x, value, gradient, steps, changes, counts = carry
        active = unsolved(gradient)
        toward = direction(gradient, steps, changes)
        there, value, new = search(loss, x, value, gradient, toward, active)
        add = lambda history, latest: jnp.concatenate([history[1:], latest[None]])
        return count + 1, there, value, new, add(steps, there - x), add(changes, new - gradient), counts + active

    history = jnp.zeros((MEMORY, *start.shape))
    begin = 0, start, *loss(start), history, history, jnp.zeros(len(start), jnp.int32)
    proceed = lambda carry: (carry[0] < iterations) & unsolved(carry[3]).any()
    _, x, _, gradient, _, _, counts = jax.lax.while_loop(proceed, iterate, begin)
    return x, counts, norm(gradient) / first


def dot(a, b):
    return jnp.sum(a * b, axis=-1)


def norm(x):
    return jnp.sqrt(dot(x, x))


def direction(gradient, steps, changes):
    """Where to go, (H, P). steps, changes: of parameters and gradient, (M, H, P), oldest first, else zeros."""
    along = dot(steps, changes)
    inverse = jnp.where(along > 0, 1 / jnp.maximum(along, TINY), 0)  # (M, H)

    def back(q, known):
        step, change, rho = known
        share = rho * dot(step, q)
        return q - share[:, None] * change, share

    def forth(r, known):
        step, change, rho, share = known
        return r + (share - rho * dot(change, r))[:, None] * step, None

    q, shares = jax.lax.scan(back, gradient, (steps, changes, inverse), reverse=True)
    curvature = along[-1] / jnp.maximum(dot(changes[-1], changes[-1]), TINY)
    alone = 1 / jnp.maximum(norm(gradient), 1.0)  # without a history, a step of length one at most
    r = jnp.where(curvature > 0, curvature, alone)[:, None] * q
    return -jax.lax.scan(forth, r, (steps, changes, inverse, shares))[0]


def search(loss: Callable, x, value, gradient, toward, active):
    """(parameters, values, gradients) after the first of the steps 1, 1/2, 1/4, ... that lowers the loss enough."""
    slope = dot(gradient, toward)

    def tried(step):
        there = x + step[:, None] * toward
        return step, there, *loss(there)

    def too_far(carry):
        step, _, found, _ = carry
        # float32 has no digits left for the last steps: a rise as small as its rounding is none.
        allowed = value + 1e-4 * step * slope + 1e-6 * jnp.abs(value)
        return active & ~(found <= allowed) & (step > SMALLEST)

    halve = lambda carry: tried(jnp.where(too_far(carry), carry[0] / 2, carry[0]))
    return jax.lax.while_loop(lambda carry: too_far(carry).any(), halve, tried(active.astype(x.dtype)))[1:]
