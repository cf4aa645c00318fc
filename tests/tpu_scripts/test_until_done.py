"""A launch that goes on until the run is done: what it asks of the cloud when machines are taken away."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.tpu_scripts.cloud import SCRIPTS, Cloud

FLAGS = ["--until-done", "--type=v6e-8", "--spot", "--bucket=gs://mine", "--attempts=3"]
TRAIN = [*FLAGS, "--", "train", "--config=configs/simclr.py"]
LOOK = ["describe", "list"]
RENEW = ["create", "describe", "describe", "list", "scp", "install", "ssh"]
DONE, STOPPED = ["step 9\njax_ssl exit code 0\njax_ssl exit code 0", 0], ["jax_ssl exit code 75", 75]
CUT = ["step 3\nERROR: (gcloud.compute.tpus.queued-resources.ssh) [255] connection lost", 1]


def launch(folder, *flags, exists=True, **answers):
    cloud = Cloud(folder, exists, **answers)
    return cloud, cloud.run("launch.sh", *(flags or TRAIN))


def test_a_run_that_is_done_is_done(tmp_path):
    cloud, ended = launch(tmp_path, ssh=[DONE])
    assert ended.returncode == 0 and cloud.verbs == [*LOOK, "ssh"]
    assert "step 9" in ended.stdout and "--workdir=gs://mine/runs/simclr --stopped-exit=75" in cloud.calls[-1][-1]


def test_a_tpu_that_is_not_there_is_asked_for(tmp_path):
    cloud, ended = launch(tmp_path, exists=False, describe=["PROVISIONING", "ACTIVE"], ssh=[DONE])
    assert ended.returncode == 0 and cloud.verbs == ["describe", *RENEW]
    assert "--spot" in cloud.calls[1]


def test_a_preemption_in_the_middle(tmp_path):
    states = ["ACTIVE", "SUSPENDING", "SUSPENDED", "WAITING_FOR_RESOURCES", "ACTIVE"]
    cloud, ended = launch(tmp_path, describe=states, ssh=[CUT, DONE])
    assert ended.returncode == 0, ended.stderr
    assert cloud.verbs == [*LOOK, "ssh", "describe", "describe", "delete", *RENEW]
    first, second = [call[-1] for call in cloud.calls if call[0] == "ssh"]
    assert first == second and "pod is SUSPENDED" in ended.stderr and "failure" not in ended.stderr


def test_a_machine_of_it_that_is_gone_is_a_preemption(tmp_path):
    machines = ["READY", "READY\nPREEMPTED", "READY\nPREEMPTED", "READY"]
    cloud, ended = launch(tmp_path, list=machines, ssh=[CUT, DONE])
    assert ended.returncode == 0 and cloud.verbs.count("delete") == cloud.verbs.count("create") == 1
    assert "failure" not in ended.stderr


def test_a_run_that_was_stopped_goes_on(tmp_path):
    cloud, ended = launch(tmp_path, ssh=[STOPPED, STOPPED, STOPPED, STOPPED, DONE])
    assert ended.returncode == 0 and cloud.verbs == [*LOOK, "ssh"] * 5


def test_done_on_one_machine_and_stopped_on_another_is_not_done(tmp_path):
    both = ["jax_ssl exit code 0\njax_ssl exit code 75", 75]
    cloud, ended = launch(tmp_path, ssh=[both, DONE])
    assert ended.returncode == 0 and cloud.verbs.count("ssh") == 2


def test_silence_is_not_done(tmp_path):
    """gcloud's ssh passes over machines that it can't reach, and says 0."""
    cloud, ended = launch(tmp_path, ssh=[["nothing", 0], DONE])
    assert ended.returncode == 0 and cloud.verbs.count("ssh") == 2 and "failure 1 of 3" in ended.stderr


@pytest.mark.parametrize("code, reason", [(2, "the command is wrong"), (3, "the data"), (4, "the run went wrong")])
def test_what_repeating_does_not_mend_is_not_repeated(code, reason, tmp_path):
    cloud, ended = launch(tmp_path, ssh=[[f"jax_ssl exit code {code}\njax_ssl exit code {code}", code]])
    assert ended.returncode == code and reason in ended.stderr and cloud.verbs == [*LOOK, "ssh"]


def test_the_mistake_of_one_machine_is_that_of_all(tmp_path):
    """The others then lose it, and say so in their own way."""
    _, ended = launch(tmp_path, ssh=[["jax_ssl exit code 4\njax_ssl exit code 2", 4]])
    assert ended.returncode == 2


def test_machines_that_have_lost_one_begin_again(tmp_path):
    cloud, ended = launch(tmp_path, ssh=[["jax_ssl exit code 137\njax_ssl exit code 4", 4], DONE])
    assert ended.returncode == 0 and cloud.verbs.count("ssh") == 2


def test_a_run_that_crashes_again_and_again_is_given_up(tmp_path):
    cloud, ended = launch(tmp_path, ssh=[["jax_ssl exit code 1", 1]])
    assert ended.returncode == 1 and "failure 3 of 3" in ended.stderr and cloud.verbs.count("ssh") == 3
    assert "delete" not in cloud.verbs


def test_a_tpu_that_can_not_be_had_is_given_up(tmp_path):
    cloud, ended = launch(tmp_path, exists=False, describe=["FAILED"])
    assert ended.returncode == 1 and cloud.verbs.count("create") == 3 and "ssh" not in cloud.verbs


def test_a_gcloud_that_does_not_answer_deletes_nothing(tmp_path):
    cloud, ended = launch(tmp_path, describe=["ERROR: the token of SUSPENDED or FAILED has expired"])
    assert ended.returncode == 1 and set(cloud.verbs) == {"describe"} and "has expired" in ended.stderr


def test_machines_without_the_software_get_it(tmp_path):
    cloud, ended = launch(tmp_path, ssh=[["jax_ssl exit code 127", 127], DONE])
    assert ended.returncode == 0 and cloud.verbs == [*LOOK, "ssh", "scp", "install", *LOOK, "ssh"]


@pytest.mark.slow
def test_a_real_run_that_is_stopped_in_the_middle_is_brought_to_its_end(tmp_path):
    """The machine is this one: SIGTERM to the real program, as a preemption sends it."""
    root = SCRIPTS.parent
    home = tmp_path / "jax_ssl"
    (home / ".worker").mkdir(parents=True)
    (home / ".worker/ready").touch()
    (home / ".venv/bin").mkdir(parents=True)
    python = home / ".venv/bin/python"
    python.write_text(f'#!/bin/bash\nexec env PYTHONPATH="{root}" "{sys.executable}" "$@"\n')
    python.chmod(0o755)
    shutil.copytree(SCRIPTS, home / "tpu_scripts")
    run = tmp_path / "run"
    small = ["epochs=1", "data.probe.train=200", "data.probe.test=100", "log_every=1"]
    command = ["train", "--config=simclr:tiny", f"--workdir={run}", *(f"--config.{setting}" for setting in small)]
    cloud = Cloud(tmp_path, home=str(tmp_path))
    script = ["bash", str(SCRIPTS / "launch.sh"), *FLAGS, "--", *command]
    streams = dict(stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    with subprocess.Popen(script, env=cloud.environment, **streams) as going:
        begun = time.time()
        while not (run / "metrics.jsonl").exists() or not (run / "metrics.jsonl").read_text():
            assert going.poll() is None and time.time() - begun < 100
            time.sleep(0.1)
        os.killpg(int((home / ".worker/pid").read_text()), signal.SIGTERM)
        said = going.communicate(timeout=200)[0]
    assert going.returncode == 0, said
    assert "all saved" in said and "stopped and saved; it goes on" in said and "going on from step" in said
    assert said.index("all saved") < said.index("going on from step") and cloud.verbs == [*LOOK, "ssh", *LOOK, "ssh"]
    steps = [json.loads(line)["step"] for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert steps == list(range(1, 21))  # 5 000 images, 256 at a time
    assert Path(run / "results.jsonl").exists()
