import io
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jax_ssl import __main__ as command
from jax_ssl import encoder
from jax_ssl.study.embed import images
from jax_ssl.study.unfinished import Unfinished
from tests.runs import save_run
from tests.small import small
from tests.study.report.example import make_images

FILE = Path(__file__).parents[2] / "golden" / "dino_vit.pth"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Images in folders; one is a copy of another, and one is no image."""
    made = make_images(tmp_path_factory.mktemp("embed") / "images", each=9)
    shutil.copy(next((made / "cats & dogs").iterdir()), made / "copy.png")
    (made / "broken.jpg").write_bytes(b"no image")
    return made


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return save_run(tmp_path_factory.mktemp("embed") / "run", "moco")


@pytest.fixture(autouse=True)
def small_batches(monkeypatch):
    monkeypatch.setattr(encoder, "batch_size", lambda encode, side: 8)


def interrupt(*_):
    raise KeyboardInterrupt


def embed(run, folder, out):
    return command.main(["embed", f"--run={run}", f"--images={folder}", f"--out={out}"])


@pytest.mark.parametrize("name", ["x.npz", "x.parquet"])
def test_a_killed_call_is_taken_up_and_ends_with_the_same_bytes(run, folder, tmp_path, monkeypatch, capsys, name):
    if name == "x.parquet":
        pytest.importorskip("pyarrow")
    assert embed(run, folder, tmp_path / f"whole_{name}") == 0
    shutil.rmtree(run / "features")
    add = Unfinished.add

    def killed(part, *batch):
        if part.done >= 16:
            raise KeyboardInterrupt
        add(part, *batch)

    monkeypatch.setattr(Unfinished, "add", killed)
    assert embed(run, folder, tmp_path / name) == 130
    assert not (tmp_path / name).exists()
    monkeypatch.setattr(Unfinished, "add", add)
    capsys.readouterr()
    assert embed(run, folder, tmp_path / name) == 0
    told = capsys.readouterr().out
    assert "going on from image 16 of 29" in told and "unreadable, and left out: 1 image\n" in told
    assert (tmp_path / name).read_bytes() == (tmp_path / f"whole_{name}").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([name, f"whole_{name}"])


def test_thumbnails_are_of_the_images_asked_for(folder, monkeypatch):
    monkeypatch.setattr(encoder, "BATCH", 2)
    split = images.split_of(images.source_of(str(folder)), small("moco"), say=lambda line: None)
    split.left_out = {0}
    counted = []
    coded = list(images.thumbnails(split, counted.append, np.array([4, 0, 7])))
    assert counted == [2, 1]
    assert coded == [images.thumbnail(image) for image in split[np.array([4, 0, 7])]] and len(set(coded)) == 3
    large = Image.open(io.BytesIO(images.thumbnail(np.zeros((224, 224, 3), np.uint8))))
    assert large.size == (images.THUMB, images.THUMB)


def test_images_that_are_no_squares_are_embedded_and_found(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "images").mkdir()
    pixels = np.random.RandomState(0).randint(0, 256, (5, 16, 24, 3)).astype(np.uint8)
    for number, image in enumerate(pixels):
        Image.fromarray(image).save(tmp_path / "images" / f"{number}.png")
    flags = [f"--weights={FILE}", "--images=images", "--size=16x24"]
    with monkeypatch.context() as killed:
        killed.setattr(Unfinished, "add", interrupt)
        assert command.main(["embed", *flags, "--out=x.npz"]) == 130
    assert command.main(["embed", *flags, "--out=x.npz"]) == 0
    assert "all begins anew" not in capsys.readouterr().out and len(np.load("x.npz")["features"]) == 5
    assert command.main(["find", *flags, "--query=images/3.png", "--count=2"]) == 0
    assert capsys.readouterr().out.startswith(" 1.000  3.png")
    assert Image.open("found.png").size[1] == 2 * 5 * 16 + 2  # two rows, five times as large, and the gap
    assert command.main(["embed", *flags[:2], "--size=16x23", "--out=y.npz"]) == 2
    assert "--size=16x23 is not a multiple of the network's patch of 8: take 16." in capsys.readouterr().err


def test_names_labels_and_features_belong_together(run, folder, tmp_path):
    assert embed(run, folder, tmp_path / "x.npz") == 0
    found = np.load(tmp_path / "x.npz")
    assert found["features"].shape[0] == 28 and found["files"].tolist() == sorted(found["files"].tolist())
    by_file = dict(zip(found["files"].tolist(), found["features"]))
    twin = next(file for file in by_file if file.startswith("cats & dogs/") and np.allclose(
        by_file[file], by_file["copy.png"], atol=1e-5))  # fmt: skip
    assert dict(zip(found["files"].tolist(), found["labels"].tolist()))[twin] == "cats & dogs"
    assert "broken.jpg" not in by_file


def test_other_images_of_the_same_names_are_others(folder, tmp_path):
    identity = lambda place: images.split_of(images.source_of(str(place)), small("moco")).identity
    before = identity(folder)
    assert identity(folder) == before
    copied = shutil.copytree(folder, tmp_path / "copied")
    assert (first := identity(copied)) != before
    (copied / "copy.png").write_bytes((copied / "broken.jpg").read_bytes())
    assert identity(copied) != first


def test_find_an_image_and_its_copy(run, folder, tmp_path, capsys):
    out, words = tmp_path / "found.png", ["find", f"--run={run}", f"--images={folder}"]
    assert command.main([*words[:2], "--images=no/folder", "--query=no.png", f"--out={out}"]) == 2
    assert "--query=no.png: there is no such file" in capsys.readouterr().err, "before all features are made"
    assert command.main([*words, f"--query={folder / 'copy.png'}", "--count=3", f"--out={out}"]) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if line.lstrip()[:2] in ("1.", "0.")]
    assert len(lines) == 3 and lines[0].startswith(" 1.000") and lines[1].startswith(" 1.000")
    assert any("copy.png" in line for line in lines[:2]) and out.exists()
    assert command.main([*words, "--duplicates", "--least=0.99999", f"--out={out}"]) == 0
    assert "copy.png" in capsys.readouterr().out


@pytest.mark.parametrize(("words", "told"), [
    (["embed", "--images=x", "--out=x.npz"], "Give the network"),
    (["embed", "--images=x", "--out=x.csv", "--run=x"], "ends in .npz or .parquet"),
    (["embed", "--images=x", "--out=nowhere/x.npz", "--run=x"], "there is no folder"),
    (["find", "--images=x", "--run=x"], "--query=IMAGE, or --duplicates"),
    (["find", "--images=x", "--run=x", "--duplicates", "--count=2"], "--count belongs to --query"),
    (["find", "--images=x", "--run=x", "--query=x", "--least=2"], "--least belongs to --duplicates"),
])  # fmt: skip
def test_mistakes(words, told, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert command.main(words) == 2
    assert told in capsys.readouterr().err
