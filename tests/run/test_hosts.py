"""Several processes on this machine, through the real entry point, do what one does; or they end, and say why."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest

from jax_ssl.data import batch, pipeline
from jax_ssl.run import checkpoints, lock, manifest
from tests.devices import xla_flags
from tests.small import overrides, small
from tests.study import several
from tests.test_train import lines, wait_for_step

ROOT = Path(__file__).parents[2]
IMAGES, BATCH, HEARTBEAT = 320, 32, 10
# Each process runs this: the real command, and a note of which records its share of each batch is made of. At the end,
# while they are still connected, they share the work on some features.
RECORDED = """
import sys
import numpy as np
from jax_ssl import __main__ as command
from jax_ssl import train
from jax_ssl.data import batch
from tests.study import several

step, whole, file = batch.Plan.step, train.train, open(sys.argv[1], "w")

def recorded(plan, number):
    record, drawn = step(plan, number)
    print(number, *record, file=file, flush=True)
    return record, drawn

def train_and_extract(*arguments):
    finished = whole(*arguments)
    np.save(sys.argv[1] + ".npy", several.extract("no folder"))
    return finished

batch.Plan.step, train.train = recorded, train_and_extract
sys.exit(command.main(sys.argv[2:]))
"""


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """A source without labels, so that no time goes into measuring features."""
    path = tmp_path_factory.mktemp("images") / "images.npz"
    np.savez(path, images=np.random.default_rng(0).integers(0, 256, (IMAGES, 32, 32, 3), np.uint8))
    return path


def flags(images, workdir, steps, *more):
    """A small SimCLR whose first steps are the same whatever their number."""
    return [
        "train", "--config=simclr:tiny", f"--workdir={workdir}", *overrides("simclr"),
        f"--config.data.name=arrays:{images}", "--config.model.stages=(1,)", "--config.log_every=1",
        "--config.optim.warmup_epochs=0", "--config.optim.schedule=constant",
        f"--config.epochs={steps * BATCH / IMAGES}", "--config.evaluate_at_end=False", "--config.picture_every=0",
        f"--config.hosts.heartbeat={HEARTBEAT}", *more,
    ]  # fmt: skip


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


@contextlib.contextmanager
def started(arguments, processes, devices, folder=None):
    """So many processes of one run, with so many devices each. folder: where each notes the records of its batches."""
    env = os.environ | {"XLA_FLAGS": xla_flags(devices), "PYTHONPATH": str(ROOT)}
    where = [f"--coordinator=127.0.0.1:{free_port()}", f"--processes={processes}"] if processes > 1 else []
    running = []
    for number in range(processes):
        program = ["-c", RECORDED, str(folder / f"records{number}")] if folder else ["-m", "jax_ssl"]
        call = [sys.executable, *program, *arguments, *where, *([f"--process={number}"] if where else [])]
        running.append(subprocess.Popen(call, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True))
    try:
        yield running
    finally:
        for process in running:
            process.kill()
            process.wait()


def ended(running, timeout=500):
    """Waits for all: their exit codes and what each has said."""
    said = [process.communicate(timeout=timeout)[0] for process in running]
    return [process.returncode for process in running], said


def run(arguments, processes, devices, folder=None):
    """Runs to the end; returns what the first process has said."""
    with started(arguments, processes, devices, folder) as running:
        codes, said = ended(running)
    assert codes == [0] * processes, "\n".join(said)
    assert not any("step " in text for text in said[1:]), "only the first process speaks"
    return said[0]


def wait_for_text(process, file, text):
    until = time.time() + 240
    while not (file.exists() and text in file.read_text()):
        assert process.poll() is None and time.time() < until, process.stdout.read()
        time.sleep(0.05)


def losses(workdir):
    found = lines(workdir)
    assert [line["step"] for line in found] == list(range(1, len(found) + 1))
    return np.asarray([line["loss"] for line in found])


def assert_same_run(a, b):
    """Losses of the steps that both have made, and their last states, within what another order of sums changes."""
    steps = min(len(losses(a)), len(losses(b)))
    np.testing.assert_allclose(losses(a)[:steps], losses(b)[:steps], rtol=1e-5)
    (left, step), (right, other) = (checkpoints.load_raw(folder / "checkpoints") for folder in (a, b))
    if step == other:
        one, two = (jax.tree.leaves_with_path(state["params"]) for state in (left, right))
        assert [path for path, _ in one] == [path for path, _ in two]
        for (path, mine), (_, theirs) in zip(one, two):
            np.testing.assert_allclose(mine, theirs, rtol=1e-5, atol=1e-5, err_msg=jax.tree_util.keystr(path))


STEPS = 8


@pytest.fixture(scope="module")
def straight(images, tmp_path_factory):
    """A run of one process with four devices, which also traces two of its steps."""
    folder = tmp_path_factory.mktemp("straight")
    said = run(flags(images, folder, STEPS, "--profile=2:3"), 1, 4)
    assert f"is in {folder}/profile" in said and list(folder.glob("profile/**/*.xplane.pb"))
    return folder


@pytest.mark.parametrize("processes", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_processes_do_what_one_does(processes, images, straight, tmp_path):
    said = run(flags(images, tmp_path / "run", STEPS), processes, 4 // processes, tmp_path)
    assert f"4 cpu devices of {processes} processes" in said
    assert_same_run(straight, tmp_path / "run")
    read = [[line.split() for line in (tmp_path / f"records{i}").read_text().splitlines()] for i in range(processes)]
    for step in range(STEPS):
        shares = [read[process][step][1:] for process in range(processes)]
        assert [len(share) for share in shares] == [BATCH // processes] * processes
    # An epoch is every record once: no process has read what another has.
    assert sorted(int(record) for step in range(STEPS) for process in read for record in process[step][1:]) == sorted(
        int(record) for step in range(STEPS) for record in plan_of_one(images).step(step)[0]
    )
    # Each process has all features, in order, without the images that any of them could not read.
    expected = several.extract(tmp_path / "features")
    assert list(expected[:, -1]) == [place for place in range(several.COUNT) if place not in several.UNREADABLE]
    for number in range(processes):
        np.testing.assert_allclose(np.load(tmp_path / f"records{number}.npy"), expected, rtol=1e-6)
    # The checksum of a checkpoint covers what every process has written.
    (kept,) = (tmp_path / "run/checkpoints").iterdir()
    files = {str(file.relative_to(kept)) for file in (kept / "state").rglob("*") if file.is_file()}
    assert set(manifest.read(kept)["files"]) == files and len(files) > processes


def plan_of_one(images):
    settings = small("simclr", f"--config.data.name=arrays:{images}")
    crops = pipeline.recipes(settings)
    return batch.Plan(settings.seed, IMAGES, BATCH, BATCH, 0, crops)


def test_shares_make_the_batch_of_one(images):
    settings = small("simclr", f"--config.data.name=arrays:{images}", f"--config.batch_size={BATCH}")
    whole = next(pipeline.open_data(settings).batches(3))
    for processes in (2, 4):
        shares = [next(pipeline.open_data(settings, number, processes).batches(3)) for number in range(processes)]
        joined = jax.tree.map(lambda *parts: np.concatenate(parts), *shares)
        jax.tree.map(np.testing.assert_array_equal, joined, whole)


def test_stopped_together_one_goes_on_alone(images, straight, tmp_path):
    """SIGTERM to one process, before its first step: all save the same step; one process with four devices goes on."""
    arguments = flags(images, tmp_path, STEPS)
    with started(arguments, 2, 2) as running:
        wait_for_text(running[0], tmp_path / "log.txt", "of 2 processes")
        running[1].send_signal(signal.SIGTERM)
        codes, said = ended(running)
    assert codes == [0, 0] and "the same command goes on from here" in said[0], "\n".join(said)
    stopped = len(losses(tmp_path))
    assert stopped < STEPS and checkpoints.load_raw(tmp_path / "checkpoints")[1] == stopped
    assert f"going on from step {stopped}" in run(arguments, 1, 4)
    assert len(losses(tmp_path)) == STEPS
    assert_same_run(straight, tmp_path)
    account = json.loads((tmp_path / "goodput.json").read_text())["seconds"]
    assert account["down"] > 0 and account["step"] > 0 and account["compile"] > 0
    assert 0 < lines(tmp_path)[-1]["goodput"] < 1 and "% compile" in (tmp_path / "log.txt").read_text()


def test_a_second_command_is_refused_on_every_process(images, tmp_path):
    with lock.exclusive(tmp_path), started(flags(images, tmp_path, STEPS), 2, 1) as running:
        codes, said = ended(running)
    assert codes == [2, 2], "\n".join(said)
    assert all(f"in use by process {os.getpid()}" in text and "Traceback" not in text for text in said)


@pytest.mark.slow
def test_stopped_on_the_way_it_goes_on_with_more_processes(images, straight, tmp_path):
    """SIGTERM between steps, while checkpoints are being written."""
    arguments = flags(images, tmp_path, 5000, "--config.checkpoint_every=3")
    reached = 0
    for processes, signalled in ((2, 0), (4, 3), (2, 1)):
        with started(arguments, processes, 4 // processes) as running:
            wait_for_step(running[0], tmp_path, reached + 5)
            running[signalled].send_signal(signal.SIGTERM)
            codes, said = ended(running)
        assert codes == [0] * processes and "all saved" in said[0], "\n".join(said)
        assert not reached or f"going on from step {reached}" in said[0]
        reached = len(losses(tmp_path))
        assert checkpoints.load_raw(tmp_path / "checkpoints")[1] == reached
    assert_same_run(straight, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("killed", [0, 1])
def test_killed_one_lets_the_others_go(killed, images, straight, tmp_path):
    arguments = flags(images, tmp_path, 5000, "--config.checkpoint_every=2")
    with started(arguments, 2, 2) as running:
        wait_for_step(running[0], tmp_path, 5)
        running[killed].send_signal(signal.SIGKILL)
        begun = time.time()
        codes, said = ended(running)
        assert time.time() - begun < HEARTBEAT + 20
    assert codes[killed] == -signal.SIGKILL and codes[1 - killed] not in (0, 2)
    words = ("another process has died", "another task died")
    assert any(text in said[1 - killed] for text in words), said[1 - killed]
    with started(arguments, 2, 2) as running:
        wait_for_step(running[0], tmp_path, 9)
        running[1].send_signal(signal.SIGTERM)
        codes, said = ended(running)
    assert codes == [0, 0] and "going on from step" in said[0]
    assert json.loads((tmp_path / "goodput.json").read_text())["seconds"]["repeated"] > 0
    assert_same_run(straight, tmp_path)


HANGING = """
import sys, time
from jax_ssl import __main__ as command
from jax_ssl.data import batch

step = batch.Plan.step
batch.Plan.step = lambda plan, number: step(plan, number) if number < 4 else time.sleep(1000)
sys.exit(command.main(sys.argv[1:]))
"""


@pytest.mark.slow
def test_a_run_that_hangs_ends_itself(images, tmp_path):
    """Its data come to a stop after four steps: the source hangs, say."""
    arguments = flags(images, tmp_path, STEPS, "--config.hosts.hang_seconds=40")
    child = subprocess.run([sys.executable, "-c", HANGING, *arguments], cwd=ROOT, capture_output=True, text=True)
    assert child.returncode == 1 and "nothing has moved for 40 seconds" in child.stderr, child.stderr
    assert len(lines(tmp_path)) == 3, "the fourth step is made when the batch after it is there"
    assert "in loop" in child.stderr and "in loop" in (tmp_path / "hang_of_process_0.txt").read_text()


@pytest.mark.slow
def test_large_parameters_split_over_processes_are_saved_measured_and_started_from(tmp_path):
    """FSDP over all devices: no process holds a whole parameter, and everything beside the steps still works."""
    probe = ["--config.data.probe.train=200", "--config.data.probe.test=100"]
    size = [text for text in overrides("simclr") if "width" not in text and "projector" not in text]
    every = ["--config.log_every=1", f"--config.epochs={2 * 32 / 5000}", "--config.checkpoint_every=1"]
    arguments = ["train", "--config=simclr:tiny", *size, "--config.mesh.fsdp=4", *probe, *every]
    arguments += ["--config.method.projector=(4096,256)", "--config.optim.warmup_epochs=0"]
    said = run([*arguments, f"--workdir={tmp_path}/first"], 2, 2)
    assert "raw pixels" in said and said.count("untrained") == 2
    first = lines(tmp_path / "first")
    assert 0 <= first[-1]["knn"] <= 1 and first[-1]["rankme"] >= 1
    results = [json.loads(line) for line in (tmp_path / "first/results.jsonl").read_text().splitlines()]
    numbers = [(r["task"], r["weights"], r["k"], r["protocol"].get("batch_statistics")) for r in results]
    assert len(numbers) == len(set(numbers)) > 0, "each number once"
    begun = [f"--config.init_from={tmp_path}/first", f"--workdir={tmp_path}/second", "--config.evaluate_at_end=False"]
    said = run([*arguments, *begun], 2, 2)
    assert "starting from backbone" in said
    assert lines(tmp_path / "second")[0]["loss"] < first[0]["loss"]
