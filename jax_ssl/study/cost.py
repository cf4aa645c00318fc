"""What the ruler evaluate/cost.py needs of a run: its probes, its seconds, and the FLOPs of its steps."""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np

from jax_ssl import paths
from jax_ssl.encoder import Encoder
from jax_ssl.errors import UserError
from jax_ssl.evaluate.cost import Training, count
from jax_ssl.plan import compile, flops
from jax_ssl.views.sizes import Size, sides


def flops_of_image(encode: Encoder, size: Size) -> float:
    """FLOPs of the forward pass of one image of this size."""
    image = jax.ShapeDtypeStruct((1, *sides(size), 3), jnp.float32)
    return flops.count(jax.make_jaxpr(encode.backbone.apply)(encode.variables, image))


def training_of(networks) -> Training:
    """What the run of these networks has spent, by its metrics.jsonl and goodput.json."""
    lines, settings = paths.json_lines(paths.resolve(networks.origin) / "metrics.jsonl"), networks.settings
    probes = [
        (line["step"], seconds, line["knn"])
        for line, seconds in zip(lines, seconds_up_to(lines)[1:], strict=True)
        if line.get("knn") is not None
    ]
    account = paths.resolve(networks.origin) / "goodput.json"
    repeated = json.loads(account.read_text())["seconds"]["repeated"] if account.exists() else 0.0
    step_flops = functools.partial(flops_of_step, settings)
    return Training(probes, settings.batch_size, step_flops, count(networks.arrays["params"]), repeated)


def seconds_up_to(lines: list[dict]) -> list[float]:
    """Seconds of training steps up to each line of metrics.jsonl, after a zero for the start.

    Of all steps and not of this call: an interrupted run was made by several calls.
    """
    counts = np.diff([0, *(line["step"] for line in lines)])
    each = [count * line.get("step_seconds", 0) for count, line in zip(counts, lines)]
    return [float(second) for second in np.cumsum([0, *each])]


def flops_of_step(settings) -> float | None:
    """FLOPs of a training step of a config; None where they can't be counted without its images."""
    settings = settings.copy_and_resolve_references()
    settings.mesh.fsdp = 1  # the devices of the run may have been more
    try:
        return flops.count(compile.trace(settings, jax.devices()[:1])[2].jaxpr)
    except UserError:
        return None
