"""Parts of an optimiser: decay masks, trust ratios, gradient clipping, and rules for parts of a network.

Transformer blocks are one stack: a leaf below a key `blocks` has one tensor per block along its leading axis, and each
of these tensors is treated on its own.
"""

import difflib

import jax
import jax.numpy as jnp
import optax

from jax_ssl.errors import UserError

# ---- names and norms of tensors


def keys_of(path):
    """["backbone", "embed", "kernel"] for a path of jax.tree_util."""
    return [str(getattr(key, "key", getattr(key, "name", getattr(key, "idx", key)))) for key in path]


def map_with_keys(function, *trees):
    """A tree of function(keys, leaf, ...), for the leaves of one or more trees of the same structure."""
    return jax.tree_util.tree_map_with_path(lambda path, *leaves: function(keys_of(path), *leaves), *trees)


def is_stacked(keys):
    """Whether the leaf has the tensors of all transformer blocks along its leading axis."""
    return "blocks" in keys[:-1]


def tensor_norm(x, keys):
    """Euclidean norm of a tensor, or of each tensor of a stack; fp32, in a shape that broadcasts against x."""
    axes = range(1 if is_stacked(keys) else 0, x.ndim)
    return jnp.sqrt(jnp.sum(jnp.square(x.astype(jnp.float32)), axis=tuple(axes), keepdims=True))


def decay_mask(params, which):
    """True for the leaves that weight decay (and LARS's trust ratio) applies to: a tree like `params`.

    which: "weights", all but biases, scales of norms and layers, and anything else with at most one axis (class and
    mask tokens have three axes, and decay, as in MAE and DINO). "kernels", as "weights" but without tokens and
    positions (BEiT, fine-tuning). "all" (MoCo v1 to v3, SimSiam, LARC).
    """

    def weights(keys, x):
        return keys[-1] not in ("bias", "scale", "gamma") and x.ndim - is_stacked(keys) > 1

    rules = {"all": lambda keys, x: True, "weights": weights, "kernels": lambda keys, x: keys[-1] == "kernel"}
    rule = pick(rules, which, "decay")
    return map_with_keys(rule, params)


# ---- gradient transformations


def add_decay(weight_decay, which):
    """Add weight_decay * parameter to the updates of the leaves in `decay_mask`."""
    return optax.add_decayed_weights(weight_decay, lambda params: decay_mask(params, which))


def trust_ratio(coefficient):
    """Scale each tensor's update to `coefficient` times the tensor's norm; unchanged if either norm is zero."""

    def scale(keys, g, p):
        p_norm, g_norm = tensor_norm(p, keys), tensor_norm(g, keys)
        ratio = coefficient * p_norm / jnp.where(g_norm > 0, g_norm, 1.0)
        return g * jnp.where((p_norm > 0) & (g_norm > 0), ratio, 1.0)

    return optax.stateless(lambda updates, params: map_with_keys(scale, updates, params))


def clip_each(limit, per):
    """Clip gradients whose norm is above `limit`: the norm of all, or of each part of the network on its own.

    per: "network"; "parameter", every tensor (DINO, iBOT); "module", every entry of `params`, such as the backbone and
    each head (DINOv2).
    """

    def clip(norm, g):
        return g * jnp.minimum(1.0, limit / (norm + 1e-6))

    def modules(updates, params):
        return {name: jax.tree.map(lambda g, tree=tree: clip(optax.tree.norm(tree), g), tree)
                for name, tree in updates.items()}  # fmt: skip

    kinds = {
        "network": optax.clip_by_global_norm(limit), "parameter": optax.stateless(lambda updates, params:
        map_with_keys(lambda k, g: clip(tensor_norm(g, k), g), updates)), "module": optax.stateless(modules),
    }
    return pick(kinds, per, "clip_per")


def mask_of(params, names, key):
    """True for the leaves under one of `names` ("backbone/embed"): a tree like `params`.

    key: of config.optim, which gives the names. Raises UserError for a name that no parameter has.
    """
    parts = {name: name.split("/") for name in names}
    leaves = jax.tree_util.tree_leaves_with_path(params)
    under = lambda keys, name: keys[: len(parts[name])] == parts[name]
    for name in names:
        switched_off = name in params and not jax.tree.leaves(params[name])  # a predictor without layers
        if not switched_off and not any(under(keys_of(path), name) for path, _ in leaves):
            raise UserError(f"config.optim.{key}={name!r} names no parameter; there are {', '.join(sorted(params))}.")
    return map_with_keys(lambda keys, _: any(under(keys, name) for name in names), params)


def update_only(names, key, change):
    """Replace updates by `change(update, parameter)` for the leaves under `names`; the others stay as they are."""

    def update(updates, params):
        mask = mask_of(params, names, key)
        return jax.tree.map(lambda inside, u, p: change(u, p) if inside else u, mask, updates, params)

    def init(params):
        mask_of(params, names, key)  # refuses an unknown name before the first step is compiled
        return optax.EmptyState()

    return optax.GradientTransformation(init, optax.stateless(update).update)


def to_unit_rows(update, parameter):
    """The update after which the rows of a parameter (K, D) have norm one (SwAV's prototypes)."""
    moved = parameter + update
    return moved / jnp.maximum(jnp.linalg.norm(moved, axis=-1, keepdims=True), 1e-12) - parameter


def layer_decay(rate):
    """Scale updates by rate ** (distance from the head): later layers learn faster.

    With L blocks: patch embedding, tokens and positions rate^(L + 1), block i rate^(L - i), final norm and head 1.
    Use it after the optimiser, so that weight decay is scaled too. Raises UserError for a network that is no
    transformer. He et al. 2022, Table 9; BEiT's layer-wise decay.
    """

    def update(updates, params):
        leaves = jax.tree_util.tree_leaves_with_path(updates)
        depth = next((len(x) for path, x in leaves if is_stacked(keys_of(path))), 0)
        if not depth:
            raise UserError("Layer decay needs a transformer: this network has no `blocks`; set layer decay to 1.")

        def scale(keys, g):
            if is_stacked(keys):
                powers = rate ** (depth - jnp.arange(depth, dtype=jnp.float32))
                return g * powers.reshape(depth, *[1] * (g.ndim - 1))
            at_the_end = keys[0] != "backbone" or any("norm" in key for key in keys)  # heads come after the last block
            return g if at_the_end else g * rate ** (depth + 1)

        return map_with_keys(scale, updates)

    return optax.stateless(update)


def start_after(transformation, steps):
    """`transformation`, which starts after `steps`: before that its updates are zero and its state does not change."""

    def init(params):
        return jnp.zeros((), jnp.int32), transformation.init(params)

    def update(updates, state, params=None):
        count, inner = state
        changes, after = transformation.update(updates, inner, params)
        started = count >= steps
        changes = jax.tree.map(lambda u: jnp.where(started, u, 0.0), changes)
        return changes, (count + 1, jax.tree.map(lambda new, old: jnp.where(started, new, old), after, inner))

    return optax.GradientTransformation(init, update)


def pick(options, name, key):
    """`options[name]`. Raises UserError, which lists the options of `config.optim.key`, for an unknown name."""
    if name in options:
        return options[name]
    near = difflib.get_close_matches(str(name), options, 1, 0.0)[0]
    known = ", ".join(options)
    raise UserError(f"config.optim.{key}={name!r} is unknown; did you mean {near!r}? Choose from: {known}.")
