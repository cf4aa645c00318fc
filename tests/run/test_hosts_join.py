"""How processes find each other; where nothing says that there are others, nothing is asked."""

import signal
import socket
from types import SimpleNamespace

import jax
import pytest

from jax_ssl import __main__ as command
from jax_ssl import sharding
from jax_ssl.errors import DataError, LostError, RunError, UserError
from jax_ssl.run import devices, hosts, profiling
from tests.run.test_hosts import ended, started

SIMCLR = ["train", "--config=simclr:tiny"]


def test_nobody_there_is_told_in_time(tmp_path):
    arguments = [*SIMCLR, f"--workdir={tmp_path}", "--config.hosts.init_timeout=3"]
    with started(arguments, 3, 1) as running:
        running[1].kill()
        codes, said = ended(running, 60)
    assert codes == [1, -signal.SIGKILL, 1]
    for text in (said[0], said[2]):
        assert text.startswith("jax_ssl: The 3 processes of this run") and text.count("\n") == 1


def test_a_port_in_use(tmp_path, capsys):
    with socket.create_server(("127.0.0.1", 0)) as server:
        where = f"--coordinator=127.0.0.1:{server.getsockname()[1]}"
        assert command.main([*SIMCLR, f"--workdir={tmp_path}", where, "--processes=2", "--process=0"]) == 2
    error = capsys.readouterr().err
    assert "cannot listen" in error and error.count("\n") == 1


@pytest.mark.parametrize("wrong", [
    ["--coordinator=127.0.0.1:80", "--processes=2"], ["--process=0"], ["--processes=2", "--process=1"],
    ["--coordinator=127.0.0.1", "--processes=2", "--process=0"],
    ["--coordinator=127.0.0.1:80", "--processes=2", "--process=2"],
    ["--coordinator=:80", "--processes=2", "--process=1"],
    ["--profile=10"], ["--profile=0:3"], ["--profile=4:3"], ["--profile=a:b"], ["--profile=999:1000"],
])  # fmt: skip
def test_mistakes(wrong, tmp_path, capsys):
    assert command.main([*SIMCLR, f"--workdir={tmp_path}", *wrong]) == 2
    error = capsys.readouterr().err
    assert error.startswith("jax_ssl: ") and error.count("\n") == 1
    assert "--profile" in error if "profile" in wrong[0] else "coordinator" in error


def test_the_place_comes_from_flags_or_variables():
    environ = {"JAX_COORDINATOR_ADDRESS": "10.0.0.1:1234", "JAX_NUM_PROCESSES": "4", "JAX_PROCESS_ID": "3"}
    assert hosts.find_place(None, None, None, {}) is None
    assert hosts.find_place(None, None, None, environ) == ("10.0.0.1:1234", 4, 3)
    assert hosts.find_place("[::1]:80", None, 2, environ) == ("[::1]:80", 4, 2)
    with pytest.raises(UserError, match="which this one is"):
        hosts.find_place(None, None, None, environ | {"JAX_PROCESS_ID": "first"})
    slurm = {"SLURM_STEP_NODELIST": "node[1-2]", "SLURM_NTASKS": "2", "JAX_COORDINATOR_ADDRESS": "node1:80"}
    assert hosts.find_place(None, None, None, slurm) is None  # jax finds the rest
    with pytest.raises(UserError, match="belong together"):
        hosts.find_place("node1:80", None, None, slurm)


POD = {"TPU_WORKER_HOSTNAMES": "a,b", "TPU_WORKER_ID": "1"}


@pytest.mark.parametrize("environ, chips, expected", [
    ({}, False, None),
    ({"KUBERNETES_SERVICE_HOST": "10.0.0.1"}, False, None),  # a notebook in a cluster
    ({"SLURM_JOB_ID": "3", "SLURM_NTASKS": "8"}, False, None),  # a batch script, outside srun
    ({"SLURM_STEP_NODELIST": "a", "SLURM_NTASKS": "1"}, False, None),
    ({"SLURM_STEP_NODELIST": "a,b", "SLURM_NTASKS": "8"}, False, "cluster"),
    ({"OMPI_MCA_orte_hnp_uri": "1.0;tcp://a:1", "OMPI_COMM_WORLD_SIZE": "2"}, False, "cluster"),
    ({"KUBERNETES_SERVICE_HOST": "10.0.0.1", "JOB_COMPLETION_INDEX": "0"}, False, "cluster"),
    (POD, False, None),  # a plan for a pod, on a laptop
    (POD, True, "cluster"),
    (POD | {"JAX_PLATFORMS": "cpu"}, True, None),
    ({"TPU_WORKER_HOSTNAMES": "localhost", "TPU_SKIP_MDS_QUERY": "1"}, True, None),
    ({"TPU_WORKER_HOSTNAMES": "a", "MEGASCALE_NUM_SLICES": "2"}, True, "cluster"),
    ({}, True, "perhaps"),  # a TPU VM, whose metadata server knows
])  # fmt: skip
def test_only_a_cluster_is_asked(environ, chips, expected, monkeypatch):
    asked = []
    monkeypatch.setattr(devices.glob, "glob", lambda pattern: ["/dev/accel0"] if chips and "accel" in pattern else [])
    monkeypatch.setattr(hosts.importlib.util, "find_spec", lambda name: True)
    monkeypatch.setattr(jax.distributed, "initialize", lambda *where, **options: asked.append(options))
    hosts.connect(None, init_timeout=7, heartbeat=9, environ=environ)
    assert bool(asked) == bool(expected)
    for options in asked:
        assert options["heartbeat_timeout_seconds"] == 9 and "coordinator_bind_address" not in options

    def unreachable(*where, **options):
        raise ConnectionError("no metadata server")

    monkeypatch.setattr(jax.distributed, "initialize", unreachable)
    if expected == "cluster":
        with pytest.raises(LostError, match="no metadata server"):
            hosts.connect(None, 7, 9, environ)
    else:
        hosts.connect(None, 7, 9, environ)


def test_the_coordinator_listens_where_it_is_told(monkeypatch):
    """And not on every network of the machine."""
    asked = []
    monkeypatch.setattr(jax.distributed, "initialize", lambda *where, **options: asked.append((where, options)))
    place = hosts.Place("10.0.0.1:80", 2, 1)
    hosts.connect(place, 7, 9, {})
    hosts.connect(place, 7, 9, {"JAX_COORDINATOR_BIND_ADDRESS": "10.0.0.2:81"})
    hosts.connect(hosts.Place("10.0.0.1:80", 1, 0), 7, 9, {})  # alone: nobody to listen to
    assert [where for where, _ in asked] == [tuple(place)] * 2
    assert [options["coordinator_bind_address"] for _, options in asked] == ["10.0.0.1:80", "10.0.0.2:81"]


@pytest.mark.parametrize("error, code, words", [
    (UserError("Such a mistake."), 2, "Such a mistake."),
    (DataError("Too many."), 3, "Too many."),
    (RunError("Collapsed."), 4, "Collapsed."),
    (KeyboardInterrupt(), 130, "interrupted"),
    (jax.errors.JaxRuntimeError("UNKNOWN: reset by peer\nmore"), 1, "reset by peer); if another process"),
    (jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: 25 GB"), 4, "try micro_batch"),
    (ValueError("a bug"), 1, "Traceback"),
])  # fmt: skip
def test_one_of_several_that_fails_says_why(error, code, words, monkeypatch, capsys):
    monkeypatch.setattr(jax.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(hosts, "is_distributed", lambda: True)
    monkeypatch.setattr(hosts.os, "_exit", lambda code: codes.append(code))
    codes = []
    with hosts.exit_on_error():
        raise error
    told = capsys.readouterr().err
    assert codes == [code] and told.startswith("jax_ssl: process 0 of 1: ") and words in told
    monkeypatch.undo()
    with pytest.raises(type(error)), hosts.exit_on_error():  # alone
        raise error


def test_a_profile_that_lies_behind_is_no_error(tmp_path):
    said = []
    trace = profiling.Profile((3, 5), str(tmp_path), said.append, done=10)
    for step in range(11, 20):
        trace.before_step(step, ())
    trace.close()
    assert len(said) == 1 and "past step 3" in said[0] and not list(tmp_path.iterdir())


def test_the_devices_of_a_process_lie_together_in_a_mesh(monkeypatch):
    """The first rows of two slices of a TPU v3 pod, numbered row by row over two hosts each."""
    owners = [0, 0, 1, 1, 0, 0, 1, 1]
    pod = [SimpleNamespace(slice_index=part, process_index=2 * part + owner) for part in (1, 0) for owner in owners]
    monkeypatch.setattr(sharding, "Mesh", lambda devices, *_, **__: devices)
    mesh = sharding.make_mesh(2, pod)
    assert mesh.shape == (8, 2) and [device.process_index for device in mesh.flat] == sorted([0, 1, 2, 3] * 4)
    with pytest.raises(UserError, match="mesh.fsdp=16 does not divide the 8 devices of a slice"):
        sharding.make_mesh(16, pod)
