"""A folder as Transformers saves a network: tensors in one or several files, and config.json, which knows the heads."""

import json

from etils import epath

from jax_ssl.errors import UserError
from jax_ssl.weights.read import ENDINGS, File, open_file
from jax_ssl.weights.rules import Scheme
from jax_ssl.weights.schemes import OF_TIMM

WHOLE = ("model.safetensors", "pytorch_model.bin")  # the first one that there is is read
OTHERS = (".msgpack", ".h5", ".keras", ".onnx", ".gguf", ".distcp", ".index")
PARTS = tuple(f"{name}.index.json" for name in WHOLE)  # which names the files, where there are several


def is_hub(folder: epath.Path) -> bool:
    return any((folder / name).exists() for name in (*WHOLE, *PARTS))


def folder_of(path: epath.Path) -> epath.Path | None:
    """The folder that is meant by itself, or by a file in it that has a config.json beside it; else None."""
    if path.is_dir():
        return path if is_hub(path) else None
    return path.parent if path.name in (*WHOLE, *PARTS) and (path.parent / "config.json").exists() else None


def check_run(folder: epath.Path) -> None:
    """Raises UserError for a folder with files of weights that is no run."""
    files = [] if (folder / "checkpoints").exists() else sorted(file.name for file in folder.iterdir())
    ours, others = ([name for name in files if name.lower().endswith(known)] for known in (ENDINGS, OTHERS))
    if ours:
        raise UserError(f"{folder} is no run and has no {' or '.join(WHOLE)}: name a file, such as {folder / ours[0]}.")
    if others:
        raise UserError(f"{folder} holds weights of a kind that is not read here, {others[0]}: get .safetensors ones.")


def open_hub(folder: epath.Path) -> File:
    """The tensors of all files of such a folder as one opened file. Raises UserError."""
    found = next(folder / name for pair in zip(WHOLE, PARTS) for name in pair if (folder / name).exists())
    if found.name in WHOLE:
        return open_file(found)._replace(path=folder)
    shards, ending = sorted(set(read_json(found).get("weight_map", {}).values())), found.name.split(".")[1]
    if not shards or not all(isinstance(name, str) and name.endswith(f".{ending}") for name in shards):
        raise UserError(f"{found} names no .{ending} files: fetch the folder again.")
    if any("/" in name or "\\" in name for name in shards):
        raise UserError(f"{found} names files outside of the folder: fetch it again from where you trust.")
    files = [open_file(folder / name) for name in shards]
    tree = {name: tensor for file in files for name, tensor in file.tree.items()}
    return File(folder, files[0].kind, tree, sum(file.size for file in files))


def informed(scheme: Scheme, folder: epath.Path) -> tuple[Scheme, int | None]:
    """(the scheme with what config.json and preprocessor_config.json say, the number of heads or None).

    A config.json of timm says the colours itself; timm resizes positions in its own way.
    """
    about = read_json(folder / "config.json")
    about, of_timm = about.get("vision_config") or about, about.get("pretrained_cfg") or {}
    images = read_json(folder / "preprocessor_config.json")
    for said, mean, std in ((images, "image_mean", "image_std"), (of_timm, "mean", "std")):
        if mean in said and std in said:
            scheme = scheme._replace(pixels=dict(mean=tuple(said[mean]), std=tuple(said[std])))
    if of_timm and scheme.kind == "vit":
        scheme = scheme._replace(model=OF_TIMM | scheme.model)
    if isinstance(about.get("layer_norm_eps"), float):
        scheme = scheme._replace(epsilon=about["layer_norm_eps"])
    if scheme.question and about.get("hidden_act", "quick_gelu") in ("gelu", "quick_gelu"):
        act = about.get("hidden_act", "quick_gelu")
        scheme = scheme._replace(model=scheme.model | {"mlp": act}, question="")
    size = about.get("image_size", (of_timm.get("input_size") or ())[-2:])
    if isinstance(size, list) and len(size) == 2 and all(isinstance(side, int) and side > 0 for side in size):
        scheme = scheme._replace(size=tuple(size))
    heads = about.get("num_attention_heads")
    return scheme, heads if isinstance(heads, int) and heads > 0 else None


def read_json(file: epath.Path) -> dict:
    """The object in a file, {} where it is missing. Raises UserError."""
    try:
        found = json.loads(file.read_text()) if file.exists() else {}
    except (ValueError, RecursionError) as error:
        raise UserError(f"{file} is no JSON file ({error}): fetch it again.") from error
    return found if isinstance(found, dict) else {}
