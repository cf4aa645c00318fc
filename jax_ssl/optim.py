"""Optimisers and schedules, from paper units (epochs, learning rate per 256 images) to optax. All of it in fp32.

Transformer blocks are one stack: a leaf below a key `blocks` holds one tensor per block along its leading axis. Norms,
trust ratios, clips and decay masks treat each of these tensors as its own.
"""

import difflib
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from jax_ssl.errors import UserError


class Clock(NamedTuple):
    """How long the run is. Built once, from the number of images and the batch size."""

    steps_per_epoch: float
    total_steps: int


# ---- schedules, functions of the step: learning rates, weight decay, temperatures and EMA momenta


def _warm_up(peak, schedule, clock, epochs, first=0.0):
    """Linear from `first` over the first `epochs`, which may be fractional, and `schedule` from then on."""
    steps = epochs * clock.steps_per_epoch if epochs else 0.0
    return lambda step: jnp.where(step < steps, first + (peak - first) * step / max(steps, 1.0), schedule(step))


def constant(value, clock=None, warmup_epochs=0.0):
    """Always `value`, after a linear warm-up from zero."""
    return _warm_up(value, lambda step: jnp.float32(value), clock, warmup_epochs)


def cosine(start, end, clock, warmup_epochs=0.0, first=0.0):
    """From `start` to `end` along half a cosine that spans what is left after a linear warm-up from `first`."""
    warmup = warmup_epochs * clock.steps_per_epoch

    def schedule(step):
        fraction = jnp.clip((step - warmup) / max(clock.total_steps - warmup, 1.0), 0.0, 1.0)
        return end + (start - end) * (1 + jnp.cos(jnp.pi * fraction)) / 2

    return _warm_up(start, schedule, clock, warmup_epochs, first)


def linear(start, end, clock, stretch=1.0):
    """From `start` straight to `end`. A `stretch` above one ends the run on the way (V-JEPA's EMA: 1.25)."""
    return lambda step: start + (end - start) * jnp.clip(step / (stretch * clock.total_steps), 0.0, 1.0)


def teacher_momentum(start, clock):
    """From `start` to 1 along a cosine (BYOL, MoCo v3, DINO); 0 stays 0, a teacher that is the student."""
    return cosine(start, 1.0, clock) if start else constant(0.0)


def step(start, milestones, clock, warmup_epochs=0.0, factor=0.1):
    """`start`, times `factor` at every milestone (in epochs from the beginning), after a linear warm-up."""
    at = jnp.array([epoch * clock.steps_per_epoch for epoch in milestones], jnp.float32)
    return _warm_up(start, lambda step: start * factor ** jnp.sum(step >= at), clock, warmup_epochs)


def peak_lr(base_lr, batch_size, scaling):
    """The learning rate of a run from the paper's base rate, by one of the papers' scaling rules."""
    rules = {
        "linear_256": batch_size / 256,  # MoCo v3, SimSiam, BYOL, Barlow Twins, VICReg, SimCLR, MAE, DINO, iBOT
        "linear_512": batch_size / 512,  # SimMIM
        "sqrt_1024": (batch_size / 1024) ** 0.5,  # DINOv2
        "four_sqrt_1024": 4 * (batch_size / 1024) ** 0.5,  # DINOv3
        "sqrt": batch_size**0.5,  # SimCLR's option
        "absolute": 1.0,  # MoCo, BEiT, I-JEPA, V-JEPA, SwAV, CLIP
    }
    return base_lr * _pick(rules, scaling, "scaling")


def learning_rate(config, batch_size, clock):
    """The schedule of the learning rate that `config` (the `optim` part of a config) describes, all by its scaling."""
    rates = config.base_lr, config.warmup_lr, config.final_lr
    peak, first, last = (peak_lr(rate, batch_size, config.scaling) for rate in rates)
    schedules = {
        "cosine": lambda: cosine(peak, last, clock, config.warmup_epochs, first),
        "step": lambda: step(peak, config.milestones, clock, config.warmup_epochs),
        "constant": lambda: constant(peak, clock, config.warmup_epochs),
    }
    return _pick(schedules, config.schedule, "schedule")()


# ---- which tensor is what


def _keys(path):
    return [str(getattr(key, "key", getattr(key, "name", getattr(key, "idx", key)))) for key in path]


def _map(function, *trees):
    """function(keys, leaf, ...) over the leaves of one or more trees of one shape."""
    return jax.tree_util.tree_map_with_path(lambda path, *leaves: function(_keys(path), *leaves), *trees)


def _stacked(keys):
    return "blocks" in keys[:-1]


def _norm(x, keys):
    """Euclidean length of a tensor, or of each tensor of a stack, shaped to broadcast against it."""
    axes = range(1 if _stacked(keys) else 0, x.ndim)
    return jnp.sqrt(jnp.sum(jnp.square(x.astype(jnp.float32)), axis=tuple(axes), keepdims=True))


def decay_mask(params, which):
    """True for the leaves that weight decay (and LARS's trust ratio) applies to: a tree like `params`.

    which: "weights", not biases, scales of norms and layers, nor anything else of at most one axis (class and mask
    tokens have three, and decay, as in MAE and DINO). "kernels", not tokens and positions either (BEiT, fine-tuning).
    "all" (MoCo v1 to v3, SimSiam, LARC).
    """

    def weights(keys, x):
        return keys[-1] not in ("bias", "scale", "gamma") and x.ndim - _stacked(keys) > 1

    rules = {"all": lambda keys, x: True, "weights": weights, "kernels": lambda keys, x: keys[-1] == "kernel"}
    rule = _pick(rules, which, "decay")
    return _map(rule, params)


# ---- gradient transformations


def _add_decay(weight_decay, which):
    return optax.add_decayed_weights(weight_decay, lambda params: decay_mask(params, which))


def _trust_ratio(coefficient):
    """Scale each tensor's update to `coefficient` times the tensor's length; unchanged if either length is zero."""

    def scale(keys, g, p):
        ours, theirs = _norm(p, keys), _norm(g, keys)
        usual = coefficient * ours / jnp.where(theirs > 0, theirs, 1.0)
        return g * jnp.where((ours > 0) & (theirs > 0), usual, 1.0)

    return optax.stateless(lambda updates, params: _map(scale, updates, params))


def clip_per_parameter(limit):
    """Shorten every tensor's gradient to length `limit` on its own, not the whole gradient (DINO, iBOT)."""
    shorten = lambda keys, g: g * jnp.minimum(1.0, limit / (_norm(g, keys) + 1e-6))
    return optax.stateless(lambda updates, params: _map(shorten, updates))


def _named(params, names, key):
    """True for the leaves under one of `names` ("backbone/embed"). Raises UserError for a name that nothing has."""
    parts = {name: name.split("/") for name in names}
    leaves = jax.tree_util.tree_leaves_with_path(params)
    under = lambda keys, name: keys[: len(parts[name])] == parts[name]
    for name in names:
        switched_off = name in params and not jax.tree.leaves(params[name])  # a predictor without layers
        if not switched_off and not any(under(_keys(path), name) for path, _ in leaves):
            raise UserError(f"config.optim.{key}={name!r} names no parameter; there are {', '.join(sorted(params))}.")
    return _map(lambda keys, _: any(under(keys, name) for name in names), params)


def _where_named(names, key, change):
    """`change(update, parameter)` for the leaves under `names`, the others as they are."""

    def update(updates, params):
        mask = _named(params, names, key)
        return jax.tree.map(lambda named, u, p: change(u, p) if named else u, mask, updates, params)

    def init(params):
        _named(params, names, key)  # a name that nothing has is told before the first step is compiled
        return optax.EmptyState()

    return optax.GradientTransformation(init, optax.stateless(update).update)


def _to_unit_rows(update, parameter):
    """The update after which the rows of a parameter (K, D) have length one (SwAV's prototypes)."""
    moved = parameter + update
    return moved / jnp.maximum(jnp.linalg.norm(moved, axis=-1, keepdims=True), 1e-12) - parameter


def layer_decay(rate):
    """Scale updates by rate ** (distance from the head): the blocks' stack by a vector along its leading axis.

    With L blocks: patch embedding, tokens and positions rate^(L + 1), block i rate^(L - i), final norm and head one.
    Goes behind the optimiser, so that it scales weight decay too. He et al. 2022, Table 9; BEiT's layer-wise decay.
    """

    def update(updates, params):
        leaves = jax.tree_util.tree_leaves_with_path(updates)
        depth = next((len(x) for path, x in leaves if _stacked(_keys(path))), 0)
        if not depth:
            raise UserError("Layer decay needs a transformer: this network has no `blocks`; set layer decay to 1.")

        def scale(keys, g):
            if _stacked(keys):
                powers = rate ** (depth - jnp.arange(depth, dtype=jnp.float32))
                return g * powers.reshape(depth, *[1] * (g.ndim - 1))
            late = any("norm" in key or "head" in key for key in keys)
            return g if late else g * rate ** (depth + 1)

        return _map(scale, updates)

    return optax.stateless(update)


# ---- optimisers


def lars(
    learning_rate, weight_decay=0.0, momentum=0.9, trust_coefficient=0.001, momentum_kind="popular", decay="weights"
):
    """SGD with momentum whose step, tensor by tensor, is a fixed fraction of the tensor's length.

    momentum_kind: "popular" multiplies by the learning rate after the momentum (BYOL, MoCo v3, Barlow Twins, VICReg,
    MAE's probe), "classic" before (SimCLR); they differ once the rate changes. decay: see `decay_mask`; leaves outside
    it have neither weight decay nor trust ratio. You et al. 2017, https://arxiv.org/abs/1708.03888, Algorithm 1.
    """
    adapt = optax.masked(_trust_ratio(trust_coefficient), lambda params: decay_mask(params, decay))
    rate, trace = optax.scale_by_learning_rate(learning_rate), optax.trace(momentum)
    order = _pick({"popular": (trace, rate), "classic": (rate, trace)}, momentum_kind, "lars_momentum")
    return optax.chain(_add_decay(weight_decay, decay), adapt, *order)


def larc(learning_rate, weight_decay=0.0, momentum=0.9, trust_coefficient=0.001, decay="all"):
    """LARS as SwAV and SimSiam's probe take it from apex (`LARC`, clip off): on every tensor, biases too.

    The trust ratio is taken before weight decay joins; a tensor that is zero, or has no gradient, is neither scaled
    nor decayed. weight_decay: a number, not a schedule.
    """

    def adapt(keys, g, p, decayed):
        ours, theirs, wd = _norm(p, keys), _norm(g, keys), weight_decay * decayed
        ratio = trust_coefficient * ours / (theirs + wd * ours + 1e-8)
        return jnp.where((ours > 0) & (theirs > 0), ratio * (g + wd * p), g)

    scale = optax.stateless(lambda updates, params: _map(adapt, updates, params, decay_mask(params, decay)))
    return optax.chain(scale, optax.trace(momentum), optax.scale_by_learning_rate(learning_rate))


def sgd(learning_rate, weight_decay=0.0, momentum=0.9, nesterov=False, decay="weights"):
    """Momentum SGD as in PyTorch: weight decay joins the gradient, the learning rate comes after the momentum."""
    trace = optax.trace(momentum, nesterov)
    return optax.chain(_add_decay(weight_decay, decay), trace, optax.scale_by_learning_rate(learning_rate))


def adamw(learning_rate, weight_decay=0.0, b1=0.9, b2=0.999, mu_dtype="float32", decay="weights"):
    """Adam with decoupled weight decay. mu_dtype "bfloat16" halves the first moment; the second stays fp32."""
    types = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}
    adam = optax.scale_by_adam(b1, b2, mu_dtype=_pick(types, mu_dtype, "mu_dtype"))
    return optax.chain(adam, _add_decay(weight_decay, decay), optax.scale_by_learning_rate(learning_rate))


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
    return _pick(optimisers, config.name, "name")()


def make(config, batch_size, clock) -> optax.GradientTransformation:
    """The optimiser that `config` (the `optim` part of a config) describes: its steps in the order they are taken."""
    rate, weight_decay = learning_rate(config, batch_size, clock), config.weight_decay
    if config.final_weight_decay >= 0:
        weight_decay = cosine(config.weight_decay, config.final_weight_decay, clock)
    decay_mask({}, config.decay)  # a misspelt rule is refused here and not when the parameters exist
    optimiser = _optimiser(config, rate, weight_decay)
    if config.constant_rate:
        steady = _optimiser(config, peak_lr(config.base_lr, batch_size, config.scaling), weight_decay)
        label = lambda params: _named(params, config.constant_rate, "constant_rate")
        optimiser = optax.partition({True: steady, False: optimiser}, label)
    clip = clip_per_parameter if config.clip_per_parameter else optax.clip_by_global_norm
    steps = [clip(config.clip), optimiser] if config.clip else [optimiser]
    if config.vector_rate != 1.0:
        others = lambda params: jax.tree.map(lambda weight: not weight, decay_mask(params, "weights"))
        steps.append(optax.masked(optax.scale(config.vector_rate), others))
    if config.frozen:  # at both ends: neither in the norm that is clipped, nor moved by weight decay
        freeze = _where_named(config.frozen, "frozen", lambda update, parameter: jnp.zeros_like(update))
        steps = [freeze, *steps, freeze]
    if config.unit_rows:
        steps.append(_where_named(config.unit_rows, "unit_rows", _to_unit_rows))
    return optax.chain(*steps) if len(steps) > 1 else steps[0]


def _pick(options, name, key):
    """`options[name]`, or an error that lists the options of `config.optim.key` and the nearest of them."""
    if name in options:
        return options[name]
    near = difflib.get_close_matches(str(name), options, 1, 0.0)[0]
    known = ", ".join(options)
    raise UserError(f"config.optim.{key}={name!r} is unknown; did you mean {near!r}? Choose from: {known}.")
