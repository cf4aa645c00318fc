"""How official training checkpoints name what stands beside the backbone, for heads that our methods have too."""

from jax_ssl.weights.rules import Part, Rule, linear, same, transpose


def flat(x):
    """The center of a loss, (1, K), as (K,)."""
    return x.reshape(-1)


def batch_norm(pattern: str, target: str, part: str = "backbone", affine: bool = True) -> tuple[Rule, ...]:
    """The rules for scale, offset and running statistics of a batch norm of a part of the network."""
    stats = f"stats/batch_stats/{part}/{target}"
    scale = (
        Rule(rf"{pattern}\.weight", f"{part}/{target}/scale", same),
        Rule(rf"{pattern}\.bias", f"{part}/{target}/bias", same),
    )
    return (
        *(scale if affine else ()),
        Rule(rf"{pattern}\.running_mean", f"{stats}/mean", same),
        Rule(rf"{pattern}\.running_var", f"{stats}/var", same),
    )


def dino_head(name: str, target: str) -> Part:
    """facebookresearch/dino, vision_transformer.py, DINOHead: three linear layers, and prototypes with lengths."""
    layers = tuple(rule for i in range(3) for rule in linear(rf"{name}\.mlp\.{2 * i}", f"{target}/layers_{i}"))
    weight = rf"{name}\.last_layer\.(?:weight_{{}}|parametrizations\.weight\.original{{}})"
    prototypes = (
        Rule(weight.format("v", "1"), f"{target}/directions", same),
        Rule(weight.format("g", "0"), f"{target}/length", same),
    )
    return Part(rf"{name}\.mlp\.2\.weight", layers + prototypes)


def center(name: str, target: str) -> Part:
    return Part(name, (Rule(name, f"extra/{target}", flat),))


DINO_HEADS = (
    dino_head(r"(?:dino_)?head", "projector"),
    dino_head(r"ibot_head", "patch_projector"),
    center(r"(?:dino_loss|ibot_loss|loss)\.center", "center"),
    center(r"ibot_loss\.center2", "patch_center"),
)
# facebookresearch/moco, moco/builder.py: version 2's perceptron, and the keys, one a column.
MOCO = (
    Part(r"fc\.2\.weight", (*linear(r"fc\.0", "projector/Dense_0"), *linear(r"fc\.2", "projector/Dense_1"))),
    Part(r"queue", (Rule(r"queue", "extra/queue", transpose),)),
)
# facebookresearch/simsiam, simsiam/builder.py: no biases before a batch norm, none trained in the last layer.
SIMSIAM = (
    Part(
        r"fc\.6\.weight",
        (
            *(Rule(rf"fc\.{3 * i}\.weight", f"projector/Dense_{i}/kernel", transpose) for i in range(3)),
            *batch_norm(r"fc\.1", "BatchNorm_0", "projector"),
            *batch_norm(r"fc\.4", "BatchNorm_1", "projector"),
            *batch_norm(r"fc\.7", "BatchNorm_2", "projector", affine=False),
        ),
    ),
    Part(
        r"predictor\.3\.weight",
        (
            Rule(r"predictor\.0\.weight", "predictor/Dense_0/kernel", transpose),
            *batch_norm(r"predictor\.1", "BatchNorm_0", "predictor"),
            *linear(r"predictor\.3", "predictor/Dense_1"),
        ),
        without=r"predictor\.0\.bias",  # BYOL's
    ),
)
# facebookresearch/barlowtwins, main.py: no biases.
BARLOW_TWINS = (
    Part(
        r"projector\.6\.weight",
        (
            *(Rule(rf"projector\.{3 * i}\.weight", f"projector/Dense_{i}/kernel", transpose) for i in range(3)),
            *batch_norm(r"projector\.1", "BatchNorm_0", "projector"),
            *batch_norm(r"projector\.4", "BatchNorm_1", "projector"),
        ),
        without=r"projector\.0\.bias",  # VICReg's, which a batch norm takes out again, and its running mean holds
    ),
)
