"""A file of a network that this library does not have is told in one sentence that says what it is."""

import numpy as np
import pytest
from safetensors.numpy import save_file

from jax_ssl.errors import UserError
from jax_ssl.weights import load
from tests.weights.arrays import read
from tests.weights.test_import import golden  # noqa: F401

VIDEO = (8, 3, 2, 8, 8)
STRANGERS = {  # name of a tensor, its shape, what is said
    "V-JEPA": ("patch_embed.proj.weight", VIDEO, "no video model yet"),
    "V-JEPA of Hugging Face": ("encoder.embeddings.patch_embeddings.proj.weight", VIDEO, "no video model yet"),
    "its predictor": ("module.backbone.mask_tokens.3", (1, 1, 8), "no video model yet"),
    "SigLIP": ("vision_model.head.probe", (1, 1, 8), "SigLIP: this library has no attention pooling"),
    "CLIP's ResNet": ("visual.attnpool.positional_embedding", (5, 8), "a ResNet of CLIP"),
    "ConvNeXt of DINOv3": ("stages.0.1.dwconv.weight", (8, 1, 7, 7), "a ConvNeXt"),
    "ConvNeXt of timm": ("stages.3.blocks.0.conv_dw.weight", (8, 1, 7, 7), "a ConvNeXt"),
    "ConvNeXt of Hugging Face": ("model.stages.0.layers.0.depthwise_conv.weight", (8, 1, 7, 7), "a ConvNeXt"),
    "Swin": ("layers.0.blocks.0.attn.qkv.weight", (24, 8), "a Swin Transformer"),
    "DINOv3 7B": ("storage_tokens", (1, 4, 8), "DINOv3 7B"),
    "RF-DETR": ("backbone.0.encoder.encoder.embeddings.cls_token", (1, 1, 8), "RF-DETR: this library has no detector"),
    "DETR": ("transformer.decoder.norm.weight", (8,), "a detector of the kind of DETR"),
    "text of CLIP": ("text_model.embeddings.token_embedding.weight", (9, 8), "a text tower"),
    "LoRA": ("base_model.model.blocks.0.attn.qkv.lora_A.weight", (4, 8), "an adapter .LoRA. alone"),
    "ViT of Google": ("Transformer/encoderblock_0/LayerNorm_0/scale", (8,), "take timm's copy of it"),
    "I-JEPA's predictor": ("predictor_embed.weight", (8, 8), "a predictor alone"),
}


@pytest.mark.parametrize("what", STRANGERS)
def test_a_stranger_is_recognised(what, tmp_path):
    name, shape, told = STRANGERS[what]
    save_file({name: np.ones(shape, np.float32)}, tmp_path / "x.safetensors")
    with pytest.raises(UserError, match=told) as caught:
        load(tmp_path / "x.safetensors")
    assert len(str(caught.value).removeprefix(str(tmp_path))) < 130


def test_what_stands_beside_a_network_of_ours_is_no_stranger(golden, tmp_path):  # noqa: F811
    arrays = {name: np.ascontiguousarray(array) for name, array in read(golden / "dino_vit.pth").items()}
    beside = {"text_model.embeddings.token_embedding.weight": np.ones((9, 8), np.float32)}
    save_file({f"visual.{name}": array for name, array in arrays.items()} | beside, tmp_path / "x.safetensors")
    assert load(tmp_path / "x.safetensors").backbone == load(golden / "dino_vit.pth").backbone
