import math

import pytest

from jax_ssl.errors import UserError
from jax_ssl.plan import topology


@pytest.mark.parametrize(
    ("google", "ours"),
    [
        ("v5litepod-256", "v5e:16x16"), ("v5litepod-8", "v5e:2x4"), ("v3-128", "v3:8x8"), ("v2-32", "v2:4x4"),
        ("v4-8", "v4:2x2x1"), ("v4-32", "v4:2x2x4"), ("v4-256", "v4:4x4x8"), ("v5p-128", "v5p:4x4x4"),
        ("v5p-2048", "v5p:8x8x16"), ("v5p-12288", "v5p:16x16x24"), ("v6e-256", "v6e:16x16"),
        ("tpu7x-128", "tpu7x:4x4x4"),
    ],
)  # fmt: skip
def test_both_names_are_one_pod(google, ours):
    assert topology.parse(google) == topology.parse(ours)
    assert topology.parse(google).name == ours and topology.parse(ours).type == google


@pytest.mark.parametrize("chips", [4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096])
def test_a_cube_has_all_its_chips(chips):
    shape = topology.cube(chips)
    assert math.prod(shape) == chips and max(shape) <= 2 * sorted(shape)[1]


def test_slices_count():
    pod = topology.parse("v5e-16", 2)
    assert pod.chips == 32 and pod.name == "2 x v5e:4x4" and pod.type == "v5litepod-16"


@pytest.mark.parametrize("name", ["v9:2x2", "hello", "v5litepod-48", "v6e-512", "v3-7", "v3:", "v4-12"])
def test_what_is_no_pod_is_one_sentence(name):
    with pytest.raises(UserError):
        topology.parse(name)


def test_a_shape_that_the_compiler_does_not_know_is_one_sentence():
    pytest.importorskip("libtpu")
    with pytest.raises(UserError, match="v5e:16x16"):
        topology.describe(topology.parse("v3:3x7"))


@pytest.mark.parametrize(
    ("name", "slices", "devices", "kind"),
    [("v3:2x2", 1, 8, "TPU v3"), ("v4-8", 1, 4, "TPU v4"), ("v5e:1x1", 1, 1, "TPU v5 lite"),
     ("v6e:2x2", 2, 8, "TPU v6 lite"), ("v5p-8", 1, 4, "TPU v5"), ("tpu7x-8", 1, 8, "TPU7x")],
)  # fmt: skip
def test_devices_are_those_of_the_real_pod(name, slices, devices, kind):
    pytest.importorskip("libtpu")
    described = topology.describe(topology.parse(name, slices))
    assert len(described) == devices and described[0].device_kind == kind
    assert len({getattr(device, "slice_index", 0) for device in described}) == slices


def test_where_the_compiler_would_abort_the_process_a_sentence_says_so(monkeypatch, tmp_path):
    monkeypatch.setattr(topology, "CPUS", str(tmp_path / "possible"))
    with pytest.raises(UserError, match="mount /sys in the container"):
        topology.describe(topology.parse("v5e:2x2", 1))
