"""Opens one image file defensively: whatever the bytes are, the answer is an RGB image or a `BrokenImage` saying why.

No TensorFlow: its `decode_image` allocates whatever size a header claims, so 190 kB of PNG can take half a gigabyte.
"""

import io
import sys
import warnings

import numpy as np
from PIL import Image, features

from jax_ssl.data.about import printable

# Each format with the endings of its files. Pillow is not always built with the last two.
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
MAYBE = {"JPEG2000": "jpg_2000", "AVIF": "avif"}
FORMATS = tuple(kind for kind in ENDINGS if kind not in MAYBE or features.check(MAYBE[kind]))
EXTENSIONS = tuple(ending for kind in FORMATS for ending in ENDINGS[kind])
KINDS = "jpeg, png, webp, bmp, gif, tiff, jp2 or avif"
PIXEL_LIMIT = 100_000_000
UPRIGHT = {  # EXIF orientation -> what turns the picture upright
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# Pillow warns from 89 megapixels on; the limit here is stricter than its error and has its own message.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
# Pillow warns of odd EXIF blocks and tags; an image whose orientation can't be read is taken as it lies.
warnings.filterwarnings("ignore", message="Corrupt EXIF data|Truncated File Read|Metadata Warning", module="PIL")
DEPTHS = (8, 10, 12, 14, 16)  # bits of a sample that cameras and scanners give
OTHER_BYTES = {  # Pillow's names for samples of 16 bits -> the same with the lower byte in front
    "RGB;16B": "RGB;16L", "RGB;16L": "RGB;16B", "RGBA;16B": "RGBA;16L", "RGBA;16L": "RGBA;16B", "LA;16B": "RGBA",
    "RGB;16N": "RGB;16B" if sys.byteorder == "little" else "RGB;16L",
    "RGBA;16N": "RGBA;16B" if sys.byteorder == "little" else "RGBA;16L",
}  # fmt: skip
PNG, ASIDE = b"\x89PNG\r\n\x1a\n", (b"tEXt", b"zTXt", b"iTXt", b"iCCP")  # its chunks that hold no pixel


class BrokenImage(Exception):
    """A record that is not a readable image: `name` says which, `reason` why; any log can take them."""

    def __init__(self, name: str, reason: str):
        self.name, self.reason = printable(name), printable(reason)
        super().__init__(f"{self.name}: {self.reason}")


def decode(data: bytes, name: str = "image") -> Image.Image:
    """The bytes of a file of one of FORMATS (its first frame) -> an RGB image, upright, its pixels loaded.

    The size is read from the header and checked before any pixel is decoded. The extension of the file plays no part,
    nor does what is not pixels: a PNG whose text or colour profile is damaged or too long for Pillow is a good PNG.
    """
    if not data:
        raise BrokenImage(name, "the file is empty")
    try:
        return _decode(data, name)
    except BrokenImage:
        bare = _bare(data)
        if len(bare) == len(data):
            raise
    return _decode(bare, name)


def _decode(data: bytes, name: str) -> Image.Image:
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            width, height = image.size
            if width * height > PIXEL_LIMIT:
                raise BrokenImage(name, f"{width}x{height} is over {PIXEL_LIMIT // 10**6} megapixels")
            raw = _raw_mode(image)
            image.load()
            turn = _turn(image)  # asked afterwards: Pillow itself turns a TIFF while it loads
            upright = _with_low_bytes(image, raw, data) if raw in OTHER_BYTES else image
            return _rgb(upright if turn is None else upright.transpose(turn))
    except BrokenImage:
        raise
    except Image.DecompressionBombError:
        raise BrokenImage(name, f"over {PIXEL_LIMIT // 10**6} megapixels") from None
    except Image.UnidentifiedImageError:
        raise BrokenImage(name, f"not a {KINDS} image") from None
    except Exception as error:  # Pillow raises a dozen kinds for damaged files, from OSError to struct.error
        raise BrokenImage(name, f"{type(error).__name__}: {error}") from error


def _bare(data: bytes) -> bytes:
    """A PNG without what is not pixels; anything else as it is."""
    if not data.startswith(PNG):
        return data
    kept, position = [PNG], len(PNG)
    while position + 8 <= len(data):
        end = position + 12 + int.from_bytes(data[position : position + 4], "big")
        if data[position + 4 : position + 8] not in ASIDE:
            kept.append(data[position:end])
        position = end
    return b"".join(kept)


def _with_low_bytes(image: Image.Image, raw: str, data: bytes) -> Image.Image:
    """Colours of 16 bits, of which Pillow keeps the upper eight: scaled as `_shift` says if they use fewer.

    raw: the order of bytes that Pillow read. Who reads them in the other order gets the lower ones.
    """
    high = np.asarray(image)
    if high[..., :3].max() >= 1 << DEPTHS[-2] - 8:
        return image
    with Image.open(io.BytesIO(data), formats=FORMATS) as other:
        other.tile = [tile._replace(args=_replaced(tile.args, OTHER_BYTES[raw])) for tile in other.tile]
        low = np.asarray(other)
    low = low[..., [1, 1, 1, 3]] if raw == "LA;16B" else low
    whole = high.astype(np.int32) << 8 | low
    parts = [part >> _shift(int(part.max())) for part in (whole[..., :3], whole[..., 3:]) if part.size]
    return Image.fromarray(np.concatenate(parts, axis=-1).astype(np.uint8))


def _raw_mode(image: Image.Image) -> str:
    """How the samples lie in the file, in Pillow's words: the first argument of its decoder."""
    args = image.tile[0].args if image.tile else None
    return str(args if isinstance(args, str) else args[0] if args else "")


def _replaced(args, raw: str):
    return raw if isinstance(args, str) else (raw, *args[1:])


def _turn(image: Image.Image) -> Image.Transpose | None:
    """What turns the picture upright, by the orientation that cameras note in EXIF."""
    try:
        return UPRIGHT.get(image.getexif().get(0x0112, 1))
    except Exception:  # damaged EXIF is no reason to lose a good picture
        return None


def _rgb(image: Image.Image) -> Image.Image:
    """Any mode -> RGB. More than 8 bits are scaled as `_shift` says; what is transparent becomes white, a page."""
    if image.mode == "RGB" and not image.has_transparency_data:
        return image
    if image.mode.startswith("I"):  # grey of 16 bits or more; Pillow's own conversion would clip at 255
        grey = np.maximum(np.asarray(image, np.int64), 0)
        return Image.fromarray((grey >> _shift(int(grey.max()))).astype(np.uint8)).convert("RGB")
    if image.mode == "F":
        grey = np.nan_to_num(np.asarray(image), posinf=0, neginf=0)
        grey = np.maximum(grey, 0) * (255 if grey.max() <= 1 else 0.5 ** _shift(int(grey.max())))
        return Image.fromarray(np.minimum(grey, 255).astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        page = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(page, image).convert("RGB")
    return image.convert("RGB")


def _shift(largest: int) -> int:
    """By how many bits samples have to be lowered to take eight, if `largest` is the largest of an image.

    Files have room for 16 bits, and many hold the 10, 12 or 14 that a sensor gave, in the lowest places: the smallest
    of DEPTHS that holds all values is taken for what they are. (PNG's sBIT does not tell: it speaks of scaled values.)
    """
    bits = next((depth for depth in DEPTHS if largest < 1 << depth), largest.bit_length())
    return bits - 8
