"""The one door to paths: what it understands, and that nobody goes round it."""

import ast
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jax_ssl import __main__ as command
from jax_ssl import config, paths
from jax_ssl.benchmark import step
from jax_ssl.data import cache, selection, sources, tfds
from jax_ssl.errors import UserError
from jax_ssl.plan import bound
from jax_ssl.run import checkpoints, identity, metrics, results, watchdog
from jax_ssl.study import ablate, gallery, measure, seals

ROOT = Path(__file__).parents[1] / "jax_ssl"

# Who may open files without paths.py, and why. All others, and every new module, may not.
ON_DISK = {
    "paths.py": "it is the door",
    "config.py": "a config file is a Python program, which only a disk can hold; and those that come with the package",
    "run/metrics.py": "files grow line by line, which a bucket can't: they lie in a temporary folder and are uploaded",
    "__main__.py": "asks whether there is a home folder, for a library",
    "run/devices.py": "the devices of this machine in /dev",
    "parts.py": "the modules beside it, by their names",
    "run/outputs.py": "asks whether a file of a disk can be opened; a bucket is passed by",
    "run/terminal.py": "the streams of this process, and os.devnull",
    "run/lock.py": "what /proc says of a process",
    "run/watchdog.py": "the last words of a process that hangs, where a file must be open already or on a disk",
    "run/profiling.py": "jax writes a trace to a disk, from where it is sent",
    "study/features.py": "features are mapped to memory from a file of a disk; a bucket's are kept in the cache",
    "study/unfinished.py": "a file that grows batch by batch, under a lock; see study/features.py",
    "study/seals.py": "the evidence and the README beside the package",
    "plan/published.py": "a table that comes with the package",
    "plan/topology.py": "what this machine says of its processor",
    "plan/bound.py": "the prices that come with the package",
    "study/cell.py": "os.devnull; suites refuse a bucket",
    "study/report/page.py": "the style and the program of a page, which lie beside it",
    "study/report/at_end.py": "asks whether it lies in a checkout",
    "study/embed/formats.py": "libraries write these files themselves; a bucket is refused",
    "study/embed/make.py": "the file of this machine that they write",
    "benchmark/input.py": "photographs of its own in a temporary folder",
    "weights/read.py": "libraries read archives piece by piece, from a disk: those of a bucket are copied there first",
    "weights/saved_model.py": "TensorFlow writes the folder itself, into a bucket too",
    "data/cache.py": "the cache is on the disk of the machine, wherever the images are",
    "data/disk.py": "on a disk",
    "data/listing.py": "folders of millions of files: on a disk os.scandir, which is ten times as fast",
    "data/sources.py": "the images that come with the package",
    "data/tfds.py": "files of a disk are mapped to memory",
}
FORBIDDEN_MODULES = {"pathlib", "shutil", "tempfile", "glob"}
FORBIDDEN_CALLS = {
    "open", "os.makedirs", "os.mkdir", "os.listdir", "os.scandir", "os.stat", "os.remove", "os.unlink", "os.rename",
    "os.replace", "os.walk", "os.access", "np.save", "np.savez", "np.load", "np.loadtxt", "np.savetxt", "np.fromfile",
    "Image.open", "epath.Path", "load_file", "save_file",
}  # fmt: skip
OF_A_PATH = {"save", "savefig", "imsave"}  # methods which write to the path that they are given


def without_the_door(path) -> list[str]:
    """What a module does with files that only a disk can do."""
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names if alias.name.split(".")[0] in FORBIDDEN_MODULES]
        elif isinstance(node, ast.ImportFrom) and node.module in FORBIDDEN_MODULES:
            found.append(node.module)
        elif isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            in_memory = any(
                "BytesIO" in ast.unparse(argument) or "drawn" in ast.unparse(argument) for argument in node.args
            )
            if not in_memory and (name in FORBIDDEN_CALLS or name.startswith("os.path.")):
                found.append(name)
            elif name.split(".")[-1] in OF_A_PATH and "path" in " ".join(map(ast.unparse, node.args)):
                found.append(name)
    return found


def test_nobody_goes_round_the_door():
    for path in sorted(ROOT.rglob("*.py")):
        name = path.relative_to(ROOT).as_posix()
        if name not in ON_DISK:
            assert not without_the_door(path), f"{name}: take jax_ssl.paths, or say why not in ON_DISK"


def test_the_list_of_exceptions_is_not_longer_than_it_has_to_be():
    assert [name for name in ON_DISK if not without_the_door(ROOT / name)] == []


def test_what_goes_round_the_door_is_seen(tmp_path):
    module = tmp_path / "new.py"
    for line in ("from pathlib import Path", "import os.path, shutil", "open(x)", "os.path.exists(x)", "np.load(path)",
                 "os.makedirs(x)", "picture.save(path)", "figure.savefig(f'{path}/x')", "epath.Path(x)"):  # fmt: skip
        module.write_text(line)
        assert without_the_door(module), line
    module.write_text("np.load(io.BytesIO(x)); keeper.save(step, state); file.open('rb')")
    assert not without_the_door(module)


def test_what_a_user_means(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert os.fspath(paths.resolve("~/runs/x")) == f"{tmp_path}/runs/x"
    assert os.fspath(paths.resolve("runs/../a=b,c")) == f"{tmp_path}/a=b,c"
    assert os.fspath(paths.resolve("gs://bucket/a/../b")) == "gs://bucket/a/../b"
    assert not paths.is_remote("backbone=gs://bucket/run") and paths.is_remote("gs://bucket")


def test_a_home_folder_that_is_not_known_is_no_folder_called_tilde(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="no home folder is known for ~nobody-at-all here"):
        paths.resolve("~nobody-at-all/runs")
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)  # as for a user id without an entry
    with pytest.raises(UserError, match="give the whole path"):
        paths.resolve("~/runs")
    monkeypatch.delenv("JAX_SSL_CACHE", raising=False)
    assert cache.folder().name.startswith("jax_ssl_cache_") and "~" not in str(cache.folder())
    assert os.listdir(tmp_path) == []


def test_the_size_of_a_file_of_nobody(tmp_path, monkeypatch):
    import pwd

    (tmp_path / "file").write_bytes(b"123")
    monkeypatch.setattr(pwd, "getpwuid", lambda uid: {}[uid])
    assert paths.size(paths.resolve(tmp_path / "file")) == 3


def test_a_file_gets_lines_and_loses_torn_ones(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert paths.json_lines("~/lines.jsonl") == []
    for number in range(2):
        paths.append("~/lines.jsonl", f'{{"a": {number}}}\n')
    paths.append("~/lines.jsonl", '{"a": ')
    assert paths.json_lines(tmp_path / "lines.jsonl") == [{"a": 0}, {"a": 1}]


def test_pictures_and_tables_follow_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    paths.save_picture(Image.new("RGB", (2, 2)), "~/a.png")
    assert Image.open(tmp_path / "a.png").size == (2, 2)
    (tmp_path / "prices.json").write_text(bound.PRICES.read_text())
    assert bound.read_prices("~/prices.json") == bound.read_prices()
    monkeypatch.setattr(step, "run", lambda config, steps, spec: {"step": 1})
    assert command.main(["benchmark", "--config=simclr:tiny", "--out=~/speed.jsonl"]) == 0
    assert len(paths.json_lines(tmp_path / "speed.jsonl")) == 1
    assert not Path("~").exists()


def test_configs_and_images_follow_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "mine.py").write_text("")
    assert config.find("~/mine.py:small") == (tmp_path / "mine.py", "small")
    with pytest.raises(UserError, match="copy it here"):
        config.find("gs://bucket/mine.py:small")
    np.savez(tmp_path / "a.npz", x_train=np.zeros((3, 8, 8, 3), np.uint8))
    assert sources.open_source("arrays:~/a.npz", "train").count == 3
    (tmp_path / "images").mkdir()
    Image.new("RGB", (9, 9)).save(tmp_path / "images" / "a.png")
    assert sources.open_source("folder:~/images", "train").count == 1
    assert selection.from_folder("~/images", 1, 8).shape == (1, 8, 8, 3)
    asked = []
    monkeypatch.setattr(tfds.tfds, "builder", lambda name, data_dir: asked.append(data_dir) or {}["not there"])
    with pytest.raises(KeyError):
        sources.open_source("tfds:mnist", "train", "~/sets")
    assert asked == [f"{tmp_path}/sets"]


def test_a_run_below_the_home_folder_is_found_by_every_verb(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    identity.check_writable("~/run")
    identity.write_config("~/run", config.to_dict(config.load("simclr:tiny", ["--config.seed=1"])))
    assert checkpoints.Checkpoints("~/run/checkpoints").folder == paths.resolve(tmp_path / "run" / "checkpoints")
    writer = metrics.Writer("~/run")
    writer.update(1, {"loss": 1.0})
    writer.close()
    assert watchdog.Watchdog(0, "~/run").path == paths.resolve(tmp_path / "run" / "hang_of_process_0.txt")
    assert measure.load_config("~/run").seed == 1 and results.read_results("~/run") == []
    assert gallery.draw(weights=str(ROOT.parent / "tests/golden/dino_vit.pth"), what=["pca"], size=16, count=2,
                        out="~/drawn", say=lambda _: None)  # fmt: skip
    with pytest.raises(UserError, match=f"{tmp_path}/run has no results"):
        seals.record("~/run")
    assert ablate.jobs("negatives", "~/abl", "0", [])[0].folder.is_relative_to(tmp_path)
    assert sorted(set(os.listdir(tmp_path)) - {".config", ".cache"}) == ["abl", "drawn", "run"]


def test_a_folder_that_can_not_be_written_is_told_with_the_remedy(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"Cannot write to the folder .*file/x \(.*\); choose another --out\."):
        paths.make_writable(tmp_path / "file" / "x", "choose another --out")
    assert list(paths.make_writable(tmp_path / "new", "").iterdir()) == []
