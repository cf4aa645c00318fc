"""L-BFGS against the solutions of quadratic problems, many at once."""

import jax
import jax.numpy as jnp
import numpy as np

from jax_ssl.optim import lbfgs


def quadratics(condition, size=12):
    """(A (H, P, P), b (H, P)): problems 1/2 x'Ax - b'x, one for each condition number."""
    random, made = np.random.RandomState(0), []
    for number in condition:
        q = np.linalg.qr(random.randn(size, size))[0]
        made.append(q @ np.diag(np.geomspace(1, number, size)) @ q.T)
    return np.array(made, np.float32), random.randn(len(condition), size).astype(np.float32)


def test_each_problem_is_solved_and_then_left_alone():
    matrix, target = quadratics([1.0, 10.0, 100.0])

    def loss(x, wanted):
        moved = jnp.einsum("hij,hj->hi", matrix, x)
        moved = jnp.where(wanted[:, None], moved, jnp.nan)  # nobody looks at what was not wanted
        return jnp.sum(x * (moved / 2 - target), -1), moved - target

    x, counts, ends = jax.jit(lambda x: lbfgs.minimise(loss, x, 200, 1e-4))(jnp.zeros_like(target))
    solution = np.linalg.solve(matrix.astype(np.float64), target[..., None])[..., 0]
    np.testing.assert_allclose(x, solution, atol=1e-3 * np.abs(solution).max())
    assert counts[0] < counts[1] < counts[2] < 100 and (ends <= 1e-4).all()
    cut = jax.jit(lambda x: lbfgs.minimise(loss, x, 3, 1e-4))(jnp.zeros_like(target))
    assert cut[1].max() == 3 and cut[2][2] > 1e-4
    again = jax.jit(lambda x: lbfgs.minimise(loss, x, 200, 1e-4))(x)
    assert again[1].max() <= 1  # a good start is an end


def test_what_rounding_hides_does_not_end_the_way_down():
    matrix, target = quadratics([30.0, 100.0])
    asked = []

    def loss(x, wanted):
        jax.debug.callback(lambda: asked.append(1))
        moved = jnp.einsum("hij,hj->hi", matrix, x)
        rounding = 1e-4 * jnp.sin(1e6 * x.sum(-1))  # of the 100 that both losses have
        return 100 + rounding + jnp.sum(x * (moved / 2 - target), -1), moved - target

    _, counts, ends = jax.jit(lambda x: lbfgs.minimise(loss, x, 200, 1e-5))(jnp.zeros_like(target))
    jax.effects_barrier()
    assert (ends <= 1e-5).all() and len(asked) < 3 * counts.max()


def test_a_step_that_is_too_long_is_shortened():
    asked = []

    def loss(x, wanted):
        jax.debug.callback(lambda wanted: asked.append(int(wanted.sum())), wanted)
        value, gradient = jnp.sum(jnp.cosh(4 * x), -1), 4 * jnp.sinh(4 * x)
        return jnp.where(wanted, value, jnp.nan), jnp.where(wanted[:, None], gradient, jnp.nan)

    x, *_ = lbfgs.minimise(loss, jnp.array([[2.0, -1.0], [0.1, 0.2]]), 100, 1e-5)
    np.testing.assert_allclose(x, 0, atol=1e-4)
    jax.effects_barrier()
    assert asked[:3] == [2, 2, 2] and 1 in asked  # the one near the end is not asked again
