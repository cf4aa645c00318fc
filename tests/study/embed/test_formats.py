import io
import os

import numpy as np
import pytest
from PIL import Image

from jax_ssl.errors import UserError
from jax_ssl.study.embed import formats


def thumb(number):
    coded = io.BytesIO()
    Image.new("RGB", (8, 8), (number * 20 % 256, 0, 0)).save(coded, "JPEG")
    return coded.getvalue()


def table(count=7, **more):
    random = np.random.RandomState(0)
    files = [f"a/<b>\t{number}.png" for number in range(count)]
    labels = ["a"] * count
    return formats.Table(
        random.randn(count, 4).astype(np.float32), files, labels, lambda numbers: [thumb(n) for n in numbers], **more
    )


def test_the_name_says_the_format():
    assert [formats.format_of(out) for out in ("x.npz", "a/x.PARQUET", "x", "x.npz/")] == [
        "npz", "parquet", "projector", "projector"]  # fmt: skip
    with pytest.raises(UserError, match="ends in .npz or .parquet"):
        formats.format_of("x.csv")


def test_npz_has_features_and_names_and_the_same_bytes_each_time(tmp_path):
    for name in ("a.npz", "b.npz"):
        assert formats.write("npz", tmp_path / name, table()) == ""
    found = np.load(tmp_path / "a.npz")
    np.testing.assert_array_equal(found["features"], table().features)
    assert found["files"].tolist() == table().files and found["labels"].tolist() == ["a"] * 7
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    assert sorted(os.listdir(tmp_path)) == ["a.npz", "b.npz"]


def test_parquet_has_the_columns_that_viewers_open(tmp_path, monkeypatch):
    parquet = pytest.importorskip("pyarrow.parquet")
    monkeypatch.setattr(formats, "BLOCK", 3)
    near = np.arange(14).reshape(7, 2) % 7, np.full((7, 2), 0.75)
    formats.write("parquet", tmp_path / "x.parquet", table(plane=np.zeros((7, 2)), near=near))
    found = parquet.read_table(tmp_path / "x.parquet").to_pylist()
    assert list(found[0]) == ["file", "label", "features", "projection_x", "projection_y", "neighbors", "image"]
    assert found[4]["neighbors"] == {"ids": [1, 2], "distances": [0.25, 0.25]}
    assert found[4]["image"] == {"bytes": thumb(4), "path": table().files[4]}
    np.testing.assert_array_equal([row["features"] for row in found], table().features)
    frame = pytest.importorskip("pandas").read_parquet(tmp_path / "x.parquet")
    assert list(frame.columns) == list(found[0]) and frame["features"][0].dtype == np.float32
    assert frame["projection_x"].dtype == np.float64 and frame["file"].tolist() == table().files


def test_the_projector_folder_keeps_its_limits(tmp_path, monkeypatch):
    monkeypatch.setattr(formats, "MOST_POINTS", 5)
    monkeypatch.setattr(formats, "MOST_PIXELS", 30)
    note = formats.write("projector", tmp_path / "p", table())
    assert note == "the projector takes 5 points: 2 images are left out"
    lines = (tmp_path / "p/metadata.tsv").read_text().splitlines()
    assert lines[0] == "file\tlabel" and lines[1] == "a/<b> 0.png\ta" and len(lines) == 6
    assert len((tmp_path / "p/tensors.tsv").read_text().splitlines()) == 5
    sprite = Image.open(tmp_path / "p/sprite.png")
    assert sprite.size == (30, 30)
    assert "single_image_dim: 10" in (tmp_path / "p/projector_config.pbtxt").read_text()
    plain = table()._replace(labels=[""] * 7)
    formats.write("projector", tmp_path / "q", plain)
    assert (tmp_path / "q/metadata.tsv").read_text().startswith("a/<b> 0.png\n")
