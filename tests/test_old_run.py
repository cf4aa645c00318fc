"""A run that version 0.1.0 was stopped in: its folder still goes on and is still measured.

golden/run_0.1.tar.gz: MoCo, `moco:tiny` made small, stopped at step 4 of 8 by SIGTERM. Version 0.1.0 itself went on
from there on one CPU device to the losses below.
"""

import tarfile

import pytest

from jax_ssl import __main__ as command
from tests.small import overrides
from tests.test_train import STEP, lines

LOSSES = {6: 4.494958400726318, 8: 4.038246154785156}
FLAGS = [
    "--config.model.stages=(1,)", "--config.log_every=2", "--config.checkpoint_every=2", "--config.keep_last=1",
    "--config.probe_every=0", "--config.picture_every=0", "--config.evaluate_at_end=False",
    "--config.optim.warmup_epochs=0", f"--config.epochs={8 * STEP}",
]  # fmt: skip


@pytest.fixture
def folder(request, tmp_path):
    archive = request.config.rootpath / "tests/golden/run_0.1.tar.gz"
    with tarfile.open(archive) as tar:
        tar.extractall(tmp_path, filter="data")
    return tmp_path / "old_run"


def test_it_goes_on_to_the_same_losses(folder):
    assert command.main(["train", "--config=moco:tiny", f"--workdir={folder}", *overrides("moco", *FLAGS)]) == 0
    seen = {line["step"]: line["loss"] for line in lines(folder)}
    assert list(seen) == [2, 4, 6, 8]
    assert {step: seen[step] for step in LOSSES} == pytest.approx(LOSSES, rel=1e-4)


def test_it_is_measured(folder, capsys):
    probe = ["--config.data.probe.train=200", "--config.data.probe.test=100"]
    assert command.main(["evaluate", f"--run={folder}", "--weights=student,teacher", *probe]) == 0
    said = capsys.readouterr().out
    assert "student" in said and "teacher" in said and (folder / "results.jsonl").exists()
