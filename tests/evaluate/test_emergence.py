"""Attention masks hold the mass that is asked of them, and their overlap with objects is what it is by hand."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from jax_ssl import __main__ as command
from jax_ssl import config, parts
from jax_ssl.encoder import Encoder
from jax_ssl.errors import UserError
from jax_ssl.evaluate import emergence
from jax_ssl.models import resnet, vit


def encoder(**overrides):
    """A random vision transformer, 4 tokens a side."""
    settings = dict(patch=4, width=16, depth=3, heads=2, mlp_ratio=2.0, positions="learned", pool="cls", registers=3,
                    layer_scale=0.0, drop_path=0.0, epsilon=1e-6, remat="none", dtype="float32")  # fmt: skip
    backbone = vit.make(**settings | overrides)
    params = jax.jit(backbone.init)(jax.random.key(0), jnp.zeros((1, 16, 16, 3)))["params"]
    return Encoder(backbone, {"params": jax.tree.map(lambda x: 10 * x, params)}, size=16)


@pytest.mark.parametrize("mass", [0.1, 0.6, 0.95, 1.0])
def test_a_mask_holds_the_mass_and_not_one_patch_more(mass):
    maps = np.random.default_rng(0).exponential(size=(3, 2, 5, 7))
    maps[0] = 1.0  # all equal
    masks = emergence.attention_mask(maps, mass)
    for one, mask in zip(maps.reshape(-1, 35), masks.reshape(-1, 35)):
        assert one[mask].sum() >= mass * one.sum() - 1e-6
        assert one[mask].sum() - one[mask].min() < mass * one.sum()
        assert mask.all() or one[mask].min() >= one[~mask].max()
    assert masks[0].sum() == 2 * np.ceil(35 * mass - 1e-6)


def test_jaccard_by_hand():
    truth = np.zeros((2, 4, 4), bool)
    truth[0, :2, :2] = True
    masks = np.zeros((2, 2, 2, 2), bool)
    masks[0, 0, 0, 0] = True  # the object itself
    masks[0, 1, 0] = True  # the object and as much beside it
    masks[1, 1] = True  # everything, of nothing
    np.testing.assert_allclose(emergence.jaccard(masks, truth), [[1, 0.5], [1, 0]])


def test_the_best_head_is_chosen_for_each_image():
    truth = np.zeros((2, 4, 4), bool)
    truth[:, :2] = True
    maps = np.full((2, 2, 2, 2), 1e-6)
    maps[0, 0, 0] = maps[1, 1, 0] = 1  # each looks at one image's object, and at nothing in the other
    maps[0, 1, 1] = maps[1, 0, 1] = 1
    assert emergence.head_overlaps(maps, truth, 0.9) == {"jaccard_best_head": 1.0, "jaccard_mean_head": 0.5}


def test_chance_is_what_random_masks_expect():
    truth = np.zeros((400, 16, 16), bool)
    truth[:, :8] = True
    found = emergence.noise_overlaps((400, 1, 16, 16), truth)
    covered = 1 - np.sqrt(1 - emergence.MASS)  # of uniform noise, the upper part that holds the mass
    assert found["jaccard_mean_head"] == pytest.approx(0.5 * covered / (0.5 + 0.5 * covered), abs=0.01)


def test_class_attention_is_the_class_tokens_over_the_patches_alone():
    encode = encoder()
    images = jax.random.normal(jax.random.key(1), (2, 16, 8, 3))  # not square: 4 rows of 2 patches
    maps = emergence.class_attention(encode, images)
    assert maps.shape == (2, 2, 4, 2) and maps.dtype == np.float32
    np.testing.assert_allclose(maps.sum((2, 3)), 1, rtol=1e-5)
    whole = jax.jit(vit.attention, static_argnums=0)(encode.backbone, encode.variables, images)
    assert whole.shape == (2, 2, 12, 12)
    patches = np.asarray(whole[:, :, 0, 4:])
    np.testing.assert_allclose(maps.reshape(2, 2, 8), patches / patches.sum(-1, keepdims=True), rtol=1e-4)


def test_a_network_without_a_class_token_is_told():
    settings = parts.without_name(config.load("moco:tiny").model)
    for backbone in (encoder(pool="mean").backbone, resnet.make(**settings)):
        with pytest.raises(UserError, match="model.pool='cls'"):
            emergence.check_class_token(backbone)


def test_the_command_measures_and_records_beside_baselines(runs, tmp_path, capsys):
    run, cuts = runs("mae"), tmp_path / "cuts"
    cuts.mkdir()
    for number in range(3):
        cut = np.zeros((20, 20, 4), np.uint8)
        cut[3 : 15 + number, 5:18] = (200, 40 * number, 30, 255)
        Image.fromarray(cut).save(cuts / f"{number}.png")
    arguments = ["evaluate", f"--run={run}", "--task=emergence"]
    assert command.main([*arguments, f"--images={cuts}"]) == 0
    records = [json.loads(line) for line in (run / "results.jsonl").read_text().splitlines()]
    assert {record["weights"] for record in records} == {"untrained", "noise", "student"}
    assert {record["metric"] for record in records} == {"jaccard_best_head", "jaccard_mean_head"}
    assert all(0 <= r["value"] <= 1 and r["protocol"]["images"] == 3 and r["protocol"]["mass"] == 0.6 for r in records)
    assert "best head" in capsys.readouterr().out
    assert command.main(arguments) == 2 and "--images=FOLDER" in capsys.readouterr().err
