"""Count the FLOPs of a traced program: two for each multiply-add of its matmuls and convolutions, all devices together.

XLA's own count has a loop's body once, whatever its length; here a scan of 24 blocks counts 24 times. Elementwise work
is left out, as it is in every published utilisation. Recomputation by `jax.checkpoint` is in: it has to be done. A
Pallas kernel counts as what it says of itself.
"""

from math import prod


def count(jaxpr) -> float:
    """FLOPs of a (closed) jaxpr, such as `jitted.trace(...).jaxpr`. Of a `cond` the dearest branch counts.

    A `while` whose length only the data knows counts once; a scan is not one of those.
    """
    return sum(_equation(equation) for equation in getattr(jaxpr, "jaxpr", jaxpr).eqns)


def _equation(equation) -> float:
    name, params = equation.primitive.name, equation.params
    if name == "dot_general":
        return _dot(*(v.aval.shape for v in equation.invars), params["dimension_numbers"])
    if name == "conv_general_dilated":
        return _convolution(*(v.aval.shape for v in equation.invars), equation.outvars[0].aval.shape, params)
    if name == "pallas_call":
        return params["cost_estimate"].flops
    if name == "cond":
        return max(count(branch) for branch in params["branches"])
    inner = [value for value in params.values() if hasattr(getattr(value, "jaxpr", value), "eqns")]
    # Inside a shard_map shapes are those of one device.
    times = {"scan": lambda: params["length"], "shard_map": lambda: params["mesh"].size}.get(name, lambda: 1)()
    return times * sum(count(jaxpr) for jaxpr in inner)


def _dot(left: tuple, right: tuple, dimensions) -> float:
    (contracted, right_contracted), (_, right_batch) = dimensions
    free = prod(size for axis, size in enumerate(right) if axis not in (*right_contracted, *right_batch))
    return 2.0 * prod(left) * free  # left = batch, free and contracted axes


def _convolution(image: tuple, kernel: tuple, output: tuple, params) -> float:
    """Only positions that read a pixel: not padding, and not the zeros between pixels of a strided gradient."""
    numbers = params["dimension_numbers"]
    reads = 1
    for axis in range(len(image) - 2):
        reads *= _reads(
            image[numbers.lhs_spec[2 + axis]],
            kernel[numbers.rhs_spec[2 + axis]],
            output[numbers.out_spec[2 + axis]],
            params["window_strides"][axis],
            params["padding"][axis][0],
            params["lhs_dilation"][axis],
            params["rhs_dilation"][axis],
        )
    images, channels = output[numbers.out_spec[0]], output[numbers.out_spec[1]]
    return 2.0 * reads * images * channels * kernel[numbers.rhs_spec[1]]  # input channels of one group


def _reads(image: int, kernel: int, output: int, stride: int, padding: int, spread: int, dilation: int) -> int:
    """How many pairs (output position, tap) of an axis meet a pixel. spread: image dilation; dilation: the kernel's."""
    last = (image - 1) * spread
    places = (o * stride - padding + tap * dilation for o in range(output) for tap in range(kernel))
    return sum(0 <= place <= last and place % spread == 0 for place in places)
