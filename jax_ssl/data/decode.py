"""Opens one image file defensively: whatever the bytes are, the answer is an RGB image or a `BrokenImage` saying why.

No TensorFlow: its `decode_image` allocates whatever size a header claims, so 190 kB of PNG can take half a gigabyte.
"""

import io
import warnings

import numpy as np
from PIL import Image

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF")
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
# Pillow warns of odd EXIF blocks; an image whose orientation can't be read is taken as it lies.
warnings.filterwarnings("ignore", message="Corrupt EXIF data|Truncated File Read", module="PIL")


class BrokenImage(Exception):
    """A record that is not a readable image: `name` says which, `reason` why."""

    def __init__(self, name: str, reason: str):
        super().__init__(f"{name}: {reason}")
        self.name, self.reason = name, reason


def decode(data: bytes, name: str = "image") -> Image.Image:
    """The bytes of a jpeg, png, webp, bmp or gif file (its first frame) -> an RGB image, upright, its pixels loaded.

    The size is read from the header and checked before any pixel is decoded. The extension of the file plays no part.
    """
    if not data:
        raise BrokenImage(name, "the file is empty")
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            width, height = image.size
            if width * height > PIXEL_LIMIT:
                raise BrokenImage(name, f"{width}x{height} is over {PIXEL_LIMIT // 10**6} megapixels")
            image.load()
            return _rgb(_upright(image))
    except BrokenImage:
        raise
    except Image.DecompressionBombError:
        raise BrokenImage(name, f"over {PIXEL_LIMIT // 10**6} megapixels") from None
    except Image.UnidentifiedImageError:
        raise BrokenImage(name, "not a jpeg, png, webp, bmp or gif image") from None
    except Exception as error:  # Pillow raises a dozen kinds for damaged files, from OSError to struct.error
        raise BrokenImage(name, f"{type(error).__name__}: {error}") from error


def _upright(image: Image.Image) -> Image.Image:
    """Applies the orientation that cameras note in EXIF."""
    try:
        orientation = image.getexif().get(0x0112, 1)
    except Exception:  # damaged EXIF is no reason to lose a good picture
        return image
    turn = UPRIGHT.get(orientation)
    return image if turn is None else image.transpose(turn)


def _rgb(image: Image.Image) -> Image.Image:
    """Any mode -> RGB. 16 bits lose the lower eight; what is transparent becomes white, a page."""
    if image.mode == "RGB" and not image.has_transparency_data:
        return image
    if image.mode.startswith("I"):  # 16-bit grey; Pillow's own conversion would clip at 255 instead of scaling
        grey = np.clip(np.asarray(image, np.int64) >> 8, 0, 255).astype(np.uint8)
        return Image.fromarray(grey).convert("RGB")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        page = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(page, image).convert("RGB")
    return image.convert("RGB")
