"""Our networks under the names of others: what was imported goes out bit by bit as it came in."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tensorflow as tf

from jax_ssl import parts
from jax_ssl.errors import UserError
from jax_ssl.models.input_stage import Tiles
from jax_ssl.weights import export, load
from jax_ssl.weights.load import load_network, open_weights
from tests.small import small
from tests.weights.arrays import read
from tests.weights.test_import import equal, golden, run  # noqa: F401

ROUND = ("dino_vit", "dinov2_vit", "dinov2_reg_swiglu", "official_mae", "ijepa_encoder", "resnet18",
"resnet_bottleneck",
         "dinov3_vit", "dinov3_swiglu")  # fmt: skip


@pytest.mark.parametrize("form, suffix", [("torch", "pth"), ("safetensors", "safetensors")])
@pytest.mark.parametrize("name", ROUND)
def test_out_as_it_came_in(golden, name, form, suffix, tmp_path, capfd):  # noqa: F811
    out = tmp_path / f"out.{suffix}"
    code, told = run(capfd, "export", f"--weights={golden / name}.pth", f"--to={form}", f"--out={out}")
    assert code == 0 and str(out) in told, told
    before, after = read(golden / f"{name}.pth"), read(out)
    before = {key: array for key, array in before.items() if not key.startswith("fc.")}
    assert before.keys() == after.keys()
    for key, array in before.items():
        assert array.shape == after[key].shape and array.dtype == after[key].dtype, key
        if key.endswith("num_batches_tracked"):
            continue
        if "dinov3" in name and key.endswith("attn.qkv.bias"):
            array = np.where(np.repeat([1, 0, 1], len(array) // 3), array, 0)
        if key.endswith("periods"):
            np.testing.assert_allclose(array, after[key], rtol=1e-6)
        else:
            np.testing.assert_array_equal(array, after[key])


def test_two_exports_are_the_same_file(golden, tmp_path, capfd):  # noqa: F811
    for out in ("a.pth", "b.pth"):
        run(capfd, "export", f"--weights={golden}/dino_vit.pth", "--to=torch", f"--out={tmp_path / out}")
    assert (tmp_path / "a.pth").read_bytes() == (tmp_path / "b.pth").read_bytes()


HUGGING_FACE = {"dino_vit": "vit", "official_mae": "vit_mae", "ijepa_encoder": "ijepa", "dinov2_vit": "dinov2",
                "dinov2_reg_swiglu": "dinov2_with_registers", "dinov3_vit": "dinov3_vit"}  # fmt: skip


@pytest.mark.parametrize("name", HUGGING_FACE)
def test_a_folder_for_transformers(golden, name, tmp_path, capfd):  # noqa: F811
    out = tmp_path / "out"
    code, told = run(capfd, "export", f"--weights={golden / name}.pth", "--to=huggingface", f"--out={out}")
    assert code == 0, told
    about = json.loads((out / "config.json").read_text())
    assert (about["model_type"], about["num_attention_heads"]) == (HUGGING_FACE[name], 2)
    back, ours = load(out / "model.safetensors"), load(golden / f"{name}.pth")
    for place in (("norm", "scale"), ("embed", "kernel"), ("encoder", "blocks", "norm2", "bias")):
        theirs, mine = back.variables["params"], ours.variables["params"]
        for key in place:
            theirs, mine = theirs[key], mine[key]
        np.testing.assert_array_equal(theirs, mine)
    assert json.loads((out / "preprocessor_config.json").read_text())["image_mean"] == list(ours.mean)


def ours_of(golden, name):  # noqa: F811
    """The bias of query, key and value of the same network under the official names."""
    file = golden / (name.removeprefix("hf_") + ("" if "swiglu" in name else "_vit") + ".pth")
    return load(file).variables["params"]["encoder"]["blocks"]["attention"]["qkv"]["bias"]


def test_dinov3_of_hugging_face_and_back(golden, tmp_path, capfd):  # noqa: F811
    for name in ("hf_dinov3", "hf_dinov3_swiglu"):
        official = tmp_path / f"{name}.pth"
        assert run(capfd, "export", f"--weights={golden / name}.pth", "--to=torch", f"--out={official}")[0] == 0
        as_official = load(official).variables["params"]["encoder"]["blocks"]["attention"]["qkv"]["bias"]
        np.testing.assert_array_equal(as_official, ours_of(golden, name))
        out = tmp_path / name
        code, told = run(capfd, "export", f"--weights={golden / name}.pth", "--to=huggingface", f"--out={out}")
        assert code == 0, told
        equal(load(out), load(golden / f"{name}.pth"))


def test_timm_has_dinov2_with_registers_in_its_own_way(golden, tmp_path, capfd):  # noqa: F811
    out = tmp_path / "out.safetensors"
    assert run(capfd, "export", f"--weights={golden}/dinov2_reg_swiglu.pth", "--to=timm", f"--out={out}")[0] == 0
    before, after = read(golden / "dinov2_reg_swiglu.pth"), read(out)
    assert after["reg_token"].shape == (1, 4, 32) and "mask_token" not in after
    assert after["pos_embed"].shape[1] == before["pos_embed"].shape[1] - 1
    np.testing.assert_array_equal(after["cls_token"], before["cls_token"] + before["pos_embed"][:, :1])
    np.testing.assert_array_equal(after["blocks.0.mlp.fc1.weight"], before["blocks.0.mlp.w12.weight"])


def test_a_saved_model_gives_the_same_features_of_any_number_of_images(golden, tmp_path, capfd):  # noqa: F811
    """A GELU has erf in it, which TensorFlow reads in an older dialect only; 48 x 32 pixels need other positions."""
    out, encode = tmp_path / "saved", load(golden / "dino_vit.pth")
    flags = (f"--weights={golden}/dino_vit.pth", "--to=saved_model", "--size=48x32", f"--out={out}")
    code, told = run(capfd, "export", *flags)
    assert code == 0 and "images uint8 (B, 48, 32, 3) -> patches (B, 24, 32), pooled (B, 32)" in told
    there = tf.saved_model.load(str(out)).signatures["serving_default"]
    images = np.random.default_rng(0).integers(0, 256, (2, 48, 32, 3), np.uint8)
    ours = encode(encode.normalise(images))
    for name, value in there(images=tf.constant(images)).items():
        np.testing.assert_allclose(value, getattr(ours, name), rtol=0, atol=1e-4)
    assert there(images=tf.constant(images[:1]))["pooled"].shape == (1, 32)


@pytest.mark.parametrize("name", ["mae", "moco"])
def test_a_run_goes_out(runs, name, tmp_path, capfd):
    out = tmp_path / "out.pth"
    code, told = run(capfd, "export", f"--run={runs(name)}", "--to=torch", f"--out={out}")
    if name == "moco":
        assert code == 2 and "stem of patches" in told
        return
    assert code == 0, told
    ours, back = load(runs(name)), load(out, heads=load(runs(name)).backbone.heads)
    np.testing.assert_array_equal(ours.variables["params"]["norm"]["scale"], back.variables["params"]["norm"]["scale"])
    assert back.backbone.positions == ours.backbone.positions


@pytest.mark.parametrize("name, patches", [("colorization", 16), ("jigsaw", 9), ("cpc", 49)])
def test_a_run_goes_out_behind_the_input_that_it_was_trained_on(name, patches, monkeypatch):
    settings = small(name)
    read = parts.network_of(settings)
    images = jnp.zeros((2, 32, 32, 3))
    shapes = jax.eval_shape(read.init, jax.random.key(0), images)
    saved = dict(params={"backbone": shapes["params"]}, extra={})
    saved["extra"]["stats"] = {"batch_stats": {"backbone": shapes.get("batch_stats", {})}}
    monkeypatch.setattr(export.config, "of_run", lambda folder: settings)
    monkeypatch.setattr(export.checkpoints, "load_raw", lambda folder, names: (saved, 3))
    network = export.of_run("runs/mine")
    assert jax.eval_shape(network.backbone.apply, network.variables, images).patches.shape[1] == patches
    if name == "colorization":
        with pytest.raises(UserError, match="sees grey images"):
            export.export(network, "torch", "mine.pth")


def test_a_file_says_that_the_tiles_of_its_network_are_not_in_it(golden, tmp_path):  # noqa: F811
    network = load_network(open_weights(golden / "resnet18.pth"))
    tiles = network._replace(stage=Tiles(network.backbone, cell=10, tile=8))
    assert "the backbone alone: its tiles" in export.export(tiles, "torch", tmp_path / "tiles.pth")[1]
    assert len(export.export(network, "torch", tmp_path / "whole.pth")) == 1


def test_what_export_refuses(golden, tmp_path, capfd):  # noqa: F811
    file = f"--weights={golden / 'dino_vit.pth'}"
    for words, told in (
        ((file, "--to=torch"), "--out=PATH"),
        (("--to=torch", "--out=x.pth"), "needs one of --run"),
        ((file, "--to=torch", f"--out={tmp_path / 'x.safetensors'}"), "must end in .pth"),
        ((file, "--to=onnx", "--out=x"), "take torch.onnx from there"),
        ((file, "--to=onxn", "--out=x"), "one of safetensors, torch, timm, huggingface, saved_model"),
        ((file, "--to=torch", "--size=48", "--out=x.pth"), "is for --to=saved_model"),
        ((file, "--to=saved_model", "--size=30", f"--out={tmp_path / 'new'}"), "--size=30 is not a multiple"),
        ((file, "--to=saved_model", f"--out={file[10:-12]}"), "is not empty"),
        ((f"--weights={golden / 'hf_beit.pth'}", "--to=huggingface", f"--out={tmp_path / 'x'}"), "take --to=torch"),
    ):
        code, out = run(capfd, "export", *words)
        assert code == 2 and told in out and out.count("\n") == 1
