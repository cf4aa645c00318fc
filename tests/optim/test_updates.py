import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jax_ssl.errors import UserError
from jax_ssl.optim import optimizers, updates

# ---- which leaf is what


def vit_like():
    block = {"mlp": {"kernel": 3, "bias": 2}, "norm1": {"scale": 2, "bias": 2}, "gamma1": 2}
    return {
        "backbone": {
            "embed": {"kernel": jnp.ones((4, 5)), "bias": jnp.ones(5)},
            "cls_token": jnp.ones((1, 1, 5)),
            "encoder": {"blocks": jax.tree.map(lambda axes: jnp.ones((3, 5, 5)[:axes]), block)},
            "norm": {"scale": jnp.ones(5), "bias": jnp.ones(5)},
        },
        "head": {"kernel": jnp.ones((5, 2)), "bias": jnp.ones(2)},
    }


def kept(mask):
    return {"/".join(str(key.key) for key in path) for path, on in jax.tree_util.tree_leaves_with_path(mask) if on}


def test_decay_masks():
    kernels = {"backbone/embed/kernel", "backbone/encoder/blocks/mlp/kernel", "head/kernel"}
    assert kept(updates.decay_mask(vit_like(), "kernels")) == kernels
    assert kept(updates.decay_mask(vit_like(), "weights")) == kernels | {"backbone/cls_token"}
    assert len(kept(updates.decay_mask(vit_like(), "all"))) == len(jax.tree.leaves(vit_like()))


def test_a_bias_of_two_axes_is_still_a_bias():
    assert not updates.decay_mask({"qkv": {"bias": jnp.ones((3, 4))}}, "weights")["qkv"]["bias"]


# ---- clipping and layer decay


def updates_of(tx, gradient):
    return jax.jit(lambda gradient: tx.update(gradient, tx.init(gradient), gradient)[0])(gradient)


def test_clipping_per_parameter_is_per_tensor_of_a_stack_too():
    long, short = 6.0 * jnp.ones((1, 4)), 0.5 * jnp.ones((1, 4))  # lengths 12 and 1
    gradient = {"a": long, "b": short, "blocks": {"c": jnp.stack([long, short]), "bias": jnp.array([[12.0], [1.0]])}}
    found = updates_of(updates.clip_each(3.0, "parameter"), gradient)
    np.testing.assert_allclose(found["a"], long / 4, rtol=1e-5)
    np.testing.assert_array_equal(found["b"], short)
    np.testing.assert_allclose(found["blocks"]["c"], jnp.stack([long / 4, short]), rtol=1e-5)
    np.testing.assert_allclose(found["blocks"]["bias"], [[3.0], [1.0]], rtol=1e-5)


def test_layer_decay_of_a_transformer_of_three_blocks():
    found = updates_of(updates.layer_decay(0.5), vit_like())
    backbone = found["backbone"]
    np.testing.assert_allclose(backbone["encoder"]["blocks"]["mlp"]["kernel"][:, 0, 0], [1 / 8, 1 / 4, 1 / 2])
    np.testing.assert_allclose(backbone["encoder"]["blocks"]["norm1"]["scale"][:, 0], [1 / 8, 1 / 4, 1 / 2])
    assert float(backbone["embed"]["kernel"][0, 0]) == float(backbone["cls_token"][0, 0, 0]) == 1 / 16
    assert float(backbone["norm"]["scale"][0]) == float(found["head"]["kernel"][0, 0]) == 1.0


def test_layer_decay_is_the_backbones_and_leaves_heads_of_any_name_alone():
    params = vit_like()
    params["projector"] = params.pop("head")
    found = updates_of(updates.layer_decay(0.5), params)
    np.testing.assert_array_equal(found["projector"]["kernel"], params["projector"]["kernel"])


def test_layer_decay_scales_weight_decay_too():
    params = vit_like()
    tx = optax.chain(optimizers.adamw(0.1, weight_decay=0.1), updates.layer_decay(0.5))
    still = jax.tree.map(jnp.zeros_like, params)
    moved = tx.update(still, tx.init(params), params)[0]
    np.testing.assert_allclose(moved["backbone"]["embed"]["kernel"], -0.1 * 0.1 / 16, rtol=1e-5)


def test_layer_decay_without_blocks_is_refused():
    with pytest.raises(UserError, match="transformer"):
        updates_of(updates.layer_decay(0.5), {"head": {"kernel": jnp.ones((2, 2))}})


def test_clipping_per_module_takes_the_backbone_and_each_head_by_itself():
    gradient = {"backbone": {"a": jnp.array([[3.0]]), "b": jnp.array([[4.0]])}, "head": {"c": jnp.array([[0.5]])}}
    found = updates_of(updates.clip_each(1.0, "module"), gradient)
    np.testing.assert_allclose([found["backbone"]["a"][0, 0], found["backbone"]["b"][0, 0]], [0.6, 0.8], rtol=1e-5)
    np.testing.assert_array_equal(found["head"]["c"], gradient["head"]["c"])
