"""mIoU against scikit-learn, the vote pixel for pixel against the definition, and three layouts of folders."""

import numpy as np
import pytest
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import jaccard_score

from jax_ssl.errors import UserError
from jax_ssl.evaluate import linear, logreg, masks, segmentation
from tests.evaluate.patched import Patched


def test_mean_iou_is_scikit_learns_where_classes_are_absent():
    random = np.random.RandomState(0)
    truth, guess = random.randint(0, 4, (3, 50)), random.randint(0, 3, (3, 50))
    truth[truth == 2] = 1  # 2 is only predicted, 3 only true, 4 neither
    truth[0, :9] = 255
    table = segmentation.confusion(guess, truth, 5, (255,))
    counted = truth != 255
    expected = jaccard_score(truth[counted], guess[counted], average="macro")
    assert segmentation.mean_iou(table) == pytest.approx(expected)
    assert table.sum() == counted.sum() and table[2].sum() == 0 < table[:, 2].sum()


def test_the_most_frequent_class_of_a_patch():
    labels = np.array([[1, 1, 2, 2], [255, 255, 255, 1], [0, 3, 3, 0]], np.uint8)
    np.testing.assert_array_equal(segmentation.most_frequent(labels, 4, (255,)), [1, -1, 0])
    np.testing.assert_array_equal(segmentation.most_frequent(labels, 4, (0, 255)), [1, -1, -1])


def test_the_vote_is_pixel_for_pixel_among_the_nearest():
    random = np.random.RandomState(0)
    train, test = random.randn(4, 9, 5).astype(np.float32), random.randn(2, 9, 5).astype(np.float32)
    labels = random.randint(1, 4, (4, 9, 6)).astype(np.uint8)
    labels[0, :3] = 255
    labels[1, 2:5, :2] = 255
    bank, pixels = train.reshape(-1, 5).astype(np.float64), labels.reshape(-1, 6)
    kept = (pixels == 255).sum(1) < 6
    mean, deviation = bank[kept].mean(0), bank[kept].std(0)
    bank, queries = ((x - mean) / deviation for x in (bank[kept], test.reshape(-1, 5)))
    unit = lambda x: x / np.linalg.norm(x, axis=1, keepdims=True)
    nearest = np.argsort(-(unit(queries) @ unit(bank).T), axis=1)
    for k, found in zip((1, 5), segmentation.vote(train, labels, test, (1, 5), 4, (0, 255)), strict=True):
        expected = [
            [np.bincount(column[column != 255], minlength=4).argmax() for column in pixels[kept][rows[:k]].T]
            for rows in nearest
        ]
        if k == 5:  # at k = 1 a pixel that does not count has no vote at all
            np.testing.assert_array_equal(found.reshape(18, 6), expected)
        assert found.max() < 4


def test_the_regression_of_patches_is_scikit_learns(monkeypatch):
    monkeypatch.setattr(logreg, "GRID", (1e-6, 0.1, 10.0))
    fit, hidden_rows = logreg.fit_best, []
    monkeypatch.setattr(
        logreg, "fit_best", lambda x, y, rows, *rest: hidden_rows.append(rows) or fit(x, y, rows, *rest)
    )
    random, ignored = np.random.RandomState(0), (255,)
    # Classes that are equally frequent would be told apart by a rounding where C is smallest.
    truth, hidden = (random.choice(3, (count, 4), p=(0.5, 0.3, 0.2)) for count in (30, 10))
    centres = 1.5 * random.randn(3, 5)
    train, test = ((centres[x] + random.randn(*x.shape, 5)).astype(np.float32) for x in (truth, hidden))
    truth[0] = 255  # patches that do not count
    pixels, test_pixels = (np.repeat(x[..., None], 6, axis=2).astype(np.uint8) for x in (truth, hidden))
    found, chosen = segmentation.by_regression(train, pixels, test, test_pixels, 3, ignored, 0, 500)
    of_patches = train.reshape(-1, 5)[truth.ravel() < 255]
    unit = lambda x: (x.reshape(-1, 5) - of_patches.mean(0)) / of_patches.std(0)

    def reference(c, rows, features, known):
        names, known = truth[rows].ravel(), known.ravel()
        model = LogisticRegression(C=c, tol=1e-10, max_iter=5000)
        model.fit(unit(train[rows])[names < 255], names[names < 255])
        return jaccard_score(known[known < 255], model.predict(unit(features))[known < 255], average="macro")

    held, rest = linear.split(30, 0)
    np.testing.assert_array_equal(hidden_rows[0], np.isin(np.repeat(np.arange(30), 4)[truth.ravel() < 255], held))
    scores = [reference(c, rest, train[held], truth[held]) for c in logreg.GRID]
    assert chosen["held_out_miou"] == pytest.approx(max(scores))
    assert chosen["C"] == logreg.GRID[int(np.argmax(scores))]
    assert found == pytest.approx(reference(chosen["C"], np.arange(30), test, hidden))


def save(path, array, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(array)
    if options.get("palette"):
        image.putpalette([255 - i // 3 for i in range(768)])
    image.save(path)


def scenes(count, seed):
    """A red square (class 1) and a blue one (2) on grey (0), each 8 of 16 pixels wide."""
    random = np.random.RandomState(seed)
    for number in range(count):
        image, mask = np.full((16, 16, 3), 128, np.uint8), np.zeros((16, 16), np.uint8)
        for label, channel in ((1, 0), (2, 2)):
            top, left = 8 * random.randint(0, 2), 8 * (label - 1)
            image[top : top + 8, left : left + 8] = 0
            image[top : top + 8, left : left + 8, channel] = random.randint(150, 256)
            mask[top : top + 8, left : left + 8] = label
        yield number, image, mask


def folder(root, splits=("train", "val"), kind="masks"):
    for seed, split in enumerate(splits):
        for number, image, mask in scenes(12, seed):
            save(root / "images" / split / f"{number}.png", image)
            save(root / kind / split / f"{number}.png", mask)
    return root


def test_the_ruler_segments_squares(tmp_path):
    case = Patched()
    found, protocol = segmentation.measure(case, 0, folder=str(folder(tmp_path)), side=16)
    assert found["miou_pixels"] == found["miou"] == found["miou_logreg"] == found["accuracy"] == 1  # colours say it all
    assert set(segmentation.SHOWN) <= set(found) and protocol["classes"] == 3 and protocol["patches"] == 4
    assert protocol["segmentation_images"] == [12, 12] and protocol["ignored"] == [255]


def test_images_that_are_no_squares_are_squashed_to_their_shape(tmp_path):
    pairs = masks.find(str(folder(tmp_path))).train[:2]
    patches, truth, _ = segmentation._read(Patched(side=(16, 32)), pairs, (16, 32))
    assert patches.shape == (2, 32, 48) and truth.shape == (2, 32, 16)
    mask = masks.read(pairs[1], 16)[1].repeat(2, axis=1)
    np.testing.assert_array_equal(truth[1, 9], mask[4:8, 4:8].ravel())
    with pytest.raises(UserError, match="16x34 pixels are no multiple of their 4 x 8 patches: take --size=16x32"):
        segmentation._read(Patched(), pairs, (16, 34))


def test_layouts_of_ade20k_and_voc(tmp_path):
    found = masks.find(str(folder(tmp_path / "ade", ("training", "validation"), "annotations")))
    assert found.layout == "ade20k" and found.ignored == (0, 255) and len(found.train) == len(found.test) == 12
    voc = tmp_path / "voc"
    for number, image, mask in scenes(3, 0):
        save(voc / "JPEGImages" / f"{number}.jpg", image)
        save(voc / "SegmentationClass" / f"{number}.png", mask, palette=True)
    for split, names in (("train", "0\n2\n"), ("val", "1\n")):
        path = voc / "ImageSets" / "Segmentation" / f"{split}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(names)
    found = masks.find(str(voc))
    assert found.layout == "voc" and [image.name for image, _ in found.train] == ["0.jpg", "2.jpg"]
    image, mask = masks.read(found.test[0], 16)
    assert image.shape == (16, 16, 3) and set(np.unique(mask)) == {0, 1, 2}  # numbers, not the palette's colours


def test_what_is_no_set_of_masks_is_a_sentence(tmp_path):
    with pytest.raises(UserError, match="has no masks"):
        masks.find(str(tmp_path))
    root = folder(tmp_path / "set")
    (root / "masks" / "val" / "3.png").unlink()
    with pytest.raises(UserError, match="3.png is missing"):
        masks.find(str(root))
    pair = masks.find(str(folder(root))).train[0]
    save(root / "masks" / "train" / "0.png", np.zeros((8, 16), np.uint8))
    with pytest.raises(UserError, match="16 x 8 pixels and its image 16 x 16"):
        masks.read(pair, 16)
    save(root / "masks" / "train" / "0.png", np.zeros((16, 16, 3), np.uint8))
    with pytest.raises(UserError, match="in colours"):
        masks.read(pair, 16)
    with pytest.raises(UserError, match="--config.segmentation.folder=FOLDER"):
        segmentation.measure(Patched(), 0)
    with pytest.raises(UserError, match="two classes"):
        segmentation._classes(np.zeros(4, np.uint8), np.zeros(4, np.uint8), (255,))
