"""`load(PATH) -> Encoder`: from a run folder, or from an official file of another library."""

import math
import re
from typing import NamedTuple

import jax
import jax.numpy as jnp
from etils import epath

from jax_ssl import config, parts, paths
from jax_ssl.encoder import Encoder, freeze
from jax_ssl.errors import UserError
from jax_ssl.models import vit
from jax_ssl.models.decoder import Decoder
from jax_ssl.models.predictor import Predictor
from jax_ssl.run import checkpoints
from jax_ssl.weights.convert import check_shapes, convert
from jax_ssl.weights.network import grid_side, heads_of, kind_of, network
from jax_ssl.weights.read import read
from jax_ssl.weights.rules import Scheme
from jax_ssl.weights.schemes import IJEPA_PREDICTOR, SCHEMES

DECODER_HEADS = {512: 16}  # {width: heads} of all published MAE decoders
PREDICTOR_HEADS = {384: 16}  # {width: heads} of all published I-JEPA predictors


def load(path, which: str | None = None, heads: int | None = None) -> Encoder:
    """A frozen encoder of normalised images (B, H, W, 3), with the mean, std and image side it was trained with.

    path: a run folder, or a .pth, .safetensors or .npz file with the names of the official MAE, MoCo v3, DINO, iBOT,
        DINOv2, I-JEPA, BEiT or SimMIM, or of Hugging Face's ViTMAE or BEiT. The architecture is read from the
        tensors: width, depth, patch, grid, positions, registers, layer scale, MLP, relative positions.
    which: "student" (default) or "teacher" of a run; the name of the network in a .pth file that holds several.
    heads: number of attention heads, which files do not hold. By default the published number for the width
        (network.py, HEADS), and width / 16 for widths below 192.
    Raises UserError for what cannot be loaded.
    """
    if paths.resolve(path).is_dir():
        if heads is not None:
            raise UserError(f"{path} is a run, and its config says the number of heads: leave heads={heads} out.")
        return _load_run(paths.resolve(path), which or "student")
    tree, scheme = _read_file(path, which)
    backbone, params, size = network(path, tree, scheme, heads)
    return Encoder(backbone, {"params": params}, size=size, **scheme.pixels)


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
    backbone, params, size = network(path, tree, scheme, heads)
    decoder_params, codes = tree["decoder"], tree["positions"]["decoder"]
    width, outputs = decoder_params["predict"]["kernel"].shape
    grid = (size // backbone.patch,) * 2
    fixed = grid_side(codes, 1) is not None and kind_of(codes, 1) == "sincos_column"
    decoder_params |= {} if fixed else {"positions": codes}
    decoder = Decoder(
        width=width,
        depth=len(decoder_params["blocks"]["blocks"]["norm1"]["scale"]),
        heads=heads_of(path, "decoder_heads", decoder_heads, width, DECODER_HEADS),
        outputs=outputs,
        epsilon=scheme.epsilon,
        positions="sincos" if fixed else "learned",
    )
    tokens = jax.ShapeDtypeStruct((1, 1, backbone.width), jnp.float32)
    restore = jax.ShapeDtypeStruct((1, math.prod(grid)), jnp.int32)
    abstract = jax.eval_shape(lambda t, r: decoder.init(jax.random.key(0), t[:, 0], t, r, grid), tokens, restore)
    check_shapes(decoder_params, abstract["params"], path)
    return Mae(backbone, decoder, {"backbone": params, "decoder": decoder_params})


def load_predictor(path, which: str | None = None, heads: int | None = None) -> tuple[Predictor, dict]:
    """I-JEPA's official predictor and its parameters. heads: by default 16 at width 384; which as in `load`."""
    tree, scheme = _read_file(path, which, (IJEPA_PREDICTOR,))
    params, codes = tree["predictor"], tree["positions"]["predictor"]
    inputs, width = params["embed"]["kernel"].shape
    side = grid_side(codes, 0)
    if side is None:
        raise UserError(f"{path} has positions of shape {codes.shape}, not a square grid.")
    fixed = kind_of(codes, 0) == "sincos_column"
    params |= {} if fixed else {"positions": codes}
    predictor = Predictor(
        width=width,
        depth=len(params["blocks"]["blocks"]["norm1"]["scale"]),
        heads=heads_of(path, "heads", heads, width, PREDICTOR_HEADS),
        outputs=params["predict"]["kernel"].shape[-1],
        epsilon=scheme.epsilon,
        positions="sincos" if fixed else "learned",
    )
    tokens = jax.ShapeDtypeStruct((1, 1, inputs), jnp.float32)
    context, targets = (jax.ShapeDtypeStruct(shape, jnp.int32) for shape in ((1, 1), (1, 1, 1)))
    init = lambda *args: predictor.init(jax.random.key(0), *args, (side, side))
    check_shapes(params, jax.eval_shape(init, tokens, context, targets)["params"], path)
    return predictor, params


def _load_run(folder: epath.Path, which: str) -> Encoder:
    if which not in ("student", "teacher"):
        raise UserError(f"which={which!r}: a run has a 'student' and, with some methods, a 'teacher'.")
    settings = config.of_run(folder)
    state, _ = checkpoints.load_raw(folder / "checkpoints", names=("params", "teacher", "extra"))
    if which == "teacher" and "backbone" not in state["teacher"]:
        raise UserError(f"{folder} is a run of {settings.method.name}, without a teacher: leave which='teacher' out.")
    return freeze(parts.make_backbone(settings), state, which, **parts.images_of(settings))


def _read_file(path, which: str | None, schemes: tuple[Scheme, ...] = SCHEMES) -> tuple[dict, Scheme]:
    """The converted tensors and the scheme that their names follow."""
    arrays = read(path, which)
    if all(name.startswith("module.") for name in arrays):  # as torch's DistributedDataParallel saves them
        arrays = {name.removeprefix("module."): array for name, array in arrays.items()}
    holds = lambda pattern: any(re.fullmatch(pattern, name) for name in arrays)
    scheme = next((scheme for scheme in schemes if holds(scheme.sign) and not holds(scheme.without)), None)
    if scheme is None:
        some = ", ".join(sorted(arrays)[:3])
        known = ", ".join(scheme.name for scheme in schemes)
        raise UserError(f"{path} has unknown names of tensors ({some}, ...): the known naming schemes are {known}.")
    rules = scheme.rules + tuple(rule for part in scheme.parts if holds(part.sign) for rule in part.rules)
    arrays = {name: array for name, array in arrays.items() if not re.fullmatch(scheme.ignored, name)}
    return convert(arrays, rules, f"{path} ({scheme.name})"), scheme
