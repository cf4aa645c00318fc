"""A config's mistakes, told before anything is loaded or compiled."""

from jax_ssl.encoder import check_depth
from jax_ssl.errors import UserError
from jax_ssl.parts import find_module, make_backbone, without_name


def check(config, devices: int) -> None:
    """The mistakes that are cheap to see before anything is loaded or compiled. Raises UserError."""
    for key, value in dict(batch_size=config.batch_size, log_every=config.log_every, fsdp=config.mesh.fsdp).items():
        if value < 1:
            raise UserError(f"{key}={value} must be at least 1.")
    if config.batch_size % devices:
        raise UserError(
            f"batch_size={config.batch_size} is not divisible by the {devices} devices: "
            f"take {max(config.batch_size // devices, 1) * devices}."
        )
    micro, images = config.micro_batch, config.micro_batch or config.batch_size
    if "norm_groups" in config.model and images % config.model.norm_groups:
        raise UserError(f"model.norm_groups={config.model.norm_groups} does not divide {images} images at a time.")
    if micro and (micro < 0 or config.batch_size % micro or micro % devices):
        raise UserError(f"micro_batch={micro} must divide batch_size={config.batch_size} and fill {devices} devices.")
    if devices % config.mesh.fsdp:
        raise UserError(f"mesh.fsdp={config.mesh.fsdp} does not divide the {devices} devices.")
    if config.on_collapse not in ("warn", "stop"):
        raise UserError(f"on_collapse={config.on_collapse!r}: choose 'warn' or 'stop'.")
    model = find_module("models", config.model.name)
    check_size = getattr(model, "check", lambda size, **_: None)  # which a model of the user's own may leave out
    for size in {recipe["size"] for group in config.data.crops.values() for recipe in group} | {config.data.eval_size}:
        check_size(size, **without_name(config.model))
    find_module("methods", config.method.name)
    check_depth(make_backbone(config), config.feature_depth)
