"""The bare matrix products and convolutions of `vs_torch.py`'s two steps, each by itself, in XLA and in PyTorch.

    pip install torch==2.13.0
    taskset -c 0 python tests/benchmarks/products_vs_torch.py    # one core, by processor time: other work hardly shows
    python tests/benchmarks/products_vs_torch.py --only=mae      # all cores, by the clock: on a machine that is quiet

No code of this library can make a step faster than its products are, so this says what of a difference is XLA's own.
For each shape: one XLA program of one operation, PyTorch's call of the same, and, where `jax_ssl/models/` has code for
the CPU alone, ours. They take turns, and the fastest turn of each counts: other work on the machine only adds time.
"""

import argparse
import os
import time
from collections.abc import Callable
from typing import NamedTuple

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402
import torch  # noqa: E402
from torch.nn import functional  # noqa: E402

from jax_ssl.models import attend, conv, dense  # noqa: E402

REST = 0.02  # seconds after which the threads of the other side no longer spin


class Product(NamedTuple):
    """One operation, by each of its rivals: {side: function without arguments that ends when the result is there}."""

    name: str
    count: int  # in a step
    flops: float
    sides: dict[str, Callable[[], None]]


def by_xla(function, *given) -> Callable[[], None]:
    """The function of these arrays as one compiled program."""
    given = [jnp.asarray(array) for array in given]
    compiled = jax.jit(function).lower(*given).compile()
    return lambda: jax.block_until_ready(compiled(*given))


def drawn(*shapes) -> list[np.ndarray]:
    numbers = np.random.default_rng(0)
    return [numbers.standard_normal(shape, np.float32) * 0.1 for shape in shapes]


def layer(name: str, count: int, images: int, tokens: int, width: int, out: int) -> list[Product]:
    """Forward and both gradients of a linear layer on (images, tokens, width)."""
    x, kernel, g = drawn((images, tokens, width), (width, out), (images, tokens, out))
    tx, tw, tg = torch.from_numpy(x), torch.from_numpy(kernel.T.copy()), torch.from_numpy(g)
    flat = lambda array: array.reshape(-1, array.shape[-1])
    flops, label = 2.0 * images * tokens * width * out, f"{name} {images * tokens}x{width}x{out}"
    return [
        Product(f"{label}, forward", count, flops, {
            "torch": lambda: functional.linear(tx, tw), "xla": by_xla(lambda x, k: x @ k, x, kernel)}),
        Product(f"{label}, to its input", count, flops, {
            "torch": lambda: tg @ tw, "xla": by_xla(lambda g, k: g @ k.T, g, kernel)}),
        Product(f"{label}, to its kernel", count, flops, {
            "torch": lambda: flat(tg).T @ flat(tx),
            "xla": by_xla(lambda x, g: dense.native_kernel_gradient(x, g, None), x, g),
            "ours": by_xla(lambda x, g: dense.flat_kernel_gradient(x, g, None), x, g)}),
    ]  # fmt: skip


def attention(name: str, count: int, images: int, tokens: int, heads: int, size: int) -> list[Product]:
    """Softmax attention with its gradients in one, as PyTorch has it: six products and what is between them."""
    q, k, v, g = drawn(*[(images, tokens, heads, size)] * 4)
    theirs = [torch.from_numpy(each.swapaxes(1, 2).copy()).requires_grad_() for each in (q, k, v)]
    back = torch.from_numpy(g.swapaxes(1, 2).copy())

    def plain(q, k, v):
        logits = jnp.einsum("bqhd,bkhd->bhqk", q, k) * size**-0.5
        return jnp.einsum("bhqk,bkhd->bqhd", jax.nn.softmax(logits), v)

    def both(function):
        return lambda q, k, v, g: jax.vjp(function, q, k, v)[1](g)

    def torch_both():
        torch.autograd.grad(functional.scaled_dot_product_attention(*theirs), theirs, back)

    ours = lambda q, k, v: attend.attend(q, k, v, None)
    flops = 6 * 2.0 * images * heads * tokens**2 * size
    sides = {"torch": torch_both, "xla": by_xla(both(plain), q, k, v, g), "ours": by_xla(both(ours), q, k, v, g)}
    return [Product(f"{name} attention {images}x{heads} of {tokens}x{size}, with gradients", count, flops, sides)]


def pointwise(name: str, count: int, images: int, tokens: int, width: int) -> list[Product]:
    """GELU with its gradient: no product, but what stands between two of them."""
    x, g = drawn(*[(images, tokens, width)] * 2)
    tx, tg = torch.from_numpy(x).requires_grad_(), torch.from_numpy(g)

    def both(function):
        return by_xla(lambda x, g: (lambda y, back: (y, *back(g)))(*jax.vjp(function, x)), x, g)

    def torch_both(function):
        return lambda: torch.autograd.grad(function(tx), tx, tg)

    return [Product(f"{name} GELU {images * tokens}x{width}, with gradient", count, 0.0, {
        "torch": torch_both(functional.gelu), "xla": both(lambda x: jax.nn.gelu(x, approximate=False)),
        "ours": both(dense.gelu)})]  # fmt: skip


def convolution(count: int, images: int, side: int, width: int, out: int, taps: int, stride: int) -> list[Product]:
    """Forward and both gradients of a convolution on (images, side, side, width)."""
    less = side // stride
    x, kernel, g = drawn((images, side, side, width), (taps, taps, width, out), (images, less, less, out))
    last = lambda array: torch.from_numpy(array).permute(0, 3, 1, 2)  # channels stay last in memory
    tx, tg = last(x), last(g)
    tw = torch.from_numpy(kernel.transpose(3, 2, 0, 1).copy()).contiguous(memory_format=torch.channels_last)
    settings = ([stride] * 2, [taps // 2] * 2, [1, 1], False, [0, 0], 1)

    def torch_back(*mask):
        return lambda: torch.ops.aten.convolution_backward(tg, tx, tw, None, *settings, [*mask, False])

    def to_input(function):
        return by_xla(lambda x, k, g: jax.vjp(lambda x: function(x, k), x)[1](g)[0], x, kernel, g)

    native = lambda x, k: conv.native(x, k, stride)
    mine = lambda x, k: conv.convolve(x, k, (stride,) * 2, [(taps // 2,) * 2] * 2, dimension_numbers=NUMBERS)
    flops = 2.0 * images * less**2 * taps**2 * width * out
    label = f"conv {taps}x{taps}/{stride} {images}x{side}x{side}x{width} to {out}"
    rows = [
        Product(f"{label}, forward", count, flops, {
            "torch": lambda: functional.conv2d(tx, tw, None, *settings[:3]), "xla": by_xla(native, x, kernel),
            "ours": by_xla(mine, x, kernel)}),
        Product(f"{label}, to its input", count, flops, {
            "torch": torch_back(True, False), "xla": to_input(native), "ours": to_input(mine)}),
        Product(f"{label}, to its kernel", count, flops, {
            "torch": torch_back(False, True),
            "xla": by_xla(lambda x, k, g: jax.vjp(lambda k: native(x, k), k)[1](g)[0], x, kernel, g),
            "ours": by_xla(lambda x, k, g: jax.vjp(lambda k: mine(x, k), k)[1](g)[0], x, kernel, g)}),
    ]  # fmt: skip
    return rows if width > 3 else [row for row in rows if "input" not in row.name]


NUMBERS = ("NHWC", "HWIO", "NHWC")


def of_mae(batch: int) -> list[Product]:
    """ViT 192 x 6 on a kept quarter of 64 patches and the class token, decoder 128 x 2 on all."""
    rows = []
    for name, depth, tokens, width, heads in (("encoder", 6, 17, 192, 3), ("decoder", 2, 65, 128, 4)):
        for part, inside, out in (("qkv", 1, 3), ("out", 1, 1), ("fc1", 1, 4), ("fc2", 4, 1)):
            rows += layer(f"{name} {part}", depth, batch, tokens, inside * width, out * width)
        rows += attention(name, depth, batch, tokens, heads, width // heads)
        rows += pointwise(name, depth, batch, tokens, 4 * width)
    return rows


def of_simclr(batch: int) -> list[Product]:
    """ResNet-18 with a 3x3 stem on two views of 32 pixels: the count, side, widths, taps and stride of each shape."""
    shapes = [(1, 32, 3, 64, 3, 1), (4, 32, 64, 64, 3, 1)]
    for side, width in ((32, 64), (16, 128), (8, 256)):
        shapes += [(1, side, width, 2 * width, 3, 2), (1, side, width, 2 * width, 1, 2),
                   (3, side // 2, 2 * width, 2 * width, 3, 1)]  # fmt: skip
    return [row for count, *shape in shapes for row in convolution(count, 2 * batch, *shape)]


def fastest(product: Product, rounds: int) -> dict[str, float]:
    """Seconds of each side's fastest turn; of processor time on one core, where nothing spins while it waits."""
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    best = dict.fromkeys(product.sides, float("inf"))
    for _ in range(rounds):
        for side, run in product.sides.items():
            time.sleep(REST)
            run()
            start = clock()
            run()
            best[side] = min(best[side], clock() - start)
    return best


def show(task: str, products: list[Product], rounds: int) -> None:
    """A line a shape, and what all of a step's take together."""
    print(f"\n{task}: jax {jax.__version__}, torch {torch.__version__}, {torch.get_num_threads()} cores, "
          f"load {os.getloadavg()[0]:.1f}, fastest of {rounds} turns")  # fmt: skip
    print(f"{'ms each, and GFLOP/s':<66}{'torch':>16}{'xla':>16}{'ours':>16}   torch/ours")
    total = {side: 0.0 for side in ("torch", "xla", "ours")}
    for product in products:
        best = fastest(product, rounds)
        best.setdefault("ours", best["xla"])
        for side in total:
            total[side] += product.count * best[side]
        rates = [f"{1e3 * best[side]:.2f} {product.flops / best[side] / 1e9:>6.0f}" for side in total]
        told = "".join(f"{rate:>16}" for rate in rates)
        print(f"{product.count} x {product.name:<62}{told}{best['torch'] / best['ours']:>10.2f}", flush=True)
    work = sum(p.count * p.flops for p in products)
    told = "".join(f"{1e3 * s:>9.0f} {work / s / 1e9:>6.0f}" for s in total.values())
    print(f"{'all of a step':<66}{told}{total['torch'] / total['ours']:>10.2f}")


def main() -> None:
    tasks = {"mae": of_mae, "simclr": of_simclr}
    flags = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    flags.add_argument("--only", choices=tuple(tasks), help="one of the two")
    flags.add_argument("--batch", type=int, default=128, help="images a step, as in vs_torch.py")
    flags.add_argument("--rounds", type=int, default=15, help="turns of each side")
    args = flags.parse_args()
    torch.set_num_threads(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count())
    for task in [args.only] if args.only else tasks:
        show(task, tasks[task](args.batch), args.rounds)


if __name__ == "__main__":
    main()
