"""The scripts one by one: what they print, what they run, what they refuse."""

import json
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from jax_ssl import __main__ as command
from tests.tpu_scripts.cloud import SCRIPTS, Cloud

NAMES = sorted(path.name for path in SCRIPTS.glob("*.sh"))
USER = sorted(set(NAMES) - {"common.sh", "worker.sh"})  # those that a person calls
FLAGS = json.loads((Path(__file__).parents[1] / "golden/gcloud_tpus.json").read_text())
TRAIN = ["--", "train", "--config=configs/simclr.py:cifar"]


@pytest.fixture
def cloud(tmp_path):
    return Cloud(tmp_path)


def test_shellcheck_has_nothing_to_say():
    shellcheck = Path(sys.executable).with_name("shellcheck")
    program = str(shellcheck) if shellcheck.exists() else shutil.which("shellcheck")
    checked = subprocess.run([program, "-x", *NAMES], cwd=SCRIPTS, capture_output=True, text=True)
    assert checked.returncode == 0, checked.stdout + checked.stderr


@pytest.mark.parametrize("script", USER)
def test_a_dry_run_prints_commands_of_gcloud_and_calls_nothing(script, cloud):
    more = ["--type=v6e-8"] if script == "create.sh" else TRAIN if script == "launch.sh" else []
    printed = cloud.run(script, "--dry-run", "--project=mine", *more)
    assert printed.returncode == 0 and not printed.stderr and not cloud.calls, printed.stderr
    lines = [shlex.split(line) for line in printed.stdout.splitlines()]
    assert lines
    for line in lines:
        if line[0] == "tar":
            continue
        assert line[:3] == ["gcloud", "compute", "tpus"] and "--zone=us-central2-b" in line and "--project=mine" in line
        known = FLAGS[" ".join(line[3:5])]
        assert [flag for flag in line[5:] if flag.startswith("--") and flag.split("=")[0] not in known] == []


def test_a_dry_run_until_done_prints_the_whole_life(cloud):
    flags = ["--until-done", "--dry-run", "--type=v5e-16", "--spot", "--slices=2", "--bucket=gs://b"]
    printed = cloud.run("launch.sh", *flags, *TRAIN)
    said = [line.split()[3:5] for line in printed.stdout.splitlines() if line.startswith("gcloud")]
    verbs = [verb for _, verb in said]
    assert verbs == ["describe", "list", "delete", "create", "describe", "scp", "ssh", "ssh"], printed.stderr
    for part in ("--accelerator-type=v5litepod-16 ", " --node-count=2 --node-prefix=pod --spot\n"):
        assert part in printed.stdout
    assert "--workdir=gs://b/runs/simclr_cifar --stopped-exit=75" in printed.stdout
    assert not cloud.calls


@pytest.mark.parametrize(
    "given, type_, runtime",
    [
        ("v3-32", "v3-32", "tpu-ubuntu2204-base"),
        ("v4-32", "v4-32", "tpu-ubuntu2204-base"),
        ("v5e-16", "v5litepod-16", "v2-alpha-tpuv5-lite"),
        ("v5p-128", "v5p-128", "v2-alpha-tpuv5"),
        ("v6e-256", "v6e-256", "v2-alpha-tpuv6e"),
    ],
)
def test_create_knows_what_runs_on_which_generation(given, type_, runtime, cloud):
    assert cloud.run("create.sh", f"--type={given}", "--no-wait").returncode == 0
    assert f"--accelerator-type={type_}" in cloud.calls[0] and f"--runtime-version={runtime}" in cloud.calls[0]
    assert "--node-id=pod" in cloud.calls[0] and "--spot" not in cloud.calls[0] and cloud.verbs == ["create"]


def test_create_takes_everything_from_the_environment(cloud):
    variables = dict(TPU_TYPE="v6e-8", TPU_SLICES="3", TPU_SPOT="1", TPU_PROJECT="mine", TPU_RUNTIME="special")
    variables["TPU_CREATE_FLAGS"] = "--network=own --internal-ips"
    assert cloud.run("create.sh", "--no-wait", **variables).returncode == 0
    wanted = {"--node-count=3", "--spot", "--project=mine", "--runtime-version=special"}
    assert wanted | {"--network=own", "--internal-ips"} <= set(cloud.calls[0])


def test_create_waits_until_it_is_there(tmp_path):
    cloud = Cloud(tmp_path, exists=False, describe=["WAITING_FOR_RESOURCES", "PROVISIONING", "ACTIVE"])
    assert cloud.run("create.sh", "--type=v6e-8").returncode == 0
    assert cloud.verbs == ["create", "describe", "describe", "describe", "list"]


@pytest.mark.parametrize("end", ["FAILED", "SUSPENDED"])
def test_create_says_when_it_can_not_be_had(end, tmp_path):
    cloud = Cloud(tmp_path, exists=False, describe=["WAITING_FOR_RESOURCES", end])
    created = cloud.run("create.sh", "--type=v6e-8")
    assert created.returncode == 1 and "could not be created" in created.stderr and f"is {end}" in created.stderr


def test_setup_sends_this_checkout_to_all_machines(cloud):
    assert cloud.run("setup.sh", TPU_SSH_FLAGS="--tunnel-through-iap").returncode == 0
    assert cloud.verbs == ["scp", "install"] and cloud.calls[0][2] == "pod:jax_ssl.tar.gz"
    for call in cloud.calls:
        assert {"--node=all", "--worker=all", "--batch-size=all", "--tunnel-through-iap"} <= set(call)


def test_launch_ends_as_the_command_ended(tmp_path):
    cloud = Cloud(tmp_path, ssh=[["jax_ssl exit code 4", 4]])
    assert cloud.run("launch.sh", *TRAIN).returncode == 4
    assert cloud.verbs == ["ssh"]


def test_launch_keeps_odd_words_whole(tmp_path):
    """As far as the machine's shell: blanks and quotes pass two of them."""
    worker = tmp_path / "jax_ssl/tpu_scripts/worker.sh"
    worker.parent.mkdir(parents=True)
    worker.write_text('#!/bin/bash\nprintf "[%s]" "$@"\n')
    worker.chmod(0o755)
    ready = tmp_path / "jax_ssl/.worker/ready"
    ready.parent.mkdir()
    ready.touch()
    words = ["evaluate", "--run=a b", "it's", "--config.x=('a', \"b\")", "$HOME"]
    launched = Cloud(tmp_path, home=str(tmp_path)).run("launch.sh", "--", *words)
    assert launched.stdout == "".join(f"[{word}]" for word in words)


MISTAKES = {
    "an unknown flag": ("create.sh", ["--zne=x"], "no flag --zne=x"),
    "a flag of another script": ("delete.sh", ["--spot"], "no flag --spot"),
    "a value after a blank": ("create.sh", ["--type", "v6e-8"], "--type needs a value"),
    "an empty value": ("status.sh", ["--zone="], "--zone needs a value"),
    "no type": ("create.sh", [], "--type=VALUE, or set TPU_TYPE"),
    "an unknown type": ("create.sh", ["--type=h100-8"], "no runtime is known"),
    "no slices": ("create.sh", ["--type=v6e-8", "--slices=0"], "--slices=0"),
    "an odd name": ("create.sh", ["--type=v6e-8", "--tpu=My Pod"], "--tpu=My Pod"),
    "no time": ("create.sh", ["--type=v6e-8", "--poll=often"], "--poll=often"),
    "a bucket that is none": ("launch.sh", ["--bucket=mine", *TRAIN], "gs://"),
    "no command": ("launch.sh", [], "the command after --"),
    "a command without --": ("launch.sh", ["train"], "no flag train"),
    "a run that would be lost": ("launch.sh", ["--until-done", "--type=v6e-8", *TRAIN], "--bucket=gs://"),
    "nothing to ask for again": ("launch.sh", ["--until-done", "--bucket=gs://b", *TRAIN], "TPU_TYPE"),
    "no attempts": ("launch.sh", ["--attempts=0", *TRAIN], "--attempts=0"),
    "no lines": ("logs.sh", ["--lines=all"], "--lines=all"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_one_sentence_and_exit_code_two(mistake, cloud):
    script, arguments, remedy = MISTAKES[mistake]
    refused = cloud.run(script, *arguments)
    assert refused.returncode == 2 and not refused.stdout and not cloud.calls
    assert refused.stderr.startswith(f"{script}: ") and refused.stderr.count("\n") == 1 and remedy in refused.stderr


@pytest.mark.parametrize("script", USER)
def test_without_a_name_nothing_happens(script, cloud):
    refused = cloud.run(script, TPU_NAME="")
    assert refused.returncode == 2 and "--tpu=VALUE, or set TPU_NAME" in refused.stderr and not cloud.calls


@pytest.mark.parametrize("script", USER)
def test_help_is_the_head_of_the_file(script, cloud):
    printed = cloud.run(script, "--help")
    assert printed.returncode == 0 and f"tpu_scripts/{script} --tpu=NAME" in printed.stdout and not cloud.calls


@pytest.mark.parametrize("finished, flags, code", [(True, ["--stopped-exit=75"], 0), (False, [], 0),
                                                   (False, ["--stopped-exit=75"], 75)])  # fmt: skip
def test_a_stopped_run_can_be_told_from_a_finished_one(finished, flags, code, tmp_path, monkeypatch):
    monkeypatch.setattr("jax_ssl.train.train", lambda *_: finished)
    overrides = [f"--workdir={tmp_path}", "--config.evaluate_at_end=False"]
    assert command.main(["train", "--config=simclr:tiny", *flags, *overrides]) == code
