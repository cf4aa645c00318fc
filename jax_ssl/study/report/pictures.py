"""The pictures of a run's folder as JPEGs inside the page."""

import base64
import io

from PIL import Image

from jax_ssl.study.report.facts import Facts
from jax_ssl.study.report.html import Html, tag
from jax_ssl.study.report.sections import section

PICTURE_WIDTH = 1400  # pixels
PICTURES_BYTES = 1_500_000  # of all, before base64
QUALITIES = 88, 75, 60, 45  # of JPEGs, until they fit
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
    opened = {title: small(facts.pictures[title].read_bytes()) for title in titles}
    for quality in QUALITIES:
        coded = {title: jpeg(picture, quality) for title, picture in opened.items()}
        if sum(map(len, coded.values())) <= PICTURES_BYTES:
            break
    shown, total = [], 0
    for title, data in coded.items():
        total += len(data)
        if total <= PICTURES_BYTES:
            shown.append(picture_figure(title, opened[title], data))
    left_out = len(coded) - len(shown)
    note = tag("p", f"{left_out} more are in the folder {facts.folder.name}/pictures.") if left_out else None
    return section("pictures", "Pictures", tag("div", shown, class_="pictures"), note)


def place_of(title: str) -> int:
    """Where a title stands in CAPTIONS; after all of them if it is not there. `shown_` is the same picture, redrawn."""
    own = title.removeprefix("shown_")
    return next((place for place, name in enumerate(CAPTIONS) if own.startswith(name)), len(CAPTIONS))


def small(data: bytes) -> Image.Image:
    picture = Image.open(io.BytesIO(data)).convert("RGB")
    if picture.width > PICTURE_WIDTH:
        picture = picture.resize((PICTURE_WIDTH, round(picture.height * PICTURE_WIDTH / picture.width)))
    return picture


def jpeg(picture: Image.Image, quality: int = 85) -> bytes:
    coded = io.BytesIO()
    picture.save(coded, "JPEG", quality=quality, optimize=True)
    return coded.getvalue()


def data_uri(coded: bytes) -> str:
    return f"data:image/jpeg;base64,{base64.b64encode(coded).decode()}"


def picture_figure(title: str, picture: Image.Image, coded: bytes) -> Html:
    known = [*CAPTIONS.values(), ""][place_of(title)]
    name = title.replace("_", " ")
    image = tag("img", src=data_uri(coded), alt=f"{name}. {known}", width=picture.width, height=picture.height)
    return tag("figure", tag("figcaption", tag("strong", name), " ", tag("span", known)), image)
