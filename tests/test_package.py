"""What is installed has all that is read from its own folder, and works in a folder where nothing can be written."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import jax_ssl
from jax_ssl.plan import published
from jax_ssl.study import seals

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """The package as setup.py installs it, without the rest of the checkout."""
    folder = tmp_path_factory.mktemp("built")
    call = [sys.executable, "setup.py", "-q", "build", f"--build-base={folder}", f"--build-lib={folder}/lib"]
    built = subprocess.run(call, cwd=ROOT, capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    return folder / "lib"


def run(installed, *arguments):
    """The verb, elsewhere and with the package that was built."""
    env = os.environ | {"PYTHONPATH": str(installed), "PYTHONDONTWRITEBYTECODE": "1"}
    call = [sys.executable, "-m", "jax_ssl", *arguments]
    return subprocess.run(call, cwd=installed.parent, env=env, capture_output=True, text=True)


def test_no_file_is_left_behind(installed):
    """All that git keeps beside the code, and all code."""
    listed = subprocess.run(["git", "ls-files", "jax_ssl", "configs"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("no git checkout")
    wanted = {re.sub("^configs/", "jax_ssl/configs/", name) for name in listed.stdout.splitlines()}
    there = {str(path.relative_to(installed)) for path in installed.rglob("*") if path.is_file()}
    assert wanted and wanted <= there, wanted - there


def test_its_evidence_comes_along(installed):
    told = run(installed, "seals")
    assert told.returncode == 0 and told.stdout.strip() == seals.table() and "yes" in told.stdout, told.stderr
    told = run(installed, "plan", "--published")
    assert told.stdout.strip() == published.table(seals.whole_plans()) and "| - |" not in told.stdout


def test_it_does_not_record(installed):
    told = run(installed, "seals", "--record=/nowhere")
    assert told.returncode == 2 and "clone the repository" in told.stderr and told.stderr.count("\n") == 1


def test_its_configs_come_along(installed):
    assert "collapse" in run(installed, "ablate", "--list").stdout
    told = run(installed, "train", "--config=simclr:tiny", "--config.sed=1")
    assert told.returncode == 2 and "did you mean config.seed?" in told.stderr


def test_one_place_has_the_version(installed):
    call = [sys.executable, "setup.py", "--version"]
    told = subprocess.run(call, cwd=ROOT, capture_output=True, text=True).stdout.split()[-1]
    assert told == jax_ssl.__version__ and run(installed, "--version").stdout.startswith(f"jax_ssl {told},")
