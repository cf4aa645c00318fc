"""The pictures of a run's folder as JPEGs inside the page."""

import base64
import io

import numpy as np
from PIL import Image
from scipy.ndimage import label

from jax_ssl.study.report.facts import Facts
from jax_ssl.study.report.html import Html, tag
from jax_ssl.study.report.sections import section

PICTURE_WIDTH = 1400  # pixels
BROAD = 700  # pixels of width from which a picture has many columns, and gets more of the page
PICTURES_BYTES = 1_500_000  # of all, before base64
QUALITIES = 88, 75, 60, 45  # of JPEGs, until they fit
LIGHT, DARK = (252, 252, 250), (22, 24, 27)  # the page in both schemes, page.css
INK = 29, 232  # a shade of its text in both
HEAT_MAPS = (
    "similarity", "query_key", "query_queue", "prediction", "cross_correlation", "covariance", "prototype", "targets",
)  # fmt: skip
CAPTIONS = {  # {beginning of a title: what a reader sees}, in the order of the page
    "views": "What the method is given: views of each image, as it was cut and coloured.",
    "local": "The small crops that the method is given of each image.",
    "reconstruction": "The image, what the network saw of it, and what it made of the rest.",
    "rotations": "Turned images with the answers of the network.",
    "puzzles": "Tiles in disorder, the network's answer, and the truth.",
    "candidates": "Patches, and what the network takes for the one that is hidden.",
    "colouring": "The grey image, its colours as the network sees them, and the true ones.",
    "holes": "What the network saw, what it painted into the hole, and the truth.",
    "blocks": "The image, the context that the network sees, and the blocks that it predicts the features of.",
    "hidden": "The views, with the patches that are hidden.",
    "similarity": "One view (rows) against the other (columns): a bright diagonal is an image that finds itself.",
    "query_key": "Queries (rows) against keys (columns): a bright diagonal is an image that finds itself.",
    "query_queue": "Queries (rows) against keys of older images in the queue (columns): no pattern is good.",
    "prediction": "Predictions (rows) against targets (columns): a bright diagonal is an image that finds itself.",
    "cross_correlation": "Features of one view against those of the other: training makes it the identity.",
    "covariance": "Covariance of the features: training makes it diagonal.",
    "prototype": "How images (rows) share the prototypes (columns).",
    "targets": "The teacher's targets of some images (rows) over prototypes (columns).",
    "attention": "Where the class token of the last block looks.",
    "pca": "Principal components of the features of patches, as colours.",
    "correspondences": "Nearest patches of two images.",
}


def pictures(facts: Facts) -> Html | None:
    """The pictures of the run's folder, as JPEGs that together fit into PICTURES_BYTES."""
    if not facts.pictures:
        return None
    titles = sorted(facts.pictures, key=lambda title: (place_of(title), title))
    opened = {title: in_both_schemes(title, facts.pictures[title].read_bytes()) for title in titles}
    for quality in QUALITIES:
        coded = {title: [jpeg(picture, quality) for picture in schemes] for title, schemes in opened.items()}
        if sum(len(data) for schemes in coded.values() for data in schemes) <= PICTURES_BYTES:
            break
    shown, total = [], 0
    for title, schemes in coded.items():
        total += sum(map(len, schemes))
        if total <= PICTURES_BYTES:
            shown.append(picture_figure(title, opened[title][0], *schemes))
    left_out = len(coded) - len(shown)
    note = tag("p", f"{left_out} more are in the folder {facts.folder.name}/pictures.") if left_out else None
    return section("pictures", "Pictures", tag("div", shown, class_="pictures"), note)


def place_of(title: str) -> int:
    """Where a title stands in CAPTIONS; after all of them if it is not there. `shown_` is the same picture, redrawn."""
    own = title.removeprefix("shown_")
    return next((place for place, name in enumerate(CAPTIONS) if own.startswith(name)), len(CAPTIONS))


def in_both_schemes(title: str, data: bytes) -> list[Image.Image]:
    """The picture, for a light and a dark page where it is a heat map: its paper and its ink are the page's."""
    if not title.removeprefix("shown_").startswith(HEAT_MAPS):
        return [small(data)]
    pixels = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
    return [small_of(Image.fromarray(on_paper(pixels, *scheme))) for scheme in zip((LIGHT, DARK), INK)]


def on_paper(pixels: np.ndarray, paper: tuple, ink: int) -> np.ndarray:
    """A figure, uint8 (H, W, 3), with another paper and ink. Both are the shades of grey that reach its edge."""
    grey = (pixels == pixels[..., :1]).all(-1)
    parts, _ = label(grey)
    edge = np.unique(np.concatenate([parts[0], parts[-1], parts[:, 0], parts[:, -1]]))
    outside = np.isin(parts, edge[edge > 0])[..., None]
    white = pixels / 255
    return np.where(outside, np.round(white * paper + (1 - white) * ink), pixels).astype(np.uint8)


def small(data: bytes) -> Image.Image:
    return small_of(Image.open(io.BytesIO(data)).convert("RGB"))


def small_of(picture: Image.Image) -> Image.Image:
    """A picture of at most PICTURE_WIDTH pixels."""
    if picture.width > PICTURE_WIDTH:
        picture = picture.resize((PICTURE_WIDTH, round(picture.height * PICTURE_WIDTH / picture.width)))
    return picture


def jpeg(picture: Image.Image, quality: int = 85) -> bytes:
    coded = io.BytesIO()
    picture.save(coded, "JPEG", quality=quality, optimize=True)
    return coded.getvalue()


def data_uri(coded: bytes) -> str:
    return f"data:image/jpeg;base64,{base64.b64encode(coded).decode()}"


def picture_figure(title: str, picture: Image.Image, coded: bytes, dark: bytes | None = None) -> Html:
    known = [*CAPTIONS.values(), ""][place_of(title)]
    name = title.replace("_", " ")
    image = tag("img", src=data_uri(coded), alt=f"{name}. {known}", width=picture.width, height=picture.height)
    if dark is not None:
        media = "screen and (prefers-color-scheme: dark)"
        image = tag("picture", tag("source", srcset=data_uri(dark), media=media), image)
    broad = picture.width > BROAD
    if broad:  # on a telephone it scrolls, as its titles could not be read
        image = tag("div", image, class_="scroll", tabindex="0", role="region", aria_label=f"Picture: {name}")
    caption = tag("figcaption", tag("strong", name), " ", tag("span", known))
    return tag("figure", caption, image, class_="broad" if broad else None)
