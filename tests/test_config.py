"""Configs: what an override may say, and that each preset of each file is whole."""

import json

import pytest

from jax_ssl import config
from jax_ssl.errors import UserError
from jax_ssl.views.draws import check_crops

FILES = sorted(p.stem for p in config.folder().glob("*.py") if p.stem not in config.OTHERS)


@pytest.mark.parametrize("name", FILES)
def test_every_config_says_what_it_is_and_can_be_made(name):
    path, _ = config.find(name)
    text = path.read_text()
    assert text.startswith('"""') and "python -m jax_ssl train --config=configs/" in text
    settings = config.load(name)
    check_crops(settings.data.crops)
    assert settings.is_locked and settings.method.name and settings.model.name and settings.optim.name


def test_a_path_and_a_name_are_the_same_config():
    by_path, by_name = config.load("configs/simclr.py:tiny"), config.load("simclr:tiny")
    assert config.to_dict(by_path) == config.to_dict(by_name)


def test_an_override_takes_the_type_of_the_default():
    flags = ["--config.epochs=3", "--config.method.projector=[64,32]", "--config.data.crops.views[0].blur=0.5",
             "--config.evaluate_at_end=false", "--config.optim.milestones=5", "--config.data.dir=12"]  # fmt: skip
    settings = config.load("simclr:tiny", flags)
    assert settings.epochs == 3.0 and isinstance(settings.epochs, float)
    assert settings.method.projector == (64, 32) and settings.data.crops.views[0]["blur"] == 0.5
    assert settings.evaluate_at_end is False and settings.optim.milestones == (5,) and settings.data.dir == "12"


@pytest.mark.parametrize("flag", [
    "--config.epochs=many", "--config.batch_size=1.5", "--config.seed=True", "--config.nothing=1", "--config.epochs",
    "--config.data.crops.views[1].blur=0",
])  # fmt: skip
def test_what_cannot_be_overridden_is_told(flag):
    with pytest.raises(UserError):
        config.load("simclr:tiny", [flag])


def test_an_override_runs_no_code():
    with pytest.raises(UserError):
        config.load("simclr:tiny", ["--config.epochs=__import__('os').getpid()"])


def test_the_nearest_key_is_named():
    for wrong, right in (("optim.base_lrr", "optim.base_lr"), ("lr", "optim.base_lr"), ("epoch", "epochs")):
        with pytest.raises(UserError, match=f"did you mean config.{right}"):
            config.load("simclr:tiny", [f"--config.{wrong}=1"])


def test_a_config_survives_the_run_folder():
    settings = config.load("moco:tiny")
    stored = config.from_json(json.dumps(config.to_dict(settings)))
    assert config.to_dict(stored) == config.to_dict(settings)


def test_a_stored_config_of_before_a_key_existed_has_its_default():
    settings = config.to_dict(config.load("mae:tiny"))
    older = json.loads(json.dumps(settings))
    for group, key in (("model", "mlp"), ("optim", "late"), ("data", "workers")):
        del older[group][key]
    del older["micro_batch"]
    assert config.to_dict(config.from_json(json.dumps(older))) == settings


def test_your_own_config_file(tmp_path):
    mine = tmp_path / "mine.py"
    mine.write_text(
        "from jax_ssl.configs import simclr\ndef get_config():\n    c = simclr.tiny()\n    c.seed = 9\n    return c\n"
    )
    assert config.load(str(mine)).seed == 9
    mine.write_text("def get_config():\n    return 1 / 0\n")
    with pytest.raises(UserError, match="division by zero"):
        config.load(str(mine))
