import numpy as np

from jax_ssl.study.embed import find, images
from jax_ssl.study.neighbours import nearest_others


def folder(features):
    return images.Folder(np.asarray(features, np.float32), [f"{n}.png" for n in range(len(features))], None)


def test_groups_of_duplicates_are_linked_by_their_nearest():
    base = np.eye(6, 8)
    close = base[2] + 0.1 * base[5]
    rows = [base[0], base[1], base[2], 3 * base[0], close, base[2], base[3]]
    assert find.duplicates(folder(rows), 0.99) == [[2, 4, 5], [0, 3]]
    assert find.duplicates(folder(rows), 0.9999) == [[0, 3], [2, 5]]
    assert find.duplicates(folder(base), 0.5) == []


def test_neighbours_are_other_images_even_if_all_are_equal():
    random = np.random.RandomState(0)
    x = random.randn(12, 5).astype(np.float32)
    ids, cosines = nearest_others(x, 3)
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    full = unit @ unit.T - 2 * np.eye(12)
    np.testing.assert_array_equal(ids, np.argsort(-full, axis=1)[:, :3])
    np.testing.assert_allclose(cosines, -np.sort(-full, axis=1)[:, :3], atol=1e-5)
    same, _ = nearest_others(np.ones((9, 4), np.float32), 2)
    assert same.shape == (9, 2)


def test_pictures_have_a_row_for_the_query(tmp_path):
    from PIL import Image

    image = np.full((32, 32, 3), 7, np.uint8)
    path = find.draw([[image], [image] * 8, [image] * 3], tmp_path / "found.png")
    picture = Image.open(path)
    assert picture.size == (8 * 128 + 7 * 2, 3 * 128 + 2 * 2)
    assert picture.getpixel((5, 5)) == (7, 7, 7) and picture.getpixel((900, 5)) == (255, 255, 255)
