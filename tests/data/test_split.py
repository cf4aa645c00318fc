"""Images that are read when they are asked for are those that are read at once, without the unreadable ones."""

import numpy as np
import pytest
from PIL import Image

from jax_ssl import config
from jax_ssl.data import split
from jax_ssl.data.broken import Broken
from jax_ssl.data.source import in_memory
from jax_ssl.errors import DataError


def settings(*more):
    return config.load("simclr:tiny", [f"--config.data.{change}" for change in more])


def folder(root, count=24, broken=()):
    for number in range(count):
        (root / f"c{number % 2}").mkdir(exist_ok=True)
        file = root / f"c{number % 2}" / f"{number:02}.png"
        Image.fromarray(np.full((40 + number, 40, 3), 5 * number, np.uint8)).save(file)
        if number in broken:
            file.write_bytes(b"no image")
    return f"name=folder:{root}"


def test_batches_and_slices_are_what_the_probe_has(tmp_path):
    given = settings(folder(tmp_path), "eval_size=32")
    probe, found = split.open_labelled(given).read(), split.open_splits(given)
    for images, labels, side in ((probe.train_images, probe.train_labels, found.train),
                                 (probe.test_images, probe.test_labels, found.test)):  # fmt: skip
        np.testing.assert_array_equal(np.concatenate([batch for batch, _ in side.batches(5)]), images)
        np.testing.assert_array_equal(side[1:3], images[1:3])
        np.testing.assert_array_equal(side[np.array([1, 0])], images[[1, 0]])
        np.testing.assert_array_equal(side.labels, labels)
        assert side.shape == images.shape and side.dtype == images.dtype
    assert (found.classes, found.split, found.about, found.note) == (probe.classes, probe.split, probe.about, "")


def test_parts_of_a_batch_are_together_the_batch(tmp_path):
    side = split.open_splits(settings(folder(tmp_path), "eval_size=32")).train
    whole = list(side.batches(8))
    parts = [list(side.batches(8, (index, 2))) for index in (0, 1)]
    for (images, good), *halves in zip(whole, *parts):
        assert all(len(half) == 4 for half, _ in halves)
        joined = np.concatenate([half for half, _ in halves])[np.concatenate([flags for _, flags in halves])]
        np.testing.assert_array_equal(joined, images[good])


def test_what_cannot_be_read_is_black_and_counted(tmp_path):
    said, given = [], settings(folder(tmp_path, broken=(2, 5)), "eval_size=32", "broken_limit=0.2")
    side = split.open_splits(given, said.append).train
    flags = np.concatenate([good for _, good in side.batches(8)])
    assert (~flags).sum() == len(side.broken) == len(said) and (~flags).any()
    before = side.identity
    side.left_out |= {int(place) for place in np.flatnonzero(~flags)}
    assert len(side) == flags.sum() == len(side.labels) == len(side[:]) and side.identity == before
    assert side[:].max(axis=(1, 2, 3)).min() >= 0 and len(side.broken) == (~flags).sum()
    with pytest.raises(DataError, match="can't be read"):
        list(split.open_splits(settings(folder(tmp_path, broken=range(20)), "eval_size=32")).train.batches(8))


def test_identity_says_which_images_and_how_they_are_cut():
    images = np.random.RandomState(0).randint(0, 256, (20, 8, 8, 3)).astype(np.uint8)
    make = lambda records, *more: split.Split(
        in_memory("x", images, None), records, settings(*more).data, Broken("x", 20, 0.1)
    ).identity
    names = [make(np.arange(20)), make(np.arange(19)), make(np.arange(20), "eval_size=16"),
             make(np.arange(20), "eval_size=(16,24)"), make(np.arange(20), "eval_crop=0.5")]  # fmt: skip
    assert len(set(names)) == 5 and names[0] == make(np.arange(20), "workers=3")


def test_without_labels_every_tenth_image_tests(tmp_path):
    images = np.arange(25, dtype=np.uint8)[:, None, None, None] * np.ones((1, 8, 8, 3), np.uint8)
    np.savez(tmp_path / "few.npz", images=images)
    found = split.open_splits(settings(f"name=arrays:{tmp_path}/few.npz", "eval_size=8", "eval_crop=1.0"))
    assert found.classes == 0 and found.train.labels is None and found.split == "every tenth"
    assert found.test[:][:, 0, 0, 0].tolist() == [9, 19] and len(found.train) == 23
