"""What an optimiser does to updates, tensor by tensor: decay masks, trust ratios, clips, rules for parts of a network.

Transformer blocks are one stack: a leaf below a key `blocks` holds one tensor per block along its leading axis, and
each of these tensors is treated as its own.
"""

import difflib

import jax
import jax.numpy as jnp
import optax

from jax_ssl.errors import UserError

# ---- which tensor is what


def keys_of(path):
    return [str(getattr(key, "key", getattr(key, "name", getattr(key, "idx", key)))) for key in path]


def map_named(function, *trees):
    """function(keys, leaf, ...) over the leaves of one or more trees of one shape."""
    return jax.tree_util.tree_map_with_path(lambda path, *leaves: function(keys_of(path), *leaves), *trees)


def stacked(keys):
    return "blocks" in keys[:-1]


def length(x, keys):
    """Euclidean length of a tensor, or of each tensor of a stack, shaped to broadcast against it."""
    axes = range(1 if stacked(keys) else 0, x.ndim)
    return jnp.sqrt(jnp.sum(jnp.square(x.astype(jnp.float32)), axis=tuple(axes), keepdims=True))


def decay_mask(params, which):
    """True for the leaves that weight decay (and LARS's trust ratio) applies to: a tree like `params`.

    which: "weights", not biases, scales of norms and layers, nor anything else of at most one axis (class and mask
    tokens have three, and decay, as in MAE and DINO). "kernels", not tokens and positions either (BEiT, fine-tuning).
    "all" (MoCo v1 to v3, SimSiam, LARC).
    """

    def weights(keys, x):
        return keys[-1] not in ("bias", "scale", "gamma") and x.ndim - stacked(keys) > 1

    rules = {"all": lambda keys, x: True, "weights": weights, "kernels": lambda keys, x: keys[-1] == "kernel"}
    rule = pick(rules, which, "decay")
    return map_named(rule, params)


# ---- gradient transformations


def add_decay(weight_decay, which):
    return optax.add_decayed_weights(weight_decay, lambda params: decay_mask(params, which))


def trust_ratio(coefficient):
    """Scale each tensor's update to `coefficient` times the tensor's length; unchanged if either length is zero."""

    def scale(keys, g, p):
        ours, theirs = length(p, keys), length(g, keys)
        usual = coefficient * ours / jnp.where(theirs > 0, theirs, 1.0)
        return g * jnp.where((ours > 0) & (theirs > 0), usual, 1.0)

    return optax.stateless(lambda updates, params: map_named(scale, updates, params))


def clip_each(limit, per):
    """Shorten gradients that are longer than `limit`: all as one, or each part of the network on its own.

    per: "network"; "parameter", every tensor (DINO, iBOT); "module", every entry of `params`, such as the backbone and
    each head (DINOv2).
    """

    def shorten(norm, g):
        return g * jnp.minimum(1.0, limit / (norm + 1e-6))

    def modules(updates, params):
        return {name: jax.tree.map(lambda g, tree=tree: shorten(optax.tree.norm(tree), g), tree)
                for name, tree in updates.items()}  # fmt: skip

    kinds = {
        "network": optax.clip_by_global_norm(limit),
        "parameter": optax.stateless(lambda updates, params: map_named(lambda k, g: shorten(length(g, k), g), updates)),
        "module": optax.stateless(modules),
    }
    return pick(kinds, per, "clip_per")


def named(params, names, key):
    """True for the leaves under one of `names` ("backbone/embed"). Raises UserError for a name that nothing has."""
    parts = {name: name.split("/") for name in names}
    leaves = jax.tree_util.tree_leaves_with_path(params)
    under = lambda keys, name: keys[: len(parts[name])] == parts[name]
    for name in names:
        switched_off = name in params and not jax.tree.leaves(params[name])  # a predictor without layers
        if not switched_off and not any(under(keys_of(path), name) for path, _ in leaves):
            raise UserError(f"config.optim.{key}={name!r} names no parameter; there are {', '.join(sorted(params))}.")
    return map_named(lambda keys, _: any(under(keys, name) for name in names), params)


def where_named(names, key, change):
    """`change(update, parameter)` for the leaves under `names`, the others as they are."""

    def update(updates, params):
        mask = named(params, names, key)
        return jax.tree.map(lambda named, u, p: change(u, p) if named else u, mask, updates, params)

    def init(params):
        named(params, names, key)  # a name that nothing has is told before the first step is compiled
        return optax.EmptyState()

    return optax.GradientTransformation(init, optax.stateless(update).update)


def to_unit_rows(update, parameter):
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
        depth = next((len(x) for path, x in leaves if stacked(keys_of(path))), 0)
        if not depth:
            raise UserError("Layer decay needs a transformer: this network has no `blocks`; set layer decay to 1.")

        def scale(keys, g):
            if stacked(keys):
                powers = rate ** (depth - jnp.arange(depth, dtype=jnp.float32))
                return g * powers.reshape(depth, *[1] * (g.ndim - 1))
            late = keys[0] != "backbone" or any("norm" in key for key in keys)  # heads come after the last block
            return g if late else g * rate ** (depth + 1)

        return map_named(scale, updates)

    return optax.stateless(update)


def wait(transformation, steps):
    """`transformation` that begins after `steps`: before, no update and no state, as if there were no gradient."""

    def init(params):
        return jnp.zeros((), jnp.int32), transformation.init(params)

    def update(updates, state, params=None):
        count, inner = state
        moved, after = transformation.update(updates, inner, params)
        begun = count >= steps
        moved = jax.tree.map(lambda u: jnp.where(begun, u, 0.0), moved)
        return moved, (count + 1, jax.tree.map(lambda new, old: jnp.where(begun, new, old), after, inner))

    return optax.GradientTransformation(init, update)


def pick(options, name, key):
    """`options[name]`, or an error that lists the options of `config.optim.key` and the nearest of them."""
    if name in options:
        return options[name]
    near = difflib.get_close_matches(str(name), options, 1, 0.0)[0]
    known = ", ".join(options)
    raise UserError(f"config.optim.{key}={name!r} is unknown; did you mean {near!r}? Choose from: {known}.")
