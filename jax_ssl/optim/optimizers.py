"""Optimisers, from paper units (epochs, learning rate per 256 images) to optax. All of it in fp32."""

import math

import jax
import jax.numpy as jnp
import optax

from jax_ssl import bounds
from jax_ssl.errors import UserError
from jax_ssl.optim import schedules
from jax_ssl.optim.updates import (
    add_decay,
    clip_each,
    decay_mask,
    layer_decay,
    map_with_keys,
    mask_of,
    pick,
    start_after,
    tensor_norm,
    to_unit_rows,
    trust_ratio,
    update_only,
)


def peak_lr(base_lr, batch_size, scaling):
    """The peak learning rate, from the paper's base rate and one of the papers' scaling rules. Raises UserError."""
    rules = {
        "linear_256": batch_size / 256,  # MoCo v3, SimSiam, BYOL, Barlow Twins, VICReg, SimCLR, MAE, DINO, iBOT
        "linear_512": batch_size / 512,  # SimMIM
        "sqrt_1024": (batch_size / 1024) ** 0.5,  # DINOv2
        "four_sqrt_1024": 4 * (batch_size / 1024) ** 0.5,  # DINOv3
        "sqrt": batch_size**0.5,  # SimCLR's option
        "absolute": 1.0,  # MoCo, BEiT, I-JEPA, V-JEPA, SwAV, CLIP
    }
    return base_lr * pick(rules, scaling, "scaling")


def learning_rate(config, batch_size, clock):
    """The learning rate as a function of the step. config: the `optim` part of a config. Raises UserError."""
    rates = config.base_lr, config.warmup_lr, config.final_lr
    peak, first, last = (peak_lr(rate, batch_size, config.scaling) for rate in rates)
    kinds = {
        "cosine": lambda: schedules.cosine(peak, last, clock, config.warmup_epochs, first),
        "step": lambda: schedules.step(peak, config.milestones, clock, config.warmup_epochs, first),
        "constant": lambda: schedules.constant(peak, clock, config.warmup_epochs, first),
    }
    return pick(kinds, config.schedule, "schedule")()


def lars(
    learning_rate, weight_decay=0.0, momentum=0.9, trust_coefficient=0.001, momentum_kind="popular", decay="weights"
):
    """SGD with momentum; the size of each tensor's step is a fixed fraction of that tensor's norm.

    momentum_kind: "popular" multiplies by the learning rate after the momentum (BYOL, MoCo v3, Barlow Twins, VICReg,
    MAE's probe), "classic" before (SimCLR); they differ once the rate changes. decay: see `decay_mask`; leaves outside
    it have neither weight decay nor trust ratio. You et al. 2017, https://arxiv.org/abs/1708.03888, Algorithm 1.
    """
    adapt = optax.masked(trust_ratio(trust_coefficient), lambda params: decay_mask(params, decay))
    rate, trace = optax.scale_by_learning_rate(learning_rate), optax.trace(momentum)
    order = pick({"popular": (trace, rate), "classic": (rate, trace)}, momentum_kind, "lars_momentum")
    return optax.chain(add_decay(weight_decay, decay), adapt, *order)


def larc(learning_rate, weight_decay=0.0, momentum=0.9, trust_coefficient=0.001, decay="all"):
    """LARS as in apex (`LARC`, clip off), which SwAV and SimSiam's probe use: on every tensor, biases too.

    The trust ratio uses the gradient before weight decay is added. A tensor whose norm or gradient is zero is neither
    scaled nor decayed. weight_decay: a number, not a schedule.
    """

    def adapt(keys, g, p, decayed):
        p_norm, g_norm, wd = tensor_norm(p, keys), tensor_norm(g, keys), weight_decay * decayed
        ratio = trust_coefficient * p_norm / (g_norm + wd * p_norm + 1e-8)
        return jnp.where((p_norm > 0) & (g_norm > 0), ratio * (g + wd * p), g)

    scale = optax.stateless(lambda updates, params: map_with_keys(adapt, updates, params, decay_mask(params, decay)))
    return optax.chain(scale, optax.trace(momentum), optax.scale_by_learning_rate(learning_rate))


def sgd(learning_rate, weight_decay=0.0, momentum=0.9, nesterov=False, decay="weights"):
    """Momentum SGD as in PyTorch: weight decay is added to the gradient, the learning rate follows the momentum."""
    trace = optax.trace(momentum, nesterov)
    return optax.chain(add_decay(weight_decay, decay), trace, optax.scale_by_learning_rate(learning_rate))


def adamw(learning_rate, weight_decay=0.0, b1=0.9, b2=0.999, mu_dtype="float32", decay="weights"):
    """Adam with decoupled weight decay. mu_dtype "bfloat16" halves the memory of the first moment."""
    types = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}
    adam = optax.scale_by_adam(b1, b2, mu_dtype=pick(types, mu_dtype, "mu_dtype"))
    return optax.chain(adam, add_decay(weight_decay, decay), optax.scale_by_learning_rate(learning_rate))


def _optimiser(config, rate, weight_decay):
    """sgd, adamw, lars or larc with the settings of `config`."""
    common = {"weight_decay": weight_decay, "decay": config.decay}
    heavy = {"momentum": config.momentum, **common}
    adapted = {"trust_coefficient": config.trust_coefficient, **heavy}
    optimisers = {
        "sgd": lambda: sgd(rate, nesterov=config.nesterov, **heavy),
        "adamw": lambda: adamw(rate, b1=config.b1, b2=config.b2, mu_dtype=config.mu_dtype, **common),
        "lars": lambda: lars(rate, momentum_kind=config.lars_momentum, **adapted),
        "larc": lambda: larc(rate, **adapted),
    }
    return pick(optimisers, config.name, "name")()


def _optimiser_with_parts(config, batch_size, clock, rate, weight_decay):
    """The optimiser, with separate ones for the parameters under `config.constant_rate` and `config.late`.

    Late parameters do not change in the first `late_epochs`. Without `late_moments` their moments do not change either
    (DINO sets their gradients to None); with it only their learning rate is zero (DINOv2).
    """
    steps = math.ceil(config.late_epochs * clock.steps_per_epoch)
    # A late part counts its own steps from zero, so its schedules are shifted to the step of the run.
    shifted = lambda schedule: (lambda count: schedule(count + steps)) if callable(schedule) else schedule
    constant = peak_lr(config.base_lr, batch_size, config.scaling)
    parts = {
        "late": lambda: start_after(_optimiser(config, shifted(rate), shifted(weight_decay)), steps),
        "constant_rate": lambda: _optimiser(config, constant, weight_decay),
    }
    own = [key for key in parts if config[key] and not (key == "late" and config.late_moments)]
    usual = _optimiser(config, rate, weight_decay)
    if own:
        first = lambda *masks: next((key for key, inside in zip(own, masks) if inside), "usual")
        label = lambda params: jax.tree.map(first, *(mask_of(params, config[key], key) for key in own))
        usual = optax.partition({"usual": usual, **{key: parts[key]() for key in own}}, label)
    if config.late and config.late_moments:
        started = optax.scale_by_schedule(lambda count: jnp.where(count >= steps, 1.0, 0.0))
        usual = optax.chain(usual, optax.masked(started, lambda params: mask_of(params, config.late, "late")))
    return usual


def check(config) -> None:
    """Raises UserError for numbers of `config` (the `optim` part of a config) that are out of bounds."""
    some = lambda *names: {name: config[name] for name in names}
    bounds.bounded("optim.", some("base_lr", "trust_coefficient"), above=0)
    bounds.bounded("optim.", some("warmup_lr", "final_lr", "weight_decay", "clip"), at_least=0)
    bounds.bounded("optim.", some("embed_rate", "vector_rate"), at_least=0)
    bounds.bounded("optim.", some("warmup_epochs", "late_epochs", "milestones"), at_least=0)
    bounds.bounded("optim.", some("b1", "b2", "momentum"), at_least=0, below=1)
    bounds.bounded("optim.", some("layer_decay"), above=0, at_most=1)
    if config.final_weight_decay != -1:
        bounds.bounded("optim.", some("final_weight_decay"), at_least=0)
        if config.name == "larc":
            raise UserError("optim.name=larc keeps one weight decay to the end: set optim.final_weight_decay to -1.")
    if list(config.milestones) != sorted(config.milestones):
        raise UserError(f"optim.milestones={bounds.as_written(config.milestones)} must rise from first to last.")


def curves(config, batch_size, clock) -> dict:
    """{name: function of the step} of what an optimiser changes over a run: learning rate and weight decay."""
    return {"learning_rate": learning_rate(config, batch_size, clock), "weight_decay": decay(config, clock)}


def lengths(config, clock) -> dict[str, float]:
    """{config key: steps} of the phases that should end before the run does, such as the warm-up."""
    epochs = {"optim.warmup_epochs": config.warmup_epochs}
    epochs |= {"optim.late_epochs": config.late_epochs} if config.late else {}
    epochs |= {"optim.milestones": max(config.milestones, default=0)} if config.schedule == "step" else {}
    return {key: count * clock.steps_per_epoch for key, count in epochs.items()}


def decay(config, clock):
    """The schedule of the weight decay."""
    if config.final_weight_decay == -1:
        return schedules.constant(config.weight_decay)
    return schedules.cosine(config.weight_decay, config.final_weight_decay, clock)


def make(config, batch_size, clock) -> optax.GradientTransformation:
    """The optimiser that `config` (the `optim` part of a config) describes. Raises UserError for a wrong value."""
    check(config)
    rate = learning_rate(config, batch_size, clock)
    # A constant weight decay stays a number, because larc takes no schedule.
    weight_decay = config.weight_decay if config.final_weight_decay == -1 else decay(config, clock)
    decay_mask({}, config.decay)  # a misspelt rule is refused here and not when the parameters exist
    optimiser = _optimiser_with_parts(config, batch_size, clock, rate, weight_decay)
    clip = [clip_each(config.clip, config.clip_per)] if config.clip else []
    steps = [*clip, optimiser]
    if config.vector_rate != 1.0:
        others = lambda params: jax.tree.map(lambda weight: not weight, decay_mask(params, "weights"))
        steps.append(optax.masked(optax.scale(config.vector_rate), others))
    if config.layer_decay != 1.0:
        steps.append(layer_decay(config.layer_decay))
    if config.embed_rate != 1.0:
        embedding = lambda params: mask_of(params, ("backbone/embed",), "embed_rate")
        steps.append(optax.masked(optax.scale(config.embed_rate), embedding))
    if config.frozen:  # first and last: not part of the norm that is clipped, and not changed by weight decay
        freeze = update_only(config.frozen, "frozen", lambda update, parameter: jnp.zeros_like(update))
        steps = [freeze, *steps, freeze]
    if config.unit_rows:
        steps.append(update_only(config.unit_rows, "unit_rows", to_unit_rows))
    return optax.chain(*steps) if len(steps) > 1 else steps[0]
