"""Our networks under the names of other libraries: official and timm's names, torchvision's, and Hugging Face's.

The rules by which a file is read are followed backwards. What a file of these names does not hold, such as the epsilon
of the layer norms, has to be set where it is loaded; a folder for Transformers has it in its config.json.
"""

import json
import re

import numpy as np

from jax_ssl import config, parts, paths
from jax_ssl.errors import UserError
from jax_ssl.models import resnet
from jax_ssl.models.positions import sincos
from jax_ssl.run import checkpoints
from jax_ssl.views.sizes import sides
from jax_ssl.weights import clip, hugging_face, imported, resnets, schemes, torch_file
from jax_ssl.weights.convert import stack_of
from jax_ssl.weights.load import load_network, open_weights
from jax_ssl.weights.network import Network
from jax_ssl.weights.rules import (
    Rule,
    Scheme,
    convolution,
    patch_kernel,
    same,
    token,
    token_row,
    transpose,
    vector,
    without_key,
)
from jax_ssl.weights.transformers_config import config_of

WRITTEN = ("backbone/", "positions/backbone", "positions/decoder", "pooled_norm/", "stats/batch_stats/backbone/",
           "decoder/", "rotary/")  # fmt: skip
BACK = {  # what undoes a rule's transform
    same: lambda x: x,
    without_key: lambda x: x,
    transpose: lambda x: x.T,
    token: lambda x: x.reshape(1, -1),
    vector: lambda x: x.reshape(-1),
    token_row: lambda x: x[0],
    convolution: lambda x: x.transpose(3, 2, 0, 1),
    patch_kernel: lambda x: x.reshape(*(2 * (round((len(x) / 3) ** 0.5),)), 3, -1).transpose(3, 2, 0, 1),
}


def of_run(folder, which: str | None = None) -> Network:
    """The backbone of a run's newest good checkpoint. which: "student" (default) or "teacher". Raises UserError."""
    folder, which = paths.resolve(folder), which or "student"
    settings = config.of_run(folder)
    state, _ = checkpoints.load_raw(folder / "checkpoints", names=checkpoints.WITHOUT_OPTIMISER)
    params = state["params"] if which == "student" else state["teacher"]
    if which not in ("student", "teacher") or "backbone" not in (params or {}):
        raise UserError(f"{folder} has no {which}: give --which=student, or teacher of a method with one.")
    stats = (state["extra"] or {}).get("stats" if which == "student" else "teacher_stats", {})
    model, read = settings.model.to_dict(), parts.network_of(settings)
    images, stage = parts.images_of(settings), read if hasattr(read, "protocol") else None
    return Network("run", model, {"backbone": params["backbone"]}, stats, {}, images, images.pop("size"), stage)


def open_network(path, which: str | None, heads: int | None, family: str | None) -> Network:
    """The network of a file or of an imported folder."""
    folder = paths.resolve(path)
    if folder.is_dir() and imported.is_imported(folder):
        return imported.read(folder, which)
    return load_network(open_weights(path), which, heads, family)


def export(network: Network, form: str, out) -> list[str]:
    """Writes a network as a file, or as a folder for Transformers; returns lines about it. Raises UserError."""
    seen = network.stage.protocol["input"] if network.stage else ""
    if seen == "grey":
        raise UserError("This network sees grey images, and those of other libraries colours: take --to=saved_model.")
    scheme = official(network, form) if form != "huggingface" else of_transformers(network)
    tensors = named(network, scheme)
    tensors = as_timm(tensors) if form == "timm" else tensors
    model = network.model
    about = [f"{len(tensors)} tensors, named as {scheme.name}"]
    if seen:
        about.append(f"the backbone alone: its {seen} are cut here; --to=saved_model has them inside")
    if form == "huggingface":
        if any(name.startswith("decoder.") for name in tensors):  # a ViTMAEForPreTraining: the encoder has a prefix
            tensors = {name if name.startswith("decoder.") else f"vit.{name}": x for name, x in tensors.items()}
        folder, text = paths.make_writable(out, "choose another --out"), lambda x: json.dumps(x, indent=1)
        imported.write_safetensors(folder / "model.safetensors", tensors, {"format": "pt"})
        paths.write(folder / "config.json", text(config_of(network)))
        mean, std = (list(network.pixels[name]) for name in ("mean", "std"))
        size = dict(zip(("height", "width"), sides(network.size)))
        processor = dict(image_mean=mean, image_std=std, size=size, do_resize=True, do_rescale=True, do_normalize=True,
                         image_processor_type="ViTImageProcessor")  # fmt: skip
        paths.write(folder / "preprocessor_config.json", text(processor))
        return about
    write = torch_file.write if form == "torch" else imported.write_safetensors
    write(paths.resolve(out), tensors)
    if model["name"] == "vit":
        about += [f"set where it is loaded: {model['heads']} heads, layer norms with epsilon {model['epsilon']:g}"]
    return about


def official(network: Network, form: str) -> Scheme:
    """The scheme of the official code that has such a network. Raises UserError where there is none."""
    model = network.model
    if model["name"] == "resnet":
        if model["stem"] == "patch" or model.get("norm", "batch") != "batch":
            raise UserError("A ResNet with a stem of patches or with layer norm has no names in other libraries.")
        if model.get("padding", "symmetric") != "symmetric":
            raise UserError("This ResNet pads as TensorFlow does, and torch's do not: take --to=saved_model.")
        return resnets.RESNET._replace(rules=resnets.RESNET.rules(resnet_names(network)))
    if model["name"] != "vit":
        raise UserError(f"A network of models/{model['name']}.py has no names in other libraries: vit and resnet have.")
    if form == "timm" and (model["positions"] == "rotary" or model.get("pre_norm")):
        raise UserError("timm's names of CLIP and DINOv3 are not written here: take --to=torch or --to=huggingface.")
    if model.get("pre_norm"):
        return clip.CLIP
    if model["positions"] == "rotary":
        return schemes.DINOV3
    if not model.get("key_bias", True) or model.get("relative_bias", "none") != "none":
        return schemes.BEIT
    if model["layer_scale"] or model["registers"]:
        return schemes.DINOV2_SWIGLU if model.get("mlp") == "swiglu" else schemes.DINOV2
    return schemes.IJEPA if model["pool"] == "mean" else schemes.TIMM


def of_transformers(network: Network) -> Scheme:
    """The scheme of Transformers that has such a network. Raises UserError where there is none."""
    model = network.model
    own = model["name"] == "vit" and not model.get("pre_norm") and model.get("relative_bias", "none") == "none"
    if not own or (model["positions"] != "rotary" and not model.get("key_bias", True)):
        raise UserError("--to=huggingface writes ViTs as of DINO, MAE, I-JEPA, DINOv2 and DINOv3: take --to=torch.")
    if model["positions"] == "rotary":
        return hugging_face.DINOV3_GATED if model.get("mlp") == "swiglu" else hugging_face.DINOV3
    if model["layer_scale"] or model["registers"]:
        mlp = hugging_face.SWIGLU if model.get("mlp") == "swiglu" else hugging_face.MLP
        others = (hugging_face.MLP, hugging_face.SWIGLU, hugging_face.SWIGLU_APART)
        kept = tuple(part for part in hugging_face.DINOV2.parts if part.rules is mlp or part.rules not in others)
        return hugging_face.DINOV2._replace(parts=kept)
    return hugging_face.VIT


def resnet_names(network: Network) -> set[str]:
    """The names by which torchvision's blocks are counted and told apart."""
    model, params, names, count = network.model, network.params["backbone"], set(), 0
    layers = 3 if model["depth"] >= 50 else 2
    for stage, blocks in enumerate(tuple(model["stages"]) or resnet.STAGES[model["depth"]]):
        for block in range(blocks):
            place = f"layer{stage + 1}.{block}"
            names |= {f"{place}.conv{i + 1}.weight" for i in range(layers)}
            names |= {f"{place}.downsample.0.weight"} if f"Conv_{layers}" in params[f"Block_{count}"] else set()
            count += 1
    return names


def targets(network: Network) -> dict[str, np.ndarray]:
    """{target of a rule: array}, with positions as files hold them."""
    model, backbone = network.model, dict(network.params["backbone"])
    tree = {"backbone": backbone, "stats": network.stats, "extra": network.extra}
    tree |= {name: dict(part) for name, part in network.params.items() if name != "backbone"}
    if model["name"] == "vit":
        grid, width = tuple(side // model["patch"] for side in sides(network.size)), model["width"]
        cls = lambda codes: np.concatenate([np.zeros_like(codes[:1]), codes])[None]
        fixed = lambda width, kind: sincos(grid, width, kind.removeprefix("sincos_"))
        first, positions = model["pool"] != "mean", {}
        if model["positions"] == "learned":
            codes = np.asarray(backbone.pop("positions")).reshape(1, -1, width)
            positions["backbone"] = np.concatenate([backbone.pop("cls_position"), codes], axis=1) if first else codes
        elif model["positions"].startswith("sincos"):
            codes = fixed(width, model["positions"])
            positions["backbone"] = cls(codes) if first else codes[None]
        for name, part in tree.items():
            if name in ("decoder", "predictor") and "embed" in part:
                codes = fixed(part["embed"]["kernel"].shape[-1], "column")
                positions[name] = part.pop("positions", cls(codes) if name == "decoder" else codes[None])
        tree["positions"] = positions
        if model["pool"] == "norm_of_mean":
            tree["pooled_norm"] = backbone.pop("norm")
        if model["positions"] == "rotary":
            backbone["encoder"] = with_both_biases(backbone["encoder"])
            size = width // model["heads"]
            tree["rotary"] = {"periods": np.float32(100.0 ** (2 * np.arange(size // 4) / (size // 2)))}
    return imported.flatten(tree)


def with_both_biases(encoder: dict) -> dict:
    """The encoder with DINOv3's biases in both forms: of query, key (zeros) and value; of query and value alone."""
    attention = dict(encoder["blocks"]["attention"])
    if "query_bias" in attention:
        query, value = (np.asarray(attention[name]) for name in ("query_bias", "value_bias"))
    else:
        query, _, value = np.split(np.asarray(attention["qkv"]["bias"]), 3, axis=-1)
    both = np.concatenate([query, np.zeros_like(query), value], axis=-1)
    attention |= {"qkv": attention["qkv"] | {"bias": both}, "query_bias": query, "value_bias": value}
    return encoder | {"blocks": encoder["blocks"] | {"attention": attention}}


def named(network: Network, scheme: Scheme) -> dict[str, np.ndarray]:
    """{name in the other library: array}. Raises UserError for a parameter of the backbone that it has no name for."""
    there, tensors, used = targets(network), {}, set()
    rules = (*scheme.rules, *(rule for part in scheme.parts for rule in part.rules))
    rules = [rule for rule in rules if rule.target.startswith(WRITTEN)]
    newest = scheme in (hugging_face.DINOV3, hugging_face.DINOV3_GATED)
    for rule in rules:
        if rule.target not in there or (rule.target in used and not rule.part):
            continue
        array, count = there[rule.target], len({other.part for other in rules if other.target == rule.target})
        used.add(rule.target)
        for block in range(len(array)) if stack_of(rule.target) else (0,):
            piece = array[block] if stack_of(rule.target) else array
            piece = np.split(piece, count, axis=-1)[rule.part] if count > 1 else piece
            tensors[name_of(rule, block, newest)] = np.ascontiguousarray(BACK[rule.transform](np.asarray(piece)))
    left = [name for name in there if name not in used and name.startswith("backbone/")]
    left = [name for name in left if np.any(there[name])]  # a bias of zeros may be left out
    if network.model.get("positions") == "rotary":
        left = [name for name in left if not name.endswith(("qkv/bias", "query_bias", "value_bias"))]
    if left:
        raise UserError(f"{scheme.name} has no name for {left[0]}: take another form of --to, or another network.")
    if scheme.kind == "resnet":
        means = [name for name in tensors if name.endswith("running_mean")]
        tensors |= {name.replace("running_mean", "num_batches_tracked"): np.zeros((), np.int64) for name in means}
    if scheme is schemes.DINOV3:
        width = network.model["width"]
        mask = np.repeat(np.float32([1, 0, 1]), width)
        tensors |= {f"blocks.{i}.attn.qkv.bias_mask": mask for i in range(network.model["depth"])}
    return tensors


def name_of(rule: Rule, block: int, newest: bool) -> str:
    """A name that a rule's pattern matches: of alternatives the first, or the last, in Transformers the older one."""
    text = rule.pattern.replace(r"(?:\.\d{1,3})?", "").replace(r"(\d{1,3})", str(block))
    text = text.replace(r"(?:model\.)?", "")
    inner = re.compile(r"\(\?:([^()]*)\)")
    while match := inner.search(text):
        text = text[: match.start()] + match[1].split("|")[0 if newest else -1] + text[match.end() :]
    return text.split("|")[0].replace("\\", "")


def as_timm(tensors: dict) -> dict:
    """Official tensors as timm has them: without a mask token, and with registers positions of patches alone."""
    renamed = {name.replace("mlp.w12", "mlp.fc1").replace("mlp.w3", "mlp.fc2"): x for name, x in tensors.items()}
    renamed = {name.replace("register_tokens", "reg_token"): x for name, x in renamed.items() if name != "mask_token"}
    if "reg_token" in renamed and "cls_token" in renamed:
        codes = renamed["pos_embed"]
        renamed |= {"pos_embed": codes[:, 1:], "cls_token": renamed["cls_token"] + codes[:, :1]}
    return {name: np.ascontiguousarray(x) for name, x in renamed.items() if not name.startswith("decoder")}
