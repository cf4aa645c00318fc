"""A checkpoint is what was saved, or it is not used: kills, flipped bits, other meshes, other configs."""

import os
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

from jax_ssl import core, sharding
from jax_ssl.errors import LostError, RunError, UserError
from jax_ssl.run import manifest, storage
from jax_ssl.run.checkpoints import Checkpoints, find, load_raw

ROOT = Path(__file__).parents[2]


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
    """The largest file that holds arrays."""
    return max((Path(folder) / str(step) / "state").rglob("d/*"), key=lambda path: path.stat().st_size)


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
    assert steps_in(folder) == [2, 3]
    checkpoints.close()


def test_only_large_arrays_are_cut_into_shares_to_be_written(tmp_path, monkeypatch):
    """Each cut of each shape is a program to compile, eight for an array that eight devices have."""
    cut, lengths = jax.lax.slice_in_dim, []
    monkeypatch.setattr(jax.lax, "slice_in_dim", lambda x, *at, **how: lengths.append(len(x)) or cut(x, *at, **how))
    state = {"small": np.ones((64, 16), np.float32), "large": np.ones((8, storage.LEAST_SLICE), np.uint8)}
    mesh = sharding.make_mesh()
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(1, sharding.replicate(state, mesh), wait=True)
    checkpoints.close()
    assert lengths == 8 * [8]
    assert_equal(load_raw(tmp_path)[0], state)


def test_a_relative_folder_is_as_good_as_another(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    state = make_state(2.0)
    keeper = Checkpoints("runs/mine/checkpoints")
    keeper.save(1, state, wait=True)
    keeper.close()
    loaded, step = load_raw("runs/mine/checkpoints")
    assert step == 1 and (tmp_path / "runs/mine/checkpoints/1").is_dir() and "params" in loaded


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


@pytest.mark.parametrize(
    "harm, reason",
    [(flip_bit, "does not match its checksum"), (truncate, "bytes where"), (Path.unlink, "is missing")],
    ids=["flipped bit", "truncated", "missing"],
)
def test_damaged_step_is_set_aside_and_the_one_before_is_taken(tmp_path, harm, reason):
    said = []
    saved(tmp_path)
    harm(data_file(tmp_path, 2))
    checkpoints = Checkpoints(tmp_path, say=said.append)
    state, step = checkpoints.restore(layout(make_state()))
    assert step == 1
    assert_equal(state, make_state(1))
    assert len(said) == 1 and "step 2 is not used" in said[0] and reason in said[0]
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
    record = tmp_path / "1" / "manifest.json"
    whole = record.read_text()
    record.write_text(whole.replace("float32", "int32"))  # so the manifest vouches for itself too
    with pytest.raises(UserError, match="its own checksum"):
        load_raw(tmp_path)
    record.write_text(whole)
    assert load_raw(tmp_path)[1] == 1


@pytest.mark.parametrize("steps, expected", [((1, 2), 1), ((2,), None)], ids=["older one", "nothing else"])
def test_step_without_manifest_is_not_used(tmp_path, steps, expected):
    said = []
    saved(tmp_path, steps=steps)
    (tmp_path / "2" / "manifest.json").unlink()
    restored = Checkpoints(tmp_path, say=said.append).restore(layout(make_state()))
    assert (restored and restored[1]) == expected
    assert len(said) == 1 and "never finished" in said[0]


def test_newest_and_best_are_kept_also_over_a_restart(tmp_path):
    small = {"x": jnp.ones(3)}
    scores = {1: float("nan"), 2: 0.9, 3: None, 4: 0.5, 5: 0.3, 6: None}
    for steps in ((1, 2, 3), (4, 5, 6)):
        checkpoints = Checkpoints(tmp_path, keep_last=2, keep_best=1)
        checkpoints.restore(small)
        for step in steps:
            checkpoints.save(step, small)
            if scores[step] is not None:
                checkpoints.score(step, scores[step])
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
    assert load_raw(tmp_path)[1] == 1
    checkpoints.save(2, {"x": jnp.ones(3)}, wait=True)
    checkpoints.close()


@pytest.mark.parametrize(
    "error, kind, words",
    [
        (OSError(28, "No space left on device"), LostError, "the disk is full"),
        (
            ValueError("x" * 900 + " [OS error 28: ENOSPC No space left on device]"),
            LostError,
            "No space left on device",
        ),
        (ValueError("tensorstore says what it says"), LostError, "ValueError: tensorstore says"),
        (TypeError("a bug"), RunError, "a bug"),
    ],
)
def test_why_a_save_failed_is_said_and_a_full_disk_is_the_worlds_fault(error, kind, words, tmp_path, monkeypatch):
    def fails(*args, **keywords):
        raise error

    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(1, {"x": jnp.ones(3)}, wait=True)
    monkeypatch.setattr(manifest, "write", fails)
    with pytest.raises(kind, match=words) as caught:
        checkpoints.save(2, {"x": jnp.ones(3)}, wait=True)
    assert type(caught.value) is kind and "\n" not in str(caught.value) and len(str(caught.value)) < 700
    monkeypatch.undo()
    checkpoints.close()
    assert load_raw(tmp_path)[1] == 1


SMALL = {"x": np.ones(3)}


def test_the_newest_proven_step_outlives_any_number_of_saves(tmp_path):
    checkpoints = Checkpoints(tmp_path, keep_last=1, keep_best=0)
    for step in (1, 2, 3):
        checkpoints.save(step, SMALL)
        checkpoints.mark_finite(step + 1, skipped=0)
    for step in (4, 5, 6):  # step 4 was finite, and nothing after it
        checkpoints.save(step, SMALL)
        checkpoints.mark_finite(step, skipped=step - 4)
    checkpoints.close()
    assert steps_in(tmp_path) == [3, 6]


def test_one_that_is_followed_by_nothing_finite_is_not_gone_back_to(tmp_path):
    said = []
    for attempt in range(2):  # the same command again ends in the same way, and the good one is still there
        checkpoints = Checkpoints(tmp_path, keep_last=2, keep_best=0, say=said.append)
        assert (checkpoints.restore(SMALL) or (None, 0))[1] == (2 if attempt else 0)
        for step in (2, 4, 6):
            checkpoints.save(step, SMALL)
            checkpoints.mark_finite(min(step, 4), skipped=0)
        checkpoints.mark_finite(8, skipped=4)
        assert checkpoints.mark_ruined() == str(tmp_path / "2")
        checkpoints.close()
        assert load_raw(tmp_path)[1] == 2, "evaluation and init_from take that one too"
        assert load_raw(tmp_path, step=6)[1] == 6, "unless another is named"
    checkpoints = Checkpoints(tmp_path, say=said.append)
    assert checkpoints.restore(SMALL)[1] == 2 and steps_in(tmp_path) == [2]
    assert len(said) == 4 and all("no step after it was finite" in sentence for sentence in said)
    checkpoints.save(4, SMALL, wait=True)
    assert load_raw(tmp_path)[1] == 4, "a step that is made again is judged again"
    checkpoints.close()


def test_a_run_that_was_never_finite_has_nothing_to_go_back_to(tmp_path):
    checkpoints = Checkpoints(tmp_path, say=lambda sentence: None)
    checkpoints.save(1, SMALL)
    checkpoints.mark_finite(5, skipped=5)
    assert checkpoints.mark_ruined() is None
    assert checkpoints.restore(SMALL) is None


def test_a_damaged_step_is_not_what_a_run_falls_back_to(tmp_path):
    checkpoints = Checkpoints(saved(tmp_path, steps=(1, 2, 3), keep_last=3))
    checkpoints.restore(layout(make_state()))
    checkpoints.mark_finite(4, skipped=0)
    flip_bit(data_file(tmp_path, 3))
    assert checkpoints.mark_ruined() == str(tmp_path / "2")


def test_scores_of_an_older_run_still_keep_its_best(tmp_path, monkeypatch):
    write = manifest.write
    monkeypatch.setattr(manifest, "write", lambda folder, item, **facts: write(folder, item, score=0.9, **facts))
    saved(tmp_path, steps=(1,))
    monkeypatch.undo()
    checkpoints = Checkpoints(tmp_path, keep_last=1)
    checkpoints.restore(layout(make_state()))
    for step in (2, 3):
        checkpoints.save(step, make_state(step))
    checkpoints.close()
    assert steps_in(tmp_path) == [1, 3]


def test_a_step_that_goes_while_it_is_read_is_passed_over(tmp_path, monkeypatch):
    """As an evaluation beside a run sees it: the run deletes old steps and writes new ones."""
    saved(tmp_path, steps=(1, 2, 3), keep_last=3)
    raw = storage.read_raw

    def deleted(path, names):
        if path.name == "3":
            path.rmtree()
        return raw(path, names)

    monkeypatch.setattr(storage, "read_raw", deleted)
    assert load_raw(tmp_path)[1] == 2
    verify, moved = manifest.verify, []

    def all_replaced(path):
        if not moved:
            moved.extend((tmp_path / str(old)).rename(tmp_path / str(old + 3)) for old in (1, 2))
        return verify(path)

    monkeypatch.setattr(manifest, "verify", all_replaced)
    assert load_raw(tmp_path)[1] == 5, "none of the steps that were listed is there any more"


def test_a_disk_that_does_not_answer_says_nothing_against_a_step(tmp_path, monkeypatch):
    saved(tmp_path)

    def fails(*args, **keywords):
        raise OSError(5, "Input/output error")

    for module, name in ((manifest, "_fingerprint"), (storage, "_read")):
        for read in (lambda: load_raw(tmp_path), lambda: Checkpoints(tmp_path).restore(layout(make_state()))):
            monkeypatch.setattr(module, name, fails)
            with pytest.raises((OSError, LostError), match="Input/output error"):
                read()
            monkeypatch.undo()
    assert steps_in(tmp_path) == [1, 2] and Checkpoints(tmp_path).restore(layout(make_state()))[1] == 2


def test_a_run_and_a_step_of_it_are_found_by_name(tmp_path):
    assert find(tmp_path) == (tmp_path / "checkpoints", None)
    assert find(f"{tmp_path}/checkpoints/12") == (tmp_path / "checkpoints", 12)
    assert find(f"{tmp_path}/12") == (tmp_path / "12/checkpoints", None)


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
        (
            lambda p: {**p, "head": {"kernel": jnp.ones((16, 9))}},
            r"head/kernel is \(16, 8\) float32 there .* \(16, 9\)",
        ),
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
        from jax_ssl.run.checkpoints import Checkpoints
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
