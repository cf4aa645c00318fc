"""Boxes around objects whose patches are alike, true boxes of masks, and overlaps by hand."""

import numpy as np
import pytest

from jax_ssl.errors import UserError
from jax_ssl.evaluate import correspondence, discovery
from jax_ssl.evaluate.case import Case
from tests.evaluate.patched import Patched
from tests.evaluate.test_emergence import encoder
from tests.evaluate.test_segmentation import folder, save


def scene(box, shape=(9, 8), seed=0):
    """Patches of an object in a box, on a background that is the opposite: (P, D)."""
    random = np.random.RandomState(seed)
    direction = random.randn(12)
    inside = np.zeros(shape, bool)
    inside[box[0] : box[2], box[1] : box[3]] = True
    x = np.where(inside[..., None], direction, -direction) + 0.3 * random.randn(*shape, 12)
    return x.reshape(-1, 12), shape


@pytest.mark.parametrize("way", ["lost", "tokencut"])
@pytest.mark.parametrize("box", [(2, 1, 5, 4), (5, 5, 9, 8)])
def test_the_object_is_found(way, box):
    np.testing.assert_array_equal(discovery.guess(*scene(box))[way], box)


def test_only_what_is_connected_with_the_seed_counts():
    patches, shape = scene((1, 1, 4, 4))
    patches[np.ravel_multi_index((7, 6), shape)] = patches[np.ravel_multi_index((2, 2), shape)]  # one more, elsewhere
    for box in discovery.guess(patches, shape).values():
        assert list(box) in ([1, 1, 4, 4], [7, 6, 8, 7])


def test_the_seed_of_lost_is_correlated_with_the_fewest():
    random = np.random.RandomState(0)
    x = random.randn(30, 5)
    alike = x @ x.T
    counts = [sum(alike[i, j] > 0 for j in range(30) if j != i) for i in range(30)]
    seed = int(np.argmin(counts))
    group = [j for j in sorted(range(30), key=lambda j: counts[j])[:100] if alike[seed, j] > 0]
    inside = {j for j in range(30) if sum(alike[i, j] for i in group) > 0}
    near, todo = set(), [seed]
    while todo:
        place = todo.pop()
        if place in inside and place not in near:
            near.add(place)
            row, column = divmod(place, 6)
            steps = ((row + 1, column), (row - 1, column), (row, column + 1), (row, column - 1))
            todo += [6 * r + c for r, c in steps if 0 <= r < 5 and 0 <= c < 6]
    rows, columns = zip(*(divmod(place, 6) for place in near or {seed}), strict=True)
    np.testing.assert_array_equal(discovery.lost(x, (5, 6)), [min(rows), min(columns), max(rows) + 1, max(columns) + 1])


def test_true_boxes_are_those_of_connected_parts():
    mask = np.zeros((10, 20), np.uint8)
    mask[1:3, 2:6] = 1
    mask[5:9, 2:6] = 1
    mask[5:9, 6:8] = 3
    mask[0, 19] = 255
    found = sorted(map(tuple, discovery.boxes(mask) * (10, 20, 10, 20)))
    assert found == [(1, 2, 3, 6), (5, 2, 9, 6), (5, 6, 9, 8)]
    assert discovery.boxes(np.zeros((4, 4), np.uint8)).shape == (0, 4)


def test_overlap_by_hand():
    others = np.array([[0, 0, 2, 2], [1, 1, 3, 3], [5, 5, 6, 6.0]])
    np.testing.assert_allclose(discovery.overlap(np.array([0, 0, 2, 2.0]), others), [1, 1 / 7, 0])


def test_the_ruler_counts_images_that_are_right(tmp_path):
    case = Patched()
    found, protocol = discovery.measure(case, 0, folder=str(folder(tmp_path)), side=16, images=10)
    assert set(found) == {"corloc_lost", "corloc_tokencut", "corloc_middle", "corloc_noise"}
    assert all(0 <= value <= 1 for value in found.values()) and found["corloc_middle"] == 0
    assert protocol["discovery_images"] == 10 and protocol["patches"] == 4
    with pytest.raises(UserError, match="--config.discovery.folder=FOLDER"):
        discovery.measure(case, 0)


def test_patches_of_a_transformer_are_the_keys_of_its_last_attention(tmp_path):
    network, files = encoder(), str(folder(tmp_path))
    case, images = Case("student", None, None, encode=network), np.full((2, 16, 16, 3), 7, np.uint8)
    keys = discovery.read_patches(case, images, True)
    np.testing.assert_allclose(keys, network.backbone.keys(network.variables, network.normalise(images)), atol=1e-4)
    _, protocol = discovery.measure(case, 0, folder=files, side=16, images=10)
    assert protocol["features"] == "keys of the last attention" and not protocol["centred"]
    _, protocol = discovery.measure(case, 0, folder=files, side=16, images=10, keys=False)
    assert protocol["features"] == "patches of the last block" and protocol["centred"]


class Common(Patched):
    """Patches that say inside or outside, beside a much larger part that all have in common."""

    def outputs(self, batches, read):
        for images in batches:
            inside = correspondence.cut(images, (8, images.shape[2] // 4)).mean(-1) > 128
            yield np.stack([np.where(inside, 1.0, -1.0), np.full(inside.shape, 9.0)], axis=-1).astype(np.float32)


def test_what_all_patches_have_in_common_is_taken_off(tmp_path):
    for split in ("train", "val"):
        for number, (top, left) in enumerate([(4, 4), (16, 8)]):
            mask = np.zeros((32, 32), np.uint8)
            mask[top : top + 12, left : left + 12] = 1
            save(tmp_path / "images" / split / f"{number}.png", np.repeat(255 * mask[..., None], 3, axis=2))
            save(tmp_path / "masks" / split / f"{number}.png", mask)
    case = Common(side=32)
    found, protocol = discovery.measure(case, 0, folder=str(tmp_path))
    assert found["corloc_lost"] == found["corloc_tokencut"] == 1 and protocol["centred"]
    assert discovery.measure(case, 0, folder=str(tmp_path), centre=False)[0]["corloc_lost"] == 0
    found, protocol = discovery.measure(Common(side=(32, 64)), 0, folder=str(tmp_path))  # twice as wide
    assert found["corloc_lost"] == found["corloc_tokencut"] == 1 and protocol["patches"] == (8, 16)
