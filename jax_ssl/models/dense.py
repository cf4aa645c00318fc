"""A linear layer whose kernel gradient is fast on a CPU as well, and the nonlinearity between two of them.

The gradient sums over all leading axes, images and tokens. XLA's CPU compiler turns such a matmul with two axes to sum
over into a copy and a slow loop, six times slower than the same matmul over one axis; on a TPU, joining the axes would
be the copy. So the choice is made when a program is compiled for a platform, not where it is traced; in float32 only.
"""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp


def native(x, kernel, precision):
    """x (..., D), kernel (D, K) -> (..., K)."""
    return jax.lax.dot_general(x, kernel, (((x.ndim - 1,), (0,)), ((), ())), precision=precision)


def native_kernel_gradient(x, g, precision):
    """The sum over the leading axes of x (..., D) times g (..., K): (D, K)."""
    kernel = jax.ShapeDtypeStruct((x.shape[-1], g.shape[-1]), x.dtype)
    return jax.linear_transpose(lambda kernel: native(x, kernel, precision), kernel)(g)[0]


def flat_kernel_gradient(x, g, precision):
    """The same with the leading axes joined to one."""
    x, g = (part.reshape(-1, part.shape[-1]) for part in (x, g))
    return jax.lax.dot_general(x, g, (((0,), (0,)), ((), ())), precision=precision)


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def multiply(x, kernel, precision):
    return native(x, kernel, precision)


def _forward(x, kernel, precision):
    return native(x, kernel, precision), (x, kernel)


def _backward(precision, saved, g):
    x, kernel = saved
    back = jax.linear_transpose(lambda x: native(x, kernel, precision), x)(g)[0]
    fast, plain = (partial(f, precision=precision) for f in (flat_kernel_gradient, native_kernel_gradient))
    return back, jax.lax.platform_dependent(x, g, cpu=fast, default=plain)


multiply.defvjp(_forward, _backward)


def dot_general(x, kernel, dimensions, precision=None, **kwargs):
    """`jax.lax.dot_general` for Flax's Dense, with the fast way for what has one."""
    if x.ndim > 2 and x.dtype == kernel.dtype == jnp.float32 and not kwargs:
        return multiply(x, kernel, precision)
    return jax.lax.dot_general(x, kernel, dimensions, precision=precision, **kwargs)


Dense = partial(nn.Dense, dot_general=dot_general)


@jax.custom_jvp
def gelu(x):
    """x times the normal distribution's share below x: the exact GELU, in float32, from `erf` as PyTorch has it.

    `jax.nn.gelu` calls `erfc`, which keeps relative precision where the result is nearly zero, at two polynomials, an
    exponential and a choice for each value. A TPU's compiler unrolls these inside of the next matmul: DINO's step took
    a third longer to compile. For the gradient only the slope is kept, in x's dtype.
    """
    return _gelu_and_slope(x)[0]


def _gelu_and_slope(x):
    y = x.astype(jnp.float32)
    below = 0.5 * (1.0 + jax.lax.erf(y * 0.5**0.5))
    density = jnp.exp(-0.5 * y * y) * (2 * jnp.pi) ** -0.5
    return (y * below).astype(x.dtype), (below + y * density).astype(x.dtype)


@gelu.defjvp
def _(primals, tangents):
    value, slope = _gelu_and_slope(*primals)
    return value, slope * tangents[0]


def quick_gelu(x):
    """x sigmoid(1.702 x): what OpenAI's CLIP has in place of GELU."""
    return x * nn.sigmoid(1.702 * x)
