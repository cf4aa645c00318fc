"""Sources in memory: what each kind gives, how it is split, and what a user is told who asks for something else."""

import subprocess
import sys

import numpy as np
import pytest

from jax_ssl.data.sources import KINDS, hold_out, in_memory, open_source, split_apart, subset
from jax_ssl.errors import UserError


def test_embedded_images_are_real_and_balanced():
    train, test = open_source("embedded", "train"), open_source("embedded", "test")
    assert train.images.shape == (5000, 32, 32, 3) and train.images.dtype == np.uint8
    assert test.images.shape == (1000, 32, 32, 3)
    assert np.bincount(train.labels).tolist() == [500] * 10 and np.bincount(test.labels).tolist() == [100] * 10
    assert train.classes == 10 and train.labels.dtype == np.int32
    # The first training images of CIFAR-10 are a frog and a truck; neighbouring pixels of photographs are alike.
    assert train.labels[:2].tolist() == [6, 9]
    assert np.abs(np.diff(train.images.astype(int), axis=2)).mean() < 15
    assert np.array_equal(np.asarray(train.read(7)), train.images[7])


def test_synthetic_colours_tell_classes_apart_and_never_change():
    train, test = open_source("synthetic", "train"), open_source("synthetic:48", "test")
    assert train.images.shape == (1000, 32, 32, 3) and test.images.shape == (200, 48, 48, 3)
    means = np.stack([train.images[train.labels == label].mean((0, 1, 2)) for label in range(10)])
    nearest = np.abs(test.images.mean((1, 2))[:, None] - means).sum(-1).argmin(-1)
    assert (nearest == test.labels).mean() > 0.95
    assert np.array_equal(train.images, open_source("synthetic", "train").images)


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


def test_hold_out_takes_the_lowest_keys_of_each_class():
    labels, keys = np.array([0] * 20 + [1] * 3 + [2]), np.arange(24)[::-1]
    assert np.flatnonzero(hold_out(labels, keys)).tolist() == [18, 19, 22]


def test_subset_renumbers():
    images = np.broadcast_to(np.arange(5, dtype=np.uint8)[:, None, None, None], (5, 2, 2, 3))
    source = in_memory("x", images, np.arange(5))
    part = subset(source, np.array([3, 1]))
    assert part.count == 2 and part.read(0).getpixel((0, 0)) == (3, 3, 3) and part.describe(1) == "x[1]"
    assert part.labels.tolist() == [3, 1]
    assert split_apart(source, "train").count == 5  # a class of one image has none to give


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("embeded", "did you mean 'embedded'"),
        ("tfsd:cifar10", "did you mean 'tfds:NAME'"),
        ("zzz", "choose one of embedded"),
        ("folder", "folder:PATH"),
        ("tfds:", "tfds:NAME"),
        ("arrays:/nowhere/x.npz", "There is no file"),
        ("synthetic:big", "whole number"),
    ],
)
def test_mistakes_are_answered_with_the_remedy(name, told):
    with pytest.raises(UserError, match=told):
        open_source(name, "train")


@pytest.mark.parametrize("name", ["embedded", "synthetic"])
def test_unknown_split(name):
    with pytest.raises(UserError, match="choose 'train' or 'test'"):
        open_source(name, "validation")


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


def test_no_tensorflow_and_no_jax_are_loaded():
    program = "import sys; from jax_ssl.data.sources import open_source; open_source('embedded', 'test');"
    program += "assert not {'tensorflow', 'tensorflow_datasets', 'jax'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True)


def test_every_kind_says_how_it_is_written():
    assert all(text.startswith(kind) for kind, text in KINDS.items())
