"""A folder belongs to one config: what may differ when a run is continued, and how a difference is told."""

import json
import os

import pytest

from jax_ssl.checkpoints import check_config, write_config
from jax_ssl.errors import UserError

CONFIG = {
    "seed": 0,
    "log_every": 10,
    "optim": {"base_lr": 0.3, "b1": 0.9},
    "mesh": {"fsdp": 1},
    "data": {"dir": "/a", "workers": 1, "crops": {"views": [{"size": 32, "scale": (0.08, 1.0)}]}},
}


def changed(path: str, value) -> dict:
    config = json.loads(json.dumps(CONFIG))
    *parents, last = path.split(".")
    branch = config
    for key in parents:
        branch = branch[int(key) if isinstance(branch, list) else key]
    branch[last] = value
    return config


def test_another_config_on_the_same_folder_is_refused(tmp_path):
    check_config(tmp_path / "run", CONFIG)
    write_config(tmp_path / "run", CONFIG)
    check_config(tmp_path / "run", CONFIG)  # tuples in it have become lists
    assert os.listdir(tmp_path / "run") == ["config.json"]
    with pytest.raises(UserError) as caught:
        check_config(tmp_path / "run", changed("optim.base_lr", 0.1))
    assert "optim.base_lr: 0.3 there, 0.1 here" in str(caught.value) and "another --workdir" in str(caught.value)
    with pytest.raises(UserError, match="data.crops.views.0.size: 32 there, 64 here"):
        check_config(tmp_path / "run", changed("data.crops.views.0.size", 64))
    with pytest.raises(UserError, match="optim.clip: absent there, 1 here"):
        check_config(tmp_path / "run", changed("optim.clip", 1))
    many = {**CONFIG, **{f"new{number}": number for number in range(7)}}
    with pytest.raises(UserError, match=r"new4: absent there, 4 here; and 2 more\)"):
        check_config(tmp_path / "run", many)


@pytest.mark.parametrize("path, value", [("log_every", 1), ("mesh.fsdp", 2), ("data.dir", "/b"), ("data.workers", 8)])
def test_what_does_not_change_the_learning_may_differ(tmp_path, path, value):
    write_config(tmp_path, CONFIG)
    check_config(tmp_path, changed(path, value))


def test_unwritable_workdir_is_told_at_once(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="Cannot write to the folder .* choose another --workdir"):
        check_config(tmp_path / "file" / "run", CONFIG)
    with pytest.raises(UserError, match="Cannot write to the folder"):
        check_config("/proc/run", CONFIG)
    write_config(tmp_path, CONFIG)
    (tmp_path / "config.json").write_text("{torn")
    with pytest.raises(UserError, match="cannot be read as JSON"):
        check_config(tmp_path, CONFIG)
