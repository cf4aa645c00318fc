"""What a user gets wrong is told in one sentence with the remedy, with exit code 2, before anything is compiled."""

import json
import os
import time

import jax
import numpy as np
import pytest
from PIL import Image

from jax_ssl import __main__ as command
from jax_ssl import config
from jax_ssl.run import identity

SIMCLR = ["train", "--config=simclr:tiny"]
MISTAKES = {
    "a depth of features without blocks": ([*SIMCLR, "--config.feature_depth=3"], "or 0 for the last"),
    "a hole larger than the image": (
        ["train", "--config=context_encoder:tiny", "--config.method.hole=64"], "larger than the images of 32 pixels"
    ),
    "a rate of zero for a part": (
        ["train", "--config=context_encoder:tiny", "--config.optim.rates.critic=0"], "rates.critic=0.0 must be above 0"
    ),
    "colours that are not from zero to one": (
        ["train", "--config=colorization:tiny", "--config.data.mean=(0.5,0.5,0.5)"], "set data.mean=(0.0,0.0,0.0)"
    ),
    "an unknown key": ([*SIMCLR, "--config.optim.base_lrr=1"], "did you mean config.optim.base_lr?"),
    "an unknown config": (["train", "--config=simclrr"], "did you mean 'simclr'?"),
    "an unknown preset": (["train", "--config=simclr:huge"], "choose one of paper"),
    "an unknown flag": ([*SIMCLR, "--wrkdir=x"], "no flag '--wrkdir=x'"),
    "a value of another kind": ([*SIMCLR, "--config.batch_size=many"], "a int"),
    "weights that are not there": ([*SIMCLR, "--config.init_from=backbone=/no/where"], "/no/where does not exist"),
    "a missing folder": ([*SIMCLR, "--config.data.name=folder:/nowhere/at/all"], "/nowhere/at/all"),
    "a source of no kind": ([*SIMCLR, "--config.data.name=embeded"], "did you mean 'embedded'?"),
    "a batch that the devices do not divide": ([*SIMCLR, "--config.batch_size=100"], "take 96"),
    "a queue of no whole batches": (["train", "--config=moco:tiny", "--config.method.queue=1000"], "take 768"),
    "three views for a pair": ([*SIMCLR, "--config.data.crops.views[0].count=3"], "leave one pair"),
    "pieces that the batch does not have": ([*SIMCLR, "--config.micro_batch=96"], "must divide batch_size=256"),
    "groups that the batch does not have": ([*SIMCLR, "--config.model.norm_groups=7"], "norm_groups=7"),
    "no images at all": ([*SIMCLR, "--config.batch_size=0"], "at least 1"),
    "the keys of another method": ([*SIMCLR, "--config.method.name=byol"], "configs/byol.py"),
    "a parameter of no network": ([*SIMCLR, "--config.optim.frozen=('backbon',)"], "there are backbone"),
    "a single prototype": (["train", "--config=swav:tiny", "--config.method.prototypes=1"], "at least 2"),
    "a predictor as wide as nothing": (["train", "--config=byol:tiny", "--config.method.predictor=(64,32)"], "128"),
    "an image that the patch does not divide": (["train", "--config=mae:tiny", "--config.model.patch=5"], "patch=5"),
    "an unknown optimiser": ([*SIMCLR, "--config.optim.name=adamm"], "adamw"),
    "an unknown method": ([*SIMCLR, "--config.method.name=simclrr"], "jax_ssl/methods/simclrr.py"),
    "a folder that is no run": (["evaluate", "--run=/nowhere"], "no run folder"),
    "an unknown task": (["evaluate", "--run=/nowhere", "--task=knnn"], "choose from knn"),
    "an override without a value": ([*SIMCLR, "--config.epochs"], "write --config.epochs=VALUE"),
    "no epochs": ([*SIMCLR, "--config.epochs=0"], "epochs=0.0 must be above 0"),
    "less than a step": ([*SIMCLR, "--config.epochs=0.00001"], "take epochs=0.051 or more"),
    "epochs without end": ([*SIMCLR, "--config.epochs=1e400"], "epochs=inf must be a finite number"),
    "a number of 400 digits": ([*SIMCLR, f"--config.epochs=1{'0' * 400}"], "too large"),
    "more steps than can be counted": ([*SIMCLR, "--config.epochs=1e9"], "take fewer"),
    "checkpoints at no step": ([*SIMCLR, "--config.checkpoint_every=0"], "checkpoint_every=0 must be a whole number"),
    "pictures at negative steps": ([*SIMCLR, "--config.picture_every=-1"], "picture_every=-1 must be"),
    "a negative seed": ([*SIMCLR, "--config.seed=-1"], "seed=-1 must be at least 0"),
    "a seed of 33 bits": ([*SIMCLR, f"--config.seed={2**32}"], "below 4294967296"),
    "all but five images": ([*SIMCLR, "--config.data.probe.test=-5"], "data.probe.test=-5 must be"),
    "a crop of nothing": ([*SIMCLR, "--config.data.eval_crop=0.0"], "data.eval_crop=0.0 must be above 0"),
    "negative threads": ([*SIMCLR, "--config.data.workers=-1"], "data.workers=-1 must be"),
    "a deviation of zero": ([*SIMCLR, "--config.data.std=(0,0,0)"], "Each of data.std=(0,0,0) must be above 0"),
    "a mean of one number": ([*SIMCLR, "--config.data.mean=(0.5,)"], "data.mean=(0.5,) must be three numbers"),
    "a view of no size": ([*SIMCLR, "--config.data.crops.views[0].size=0"], "data.crops.views[0].size is 0"),
    "a temperature of zero": ([*SIMCLR, "--config.method.temperature=0"], "method.temperature=0.0 must be above 0"),
    "two views for one": (["train", "--config=mae:tiny", "--config.data.crops.views[0].count=2"], "leave one"),
    "a width of zero": ([*SIMCLR, "--config.method.projector=(64,0)"], "method.projector=(64,0) must be"),
    "a momentum above one": (["train", "--config=byol:tiny", "--config.method.momentum=1.5"], "at most 1"),
    "a learning rate of zero": ([*SIMCLR, "--config.optim.base_lr=0"], "optim.base_lr=0.0 must be above 0"),
    "milestones that fall": ([*SIMCLR, "--config.optim.milestones=(2,1)"], "optim.milestones=(2,1) must rise"),
    "a batch of one": ([*SIMCLR, "--config.batch_size=8", "--config.model.norm_groups=8"], "2 or more in each"),
    "a batch larger than the images": ([*SIMCLR, "--config.batch_size=5008"], "take 5000"),
    "a kind of number that does not exist": ([*SIMCLR, "--config.model.dtype=nonsense"], "one of float32, bfloat16"),
    "the keys of another model": ([*SIMCLR, "--config.model.name=vit"], "knows no model.norm"),
    "one patch for blocks": (["train", "--config=ijepa:tiny", "--config.model.patch=32"], "1 x 1 patches"),
    "one patch to hide and show": (["train", "--config=mae:tiny", "--config.model.patch=32"], "hides 1 of the 1 x 1"),
    "one square to hide and show": (["train", "--config=simmim:tiny", "--config.method.mask_cell=32"], "1 x 1 patches"),
    "one permutation": (["train", "--config=jigsaw:tiny", "--config.method.permutations=1"], "at least 2"),
    "more permutations than there are": (["train", "--config=jigsaw:tiny", "--config.method.permutations=362881"],
                                         "nine tiles have 362880"),
    "a tile that the stem does not divide": (["train", "--config=jigsaw:tiny", "--config.method.tile=10"], "patch=4"),
    "one row of patches": (["train", "--config=cpc:tiny", "--config.method.patch=32"], "on 32 pixels is 1 x 1"),
    "probes on images that are no squares": ([*SIMCLR, "--config.data.eval_size=(32,48)"], "take --size=32x48"),
    "a size of three numbers": ([*SIMCLR, "--config.data.eval_size=(32,48,3)"], "(height,width)"),
    "an exit code of no system": ([*SIMCLR, "--stopped-exit=256"], "--stopped-exit=256 must be"),
}
RUN = {  # overrides of an evaluation of a run that is there
    "another network": (["--config.model.width=2.0"], "config.model.width can't be changed in a saved run"),
    "all but five": (["--config.data.probe.test=-5"], "data.probe.test=-5 must be"),
    "images that the patch does not divide": (["--size=32x33"], "not a multiple of the network's patch of 4: take 32."),
    "an unknown key": (["--config.data.probe.tst=5"], "did you mean config.data.probe.test?"),
}


def said(arguments, capsys):
    """The one line of an exit with code 2, without a compilation and within ten seconds."""
    compiled = []
    jax.monitoring.register_event_duration_secs_listener(
        lambda event, *_, **__: compiled.append(event) if "backend_compile" in event else None
    )
    begun = time.time()
    assert command.main(arguments) == 2
    jax.monitoring.clear_event_listeners()
    assert time.time() - begun < 10 and not compiled
    printed = capsys.readouterr()
    assert printed.err.startswith("jax_ssl: ") and printed.err.count("\n") == 1 and "Traceback" not in printed.err
    return printed.err


@pytest.mark.parametrize("mistake", MISTAKES)
def test_one_sentence_and_exit_code_two(mistake, tmp_path, capsys):
    arguments, remedy = MISTAKES[mistake]
    if arguments[0] == "train":
        arguments = [*arguments, f"--workdir={tmp_path}"] if "unknown flag" not in mistake else arguments
    assert remedy in said(arguments, capsys)


@pytest.mark.parametrize("mistake", RUN)
def test_an_evaluation_changes_what_is_measured_and_not_the_run(mistake, tmp_path, capsys):
    (tmp_path / "config.json").write_text(json.dumps(config.to_dict(config.load("simclr:tiny"))))
    overrides, remedy = RUN[mistake]
    assert remedy in said(["evaluate", f"--run={tmp_path}", *overrides], capsys)


def test_colours_of_grey_images(tmp_path, capsys):
    grey = np.random.default_rng(0).integers(0, 256, (300, 32, 32, 1), np.uint8).repeat(3, axis=-1)
    np.savez(tmp_path / "grey.npz", images=grey)
    flags = [f"--config.data.name=arrays:{tmp_path}/grey.npz", f"--workdir={tmp_path}/run"]
    assert "all grey" in said(["train", "--config=colorization:tiny", *flags], capsys)


def test_an_empty_folder(tmp_path, capsys):
    (tmp_path / "images").mkdir()
    flags = [f"--config.data.name=folder:{tmp_path}/images", f"--workdir={tmp_path}/run"]
    assert f"{tmp_path}/images" in said([*SIMCLR, *flags], capsys)


def test_a_workdir_of_another_config(tmp_path, capsys):
    (tmp_path / "checkpoints/1").mkdir(parents=True)
    identity.write_config(tmp_path, config.to_dict(config.load("simclr:tiny", ["--config.seed=7"])))
    assert "seed: 7 there, 0 here" in said([*SIMCLR, f"--workdir={tmp_path}"], capsys)


def test_a_workdir_that_can_not_be_written(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert "choose another --workdir" in said([*SIMCLR, f"--workdir={tmp_path}/file/run"], capsys)
    if os.getuid():  # root may write anywhere
        tmp_path.chmod(0o500)
        assert "choose another --workdir" in said([*SIMCLR, f"--workdir={tmp_path}/run"], capsys)


def test_too_many_broken_images_are_the_datas_fault(tmp_path, capsys):
    folder = tmp_path / "images" / "cats"
    folder.mkdir(parents=True)
    for number in range(40):
        Image.fromarray(np.full((40, 40, 3), number, np.uint8)).save(folder / f"{number}.jpg")
    for number in range(5):
        (folder / f"broken{number}.jpg").write_bytes(b"no image")
    flags = [f"--config.data.name=folder:{tmp_path}/images", "--config.data.augment=hybrid", "--config.batch_size=16",
             "--config.data.probe.name=embedded", "--config.data.probe.train=100", "--config.data.probe.test=50",
             "--config.model.width=0.125", f"--workdir={tmp_path}/run", "--config.evaluate_at_end=False"]  # fmt: skip
    assert command.main([*SIMCLR, *flags]) == 3
    assert "broken" in capsys.readouterr().err
