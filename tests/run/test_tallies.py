"""What is counted over the training images: once, of all of them or of every k-th, and never with a gap."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from jax_ssl import config, core
from jax_ssl.data import cache
from jax_ssl.data.decode import BrokenImage
from jax_ssl.data.source import in_memory
from jax_ssl.errors import UserError
from jax_ssl.run import tallies

IMAGES = np.random.default_rng(0).integers(0, 256, (600, 8, 8, 3), np.uint8)


@pytest.fixture
def settings(tmp_path, monkeypatch):
    monkeypatch.setenv("JAX_SSL_CACHE", str(tmp_path))
    return config.load("colorization:tiny", ["--config.data.crops.views[0].size=8"])


def method(**changes):
    brightness = lambda images: jnp.sum(images.astype(jnp.float32), axis=(0, 1, 2))
    return core.Method(None, None, tallies={"brightness": brightness})._replace(**changes)


def state():
    zero = lambda: jnp.zeros((), jnp.int32)
    return core.TrainState(zero(), {}, (), {}, {"brightness": jnp.zeros(3), "stats": {}}, jax.random.key(0), zero())


def test_all_images_are_counted_once_and_remembered(settings):
    source, said, alive = in_memory("x", IMAGES, None), [], []
    counted = tallies.count(method(), state(), settings, source, said.append, lambda: alive.append(1))
    assert len(alive) == 3
    np.testing.assert_allclose(counted.extra["brightness"], IMAGES.sum((0, 1, 2), dtype=np.float64), rtol=1e-6)
    assert counted.extra["stats"] == {} and said == ["counting over 600 training images, once: brightness"]
    never = method(tallies={"brightness": lambda images: 1 / 0})
    again = tallies.count(never, state(), settings, source, said.append)
    np.testing.assert_array_equal(again.extra["brightness"], counted.extra["brightness"])
    assert len(said) == 1


def test_other_images_or_another_method_are_counted_anew(settings):
    first = tallies.count(method(), state(), settings, in_memory("x", IMAGES, None), str).extra["brightness"]
    other = tallies.count(method(), state(), settings, in_memory("x", IMAGES[:300], None), str).extra["brightness"]
    assert (other < first).all()
    settings = config.load("colorization:tiny", ["--config.data.crops.views[0].size=8", "--config.method.sigma=4.0"])
    key = [path.name for path in cache.folder().iterdir()]
    tallies.count(method(), state(), settings, in_memory("x", IMAGES, None), str)
    assert len(list(cache.folder().iterdir())) == len(key) + 1


def test_a_large_set_is_counted_by_every_kth_image(settings, monkeypatch):
    monkeypatch.setattr(tallies, "COUNTED", 100)
    counted = tallies.count(method(), state(), settings, in_memory("x", IMAGES, None), str)
    np.testing.assert_allclose(counted.extra["brightness"], IMAGES[::6].sum((0, 1, 2), dtype=np.float64), rtol=1e-6)


def test_what_can_not_be_read_is_left_out(settings):
    def read(record):
        if record == 7:
            raise BrokenImage("7", "torn")
        return Image.fromarray(IMAGES[record])

    source = in_memory("x", IMAGES, None)._replace(read=read)
    counted = tallies.count(method(), state(), settings, source, str)
    np.testing.assert_allclose(counted.extra["brightness"], np.delete(IMAGES, 7, 0).sum((0, 1, 2), dtype=np.float64),
                               rtol=1e-6)  # fmt: skip


def test_a_method_without_tallies_keeps_its_state_and_sees_a_sample(settings):
    before, seen = state(), []
    assert tallies.count(method(tallies={}), before, settings, None, str) is before
    tallies.look(method(look=lambda images: seen.append(images)), settings, in_memory("x", IMAGES, None))
    assert sum(map(len, seen)) == 60 and seen[0].shape[1:] == (8, 8, 3)

    def refuse(images):
        raise UserError("All of them are alike.")

    with pytest.raises(UserError, match="alike"):
        tallies.look(method(look=refuse), settings, in_memory("x", IMAGES, None))
