"""Files of every format, damaged ones and odd ones, made on the fly: an RGB image, or `BrokenImage` saying why."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from jax_ssl.data import decode as decoding
from jax_ssl.data.decode import BrokenImage


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


@pytest.mark.parametrize("kind", decoding.FORMATS)
def test_every_format(kind):
    options = {"lossless": True} if kind == "WEBP" else {"quality": 95} if kind == "JPEG" else {}
    image = decode(encoded(picture(), kind, **options))
    assert image.shape == (24, 32, 3) and image.dtype == np.uint8
    assert np.abs(image.astype(int) - picture()).mean() < (8 if kind in ("JPEG", "GIF", "AVIF") else 1e-9)


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


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_camera_orientation_is_applied(orientation, kind):
    stored = {
        1: lambda a: a, 2: np.fliplr, 3: lambda a: np.rot90(a, 2), 4: np.flipud, 5: lambda a: a.swapaxes(0, 1),
        6: lambda a: np.rot90(a, 1), 7: lambda a: np.rot90(a, 2).swapaxes(0, 1), 8: lambda a: np.rot90(a, -1),
    }[orientation](picture())  # fmt: skip
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = decode(encoded(np.ascontiguousarray(stored), kind, exif=exif))
    assert np.array_equal(image, picture())


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")  # as the module does for everybody else
def test_damaged_exif_is_no_reason_to_lose_a_picture():
    assert decode(encoded(picture(), "JPEG", exif=b"Exif\0\0II*\0nonsense" * 3)).shape == (24, 32, 3)


def png(width, height, bits, colour, rows, more=()):
    """The bytes of a PNG. bits: of a sample. colour: PNG's number of the mode. rows: bytes. more: other chunks."""
    head = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    chunks = ((b"IHDR", head), *more, (b"IDAT", zlib.compress(rows, 9)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )


def huge_png(side=14000):
    """A valid black-and-white PNG of side x side pixels in some 25 kB."""
    return png(side, side, 1, 0, b"\0" * ((side // 8 + 1) * side))


def deep_png(samples, more=()):
    """A PNG of 16 bits a sample. samples: integers (H, W, channels)."""
    height, width, channels = samples.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in samples)
    return png(width, height, 16, {1: 0, 2: 4, 3: 2, 4: 6}[channels], rows, more)


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("bits", [10, 12, 14, 16])
def test_sixteen_bits_that_hold_fewer_are_not_black(channels, bits):
    samples = np.random.default_rng(0).integers(0, 1 << bits, (9, 11, channels))
    samples[0, 0] = (1 << bits) - 1
    if channels in (2, 4):
        samples[..., -1] = 65535  # opaque
    expected = samples[..., : 3 if channels > 2 else 1] >> (bits - 8)
    assert np.array_equal(decode(deep_png(samples)), np.broadcast_to(expected, (9, 11, 3)))


@pytest.mark.parametrize("compression", [None, "tiff_lzw"])
def test_tiff_of_twelve_in_sixteen_bits(compression):
    grey = np.linspace(0, 4095, 20 * 30).reshape(20, 30).astype(np.uint16)
    image = decode(encoded(grey, "TIFF", **({"compression": compression} if compression else {})))
    assert (image == (grey >> 4)[..., None]).all()


def test_numbers_with_a_point_are_scaled():
    grey = np.linspace(0, 1, 20 * 30).reshape(20, 30).astype(np.float32)
    assert np.abs(decode(encoded(grey, "TIFF"))[..., 0] - 255 * grey).max() <= 1


@pytest.mark.parametrize("chunk", [b"zTXt", b"iCCP"])
def test_long_text_and_profiles_are_no_reason_to_lose_a_picture(chunk):
    samples = np.full((4, 5, 3), 65535)
    long = [(chunk, b"name\0\0" + zlib.compress(b"x" * 3_000_000))]
    assert (decode(deep_png(samples, long)) == 255).all()


def test_any_name_can_be_printed():
    with pytest.raises(BrokenImage) as caught:
        decode(b"", "caf\udce9\n.png")
    assert str(caught.value) == "caf\\xe9\\n.png: the file is empty"


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
        (encoded(picture(), "PPM"), "not a jpeg"),
    ],
)
def test_broken_and_foreign_files_say_why(data, reason):
    with pytest.raises(BrokenImage, match=reason) as caught:
        decode(data, "a/b.jpg")
    assert caught.value.name == "a/b.jpg" and caught.value.reason


def test_any_flipped_bytes_end_in_pixels_or_in_broken_image():
    random = np.random.RandomState(0)
    for kind in decoding.FORMATS:
        good = np.frombuffer(encoded(picture(), kind), np.uint8)
        for _ in range(60):
            bad = good.copy()
            bad[random.randint(0, len(bad), 3)] = random.randint(0, 256, 3)
            try:
                assert decode(bad.tobytes()).shape[-1] == 3
            except BrokenImage:
                pass


@pytest.mark.parametrize("orientation", [1, 6])
def test_a_jpeg_can_be_decoded_smaller_and_says_so(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    file, asked = encoded(picture(88, 120), "JPEG", exif=exif, quality=95), []
    image = decoding.decode(file, "x", lambda *sides: asked.append(sides) or 4)
    whole = decoding.decode(file)
    assert asked == [(whole.height, whole.width)] and whole.info == {}
    assert image.info == {"reduction": 4, "full_size": asked[0]}
    assert np.abs(np.asarray(whole.resize(image.size, Image.Resampling.BOX), int) - np.asarray(image)).mean() < 2


def test_a_side_that_cannot_be_divided_is_rounded_up():
    for times in (2, 4, 8):
        image = decoding.decode(encoded(picture(90, 121), "JPEG"), "x", lambda *sides, times=times: times)
        assert image.size == (-(-121 // times), -(-90 // times)) and image.info["full_size"] == (90, 121)


def test_nothing_but_a_jpeg_is_decoded_smaller_and_a_file_cannot_say_it_was():
    from PIL import PngImagePlugin

    text = PngImagePlugin.PngInfo()
    text.add_text("reduction", "4")
    for reduction in ((), (lambda height, width: 8,)):
        image = decoding.decode(encoded(picture(), pnginfo=text), "x", *reduction)
        assert image.size == (32, 24) and image.info == {}
    assert decoding.decode(encoded(picture(), "JPEG"), "x", lambda height, width: 1).info == {}
