"""Against PyTorch, torchvision, timm and Transformers, where they are installed: tiny random networks, in and out.

pip install -e ".[test,peers]"
"""

import jax.numpy as jnp
import numpy as np
import pytest

from jax_ssl.models import positions
from jax_ssl.views.sizes import sides
from jax_ssl.weights import export, load

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
timm = pytest.importorskip("timm")
torchvision = pytest.importorskip("torchvision")

CLOSE = 1e-4  # absolute, fp32
TINY = dict(hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64, image_size=32,
            patch_size=8)  # fmt: skip


def shaken(model, seed=0):
    """The model in evaluation mode with noise on every parameter and statistic, so that none is zero by chance."""
    random = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if tensor.is_floating_point() and "index" not in name:
                noise = torch.randn(tensor.shape, generator=random)
                spread = tensor.std().item() if tensor.dim() > 1 and tensor.std() > 0 else 1.0
                tensor.add_(0.1 * spread * (noise.abs() if name.endswith("running_var") else noise))
    return model.eval()


def images(size=32, seed=0):
    return np.random.default_rng(seed).standard_normal((2, *sides(size), 3)).astype(np.float32)


def theirs(function, x):
    with torch.no_grad():
        return function(torch.from_numpy(x.transpose(0, 3, 1, 2).copy()))


def near(ours, other):
    np.testing.assert_allclose(np.asarray(ours), np.asarray(other), rtol=0, atol=CLOSE)


VIT = dict(img_size=32, patch_size=8, embed_dim=32, depth=2, num_heads=2, num_classes=0)
OF_TIMM = {
    "plain": {},
    "with a classifier": dict(num_classes=7),
    "registers and layer scale": dict(reg_tokens=4, init_values=1.0, no_embed_class=True),
    "mean": dict(global_pool="avg", fc_norm=True),
}


@pytest.mark.parametrize("kind", OF_TIMM)
def test_timms_vit_comes_in(kind, tmp_path):
    model = shaken(timm.models.VisionTransformer(**VIT | OF_TIMM[kind]))
    torch.save({"state_dict": model.state_dict()}, tmp_path / "x.pth")
    features, x = load(tmp_path / "x.pth")(jnp.asarray(images())), images()
    tokens = theirs(model.forward_features, x)
    near(features.patches, tokens[:, model.num_prefix_tokens :])
    near(features.pooled, theirs(lambda y: model.forward_head(model.forward_features(y), pre_logits=True), x))


def test_timms_beit_comes_in(tmp_path):
    more = dict(init_values=0.1, use_rel_pos_bias=True, use_abs_pos_emb=False, global_pool="avg")
    model = shaken(timm.models.Beit(**VIT, **more))
    torch.save(model.state_dict(), tmp_path / "x.pth")
    near(load(tmp_path / "x.pth", family="timm")(jnp.asarray(images())).pooled, theirs(model, images()))


def resnet(block, layers):
    return shaken(torchvision.models.ResNet(block, layers, num_classes=5))


@pytest.mark.parametrize("block, layers", [("BasicBlock", [1, 1, 1, 1]), ("Bottleneck", [1, 1, 1, 1])])
def test_torchvisions_resnet_comes_in_and_goes_out(block, layers, tmp_path):
    kind = getattr(torchvision.models.resnet, block)
    model, x = resnet(kind, layers), images(64)
    torch.save({"state_dict": {f"module.encoder_q.{k}": v for k, v in model.state_dict().items()}}, tmp_path / "x.pth")
    model.fc = torch.nn.Identity()
    near(load(tmp_path / "x.pth")(jnp.asarray(x)).pooled, theirs(model, x))
    export.export(export.open_network(tmp_path / "x.pth", None, None, None), "torch", tmp_path / "y.pth")
    fresh = torchvision.models.ResNet(kind, layers)
    fresh.fc = torch.nn.Identity()
    fresh.load_state_dict(torch.load(tmp_path / "y.pth", weights_only=True))
    near(theirs(fresh.eval(), x), theirs(model, x))


OF_TRANSFORMERS = {
    "ViTModel": ("ViTConfig", {}, {}),
    "ViTMAEForPreTraining": (
        "ViTMAEConfig", dict(decoder_hidden_size=32, decoder_num_hidden_layers=1, decoder_num_attention_heads=2,
                             decoder_intermediate_size=64, mask_ratio=0.0), {}),
    "IJepaModel": ("IJepaConfig", {}, {}),
    "Dinov2Model": ("Dinov2Config", {}, {}),
    "Dinov2WithRegistersModel": ("Dinov2WithRegistersConfig", dict(use_swiglu_ffn=True), {}),
    "DINOv3ViTModel": ("DINOv3ViTConfig", dict(num_register_tokens=3, key_bias=False), {}),
    "BeitModel": ("BeitConfig", dict(use_relative_position_bias=True, layer_scale_init_value=0.5), {}),
    "CLIPVisionModel": ("CLIPVisionConfig", {}, dict(family="clip")),
}  # fmt: skip


def of_transformers(name):
    config, more, _ = OF_TRANSFORMERS[name]
    return shaken(getattr(transformers, name)(getattr(transformers, config)(**TINY | more)))


def tokens_of(model, x):
    """(tokens of the last block behind its norm if it has one, pooled or None), in evaluation mode."""
    inner = model.vit if hasattr(model, "decoder") else model
    more = {"noise": torch.arange(16.0).repeat(2, 1)} if hasattr(model, "decoder") else {}
    out = theirs(lambda y: inner(pixel_values=y, **more), x)
    return out.last_hidden_state, out.get("pooler_output")


@pytest.mark.parametrize("name", OF_TRANSFORMERS)
def test_transformers_come_in(name, tmp_path):
    model, x = of_transformers(name), images()
    model.save_pretrained(tmp_path)
    encode = load(tmp_path / "model.safetensors", **OF_TRANSFORMERS[name][2])
    features = encode(jnp.asarray(x))
    tokens, pooled = tokens_of(model, x)
    first = tokens.shape[1] - features.patches.shape[1]
    if name in ("CLIPVisionModel", "BeitModel"):
        near(features.pooled, pooled)
        return
    near(features.patches, tokens[:, first:])
    near(features.pooled, tokens[:, 0] if first else tokens.mean(1))
    near(features.registers, tokens[:, 1:first])


@pytest.mark.parametrize("name", ["ViTModel", "Dinov2Model", "Dinov2WithRegistersModel", "DINOv3ViTModel", "BeitModel"])
def test_images_that_are_no_squares(name, tmp_path):
    model, x = of_transformers(name), images((24, 48))
    model.save_pretrained(tmp_path)
    features = load(tmp_path)(jnp.asarray(x))
    flag = dict(interpolate_pos_encoding=True) if name == "ViTModel" else {}
    tokens = theirs(lambda y: model(pixel_values=y, **flag).last_hidden_state, x)
    near(features.patches, tokens[:, tokens.shape[1] - 18 :])


def test_positions_are_resized_by_the_scales_of_dino():
    """vision_transformer.py of DINO gives torch the scales of both sides, each with 0.1 patches more."""
    codes = np.random.default_rng(0).standard_normal((4, 4, 5)).astype(np.float32)
    scales = (3.1 / 4, 6.1 / 4)
    resized = torch.nn.functional.interpolate(
        torch.from_numpy(codes.transpose(2, 0, 1)[None].copy()), scale_factor=scales, mode="bicubic"
    )
    near(positions.resize(jnp.asarray(codes), (3, 6), 0.1), resized[0].permute(1, 2, 0))


@pytest.mark.parametrize("name", ["dino_vit", "official_mae", "ijepa_encoder", "dinov2_vit", "dinov2_reg_swiglu",
                                  "hf_dinov3", "hf_dinov3_swiglu"])  # fmt: skip
def test_they_go_out_to_transformers(name, request, tmp_path):
    file = request.config.rootpath / "tests" / "golden" / f"{name}.pth"
    about = export.export(export.open_network(file, None, None, None), "huggingface", tmp_path)
    model, report = transformers.AutoModel.from_pretrained(tmp_path, output_loading_info=True)
    missing = [key for key in report["missing_keys"] if "pooler" not in key]
    assert about and not missing and not [key for key in report["unexpected_keys"] if "decoder" not in key]
    side = load(file).size if "dinov3" not in name else 32
    features, x = load(file)(jnp.asarray(images(side))), images(side)
    more = {"noise": torch.arange(16.0).repeat(2, 1)} if name == "official_mae" else {}
    model.config.mask_ratio = 0.0
    tokens = theirs(lambda y: model.eval()(pixel_values=y, **more).last_hidden_state, x)
    first = tokens.shape[1] - features.patches.shape[1]
    near(features.patches, tokens[:, first:])
    near(features.pooled, tokens[:, 0] if first else tokens.mean(1))


@pytest.mark.parametrize("name, more", [
    ("dino_vit", {}), ("official_mae", {}),
    ("dinov2_vit", dict(img_size=28, patch_size=7, init_values=1.0)),
    ("dinov2_reg_swiglu", dict(img_size=28, patch_size=7, init_values=1.0, reg_tokens=4, no_embed_class=True,
                               mlp_layer="swiglu")),
])  # fmt: skip
def test_they_go_out_to_timm(name, more, request, tmp_path):
    file = request.config.rootpath / "tests" / "golden" / f"{name}.pth"
    network = export.open_network(file, None, None, None)
    if more.get("mlp_layer"):
        hidden = network.params["backbone"]["encoder"]["blocks"]["mlp"]["w12"]["kernel"].shape[-1]
        more = more | dict(mlp_layer=timm.layers.SwiGLUPacked, mlp_ratio=hidden / 32, act_layer=torch.nn.SiLU)
    export.export(network, "timm", tmp_path / "x.safetensors")
    model = timm.models.VisionTransformer(**VIT | more)
    import safetensors.torch

    model.load_state_dict(safetensors.torch.load_file(tmp_path / "x.safetensors"))
    x = images(network.size)
    tokens = theirs(model.eval().forward_features, x)
    features = load(file)(jnp.asarray(x))
    near(features.patches, tokens[:, model.num_prefix_tokens :])
    near(features.pooled, tokens[:, 0])


def test_what_torch_saves_of_a_training_run(tmp_path):
    """Parameters, an optimizer's state, a Namespace and NumPy numbers, as main programs keep them."""
    import argparse

    model = shaken(timm.models.VisionTransformer(**VIT))
    optimizer = torch.optim.AdamW(model.parameters())
    sum(p.sum() for p in model.parameters()).backward()
    optimizer.step()
    whole = {"model": dict(model.named_parameters()), "optimizer": optimizer.state_dict(), "epoch": 3,
             "args": argparse.Namespace(lr=np.float64(0.1), arch="vit"), "best": np.float32(71.5),
             "rng": np.arange(3)}  # fmt: skip
    torch.save(whole, tmp_path / "x.pth")
    near(load(tmp_path / "x.pth")(jnp.asarray(images())).pooled, theirs(model, images()))
    torch.save(whole, tmp_path / "x.pth", pickle_protocol=4)
    near(load(tmp_path / "x.pth")(jnp.asarray(images())).pooled, theirs(model, images()))
