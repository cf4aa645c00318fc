"""A checkpoint is what was saved, or it is not used: kills, flipped bits, other meshes, other configs."""

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from jax_ssl import core, manifest, sharding
from jax_ssl.checkpoints import Checkpoints, check_config, load_raw, write_config
from jax_ssl.errors import RunError, UserError

ROOT = Path(__file__).parents[1]


def make_state(fill: float = 0.0):
    """All that a state may hold: bf16, masked optimiser state, empty dicts, a typed key, an array of size 0."""
    weights = jnp.arange(64 * 16, dtype=jnp.float32).reshape(64, 16) + fill
    backbone = {"kernel": weights, "half": jnp.full((4,), 1 / 3, jnp.bfloat16), "registers": jnp.zeros((0, 16))}
    params = {"backbone": backbone, "head": {"kernel": jnp.ones((16, 8))}}
    tx = optax.chain(optax.masked(optax.adamw(1e-3), {"backbone": True, "head": False}), optax.trace(0.9))
    return core.TrainState(
        step=jnp.int32(7),
        params=params,
        opt_state=tx.init(params),
        teacher={},
        extra={"stats": {}, "queue": jnp.full((32, 8), fill, jnp.float32)},
        rng=jax.random.key(11),
        skipped=jnp.int32(0),
    )


def layout(state, mesh=None):
    """What restore needs to know of a state."""
    mesh = mesh or sharding.make_mesh(devices=jax.devices()[:1])
    shapes = jax.eval_shape(lambda: state)
    places = sharding.state_layout(shapes, mesh, min_size=512)
    return jax.tree.map(lambda x, place: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place), shapes, places)


def assert_equal(left, right):
    assert jax.tree.structure(left) == jax.tree.structure(right)
    for a, b in zip(jax.tree.leaves(left), jax.tree.leaves(right)):
        assert a.dtype == b.dtype
        if jnp.issubdtype(a.dtype, jax.dtypes.prng_key):
            a, b = jax.random.key_data(a), jax.random.key_data(b)
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b))


def saved(folder, steps=(1, 2), **options):
    """A folder with finished steps; step k holds make_state(k)."""
    checkpoints = Checkpoints(folder, **options)
    for step in steps:
        checkpoints.save(step, make_state(step))
    checkpoints.close()
    return folder


def steps_in(folder) -> list[int]:
    return sorted(int(name) for name in os.listdir(folder) if name.isdigit())


def data_file(folder, step: int) -> Path:
    """The largest data file of a step: where the arrays are."""
    files = [path for path in (Path(folder) / str(step) / "state").rglob("*") if path.is_file()]
    return max(files, key=lambda path: path.stat().st_size)


def flip_bit(path: Path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def truncate(path: Path):
    path.write_bytes(path.read_bytes()[:-1])


def test_what_was_saved_comes_back(tmp_path):
    assert Checkpoints(tmp_path / "none").restore(layout(make_state())) is None
    folder = saved(tmp_path / "checkpoints")
    checkpoints = Checkpoints(folder)
    state, step = checkpoints.restore(layout(make_state()))
    assert step == 2
    assert_equal(state, make_state(2))
    checkpoints.save(3, state, wait=True)
    assert checkpoints.latest_good() == 3
    checkpoints.close()


def test_training_on_does_not_change_what_is_being_saved(tmp_path):
    """The step is donated: its buffers are written over while the save still runs."""
    advance = jax.jit(lambda x: x * 1.5 + 1, donate_argnums=0)
    state = {"x": jnp.arange(4_000_000, dtype=jnp.float32)}
    expected = np.arange(4_000_000, dtype=np.float32)
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(1, state)
    for _ in range(5):
        state = {"x": advance(state["x"])}
    checkpoints.close()
    np.testing.assert_array_equal(load_raw(tmp_path)[0]["x"], expected)


@pytest.mark.parametrize("harm", [flip_bit, truncate, Path.unlink], ids=["flipped bit", "truncated", "missing"])
def test_damaged_step_is_set_aside_and_the_one_before_is_taken(tmp_path, harm):
    said = []
    saved(tmp_path)
    harm(data_file(tmp_path, 2))
    checkpoints = Checkpoints(tmp_path, say=said.append)
    assert checkpoints.latest_good() == 1
    state, step = checkpoints.restore(layout(make_state()))
    assert step == 1
    assert_equal(state, make_state(1))
    assert len(said) == 1 and "step 2 is not used" in said[0]
    assert (tmp_path / "damaged" / "2").is_dir() and steps_in(tmp_path) == [1]
    checkpoints.save(2, make_state(5), wait=True)  # the run goes on and comes by again
    assert_equal(checkpoints.restore(layout(make_state()))[0], make_state(5))
    checkpoints.close()


def test_every_file_of_a_step_is_covered(tmp_path):
    saved(tmp_path, steps=(1,))
    files = [path for path in (tmp_path / "1" / "state").rglob("*") if path.is_file() and path.stat().st_size]
    assert len(files) > 5
    for path in [*files, tmp_path / "1" / "manifest.json"]:
        whole = path.read_bytes()
        flip_bit(path)
        with pytest.raises(UserError, match="no good checkpoint"):
            load_raw(tmp_path)
        path.write_bytes(whole)
    assert load_raw(tmp_path)[1] == 1


@pytest.mark.parametrize("steps, expected", [((1, 2), 1), ((2,), None)], ids=["older one", "nothing else"])
def test_step_without_manifest_is_not_used(tmp_path, steps, expected):
    said = []
    saved(tmp_path, steps=steps)
    (tmp_path / "2" / "manifest.json").unlink()
    restored = Checkpoints(tmp_path, say=said.append).restore(layout(make_state()))
    assert (restored and restored[1]) == expected
    assert len(said) == 1 and "never finished" in said[0]


KILLED = """
    import os, signal, sys
    import jax.numpy as jnp
    from jax_ssl import manifest
    from jax_ssl.checkpoints import Checkpoints

    def die(*args, **keywords):
        os.kill(os.getpid(), signal.SIGKILL)

    checkpoints = Checkpoints(sys.argv[1], keep_last=1)
    checkpoints.save(1, {"x": jnp.ones(100_000)}, wait=True)
    if sys.argv[2] == "before the manifest":
        manifest.write = die
    elif sys.argv[2] == "before the commit":
        os.rename = die
    else:
        checkpoints._manager._checkpoint_deleter.delete_steps = die
    checkpoints.save(2, {"x": jnp.zeros(100_000)}, wait=True)
    print("still alive")
"""


@pytest.mark.parametrize(
    "moment, expected", [("before the manifest", 1), ("before the commit", 1), ("before old steps are deleted", 2)]
)
def test_kill_9_while_saving_leaves_a_good_step(tmp_path, moment, expected):
    """Even with keep_last=1. Killed at the three moments between the last byte of data and the end of the save."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-c", textwrap.dedent(KILLED), str(tmp_path), moment]
    child = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert child.returncode == -signal.SIGKILL, child.stdout + child.stderr
    said = []
    checkpoints = Checkpoints(tmp_path, keep_last=1, say=said.append)
    state, step = checkpoints.restore({"x": jax.ShapeDtypeStruct((100_000,), jnp.float32)})
    assert step == expected and not said
    assert float(state["x"].sum()) == (100_000 if step == 1 else 0)
    checkpoints.save(step + 1, state, wait=True)
    checkpoints.close()
    assert [name for name in os.listdir(tmp_path) if "tmp" in name] == []
    assert steps_in(tmp_path) == [step + 1]


def test_newest_and_best_are_kept_also_over_a_restart(tmp_path):
    small = {"x": jnp.ones(3)}
    scores = {1: 0.3, 2: 0.9, 3: None, 4: 0.5, 5: float("nan"), 6: None}
    for steps in ((1, 2, 3), (4, 5, 6)):
        checkpoints = Checkpoints(tmp_path, keep_last=2, keep_best=1)
        checkpoints.restore(small)
        for step in steps:
            checkpoints.save(step, small, {"knn": scores[step]} if scores[step] is not None else None)
        checkpoints.close()
    assert steps_in(tmp_path) == [2, 5, 6]


def test_a_step_is_saved_once(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(1, {"x": jnp.ones(3)})
    checkpoints.save(1, {"x": jnp.zeros(3)}, wait=True)  # at the end of a run that has just saved
    checkpoints.close()
    assert load_raw(tmp_path)[0]["x"].sum() == 3


def test_failed_background_save_is_raised_by_poll(tmp_path, monkeypatch):
    def full(*args, **keywords):
        raise OSError("No space left on device")

    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(1, {"x": jnp.ones(3)}, wait=True)
    checkpoints.poll()
    monkeypatch.setattr(manifest, "write", full)
    checkpoints.save(2, {"x": jnp.ones(3)})
    with pytest.raises(RunError, match="No space left"):
        for _ in range(1000):  # as log steps come by
            checkpoints.poll()
            time.sleep(0.01)
    monkeypatch.undo()
    assert checkpoints.latest_good() == 1
    checkpoints.save(2, {"x": jnp.ones(3)}, wait=True)
    checkpoints.close()


def test_restored_bit_by_bit_onto_fewer_devices(tmp_path):
    """8 -> 4 -> 2 devices, parameters split over fsdp; each run saves what it has restored."""
    state, checkpoints = make_state(3), Checkpoints(tmp_path, keep_last=1)
    for step, devices in enumerate((8, 4, 2)):
        mesh = sharding.make_mesh(fsdp=2, devices=jax.devices()[:devices])
        target = layout(make_state(), mesh)
        if step == 0:
            state = jax.tree.map(lambda x, like: jax.device_put(x, like.sharding), state, target)
        else:
            state, _ = checkpoints.restore(target)
        kernel = state.params["backbone"]["kernel"]
        assert kernel.sharding == NamedSharding(mesh, P("fsdp", None))
        assert len(state.rng.sharding.device_set) == devices
        assert_equal(state, make_state(3))
        checkpoints.save(step, state, wait=True)
    checkpoints.close()


def test_raw_arrays_and_subtrees(tmp_path):
    saved(tmp_path, steps=(1, 2))
    tree, step = load_raw(tmp_path)
    assert step == 2 and set(tree) == {"step", "params", "opt_state", "extra", "rng", "skipped"}
    tree, step = load_raw(tmp_path, step=1, names=("params", "teacher"))
    assert step == 1 and set(tree) == {"params", "teacher"} and tree["teacher"] == {}
    backbone = tree["params"]["backbone"]
    assert backbone["half"].dtype == jnp.bfloat16 and backbone["registers"].shape == (0, 16)
    np.testing.assert_array_equal(backbone["kernel"], make_state(1).params["backbone"]["kernel"])
    flip_bit(data_file(tmp_path, 2))
    assert load_raw(tmp_path)[1] == 1 and steps_in(tmp_path) == [1, 2]  # reading moves nothing
    with pytest.raises(UserError, match="step 2: .* does not match its checksum"):
        load_raw(tmp_path, step=2)
    with pytest.raises(UserError, match="there are: 1, 2"):
        load_raw(tmp_path, step=9)


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda p: {**p, "head": {"kernel": jnp.ones((16, 9))}}, r"head/kernel is \(16, 8\) float32 there .* \(16, 9\)"),
        (lambda p: {**p, "head": {"kernel": jnp.ones((16, 8), jnp.bfloat16)}}, "head/kernel is .* bfloat16 here"),
        (lambda p: {"backbone": p["backbone"]}, r"params/head/kernel is \(16, 8\) float32 there and absent here"),
        (lambda p: {**p, "new": {"bias": jnp.ones(2)}}, r"params/new/bias is absent there and \(2,\) float32 here"),
    ],
)
def test_foreign_checkpoint_is_refused_with_the_first_difference(tmp_path, change, message):
    saved(tmp_path, steps=(1,))
    state = make_state()
    with pytest.raises(UserError, match=message) as caught:
        Checkpoints(tmp_path).restore(layout(state.replace(params=change(state.params))))
    assert "--workdir" in str(caught.value) and "\n" not in str(caught.value)
    assert steps_in(tmp_path) == [1]


def test_saving_and_restoring_is_silent(tmp_path):
    script = """
        import sys
        import jax.numpy as jnp
        from jax_ssl.checkpoints import Checkpoints
        checkpoints = Checkpoints(sys.argv[1])
        for step in range(4):
            checkpoints.save(step, {"x": jnp.ones(3)})
        checkpoints.restore({"x": jnp.ones(3)})
        checkpoints.close()
    """
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-c", textwrap.dedent(script), str(tmp_path)]
    child = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert (child.returncode, child.stdout, child.stderr) == (0, "", "")


CONFIG = {
    "seed": 0,
    "log_every": 10,
    "optim": {"base_lr": 0.3, "b1": 0.9},
    "mesh": {"fsdp": 1},
    "data": {"dir": "/a", "workers": 1, "crops": {"views": [{"size": 32, "scale": (0.08, 1.0)}]}},
}


def changed(path: str, value) -> dict:
    config = json.loads(json.dumps(CONFIG))
    *parents, last = path.split(".")
    branch = config
    for key in parents:
        branch = branch[int(key) if isinstance(branch, list) else key]
    branch[last] = value
    return config


def test_another_config_on_the_same_folder_is_refused(tmp_path):
    check_config(tmp_path / "run", CONFIG)
    write_config(tmp_path / "run", CONFIG)
    check_config(tmp_path / "run", CONFIG)  # tuples in it have become lists
    assert os.listdir(tmp_path / "run") == ["config.json"]
    with pytest.raises(UserError) as caught:
        check_config(tmp_path / "run", changed("optim.base_lr", 0.1))
    assert "optim.base_lr: 0.3 there, 0.1 here" in str(caught.value) and "another --workdir" in str(caught.value)
    with pytest.raises(UserError, match="data.crops.views.0.size: 32 there, 64 here"):
        check_config(tmp_path / "run", changed("data.crops.views.0.size", 64))
    with pytest.raises(UserError, match="optim.clip: absent there, 1 here"):
        check_config(tmp_path / "run", changed("optim.clip", 1))
    many = {**CONFIG, **{f"new{number}": number for number in range(7)}}
    with pytest.raises(UserError, match=r"new4: absent there, 4 here; and 2 more\)"):
        check_config(tmp_path / "run", many)


@pytest.mark.parametrize("path, value", [("log_every", 1), ("mesh.fsdp", 2), ("data.dir", "/b"), ("data.workers", 8)])
def test_what_does_not_change_the_learning_may_differ(tmp_path, path, value):
    write_config(tmp_path, CONFIG)
    check_config(tmp_path, changed(path, value))


def test_unwritable_workdir_is_told_at_once(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="Cannot write to the folder .* choose another --workdir"):
        check_config(tmp_path / "file" / "run", CONFIG)
    with pytest.raises(UserError, match="Cannot write to the folder"):
        check_config("/proc/run", CONFIG)
    write_config(tmp_path, CONFIG)
    (tmp_path / "config.json").write_text("{torn")
    with pytest.raises(UserError, match="cannot be read as JSON"):
        check_config(tmp_path, CONFIG)
