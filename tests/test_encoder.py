from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jax_ssl import encoder, parts
from jax_ssl.encoder import EachDepth, Encoder, at_depth, depths_of
from jax_ssl.errors import UserError
from tests.small import small


@pytest.fixture(scope="module")
def encode():
    net = parts.make_backbone(small("mae"))
    variables = net.init(jax.random.key(0), jnp.zeros((1, 16, 16, 3)))
    scale = jax.random.uniform(jax.random.key(1), variables["params"]["norm"]["scale"].shape)
    return Encoder(net, {"params": variables["params"] | {"norm": {"scale": scale, "bias": scale}}})


def test_in_the_middle_the_norm_of_the_end_has_no_say(encode):
    images = jax.random.normal(jax.random.key(2), (4, 16, 16, 3))
    middle = at_depth(encode, 1)
    patches = np.asarray(middle(images).patches)
    np.testing.assert_allclose(patches.mean(-1), 0, atol=1e-5)
    np.testing.assert_allclose(patches.std(-1), 1, atol=1e-3)
    first = jax.tree.map(lambda x: x[:1], encode.variables["params"]["encoder"]["blocks"])
    jax.tree.map(np.testing.assert_array_equal, middle.variables["params"]["encoder"]["blocks"], first)


def test_the_end_keeps_its_norm(encode):
    images = jax.random.normal(jax.random.key(2), (4, 16, 16, 3))
    for depth in (0, encode.backbone.depth):
        np.testing.assert_array_equal(at_depth(encode, depth)(images).pooled, encode(images).pooled)


def every_depth(backbone):
    """All Features of a network at each of its depths."""
    return EachDepth(backbone, depths_of(backbone), lambda features: features)


def test_one_pass_reads_what_shortened_networks_give(encode):
    images = jax.random.normal(jax.random.key(2), (4, 16, 16, 3))
    apply = lambda images: every_depth(encode.backbone).apply(encode.variables, images)
    each = jax.jit(apply)(images)
    assert len(each) == 2 and str(jax.make_jaxpr(apply)(images)).count(" scan[") == 1
    for depth, found in enumerate(each, 1):
        jax.tree.map(partial(np.testing.assert_allclose, atol=1e-5), found, at_depth(encode, depth)(images))


def test_a_depth_that_is_not_there_is_refused(encode):
    with pytest.raises(UserError, match="give 1 to 2, of its blocks"):
        at_depth(encode, encode.backbone.depth + 1)
    with pytest.raises(UserError, match="set it to 0"):
        at_depth(Encoder(parts.make_backbone(small("dvae")), {"params": {}}), 1)


def test_a_resnet_is_read_behind_each_of_its_stages():
    net = parts.make_backbone(small("simclr"))
    images = jax.random.normal(jax.random.key(2), (2, 16, 16, 3))
    encode = Encoder(net, dict(net.init(jax.random.key(0), images)))
    first, last = at_depth(encode, 1), at_depth(encode, 2)
    assert first(images).patches.shape == (2, 16, 8) and last(images).patches.shape == (2, 4, 16)
    np.testing.assert_array_equal(last(images).pooled, encode(images).pooled)
    assert "Block_1" not in first.variables["params"] and "Block_1" not in first.variables["batch_stats"]
    changed = jax.tree.map(lambda x: x + 1, encode.variables["params"]["Block_0"])
    other = Encoder(net, encode.variables | {"params": encode.variables["params"] | {"Block_0": changed}})
    assert not np.allclose(at_depth(other, 1)(images).pooled, first(images).pooled)
    compiled = [jax.jit(part.apply).lower(encode.variables, images).compile() for part in (every_depth(net), net)]
    each = compiled[0](encode.variables, images)
    np.testing.assert_allclose(each[0].patches, first(images).patches, atol=1e-5)
    np.testing.assert_allclose(each[1].patches, last(images).patches, atol=1e-5)
    both, alone = (program.cost_analysis()["flops"] for program in compiled)
    assert both < 1.1 * alone  # what stages have in common is made once


def test_large_images_pass_in_smaller_batches(encode, monkeypatch):
    assert encoder.batch_size(encode, 32) == 256
    monkeypatch.setattr(encoder, "LARGE", 16)
    for room, size in ((2**40, 256), (1, 8)):
        monkeypatch.setattr(encoder, "ROOM", room)
        assert encoder.batch_size(encode, 16) == size
    alone = encoder.memory_per_image(encode, 16)
    monkeypatch.setattr(encoder, "ROOM", 100 * alone)
    assert encoder.batch_size(encode, 16) == 64
    assert encoder.memory_per_image(encoder.at_depths(encode, range(1, 3)), 16) > alone


def test_images_are_given_in_batches_of_as_many_as_pass(encode, monkeypatch):
    images = np.arange(10, dtype=np.uint8).reshape(10, 1, 1, 1) + np.zeros((1, 16, 32, 3), np.uint8)
    monkeypatch.setattr(encoder, "batch_size", lambda network, size: {(16, 32): 4}[size])
    numbers = lambda *rows: [batch[:, 0, 0, 0].tolist() for batch in encoder.in_batches(encode, images, *rows)]
    assert numbers() == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    assert numbers(np.array([7, 1, 2, 9, 5])) == [[7, 1, 2, 9], [5]]


def test_outputs_are_those_of_each_batch_whatever_its_size(encode):
    images = np.random.RandomState(0).randint(0, 256, (21, 16, 16, 3)).astype(np.uint8)
    whole = encoder.extract(encode, images)
    parts_of = list(encoder.outputs(encode, (images[start : start + 10] for start in range(0, 21, 10))))
    assert [len(part) for part in parts_of] == [10, 10, 1]
    np.testing.assert_allclose(np.concatenate(parts_of), whole, atol=1e-4)
    np.testing.assert_allclose(whole, encode(encode.normalise(images)).pooled, atol=1e-4)
