"""A folder belongs to one config and one set of images: what may differ when a run goes on, and what is said."""

import json
import os

import numpy as np
import pytest

from jax_ssl import config as configs
from jax_ssl.data.source import in_memory
from jax_ssl.errors import LostError, UserError
from jax_ssl.run import identity
from jax_ssl.run.identity import check_config, check_data, check_writable, write_config

CONFIG = {
    "seed": 0,
    "epochs": 3.0,
    "log_every": 10,
    "init_from": "",
    "optim": {"base_lr": 0.3, "b1": 0.9},
    "mesh": {"fsdp": 1},
    "data": {"dir": "/a", "workers": 1, "name": "folder:/a", "crops": {"views": [{"size": 32, "scale": (0.08, 1.0)}]}},
}
# Keys that change what a network learns. Every other one has to stand in FREE: a new key is in one of the two.
LEARNING = {
    "seed", "batch_size", "micro_batch", "epochs", "init_from", "data.name", "data.split", "data.augment", "data.mean",
    "data.std", "data.crops", "data.resident_size", "data.reduce_jpegs",
}  # fmt: skip


def changed(path: str, value) -> dict:
    config = json.loads(json.dumps(CONFIG))
    *parents, last = path.split(".")
    branch = config
    for key in parents:
        branch = branch[int(key) if isinstance(branch, list) else key]
    branch[last] = value
    return config


@pytest.fixture
def run(tmp_path):
    """A run's folder with one saved step."""
    write_config(tmp_path, CONFIG)
    (tmp_path / "checkpoints" / "1").mkdir(parents=True)
    return tmp_path


def test_another_config_on_the_same_folder_is_refused(run):
    check_config(run, CONFIG)  # tuples in it have become lists
    assert sorted(os.listdir(run)) == ["checkpoints", "config.json"]
    with pytest.raises(UserError) as caught:
        check_config(run, changed("optim.base_lr", 0.1))
    assert "optim.base_lr: 0.3 there, 0.1 here" in str(caught.value) and "another --workdir" in str(caught.value)
    with pytest.raises(UserError, match="data.crops.views.0.size: 32 there, 64 here"):
        check_config(run, changed("data.crops.views.0.size", 64))
    with pytest.raises(UserError, match="data.crops.local.0.blur: absent there, 0.0 here"):
        check_config(run, changed("data.crops.local", [{"size": 16}]))
    with pytest.raises(UserError, match="init_from"):
        check_config(run, changed("init_from", "elsewhere"))
    many = {**CONFIG, **{f"new{number}": number for number in range(7)}}
    with pytest.raises(UserError, match=r"new4: absent there, 4 here; and 2 more\)"):
        check_config(run, many)


@pytest.mark.parametrize(
    "path, value",
    [
        ("log_every", 1), ("mesh.fsdp", 2), ("data.dir", "/b"), ("data.workers", 8), ("data.broken_limit", 0.5),
        ("evaluate_at_end", True), ("picture_every", 7), ("probe_every", 0), ("data.probe", {"train": 5, "name": "x"}),
        ("max_skipped", 5), ("feature_depth", 2), ("data.eval_size", 64), ("hosts", {"hang_seconds": 1}),
    ],
)  # fmt: skip
def test_what_changes_no_step_may_differ(run, path, value):
    check_config(run, changed(path, value))


def leaves(tree, prefix=""):
    for key, value in tree.items():
        inside = isinstance(value, dict) and value
        yield from leaves(value, f"{prefix}{key}.") if inside else [f"{prefix}{key}"]


def test_every_key_is_known_to_change_the_learning_or_not_to():
    from jax_ssl.configs import common

    keys = set(leaves(common.base().to_dict())) - {"model", "method", "optim"}
    free = {key for key in keys if identity.is_free(key)}
    assert keys - free == LEARNING
    of_some = {"model.remat", "model.attention", "model.unroll", "method.chunks"}
    known = {name.rstrip(".") for name in identity.FREE} - of_some
    assert known <= {part for key in keys for part in (key, key.rpartition(".")[0])}


def test_a_key_of_another_version_is_at_its_default(run):
    check_config(run, CONFIG | {"micro_batch": 0, "optim": CONFIG["optim"] | {"clip": 0.0}})
    with pytest.raises(UserError, match="optim.clip: 0.0 there, 1 here"):
        check_config(run, CONFIG | {"optim": CONFIG["optim"] | {"clip": 1}})
    write_config(run, CONFIG | {"given_up": 3, "data": CONFIG["data"] | {"older": True}})
    check_config(run, CONFIG)
    recipe = CONFIG["data"]["crops"]["views"][0] | {"grey_first": False}
    check_config(run, changed("data.crops.views", [recipe]))
    with pytest.raises(UserError, match="views.0.grey_first: false there, true here"):
        check_config(run, changed("data.crops.views", [recipe | {"grey_first": True}]))


def test_a_keyword_that_a_method_got_later_is_at_its_default(run):
    now = configs.to_dict(configs.load("simclr:tiny"))
    before = json.loads(json.dumps(now))
    del before["method"]["temperature"], before["model"]["zero_init"]
    now["method"]["temperature"], now["model"]["zero_init"] = 0.1, True  # as `make` has them
    write_config(run, before)
    check_config(run, now)
    now["method"]["temperature"] = 0.2
    with pytest.raises(UserError, match="method.temperature: 0.1 there, 0.2 here"):
        check_config(run, now)


def test_where_nothing_was_saved_nothing_is_refused(tmp_path):
    said = []
    write_config(tmp_path, CONFIG | {"batch_size": 256})
    check_config(tmp_path, CONFIG | {"batch_size": 64}, say=said.append)
    assert len(said) == 1 and "begins anew" in said[0] and "batch_size: 64 instead of 256" in said[0]
    check_config(tmp_path, CONFIG | {"batch_size": 256, "log_every": 3}, say=said.append)
    assert len(said) == 1
    (tmp_path / "checkpoints" / "3.orbax-checkpoint-tmp").mkdir(parents=True)  # what a kill has left
    check_config(tmp_path, CONFIG | {"batch_size": 64}, say=said.append)
    (tmp_path / "checkpoints" / "damaged" / "3").mkdir(parents=True)
    with pytest.raises(UserError, match="batch_size"):
        check_config(tmp_path, CONFIG | {"batch_size": 64})


def test_more_epochs_have_a_flag_and_fewer_none(run):
    more, fewer = changed("epochs", 5.0), changed("epochs", 2.0)
    with pytest.raises(UserError, match="a run of 3 epochs, and this is one of 5; add --extend"):
        check_config(run, more)
    assert check_config(run, more, extend=True) == 3.0
    assert check_config(run, CONFIG, extend=True) == 3.0 == check_config(run, CONFIG)
    for extend in (False, True):
        with pytest.raises(UserError, match="--config.epochs=3") as caught:
            check_config(run, fewer, extend)
        assert "--extend" not in str(caught.value)
    with pytest.raises(UserError, match="another config .*epochs: 3.0 there, 5.0 here; seed: 0 there, 1 here"):
        check_config(run, more | {"seed": 1}, extend=True)


def test_unwritable_workdir_is_told_at_once(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="Cannot write to the folder .* choose another --workdir"):
        check_writable(tmp_path / "file" / "run")
    with pytest.raises(UserError, match="Cannot write to the folder"):
        check_writable("/proc/run")
    check_writable(tmp_path / "new")
    assert os.listdir(tmp_path / "new") == []
    write_config(tmp_path, CONFIG)
    (tmp_path / "config.json").write_text("{torn")
    with pytest.raises(UserError, match="cannot be read as a config"):
        check_config(tmp_path, CONFIG)

    def full(self, *args):
        raise OSError(28, "No space left on device", str(self))

    monkeypatch.setattr(type(identity.paths.resolve(tmp_path)), "write_text", full)
    with pytest.raises(LostError, match="the disk is full"):
        check_writable(tmp_path)


def test_a_config_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    write_config(tmp_path, CONFIG)

    def full(self, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(type(identity.paths.resolve(tmp_path)), "replace", full)
    with pytest.raises(OSError):
        write_config(tmp_path, CONFIG | {"seed": 1})
    assert os.listdir(tmp_path) == ["config.json"] and json.loads((tmp_path / "config.json").read_text())["seed"] == 0


def source(count=54, names=("c0", "c1"), identity="abc"):
    labels = np.arange(count) % len(names)
    images = np.zeros((count, 1, 1, 3), np.uint8)
    return in_memory("pictures", images, labels)._replace(class_names=tuple(names), identity=identity)


@pytest.mark.parametrize(
    "now, words",
    [
        (dict(count=108), "54 images then, 108 now"),
        (dict(names=("c0", "cat")), "class c1 then, cat now"),
        (dict(names=("c0", "c1", "c2")), "2 classes then, 3 now"),
        (dict(identity="xyz"), "other ones, or in another order"),
    ],
)
def test_other_images_are_refused_with_what_has_changed(run, now, words):
    check_data(run, source())
    check_data(run, source())
    with pytest.raises(UserError, match=words) as caught:
        check_data(run, source(**now))
    assert f"--config.init_from={run}" in str(caught.value) and "restore" in str(caught.value)
    check_data(run, source())  # the note is still that of the first start


def test_images_are_compared_as_far_as_they_are_known(run):
    check_data(run, source(count=60, identity=""))  # of a run that began before there was a note
    assert json.loads((run / "data.json").read_text())["count"] == 60
    check_data(run, source(count=60, identity="abc"))
    with pytest.raises(UserError, match="in another order"):
        check_data(run, source(count=60, identity="xyz"))
    (run / "data.json").write_text("{torn")
    check_data(run, source(count=108))


def test_where_nothing_was_saved_other_images_begin_anew(tmp_path):
    check_data(tmp_path, source())
    check_data(tmp_path, source(count=108))
    assert json.loads((tmp_path / "data.json").read_text())["count"] == 108


def test_images_that_have_moved_are_known_by_more_than_their_place(run):
    moved = changed("data.name", "folder:/b")
    with pytest.raises(UserError, match="data.name"):
        check_config(run, moved)
    check_data(run, source())
    check_config(run, moved)
    check_data(run, source()._replace(name="elsewhere"))
    with pytest.raises(UserError, match="another order"):
        check_data(run, source(identity="")._replace(name="here and unknown"))
    with pytest.raises(UserError, match="data.name"):
        check_config(run, changed("data.name", "tfds:cifar10"))
