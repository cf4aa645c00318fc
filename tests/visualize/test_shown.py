"""What a method shows is drawn by the page of its name, or else as grids and heat maps."""

import numpy as np

from jax_ssl.visualize import rotnet, shown

IMAGES = np.full((2, 8, 16, 16, 3), 0.5, np.float32)


def test_the_page_of_a_methods_name_gets_pixels(monkeypatch):
    seen = {}
    monkeypatch.setattr(rotnet, "draw", lambda found: seen.update(found) or {"page": "drawn"})
    found = shown.drawn("rotnet", {"rotations": IMAGES, "right": np.ones((2, 4))}, (0.25,) * 3, (0.5,) * 3, 7)
    assert found == {"page": "drawn"}
    np.testing.assert_allclose(seen["rotations"], 0.5)  # 0.5 * 0.5 + 0.25
    assert seen["right"].shape == (2, 4)


def test_without_a_page_images_are_a_grid_and_numbers_a_heat_map(tmp_path):
    arrays = {"pairs": IMAGES, "similarity": np.eye(4)}
    for method in ("simclr", "mine.rotnet"):
        drawn = shown.drawn(method, arrays, (0,) * 3, (1,) * 3, 7)
        assert set(drawn) == set(arrays) and drawn["pairs"].width > drawn["pairs"].height
        assert hasattr(drawn["similarity"], "savefig")
    views = {"views": IMAGES}
    shown.save("simclr", views, arrays, tmp_path / "pictures", 7, (0,) * 3, (1,) * 3)
    names = {path.name for path in (tmp_path / "pictures").iterdir()}
    assert names == {"views_0000007.png", "pairs_0000007.png", "similarity_0000007.png"}
