"""A folder as Transformers saves a network: tensors in one or several files, and config.json, which knows the heads."""

import json

from etils import epath

from jax_ssl.errors import UserError
from jax_ssl.weights.read import File, open_file
from jax_ssl.weights.rules import Scheme

ARRAYS, INDEX, TORCH = "model.safetensors", "model.safetensors.index.json", "pytorch_model.bin"


def is_hub(folder: epath.Path) -> bool:
    return any((folder / name).exists() for name in (ARRAYS, INDEX, TORCH))


def open_hub(folder: epath.Path) -> File:
    """The tensors of all files of such a folder as one opened file. Raises UserError."""
    if (folder / INDEX).exists() and not (folder / ARRAYS).exists():
        shards = sorted(set(read_json(folder / INDEX).get("weight_map", {}).values()))
        if not shards or not all(isinstance(name, str) and name.endswith(".safetensors") for name in shards):
            raise UserError(f"{folder / INDEX} names no .safetensors files: fetch the folder again.")
        if any("/" in name or "\\" in name for name in shards):
            raise UserError(f"{folder / INDEX} names files outside of the folder: fetch it again from where you trust.")
        files = [open_file(folder / name) for name in shards]
        tree = {name: tensor for file in files for name, tensor in file.tree.items()}
        return File(folder, "safetensors", tree, sum(file.size for file in files))
    return open_file(folder / (ARRAYS if (folder / ARRAYS).exists() else TORCH))._replace(path=folder)


def informed(scheme: Scheme, folder: epath.Path) -> tuple[Scheme, int | None]:
    """(the scheme with what config.json and preprocessor_config.json say, the number of heads or None)."""
    about = read_json(folder / "config.json")
    about = about.get("vision_config") or about
    images = read_json(folder / "preprocessor_config.json")
    if "image_mean" in images and "image_std" in images:
        scheme = scheme._replace(pixels=dict(mean=tuple(images["image_mean"]), std=tuple(images["image_std"])))
    if isinstance(about.get("layer_norm_eps"), float):
        scheme = scheme._replace(epsilon=about["layer_norm_eps"])
    if scheme.question and about.get("hidden_act", "quick_gelu") in ("gelu", "quick_gelu"):
        act = about.get("hidden_act", "quick_gelu")
        scheme = scheme._replace(model=scheme.model | {"mlp": act}, question="")
    heads = about.get("num_attention_heads")
    return scheme, heads if isinstance(heads, int) and heads > 0 else None


def read_json(file: epath.Path) -> dict:
    """The object in a file, {} where it is missing. Raises UserError."""
    try:
        found = json.loads(file.read_text()) if file.exists() else {}
    except (ValueError, RecursionError) as error:
        raise UserError(f"{file} is no JSON file ({error}): fetch it again.") from error
    return found if isinstance(found, dict) else {}
