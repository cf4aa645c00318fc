"""What the teacher says of one crop of an image, and what the student predicts of it from another crop.

Of thousands of prototypes, those with the teacher's highest probabilities are drawn.
Paper: Caron et al. 2021, DINO, https://arxiv.org/abs/2104.14294, Sec. 3.1
"""

import numpy as np

from jax_ssl.visualize import pictures

BESIDE = 2  # images in a row
INCHES = 1.0, 3.2, 1.5  # width of a crop and of the bars, height of a row


def draw(shown: dict[str, np.ndarray]) -> dict:
    """shown: `crops` (B, 2, S, S, 3); `prototypes` (B, K), numbers; `teacher`, `student` (B, K), their probabilities;
    `attention` (B, 1 + heads, S, S, 3) where the network has a class token.
    """
    drawn = {"targets": bars(*(np.asarray(shown[name]) for name in ("crops", "prototypes", "teacher", "student")))}
    if "attention" in shown:
        drawn["attention"] = pictures.grid(shown["attention"], rows=None, zoom_to=160)
    return drawn


def bars(crops, prototypes, teacher, student):
    """A figure: of each image the teacher's crop, the student's, and a pair of bars for each prototype."""
    from matplotlib.figure import Figure  # imported late: half a second

    crop, wide, high = INCHES
    rows = -(-len(crops) // BESIDE)
    figure = Figure(figsize=(BESIDE * (2 * crop + wide), high * rows + 0.4), layout="constrained")
    axes = figure.subplots(rows, 3 * BESIDE, width_ratios=[crop, crop, wide] * BESIDE, squeeze=False).reshape(-1, 3)
    for axis in axes[len(crops) :].ravel():
        axis.set_axis_off()
    places, most = np.arange(prototypes.shape[1]), max(teacher.max(), student.max())
    for row, (left, middle, right) in enumerate(axes[: len(crops)]):
        for axis, image, title in ((left, crops[row, 0], "teacher's crop"), (middle, crops[row, 1], "student's")):
            axis.imshow(image, interpolation="nearest")
            axis.set_title(title, fontsize=8)
            axis.set_axis_off()
        right.bar(places - 0.2, teacher[row], 0.4, color="tab:blue", label="teacher")
        right.bar(places + 0.2, student[row], 0.4, color="tab:orange", label="student")
        right.set_xticks(places, prototypes[row], fontsize=6)
        right.tick_params(axis="y", labelsize=6)
        right.set_ylim(0, most)
        right.spines[["top", "right"]].set_visible(False)
        shares = 100 * teacher[row].sum(), 100 * student[row].sum()
        right.set_title("together: teacher {:.0f} %, student {:.0f} %".format(*shares), fontsize=8)
    handles = axes[0, 2].get_legend_handles_labels()
    figure.legend(*handles, loc="outside lower center", ncols=2, frameon=False, fontsize=8,
                  title="probability of a prototype (its number below)", title_fontsize=8)  # fmt: skip
    return figure
