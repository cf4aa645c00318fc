"""SimCLR's network of TensorFlow and BYOL's of Haiku, with their own padding, from the arrays to their features."""


import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jax_ssl import config
from jax_ssl.errors import UserError
from jax_ssl.models.heads import Mlp
from jax_ssl.study import measure
from jax_ssl.weights import load, warm_start
from jax_ssl.weights.load import load_network
from jax_ssl.weights.read import open_file
from tests.weights.arrays import read
from tests.weights.test_import import golden, near, run  # noqa: F401


@pytest.mark.parametrize("name, padding", [("simclr_resnet", "same_pool"), ("byol_resnet", "same")])
def test_a_network_of_google_gives_the_recorded_features(golden, name, padding):  # noqa: F811
    recorded, encode = np.load(golden / f"{name}_io.npz"), load(golden / f"{name}.npz")
    assert encode.backbone.padding == padding
    assert encode.std == ((1.0, 1.0, 1.0) if "simclr" in name else (0.229, 0.224, 0.225))
    features = encode(jnp.asarray(recorded["x"]))
    near(features.pooled, recorded["pooled"])
    near(features.patches.reshape(recorded["layer4"].shape), recorded["layer4"])


def test_the_head_of_simclr_comes_along_and_its_slots_do_not(golden, tmp_path):  # noqa: F811
    arrays, recorded = read(golden / "simclr_resnet.npz"), np.load(golden / "simclr_resnet_io.npz")
    average = {f"ema_model/{name}": -array for name, array in arrays.items()}
    np.savez(tmp_path / "slots.npz", **arrays | {"base_model/conv2d/kernel/Momentum": np.ones(3), "global_step": 7})
    network = load_network(open_file(tmp_path / "slots.npz"))
    variables = {"params": network.params["projector"], "batch_stats": network.stats["batch_stats"]["projector"]}
    head = Mlp((128, 8), norm=True, last_norm=True).apply(variables, jnp.asarray(recorded["pooled"]))
    near(head, recorded["head"])
    np.savez(tmp_path / "average.npz", **arrays | average)
    network = load_network(open_file(tmp_path / "average.npz"), "teacher")
    np.testing.assert_array_equal(network.params["backbone"]["Conv_0"]["kernel"], -arrays["base_model/conv2d/kernel"])
    assert "projector" not in network.params  # it could be that of either network


def test_what_is_not_read_and_what_torch_cannot_have_is_told(golden, tmp_path, capfd):  # noqa: F811
    arrays = read(golden / "simclr_resnet.npz")
    np.savez(tmp_path / "sk.npz", **arrays | {"base_model/conv2d_1/kernel": np.ones((3, 3, 4, 4), np.float32)})
    with pytest.raises(UserError, match="selective kernels .sk1."):
        load(tmp_path / "sk.npz")
    out = f"--out={tmp_path / 'x.pth'}"
    code, told = run(capfd, "export", f"--weights={golden / 'simclr_resnet.npz'}", "--to=torch", out)
    assert code == 2 and "pads as TensorFlow does" in told and told.count("\n") == 1


def test_a_run_from_such_a_network_has_to_pad_alike(golden):  # noqa: F811
    for name, padding in (("byol_resnet.npz", "same"), ("resnet18.pth", "symmetric")):
        assert warm_start.read(str(golden / name))["padding"] == padding
    same = ("--config.model.stages=(2,1,1,1)", "--config.model.width=0.0625", "--config.batch_size=8")
    settings = config.load("simclr", [*same, "--config.data.crops.views[0].size=64"])
    state = jax.eval_shape(measure.init_of(settings), jax.random.key(0))
    start = f"backbone={golden / 'simclr_resnet.npz'}"
    with pytest.raises(UserError, match="has symmetric, .* add --config.model.padding=same_pool") as caught:
        warm_start.start_from(start, state, settings)
    assert "\n" not in str(caught.value)
    warm_start.check_padding("x", "same_pool", config.load("simclr", ["--config.model.padding=same_pool"]).model)
