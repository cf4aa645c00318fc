"""Array files: their splits, their labels, and what a user is told whose arrays do not fit."""

import numpy as np
import pytest

from jax_ssl.data import arrays as module
from jax_ssl.data import disk
from jax_ssl.data.sources import open_source
from jax_ssl.errors import LostError, UserError


def test_arrays_with_splits(tmp_path):
    images, labels = np.arange(6 * 75, dtype=np.uint8).reshape(6, 5, 5, 3), np.arange(6)
    np.savez(tmp_path / "a.npz", x_train=images[:4], y_train=labels[:4, None], x_test=images[4:], y_test=labels[4:])
    train, test = (open_source(f"arrays:{tmp_path}/a.npz", split) for split in ("train", "test"))
    assert np.array_equal(train.images, images[:4]) and np.array_equal(test.images, images[4:])
    assert train.labels.tolist() == [0, 1, 2, 3] and test.labels.tolist() == [4, 5]


def test_grey_arrays_without_labels(tmp_path):
    np.savez(tmp_path / "a.npz", images=np.full((3, 4, 4), 9, np.uint8))
    source = open_source(f"arrays:{tmp_path}/a.npz", "train")
    assert source.images.shape == (3, 4, 4, 3) and (source.images == 9).all()
    assert source.labels is None and source.classes == 0
    with pytest.raises(UserError, match="data.probe.name"):
        open_source(f"arrays:{tmp_path}/a.npz", "test")


def test_labelled_arrays_without_test_are_shared_out(tmp_path):
    labels = np.repeat([0, 1], 50)
    images = np.broadcast_to(np.arange(100, dtype=np.uint8)[:, None, None, None], (100, 2, 2, 3))
    np.savez(tmp_path / "a.npz", images=images, labels=labels)
    train, test = (open_source(f"arrays:{tmp_path}/a.npz", split) for split in ("train", "test"))
    assert (train.count, test.count) == (90, 10) and np.bincount(test.labels).tolist() == [5, 5]
    assert sorted([*train.images[:, 0, 0, 0], *test.images[:, 0, 0, 0]]) == list(range(100))


@pytest.mark.parametrize(
    ("arrays", "told"),
    [
        ({"data": np.zeros((2, 4, 4, 3), np.uint8)}, "name its arrays"),
        ({"images": np.zeros((2, 4, 4, 3), np.float32)}, "save it as uint8"),
        ({"images": np.zeros((2, 4, 4, 5), np.uint8)}, "save it as uint8"),
        ({"images": np.zeros((0, 4, 4, 3), np.uint8)}, "one or more"),
        ({"images": np.zeros((2, 4, 4, 3), np.uint8), "labels": np.zeros(3, int)}, "for each of 2"),
        ({"images": np.zeros((2, 4, 4, 3), np.uint8), "labels": np.zeros(2)}, "whole number"),
        ({"images": np.array([{}], object)}, "plain arrays"),
    ],
)
def test_array_files_that_do_not_fit(tmp_path, arrays, told):
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(UserError, match=told):
        open_source(f"arrays:{tmp_path}/a.npz", "train")


def test_a_file_that_is_no_archive(tmp_path):
    (tmp_path / "a.npz").write_text("not an archive")
    with pytest.raises(UserError, match="can't be read"):
        open_source(f"arrays:{tmp_path}/a.npz", "train")


def save(tmp_path, **arrays):
    np.savez(tmp_path / "a.npz", **arrays)
    return f"arrays:{tmp_path}/a.npz"


def images(count):
    return np.arange(count * 12, dtype=np.uint8).reshape(count, 2, 2, 3)


@pytest.mark.parametrize("largest", [10**9, 2**40, 2**63 + 7])
def test_sparse_label_ids_are_numbered_anew_in_both_splits(tmp_path, largest):
    ids = np.array([5, largest, 70_000, 5], np.uint64)
    name = save(tmp_path, x_train=images(4), y_train=ids, x_test=images(2), y_test=ids[1:3])
    train, test = (open_source(name, split) for split in ("train", "test"))
    assert train.labels.tolist() == [0, 2, 1, 0] and test.labels.tolist() == [2, 1] and train.classes == 3
    assert train.class_names == ("5", "70000", str(largest))
    assert f"3 label ids up to {largest:,} numbered from 0 on (5, 70000, {largest})" in train.about


def test_a_gap_among_label_ids_stays(tmp_path):
    source = open_source(save(tmp_path, x_train=images(2), y_train=[0, 7], x_test=images(2), y_test=[0, 9]), "train")
    assert source.labels.tolist() == [0, 7] and source.classes == 10


def test_the_line_about_arrays(tmp_path):
    name = save(tmp_path, x_train=images(6), y_train=np.arange(6) % 2, x_val=images(2), y_val=[0, 1], ids=np.arange(6))
    assert open_source(name, "test").count == 2
    about = f"{name}: 6 training images of 2 classes, 2 test images in x_val; left out: ids"
    assert open_source(name, "train").about == about
    name = save(tmp_path, images=images(20), labels=np.arange(20) % 2)
    assert open_source(name, "test").about == (
        f"{name}: 18 training images of 2 classes, 2 test images, held out of each class"
    )


def test_one_image_is_not_many_narrow_ones(tmp_path):
    with pytest.raises(UserError, match="save it as uint8"):
        open_source(save(tmp_path, images=np.zeros((24, 32, 3), np.uint8)), "train")


def test_a_failing_disk_is_no_wrong_file(tmp_path, monkeypatch):
    name = save(tmp_path, images=images(4))
    monkeypatch.setattr(disk, "WAITS", (0.0,))
    failures = [OSError(5, "Input/output error")]
    load = np.load
    monkeypatch.setattr(module.np, "load", lambda *a, **k: _raise(failures.pop()) if failures else load(*a, **k))
    assert open_source(name, "train").count == 4
    failures += [OSError(5, "Input/output error")] * 5
    with pytest.raises(LostError, match="Input/output error"):
        open_source(name, "train")


def _raise(error):
    raise error
