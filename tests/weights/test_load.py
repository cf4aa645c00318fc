"""Official files and run folders become encoders, and what does not fit is told in full."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import save_file

from jax_ssl import config as config_files
from jax_ssl import core, encoder, parts
from jax_ssl.errors import UserError
from jax_ssl.models.positions import sincos
from jax_ssl.run import checkpoints, identity
from jax_ssl.weights import load, load_mae, report, warm_start
from tests.weights.arrays import read


@pytest.fixture
def golden(request):
    return request.config.rootpath / "tests" / "golden"


def timm(width=16, depth=2, grid=3, patch=2, ratio=4, seed=0):
    """Random tensors of a plain encoder, under timm's names and in torch's layout."""
    random = np.random.RandomState(seed)
    draw = lambda *shape: random.randn(*shape).astype(np.float32) / 4
    arrays = {"cls_token": draw(1, 1, width), "pos_embed": draw(1, 1 + grid**2, width),
              "patch_embed.proj.weight": draw(width, 3, patch, patch),
              "patch_embed.proj.bias": draw(width)}  # fmt: skip
    linears = {"attn.qkv": (3 * width, width), "attn.proj": (width, width),
               "mlp.fc1": (ratio * width, width), "mlp.fc2": (width, ratio * width)}  # fmt: skip
    for block in range(depth):
        for name, shape in linears.items():
            arrays[f"blocks.{block}.{name}.weight"] = draw(*shape)
            arrays[f"blocks.{block}.{name}.bias"] = draw(shape[0])
    for name in ["norm", *(f"blocks.{block}.norm{i}" for block in range(depth) for i in (1, 2))]:
        arrays |= {f"{name}.weight": draw(width) + 1, f"{name}.bias": draw(width)}
    return arrays


@pytest.fixture
def save(tmp_path):
    def write(arrays):
        save_file(arrays, tmp_path / "weights.safetensors")
        return tmp_path / "weights.safetensors"

    return write


def test_an_official_encoder_with_learned_positions_gives_the_recorded_features(golden):
    recorded = np.load(golden / "dino_vit_io.npz")
    encode = load(golden / "dino_vit.pth")
    features = encode(jnp.asarray(recorded["x"]))
    np.testing.assert_allclose(features.pooled, recorded["cls"], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(features.patches, recorded["last"][:, 1:], rtol=1e-5, atol=1e-5)
    assert (encode.size, encode.backbone.positions, encode.mean) == (32, "learned", (0.485, 0.456, 0.406))


def test_an_official_mae_loads_as_the_encoder_alone(golden):
    whole = load_mae(golden / "official_mae.pth", decoder_heads=2)
    encode = load(golden / "official_mae.pth")
    assert encode.backbone == whole.backbone
    assert "decoder" not in encode.variables["params"]
    assert encode(jnp.ones((1, 32, 32, 3))).pooled.shape == (1, 32)


def test_width_depth_patch_grid_and_mlp_are_read_from_the_tensors(save):
    encode = load(save(timm(width=32, depth=3, grid=5, patch=4, ratio=2)))
    backbone = encode.backbone
    assert (backbone.width, backbone.depth, backbone.patch, backbone.mlp_ratio) == (32, 3, 4, 2.0)
    assert encode.size == 20
    assert encode(jnp.ones((1, 20, 20, 3))).patches.shape == (1, 25, 32)


def test_blocks_are_stacked_in_the_order_of_their_numbers_not_of_their_names(save):
    arrays = timm(depth=11)
    kernel = load(save(arrays)).variables["params"]["encoder"]["blocks"]["mlp"]["fc1"]["kernel"]
    for block in range(11):
        np.testing.assert_array_equal(kernel[block], arrays[f"blocks.{block}.mlp.fc1.weight"].T)


def test_the_patch_kernel_is_the_convolution(save):
    arrays = timm(patch=2)
    encode = load(save(arrays))
    images = np.random.RandomState(1).randn(1, 6, 6, 3).astype(np.float32)
    ours = images[0, 2:4, 4:6].reshape(-1) @ encode.variables["params"]["embed"]["kernel"]
    theirs = np.einsum("pqc,dcpq->d", images[0, 2:4, 4:6], arrays["patch_embed.proj.weight"])
    np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("first", ["column", "row"])
def test_fixed_positions_are_recognised_so_that_any_size_of_image_is_exact(save, first):
    arrays = timm()
    arrays["pos_embed"] = np.concatenate([np.zeros((1, 16)), sincos((3, 3), 16, first)])[None].astype(np.float32)
    encode = load(save(arrays))
    assert encode.backbone.positions == f"sincos_{first}"
    assert encode(jnp.ones((1, 10, 8, 3))).patches.shape == (1, 20, 16)
    arrays["pos_embed"][0, 0, 0] = 0.01  # a class token with a position is not what the fixed kind has
    assert load(save(arrays)).backbone.positions == "learned"


@pytest.mark.parametrize("width, heads", [(192, 3), (384, 6), (64, 4), (32, 2)])
def test_heads_of_published_widths_and_of_small_models(save, width, heads):
    assert load(save(timm(width, depth=1))).backbone.heads == heads
    assert load(save(timm(width, depth=1)), heads=1).backbone.heads == 1


def test_a_width_without_published_heads_must_be_told(save):
    file = save(timm(256, depth=1))
    with pytest.raises(UserError, match="width 256.*heads="):
        load(file)
    assert load(file, heads=8).backbone.heads == 8


def test_every_unknown_name_and_every_unfilled_parameter_is_counted_at_once(save):
    arrays = timm(depth=3)
    for name in ("blocks.1.attn.qkv.weight", "blocks.1.mlp.fc2.bias", "norm.bias", "pos_embed"):
        del arrays[name]
    arrays |= {"adapter.weight": np.ones(3), "blocks.0.ls.gamma": np.ones(3), "blocks.77777777.norm1.bias": np.ones(3)}
    arrays["blocks.2.norm2.weight"] = np.ones((2, 2, 2), np.float32)
    arrays["patch_embed.proj.weight"] = np.ones((16, 12), np.float32)
    with pytest.raises(UserError) as caught:
        load(save(arrays))
    message = str(caught.value)
    for told in (
        "3 unknown names (adapter.weight, blocks.0.ls.gamma, blocks.77777777.norm1.bias)", "4 unfilled parameters",
        "positions/backbone", "2 tensors of a wrong shape", "patch_embed.proj.weight (16, 12)",
    ):  # fmt: skip
        assert told in message
    assert len(message) < 800
    unfilled = list(report.inspect(save(arrays)))
    for told in ("blocks/attention/qkv/kernel of block 1", "blocks/mlp/fc2/bias of block 1", "backbone/norm/bias"):
        assert any(line.endswith(told) for line in unfilled)
    for fine in ("qkv/kernel of block 0", "fc2/bias of block 2", "backbone/norm/scale", "blocks/norm1/bias"):
        assert not any(line.endswith(fine) for line in unfilled)


def test_blocks_that_are_missing_as_a_whole_are_counted_and_not_listed(save):
    arrays = timm(depth=1) | {"blocks.900.norm1.bias": np.ones(16, np.float32)}
    with pytest.raises(UserError, match="1 unfilled parameters .backbone/encoder/blocks: 899 whole blocks"):
        load(save(arrays))


def test_a_shape_that_the_network_cannot_have_is_told(save):
    arrays = timm()
    arrays["norm.weight"] = np.ones(15, np.float32)
    with pytest.raises(UserError, match=r"norm/scale \(15,\) instead of \(16,\)"):
        load(save(arrays))
    arrays = timm()
    arrays["pos_embed"] = arrays["pos_embed"][:, :-2]
    with pytest.raises(UserError, match="not a square grid and a class token"):
        load(save(arrays))
    arrays = timm()
    del arrays["cls_token"]
    with pytest.raises(UserError, match="not a square grid"):
        load(save(arrays))


def test_names_of_an_unknown_library(save):
    with pytest.raises(UserError, match="conv1.weight.*DINOv2.*I-JEPA, timm, Hugging Face"):
        load(save({"conv1.weight": np.ones(3)}))


def test_hugging_face_files_from_before_transformers_5_have_other_names_for_the_same(golden, tmp_path):
    new = golden / "hf_mae_normpix1.pth"
    renamed = {}
    for name, array in read(new).items():
        for now, before in (
            ("vit.layers.", "vit.encoder.layer."), ("attention.q_proj", "attention.attention.query"),
            ("attention.k_proj", "attention.attention.key"), ("attention.v_proj", "attention.attention.value"),
            ("attention.o_proj", "attention.output.dense"), ("mlp.fc1", "intermediate.dense"),
            ("mlp.fc2", "output.dense"),
        ):  # fmt: skip
            name = name.replace(now, before)
        renamed[name] = np.ascontiguousarray(array)
    assert "decoder.decoder_layers.1.attention.output.dense.bias" in renamed
    save_file(renamed, tmp_path / "old.safetensors")
    old, new = load_mae(tmp_path / "old.safetensors", decoder_heads=2), load_mae(new, decoder_heads=2)
    assert (old.backbone, old.decoder) == (new.backbone, new.decoder)
    jax.tree.map(np.testing.assert_array_equal, old.params, new.params)


def test_fixed_positions_of_a_decoder_are_recognised(golden, save):
    arrays = {name: np.ascontiguousarray(array) for name, array in read(golden / "official_mae.pth").items()}
    assert load_mae(save(arrays), decoder_heads=2).decoder.positions == "learned"
    codes = np.concatenate([np.zeros((1, 16), np.float32), sincos((4, 4), 16)])[None]
    whole = load_mae(save(arrays | {"decoder_pos_embed": codes}), decoder_heads=2)
    assert whole.decoder.positions == "sincos"
    assert "positions" not in whole.params["decoder"]


def test_an_encoder_without_a_decoder_is_no_mae(save):
    with pytest.raises(UserError, match="without a decoder"):
        load_mae(save(timm()))


MODELS = {
    "mae": ["--config.model.width=16", "--config.model.depth=1", "--config.model.heads=2", "--config.model.patch=8"],
    "moco": ["--config.model.width=0.125", "--config.model.patch=8", "--config.model.stages=(1,)"],
}


def make_run(folder, name):
    """A run folder as training leaves it; student, teacher and the statistics of both all differ."""
    config = config_files.load(f"{name}:tiny", MODELS[name])
    variables = jax.jit(parts.make_backbone(config).init)(jax.random.key(0), jnp.zeros((1, 32, 32, 3)))
    params = {"backbone": variables.pop("params"), "head": {"kernel": jnp.ones(3)}}
    numbers = iter(range(1, 10**6))
    shift = lambda tree: jax.tree.map(lambda x: x + 0.1 * (next(numbers) % 7), tree)
    stats = {kind: {"backbone": tree, "head": {}} for kind, tree in variables.items()}
    state = core.TrainState(
        step=jnp.int32(3),
        params=params,
        opt_state={},
        teacher=shift(params) if name == "moco" else {},
        extra={"stats": shift(stats)} | ({"teacher_stats": shift(stats)} if name == "moco" else {}),
        rng=jax.random.key(0),
        skipped=jnp.int32(0),
    )
    keeper = checkpoints.Checkpoints(folder / "checkpoints")
    keeper.save(3, state, wait=True)
    keeper.close()
    identity.write_config(folder, config_files.to_dict(config))
    return config, state


@pytest.mark.parametrize("name, which", [("mae", None), ("moco", "student"), ("moco", "teacher")])
def test_a_run_folder_gives_the_encoder_that_its_state_holds(tmp_path, name, which):
    config, state = make_run(tmp_path, name)
    expected = encoder.freeze(parts.make_backbone(config), state, which or "student")
    encode = load(tmp_path, which)
    images = jax.random.normal(jax.random.key(2), (2, 32, 32, 3))
    np.testing.assert_array_equal(encode(images).pooled, expected(images).pooled)
    assert (encode.mean, encode.std, encode.size) == (tuple(config.data.mean), tuple(config.data.std), 32)
    with pytest.raises(UserError, match="leave heads=2 out"):
        load(tmp_path, heads=2)


def test_a_run_without_a_teacher_and_a_wrong_name_are_told(tmp_path):
    make_run(tmp_path, "mae")
    with pytest.raises(UserError, match="mae, without a teacher"):
        load(tmp_path, "teacher")
    with pytest.raises(UserError, match="which='momentum'"):
        load(tmp_path, "momentum")


def test_a_folder_of_files_is_told_with_one_of_them(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    for name, told in (("flax_model.msgpack", "not read here, flax_model.msgpack"), ("VIT.PTH", "such as .*/VIT.PTH")):
        (tmp_path / name).write_bytes(b"")
        with pytest.raises(UserError, match=told):
            load(tmp_path)
        with pytest.raises(UserError, match=told):
            warm_start.read(str(tmp_path))
    with pytest.raises(UserError, match="is empty"):
        load(tmp_path / "VIT.PTH")


def test_a_folder_that_is_no_run_is_told(tmp_path):
    with pytest.raises(UserError, match="no config.json"):
        load(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(UserError, match="JSON"):
        load(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"model": {"name": "vit"}}))
    with pytest.raises(UserError, match="no good checkpoint"):
        load(tmp_path)
