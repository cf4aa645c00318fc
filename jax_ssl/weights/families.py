"""The families of files that are known, by the names of `weights import --as=NAME`."""

from typing import NamedTuple

from jax_ssl.weights import clip, google_resnets, hugging_face, resnets, schemes
from jax_ssl.weights.rules import PLAIN, Scheme

SCHEMES = (  # the first one that fits is taken
    schemes.DINOV3, schemes.DINOV2_SWIGLU, schemes.DINOV2, schemes.SIMMIM, schemes.BEIT, schemes.IJEPA, schemes.TIMM,
    *hugging_face.SCHEMES, *clip.SCHEMES, *resnets.RESNETS, *google_resnets.GOOGLE_RESNETS,
)  # fmt: skip


class Family(NamedTuple):
    """Which schemes a method's files follow, and what they do not say: pixels, {width: heads}, more of the model."""

    schemes: tuple[Scheme, ...]
    pixels: dict | None = None
    heads: dict = {}
    model: dict = {}


AS_TIMM = tuple(
    scheme._replace(model=schemes.OF_TIMM | scheme.model)
    for scheme in (schemes.DINOV2_SWIGLU, schemes.DINOV2, schemes.TIMM)
)
VITS = (schemes.TIMM, hugging_face.VIT)
FAMILIES = {
    "barlow_twins": Family(resnets.RESNETS),
    "beit": Family((schemes.BEIT, hugging_face.BEIT)),
    "byol": Family((google_resnets.BYOL, *resnets.RESNETS)),
    "clip": Family(clip.SCHEMES),
    "dino": Family((*VITS, *resnets.RESNETS)),
    "dinov2": Family((schemes.DINOV2_SWIGLU, schemes.DINOV2, hugging_face.DINOV2)),
    "dinov3": Family((schemes.DINOV3, hugging_face.DINOV3_GATED, hugging_face.DINOV3)),
    "ibot": Family(VITS),
    "ijepa": Family((schemes.IJEPA, hugging_face.VIT)),
    "mae": Family(VITS),
    "moco": Family(resnets.RESNETS),
    "moco_v3": Family((*VITS, *resnets.RESNETS), heads={384: 12}),
    "open_clip": Family(clip.SCHEMES, model=dict(mlp="gelu")),
    "resnet": Family(resnets.RESNETS),
    "simclr": Family((google_resnets.SIMCLR, *resnets.RESNETS), pixels=PLAIN),
    "simmim": Family((schemes.SIMMIM,)),
    "simsiam": Family(resnets.RESNETS),
    "swav": Family(resnets.RESNETS),
    "timm": Family((*AS_TIMM[:2], schemes.BEIT, *AS_TIMM[2:], *resnets.RESNETS)),
    "vicreg": Family(resnets.RESNETS),
}
