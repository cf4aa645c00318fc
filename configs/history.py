"""Suites of `ablate` in which each method has the same network, images and seconds; see docs/history.md.

    python -m jax_ssl ablate --suite=history --workdir=runs/ablations
    python -m jax_ssl ablate --suite=longer --workdir=runs/ablations

CIFAR-10 rather than the 5 000 embedded images: in an hour each of these would come back two hundred times. Without it,
`--config.data.name=embedded` runs both suites all the same.
"""

from jax_ssl.configs import common
from jax_ssl.configs.suite import AT_THE_END, Cell, Suite

# All that is common to the methods: the transformer of ibot.py and dinov2.py, and one optimiser. A run is one epoch
# long until its speed is known, so that what is counted in epochs is a share of the run: a tenth of it is warm-up.
ONE_NETWORK = AT_THE_END | {
    "model": common.small_cpu_vit(patch=8, depth=3, pool="mean"),
    "batch_size": 128,
    "epochs": 1.0,
    "feature_depth": 0,
    "data.probe.test": 5000,
    "optim.name": "adamw",
    "optim.base_lr": 1e-3,
    "optim.scaling": "absolute",
    "optim.schedule": "cosine",
    "optim.warmup_epochs": 0.1,
    "optim.late_epochs": 0.02,
    "optim.weight_decay": 0.05,
    "optim.clip": 3.0,
    "optim.clip_per": "network",
}

CLASS_TOKEN = {"model.pool": "cls"}  # these methods need one, and are read there
OWN_TOKENIZER = {"method.tokenizer": ""}  # it is trained in the same seconds

V1_VIEWS = {f"data.crops.views[0].{key}": value for key, value in dict(
    grey_first=True, jitter=(0.4, 0.4, 0.4, 0.4), jitter_probability=1.0).items()}  # fmt: skip


def from_year(year: int, config: str, overrides: dict | None = None) -> Cell:
    """A method of that year, on CIFAR-10."""
    return Cell(overrides or {}, config=f"{config}:cifar", x=year)


history = Suite(
    title="2016 to 2023 in three minutes each",
    claim="The same network, images and seconds for every method: what each of them learns in three minutes.",
    source="papers: docs/citations.md",
    config="simclr:cifar",
    cells={  # in the order in which they are run; table and chart are in the order of years
        "raw pixels": Cell({}, baseline="pixels"),
        "untrained": Cell({}, baseline="untrained"),
        "SimCLR": from_year(2020, "simclr"),
        "DINO": from_year(2021, "dino"),
        "MAE": from_year(2022, "mae", CLASS_TOKEN),
        "RotNet": from_year(2018, "rotnet"),
        "BYOL": from_year(2020, "byol"),
        "MoCo v2": from_year(2020, "moco"),
        "Colorization": from_year(2016, "colorization"),
        "Context Encoder": from_year(2016, "context_encoder"),
        "Jigsaw": from_year(2016, "jigsaw"),
        "CPC v2": from_year(2019, "cpc"),
        "I-JEPA": from_year(2023, "ijepa"),
        "DINOv2": from_year(2023, "dinov2", CLASS_TOKEN),
        "iBOT": from_year(2022, "ibot", CLASS_TOKEN),
        "SwAV": from_year(2020, "swav"),
        "SimSiam": from_year(2021, "simsiam"),
        "Barlow Twins": from_year(2021, "barlow_twins"),
        "VICReg": from_year(2022, "vicreg"),
        "BEiT": from_year(2022, "beit", OWN_TOKENIZER),
        "SimMIM": from_year(2022, "simmim"),
        "MoCo v1": from_year(2020, "moco", V1_VIEWS | {"method.projector": (128,), "method.temperature": 0.07}),
        "MoCo v3": from_year(2021, "moco_v3"),
        "CPC v1": Cell({}, config="cpc:cifar_v1", x=2018),
    },
    axis="year",
    numbers=("knn", "linear", "finetune", "weights", "images", "tflop", "seconds"),
    budget="180 seconds of training steps, and about two minutes to compile and to measure",
    overrides=ONE_NETWORK,
    seconds=180.0,
    chart="years",
    caption="Three minutes of a core show how soon a method learns something, not how far it gets.",
)

longer = Suite(
    title="What an hour does",
    claim="After three minutes of the suite `history` these three still learn; an hour of each shows how far.",
    source="Chen et al. 2020, SimCLR; Caron et al. 2021, DINO; He et al. 2022, MAE",
    config="simclr:cifar",
    cells={"SimCLR": Cell({}), "DINO": Cell({}, config="dino:cifar"), "MAE": Cell(CLASS_TOKEN, config="mae:cifar")},
    axis="minutes of training steps",
    numbers=("knn", "linear", "finetune", "weights", "images", "tflop", "seconds"),
    budget="an hour of training steps, and about ten minutes to measure",
    overrides=ONE_NETWORK,
    seconds=3600.0,
    probes=20,
    chart="curves",
    caption="Curves are of the student while it trains; the table is of the better of student and teacher at the end. "
    "Minutes are by the speed that was timed before; seconds are those that the run took.",
)
