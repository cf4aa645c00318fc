"""Official vision transformers, from the file to every feature that their own code gave."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jax_ssl import losses
from jax_ssl.models import vit
from jax_ssl.weights import load, load_predictor


@pytest.fixture
def golden(request):
    """NAME -> (the path of its weights, its recorded values)."""
    folder = request.config.rootpath / "tests" / "golden"
    return lambda name: (folder / f"{name}.pth", np.load(folder / f"{name}_io.npz"))


def close(value, recorded, limit=1e-5):
    assert value.shape == recorded.shape
    assert np.linalg.norm(np.asarray(value) - recorded) <= limit * np.linalg.norm(recorded)


def all_tokens(encode, images):
    """What the last block gives, before any norm."""
    run = jax.jit(lambda v, x: encode.backbone.apply(v, x, capture_intermediates=lambda m, _: m.name == "encoder"))
    return run(encode.variables, images)[1]["intermediates"]["encoder"]["__call__"][0]


@pytest.mark.seal(2, "dino")
@pytest.mark.seal(2, "ibot")
def test_dino(golden):
    file, recorded = golden("dino_vit")
    encode = load(file)
    features = encode(jnp.asarray(recorded["x"]))
    close(features.pooled, recorded["cls"])
    close(jnp.concatenate([features.pooled[:, None], features.patches], axis=1), recorded["last"])
    close(encode(jnp.asarray(recorded["x_large"])).pooled, recorded["cls_large"])
    attention = jax.jit(lambda v, x: vit.attention(encode.backbone, v, x))(encode.variables, recorded["x"])
    close(attention, recorded["attn"])


@pytest.mark.seal(2, "dinov2")
@pytest.mark.parametrize("name, registers", [("dinov2_vit", 0), ("dinov2_reg_swiglu", 4)])
def test_dinov2(golden, name, registers):
    file, recorded = golden(name)
    encode = load(file)
    for suffix in ("", "_large"):
        features = encode(jnp.asarray(recorded[f"x{suffix}"]))
        close(features.pooled, recorded[f"cls{suffix}"])
        close(features.patches, recorded[f"patches{suffix}"])
        assert features.registers.shape == (2, registers, 32)
    backbone = encode.backbone
    assert (backbone.mlp, backbone.position_antialias) == (("swiglu", True) if registers else ("gelu", False))
    assert "mask_token" in encode.variables["params"]


@pytest.mark.seal(2, "beit")
def test_beit(golden):
    file, recorded = golden("hf_beit")
    encode = load(file)
    assert (encode.backbone.heads, encode.backbone.relative_bias, encode.mean) == (2, "block", (0.5, 0.5, 0.5))
    images = jnp.asarray(recorded["x"])
    close(all_tokens(encode, images), recorded["last"])
    features = encode(images)
    close(features.patches, recorded["last"][:, 1:])
    norm, mean = encode.variables["params"]["norm"], recorded["last"][:, 1:].mean(1)
    pooled = np.asarray(jax.nn.standardize(mean, epsilon=1e-12)) * norm["scale"] + norm["bias"]
    close(features.pooled, pooled)


@pytest.mark.seal(2, "ijepa")
def test_ijepa(golden):
    file, recorded = golden("ijepa")
    encode = load(file.with_name("ijepa_encoder.pth"))
    images, context = jnp.asarray(recorded["x"]), jnp.asarray(recorded["context"], jnp.int32)
    full = encode(images)
    close(full.patches, recorded["full"])
    close(full.pooled, recorded["full"].mean(1))
    seen = jax.jit(lambda v, x, keep: encode.backbone.apply(v, x, keep=keep))(encode.variables, images, context)
    close(seen.patches, recorded["z"])

    predictor, params = load_predictor(file.with_name("ijepa_predictor.pth"), heads=2)
    targets = jnp.asarray(recorded["targets"], jnp.int32)
    predict = jax.jit(lambda p, *args: predictor.apply({"params": p}, *args, (4, 4)))
    prediction = predict(params, seen.patches, context, targets)
    assert prediction.dtype == jnp.float32
    close(jnp.moveaxis(prediction, 1, 0), recorded["pred"])
    wanted = jax.vmap(lambda tokens, index: tokens[index])(jax.nn.standardize(full.patches, epsilon=1e-5), targets)
    close(losses.smooth_l1(prediction, wanted), recorded["loss"])
