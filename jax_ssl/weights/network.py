"""The network that the converted tensors of a file belong to."""

import math
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jax_ssl.errors import UserError
from jax_ssl.models import resnet
from jax_ssl.models.positions import sincos
from jax_ssl.parts import find_module, without_name
from jax_ssl.views.sizes import Size, sides, size_of
from jax_ssl.weights.convert import check_shapes
from jax_ssl.weights.rules import Scheme

HEADS = {192: 3, 384: 6, 768: 12, 1024: 16, 1280: 16, 1408: 16, 1536: 24}  # {width: heads} as published
DECODER_HEADS = {512: 16}  # {width: heads} of all published MAE decoders
PARTS = ("projector", "patch_projector", "predictor", "decoder", "prototypes")  # besides the backbone


class Network(NamedTuple):
    """A network with its weights.

    model: `name` and keywords of a file of models/. params: {"backbone": tree, ...}, other parts by the names that our
    methods have for them. stats: {"batch_stats": {part: tree}}. extra: what a method remembers, such as a center.
    pixels: mean and std of its images; size: that of its images, see views/sizes.py. stage: of a run, the backbone
    behind the input on which its method trains it; None where that is the whole image in colour.
    """

    scheme: str
    model: dict
    params: dict
    stats: dict
    extra: dict
    pixels: dict
    size: Size
    stage: nn.Module | None = None

    @property
    def backbone(self):
        """The Flax module, its input stage included."""
        return self.stage or find_module("models", self.model["name"]).make(**without_name(self.model))

    @property
    def variables(self) -> dict:
        """The variables of the backbone."""
        stats = {kind: parts["backbone"] for kind, parts in self.stats.items() if "backbone" in parts}
        return {"params": self.params["backbone"], **stats}


def network(path, tree: dict, scheme: Scheme, heads: int | None) -> Network:
    """The network that converted tensors fit. heads: by default what is published for its width. Raises UserError."""
    makers = {"vit": vit_of, "resnet": resnet_of}
    model, params, size = makers[scheme.kind](path, tree, scheme, heads)
    parts = {name: dict(value) for name, value in tree.items() if name in PARTS}
    for name, codes in tree.get("positions", {}).items():  # a decoder's with a class token, a predictor's without
        first = int(name == "decoder")
        grid = grid_of_codes(codes, first, tuple(side // model["patch"] for side in sides(size)))
        if name in parts and not (grid and kind_of(codes, first, grid) == "sincos_column"):
            parts[name]["positions"] = codes
    for part in parts.values():
        if "length" in part and np.all(part["length"] == 1):  # DINO's norm_last_layer: prototypes of length one
            del part["length"]
    made = Network(scheme.name, model, {"backbone": params} | parts, tree.get("stats", {}), tree.get("extra", {}),
                   scheme.pixels, size)  # fmt: skip
    mask = None
    if "mask_token" in params:
        mask = jax.ShapeDtypeStruct((1, math.prod(side // model["patch"] for side in sides(size))), bool)
    images = jax.ShapeDtypeStruct((1, *sides(size), 3), jnp.float32)
    hidden = {} if mask is None else {"mask": mask}
    init = lambda x, hidden: made.backbone.init(jax.random.key(0), x, **hidden)
    abstract = dict(jax.eval_shape(init, images, hidden))
    check_shapes(made.params["backbone"], abstract.pop("params"), path)
    check_shapes({name: made.variables.get(name, {}) for name in abstract}, abstract, path)
    return made


def vit_of(path, tree: dict, scheme: Scheme, heads: int | None) -> tuple[dict, dict, Size]:
    """(model, parameters, size of the images) of a vision transformer."""
    params = dict(tree["backbone"])
    inputs, width = params["embed"]["kernel"].shape
    blocks, patch, first = params["encoder"]["blocks"], math.isqrt(inputs // 3), int("cls_token" in params)
    relative, table = relative_of(params["encoder"])
    positions, grid, learned = positions_of(path, tree, scheme, table)
    params |= learned | ({"norm": tree["pooled_norm"]} if "pooled_norm" in tree else {})
    params["embed"] = {"bias": np.zeros(width, np.float32)} | params["embed"]  # CLIP's has none
    registers = params["registers"].shape[1] if "registers" in params else 0
    # MoCo v3 gives its narrowest network more heads than others.
    published = HEADS | scheme.heads | ({384: 12} if positions == "sincos_row" else {})
    if "rotary" in tree:
        heads = heads or heads_of_periods(path, tree["rotary"]["periods"], width)
    model = dict(
        name="vit",
        patch=patch,
        width=width,
        depth=len(blocks["norm1"]["scale"]),
        heads=table.shape[-1] if table is not None else heads_of(path, "heads", heads, width, published),
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
    return model | scheme.model, params, size_of(*(side * patch for side in grid))


def relative_of(encoder: dict) -> tuple[str, np.ndarray | None]:
    """(the kind of relative positions, as vit.py calls it, its table)."""
    tables = {"shared": encoder.get("relative_bias"), "block": encoder["blocks"].get("relative_bias")}
    return next(((kind, found["table"]) for kind, found in tables.items() if found), ("none", None))


def positions_of(path, tree: dict, scheme: Scheme, table) -> tuple[str, tuple[int, int], dict]:
    """(the kind of positions, the grid of patches, parameters of learned ones). Raises UserError."""
    codes, params = tree.get("positions", {}).get("backbone"), tree["backbone"]
    (inputs, width), first = params["embed"]["kernel"].shape, int("cls_token" in params)
    patch = math.isqrt(inputs // 3)
    told = None if scheme.size is None else tuple(side // patch for side in sides(scheme.size))
    if scheme.model.get("positions") == "rotary":
        return "rotary", (max(224 // patch, 1),) * 2, {}
    if codes is not None and first and grid_of_codes(codes, 1, told) is None and grid_of_codes(codes, 0, told):
        codes = np.concatenate([np.zeros_like(codes[:, :1]), codes], axis=1)  # timm's class token without a position
    grid = grid_of_table(table, first) if codes is None else grid_of_codes(codes, first, told)
    if grid is None or (codes is not None and codes.shape[-1] != width):
        shape, token = np.shape(table if codes is None else codes), " and a class token" * first
        remedy = "" if codes is None else "; if its images are no squares, import it with their --size=HEIGHTxWIDTH"
        raise UserError(f"{path} has positions of shape {shape}, not a square grid{token}{remedy}.")
    kind = "none" if codes is None else kind_of(codes, first, grid)
    if kind != "learned":
        return kind, grid, {}
    learned = {"positions": codes[0, first:].reshape(*grid, width)}
    return kind, grid, learned | ({"cls_position": codes[:, :1]} if first else {})


def resnet_of(path, tree: dict, scheme: Scheme, heads: int | None) -> tuple[dict, dict, Size]:
    """(model, parameters, size of the images) of a residual network, whose stages differ in their widths."""
    params = tree["backbone"]
    stem, blocks = params["Conv_0"]["kernel"], [params[f"Block_{i}"] for i in range(len(params) - 2)]
    if heads is not None:
        raise UserError(f"{path} is a ResNet, which has no heads: leave heads={heads} out.")
    bottleneck = bool(blocks) and blocks[0]["Conv_0"]["kernel"].shape[0] == 1
    widths = [block["BatchNorm_2" if bottleneck else "BatchNorm_1"]["scale"].shape[0] for block in blocks]
    stages = tuple(widths.count(width) for width in dict.fromkeys(widths))
    depths = (depth for depth, known in resnet.STAGES.items() if known == stages and (depth >= 50) == bottleneck)
    depth = next(depths, None)
    model = dict(
        name="resnet", depth=depth or (50 if bottleneck else 18), width=stem.shape[-1] / 64,
        stem="imagenet" if stem.shape[0] == 7 else "cifar", patch=4, stages=() if depth else stages, norm_groups=1,
        zero_init=False, dtype="float32",
    )  # fmt: skip
    return model | scheme.model, params, 224 if model["stem"] == "imagenet" else 32


def mlp(tensors: dict, width: int) -> dict:
    """The keywords of `vit.make` for the MLP with these tensors."""
    if "w12" in tensors:  # the hidden width is two thirds of the ratio, see SwiGlu
        return dict(mlp="swiglu", mlp_ratio=1.5 * tensors["w3"]["kernel"].shape[-2] / width)
    hidden = tensors["fc1"]["kernel"].shape[-1]
    exact = int(width * (hidden / width)) == hidden  # else the product is rounded down to one less
    return dict(mlp="gelu", mlp_ratio=(hidden if exact else hidden + 0.5) / width)


def heads_of(path, name: str, given: int | None, width: int, published: dict) -> int:
    """The number of heads: as given, as published for this width, or width / 16 below 192. Raises UserError."""
    heads = given or known_heads(width, published)
    if heads is None:
        raise UserError(f"{path} has width {width}, for which no number of heads is published: give {name}=.")
    return heads


def known_heads(width: int, published: dict) -> int | None:
    """The number of heads that is published for this width, or width / 16 below 192; else None."""
    return published.get(width) or (width // 16 if width < 192 else None)


def heads_of_periods(path, periods: np.ndarray, width: int) -> int:
    """The number of heads that DINOv3's periods are for, a quarter of a head's channels. Raises UserError."""
    size = 4 * len(periods)
    if width % size or not np.allclose(periods, 100.0 ** (2 * np.arange(size // 4) / (size // 2)), rtol=0.02):
        raise UserError(f"{path} has rotary positions of other periods than those of base 100, which are known here.")
    return width // size


def grid_of_codes(codes: np.ndarray, first: int, told: tuple[int, int] | None) -> tuple[int, int] | None:
    """The grid of positions (1, first + N, D): the one that was told if it has N, else a square, else None.

    first: 1 with a class token.
    """
    if codes.ndim != 3 or len(codes) != 1 or codes.shape[1] <= first:
        return None
    count = codes.shape[1] - first
    if told and math.prod(told) == count:
        return told
    side = math.isqrt(count)
    return (side, side) if side**2 == count else None


def grid_of_table(table: np.ndarray | None, first: int) -> tuple[int, int] | None:
    """The square grid of a table of relative positions (..., (2 side - 1)^2 + 3 first, heads)."""
    offsets = 0 if table is None else table.shape[-2] - 3 * first
    length = math.isqrt(max(offsets, 0))
    return ((length + 1) // 2,) * 2 if length**2 == offsets and length % 2 else None


def kind_of(codes: np.ndarray, first: int, grid: tuple[int, int]) -> str:
    """The kind of positions (1, first + N, D), as vit.py calls it."""
    width = codes.shape[-1]
    for axis in ("column", "row") if width % 4 == 0 else ():
        fixed = np.concatenate([np.zeros((first, width)), sincos(grid, width, axis)])
        if np.allclose(codes[0], fixed, rtol=0, atol=1e-5):
            return f"sincos_{axis}"
    return "learned"
