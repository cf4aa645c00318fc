"""How Google's own code names a residual network: SimCLR's checkpoints of TensorFlow, and BYOL's trees of Haiku.

Both come as arrays in one .npz file, named with slashes as there, which find.py reads as dots. They pad as TensorFlow
does, by one side where there is one pixel too many, and torch's conversions of them do not.
"""

import itertools
import re

from jax_ssl.errors import UserError
from jax_ssl.weights.heads import flat
from jax_ssl.weights.rules import PLAIN, Part, Rule, Scheme, same

SCALES = (("gamma", "scale"), ("beta", "bias"))  # TensorFlow's names and ours
MOMENTS = (("moving_mean", "mean"), ("moving_variance", "var"))


def keras_norm(name: str, target: str, part: str, offset: bool = True) -> tuple[Rule, ...]:
    """The rules for a batch norm of TensorFlow; a last one of a head has no offset."""
    place, scales = re.escape(name), SCALES if offset else SCALES[:1]
    return (
        *(Rule(rf"{place}\.{theirs}", f"{part}/{target}/{ours}", same) for theirs, ours in scales),
        *(Rule(rf"{place}\.{theirs}", f"stats/batch_stats/{part}/{target}/{ours}", same) for theirs, ours in MOMENTS),
    )


def numbered(name: str, number: int) -> str:
    """How TensorFlow calls the layers of a kind, in the order in which they were made."""
    return f"{name}_{number}" if number else name


def simclr(tensors) -> tuple[Rule, ...]:
    """The rules for google-research/simclr, resnet.py, where a shortcut is made before its block. Raises UserError."""
    names = (f"{numbered('conv2d', i)}.kernel" for i in itertools.count())
    kernels = [tuple(tensors[name].shape[:2]) for name in itertools.takewhile(lambda n: n in tensors, names)]
    count, kernels = len(kernels), kernels + [()] * 3
    if kernels[1] != (1, 1):
        raise UserError("This network of SimCLR has selective kernels (sk1), which are not read: take one of sk0.")
    depth, place, block, made = 3 if kernels[2] == (1, 1) else 2, 1, 0, list(simclr_layer(0, "", 0))
    while place < count:
        shortcut = kernels[place] == (1, 1) and (depth == 2 or kernels[place + 1] == (1, 1))
        for layer in ([depth] if shortcut else []) + list(range(depth)):
            made += simclr_layer(place, f"Block_{block}/", layer)
            place += 1
        block += 1
    return tuple(made)


def simclr_layer(place: int, block: str, layer: int) -> tuple[Rule, ...]:
    """The rules for the convolution and the batch norm that were made at this place."""
    kernel = Rule(rf"{numbered('conv2d', place)}\.kernel", f"backbone/{block}Conv_{layer}/kernel", same)
    norm = keras_norm(numbered("batch_normalization", place), f"{block}BatchNorm_{layer}", "backbone")
    return kernel, *norm


def simclr_head(layers: int) -> Part:
    """A head of so many layers; the file's average of the network has another one, which is not taken for its own."""
    rules = []
    for i in range(layers):
        name = f"head_contrastive.nl_{i}"
        rules += [Rule(re.escape(f"{name}.dense.kernel"), f"projector/Dense_{i}/kernel", same)]
        rules += keras_norm(f"{name}.batch_normalization", f"BatchNorm_{i}", "projector", offset=i < layers - 1)
    last, next_one = (rf"head_contrastive\.nl_{i}\.dense\.kernel" for i in (layers - 1, layers))
    return Part(last, tuple(rules), without=rf"{next_one}|ema_model\..*")


def byol(tensors) -> tuple[Rule, ...]:
    """The rules for deepmind-research, byol/utils/networks.py, with the state beside the parameters."""
    made, count = [*haiku_layer("initial_conv", "initial_batchnorm", "", 0)], 0
    for group in range(4):
        places = (f"block_group_{group}.~.block_{block}.~" for block in itertools.count())
        for place in itertools.takewhile(lambda place: f"{place}.conv_0.w" in tensors, places):
            names = [(f"{place}.conv_{i}", f"{place}.batchnorm_{i}") for i in range(3)]
            names += [(f"{place}.shortcut_conv", f"{place}.shortcut_batchnorm")]
            for i, (conv, norm) in enumerate(pair for pair in names if f"{pair[0]}.w" in tensors):
                made += haiku_layer(conv, norm, f"Block_{count}/", i)
            count += 1
    return tuple(made)


def haiku_layer(conv: str, norm: str, block: str, layer: int) -> tuple[Rule, ...]:
    """The rules for a convolution and its batch norm, whose vectors have the axes of images."""
    conv, norm = re.escape(conv), re.escape(norm)
    there, stats = f"backbone/{block}BatchNorm_{layer}", f"stats/batch_stats/backbone/{block}BatchNorm_{layer}"
    return (
        Rule(rf"{conv}\.w", f"backbone/{block}Conv_{layer}/kernel", same),
        Rule(rf"{norm}\.scale", f"{there}/scale", flat),
        Rule(rf"{norm}\.offset", f"{there}/bias", flat),
        Rule(rf"{norm}\.~\.mean_ema\.average", f"{stats}/mean", flat),
        Rule(rf"{norm}\.~\.var_ema\.average", f"{stats}/var", flat),
    )


SIMCLR = Scheme(
    name="SimCLR's TensorFlow",
    sign=r"conv2d\.kernel",
    prefix=r"(?:.*\.)?base_model\.",
    rules=simclr,
    parts=(simclr_head(2), simclr_head(3)),
    ignored=r".*\.(?:Momentum|ExponentialMovingAverage)",
    kind="resnet",
    pixels=PLAIN,
    model=dict(padding="same_pool"),
)
BYOL = Scheme(
    name="BYOL's Haiku",
    sign=r"initial_conv\.w",
    rules=byol,
    ignored=r"logits\..*|.*\.(?:hidden|counter)",
    kind="resnet",
    model=dict(padding="same"),
)
GOOGLE_RESNETS = (SIMCLR, BYOL)
