"""Features in a file: made once, left out what can't be read, nothing half written, another key for another thing."""

import json

import numpy as np
import pytest

from jax_ssl.data import split
from jax_ssl.encoder import Encoder
from jax_ssl.study import features
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


def test_they_are_made_once_and_mapped_without_what_cannot_be_read(images, tmp_path, monkeypatch):
    monkeypatch.setattr(features, "BATCH", 8)
    side, facts = open_train(images), {"weights": "student"}
    made = features.make_or_load(means, side, "w", str(tmp_path), facts, print)
    assert isinstance(made, np.memmap) and made.dtype == np.float32 and len(made) == len(side) == len(side.labels)
    np.testing.assert_allclose(made, side[:].reshape(len(side), -1, 3).mean(1), rtol=1e-6)
    again = open_train(images)
    found = features.make_or_load(refuse, again, "w", str(tmp_path), {}, print)
    np.testing.assert_array_equal(found, made)
    assert again.left_out == side.left_out and len(again.left_out) == 1
    key = next((tmp_path / "features").glob("*.json"))
    said = json.loads(key.read_text())
    assert said["weights"] == "student" and said["images"] == len(made) and said["left_out"] == sorted(side.left_out)
    np.testing.assert_array_equal(np.load(key.with_suffix(".labels.npy")), side.labels)


def test_a_file_is_of_one_network_one_size_and_these_images(images, tmp_path):
    features.make_or_load(means, open_train(images), "w", str(tmp_path), {}, print)
    for weights, more in (("v", ()), ("w", ("eval_crop=0.5",)), ("w", ("probe.train=9",))):
        with pytest.raises(AssertionError, match="already"):
            features.make_or_load(refuse, open_train(images, *more), weights, str(tmp_path), {}, print)


def test_what_was_not_finished_is_not_there(images, tmp_path):
    def fail(batches):
        yield from means([next(batches)])
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        features.make_or_load(fail, open_train(images), "w", str(tmp_path), {}, print)
    assert not list((tmp_path / "features").iterdir())


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
