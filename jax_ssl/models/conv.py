"""Convolutions that are fast on a CPU: Winograd's minimal filtering for 3x3, matmuls for other kernel gradients.

Paper: Lavin & Gray 2016, https://arxiv.org/abs/1509.09308, F(4x4, 3x3): 36 multiplications for 16 outputs, not 144

XLA's CPU convolutions leave half of the machine unused in their filter gradients, and no direct convolution can be
faster than a matmul of the same size. This one does a quarter of the multiplications. Everything but float32 on a CPU
keeps XLA's own convolution: the choice is made when a program is compiled for a platform, not where it is traced.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

# Where the polynomials are evaluated. Lavin's 0, 1, -1, 2, -2 lose five times as much to rounding (1e-5, here 2e-6).
POINTS = np.array([0.0, 0.75, -0.75, 1.5, -1.5])
TILE, TAPS = 4, 3  # outputs and kernel weights along one axis
SIDE = TILE + TAPS - 1  # inputs that a tile sees along one axis
TILES_AT_ONCE = 256  # their transforms stay in the cache
SMALL = 16  # positions of a map on which XLA's CPU convolutions are slower than one matmul of its shifts


def cook_toom() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(A, B, G), the transforms of outputs, inputs and kernels, so that a tile is A [(G kernel) * (B input)].

    A product of polynomials is evaluated at five points and at infinity, multiplied there, and interpolated; a
    correlation is the transpose of that.
    """
    powers = POINTS[:, None] ** np.arange(SIDE)
    at_points = lambda count: np.vstack([powers[:, :count], np.eye(count)[-1:]])
    distances = POINTS[:, None] - POINTS + np.eye(len(POINTS))
    scale = np.append(distances.prod(1), 1.0)[:, None]  # any would do: this one keeps B's numbers small
    inputs = np.linalg.inv(at_points(SIDE)).T * scale
    inputs[np.abs(inputs) < 1e-9] = 0.0
    return at_points(TILE).T, inputs, at_points(TAPS) / scale


OUTPUTS, INPUTS, KERNELS = cook_toom()


def transform(matrix, parts):
    """[sum_i row[i] parts[i] for row in matrix]: a matmul with a 6x6 matrix would be slow, loops over slices are not.

    The barrier keeps this arithmetic out of the copies that follow: fused into a concatenation it is not vectorised.
    """
    sums = []
    for row in matrix:
        terms = [part if w == 1.0 else part * np.float32(w) for w, part in zip(row, parts, strict=True) if w]
        sums.append(sum(terms[1:], terms[0]))
    return jax.lax.optimization_barrier(sums)


def tiles(matrix, x, count):
    """The transforms of the windows that start at every fourth pixel: SIDE arrays (SIDE, N H/4 W/4, C), by column.

    x (N, H, W, C): images with their padding and 6 parts, or what comes back to the outputs and 4 parts.
    """
    high, wide = (side - count + 1 for side in x.shape[1:3])
    lines = jnp.stack(transform(matrix, [x[:, i : i + high : TILE] for i in range(count)]))
    columns = transform(matrix, [lines[:, :, :, j : j + wide : TILE] for j in range(count)])
    return [column.reshape(SIDE, -1, x.shape[-1]) for column in columns]


def input_tiles(x):
    return tiles(INPUTS, jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0))), SIDE)


def assemble(products, shape):
    """SIDE arrays (SIDE, T, K), by column -> images of that shape (N, H, W, K)."""
    count, height, width, channels = shape
    columns = [c.reshape(SIDE, count, height // TILE, -1, channels) for c in transform(OUTPUTS, products)]
    lines = transform(OUTPUTS, list(jnp.concatenate(columns, -1)))
    return jax.lax.optimization_barrier(jnp.stack(lines, 2).reshape(shape))


def pieces(x, tiles: int, width: int):
    """(N, ...) -> (P, N/P, ...): runs of images of about TILES_AT_ONCE tiles, more where kernels are larger than that.

    tiles: of an image. Over several devices it is one piece: a loop over a batch that is split would gather it.
    """
    mesh = jax.sharding.get_abstract_mesh()
    at_once = len(x) if mesh.size > 1 else max(TILES_AT_ONCE, 2 * width) // max(1, tiles)
    count = max(1, len(x) // max(1, at_once))
    while len(x) % count:
        count -= 1
    return x.reshape(count, -1, *x.shape[1:])


def winograd(x, kernel):
    """The 3x3 convolution of stride one that keeps the size. x (N, H, W, C), kernel (3, 3, C, K)."""
    lines = jnp.stack(transform(KERNELS, list(kernel)))  # (6, 3, C, K)
    kernels = transform(KERNELS, [lines[:, j] for j in range(TAPS)])

    def one(x):
        products = [jnp.matmul(*pair) for pair in zip(input_tiles(x), kernels)]
        return assemble(products, (*x.shape[:3], kernel.shape[-1]))

    split = pieces(x, x.shape[1] * x.shape[2] // TILE**2, kernel.shape[-1])
    return jax.lax.map(one, split).reshape(*x.shape[:3], -1) if len(split) > 1 else one(x)


def summed(one, x, g):
    """The sum of one(x, g), a list of arrays, over pieces of the images."""
    tiles = g.shape[1] * g.shape[2] // TILE**2
    split = [pieces(part, tiles, g.shape[-1]) for part in (x, g)]
    if len(split[0]) == 1:
        return one(x, g)
    add = lambda total, pair: (jax.tree.map(jnp.add, total, one(*pair)), None)
    zeros = [jnp.zeros(part.shape, part.dtype) for part in jax.eval_shape(one, split[0][0], split[1][0])]
    return jax.lax.scan(add, zeros, split)[0]


def winograd_kernel_gradient(x, g):
    """sum over images and positions of x (N, H, W, C) times g (N, H, W, K), for each of the 3x3 shifts."""

    def one(x, g):
        pairs = zip(input_tiles(x), tiles(OUTPUTS.T, g, TILE))
        return [jnp.einsum("atc,atk->ack", *pair) for pair in pairs]

    lines = jnp.stack(transform(KERNELS.T, summed(one, x, g)), 1)  # (6, 3, C, K)
    return jnp.stack(transform(KERNELS.T, list(lines)))


def native(x, kernel, stride: int):
    """XLA's own convolution: kernel (k, k, C, K), k odd, k // 2 pixels of padding on each side."""
    pad = (len(kernel) // 2,) * 2
    return jax.lax.conv_general_dilated(
        x, kernel, (stride, stride), (pad, pad), dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def by_shifts(x, kernel, stride: int):
    """The same as one matmul of the shifted maps side by side; shifts that hold nothing but padding are left out."""
    taps, pad = len(kernel), len(kernel) // 2
    counts = [(side - 1) // stride + 1 for side in x.shape[1:3]]
    inside = [
        [tap for tap in range(taps) if any(0 <= stride * n + tap - pad < side for n in range(count))]
        for side, count in zip(x.shape[1:3], counts)
    ]
    padded = jnp.pad(x, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    read = lambda start, count: slice(start, start + stride * (count - 1) + 1, stride)
    shifts = [padded[:, read(i, counts[0]), read(j, counts[1])] for i in inside[0] for j in inside[1]]
    rows, columns = (slice(taps[0], taps[-1] + 1) for taps in inside)
    return jnp.concatenate(shifts, axis=-1) @ kernel[rows, columns].reshape(-1, kernel.shape[-1])


def native_kernel_gradient(x, g, taps: int, stride: int):
    kernel = jnp.zeros((taps, taps, x.shape[-1], g.shape[-1]), x.dtype)
    return jax.linear_transpose(lambda kernel: native(x, kernel, stride), kernel)(g)[0]


def matmul_kernel_gradient(x, g, taps: int, stride: int):
    """The same as one matmul for each weight of the kernel, on slices of the images."""
    pad = (taps // 2,) * 2
    ends = [stride * (side - 1) + 1 for side in g.shape[1:3]]

    def one(x, g):
        padded = jnp.pad(x, ((0, 0), pad, pad, (0, 0)))
        reads = lambda i, j: padded[:, i : i + ends[0] : stride, j : j + ends[1] : stride].reshape(-1, x.shape[-1])
        return [reads(i, j).T @ g.reshape(-1, g.shape[-1]) for i in range(taps) for j in range(taps)]

    return jnp.stack(summed(one, x, g)).reshape(taps, taps, x.shape[-1], g.shape[-1])


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def conv(x, kernel, stride: int):
    """float32 (N, H, W, C), (k, k, C, K), k odd -> (N, H/stride, W/stride, K)."""
    cpu = winograd if tileable(x, kernel, stride) else partial(on_a_cpu(x), stride=stride)
    return jax.lax.platform_dependent(x, kernel, cpu=cpu, default=partial(native, stride=stride))


def tileable(x, kernel, stride: int) -> bool:
    """Whether Winograd's way exists and pays: few tiles don't pay for the transform of a large kernel."""
    _, height, width, _ = x.shape
    tiles = len(x) * height * width // TILE**2
    return stride == 1 and len(kernel) == TAPS and height % TILE == width % TILE == 0 and 4 * tiles >= kernel.shape[-1]


def on_a_cpu(x):
    """How a convolution that Winograd's way is not for is done: by its shifts where the map is small."""
    return by_shifts if x.shape[1] * x.shape[2] <= SMALL else native


def _forward(x, kernel, stride):
    return conv(x, kernel, stride), (x, kernel)


def _backward(stride, saved, g):
    x, kernel = saved
    if stride == 1:  # a convolution of the same kind, with the kernel turned around
        back = conv(g, kernel[::-1, ::-1].swapaxes(2, 3), 1)
    else:
        back = lambda way: lambda g: jax.linear_transpose(lambda x: way(x, kernel, stride), x)(g)[0]
        back = jax.lax.platform_dependent(g, cpu=back(on_a_cpu(x)), default=back(native))
    shape = dict(taps=len(kernel), stride=stride)
    fast = winograd_kernel_gradient if tileable(x, kernel, stride) else partial(matmul_kernel_gradient, **shape)
    return back, jax.lax.platform_dependent(x, g, cpu=fast, default=partial(native_kernel_gradient, **shape))


conv.defvjp(_forward, _backward)


def convolve(x, kernel, strides, padding, **kwargs):
    """`jax.lax.conv_general_dilated` for Flax's Conv, with the fast way for what has one."""
    side = (len(kernel) // 2,) * 2
    plain = strides[0] == strides[1] and len(kernel) % 2 and [tuple(pad) for pad in padding] == [side, side]
    wide = min(kernel.shape[2:]) >= 32  # with few channels slices cost more than they save
    if plain and wide and x.dtype == kernel.dtype == jnp.float32:
        return conv(x, kernel, strides[0])
    return jax.lax.conv_general_dilated(x, kernel, strides, padding, **kwargs)
