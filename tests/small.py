"""Each method at a size that compiles in seconds. A new method adds its row to SMALL."""

from jax_ssl import config
from jax_ssl.study import seals

METHODS = seals.methods()
RESNET = ["--config.model.width=0.125"]
VIT = ["--config.model.width=32", "--config.model.depth=2", "--config.model.heads=2", "--config.model.patch=8"]
HEAD = ["--config.method.prototypes=24", "--config.method.hidden=32", "--config.method.bottleneck=16"]
SMALL = {  # overrides of the tiny preset
    "simclr": [*RESNET, "--config.method.projector=(32,16)"],
    "moco": [*RESNET, "--config.method.projector=(32,16)", "--config.method.queue=64", "--config.model.norm_groups=4"],
    "moco_v3": [*RESNET, "--config.method.projector=(32,16)", "--config.method.predictor=(32,16)"],
    "byol": [*RESNET, "--config.method.projector=(32,16)", "--config.method.predictor=(32,16)"],
    "simsiam": [*RESNET, "--config.method.projector=(32,32)", "--config.method.predictor=(16,32)"],
    "barlow_twins": [*RESNET, "--config.method.projector=(32,32)"],
    "vicreg": [*RESNET, "--config.method.projector=(32,32)"],
    "swav": [*RESNET, "--config.method.projector=(32,16)", "--config.method.prototypes=24",
             "--config.method.queue=64", "--config.method.queue_from_epoch=0.0", "--config.method.freeze_steps=1"],
    "dino": [*VIT, *HEAD, "--config.method.chunks=2"],
    "ibot": [*VIT, *HEAD, "--config.method.shared_head=False"],
    "dinov2": [*VIT, *HEAD, "--config.method.patch_prototypes=20", "--config.method.chunks=2",
               "--config.method.koleo_images=8"],
    "ijepa": [*VIT, *(f"--config.method.predictor_{key}" for key in ("width=16", "depth=1", "heads=2"))],
    "mae": [*VIT, *(f"--config.method.decoder_{key}" for key in ("width=16", "depth=1", "heads=2"))],
    "simmim": [*VIT, "--config.method.mask_cell=16"],
    "beit": [*VIT, "--config.method.beside.width=16", "--config.method.beside.vocabulary=24"],
    "jigsaw": [*RESNET, *(f"--config.method.{key}" for key in (
        "permutations=6", "permutations_per_image=2", "embedding=8", "hidden=16", "dropout=0.2"))],
    "cpc": [*RESNET, *(f"--config.method.{key}" for key in ("context_width=16", "context_depth=1", "target_width=8"))],
    "rotnet": RESNET,
    "colorization": [*RESNET, "--config.method.decoder=(8,)", "--config.method.rebalance=1.0"],
    "context_encoder": [*RESNET, "--config.method.painter=(8,)", "--config.method.critic=(4,8)"],
    "dvae": ["--config.model.width=16", "--config.model.vocabulary=24"],
}  # fmt: skip


def overrides(name, *more):
    """The flags that make the tiny preset of a method small."""
    return ["--config.batch_size=32", *SMALL[name], *more]


def shallow(name):
    """A flag for tests that are not about the network: of a ResNet's two stages it leaves one, half to compile.

    SimCLR keeps both, so that each such test sees a shortcut with weights and a stride. Barlow Twins does, as with one
    its second step changes by 1.04e-5 with the order of sums.
    """
    keeps = name in ("simclr", "barlow_twins") or RESNET[0] not in SMALL[name]
    return [] if keeps else ["--config.model.stages=(1,)"]


def small(name, *more):
    """The config itself."""
    return config.load(f"{name}:tiny", overrides(name, *more))
