"""Networks that this library does not have, known by names in their files, so that each is told in one sentence."""

import re
from typing import NamedTuple

from jax_ssl.errors import UserError

BEHIND = r"(?:.*\.)?"  # any prefix


class Stranger(NamedTuple):
    """what: what a file is that has a name that matches `sign`, behind any prefix, and none that matches `without`."""

    what: str
    sign: str
    without: str = r"(?!)"


VIDEO = "a network of videos, such as V-JEPA: this library has no video model yet"
SEVEN_BILLION = "DINOv3 7B, whose attention has no biases: this library has no such network yet"
WHOLE = (  # a part of such a file may look like a network of ours
    Stranger(VIDEO, r"mask_tokens\.\d+|predictor\.embeddings\.mask_tokens"),
    Stranger("SigLIP: this library has no attention pooling and no text tower yet", r"head\.probe|attn_pool\.latent"),
    Stranger("a ResNet of CLIP: this library has not its stem and its attention pooling", r"attnpool\..*"),
    Stranger(
        "a ConvNeXt: this library has no such network yet",
        r"stages\.\d+\.(?:(?:blocks|layers)\.)?\d+\.(?:dwconv|conv_dw|depthwise_conv)\.weight",
    ),
    Stranger("a Swin Transformer: this library has no such network", r"layers\.\d+\.blocks\.\d+\.attn\.qkv\.weight"),
    Stranger(SEVEN_BILLION, r"storage_tokens", without=r".*\.attn\.qkv\.bias"),
    Stranger(SEVEN_BILLION, r"layer\.\d+\.layer_scale1\.lambda1", without=r".*\.(?:query|q_proj)\.bias"),
    Stranger(
        "RF-DETR: this library has no detector yet, and no network whose attention has windows",
        r"backbone\.(?:0\.encoder\.encoder|backbone)\.embeddings\.cls_token",
    ),
)
ALONE = (  # there is more of a file to be read where something else is in it
    Stranger("a detector of the kind of DETR: this library has none yet", r"transformer\.decoder\..*|class_embed\..*"),
    Stranger("a text tower: this library has none yet", r"token_embedding\.weight|text_model\..*"),
    Stranger("an adapter (LoRA) alone: merge it into its network, and save that", r".*lora_[AB]\..*"),
    Stranger(
        "a ViT of Google's JAX code, whose names are not read here: take timm's copy of it",
        r"Transformer\.encoderblock_0\..*",
    ),
    Stranger("a predictor alone: take the file that has its encoder too", r"predictor_embed\.weight"),
)


def refuse(path, tensors: dict, alone: bool) -> None:
    """Raises UserError for a network that this library does not have.

    tensors: {name: tensor} of all that a file holds; alone: whether no network of ours was found in it.
    """
    if any(len(tensor.shape) == 5 for tensor in tensors.values()):
        raise UserError(f"{path} is {VIDEO}.")
    for stranger in WHOLE + (ALONE if alone else ()):
        holds = lambda pattern: any(re.fullmatch(pattern, name) for name in tensors)
        if holds(BEHIND + f"(?:{stranger.sign})") and not holds(stranger.without):
            raise UserError(f"{path} is {stranger.what}.")
