"""What is found below a folder, once; what is counted instead; and what is said of a disk that fails."""

import os

import numpy as np
import pytest
from etils import epath
from PIL import Image

from jax_ssl.data import cache, disk, listing
from jax_ssl.data.listing import describe_left_out, list_images
from jax_ssl.data.sources import open_source
from jax_ssl.errors import LostError, UserError


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("JAX_SSL_CACHE", str(tmp_path_factory.mktemp("cache")))
    monkeypatch.setattr(disk, "WAITS", (0.0, 0.0))


def names_below(root):
    return list_images(root).names


def fill(root, *names):
    """Files under these names; pictures are small ones."""
    for number, name in enumerate(names):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
        if name.lower().endswith((".png", ".jpg")):
            Image.fromarray(np.full((4, 5, 3), number, np.uint8)).save(path, "PNG")


def test_the_index_is_kept_until_the_folder_changes(tmp_path, monkeypatch):
    fill(tmp_path, "a/1.png", "a/b/2.png")
    walks = []
    walk = listing._walk
    monkeypatch.setattr(listing, "_walk", lambda root: walks.append(root) or walk(root))
    assert names_below(str(tmp_path)) == names_below(str(tmp_path)) == ["a/1.png", "a/b/2.png"]
    assert len(walks) == 1
    fill(tmp_path, "a/b/3.png")
    os.utime(tmp_path / "a/b", ns=(0, 12345))  # some file systems tell times apart no better than to milliseconds
    assert names_below(str(tmp_path)) == ["a/1.png", "a/b/2.png", "a/b/3.png"] and len(walks) == 2


def test_a_damaged_or_unwritable_cache_costs_only_time(tmp_path, monkeypatch):
    fill(tmp_path / "data", "1.png")
    assert names_below(str(tmp_path / "data")) == ["1.png"]
    for entry in cache.folder().iterdir():
        entry.write_bytes(b"damaged")
    assert names_below(str(tmp_path / "data")) == ["1.png"]
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("JAX_SSL_CACHE", str(tmp_path / "file/below"))
    assert names_below(str(tmp_path / "data")) == ["1.png"]


def test_a_bucket_is_listed_the_same_way(tmp_path, monkeypatch):
    fill(tmp_path, "a/1.png", "a/.hidden/2.png", "b/x/3.JPG", "b/note.txt")
    local = names_below(str(tmp_path))
    monkeypatch.setattr(listing, "is_remote", lambda path: True)
    monkeypatch.setenv("JAX_SSL_CACHE", str(tmp_path / ".cache"))
    assert names_below(str(tmp_path)) == local == ["a/1.png", "b/x/3.JPG"]
    assert names_below(str(tmp_path)) == local  # from the cache
    assert open_source(f"folder:{epath.Path(tmp_path)}", "train").read(0).size == (5, 4)


def words(root, classes_in=""):
    return describe_left_out(list_images(str(root)), classes_in)


def test_what_can_not_be_read_is_counted_and_a_class_of_nothing_else_is_named(tmp_path):
    fill(
        tmp_path, "a/1.png", "a/2.HEIC", "b/1.heic", "b/2.heic", "c/deep/1.Heic", "a/note.txt", "README", "a/Thumbs.db"
    )
    (tmp_path / "d").mkdir()
    told = [
        "4 .heic (nothing else is in b, c)",
        "1 .txt",
        "1 file without an ending",
        "1 empty folder (d)",
    ]
    assert words(tmp_path) == told and words(tmp_path) == told  # the second time from the cache


def test_folders_that_systems_leave_are_not_looked_into(tmp_path):
    left = ["@eaDir", "__MACOSX", ".ipynb_checkpoints", "$RECYCLE.BIN", "System Volume Information", "lost+found"]
    fill(tmp_path, "a/1.png", "b/2.png", "a/._1.png", "b/@eaDir/2.png", *(f"{name}/a/1.png" for name in left))
    assert list_images(str(tmp_path)).names == ["a/1.png", "b/2.png"]
    assert set(words(tmp_path)) == {"2 @eaDir", *left[1:]}


@pytest.mark.parametrize("evidence", ["metrics.jsonl", "checkpoints/1/x"])
def test_a_run_among_the_images_is_not_learned_from(tmp_path, evidence):
    fill(tmp_path, "a/1.png", "b/2.png", "runs/x/config.json", "runs/x/pictures/views.png", f"runs/x/{evidence}")
    assert list_images(str(tmp_path)).names == ["a/1.png", "b/2.png"]
    assert "run folder runs/x" in words(tmp_path)


def test_a_run_in_the_very_folder_of_the_images(tmp_path):
    fill(tmp_path, "a/1.png", "b/2.png", "config.json", "metrics.jsonl", "pictures/curves.png", "checkpoints/1/x")
    assert list_images(str(tmp_path)).names == ["a/1.png", "b/2.png"]
    assert {"checkpoints", "pictures"} <= set(words(tmp_path))


def test_an_image_called_config_is_no_run(tmp_path):
    fill(tmp_path, "a/1.png", "a/config.json", "b/2.png")
    assert list_images(str(tmp_path)).names == ["a/1.png", "b/2.png"]


def test_a_pipe_is_no_image(tmp_path):
    fill(tmp_path, "a/1.png")
    os.mkfifo(tmp_path / "a/2.png")
    assert names_below(str(tmp_path)) == ["a/1.png"]


def test_links_to_nothing_are_counted_and_seen_when_they_name_something(tmp_path):
    fill(tmp_path / "set", "a/1.png", "b/2.png")
    (tmp_path / "set/a/3.png").symlink_to(tmp_path / "later.png")
    assert list_images(str(tmp_path / "set")).names == ["a/1.png", "b/2.png"]
    assert words(tmp_path / "set") == ["1 broken link"]
    fill(tmp_path, "later.png")
    assert "a/3.png" in list_images(str(tmp_path / "set")).names


def test_names_of_any_bytes(tmp_path):
    fill(tmp_path, "a/1.png")
    os.makedirs(os.fsencode(tmp_path) + b"/caf\xe9")
    os.link(tmp_path / "a/1.png", os.fsencode(tmp_path) + b"/caf\xe9/\xff.png")
    for _ in range(2):  # also from the cache
        train = open_source(f"folder:{tmp_path}", "train")
        assert len(list_images(str(tmp_path)).names) == 2 and train.about.encode()
    assert [train.describe(record) for record in range(2)] == ["a/1.png", "caf\\xe9/\\xff.png"]


def test_a_listing_that_fails_is_tried_again(tmp_path, monkeypatch):
    fill(tmp_path, "a/1.png", "b/2.png")
    scan, failures = os.scandir, iter([OSError(5, "Input/output error")])

    def fails_once(path):
        for failure in failures:
            raise failure
        return scan(path)

    monkeypatch.setattr(listing.os, "scandir", fails_once)
    assert list_images(str(tmp_path)).names == ["a/1.png", "b/2.png"]


def test_a_known_folder_that_is_empty_or_away_is_a_lost_disk(tmp_path):
    fill(tmp_path / "set", "a/1.png")
    list_images(str(tmp_path / "set"))
    (tmp_path / "set").rename(tmp_path / "away")
    with pytest.raises(LostError, match="is its disk, mount or bucket there"):
        list_images(str(tmp_path / "set"))
    (tmp_path / "set").mkdir()  # a mount point without its mount
    with pytest.raises(LostError, match="empty and was not before"):
        list_images(str(tmp_path / "set"))
    with pytest.raises(UserError, match="There is no folder"):
        list_images(str(tmp_path / "never"))


def test_a_file_is_no_folder(tmp_path):
    fill(tmp_path, "images.zip")
    with pytest.raises(UserError, match="There is no folder .*images.zip"):
        list_images(f"{tmp_path}/images.zip")
