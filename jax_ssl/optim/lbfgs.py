"""L-BFGS for many small convex problems at once: each has its own step, and the unsolved share each pass over data.

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

    loss: (parameters (H, P), wanted bool (H,)) -> values (H,) and gradients (H, P), each of its own problem; of what is
    not wanted anything, so it need not be computed. start: (H, P). A problem whose gradient is below `tolerance` times
    that at zero is solved, and one whose loss no step lowers any more has reached what float32 can tell: both stay as
    they are, and are not wanted, while others go on.
    """
    every = jnp.ones(len(start), bool)
    # Not a constant to the compiler: of large products with constant zeros XLA makes NaN on a CPU.
    zero = jax.lax.optimization_barrier(jnp.zeros_like(start))
    first = norm(loss(zero, every)[1])  # whatever the start is: a good one must not ask for a better end

    def iterate(carry):
        count, x, value, gradient, steps, changes, counts, active = carry
        toward = direction(gradient, steps, changes)
        there, lower, new, moved = search(loss, x, value, gradient, toward, active)
        add = lambda history, latest: jnp.concatenate([history[1:], latest[None]])
        history = add(steps, there - x), add(changes, new - gradient)
        active = moved & (norm(new) > tolerance * first)
        return count + 1, there, lower, new, *history, counts + moved, active

    value, gradient = loss(start, every)
    history = jnp.zeros((MEMORY, *start.shape))
    counts, active = jnp.zeros(len(start), jnp.int32), norm(gradient) > tolerance * first
    begin = 0, start, value, gradient, history, history, counts, active
    proceed = lambda carry: (carry[0] < iterations) & carry[-1].any()
    _, x, _, gradient, _, _, counts, _ = jax.lax.while_loop(proceed, iterate, begin)
    return x, counts, norm(gradient) / first


def dot(a, b):
    return jnp.sum(a * b, axis=-1)


def norm(x):
    return jnp.sqrt(dot(x, x))


def direction(gradient, steps, changes):
    """Where to go, (H, P). steps, changes: of parameters and gradient, (M, H, P), oldest first, else zeros."""
    along = dot(steps, changes)
    inverse = jnp.where(along > TINY, 1 / jnp.maximum(along, TINY), 0)  # (M, H)

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
    r = jnp.where(along[-1] > TINY, curvature, alone)[:, None] * q
    toward = -jax.lax.scan(forth, r, (steps, changes, inverse, shares))[0]
    down = dot(gradient, toward) < 0  # not for NaN
    return jnp.where(down[:, None], toward, -alone[:, None] * gradient)


def search(loss: Callable, x, value, gradient, toward, active):
    """(parameters, values, gradients) after the first of the steps 1, 1/2, 1/4, ... that lowers the loss enough.

    Also which problems of `active` moved; the others are where they were.
    """
    slope = dot(gradient, toward)

    def tried(step, wanted):
        there = x + step[:, None] * toward
        return step, there, *loss(there, wanted)

    def low(carry):
        step, _, found, new = carry
        # float32 has no digits left for what the last steps gain. Then the slope tells, as it tells of a parabola: at
        # the end of the step it rises less than it fell at its start (Hager & Zhang 2005, Eq. 23).
        level = (found <= value + 1e-6 * jnp.abs(value)) & (dot(new, toward) <= (2e-4 - 1) * slope)
        return (found <= value + 1e-4 * step * slope) | level

    too_far = lambda carry: active & ~low(carry) & (carry[0] > SMALLEST)

    def halve(carry):
        again = too_far(carry)
        return _where(again, tried(carry[0] / 2, again), carry)

    found = jax.lax.while_loop(lambda carry: too_far(carry).any(), halve, tried(active.astype(x.dtype), active))
    moved = active & low(found)
    return *_where(moved, found[1:], (x, value, gradient)), moved


def _where(chosen, these, others):
    """Of two tuples of arrays (H, ...), those of the first for the chosen problems, bool (H,)."""
    pick = lambda new, old: jnp.where(chosen.reshape(-1, *[1] * (old.ndim - 1)), new, old)
    return tuple(map(pick, these, others))
