"""Features in a file: made once, left out what can't be read, nothing half written, another key for another thing."""

import json
import os

import numpy as np
import pytest

from jax_ssl.data import split
from jax_ssl.encoder import Encoder
from jax_ssl.study import features, unfinished
from jax_ssl.study.features import Making
from tests.data.test_split import folder, settings


def means(batches):
    for images in batches:
        yield images.reshape(len(images), -1, 3).mean(1).astype(np.float32)


def refuse(batches):
    raise AssertionError("the features are in their file already")


def open_train(root, *more):
    return split.open_splits(settings(f"name=folder:{root}", "eval_size=32", "broken_limit=0.3", *more)).train


@pytest.fixture
def images(tmp_path):
    (tmp_path / "images").mkdir()
    folder(tmp_path / "images", broken=(4,))
    return tmp_path / "images"


def test_they_are_made_once_and_mapped_without_what_cannot_be_read(images, tmp_path):
    side, facts = open_train(images), {"weights": "student"}
    made = features.make_or_load(Making(means, lambda: 8), side, "w", str(tmp_path), facts, print)
    assert isinstance(made, np.memmap) and made.dtype == np.float32 and len(made) == len(side) == len(side.labels)
    np.testing.assert_allclose(made, side[:].reshape(len(side), -1, 3).mean(1), rtol=1e-6)
    again = open_train(images)
    found = features.make_or_load(Making(refuse), again, "w", str(tmp_path), {}, print)
    np.testing.assert_array_equal(found, made)
    assert again.left_out == side.left_out and len(again.left_out) == 1
    key = next((tmp_path / "features").glob("*.json"))
    said = json.loads(key.read_text())
    assert said["weights"] == "student" and said["images"] == len(made) and said["left_out"] == sorted(side.left_out)
    np.testing.assert_array_equal(np.load(key.with_suffix(".labels.npy")), side.labels)


def test_a_file_is_of_one_network_one_size_and_these_images(images, tmp_path):
    features.make_or_load(Making(means, lambda: 8), open_train(images), "w", str(tmp_path), {}, print)
    for weights, more in (("v", ()), ("w", ("eval_crop=0.5",)), ("w", ("probe.train=9",))):
        with pytest.raises(AssertionError, match="already"):
            features.make_or_load(Making(refuse), open_train(images, *more), weights, str(tmp_path), {}, print)


def killed_after(count):
    """Features of so many batches, and then a kill in the middle of the next one."""

    def made(batches):
        yield from means(next(batches) for _ in range(count))
        raise KeyboardInterrupt

    return Making(made, lambda: 8)


def test_what_was_not_finished_goes_on_where_it_was(images, tmp_path):
    whole = features.make_or_load(Making(means, lambda: 8), open_train(images), "w", str(tmp_path / "whole"), {}, print)
    for count in (1, 0, 1):  # whatever is killed again
        with pytest.raises(KeyboardInterrupt):
            features.make_or_load(killed_after(count), open_train(images), "w", str(tmp_path), {}, print)
        assert not list((tmp_path / "features").glob("*.npy"))
    (part,), seen, said = (tmp_path / "features").glob("*.part"), [], []
    part.write_bytes(part.read_bytes() + b"a row that was cut short")

    def rest(batches):
        for batch in batches:
            seen.append(len(batch))
            yield from means([batch])

    side = open_train(images)
    found = features.make_or_load(Making(rest, lambda: 8), side, "w", str(tmp_path), {}, said.append)
    np.testing.assert_array_equal(found, whole)
    assert sum(seen) == len(side.all) - 16 and said[0] == f"going on from image 16 of {len(side.all)}"
    assert len(side.left_out) == 1 and len(side.labels) == len(found)
    assert {path.suffix for path in (tmp_path / "features").iterdir()} == {".npy", ".json"}


def test_rows_that_are_missing_are_made_again(tmp_path):
    with unfinished.opened(tmp_path, "key") as (part, path):
        part.add(np.ones((3, 2), np.float32), np.array([True, False, True, True]))
        part.add(np.ones((1, 2), np.float32), np.array([True]))
        with unfinished.opened(tmp_path, "key") as (other, own):  # another command, at the same time
            assert other.done == 0 and own != path
        assert not own.exists()
        assert (part.done, part.rows) == (5, 4)
    flags = np.array([1, 0, 1, 1, 1], np.uint8).tobytes()
    for size, done in ((128 + 4 * 2 * 4, 5), (128 + 4 * 2 * 3, 0), (100, 0)):
        (tmp_path / "key.read").write_bytes(flags)
        os.truncate(tmp_path / "key.part", size)
        with unfinished.opened(tmp_path, "key") as (part, path):
            assert part.done == done
        assert path.stat().st_size == (size if done else 0)


def test_a_folder_that_cannot_be_written_to_uses_the_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("JAX_SSL_CACHE", str(tmp_path / "cache"))
    (tmp_path / "file").write_text("")
    for out in (str(tmp_path / "file"), "gs://bucket/run"):
        assert features.folder_of(out) == tmp_path / "cache" / "features"


def test_a_network_is_known_by_its_weights_and_settings():
    import flax.linen as nn

    make = lambda kernel=0.0, width=2, **more: features.fingerprint(
        Encoder(nn.Dense(width), {"params": {"kernel": np.full((3, 2), kernel, np.float32)}}, **more)
    )
    names = [make(), make(1.0), make(width=3), make(mean=(1.0, 0.0, 0.0))]
    assert len(set(names)) == 4 and make() == names[0] == make(size=96)
