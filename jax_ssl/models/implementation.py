"""Which implementation of attention a program takes: the config's wish, the chip and the shapes decide, never an error.

`pallas`: `fused_attention` on a TPU. `cudnn`: NVIDIA's, through `jax.nn.dot_product_attention`. `plain`: matmul,
softmax, matmul as XLA compiles them, see `transformer.Attention`.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache, partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jax_ssl.models import fused_attention

WISHES = ("auto", "fused", "plain")
OLD_TPUS = ("TPU v2", "TPU v3")  # their matrix unit takes float32 only, which it rounds to bfloat16
# Bytes of VMEM for one program. Compilers leave a kernel 16 MiB on every chip, and take up to 1.3 times what
# `vmem_bytes` counts. On old chips, where operands are widened, it is up to 4.1 times.
SCOPED, SCOPED_OLD = 12 * 2**20, 3.75 * 2**20
LONGEST_CUDNN_HEAD = 128


class Chip(NamedTuple):
    """What a program is for."""

    platform: str  # tpu, gpu or cpu
    kind: str  # as JAX names it: "TPU v5 lite"
    cudnn: bool = False  # whether JAX finds NVIDIA's attention here, and a GPU that can run it


class Choice(NamedTuple):
    """The implementation, and why it is not another one; "" where it is what the wish says."""

    kernel: str
    reason: str = ""


def choose(wish: str, chip: Chip, tokens: int, width: int, heads: int, dtype, bias: tuple | None = None) -> Choice:
    """The implementation for (images, tokens, width) in `dtype`. bias: the shape of what is added to the logits.

    wish: `plain`; `fused`, a kernel wherever there is one; or `auto`, a kernel in bfloat16. In float32, where a TPU's
    kernel multiplies without rounding, in six passes instead of one, XLA's own way stays.
    A kernel needs whole sequences on the chip, so long ones, and shapes that it can't divide, get plain attention.
    """
    if wish == "plain":
        return Choice("plain")
    if wish == "auto" and dtype != jnp.bfloat16:
        return Choice("plain", f"a kernel in {jnp.dtype(dtype).name} has to be asked for: model.attention='fused'")
    if chip.platform == "tpu":
        lacks = _pallas_lacks(chip, tokens, width, heads, dtype, bias)
        return Choice("plain", lacks) if lacks else Choice("pallas")
    if chip.platform in ("gpu", "cuda"):
        lacks = _cudnn_lacks(chip, width // heads, dtype, bias)
        return Choice("plain", lacks) if lacks else Choice("cudnn")
    return Choice("plain", f"there is no kernel for a {chip.platform}")


def _pallas_lacks(chip: Chip, tokens: int, width: int, heads: int, dtype, bias) -> str:
    """Why the Pallas kernel can't do it; "" if it can."""
    size = width // heads
    if chip.kind in OLD_TPUS and dtype != jnp.bfloat16:
        return f"the kernel of a {chip.kind} has bfloat16 only"
    if width % fused_attention.group_lanes(size):
        return f"{heads} heads of {size} channels don't fill whole tiles of {fused_attention.LANES}"
    if bias is not None and (len(bias) != 3 or bias[0] not in (1, heads) or bias[1] not in (1, tokens)):
        return f"what is added to the logits has the shape {bias}"
    bias_heads, most = 0 if bias is None else bias[0], SCOPED_OLD if chip.kind in OLD_TPUS else SCOPED
    needed = fused_attention.vmem_bytes(tokens, size, jnp.dtype(dtype).itemsize, bias_heads)
    if needed > most:
        return (
            f"{tokens} tokens of {size} channels a head need {needed / 2**20:.1f} of {most / 2**20:g} MiB on the chip"
        )
    return ""


def _cudnn_lacks(chip: Chip, size: int, dtype, bias) -> str:
    """Why cuDNN can't do it; "" if it can."""
    if not chip.cudnn:
        return f"JAX finds no cuDNN with attention for a {chip.kind}"
    if dtype != jnp.bfloat16:
        return "cuDNN's attention has no float32"
    if size % 8 or size > LONGEST_CUDNN_HEAD:
        return f"cuDNN takes heads of a multiple of 8 up to {LONGEST_CUDNN_HEAD} channels, not {size}"
    if bias is not None:
        return "cuDNN differentiates a bias for an even number of tokens only"
    return ""


def chip() -> Chip:
    """What the traced program is for: the devices of the mesh that is set, described ones too, or JAX's own."""
    mesh, device = jax.sharding.get_abstract_mesh(), None
    if not mesh.empty:
        device = mesh.abstract_device
    if device is None:
        default = jax.config.jax_default_device  # a device, the name of a platform, or None
        device = default if hasattr(default, "platform") else jax.devices(default)[0]
    gpu = device.platform in ("gpu", "cuda")
    return Chip(device.platform, device.device_kind, gpu and _has_cudnn())


@cache
def _has_cudnn() -> bool:
    x = jax.ShapeDtypeStruct((1, 8, 1, 64), jnp.bfloat16)
    try:
        jax.eval_shape(partial(jax.nn.dot_product_attention, implementation="cudnn"), x, x, x)
    except (NotImplementedError, RuntimeError, ValueError):  # none, too old, or not for this GPU
        return False
    return float(jax.devices("gpu")[0].compute_capability) >= 8.0


def attend(kernel: str, qkv, heads: int, offset, bias=None):
    """Attention by a kernel, of qkv + offset, all queries first, then keys, then values -> (B, N, D) in qkv's dtype.

    kernel: `pallas`, or `cudnn`, which takes no bias. qkv: (B, N, 3D); offset: float32 (3D,). bias: None or float32
    (heads or 1, N or 1, N), added to the logits.
    """
    if kernel == "pallas":
        widen = chip().kind in OLD_TPUS and qkv.dtype == jnp.bfloat16
        return fused_attention.fused_attention(qkv, heads, offset, bias, None, widen)
    qkv = qkv + offset.astype(qkv.dtype)
    batch, tokens, width = qkv.shape
    query, key, value = jnp.moveaxis(qkv.reshape(batch, tokens, 3, heads, width // 3 // heads), 2, 0)
    mixed = jax.nn.dot_product_attention(query, key, value, implementation="cudnn")
    return mixed.reshape(batch, tokens, width // 3)


_noted: ContextVar[dict | None] = ContextVar("noted", default=None)


@contextmanager
def noted() -> Iterator[dict]:
    """Collects {(tokens, width, heads): Choice} of all transformers that are traced inside."""
    found = {}
    token = _noted.set(found)
    try:
        yield found
    finally:
        _noted.reset(token)


def pick(wish: str, shape: tuple, heads: int, dtype, bias: tuple | None) -> str:
    """The kernel for x of this shape, (B, N, D), on the chip that the program is for; noted for a plan."""
    choice = choose(wish, chip(), *shape[1:], heads, dtype, bias)
    if (found := _noted.get()) is not None:
        found[(*shape[1:], heads)] = choice
    return choice.kernel
