"""Crops follow from seed, epoch and image, whatever batch the image is in."""

import numpy as np

from jax_ssl.evaluate import augmented


def images(count=20):
    return np.random.RandomState(0).randint(0, 256, (count, 16, 16, 3)).astype(np.uint8)


def test_a_crop_does_not_depend_on_the_batch():
    made_by, x = augmented.recipe(16, count=3), images()
    batches = [(0, np.array([2, 5])), (0, np.array([5])), (1, np.array([5]))]
    first, second, third = augmented.crops(x, batches, made_by, seed=1)
    assert first.shape == (6, 16, 16, 3) and (first[3] != first[4]).any()
    np.testing.assert_array_equal(first[3:], second)
    assert (second != third).any()
    (other,) = augmented.crops(x, batches[1:2], made_by, seed=2)
    assert (second != other).any()


def test_a_crop_of_everything_is_the_image_or_its_mirror():
    whole = augmented.recipe(16, scale=(1.0, 1.0)) | {"ratio": (1.0, 1.0)}
    x = images()
    (found,) = augmented.crops(x, [(0, np.arange(20))], whole, seed=0)
    mirrored = (found != x).any((1, 2, 3))
    np.testing.assert_array_equal(found[mirrored], x[mirrored][:, :, ::-1])
    assert 0 < mirrored.sum() < 20


def test_an_epoch_is_a_permutation_of_whole_batches():
    steps = list(augmented.steps_of(10, 3, 7, seed=0))
    assert [epoch for epoch, _ in steps] == [0, 0, 0, 1, 1, 1, 2]
    assert len(set(np.concatenate([rows for epoch, rows in steps if epoch == 0]))) == 9
    assert all(len(rows) == 3 for _, rows in steps) and list(steps[0][1]) != list(steps[3][1])
