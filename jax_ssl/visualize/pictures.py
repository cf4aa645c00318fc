"""Pictures from arrays: grids of images, sheets with titles, heat maps, and the curves of a run."""

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from jax_ssl import paths
from jax_ssl.views.sizes import Size, sides

GAP = 2  # pixels between the images of a grid
TITLE = 24  # pixels above a column for its title
WIDE = 8  # columns of a sheet, at most, for cells of full size
CELL = 192, 96  # pixels, the largest and the smallest side of a cell
FRAME = 4  # pixels around an image that says whether an answer was right, in the colour of
RIGHT, WRONG = (0.0, 0.62, 0.45), (0.84, 0.37, 0.0)  # Okabe and Ito's green and vermilion: told apart by everybody
CURVES = ("loss", "knn", "linear", "feature_std", "rankme", "learning_rate")  # drawn in this order, if logged


def grid(images, mean=(0, 0, 0), std=(1, 1, 1), rows: int | None = 8, zoom_to: int = 96) -> Image.Image:
    """Images (R, C, H, W, 3), normalised with mean and std -> one picture of at most `rows` rows, None = all.

    Images smaller than `zoom_to` pixels are enlarged by a whole factor.
    """
    pixels = np.asarray(images[:rows], np.float32) * np.asarray(std) + np.asarray(mean)
    pixels = np.round(np.clip(pixels, 0, 1) * 255).astype(np.uint8)
    zoom = max(1, zoom_to // max(pixels.shape[2:4]))
    pixels = pixels.repeat(zoom, axis=2).repeat(zoom, axis=3)
    count, columns, height, width, _ = pixels.shape
    sheet = np.full((count * (height + GAP) - GAP, columns * (width + GAP) - GAP, 3), 255, np.uint8)
    for row in range(count):
        for column in range(columns):
            y, x = row * (height + GAP), column * (width + GAP)
            sheet[y : y + height, x : x + width] = pixels[row, column]
    return Image.fromarray(sheet)


def sheet(columns, titles) -> Image.Image:
    """One picture of columns, each float (R, H, W, 3) in [0, 1], with a title above each.

    Few columns with many rows are folded: every second row is put to the right of the row before it.
    """
    columns, titles = list(columns), list(titles)
    while 2 * len(columns) <= WIDE and len(columns[0]) > 2 and len(columns[0]) % 2 == 0:
        columns, titles = [column[half::2] for half in (0, 1) for column in columns], 2 * titles
    picture = grid(np.stack(columns, axis=1), rows=len(columns[0]), zoom_to=1)
    page = Image.new("RGB", (picture.width, picture.height + TITLE), "white")
    page.paste(picture, (0, TITLE))
    font, width = ImageFont.load_default(14), (picture.width + GAP) / len(titles)
    for column, title in enumerate(titles):
        middle = ((column + 0.5) * width - GAP / 2, TITLE / 2)
        ImageDraw.Draw(page).text(middle, title, fill="black", font=font, anchor="mm")
    return page


def stack(pictures: list[Image.Image]) -> Image.Image:
    """Pictures one below the other."""
    size = max(picture.width for picture in pictures), sum(picture.height for picture in pictures)
    page = Image.new("RGB", size, "white")
    for number, picture in enumerate(pictures):
        page.paste(picture, (0, sum(above.height for above in pictures[:number])))
    return page


def cell(columns: int) -> int:
    """The side of a cell, in pixels, in a sheet with this many columns."""
    return max(CELL[1], CELL[0] * WIDE // max(columns, WIDE))


def fit(images, size: Size, smooth: bool = False) -> np.ndarray:
    """Images (N, H, W, C) or maps (N, H, W) resized to (height, width) of `size`, float32.

    Images that grow to twice the size or more keep their pixels as squares, unless `smooth`; all others are
    interpolated.
    """
    images = np.asarray(images, np.float32)
    height, width = sides(size)
    how = Image.Resampling.BICUBIC if smooth or 2 * images.shape[1] > height else Image.Resampling.NEAREST
    planes = images[..., None] if images.ndim == 3 else images
    resized = [[Image.fromarray(plane).resize((width, height), how) for plane in np.moveaxis(image, -1, 0)]
               for image in planes]  # fmt: skip
    resized = np.stack([np.stack(image, axis=-1) for image in resized])
    return resized.reshape(len(images), height, width, *images.shape[3:])


def framed(images: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Images (N, S, S, 3) in a frame of the colour of right or wrong, (N,) bool."""
    colour = np.where(right[:, None, None, None], np.float32(RIGHT), np.float32(WRONG))
    inner = np.zeros(images.shape[1:3], bool)
    inner[FRAME:-FRAME, FRAME:-FRAME] = True
    return np.where(inner[None, :, :, None], images, colour)


def heat(maps) -> np.ndarray:
    """Maps (N, H, W) as colours, each from 0 to its maximum: float32 (N, H, W, 3) in [0, 1]."""
    from matplotlib import colormaps  # imported late, as below

    maps = np.asarray(maps, np.float32)
    return colormaps["inferno"](maps / maps.max((1, 2), keepdims=True))[..., :3].astype(np.float32)


def heat_map(values, title: str):
    """Values (H, W) as a figure: a heat map with a title and a colour scale."""
    figure, axes = _figure(1)
    elongated = max(np.shape(values)) > 4 * min(np.shape(values))  # 8 images by 128 prototypes would be a thin line
    aspect = "auto" if elongated else "equal"
    drawn = axes[0].imshow(np.asarray(values, np.float32), cmap="magma", interpolation="nearest", aspect=aspect)
    axes[0].set_title(title.replace("_", " "))
    figure.colorbar(drawn)
    return figure


def save_curves(metrics_file, path) -> None:
    """Draws metrics.jsonl: one panel for each of CURVES, and of a puzzle's numbers, that was logged, by the step."""
    lines = paths.json_lines(metrics_file)
    own = sorted({name for line in lines for name in line if name.startswith("pretext_")})
    found = [name for name in (*CURVES, *own) if sum(line.get(name) is not None for line in lines) > 1]
    if not found:
        return
    figure, axes = _figure(len(found))
    for axis, name in zip(axes, found):
        points = [(line["step"], line[name]) for line in lines if line.get(name) is not None]
        axis.plot(*zip(*points), color="tab:blue", marker="." if len(points) < 30 else "")
        uniform = [line["uniform_loss"] for line in lines if line.get("uniform_loss") is not None]
        if name == "loss" and uniform:
            axis.axhline(uniform[-1], color="grey", linestyle=":", label="output without information")
            axis.legend(frameon=False)
        axis.set_title(name.replace("_", " "))
        axis.set_xlabel("step")
        axis.spines[["top", "right"]].set_visible(False)
    paths.save_picture(figure, path)


def _figure(panels: int):
    from matplotlib.figure import Figure  # imported late: half a second that most commands do not need

    figure = Figure(figsize=(4.2 * panels, 3.4), layout="constrained")  # without pyplot, which has global state
    return figure, figure.subplots(1, panels, squeeze=False)[0]
