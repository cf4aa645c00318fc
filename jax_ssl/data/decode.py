"""Decodes one image file safely: any bytes give an RGB image, or raise `BrokenImage` with the reason.

Pillow instead of TensorFlow, whose `decode_image` allocates the size that a header claims: half a gigabyte for a PNG
of 190 kB.
"""

import io
import sys
import warnings

import numpy as np
from PIL import Image, features

from jax_ssl.data.about import printable

# The file extensions of each format. Pillow is not always built with the last two formats.
ENDINGS = {
    "JPEG": (".jpeg", ".jpg", ".jpe", ".jfif"),
    "PNG": (".png",),
    "WEBP": (".webp",),
    "BMP": (".bmp",),
    "GIF": (".gif",),
    "TIFF": (".tif", ".tiff"),
    "JPEG2000": (".jp2",),
    "AVIF": (".avif",),
}
OPTIONAL = {"JPEG2000": "jpg_2000", "AVIF": "avif"}
FORMATS = tuple(kind for kind in ENDINGS if kind not in OPTIONAL or features.check(OPTIONAL[kind]))
EXTENSIONS = tuple(ending for kind in FORMATS for ending in ENDINGS[kind])
KINDS = "jpeg, png, webp, bmp, gif, tiff, jp2 or avif"
PIXEL_LIMIT = 100_000_000  # pixels; larger images are refused
TRANSPOSES = {  # EXIF orientation -> the transpose that makes the image upright
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# Pillow warns above 89 megapixels and refuses above 178. PIXEL_LIMIT replaces both.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
# Pillow warns of damaged EXIF data. An image whose orientation can't be read is not rotated.
warnings.filterwarnings("ignore", message="Corrupt EXIF data|Truncated File Read|Metadata Warning", module="PIL")
DEPTHS = (8, 10, 12, 14, 16)  # bits per sample of cameras and scanners
SWAPPED_MODES = {  # Pillow's raw mode of 16-bit samples -> the raw mode that reads the lower byte of each
    "RGB;16B": "RGB;16L", "RGB;16L": "RGB;16B", "RGBA;16B": "RGBA;16L", "RGBA;16L": "RGBA;16B", "LA;16B": "RGBA",
    "RGB;16N": "RGB;16B" if sys.byteorder == "little" else "RGB;16L",
    "RGBA;16N": "RGBA;16B" if sys.byteorder == "little" else "RGBA;16L",
}  # fmt: skip
PNG, METADATA_CHUNKS = b"\x89PNG\r\n\x1a\n", (b"tEXt", b"zTXt", b"iTXt", b"iCCP")  # text and colour profiles of a PNG


class BrokenImage(Exception):
    """An image that can't be read. name: which one; reason: why; both are printable in any log."""

    def __init__(self, name: str, reason: str):
        self.name, self.reason = printable(name), printable(reason)
        super().__init__(f"{self.name}: {self.reason}")


def decode(data: bytes, name: str = "image") -> Image.Image:
    """The bytes of an image file -> its first frame as an upright RGB image, with its pixels loaded.

    The format is one of FORMATS, whatever the file extension says. The size is read from the header and checked before
    any pixel is decoded. A PNG whose text or colour profile is damaged or too long for Pillow is read without these.
    Raises BrokenImage, with `name`, for everything else.
    """
    if not data:
        raise BrokenImage(name, "the file is empty")
    try:
        return _decode(data, name)
    except BrokenImage:
        pixels_only = _without_metadata(data)
        if len(pixels_only) == len(data):
            raise
    return _decode(pixels_only, name)


def _decode(data: bytes, name: str) -> Image.Image:
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            width, height = image.size
            if width * height > PIXEL_LIMIT:
                raise BrokenImage(name, f"{width}x{height} is over {PIXEL_LIMIT // 10**6} megapixels")
            raw = _raw_mode(image)
            image.load()
            transpose = _upright_transpose(image)  # after load(), because Pillow itself rotates a TIFF there
            upright = _from_16_bits(image, raw, data) if raw in SWAPPED_MODES else image
            return _rgb(upright if transpose is None else upright.transpose(transpose))
    except BrokenImage:
        raise
    except Image.DecompressionBombError:
        raise BrokenImage(name, f"over {PIXEL_LIMIT // 10**6} megapixels") from None
    except Image.UnidentifiedImageError:
        raise BrokenImage(name, f"not a {KINDS} image") from None
    except Exception as error:  # Pillow raises many types for damaged files, from OSError to struct.error
        raise BrokenImage(name, f"{type(error).__name__}: {error}") from error


def _without_metadata(data: bytes) -> bytes:
    """The bytes of a PNG without METADATA_CHUNKS; the bytes of any other file unchanged."""
    if not data.startswith(PNG):
        return data
    kept, position = [PNG], len(PNG)
    while position + 8 <= len(data):
        end = position + 12 + int.from_bytes(data[position : position + 4], "big")
        if data[position + 4 : position + 8] not in METADATA_CHUNKS:
            kept.append(data[position:end])
        position = end
    return b"".join(kept)


def _from_16_bits(image: Image.Image, raw: str, data: bytes) -> Image.Image:
    """An image with colours of 16 bits, scaled to 8 as `_surplus_bits` says. Pillow alone keeps the upper byte only.

    image: as Pillow read it, with the upper bytes. raw: its raw mode. data: the file; it is read again in the swapped
    raw mode, for the lower bytes.
    """
    high = np.asarray(image)
    if high[..., :3].max() >= 1 << DEPTHS[-2] - 8:
        return image
    with Image.open(io.BytesIO(data), formats=FORMATS) as other:
        other.tile = [tile._replace(args=_with_raw_mode(tile.args, SWAPPED_MODES[raw])) for tile in other.tile]
        low = np.asarray(other)
    low = low[..., [1, 1, 1, 3]] if raw == "LA;16B" else low
    whole = high.astype(np.int32) << 8 | low
    parts = [part >> _surplus_bits(int(part.max())) for part in (whole[..., :3], whole[..., 3:]) if part.size]
    return Image.fromarray(np.concatenate(parts, axis=-1).astype(np.uint8))


def _raw_mode(image: Image.Image) -> str:
    """Pillow's name for the layout of the samples in the file: the first argument of its decoder."""
    args = image.tile[0].args if image.tile else None
    return str(args if isinstance(args, str) else args[0] if args else "")


def _with_raw_mode(args, raw: str):
    return raw if isinstance(args, str) else (raw, *args[1:])


def _upright_transpose(image: Image.Image) -> Image.Transpose | None:
    """The transpose that makes the image upright, from its EXIF orientation; None if it is upright or unknown."""
    try:
        return TRANSPOSES.get(image.getexif().get(0x0112, 1))
    except Exception:  # damaged EXIF data does not make the pixels unreadable
        return None


def _rgb(image: Image.Image) -> Image.Image:
    """Any mode -> RGB. Samples of more than 8 bits are scaled as `_surplus_bits` says; transparent becomes white."""
    if image.mode == "RGB" and not image.has_transparency_data:
        return image
    if image.mode.startswith("I"):  # grey of 16 bits or more; Pillow's own conversion would clip at 255
        grey = np.maximum(np.asarray(image, np.int64), 0)
        return Image.fromarray((grey >> _surplus_bits(int(grey.max()))).astype(np.uint8)).convert("RGB")
    if image.mode == "F":
        grey = np.nan_to_num(np.asarray(image), posinf=0, neginf=0)
        grey = np.maximum(grey, 0) * (255 if grey.max() <= 1 else 0.5 ** _surplus_bits(int(grey.max())))
        return Image.fromarray(np.minimum(grey, 255).astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        page = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(page, image).convert("RGB")
    return image.convert("RGB")


def _surplus_bits(largest: int) -> int:
    """By how many bits to shift samples right to get 8 bits, if `largest` is the largest sample of the image.

    A 16-bit file often holds the 10, 12 or 14 bits of a sensor, unscaled. So the smallest of DEPTHS that holds all
    values is used. (PNG's sBIT chunk does not help: it is about scaled values.)
    """
    bits = next((depth for depth in DEPTHS if largest < 1 << depth), largest.bit_length())
    return bits - 8
