"""What stands beside the backbone in official checkpoints comes along, where our methods have a place for it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jax_ssl.models.heads import Mlp
from jax_ssl.weights import imported, load_mae, load_predictor, torch_file, warm_start
from jax_ssl.weights.load import load_network
from jax_ssl.weights.read import open_file
from tests.weights.arrays import read
from tests.weights.test_import import golden, prefixed  # noqa: F401
from tests.weights.test_warm_start import AS_OFFICIAL, state_of

RANDOM = np.random.default_rng(0)


def draw(*shape):
    return RANDOM.standard_normal(shape).astype(np.float32)


def dino_head(width, hidden, bottleneck, prototypes, lengths):
    """Random tensors of a DINOHead, in torch's layout."""
    sizes, arrays = (width, hidden, hidden, bottleneck), {}
    for i, (into, out) in enumerate(zip(sizes, sizes[1:])):
        arrays |= {f"mlp.{2 * i}.weight": draw(out, into), f"mlp.{2 * i}.bias": draw(out)}
    return arrays | {"last_layer.weight_v": draw(prototypes, bottleneck), "last_layer.weight_g": lengths}


def whole_dino(golden, head, center):  # noqa: F811
    teacher = prefixed(read(golden / "dino_vit.pth"), "backbone.") | prefixed(head, "head.")
    student = prefixed({name: -array for name, array in teacher.items()}, "module.")
    return {"student": student, "teacher": teacher, "dino_loss": {"center": center}, "epoch": 3}


def test_the_head_and_the_center_of_dino(golden, tmp_path):  # noqa: F811
    head, center = dino_head(32, 6, 4, 5, np.ones((5, 1), np.float32)), draw(1, 5)
    torch_file.write(tmp_path / "x.pth", whole_dino(golden, head, center))
    network = load_network(open_file(tmp_path / "x.pth"), "teacher")
    projector = network.params["projector"]
    np.testing.assert_array_equal(projector["layers_1"]["kernel"], head["mlp.2.weight"].T)
    np.testing.assert_array_equal(projector["directions"], head["last_layer.weight_v"])
    np.testing.assert_array_equal(network.extra["center"], center[0])
    assert "length" not in projector  # all are one, as norm_last_layer keeps them
    student = load_network(open_file(tmp_path / "x.pth"), "student").params["projector"]
    np.testing.assert_array_equal(student["length"], -np.ones((5, 1)))
    (tmp_path / "out").mkdir()
    imported.write(tmp_path / "out", network)
    again = imported.read(tmp_path / "out")
    assert again._replace(params=0, extra=0, stats=0) == network._replace(params=0, extra=0, stats=0)
    jax.tree.map(np.testing.assert_array_equal, (again.params, again.extra), (network.params, network.extra))
    assert warm_start.read(str(tmp_path / "out"))["params"].keys() == {"backbone", "projector"}


def test_a_run_of_dino_begins_with_head_and_center_of_a_file(golden, tmp_path):  # noqa: F811
    state = state_of("dino", *AS_OFFICIAL)
    ours = state.params["projector"]
    hidden, bottleneck = ours["layers_1"]["kernel"].shape[1], ours["layers_2"]["kernel"].shape[1]
    prototypes = len(ours["directions"])
    head = dino_head(32, hidden, bottleneck, prototypes, np.ones((prototypes, 1), np.float32))
    torch_file.write(tmp_path / "x.pth", {"model": whole_dino(golden, head, draw(1, prototypes))["teacher"],
                                          "dino_loss": {"center": draw(1, prototypes)}})  # fmt: skip
    from tests.small import small

    told = []
    begun = warm_start.start_from(str(tmp_path / "x.pth"), state, small("dino", *AS_OFFICIAL), told.append)
    np.testing.assert_array_equal(begun.params["projector"]["directions"], head["last_layer.weight_v"])
    np.testing.assert_array_equal(begun.teacher["projector"]["directions"], head["last_layer.weight_v"])
    assert np.any(begun.extra["center"]) and "projector of" in told[0]


def test_dinov2_has_two_heads(golden, tmp_path):  # noqa: F811
    lengths = draw(5, 1)
    heads = prefixed(dino_head(32, 6, 4, 5, lengths), "dino_head.") | prefixed(
        dino_head(32, 8, 4, 7, draw(7, 1)), "ibot_head."
    )
    teacher = prefixed(read(golden / "dinov2_vit.pth"), "backbone.") | heads
    torch_file.write(tmp_path / "x.pth", {"teacher": teacher})
    params = load_network(open_file(tmp_path / "x.pth")).params
    np.testing.assert_array_equal(params["projector"]["length"], lengths)
    assert params["patch_projector"]["directions"].shape == (7, 4)


@pytest.mark.parametrize("name", ["official_mae", "hf_mae_normpix1"])
def test_the_decoder_of_mae(golden, name):  # noqa: F811
    whole, network = load_mae(golden / f"{name}.pth", decoder_heads=2), load_network(open_file(golden / f"{name}.pth"))
    jax.tree.map(np.testing.assert_array_equal, whole.params["decoder"], network.params["decoder"])


def test_the_predictor_of_ijepa_beside_its_encoders(golden, tmp_path):  # noqa: F811
    encoder, predictor = read(golden / "ijepa_encoder.pth"), read(golden / "ijepa_predictor.pth")
    whole = {"encoder": prefixed(encoder, "module."), "predictor": prefixed(predictor, "module."),
             "target_encoder": prefixed(encoder, "module."), "opt": {"state": {}}, "lr": 0.1}  # fmt: skip
    torch_file.write(tmp_path / "x.pth.tar", whole)
    network = load_network(open_file(tmp_path / "x.pth.tar"), "target_encoder")
    _, params = load_predictor(golden / "ijepa_predictor.pth", heads=2)
    jax.tree.map(np.testing.assert_array_equal, params, network.params["predictor"])


def norm(width, affine=True):
    scale = {"weight": draw(width), "bias": draw(width)} if affine else {}
    return scale | {"running_mean": draw(width), "running_var": draw(width) ** 2}


def layers(**given):
    return {
        f"{place.replace('_', '.')}.{name}": array for place, arrays in given.items() for name, array in arrays.items()
    }


def shapes(tree):
    return jax.tree.map(np.shape, tree)


def shapes_of(mlp, inputs):
    made = jax.eval_shape(lambda x: mlp.init(jax.random.key(0), x), jax.ShapeDtypeStruct((2, inputs), jnp.float32))
    return shapes(made["params"]), shapes(made.get("batch_stats", {}))


def test_head_and_queue_of_moco(golden, tmp_path):  # noqa: F811
    arrays = {name: array for name, array in read(golden / "resnet18.pth").items() if not name.startswith("fc")}
    head = layers(fc_0={"weight": draw(32, 32), "bias": draw(32)}, fc_2={"weight": draw(8, 32), "bias": draw(8)})
    queue = draw(8, 11)
    state = prefixed(arrays | head, "module.encoder_q.") | {"module.queue": queue, "module.queue_ptr": np.int64([3])}
    torch_file.write(tmp_path / "x.pth", {"state_dict": state})
    network = load_network(open_file(tmp_path / "x.pth"))
    assert shapes(network.params["projector"]) == shapes_of(Mlp((32, 8)), 32)[0]
    np.testing.assert_array_equal(network.params["projector"]["Dense_1"]["kernel"], head["fc.2.weight"].T)
    np.testing.assert_array_equal(network.extra["queue"], queue.T)


def test_heads_of_simsiam(golden, tmp_path):  # noqa: F811
    arrays = {name: array for name, array in read(golden / "resnet18.pth").items() if not name.startswith("fc")}
    head = layers(fc_0={"weight": draw(16, 32)}, fc_1=norm(16), fc_3={"weight": draw(16, 16)}, fc_4=norm(16),
                  fc_6={"weight": draw(8, 16), "bias": draw(8) * 0}, fc_7=norm(8, affine=False))  # fmt: skip
    predictor = layers(predictor_0={"weight": draw(4, 8)}, predictor_1=norm(4),
                       predictor_3={"weight": draw(8, 4), "bias": draw(8)})  # fmt: skip
    state = prefixed(arrays | head, "module.encoder.") | prefixed(predictor, "module.")
    torch_file.write(tmp_path / "x.pth", {"state_dict": state})
    network = load_network(open_file(tmp_path / "x.pth"))
    params, stats = shapes_of(Mlp((16, 16, 8), norm=True, last_norm=True, last_scale=False), 32)
    assert shapes(network.params["projector"]) == params
    assert shapes(network.stats["batch_stats"]["projector"]) == stats
    assert shapes(network.params["predictor"]) == shapes_of(Mlp((4, 8), norm=True), 8)[0]


def test_the_head_of_barlow_twins_and_not_that_of_vicreg(golden, tmp_path):  # noqa: F811
    arrays = {name: array for name, array in read(golden / "resnet18.pth").items() if not name.startswith("fc")}
    head = layers(projector_0={"weight": draw(16, 32)}, projector_1=norm(16), projector_3={"weight": draw(16, 16)},
                  projector_4=norm(16), projector_6={"weight": draw(8, 16)})  # fmt: skip
    torch_file.write(tmp_path / "x.pth", {"model": prefixed(arrays, "module.backbone.") | prefixed(head, "module.")})
    network = load_network(open_file(tmp_path / "x.pth"))
    assert shapes(network.params["projector"]) == shapes_of(Mlp((16, 16, 8), norm=True, last_bias=False), 32)[0]
    head["projector.0.bias"] = draw(16)
    torch_file.write(tmp_path / "x.pth", {"model": prefixed(arrays, "module.backbone.") | prefixed(head, "module.")})
    assert set(load_network(open_file(tmp_path / "x.pth")).params) == {"backbone"}
