"""`load(PATH) -> Encoder`: from a run folder, or from an official file of another library."""

import importlib
import math
import re
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath

from jax_ssl import checkpoints, config
from jax_ssl.encoder import Encoder, freeze
from jax_ssl.errors import UserError
from jax_ssl.models import vit
from jax_ssl.models.decoder import Decoder
from jax_ssl.models.positions import sincos
from jax_ssl.weights.convert import check_shapes, convert
from jax_ssl.weights.read import read
from jax_ssl.weights.rules import SCHEMES, Scheme

HEADS = {192: 3, 384: 6, 768: 12, 1024: 16, 1280: 16, 1536: 24}  # of the published widths; no weights file tells
DECODER_HEADS = {512: 16}  # of every MAE decoder that was published
IMAGENET = dict(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))  # what the official encoders were trained on


def load(path, which: str | None = None, heads: int | None = None) -> Encoder:
    """A frozen encoder of normalised images (B, H, W, 3), with the mean, std and image side it was trained with.

    path: a run folder, or a .pth, .safetensors or .npz file with the names of timm (the official MAE, MoCo v3 and
        DINO) or of Hugging Face's ViTMAE. Width, depth, patch, grid and kind of positions are read from the tensors.
    which: "student" (default) or "teacher" of a run; the name of the network in a .pth file that holds several.
    heads: of the attention, which only the user knows for a width that was never published. By default as published
        (HEADS), and width / 16 for widths below 192.
    """
    if epath.Path(path).is_dir():
        if heads is not None:
            raise UserError(f"{path} is a run, whose config has its heads: leave heads={heads} out.")
        return _load_run(epath.Path(path), which or "student")
    tree, scheme = _read_file(path, which)
    backbone, params, size = _backbone(path, tree, scheme, heads)
    return Encoder(backbone, {"params": params}, size=size, **IMAGENET)


class Mae(NamedTuple):
    """A whole masked autoencoder; methods/mae.py's Net(backbone, decoder) applies to {"params": params}."""

    backbone: vit.ViT
    decoder: Decoder
    params: dict  # backbone, decoder


def load_mae(path, heads: int | None = None, decoder_heads: int | None = None) -> Mae:
    """Encoder and decoder of an official MAE file. heads as in `load`; decoder_heads: by default 16 at width 512."""
    tree, scheme = _read_file(path, None)
    if "decoder" not in tree:
        raise UserError(f"{path} holds an encoder without a decoder: take `load`, or MAE's file for visualisation.")
    backbone, params, size = _backbone(path, tree, scheme, heads)
    decoder_params, codes = tree["decoder"], tree["positions"]["decoder"]
    width, outputs = decoder_params["predict"]["kernel"].shape
    grid = (size // backbone.patch,) * 2
    fixed = _kind(codes) == "sincos_column"
    decoder_params |= {} if fixed else {"positions": codes}
    decoder = Decoder(
        width=width,
        depth=len(decoder_params["blocks"]["blocks"]["norm1"]["scale"]),
        heads=_heads(path, "decoder_heads", decoder_heads, width, DECODER_HEADS),
        outputs=outputs,
        epsilon=scheme.epsilon,
        positions="sincos" if fixed else "learned",
    )
    tokens = jax.ShapeDtypeStruct((1, 1, backbone.width), jnp.float32)
    restore = jax.ShapeDtypeStruct((1, math.prod(grid)), jnp.int32)
    abstract = jax.eval_shape(lambda t, r: decoder.init(jax.random.key(0), t[:, 0], t, r, grid), tokens, restore)
    check_shapes(decoder_params, abstract["params"], path)
    return Mae(backbone, decoder, {"backbone": params, "decoder": decoder_params})


def _load_run(folder: epath.Path, which: str) -> Encoder:
    if which not in ("student", "teacher"):
        raise UserError(f"which={which!r}: a run has a 'student' and, with some methods, a 'teacher'.")
    file = folder / "config.json"
    if not file.exists():
        raise UserError(f"{folder} is not the folder of a run: it has no config.json.")
    try:
        settings = config.from_json(file.read_text())
    except ValueError:
        raise UserError(f"{file} cannot be read as JSON; restore it from the command that started the run.") from None
    state, _ = checkpoints.load_raw(folder / "checkpoints", names=("params", "teacher", "extra"))
    if which == "teacher" and "backbone" not in state["teacher"]:
        raise UserError(f"{folder} is a run of {settings.method.name}, without a teacher: leave which='teacher' out.")
    model = dict(settings.model)
    backbone = importlib.import_module(f"jax_ssl.models.{model.pop('name')}").make(**model)
    image = dict(mean=tuple(settings.data.mean), std=tuple(settings.data.std), size=settings.data.eval_size)
    return freeze(backbone, state, which, **image)


def _read_file(path, which: str | None) -> tuple[dict, Scheme]:
    """The converted tensors and the scheme that their names follow."""
    arrays = read(path, which)
    holds = lambda pattern: any(re.fullmatch(pattern, name) for name in arrays)
    scheme = next((scheme for scheme in SCHEMES if holds(scheme.sign)), None)
    if scheme is None:
        some = ", ".join(sorted(arrays)[:3])
        known = " and ".join(scheme.name for scheme in SCHEMES)
        raise UserError(f"{path} has names that are not known here ({some}, ...): the naming schemes are {known}.")
    rules = scheme.encoder + (scheme.decoder if holds(scheme.decoder_sign) else ())
    return convert(arrays, rules, f"{path} ({scheme.name})"), scheme


def _backbone(path, tree: dict, scheme: Scheme, heads: int | None) -> tuple[vit.ViT, dict, int]:
    """The network that the tensors fit, its parameters, and the side of its images."""
    params, codes = tree["backbone"], tree["positions"]["backbone"]
    blocks, (inputs, width) = params["encoder"]["blocks"], params["embed"]["kernel"].shape
    patch, side = math.isqrt(inputs // 3), _side(codes)
    if side is None or codes.shape[-1] != width:
        raise UserError(f"{path} has position codes {codes.shape}, which is no square grid and a class token.")
    positions = _kind(codes)
    if positions == "learned":
        grid = codes[0, 1:].reshape(side, side, width)
        params = params | {"cls_position": codes[:, :1], "positions": grid}
    backbone = vit.make(
        patch=patch,
        width=width,
        depth=len(blocks["norm1"]["scale"]),
        heads=_heads(path, "heads", heads, width, HEADS),
        mlp_ratio=blocks["mlp"]["fc1"]["kernel"].shape[-1] / width,
        positions=positions, pool="cls", registers=0, layer_scale=0.0, drop_path=0.0,
        epsilon=scheme.epsilon, remat="none", dtype="float32",
    )  # fmt: skip
    images = jax.ShapeDtypeStruct((1, side * patch, side * patch, 3), jnp.float32)
    check_shapes(params, jax.eval_shape(backbone.init, jax.random.key(0), images)["params"], path)
    return backbone, params, side * patch


def _heads(path, name: str, given: int | None, width: int, published: dict) -> int:
    heads = given or published.get(width) or (width // 16 if width < 192 else None)
    if heads is None:
        raise UserError(f"{path} has width {width}, for which no number of heads is published: give {name}=.")
    return heads


def _side(codes: np.ndarray) -> int | None:
    """The side of the grid of position codes (1, 1 + N, D), the class token's first; None if N is no square."""
    if codes.ndim != 3 or len(codes) != 1 or codes.shape[1] < 2:
        return None
    side = math.isqrt(codes.shape[1] - 1)
    return side if side**2 == codes.shape[1] - 1 else None


def _kind(codes: np.ndarray) -> str:
    """Which of vit.py's kinds of positions the codes (1, 1 + N, D) are."""
    side, width = _side(codes), codes.shape[-1]
    for first in ("column", "row"):
        fixed = np.concatenate([np.zeros((1, width)), sincos((side, side), width, first)]) if width % 4 == 0 else 0
        if np.allclose(codes[0], fixed, rtol=0, atol=1e-5):
            return f"sincos_{first}"
    return "learned"
