"""Against the official formulas (golden values), whose two networks are rebuilt here from the library's own parts."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jax_ssl import losses
from jax_ssl.models import apply, dcgan
from tests.near import relative_error

RATES = {"painter": 2e-3, "critic": 2e-4}


class Painter(nn.Module):
    """The golden generator."""

    @nn.compact
    def __call__(self, x, train):
        x = dcgan.Down(4, normed=False)(x, train)
        x = dcgan.Down(6)(x, train)
        x = dcgan.Up(4)(x, train)
        return nn.tanh(dcgan.conv(3, kernel_size=(3, 3), padding=((1, 1), (1, 1)))(x))


NETS = {"painter": Painter(), "critic": dcgan.Critic((4, 5))}
LAYERS = {  # official layer: where it is in ours
    "G": {"conv1": ("Down_0", "Conv_0"), "conv2": ("Down_1", "Conv_0"), "norm2": ("Down_1", "BatchNorm_0"),
          "up": ("Up_0", "ConvTranspose_0"), "norm3": ("Up_0", "BatchNorm_0"), "out": ("Conv_0",)},
    "D": {"conv1": ("Down_0", "Conv_0"), "conv2": ("Down_1", "Conv_0"), "norm2": ("Down_1", "BatchNorm_0"),
          "out": ("Conv_0",)},
}  # fmt: skip


@pytest.fixture(scope="module")
def golden(request):
    return dict(np.load(request.config.rootpath / "tests" / "golden" / "context_encoder.npz"))


def params_of(golden, prefix="", suffix=""):
    """The golden networks' parameters, or their gradients, as our trees."""
    trees = {}
    for name, player in (("G", "painter"), ("D", "critic")):
        tree = trees.setdefault(player, {})
        for layer, place in LAYERS[name].items():
            node = tree
            for part in place:
                node = node.setdefault(part, {})
            weight = golden[f"{prefix}{name}.{layer}.weight{suffix}"]
            if "norm" in layer:
                node |= {"scale": weight, "bias": golden[f"{prefix}{name}.{layer}.bias{suffix}"]}
            elif layer == "up":  # torch turns the kernel of a transposed convolution around, and has inputs first
                node["kernel"] = weight[:, :, ::-1, ::-1].transpose(2, 3, 0, 1)
            else:
                node["kernel"] = weight.transpose(2, 3, 1, 0)
    return jax.tree.map(jnp.asarray, trees)


def fresh_stats(golden):
    shapes = {"painter": golden["context"], "critic": golden["centre"]}
    start = lambda name: apply.init(NETS[name], jax.random.key(0), jnp.asarray(shapes[name]), train=True)[1]
    return jax.jit(lambda: {name: start(name) for name in NETS})()


def play(params, golden, stats):
    """The game's (loss, (parts, new statistics))."""
    context, target = jnp.asarray(golden["context"]), jnp.asarray(golden["centre"])
    painted, painter_stats = apply.train(NETS["painter"], params["painter"], stats["painter"], context)
    judge = lambda params, stats, images: apply.train(NETS["critic"], params, stats, images)
    loss, parts, critic_stats = losses.adversarial_game(
        judge, params["critic"], stats["critic"], painted, target, golden["weight"], float(golden["share"])
    )
    return loss, (parts | {"painted": painted}, {"painter": painter_stats, "critic": critic_stats})


@pytest.fixture(scope="module")
def played(golden):
    """(gradients, parts, new statistics) of one game."""
    stats = fresh_stats(golden)
    step = jax.jit(lambda params: jax.grad(lambda p: play(p, golden, stats), has_aux=True)(params))
    gradients, (parts, new_stats) = step(params_of(golden))
    return gradients, parts, new_stats


@pytest.mark.seal(2, "context_encoder")
def test_each_players_loss_is_the_official_one(golden, played):
    painted = jnp.asarray(golden["fake"])
    target, weight = jnp.asarray(golden["centre"]), losses.hole_weight(8, int(golden["overlap"]))
    np.testing.assert_array_equal(weight, golden["weight"])
    close = lambda ours, name: np.testing.assert_allclose(ours, golden[name], rtol=1e-5)
    close(losses.reconstruction(painted, target, np.ones((8, 8))), "loss_l2")
    close(losses.reconstruction(painted, target, weight), "loss_reconstruction")
    parts = played[1]
    assert relative_error(parts["painted"], golden["fake"]) < 1e-5
    close(parts["adversarial_loss"], "loss_adversarial")
    close(parts["critic_loss"], "loss_critic")


@pytest.mark.seal(2, "context_encoder")
def test_one_gradient_is_that_of_each_player_at_the_old_parameters_of_both(golden, played):
    expected = params_of(golden, prefix="d")
    for player in NETS:
        for ours, theirs in zip(jax.tree.leaves(played[0][player]), jax.tree.leaves(expected[player]), strict=True):
            assert relative_error(ours, theirs) < 1e-5


@pytest.mark.seal(2, "context_encoder")
def test_it_is_the_game_of_two_optimisers_that_step_at_once(golden, played):
    """To 1e-6 of a step by two Adams; the official code steps the critic first, which would give another painter."""
    params, expected = params_of(golden), params_of(golden, suffix="_next")
    adams = {name: optax.adam(rate, b1=0.5) for name, rate in RATES.items()}
    tx = optax.partition(adams, {name: name for name in RATES})
    updates, _ = tx.update(played[0], tx.init(params), params)
    for ours, theirs in zip(jax.tree.leaves(optax.apply_updates(params, updates)), jax.tree.leaves(expected)):
        assert relative_error(ours, theirs) < 1e-6


@pytest.mark.seal(2, "context_encoder")
def test_statistics_of_real_and_painted_images_are_apart_and_the_real_ones_come_first(golden, played):
    """torch keeps the variance over n - 1; ours, over n, moves by as much less."""
    count = {"painter": {"norm2": 4 * 4 * 4, "norm3": 4 * 8 * 8}, "critic": {"norm2": 4 * 2 * 2}}
    for name, player in (("G", "painter"), ("D", "critic")):
        for layer, n in count[player].items():
            stats = played[2][player]["batch_stats"]
            for part in LAYERS[name][layer]:
                stats = stats[part]
            start = 0.9 if name == "G" else 0.81
            moved = (golden[f"{name}.{layer}.running_var_after"] - start) * (n - 1) / n
            assert relative_error(stats["mean"], golden[f"{name}.{layer}.running_mean_after"]) < 1e-5
            assert relative_error(stats["var"], start + moved) < 1e-5


def test_the_painter_moves_no_critic_and_the_critic_no_painter(golden, played):
    stats, params = fresh_stats(golden), params_of(golden)

    def alone(params):
        """The critic's loss, on a painting that no gradient comes through."""
        critic = lambda stats, images: apply.train(NETS["critic"], params["critic"], stats, images)
        painted, _ = apply.train(NETS["painter"], params["painter"], stats["painter"], jnp.asarray(golden["context"]))
        real, after = critic(stats["critic"], jnp.asarray(golden["centre"]))
        return losses.critic(real, critic(after, jax.lax.stop_gradient(painted))[0])

    gradient = jax.jit(jax.grad(alone))(params)
    assert not any(jnp.any(leaf) for leaf in jax.tree.leaves(gradient["painter"]))
    for ours, theirs in zip(jax.tree.leaves(played[0]["critic"]), jax.tree.leaves(gradient["critic"]), strict=True):
        assert relative_error(ours, theirs) < 1e-6


@pytest.mark.seal(2, "context_encoder")
def test_the_losses_by_an_oracle_in_numpy():
    """From the paper's Eq. 1 to 3, pixel by pixel and image by image, beside the formulas of the Lua code."""
    random = np.random.RandomState(0)
    painted, target = random.randn(2, 3, 6, 6, 2)
    real, fake = random.randn(2, 3) * 3
    weight = np.array([[10 if min(y, x, 5 - y, 5 - x) < 2 else 1 for x in range(6)] for y in range(6)])
    squares = [weight[y, x] * (painted[i, y, x, c] - target[i, y, x, c]) ** 2
               for i in range(3) for y in range(6) for x in range(6) for c in range(2)]  # fmt: skip
    says_real = lambda logit: 1 / (1 + np.exp(-logit))
    expected = 0.9 * np.mean(squares) - 0.1 * np.mean(np.log(says_real(fake)))
    arrays = [jnp.asarray(x, jnp.float32) for x in (painted, target)]
    ours = losses.context_encoder(*arrays, losses.hole_weight(6, 2), jnp.asarray(fake, jnp.float32), share=0.9)
    np.testing.assert_allclose(ours, expected, rtol=1e-5)
    expected = -np.mean(np.log(says_real(real))) - np.mean(np.log(1 - says_real(fake)))
    np.testing.assert_allclose(losses.critic(jnp.asarray(real), jnp.asarray(fake)), expected, rtol=1e-5)


def test_with_share_one_it_is_the_squared_error_alone():
    painted, target = np.random.RandomState(0).randn(2, 3, 4, 4, 3).astype(np.float32)
    value = losses.context_encoder(painted, target, np.ones((4, 4)), jnp.full(3, 5.0), share=1.0)
    np.testing.assert_allclose(value, np.mean((painted - target) ** 2), rtol=1e-6)
