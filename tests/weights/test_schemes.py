"""The same tensors under the names of other libraries, other versions of them, and other stages of training."""

import re
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import save_file

from jax_ssl.errors import UserError
from jax_ssl.models.positions import sincos
from jax_ssl.weights import load, load_predictor
from tests.weights.arrays import read

UNILM = {  # Hugging Face's names of BEiT and, behind them, those of its authors
    r"embeddings\.patch_embeddings\.projection": "patch_embed.proj", r"embeddings\.": "", r"layers\.": "blocks.",
    r"lambda_": "gamma_", r"layernorm_before": "norm1", r"layernorm_after": "norm2", r"pooler\.layernorm": "fc_norm",
    r"attention\.o_proj": "attn.proj", r"attention\.(.)_proj\.bias": r"attn.\1_bias",
    r"relative_position_bias\.relative": "attn.relative",
}  # fmt: skip
BEFORE_5 = {
    r"layers\.": "encoder.layer.", r"attention\.q_proj": "attention.attention.query",
    r"attention\.k_proj": "attention.attention.key", r"attention\.v_proj": "attention.attention.value",
    r"attention\.o_proj": "attention.output.dense", r"mlp\.fc1": "intermediate.dense", r"mlp\.fc2": "output.dense",
    r"relative_position_bias\.relative": "attention.attention.relative_position_bias.relative",
}  # fmt: skip


@pytest.fixture
def tensors(request):
    """NAME -> the arrays of a golden file."""
    return lambda name: read(request.config.rootpath / "tests" / "golden" / f"{name}.pth")


@pytest.fixture
def save(tmp_path):
    def write(arrays):
        save_file({k: np.ascontiguousarray(v) for k, v in arrays.items()}, tmp_path / "weights.safetensors")
        return tmp_path / "weights.safetensors"

    return write


def rename(arrays, table):
    named = {}
    for name, array in arrays.items():
        for pattern, replacement in table.items():
            name = re.sub(pattern, replacement, name)
        named[name] = array
    return named


def same(a, b, **differences):
    assert a.backbone == b.backbone.clone(**differences)
    jax.tree.map(np.testing.assert_array_equal, a.variables, b.variables)


def of_unilm(arrays):
    """BEiT's own file of these tensors: query, key and value in one matrix, and the table's index."""
    arrays = rename(arrays, UNILM)
    for block in range(2):
        parts = [arrays.pop(f"blocks.{block}.attention.{letter}_proj.weight") for letter in "qkv"]
        arrays[f"blocks.{block}.attn.qkv.weight"] = np.concatenate(parts)
        arrays[f"blocks.{block}.attn.relative_position_index"] = np.zeros((17, 17), np.int64)
    return arrays | {"head.weight": np.ones((10, 32)), "head.bias": np.ones(10)}


def shared(arrays):
    """The file before fine-tuning: one table for all blocks, a mask token, a norm of all tokens."""
    arrays = {name: array for name, array in arrays.items() if "layers.1.relative" not in name}
    table = {r"layers\.0\.relative": "encoder.relative", r"pooler\.layernorm": "layernorm"}
    return rename(arrays, table) | {"embeddings.mask_token": np.full((1, 1, 32), 0.5, np.float32)}


def test_beit_under_its_authors_names(tensors, save):
    arrays = tensors("hf_beit")
    expected = load(save(arrays))
    ours = load(save(of_unilm(arrays)))
    same(ours, expected, epsilon=1e-6)
    assert ours.mean == expected.mean == (0.5, 0.5, 0.5)


def test_simmim_has_the_names_of_beit_behind_a_prefix_and_imagenets_pixels(tensors, save):
    arrays = of_unilm(shared(tensors("hf_beit")))
    arrays = {name: array for name, array in arrays.items() if "index" not in name and "head" not in name}
    arrays = rename(arrays, {r"^encoder\.attn\.relative": "rel_pos_bias.relative", "^layernorm": "norm"})
    plain = load(save(arrays))
    prefixed = {f"encoder.{name}": array for name, array in arrays.items()}
    simmim = load(save(prefixed | {"decoder.0.weight": np.ones(3), "decoder.0.bias": np.ones(3)}))
    same(simmim, plain)
    assert (plain.mean[0], simmim.mean[0]) == (0.5, 0.485)
    assert (simmim.backbone.relative_bias, simmim.backbone.pool) == ("shared", "cls")


def test_beit_of_earlier_transformers_with_a_classifier(tensors, save):
    arrays = tensors("hf_beit")
    expected = load(save(arrays))
    old = {f"beit.{name}": array for name, array in rename(arrays, BEFORE_5).items()}
    index = "beit.encoder.layer.0.attention.attention.relative_position_bias.relative_position_index"
    same(load(save(old | {"classifier.weight": np.ones(3), index: np.ones(3)})), expected)


def test_beit_before_fine_tuning_has_one_table_a_mask_token_and_a_norm_of_tokens(tensors, save):
    arrays = tensors("hf_beit")
    encode = load(save(shared(arrays)))
    backbone, params = encode.backbone, encode.variables["params"]
    assert (backbone.relative_bias, backbone.pool, backbone.positions) == ("shared", "cls", "none")
    assert params["mask_token"].shape == (1, 1, 32)
    table = params["encoder"]["relative_bias"]["table"]
    np.testing.assert_array_equal(table, arrays["layers.0.relative_position_bias.relative_position_bias_table"])
    twice = shared(arrays) | {"layers.1.relative_position_bias.relative_position_bias_table": np.asarray(table)}
    twice["layers.0.relative_position_bias.relative_position_bias_table"] = np.asarray(table)
    with pytest.raises(UserError, match="1 parameters that the network lacks .encoder/blocks/relative_bias/table"):
        load(save(twice))  # a network has one kind


def test_beit_with_absolute_positions_alone(tensors, save):
    """The one of ImageNet-1k: no relative ones and no scale of layers either."""
    arrays = {name: array for name, array in of_unilm(tensors("hf_beit")).items()
              if "relative" not in name and "gamma" not in name}  # fmt: skip
    with pytest.raises(UserError, match="not a square grid"):
        load(save(arrays), heads=2)
    encode = load(save(arrays | {"pos_embed": np.ones((1, 17, 32), np.float32)}), heads=2)
    backbone = encode.backbone
    assert (backbone.positions, backbone.relative_bias, backbone.layer_scale) == ("learned", "none", 0.0)
    assert not backbone.key_bias and encode.size == 32


def test_a_table_of_relative_positions_that_no_square_grid_has(tensors, save):
    name = "layers.{}.relative_position_bias.relative_position_bias_table"
    short = {name.format(block): np.ones((51, 2), np.float32) for block in (0, 1)}
    with pytest.raises(UserError, match=r"shape \(2, 51, 2\)"):
        load(save(tensors("hf_beit") | short))


def test_dinov2_in_chunks_of_blocks_and_from_many_devices(tensors, save):
    arrays = tensors("dinov2_reg_swiglu")
    expected = load(save(arrays))
    same(load(save(rename(arrays, {r"blocks\.(\d)": r"blocks.\1.\1"}))), expected)
    same(load(save({f"module.{name}": array for name, array in arrays.items()})), expected)


@pytest.mark.parametrize("name, tensor", [("dinov2_vit", "mlp.fc1"), ("dinov2_reg_swiglu", "mlp.w3")])
def test_dinov2_with_a_hole_is_told(tensors, save, name, tensor):
    arrays = {key: array for key, array in tensors(name).items() if tensor not in key}
    with pytest.raises(UserError, match="unfilled parameters.*" + tensor.replace(".", "/")):
        load(save(arrays))


def test_the_student_of_ibot_brings_its_mask_token(tensors, save):
    arrays = tensors("dino_vit")
    encode = load(save(arrays | {"masked_embed": np.full((1, 32), 0.5, np.float32)}))
    assert encode.variables["params"]["mask_token"].shape == (1, 1, 32)
    assert encode.backbone.position_offset == 0.1


def test_fixed_positions_of_ijepa_are_recognised_without_a_class_token(tensors, save):
    encode = load(save(tensors("ijepa_encoder") | {"pos_embed": sincos((4, 4), 32)[None]}))
    assert (encode.backbone.positions, encode.backbone.pool) == ("sincos_column", "mean")
    assert encode(jnp.ones((1, 48, 32, 3))).patches.shape == (1, 24, 32)


def test_fixed_positions_of_a_predictor_and_what_it_cannot_be(tensors, save):
    arrays = tensors("ijepa_predictor")
    learned, params = load_predictor(save(arrays), heads=2)
    assert learned.positions == "learned" and params["positions"].shape == (1, 16, 24)
    fixed, params = load_predictor(save(arrays | {"predictor_pos_embed": sincos((4, 4), 24)[None]}), heads=2)
    assert fixed.positions == "sincos" and "positions" not in params
    with pytest.raises(UserError, match="not a square grid"):
        load_predictor(save(arrays | {"predictor_pos_embed": np.ones((1, 15, 24), np.float32)}))
    with pytest.raises(UserError, match="naming schemes are I-JEPA's predictor"):
        load_predictor(save(tensors("ijepa_encoder")))


def test_a_file_that_ends_in_tar_is_one_of_torch(request, tmp_path):
    golden = request.config.rootpath / "tests" / "golden" / "dino_vit.pth"
    shutil.copy(golden, tmp_path / "dino.pth.tar")
    same(load(tmp_path / "dino.pth.tar"), load(golden))
