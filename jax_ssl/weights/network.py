"""The vision transformer that the converted tensors of a file belong to."""

import math

import jax
import jax.numpy as jnp
import numpy as np

from jax_ssl.errors import UserError
from jax_ssl.models import vit
from jax_ssl.models.positions import sincos
from jax_ssl.weights.convert import check_shapes
from jax_ssl.weights.rules import Scheme

HEADS = {192: 3, 384: 6, 768: 12, 1024: 16, 1280: 16, 1408: 16, 1536: 24}  # {width: heads} as published


def network(path, tree: dict, scheme: Scheme, heads: int | None) -> tuple[vit.ViT, dict, int]:
    """The network that the tensors fit, its parameters, and the side of its images in pixels. Raises UserError."""
    params, codes = dict(tree["backbone"]), tree.get("positions", {}).get("backbone")
    encoder, (inputs, width) = params["encoder"], params["embed"]["kernel"].shape
    blocks, patch, first = encoder["blocks"], math.isqrt(inputs // 3), int("cls_token" in params)
    tables = {"shared": encoder.get("relative_bias"), "block": blocks.get("relative_bias")}
    relative, table = next(((kind, t["table"]) for kind, t in tables.items() if t), ("none", None))
    side = table_side(table, first) if codes is None else grid_side(codes, first)
    if side is None or (codes is not None and codes.shape[-1] != width):
        shape = np.shape(table if codes is None else codes)
        raise UserError(f"{path} has positions of shape {shape}, not a square grid{' and a class token' * first}.")
    positions = "none" if codes is None else kind_of(codes, first)
    if positions == "learned":
        params["positions"] = codes[0, first:].reshape(side, side, width)
        params |= {"cls_position": codes[:, :1]} if first else {}
    if "pooled_norm" in tree:
        params["norm"] = tree["pooled_norm"]
    registers = params["registers"].shape[1] if "registers" in params else 0
    net = vit.make(
        patch=patch,
        width=width,
        depth=len(blocks["norm1"]["scale"]),
        heads=table.shape[-1] if table is not None else heads_of(path, "heads", heads, width, HEADS),
        positions=positions,
        pool=("norm_of_mean" if "pooled_norm" in tree else "cls") if first else "mean",
        registers=registers,
        layer_scale=float("gamma1" in blocks),  # whether it exists; the initial value does not matter
        key_bias="query_bias" not in blocks["attention"],
        relative_bias=relative,
        # The hub's DINOv2 with registers resizes positions in its own way, dinov2/hub/backbones.py.
        position_offset=0.0 if registers or positions != "learned" else scheme.offset,
        position_antialias=registers > 0,
        drop_path=0.0, epsilon=scheme.epsilon, remat="none", dtype="float32", **mlp(blocks["mlp"], width),
    )  # fmt: skip
    images = jax.ShapeDtypeStruct((1, side * patch, side * patch, 3), jnp.float32)
    mask = jax.ShapeDtypeStruct((1, side**2), bool) if "mask_token" in params else None
    abstract = jax.eval_shape(lambda x, m: net.init(jax.random.key(0), x, mask=m), images, mask)
    check_shapes(params, abstract["params"], path)
    return net, params, side * patch


def mlp(tensors: dict, width: int) -> dict:
    """The keywords of `vit.make` for the MLP with these tensors."""
    if "w12" in tensors:  # the hidden width is two thirds of the ratio, see SwiGlu
        return dict(mlp="swiglu", mlp_ratio=1.5 * tensors["w3"]["kernel"].shape[-2] / width)
    return dict(mlp="gelu", mlp_ratio=tensors["fc1"]["kernel"].shape[-1] / width)


def heads_of(path, name: str, given: int | None, width: int, published: dict) -> int:
    """The number of heads: as given, as published for this width, or width / 16 below 192. Raises UserError."""
    heads = given or published.get(width) or (width // 16 if width < 192 else None)
    if heads is None:
        raise UserError(f"{path} has width {width}, for which no number of heads is published: give {name}=.")
    return heads


def grid_side(codes: np.ndarray, first: int) -> int | None:
    """The side of the grid of positions (1, first + N, D); None if N is not a square. first: 1 with a class token."""
    if codes.ndim != 3 or len(codes) != 1 or codes.shape[1] <= first:
        return None
    side = math.isqrt(codes.shape[1] - first)
    return side if side**2 == codes.shape[1] - first else None


def table_side(table: np.ndarray | None, first: int) -> int | None:
    """The side of the grid of a table of relative positions (..., (2 side - 1)^2 + 3 first, heads)."""
    offsets = 0 if table is None else table.shape[-2] - 3 * first
    length = math.isqrt(max(offsets, 0))
    return (length + 1) // 2 if length**2 == offsets and length % 2 else None


def kind_of(codes: np.ndarray, first: int) -> str:
    """The kind of positions (1, first + N, D), as vit.py calls it."""
    side, width = grid_side(codes, first), codes.shape[-1]
    for axis in ("column", "row") if width % 4 == 0 else ():
        fixed = np.concatenate([np.zeros((first, width)), sincos((side, side), width, axis)])
        if np.allclose(codes[0], fixed, rtol=0, atol=1e-5):
            return f"sincos_{axis}"
    return "learned"
