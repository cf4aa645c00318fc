"""What `accelerator.py` times: the configs of its tasks, at their real size and at one for a CPU."""

import sys
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).parents[2]))  # on a bare machine the package is not installed

from jax_ssl import config as configs  # noqa: E402

configs.folder()  # makes jax_ssl.configs importable from a checkout
from jax_ssl.configs import common  # noqa: E402


class Task(NamedTuple):
    """One training step to be timed."""

    preset: str
    batch: int  # images; halved until it fits the memory
    size: int  # pixels of the views
    rival: bool = False  # PyTorch runs it as well
    vit: str = ""  # a vision transformer of this size in place of the preset's backbone
    plain: bool = False  # attention as matmuls and a softmax, whatever the platform's fused one is
    goal: float = 0.0  # images a second


# Two tasks are in memory at a time: one is timed, and the next one compiles.
TASKS = {
    "simclr_resnet18": Task("simclr:resnet18", 512, 32, rival=True, goal=10_000),
    "mae_vit_l": Task("mae", 256, 224, rival=True),
    "two_view_vit_s": Task("simclr", 256, 224, vit="S", goal=2_600),
    "dino_vit_s": Task("dino:vanilla", 256, 224),
    "mae_vit_b": Task("mae:base", 512, 224, rival=True),
    "mae_vit_l_plain": Task("mae", 256, 224, plain=True),
    "dino_vit_s_plain": Task("dino:vanilla", 256, 224, plain=True),
}
SMALL_BATCH = 8


def config_of(name: str, small: bool):
    """The task's config, its images in device memory. small: of a size that a CPU steps through in milliseconds."""
    task = TASKS[name]
    config = configs.load(task.preset).unlock()
    config.batch_size = SMALL_BATCH if small else task.batch
    config.data.augment = "device"
    config.data.name = f"synthetic:{48 if small and task.size > 32 else task.size if task.size == 32 else 256}"
    if task.vit:
        config.model = common.vit(task.vit)
        config.optim = common.optim("adamw", 1e-4, weight_decay=0.05)
    if task.plain:
        config.model.attention = "plain"
    if small:
        shrink(config)
    return config.lock()


def shrink(config) -> None:
    """A small network, small views and few prototypes, in place."""
    if config.model.name == "resnet":
        config.model.update(stages=(1,), width=0.25)
    else:
        config.model.update(width=32, depth=2, heads=2, patch=8)
    for group, size in (("views", 32), ("local", 16)):
        for recipe in config.data.crops.get(group, ()):
            recipe.update(size=size)
    for key, value in dict(decoder_width=16, decoder_depth=1, decoder_heads=2, prototypes=64, hidden=32,
                           bottleneck=16, chunks=1).items():  # fmt: skip
        if key in config.method:
            config.method[key] = value


def in_order(small: bool) -> list[str]:
    """The names of the tasks, what matters most first."""
    return ["simclr_resnet18", "mae_vit_l"] if small else list(TASKS)
