"""What the folder of a run says: its config, numbers, results, log and pictures, read once."""

import json
import re
from typing import NamedTuple

from etils import epath

from jax_ssl import config, paths
from jax_ssl.errors import UserError
from jax_ssl.run import results

STARTED = "started.json"  # how the run was started, by `record_start`
LOG_LINE = re.compile(r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\S*  (.*)$")
INTRODUCED = ("method", "data", "measured", "length", "optimiser", "devices")  # lines that introduce a run in its log
PICTURE = re.compile(r"(.+)_(\d{7})\.png")
NAMES = {
    "simclr": "SimCLR", "moco": "MoCo", "moco_v3": "MoCo v3", "byol": "BYOL", "simsiam": "SimSiam", "vicreg": "VICReg",
    "barlow_twins": "Barlow Twins", "swav": "SwAV", "dino": "DINO", "dinov2": "DINOv2", "ibot": "iBOT", "mae": "MAE",
    "simmim": "SimMIM", "beit": "BEiT", "dvae": "dVAE", "ijepa": "I-JEPA", "rotnet": "RotNet", "jigsaw": "Jigsaw",
    "cpc": "CPC", "colorization": "Colorization", "context_encoder": "Context Encoder",
}  # fmt: skip


class Facts(NamedTuple):
    """The folder of a run. All but the config may be empty."""

    folder: epath.Path
    config: dict  # as in config.json
    metrics: list[dict]  # of each logged step
    results: list[dict]  # records of results.jsonl
    data: dict  # data.json: the training images
    account: dict[str, float]  # seconds by kind, of goodput.json
    log: list[str]  # the lines of log.txt, without their times
    pictures: dict[str, epath.Path]  # the newest of each title
    started: dict  # command, versions, hardware; empty for a run of an older version

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def method(self) -> str:
        """The method as its paper spells it."""
        own = self.config["method"]["name"]
        return NAMES.get(own, own)

    @property
    def step(self) -> int:
        return int(self.metrics[-1]["step"]) if self.metrics else 0

    @property
    def introduction(self) -> dict[str, str]:
        """{method, data, ...: the sentence of the log}, of the last attempt."""
        found = {}
        for line in self.log:
            name, _, fact = line.partition(" ")
            if name in INTRODUCED and len(name) < 11:
                found[name] = fact.strip()
        return {name: found[name] for name in INTRODUCED if name in found}

    @property
    def class_names(self) -> list[str]:
        return [str(name) for name in self.data.get("class_names") or ()]

    def series(self, name: str) -> list[tuple[float, float]]:
        """[(step, value)] of a metric, where it was logged and finite."""
        return [(line["step"], line[name]) for line in self.metrics
                if isinstance(line.get(name), int | float) and "step" in line]  # fmt: skip


def read(folder) -> Facts:
    """The Facts of a run. Raises UserError if there is no run."""
    config.of_run(folder)  # raises where there is none
    root = paths.resolve(folder)
    text = (root / "log.txt").read_bytes().decode(errors="replace") if (root / "log.txt").exists() else ""
    return Facts(
        folder=root, config=json.loads((root / "config.json").read_text()), metrics=paths.json_lines(root /
        "metrics.jsonl"), results=results.read_results(root), data=of_json(root / "data.json"),
        account=of_json(root / "goodput.json").get("seconds", {}), log=lines_of(text),
        pictures=newest_pictures(root / "pictures"), started=of_json(root / STARTED),
    )  # fmt: skip


def lines_of(log: str) -> list[str]:
    """The lines of log.txt without their times; a line without a time goes on from the one before it."""
    return [match[1] if (match := LOG_LINE.match(line)) else line for line in log.splitlines()]


def of_json(path: epath.Path) -> dict:
    """The object of a JSON file; {} where it is missing or incomplete."""
    try:
        found = json.loads(path.read_text())
    except (FileNotFoundError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def newest_pictures(folder: epath.Path) -> dict[str, epath.Path]:
    """{title: file}, sorted: of those drawn at several steps the newest. Without the curves: the page has its own."""
    newest, found = {}, {}
    for path in sorted(folder.glob("*.png")) if folder.exists() else ():
        match = PICTURE.fullmatch(path.name)
        title, step = (match[1], int(match[2])) if match else (path.name.removesuffix(".png"), -1)
        if title != "curves" and step >= newest.get(title, -1):
            newest[title], found[title] = step, path
    return found


def record_start(workdir, command: str, versions: dict, hardware: str) -> None:
    """Notes how a run was started, in the folder of the run; an earlier note stays."""
    file = paths.resolve(workdir) / STARTED
    if not file.exists():
        noted = dict(command=command, versions=versions, hardware=hardware)
        paths.write(file, json.dumps(noted, indent=1) + "\n")


# ---- the config beside its preset


class Difference(NamedTuple):
    """A shipped preset, and {key: (its value, the run's)} where they differ; None = the other one has no such key."""

    preset: str
    changed: dict[str, tuple]


def nearest_preset(stored: dict) -> Difference | None:
    """The shipped preset of the same method with the fewest different keys; None for a method of the user's own."""
    own, best = flat(stored), None
    for spec in presets_of(stored["method"]["name"]):
        there = flat(config.to_dict(config.load(spec)))
        changed = {key: (there.get(key), own.get(key)) for key in sorted(there.keys() | own.keys())
                   if there.get(key) != own.get(key) and not (key in there and key not in own)}  # fmt: skip
        if best is None or len(changed) < len(best.changed):
            best = Difference(spec, changed)
    return best


def presets_of(method: str) -> list[str]:
    """`simclr`, `simclr:cifar`, ...: all shipped configs of a method; the quickstart is one of SimCLR."""
    file = config.folder() / f"{method}.py"
    if not method.isidentifier() or not file.exists():
        return []
    try:
        config.load(f"{method}:_")
    except UserError as error:  # it names them all
        names = re.findall(r"\w+", str(error).rpartition("choose one of ")[2])
    return [f"{method}:{name}" for name in names] + ["quickstart"] * (method == "simclr")


def flat(tree, prefix: str = "") -> dict:
    """{"a": {"b": [{"c": 1}]}} -> {"a.b[0].c": 1}; a list of plain values is one value."""
    if isinstance(tree, dict):
        items = [(f"{prefix}.{key}" if prefix else str(key), value) for key, value in tree.items()]
    elif isinstance(tree, list) and any(isinstance(item, dict) for item in tree):
        items = [(f"{prefix}[{place}]", value) for place, value in enumerate(tree)]
    else:
        return {prefix: tree}
    return {key: value for name, item in items for key, value in flat(item, name).items()}
