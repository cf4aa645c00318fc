"""Folders of real and of damaged image files, made on the fly."""

import io
import os
import struct
import zlib

import numpy as np
import pytest
from etils import epath
from PIL import Image

from jax_ssl.data import decode as decoding
from jax_ssl.data import folder
from jax_ssl.data.decode import BrokenImage
from jax_ssl.data.sources import open_source
from jax_ssl.errors import UserError


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("JAX_SSL_CACHE", str(tmp_path_factory.mktemp("cache")))


def picture(height=24, width=32):
    """A photograph-like gradient, uint8 (H, W, 3), different in every corner."""
    y, x = np.mgrid[:height, :width]
    return np.stack([y * 250 // height, x * 250 // width, 250 - y * 250 // height], -1).astype(np.uint8)


def encoded(image, kind="PNG", **options):
    """The bytes of a file. image: an array, or a PIL image of any mode."""
    file = io.BytesIO()
    image = image if isinstance(image, Image.Image) else Image.fromarray(image)
    image.save(file, kind, **options)
    return file.getvalue()


def decode(*file):
    """The pixels of what the module makes of a file."""
    image = decoding.decode(*file)
    assert image.mode == "RGB"
    return np.asarray(image)


def fill(root, *names):
    """Writes a small picture under each name, of its own colour; every directory is made."""
    for number, name in enumerate(names):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encoded(np.full((4, 5, 3), number, np.uint8)))


def names_of(source):
    return [source.describe(record) for record in range(source.count)]


# Decoding


@pytest.mark.parametrize("kind", ["PNG", "BMP", "WEBP", "JPEG", "GIF"])
def test_every_format(kind):
    options = {"lossless": True} if kind == "WEBP" else {"quality": 95} if kind == "JPEG" else {}
    image = decode(encoded(picture(), kind, **options))
    assert image.shape == (24, 32, 3) and image.dtype == np.uint8
    assert np.abs(image.astype(int) - picture()).mean() < (8 if kind in ("JPEG", "GIF") else 1e-9)


def test_cmyk_jpeg():
    image = decode(encoded(Image.fromarray(picture()).convert("CMYK"), "JPEG", quality=95))
    assert np.abs(image.astype(int) - picture()).mean() < 8


def test_sixteen_bit_grey_is_scaled_and_not_clipped():
    grey = np.linspace(0, 65535, 20 * 30).reshape(20, 30).astype(np.uint16)
    image = decode(encoded(grey))
    assert image.shape == (20, 30, 3) and (image == (grey >> 8)[..., None]).all()


def test_one_bit_palette_and_grey():
    assert set(np.unique(decode(encoded(Image.fromarray(picture()).convert("1"))))) == {0, 255}
    assert decode(encoded(Image.fromarray(picture()).convert("P"))).shape == (24, 32, 3)
    grey = Image.fromarray(picture()).convert("L")
    assert (decode(encoded(grey)) == np.asarray(grey)[..., None]).all()


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_what_is_transparent_becomes_white(mode):
    clear = np.repeat([[0, 0, 0, 255, 255, 255]], 4, 0).astype(np.uint8)
    if mode == "P":  # two black colours in the palette, one of which is transparent
        image = Image.fromarray(clear // 255, "L").copy()
        image.putpalette([0] * 6)
        data = encoded(image, "GIF", transparency=0)
    else:
        image = Image.new(mode, (6, 4))
        image.putalpha(Image.fromarray(clear))
        data = encoded(image)
    image = decode(data)
    assert (image[:, :3] == 255).all() and (image[:, 3:] == 0).all()


def test_first_frame_of_an_animation():
    frames = [Image.fromarray(np.full((5, 6, 3), value, np.uint8)) for value in (10, 200)]
    for kind in ("GIF", "WEBP"):
        options = {"lossless": True} if kind == "WEBP" else {}
        image = decode(encoded(frames[0], kind, save_all=True, append_images=frames[1:], **options))
        assert image.shape == (5, 6, 3) and (image == 10).all()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_camera_orientation_is_applied(orientation):
    stored = {
        1: lambda a: a, 2: np.fliplr, 3: lambda a: np.rot90(a, 2), 4: np.flipud, 5: lambda a: a.swapaxes(0, 1),
        6: lambda a: np.rot90(a, 1), 7: lambda a: np.rot90(a, 2).swapaxes(0, 1), 8: lambda a: np.rot90(a, -1),
    }[orientation](picture())  # fmt: skip
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = decode(encoded(np.ascontiguousarray(stored), "PNG", exif=exif))
    assert np.array_equal(image, picture())


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")  # as the module does for everybody else
def test_damaged_exif_is_no_reason_to_lose_a_picture():
    assert decode(encoded(picture(), "JPEG", exif=b"Exif\0\0II*\0nonsense" * 3)).shape == (24, 32, 3)


def huge_png(side=14000):
    """A valid black-and-white PNG of side x side pixels in some 25 kB."""
    rows = zlib.compress(b"\0" * ((side // 8 + 1) * side), 9)
    chunks = ((b"IHDR", struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)), (b"IDAT", rows), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )


@pytest.mark.parametrize("side", [10008, 14000])  # above the limit here, and above Pillow's own error
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_huge_images_are_refused_before_decoding(side, monkeypatch):
    monkeypatch.setattr(Image.Image, "load", lambda image: pytest.fail("decoded"))
    with pytest.raises(BrokenImage, match="over 100 megapixels"):
        decode(huge_png(side))


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty"),
        (b"just a text file, whatever it is called\n" * 20, "not a jpeg"),
        (encoded(picture(200, 200), "JPEG")[:1500], "truncated"),
        (encoded(picture(200, 200))[:300], "Error"),
        (encoded(picture(), "BMP")[:200], "truncated"),
        (encoded(picture(), "WEBP")[:60], "Error"),
        (encoded(picture(), "TIFF"), "not a jpeg"),
    ],
)
def test_broken_and_foreign_files_say_why(data, reason):
    with pytest.raises(BrokenImage, match=reason) as caught:
        decode(data, "a/b.jpg")
    assert caught.value.name == "a/b.jpg" and caught.value.reason


def test_any_flipped_bytes_end_in_pixels_or_in_broken_image():
    random = np.random.RandomState(0)
    for kind in ("PNG", "JPEG", "GIF", "WEBP", "BMP"):
        good = np.frombuffer(encoded(picture(), kind), np.uint8)
        for _ in range(60):
            bad = good.copy()
            bad[random.randint(0, len(bad), 3)] = random.randint(0, 256, 3)
            try:
                assert decode(bad.tobytes()).shape[-1] == 3
            except BrokenImage:
                pass


# Folders


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
    fill(tmp_path, "images/cat/1.png", "images/dog/2.png")
    assert open_source(f"folder:{tmp_path}", "train").labels.tolist() == [0, 1]


def test_links_are_followed_but_not_in_a_circle(tmp_path):
    fill(tmp_path, "elsewhere/1.png", "set/a/2.png")
    (tmp_path / "set/b").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "set/a/again").symlink_to(tmp_path / "set")
    assert folder.image_names(str(tmp_path / "set")) == ["a/2.png", "b/1.png"]


def test_missing_and_empty_folders(tmp_path):
    with pytest.raises(UserError, match="There is no folder"):
        open_source(f"folder:{tmp_path}/nowhere", "train")
    (tmp_path / "a").mkdir()
    (tmp_path / "a/readme.txt").write_text("nothing here")
    with pytest.raises(UserError, match="holds no images"):
        open_source(f"folder:{tmp_path}", "train")


def test_the_index_is_kept_until_the_folder_changes(tmp_path, monkeypatch):
    fill(tmp_path, "a/1.png", "a/b/2.png")
    walks = []
    walk = folder._walk
    monkeypatch.setattr(folder, "_walk", lambda root: walks.append(root) or walk(root))
    assert folder.image_names(str(tmp_path)) == folder.image_names(str(tmp_path)) == ["a/1.png", "a/b/2.png"]
    assert len(walks) == 1
    fill(tmp_path, "a/b/3.png")
    os.utime(tmp_path / "a/b", ns=(0, 12345))  # some file systems tell times apart no better than to milliseconds
    assert folder.image_names(str(tmp_path)) == ["a/1.png", "a/b/2.png", "a/b/3.png"] and len(walks) == 2


def test_a_damaged_or_unwritable_cache_costs_only_time(tmp_path, monkeypatch):
    fill(tmp_path / "data", "1.png")
    assert folder.image_names(str(tmp_path / "data")) == ["1.png"]
    for entry in folder.cache.folder().iterdir():
        entry.write_bytes(b"damaged")
    assert folder.image_names(str(tmp_path / "data")) == ["1.png"]
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("JAX_SSL_CACHE", str(tmp_path / "file/below"))
    assert folder.image_names(str(tmp_path / "data")) == ["1.png"]


def test_a_bucket_is_listed_the_same_way(tmp_path, monkeypatch):
    fill(tmp_path, "a/1.png", "a/.hidden/2.png", "b/x/3.JPG", "b/note.txt")
    local = folder.image_names(str(tmp_path))
    monkeypatch.setattr(folder, "is_remote", lambda path: True)
    monkeypatch.setenv("JAX_SSL_CACHE", str(tmp_path / ".cache"))
    assert folder.image_names(str(tmp_path)) == local == ["a/1.png", "b/x/3.JPG"]
    assert folder.image_names(str(tmp_path)) == local  # from the cache
    assert open_source(f"folder:{epath.Path(tmp_path)}", "train").read(0).size == (5, 4)
