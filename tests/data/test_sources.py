"""Sources in memory: what each kind gives, how it is split, and what a user is told who asks for something else."""

import subprocess
import sys

import numpy as np
import pytest

from jax_ssl.data.source import held_out_mask, in_memory, subset, train_or_test
from jax_ssl.data.sources import KINDS, open_source
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


def test_hold_out_takes_the_lowest_keys_of_each_class():
    labels, keys = np.array([0] * 20 + [1] * 3 + [2]), np.arange(24)[::-1]
    assert np.flatnonzero(held_out_mask(labels, keys)).tolist() == [18, 19, 22]


def test_subset_renumbers():
    images = np.broadcast_to(np.arange(5, dtype=np.uint8)[:, None, None, None], (5, 2, 2, 3))
    source = in_memory("x", images, np.arange(5))
    part = subset(source, np.array([3, 1]))
    assert part.count == 2 and part.read(0).getpixel((0, 0)) == (3, 3, 3) and part.describe(1) == "x[1]"
    assert part.labels.tolist() == [3, 1]


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


def test_no_tensorflow_and_no_jax_are_loaded():
    program = "import sys; from jax_ssl.data.sources import open_source; open_source('embedded', 'test');"
    program += "assert not {'tensorflow', 'tensorflow_datasets', 'jax'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True)


def test_every_kind_says_how_it_is_written():
    assert all(text.startswith(kind) for kind, text in KINDS.items())


def test_every_source_says_what_it_is(tmp_path):
    assert open_source("embedded", "train").about == "embedded: 5,000 training images of 10 classes, 1,000 test images"
    test = open_source("synthetic:48", "test")
    assert test.about == "synthetic:48: 1,000 training images of 10 classes, 200 test images"
    assert test.class_names == () and open_source("embedded", "test").class_names[6] == "frog"


def test_sources_are_told_apart_by_their_identity():
    images = np.random.default_rng(0).integers(0, 256, (20, 4, 4, 3)).astype(np.uint8)
    labels = np.arange(20) % 4
    same, other = in_memory("x", images, labels), in_memory("x", images, labels[::-1])
    fewer, brighter = in_memory("x", images[:19], None), in_memory("x", images // 2, labels)
    assert in_memory("y", images, labels).identity == same.identity
    parts = [train_or_test(same, split) for split in ("train", "test")]
    identities = {source.identity for source in (same, other, fewer, brighter, *parts)}
    assert len(identities) == 6 and all(len(identity) == 16 for identity in identities)


def test_a_class_an_image_measures_nothing():
    source = train_or_test(in_memory("x", np.zeros((5, 2, 2, 3), np.uint8), np.arange(5)), "train")
    assert source.labels is None and source.about == "x: 5 training images without labels, as each class has one image"
    with pytest.raises(UserError, match="as each class has one image.*data.probe.name"):
        train_or_test(in_memory("x", np.zeros((5, 2, 2, 3), np.uint8), np.arange(5)), "test")
