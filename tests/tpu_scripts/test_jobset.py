"""The Kubernetes template, filled in as its head says."""

import re
import string

import pytest
import yaml

from jax_ssl import __main__ as command
from jax_ssl import config
from tests.tpu_scripts.cloud import SCRIPTS

TEXT = (SCRIPTS / "jobset.yaml").read_text()
HEAD = "".join(line for line in TEXT.splitlines(keepends=True) if line.startswith("#"))


@pytest.fixture(scope="module")
def jobset():
    variables = dict(re.findall(r"([A-Z]+)=(\S+)", HEAD.split("git archive")[0]))
    return yaml.safe_load(string.Template(TEXT).substitute(variables))


def test_the_head_sets_every_variable_that_the_template_has(jobset):
    assert "${" not in yaml.dump(jobset) and jobset["kind"] == "JobSet" and jobset["metadata"]["name"] == "simclr"


def test_a_slice_that_fails_takes_all_of_them_down_and_up_again(jobset):
    spec = jobset["spec"]
    (slices,) = spec["replicatedJobs"]
    job = slices["template"]["spec"]
    pod = job["template"]["spec"]
    assert spec["failurePolicy"]["maxRestarts"] >= 10 and job["backoffLimit"] == 0 and pod["restartPolicy"] == "Never"
    assert slices["replicas"] == 1 and job["parallelism"] == job["completions"] == 4  # numbers, not strings
    assert job["completionMode"] == "Indexed" and spec["network"]["enableDNSHostnames"] is True
    assert pod["terminationGracePeriodSeconds"] >= 60


def test_chips_and_topology(jobset):
    job = jobset["spec"]["replicatedJobs"][0]["template"]["spec"]
    pod = job["template"]["spec"]
    rows, columns = pod["nodeSelector"]["cloud.google.com/gke-tpu-topology"].split("x")
    chips = pod["containers"][0]["resources"]["limits"]["google.com/tpu"]
    assert chips * job["parallelism"] == int(rows) * int(columns)


def test_exit_codes_are_those_of_the_program(jobset):
    job = jobset["spec"]["replicatedJobs"][0]["template"]["spec"]
    (container,) = job["template"]["spec"]["containers"]
    (rule,) = job["podFailurePolicy"]["rules"]
    assert rule["onExitCodes"]["containerName"] == container["name"] and rule["action"] == "FailJob"
    assert sorted(rule["onExitCodes"]["values"]) == sorted(set(command.EXIT.values()) - {1})  # 1: it goes on
    (rule,) = jobset["spec"]["failurePolicy"]["rules"]
    assert rule["action"] == "FailJobSet" and rule["onJobFailureReasons"] == ["PodFailurePolicy"]


def test_its_command_is_one_that_the_program_knows(jobset):
    container = jobset["spec"]["replicatedJobs"][0]["template"]["spec"]["template"]["spec"]["containers"][0]
    args, rest = command.parser().parse_known_args(container["args"])
    assert args.stopped_exit == 75 and args.workdir == "gs://B/runs/simclr"
    assert config.load(args.config, rest).data.name == "tfds:imagenet2012"
