"""What a method shows is drawn by the page of its name, or else as grids and heat maps."""

import numpy as np

from jax_ssl.visualize import cpc, dino, jigsaw, pictures, rotnet, shown

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


def framed_cells(page, columns, rows):
    """Whether the frame of each cell is green, (rows, columns); None where there is none."""
    pixels = np.asarray(page, np.float32)[pictures.TITLE :] / 255
    side = (pixels.shape[1] + pictures.GAP) // columns
    corners = pixels[1::side, 1::side][:rows, :columns]
    near = lambda colour: np.abs(corners - np.float32(colour)).max(-1) < 0.02
    return np.where(near(pictures.RIGHT), True, np.where(near(pictures.WRONG), False, None))


def test_a_puzzle_put_back_right_has_a_green_frame():
    given = {"puzzles": np.full((3, 3, 26, 26, 3), 0.5, np.float32), "right": np.array([True, False, True])}
    (name, page), = jigsaw.draw(given).items()
    frames = framed_cells(page, 3, 3)
    assert name == "puzzles" and frames[:, 1].tolist() == [True, False, True] and not np.any(frames[:, [0, 2]] != None)  # noqa: E711


def test_the_right_candidate_has_a_green_frame_and_the_others_another():
    right = np.eye(6, dtype=bool)[[0, 5]]
    given = {"seen": np.full((2, 1, 32, 32, 3), 0.5), "patches": np.full((2, 7, 8, 8, 3), 0.5), "right": right}
    (name, page), = cpc.draw(given).items()
    frames = framed_cells(page, 8, 2)
    assert name == "candidates" and frames[:, 2:].tolist() == right.tolist() and frames[0, 0] is None


def test_a_pair_of_bars_for_each_of_the_teachers_first_prototypes():
    teacher, student = np.array([[0.5, 0.25], [0.75, 0.0], [0.1, 0.1]]), np.array([[0.25, 0.5], [0.0, 0.0], [0.2, 0.1]])
    given = {"crops": np.full((3, 2, 8, 8, 3), 0.5), "prototypes": np.array([[65535, 3], [7, 0], [1, 2]]),
             "teacher": teacher, "student": student}  # fmt: skip
    drawn = dino.draw(given)
    assert set(drawn) == {"targets"} and set(dino.draw(given | {"attention": IMAGES})) == {"targets", "attention"}
    panels = [axes for axes in drawn["targets"].axes if axes.patches]
    heights = [[bar.get_height() for bar in axes.patches] for axes in panels]
    np.testing.assert_array_equal(heights, np.concatenate([teacher, student], axis=1))
    assert [text.get_text() for text in panels[0].get_xticklabels()] == ["65535", "3"]
    assert {axes.get_ylim() for axes in panels} == {(0.0, 0.75)}  # one scale, to compare images
