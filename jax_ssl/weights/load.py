"""`load(PATH) -> Encoder`: from a run folder, from an official file of another library, or from an imported folder."""

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
from jax_ssl.views.sizes import Size, sides
from jax_ssl.weights import hub, imported
from jax_ssl.weights.convert import check_shapes, convert
from jax_ssl.weights.find import Found, choose, schemes_of
from jax_ssl.weights.network import DECODER_HEADS, Network, grid_of_codes, heads_of, kind_of, network
from jax_ssl.weights.read import File, open_file
from jax_ssl.weights.rules import convolution, patch_kernel
from jax_ssl.weights.schemes import IJEPA_PREDICTOR

PREDICTOR_HEADS = {384: 16}  # {width: heads} of all published I-JEPA predictors


def load(
    path, which: str | None = None, heads: int | None = None, family: str | None = None, size: Size | None = None
) -> Encoder:
    """A frozen encoder of normalised images (B, H, W, 3), with the mean, std and image size it was trained with.

    path: a run folder, a folder of `weights import`, one as Transformers saves it, a .pth, .safetensors or .npz file of
        one of `families.FAMILIES`, or the name of an official one. The architecture is read from the tensors: width,
        depth, patch, grid, positions, registers, layer scale, MLP, relative positions, stages.
    which: "student" (default) or "teacher" of a run; the name of the network in a file that holds several.
    heads: number of attention heads, which files do not hold. By default the published number for the width
        (network.py, HEADS), and width / 16 for widths below 192.
    family: a key of FAMILIES; by default what the names of the tensors say.
    size: (height, width) of the images that it was trained on, where they are no squares and nothing else says it.
    Raises UserError for what cannot be loaded.
    """
    folder = paths.resolve(path)
    if folder.is_dir() and not hub.is_hub(folder):
        for name, given in (("heads", heads), ("family", family), ("size", size)):
            if given is not None:
                kind = "an imported network, which" if imported.is_imported(folder) else "a run, and its config"
                raise UserError(f"{path} is {kind} says that by itself: leave {name}={given} out.")
        if imported.is_imported(folder):
            return encoder_of(imported.read(folder, which))
        hub.check_run(folder)
        return _load_run(folder, which or "student")
    return encoder_of(load_network(open_weights(path), which, heads, family, size))


def encoder_of(network: Network) -> Encoder:
    return Encoder(network.backbone, network.variables, size=network.size, **network.pixels)


def open_weights(path) -> File:
    """Opens a file, the official one of this name, or a folder as Transformers saves it. Raises UserError."""
    folder = hub.folder_of(paths.resolve(path))
    return open_file(path) if folder is None else hub.open_hub(folder)


def load_network(
    file: File, which: str | None = None, heads: int | None = None, family: str | None = None, size: Size | None = None
) -> Network:
    """The network of a file, with all parts that the file has and our methods know; arguments as of `load`."""
    found = choose(file, which, schemes_of(family))
    if file.path.is_dir():
        scheme, known = hub.informed(found.scheme, file.path)
        found, heads = found._replace(scheme=scheme), heads or known
    if size is not None:
        found = found._replace(scheme=found.scheme._replace(size=size))
    return network(file.path, converted(file, found), found.scheme, heads)


def converted(file: File, found: Found) -> dict:
    """The tensors of a network under our names. Raises UserError."""
    tensors, _, _ = found.sorted()
    if found.scheme.question:
        raise UserError(f"{file.path}: {found.scheme.question}.")
    check_input(file, found)
    return convert(tensors, found.rules, f"{file.path} ({found.scheme.name})")


def check_input(file: File, found: Found) -> None:
    """Raises UserError for a network of other images than square patches or pixels in three colours."""
    stems = [rule for rule in found.rules if rule.transform in (patch_kernel, convolution)]
    for name, tensor in found.inside.items():
        if not any(rule.target in INPUTS and re.fullmatch(rule.pattern, name) for rule in stems):
            continue
        shape = tuple(tensor.shape)
        if len(shape) == 4 and shape[1] != 3:
            raise UserError(f"{file.path} takes images of {shape[1]} channels, and images here have 3 (RGB).")
        if len(shape) == 4 and (shape[2] != shape[3] or not shape[2]):
            raise UserError(f"{file.path} has patches of {shape[2]} x {shape[3]} pixels, and they must be square.")


INPUTS = ("backbone/embed/kernel", "backbone/Conv_0/kernel")


class Mae(NamedTuple):
    """A whole masked autoencoder; methods/mae.py's Net(backbone, decoder) applies to {"params": params}."""

    backbone: vit.ViT
    decoder: Decoder
    params: dict  # backbone, decoder


def load_mae(path, heads: int | None = None, decoder_heads: int | None = None) -> Mae:
    """Encoder and decoder of an official MAE file. heads as in `load`; decoder_heads: by default 16 at width 512."""
    file = open_file(path)
    found = choose(file, None)
    tree = converted(file, found)
    if "decoder" not in tree:
        raise UserError(f"{path} holds an encoder without a decoder: take `load`, or MAE's file for visualisation.")
    whole = network(path, tree, found.scheme, heads)
    backbone, params = whole.backbone, whole.params["decoder"]
    width, outputs = params["predict"]["kernel"].shape
    grid = tuple(side // backbone.patch for side in sides(whole.size))
    decoder = Decoder(
        width=width,
        depth=len(params["blocks"]["blocks"]["norm1"]["scale"]),
        heads=heads_of(path, "decoder_heads", decoder_heads, width, DECODER_HEADS),
        outputs=outputs,
        epsilon=found.scheme.epsilon,
        positions="learned" if "positions" in params else "sincos",
    )
    tokens = jax.ShapeDtypeStruct((1, 1, backbone.width), jnp.float32)
    restore = jax.ShapeDtypeStruct((1, math.prod(grid)), jnp.int32)
    abstract = jax.eval_shape(lambda t, r: decoder.init(jax.random.key(0), t[:, 0], t, r, grid), tokens, restore)
    check_shapes(params, abstract["params"], path)
    return Mae(backbone, decoder, {"backbone": whole.params["backbone"], "decoder": params})


def load_predictor(path, which: str | None = None, heads: int | None = None) -> tuple[Predictor, dict]:
    """I-JEPA's official predictor and its parameters. heads: by default 16 at width 384; which as in `load`."""
    file = open_file(path)
    found = choose(file, which, (IJEPA_PREDICTOR,))
    tree = converted(file, found)
    params, codes = tree["predictor"], tree["positions"]["predictor"]
    inputs, width = params["embed"]["kernel"].shape
    grid = grid_of_codes(codes, 0, None)
    if grid is None:
        raise UserError(f"{path} has positions of shape {codes.shape}, not a square grid.")
    fixed = kind_of(codes, 0, grid) == "sincos_column"
    params |= {} if fixed else {"positions": codes}
    predictor = Predictor(
        width=width,
        depth=len(params["blocks"]["blocks"]["norm1"]["scale"]),
        heads=heads_of(path, "heads", heads, width, PREDICTOR_HEADS),
        outputs=params["predict"]["kernel"].shape[-1],
        epsilon=found.scheme.epsilon,
        positions="sincos" if fixed else "learned",
    )
    tokens = jax.ShapeDtypeStruct((1, 1, inputs), jnp.float32)
    context, targets = (jax.ShapeDtypeStruct(shape, jnp.int32) for shape in ((1, 1), (1, 1, 1)))
    init = lambda *args: predictor.init(jax.random.key(0), *args, grid)
    check_shapes(params, jax.eval_shape(init, tokens, context, targets)["params"], path)
    return predictor, params


def _load_run(folder: epath.Path, which: str) -> Encoder:
    if which not in ("student", "teacher"):
        raise UserError(f"which={which!r}: a run has a 'student' and, with some methods, a 'teacher'.")
    settings = config.of_run(folder)
    state, _ = checkpoints.load_raw(folder / "checkpoints", names=checkpoints.WITHOUT_OPTIMISER)
    if which == "teacher" and "backbone" not in state["teacher"]:
        raise UserError(f"{folder} is a run of {settings.method.name}, without a teacher: leave which='teacher' out.")
    return freeze(parts.network_of(settings), state, which, **parts.images_of(settings))
