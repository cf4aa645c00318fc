"""How torchvision names a residual network, and how the same is named as a plain sequence of layers (lightly).

MoCo, SwAV, Barlow Twins, VICReg, SimSiam and conversions of SimCLR and BYOL keep torchvision's names behind a prefix.
"""

import re

from jax_ssl.weights.heads import BARLOW_TWINS, MOCO, SIMSIAM, batch_norm
from jax_ssl.weights.rules import Rule, Scheme, convolution


def rules_for(stem: tuple[str, str], stages: tuple[str, ...]):
    """The function from the names of a file to its rules.

    stem: the names of its convolution and of its norm; stages: theirs.
    """

    def rules(names) -> tuple[Rule, ...]:
        conv, norm = (re.escape(name) for name in stem)
        made = [Rule(rf"{conv}\.weight", "backbone/Conv_0/kernel", convolution), *batch_norm(norm, "BatchNorm_0")]
        count = 0
        for stage in stages:
            for block in range(blocks_of(names, stage)):
                place, there = re.escape(f"{stage}.{block}"), f"Block_{count}"
                depth = 3 if f"{stage}.{block}.conv3.weight" in names else 2
                shortcut = f"{stage}.{block}.downsample.0.weight" in names
                layers = [(rf"{place}\.conv{i + 1}", rf"{place}\.bn{i + 1}") for i in range(depth)]
                layers += [(rf"{place}\.downsample\.0", rf"{place}\.downsample\.1")] if shortcut else []
                for i, (conv, norm) in enumerate(layers):
                    made.append(Rule(rf"{conv}\.weight", f"backbone/{there}/Conv_{i}/kernel", convolution))
                    made += batch_norm(norm, f"{there}/BatchNorm_{i}")
                count += 1
        return tuple(made)

    return rules


def blocks_of(names, stage: str) -> int:
    """The number of blocks of a stage: one more than the largest number in these names, at most 99."""
    found = (re.match(rf"{re.escape(stage)}\.(\d{{1,2}})\.", name) for name in names)
    return max((int(match[1]) + 1 for match in found if match), default=0)


STAGES = ("layer1", "layer2", "layer3", "layer4")
TRACKED = r".*num_batches_tracked"
RESNET = Scheme(
    name="torchvision's ResNet",
    sign=r"layer1\.0\.conv1\.weight",
    rules=rules_for(("conv1", "bn1"), STAGES),
    parts=(*MOCO, *SIMSIAM, *BARLOW_TWINS),
    ignored=rf"{TRACKED}|(?:fc|head|projection_head|prototypes)\..*",
    kind="resnet",
)
SEQUENTIAL = RESNET._replace(
    name="a ResNet as a sequence of layers",
    parts=(),
    sign=r"4\.0\.conv1\.weight",
    rules=rules_for(("0", "1"), ("4", "5", "6", "7")),
)
RESNETS = (RESNET, SEQUENTIAL)
