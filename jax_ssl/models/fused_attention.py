"""Softmax attention of whole short sequences on a TPU: one Pallas kernel forward, one backward, logits never in memory.

A program of the grid holds some images and a group of heads: the fewest heads whose channels fill whole tiles of 128
lanes (two of 64, eight of 80). It reads their queries, keys and values where the qkv matmul left them, and writes
their gradients where that matmul's gradient reads them. So nothing is split, copied or transposed in memory, and the
gradient needs nothing but qkv. The bias of the qkv layer is added inside, where its gradient, a sum over all tokens,
takes no pass through memory either. Within a group a head's channels are not moved: the lanes of other heads are set to
zero, so a matmul over all lanes is one over the head.

Letters: B images, N tokens, H heads of d channels, D = H d; L lanes of a group of heads.
"""

from functools import partial
from math import lcm

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from jax_ssl import sharding

LANES = 128
BLOCKS = 6 * 2**20  # bytes of VMEM for what a program of several images reads and writes
WIDENED = 4.5 * 2**20  # of `vmem_bytes` with widened operands; a v3's compiler refuses some shapes from 5.2 MiB on
MOST_IMAGES = 16


def group_lanes(size: int) -> int:
    """Lanes of the fewest heads of `size` channels that fill whole tiles."""
    return lcm(size, LANES)


def image_bytes(tokens: int, size: int, itemsize: int) -> int:
    """VMEM of an image in the backward kernel: q, k, v, g and a gradient, each twice, three gradients that wait."""
    return (2 * 5 + 3) * _up(tokens, 16) * group_lanes(size) * itemsize


def vmem_bytes(tokens: int, size: int, itemsize: int, bias_heads: int = 0) -> int:
    """VMEM that the backward kernel takes for one image, as counted from its arrays.

    bias_heads: heads for which a bias differs, 0 without one.
    """
    logits = 4 * _up(tokens, 8) * _up(tokens, LANES)
    sums = 3 * 4 * _up(tokens, 8) * group_lanes(size)
    bias = 4 * logits * min(bias_heads, group_lanes(size) // size)  # it and its gradient, each twice
    return image_bytes(tokens, size, itemsize) + sums + bias + 6 * logits


def most_images(tokens: int, size: int, itemsize: int, bias_heads: int, widen: bool) -> int:
    """How many images a program may hold."""
    one = image_bytes(tokens, size, itemsize)
    fit = 1 + (WIDENED - vmem_bytes(tokens, size, itemsize, bias_heads)) // one if widen else BLOCKS // one
    return min(MOST_IMAGES, max(1, int(fit)))


def _up(count: int, multiple: int) -> int:
    return -(-count // multiple) * multiple


def matmul(a, b, over: tuple[int, int], widen: bool):
    """Over axis over[0] of a and over[1] of b, summed in float32; float32 operands are not rounded."""
    how = dict(precision="highest" if a.dtype == jnp.float32 else None, preferred_element_type=jnp.float32)
    a, b = (a.astype(jnp.float32), b.astype(jnp.float32)) if widen else (a, b)
    return jax.lax.dot_general(a, b, (((over[0],), (over[1],)), ((), ())), **how)


def softmax(q, k, bias, scale: float, matmul):
    """(N, N) float32 weights of one head."""
    logits = matmul(q, k, (1, 1)) * scale
    logits = logits if bias is None else logits + bias
    weights = jnp.exp(logits - logits.max(axis=1, keepdims=True))
    return weights / weights.sum(axis=1, keepdims=True)


def rotation(rope, lanes: int):
    """Of (cos, sin), each (N, d): cos, sin of what comes from the lower half, and from the upper: (N, L), float32."""
    cos, sin = rope
    upper = jnp.arange(cos.shape[1]) >= cos.shape[1] // 2
    tables = (cos, sin * upper, -sin * ~upper)
    return [jnp.tile(table.astype(jnp.float32), (1, lanes // cos.shape[1])) for table in tables]


def rotate(x, tables, half: int):
    """Rotates one head within its window (N, W); what rolls around the end meets a zero of the tables."""
    (cos, low, high), y = tables, x.astype(jnp.float32)
    return (y * cos + pltpu.roll(y, half, 1) * low + pltpu.roll(y, x.shape[1] - half, 1) * high).astype(x.dtype)


def rotate_back(g, tables, half: int):
    """The transpose of `rotate`, float32 (N, W)."""
    cos, low, high = tables
    return g * cos + pltpu.roll(g * low, g.shape[1] - half, 1) + pltpu.roll(g * high, half, 1)


class Head:
    """One head of a group, in its window: the whole tiles that it touches."""

    def __init__(self, number: int, size: int):
        self.number, self.size, self.scale = number, size, size**-0.5
        first, last = number * size, (number + 1) * size
        self.window = slice(first // LANES * LANES, _up(last, LANES))
        lane = jax.lax.broadcasted_iota(jnp.int32, (1, self.window.stop - self.window.start), 1) + self.window.start
        self.mine = (lane >= first) & (lane < last)

    def only(self, x):
        """x (N, W) with zeros in the lanes of other heads."""
        return jnp.where(self.mine, x, jnp.zeros_like(x))

    def read(self, image, qkv, offset, bias, tables):
        """Its queries and keys, rotated, with zeros around them; values; bias or None; tables of the rotation."""
        add = lambda place, part: (
            part[image, :, self.window] + offset[place : place + 1, self.window].astype(part.dtype)
        )
        query, key, value = (add(place, part) for place, part in enumerate(qkv))
        own = [table[:, self.window] for table in tables]
        if own:
            query, key = (rotate(x, own, self.size // 2) for x in (query, key))
        own_bias = bias[0][self.number % len(bias[0])] if bias else None
        return self.only(query), self.only(key), value, own_bias, own

    def add(self, tiles: dict, x) -> None:
        """Adds x (N, W) to `tiles`, {first lane: (N, 128)}."""
        for lane in range(self.window.start, self.window.stop, LANES):
            start = lane - self.window.start
            tiles[lane] = tiles.get(lane, 0.0) + x[:, start : start + LANES]


def store(tiles: dict, place) -> None:
    """Writes {first lane: (N, 128)} to `place`, a reference (N, L)."""
    for lane, tile in tiles.items():
        place[:, lane : lane + LANES] = tile.astype(place.dtype)


def each_image(count: int, function) -> None:
    jax.lax.fori_loop(0, count, lambda image, _: function(image) or 0, 0)


def forward_kernel(size: int, has_bias: bool, matmul, q, k, v, offset, *rest):
    """q, k, v (b, N, L), what is added to them (3, L), maybe a bias (heads or 1, N or 1, N), tables -> (b, N, L)."""
    bias, tables, out = rest[:has_bias], rest[has_bias:-1], rest[-1]

    def mix(image):
        tiles = {}
        for head in (Head(number, size) for number in range(q.shape[2] // size)):
            query, key, value, own_bias, _ = head.read(image, (q, k, v), offset, bias, tables)
            weights = softmax(query, key, own_bias, head.scale, matmul)
            head.add(tiles, matmul(weights.astype(value.dtype), head.only(value), (1, 0)))
        store(tiles, out.at[image])

    each_image(len(q), mix)


def backward_kernel(size: int, has_bias: bool, matmul, q, k, v, offset, *rest):
    """What `forward_kernel` reads, and g (b, N, L) -> gradients of qkv, of the offset, maybe of the bias.

    The gradient of queries, keys and values is one array, of which a program writes one of three blocks. So each
    group comes three times: the first time all is computed, and kept on the chip until it is written.
    """
    waiting, (to_qkv, to_offset, *to_bias) = rest[-1], rest[-3 - has_bias : -1]
    bias, tables, g = rest[:has_bias], rest[has_bias : -4 - has_bias], rest[-4 - has_bias]
    group, step, part = (pl.program_id(axis) for axis in range(3))

    for total in (to_offset, *to_bias):  # sums over images; of a bias that all heads have over groups too
        first = (step == 0) & (part == 0) & (True if total is to_offset or len(total) > 1 else group == 0)
        pl.when(first)(partial(total.__setitem__, ..., jnp.zeros_like(total)))

    def differentiate(image):
        gradients = {}, {}, {}
        for head in (Head(number, size) for number in range(q.shape[2] // size)):
            query, key, value, own_bias, own_tables = head.read(image, (q, k, v), offset, bias, tables)
            back = head.only(g[image, :, head.window])
            weights = softmax(query, key, own_bias, head.scale, matmul)
            to_weights = matmul(back, value, (1, 1))
            to_logits = weights * (to_weights - jnp.sum(weights * to_weights, axis=1, keepdims=True))
            if to_bias:
                to_bias[0][head.number % len(to_bias[0])] += to_logits
            scaled = (to_logits * head.scale).astype(query.dtype)
            found = [matmul(scaled, key, (1, 0)), matmul(scaled, query, (0, 0))]
            if own_tables:
                found = [head.only(rotate_back(x, own_tables, size // 2)) for x in found]
            found.append(matmul(weights.astype(value.dtype), back, (0, 0)))
            for tiles, x in zip(gradients, found, strict=True):
                head.add(tiles, x)
        for place, tiles in enumerate(gradients):
            store(tiles, waiting.at[place, image])
            for lane, tile in tiles.items():
                to_offset[place : place + 1, lane : lane + LANES] += tile.sum(0, keepdims=True)

    pl.when(part == 0)(lambda: each_image(len(q), differentiate))
    to_qkv[...] = waiting[part]


def specs(qkv, heads: int, offset, bias, rope, widen: bool):
    """(images in a program, groups, inputs of both kernels, their blocks) for qkv (B, N, 3D)."""
    (count, rows, width), lanes = qkv.shape, group_lanes(qkv.shape[2] // 3 // heads)
    size, groups = width // 3 // heads, width // 3 // lanes
    most = most_images(rows, size, qkv.dtype.itemsize, 0 if bias is None else len(bias), widen)
    images = max(n for n in range(1, most + 1) if count % n == 0)
    at = lambda part: lambda g, i, *_: (i, 0, part * groups + g)
    inputs, blocks = [qkv] * 3, [pl.BlockSpec((images, rows, lanes), at(part)) for part in range(3)]
    inputs.append(offset.reshape(3, -1))
    blocks.append(_by_lanes(lanes))
    if bias is not None:
        inputs.append(bias)
        blocks.append(_by_head(bias.shape, lanes // size))
    if rope is not None:
        tables = rotation(rope, lanes)
        inputs += tables
        blocks += [pl.BlockSpec((rows, lanes), lambda *_: (0, 0))] * 3
    return images, groups, inputs, blocks


def _by_head(shape: tuple, group: int):
    """Blocks of a group's heads of an array (H or 1, ...)."""
    return pl.BlockSpec(
        (min(group, shape[0]), *shape[1:]), lambda g, *_: (g if shape[0] > 1 else 0, *(0,) * (len(shape) - 1))
    )


def _by_lanes(lanes: int):
    """Blocks of a group's lanes of (3, D)."""
    return pl.BlockSpec((3, lanes), lambda g, *_: (0, g))


def cost(qkv, heads: int, matmuls: int, widths: int):
    """What the compiler is told: FLOPs, exponentials and bytes of a kernel of so many matmuls of logits' size."""
    count, rows, width = qkv.shape
    flops, moved = matmuls * 2 * count * rows * rows * width // 3, count * rows * width // 3 * widths
    return pl.CostEstimate(flops, count * rows * rows * heads, moved * qkv.dtype.itemsize)


def mix_images(heads: int, widen: bool, qkv, offset, bias, rope):
    """The forward kernel over all images of a device: qkv (B, N, 3D) -> [(B, N, D)]."""
    (count, rows, width), size = qkv.shape, qkv.shape[2] // 3 // heads
    images, groups, inputs, blocks = specs(qkv, heads, offset, bias, rope, widen)
    return pl.pallas_call(
        partial(forward_kernel, size, bias is not None, partial(matmul, widen=widen)),
        grid=(groups, count // images), name="attend", in_specs=blocks, cost_estimate=cost(qkv, heads, 2, 4),
        out_specs=[pl.BlockSpec((images, rows, group_lanes(size)), lambda g, i: (i, 0, g))],
        out_shape=[jax.ShapeDtypeStruct((count, rows, width // 3), qkv.dtype)],
        compiler_params=pltpu.CompilerParams(dimension_semantics=("parallel", "parallel")),
    )(*inputs)  # fmt: skip


def differentiate_images(heads: int, widen: bool, g, qkv, offset, bias, rope):
    """The backward kernel over all images: gradients of qkv, of the offset (3, D), maybe of the bias (H or 1, N, N)."""
    (count, rows, width), size = qkv.shape, qkv.shape[2] // 3 // heads
    images, groups, inputs, blocks = specs(qkv, heads, offset, bias, rope, widen)
    block = (images, rows, group_lanes(size))
    outs = [pl.BlockSpec(block, lambda g, i, part: (i, 0, part * groups + g)), _by_lanes(block[2])]
    shapes = [qkv, jax.ShapeDtypeStruct((3, width // 3), jnp.float32)]
    if bias is not None:
        shapes.append(jax.ShapeDtypeStruct((len(bias), rows, rows), jnp.float32))
        outs.append(_by_head(shapes[2].shape, group_lanes(size) // size))
    order = ("parallel" if bias is None or len(bias) > 1 else "arbitrary", "arbitrary", "arbitrary")
    return pl.pallas_call(
        partial(backward_kernel, size, bias is not None, partial(matmul, widen=widen)),
        grid=(groups, count // images, 3), name="attend_back", cost_estimate=cost(qkv, heads, 5, 7),
        in_specs=[*blocks, pl.BlockSpec(block, lambda g, i, part: (i, 0, g))], out_specs=outs,
        out_shape=[jax.ShapeDtypeStruct(x.shape, x.dtype) for x in shapes],
        scratch_shapes=[pltpu.VMEM((3, *block), qkv.dtype)],
        compiler_params=pltpu.CompilerParams(dimension_semantics=order),
    )(*inputs, g)  # fmt: skip


@partial(jax.custom_vjp, nondiff_argnums=(1, 5))
def fused_attention(qkv, heads: int, offset, bias=None, rope=None, widen: bool = False):
    """softmax(q k^T / sqrt(d) + bias) v of each head, where q, k, v are qkv + offset -> (B, N, D) in qkv's dtype.

    qkv: (B, N, 3D), all of q, then of k, of v; offset: float32 (3D,), the bias of the layer that made it.
    bias: None or float32 (H or 1, N or 1, N); one of -1e9 for some keys masks them.
    rope: None or (cos, sin), each (N, d): channel i turns with channel i + d / 2. Constants, without a gradient.
    widen: operands of matmuls as float32, which TPU v2 and v3 need; their matrix unit rounds them again.
    On a mesh each device has its own images. D has to be a multiple of `group_lanes(d)`, and a chip has to have
    `vmem_bytes`; `implementation` looks at both.
    """
    return _forward(qkv, heads, offset, bias, rope, widen)[0]


def _forward(qkv, heads, offset, bias, rope, widen):
    mixed, *_ = sharding.by_batch(partial(mix_images, heads, widen), 1)(qkv, offset, bias, rope)
    return mixed, (qkv, offset, bias, rope)


def _backward(heads, widen, saved, g):
    qkv, offset, bias, rope = saved
    differentiate = sharding.by_batch(partial(differentiate_images, heads, widen), 2)
    to_qkv, to_offset, *to_bias = differentiate(g.astype(qkv.dtype), qkv, offset, bias, rope)
    to_bias = [x.sum(1, keepdims=True) if bias.shape[1] == 1 else x for x in to_bias]
    return to_qkv, to_offset.reshape(offset.shape), *(to_bias or [None]), jax.tree.map(jnp.zeros_like, rope)


fused_attention.defvjp(_forward, _backward)
