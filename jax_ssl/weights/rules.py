"""How other libraries name what we have: one table a naming scheme.

A target is a path in {"backbone": ViT's parameters, "decoder": Decoder's, "positions": codes as the file holds them}.
Tensors of one block carry its number, the pattern's only group; convert.py stacks them along the leading axis.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np


class Rule(NamedTuple):
    """Tensors whose whole name matches `pattern` go, transformed, to `target`, as the `part`-th of its last axis."""

    pattern: str
    target: str
    transform: Callable[[np.ndarray], np.ndarray]
    part: int = 0


class Scheme(NamedTuple):
    """A library's names. `sign`: a pattern that only its files match; `decoder_sign`: one of those with a decoder.

    epsilon: of its layer norms, which no weights file tells.
    """

    name: str
    sign: str
    decoder_sign: str
    epsilon: float
    encoder: tuple[Rule, ...]
    decoder: tuple[Rule, ...]


def same(x):
    return x


def transpose(x):
    """A torch Linear keeps (out, in), a Flax Dense (in, out)."""
    out, into = x.shape
    return x.reshape(out, into).T


def patch_kernel(x):
    """A convolution (D, C, p, p) whose stride is its size, as a matrix over cut-out patches: (p p C, D)."""
    out, channels, rows, columns = x.shape
    return x.transpose(2, 3, 1, 0).reshape(rows * columns * channels, out)


def linear(pattern: str, target: str, part: int = 0, kernel=transpose) -> tuple[Rule, Rule]:
    weight = Rule(rf"{pattern}\.weight", f"{target}/kernel", kernel, part)
    return weight, Rule(rf"{pattern}\.bias", f"{target}/bias", same, part)


def norm(pattern: str, target: str) -> tuple[Rule, Rule]:
    return Rule(rf"{pattern}\.weight", f"{target}/scale", same), Rule(rf"{pattern}\.bias", f"{target}/bias", same)


NUMBER = r"\.(\d{1,3})\."


def timm_blocks(prefix: str, target: str) -> tuple[Rule, ...]:
    block = prefix + NUMBER
    return (
        *norm(block + r"norm1", f"{target}/norm1"),
        *linear(block + r"attn\.qkv", f"{target}/attention/qkv"),
        *linear(block + r"attn\.proj", f"{target}/attention/out"),
        *norm(block + r"norm2", f"{target}/norm2"),
        *linear(block + r"mlp\.fc1", f"{target}/mlp/fc1"),
        *linear(block + r"mlp\.fc2", f"{target}/mlp/fc2"),
    )


def hugging_face_blocks(prefix: str, target: str) -> tuple[Rule, ...]:
    """Query, key and value are separate there. First the names since Transformers 5, then those of the files before."""
    block = prefix + NUMBER
    return (
        *norm(block + r"layernorm_before", f"{target}/norm1"),
        *linear(block + r"attention\.(?:q_proj|attention\.query)", f"{target}/attention/qkv", 0),
        *linear(block + r"attention\.(?:k_proj|attention\.key)", f"{target}/attention/qkv", 1),
        *linear(block + r"attention\.(?:v_proj|attention\.value)", f"{target}/attention/qkv", 2),
        *linear(block + r"attention\.(?:o_proj|output\.dense)", f"{target}/attention/out"),
        *norm(block + r"layernorm_after", f"{target}/norm2"),
        *linear(block + r"(?:mlp\.fc1|intermediate\.dense)", f"{target}/mlp/fc1"),
        *linear(block + r"(?:mlp\.fc2|output\.dense)", f"{target}/mlp/fc2"),
    )


# facebookresearch/mae, models_mae.py; also moco-v3 and dino, whose vision transformers have timm's names.
TIMM = Scheme(
    name="timm",
    sign=r"patch_embed\.proj\.weight",
    decoder_sign=r"decoder_embed\.weight",
    epsilon=1e-6,
    encoder=(
        Rule(r"cls_token", "backbone/cls_token", same),
        Rule(r"pos_embed", "positions/backbone", same),
        *linear(r"patch_embed\.proj", "backbone/embed", kernel=patch_kernel),
        *timm_blocks(r"blocks", "backbone/encoder/blocks"),
        *norm(r"norm", "backbone/norm"),
    ),
    decoder=(
        Rule(r"mask_token", "decoder/mask_token", same),
        Rule(r"decoder_pos_embed", "positions/decoder", same),
        *linear(r"decoder_embed", "decoder/embed"),
        *timm_blocks(r"decoder_blocks", "decoder/blocks/blocks"),
        *norm(r"decoder_norm", "decoder/norm"),
        *linear(r"decoder_pred", "decoder/predict"),
    ),
)

# huggingface/transformers, models/vit_mae/modeling_vit_mae.py; the prefix is absent from a ViTMAEModel saved alone.
HUGGING_FACE = Scheme(
    name="Hugging Face ViTMAE",
    sign=r"(?:vit\.)?embeddings\.patch_embeddings\.projection\.weight",
    decoder_sign=r"decoder\.decoder_embed\.weight",
    epsilon=1e-12,
    encoder=(
        Rule(r"(?:vit\.)?embeddings\.cls_token", "backbone/cls_token", same),
        Rule(r"(?:vit\.)?embeddings\.position_embeddings", "positions/backbone", same),
        *linear(r"(?:vit\.)?embeddings\.patch_embeddings\.projection", "backbone/embed", kernel=patch_kernel),
        *hugging_face_blocks(r"(?:vit\.)?(?:layers|encoder\.layer)", "backbone/encoder/blocks"),
        *norm(r"(?:vit\.)?layernorm", "backbone/norm"),
    ),
    decoder=(
        Rule(r"decoder\.mask_token", "decoder/mask_token", same),
        Rule(r"decoder\.decoder_pos_embed", "positions/decoder", same),
        *linear(r"decoder\.decoder_embed", "decoder/embed"),
        *hugging_face_blocks(r"decoder\.decoder_layers", "decoder/blocks/blocks"),
        *norm(r"decoder\.decoder_norm", "decoder/norm"),
        *linear(r"decoder\.decoder_pred", "decoder/predict"),
    ),
)

SCHEMES = (TIMM, HUGGING_FACE)
