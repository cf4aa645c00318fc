"""Folders of image files, made on the fly: what they are taken for, what is said of them, and what is read."""

import io
import os

import numpy as np
import pytest
from PIL import Image

from jax_ssl.data.decode import BrokenImage
from jax_ssl.data.listing import list_images
from jax_ssl.data.sources import open_source
from jax_ssl.errors import UserError


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("JAX_SSL_CACHE", str(tmp_path_factory.mktemp("cache")))


def encoded(image):
    """The bytes of a PNG."""
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG")
    return file.getvalue()


def fill(root, *names):
    """Writes a small picture under each name, of its own colour; every directory is made."""
    for number, name in enumerate(names):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encoded(np.full((4, 5, 3), number, np.uint8)))


def names_of(source):
    return [source.describe(record) for record in range(source.count)]


def test_one_folder_a_class_at_any_depth(tmp_path):
    fill(tmp_path, "cat/1.png", "cat/old/deep/2.PNG", "dog/3.png", "dog/4.jpeg", "dog/notes.txt", ".git/5.png")
    for number in range(20):
        fill(tmp_path, f"cat/more{number}.png", f"dog/more{number}.png")
    (tmp_path / "cat/.DS_Store").write_bytes(b"x")
    train, test = (open_source(f"folder:{tmp_path}", split) for split in ("train", "test"))
    assert train.classes == 2 and train.images is None
    assert (train.count, test.count) == (40, 4) and np.bincount(test.labels).tolist() == [2, 2]
    assert not set(names_of(train)) & set(names_of(test))
    assert {"cat/old/deep/2.PNG", "dog/4.jpeg"} <= {*names_of(train), *names_of(test)}
    for source in (train, test):
        assert [name.startswith("dog") for name in names_of(source)] == source.labels.astype(bool).tolist()


def test_reading(tmp_path):
    fill(tmp_path, "cat/0.png", "cat/1.png", "cat/2.jpg")  # a png with a jpeg's name is still a picture
    source = open_source(f"folder:{tmp_path}", "train")
    assert [source.read(record).getpixel((0, 0))[0] for record in range(3)] == [0, 1, 2]
    os.unlink(tmp_path / "cat/1.png")
    with pytest.raises(BrokenImage, match="cat/1.png: can't be opened"):
        source.read(1)


def test_hold_out_stays_when_other_images_come(tmp_path):
    fill(tmp_path, *(f"{name}/{number}.png" for name in "ab" for number in range(30)))
    before = set(names_of(open_source(f"folder:{tmp_path}", "test")))
    fill(tmp_path, *(f"c/{number}.png" for number in range(30)))
    after = set(names_of(open_source(f"folder:{tmp_path}", "test")))
    assert len(before) == 6 and before < after and len(after) == 9


@pytest.mark.parametrize("other", ["test", "val", "validation"])
def test_splits_are_used(tmp_path, other):
    fill(tmp_path, "train/a/1.png", "train/b/2.png", "train/c/3.png", f"{other}/a/4.png", f"{other}/c/x/5.png")
    train, test = (open_source(f"folder:{tmp_path}", split) for split in ("train", "test"))
    assert names_of(train) == ["train/a/1.png", "train/b/2.png", "train/c/3.png"]
    assert train.labels.tolist() == [0, 1, 2] and test.labels.tolist() == [0, 2]
    assert train.classes == test.classes == 3


def test_unlabelled_train_with_labelled_test(tmp_path):
    fill(tmp_path, "train/1.png", "train/more/2.png", "test/a/3.png", "test/b/4.png")
    train, test = (open_source(f"folder:{tmp_path}", split) for split in ("train", "test"))
    assert train.labels is None and train.count == 2
    assert test.labels.tolist() == [0, 1] and test.classes == 2


def test_unlabelled_test_is_not_a_test(tmp_path):
    fill(tmp_path, "test/1.png", "test/2.png", *(f"train/{name}/{number}.png" for name in "ab" for number in range(10)))
    train, test = (open_source(f"folder:{tmp_path}", split) for split in ("train", "test"))
    assert (train.count, test.count) == (18, 2) and not set(names_of(train)) & set(names_of(test))


def test_a_third_split_by_its_name(tmp_path):
    fill(tmp_path, "train/a/1.png", "train/b/2.png", "test/a/3.png", "test/b/4.png", "unlabelled/5.png")
    assert names_of(open_source(f"folder:{tmp_path}", "unlabelled")) == ["unlabelled/5.png"]
    with pytest.raises(UserError, match="has no split 'extra'"):
        open_source(f"folder:{tmp_path}", "extra")


def test_train_may_be_a_class(tmp_path):
    fill(tmp_path, *(f"{name}/{number}.png" for name in ("car", "train") for number in range(3)))
    assert open_source(f"folder:{tmp_path}", "train").classes == 2


@pytest.mark.parametrize("names", ["1.png 2.png", "all/1.png all/2.png", "1.png sub/2.png sub/x/3.png"])
def test_no_labels_at_all(tmp_path, names):
    names = names.split()
    fill(tmp_path, *names)
    source = open_source(f"folder:{tmp_path}", "train")
    assert source.labels is None and source.classes == 0 and names_of(source) == sorted(names)
    with pytest.raises(UserError, match="data.probe.name"):
        open_source(f"folder:{tmp_path}", "test")


def test_one_folder_that_holds_everything_is_looked_into(tmp_path):
    fill(tmp_path, *(f"images/{name}/{number}.png" for name in ("cat", "dog") for number in range(2)))
    assert open_source(f"folder:{tmp_path}", "train").labels.tolist() == [0, 1]


def test_links_are_followed_but_not_in_a_circle(tmp_path):
    fill(tmp_path, "elsewhere/1.png", "set/a/2.png")
    (tmp_path / "set/b").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "set/a/again").symlink_to(tmp_path / "set")
    assert list_images(str(tmp_path / "set")).names == ["a/2.png", "b/1.png"]


def test_missing_and_empty_folders(tmp_path):
    with pytest.raises(UserError, match="There is no folder"):
        open_source(f"folder:{tmp_path}/nowhere", "train")
    (tmp_path / "a").mkdir()
    (tmp_path / "a/readme.txt").write_text("nothing here")
    with pytest.raises(UserError, match="holds no images"):
        open_source(f"folder:{tmp_path}", "train")


def test_the_line_about_a_folder(tmp_path):
    fill(tmp_path, *(f"B/train/c{c}/{n}.png" for c in range(3) for n in range(12)))
    fill(tmp_path, *(f"B/val/c{c}/{n}.png" for c in range(3) for n in range(4)), "B/preview.png", "B/@eaDir/1.png")
    for number in range(24):
        (tmp_path / f"B/train/c1/{number}.heic").write_bytes(b"")
    about = (
        f"folder:{tmp_path}: 36 training images of 3 classes in B/train, 12 test images in B/val; "
        "left out: 24 .heic, @eaDir, 1 loose file"
    )
    for split in ("train", "test"):
        source = open_source(f"folder:{tmp_path}", split)
        assert source.about == about and source.class_names == ("c0", "c1", "c2")
    held_out = open_source(f"folder:{tmp_path}/B/train", "train").about
    assert held_out.endswith(
        "B/train: 33 training images of 3 classes, 3 test images, held out of each class; left out: 24 .heic"
    )


def test_another_identity_for_other_names_labels_and_splits_but_not_for_another_place(tmp_path):
    fill(tmp_path / "one", "a/1.png", "a/2.png", "b/1.png", "b/2.png")
    fill(tmp_path / "two", "a/1.png", "a/2.png", "b/1.png", "b/2.png")
    sources = [open_source(f"folder:{tmp_path}/one", "train"), open_source(f"folder:{tmp_path}/one", "test")]
    assert len({source.identity for source in sources}) == 2 and len(sources[0].identity) == 16
    assert open_source(f"folder:{tmp_path}/two", "train").identity == sources[0].identity
    (tmp_path / "two/b").rename(tmp_path / "two/c")
    assert open_source(f"folder:{tmp_path}/two", "train").identity != sources[0].identity


def test_two_spellings_of_a_class_are_one_and_both_can_be_opened(tmp_path):
    fill(tmp_path, *(f"{name}/{number}.png" for name in ("caf\u00e9", "cafe\u0301", "b") for number in range(2)))
    train, test = (open_source(f"folder:{tmp_path}", split) for split in ("train", "test"))
    assert train.classes == 2 and train.class_names == ("b", "caf\u00e9")
    assert all(source.read(record) for source in (train, test) for record in range(source.count))


def test_one_image_a_folder_has_no_labels_and_says_so(tmp_path):
    fill(tmp_path, *(f"{number}/x.png" for number in range(6)))
    source = open_source(f"folder:{tmp_path}", "train")
    assert source.labels is None and source.count == 6
    assert source.about.endswith("6 training images without labels, as each class has one image")


def test_a_folder_of_what_can_not_be_read_says_what_is_there(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a/1.heic").write_bytes(b"")
    with pytest.raises(UserError, match=r"holds no images but 1 .heic \(nothing else is in a\): put jpeg"):
        open_source(f"folder:{tmp_path}", "train")


def test_capital_tif_and_jfif_are_images(tmp_path):
    fill(tmp_path, "a/1.TIF", "a/2.tiff", "b/1.JFIF", "b/2.png")
    assert open_source(f"folder:{tmp_path}", "train").classes == 2


def test_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    fill(tmp_path, "set/a/1.png")
    assert open_source("folder:~/set", "train").count == 1
