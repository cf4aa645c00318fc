import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from ml_collections import ConfigDict

from jax_ssl.errors import UserError
from jax_ssl.optim import optimizers, schedules

CLOCK = schedules.Clock(steps_per_epoch=10.0, total_steps=100)


def run(tx, params, gradients):
    """Parameters after each of the gradients."""
    state, history = tx.init(params), []
    for gradient in gradients:
        updates, state = tx.update(gradient, state, params)
        params = optax.apply_updates(params, updates)
        history.append(params)
    return history


def tensors(seed, *shapes):
    random = np.random.RandomState(seed)
    return [jnp.asarray(random.randn(*shape), jnp.float32) for shape in shapes]


def config(**changes):
    values = dict(
        name="sgd", base_lr=0.2, scaling="linear_256", schedule="cosine", milestones=(5, 8), milestone_factor=0.1,
        warmup_epochs=2.0, warmup_lr=0.0, final_lr=0.0, weight_decay=0.1, final_weight_decay=-1.0, decay="weights",
        b1=0.9, b2=0.95, momentum=0.9, nesterov=False, lars_momentum="popular", trust_coefficient=0.001,
        mu_dtype="float32", clip=0.0, clip_per="network", frozen=(), late=(), late_epochs=0.0, late_moments=False,
        layer_decay=1.0, embed_rate=1.0, constant_rate=(), vector_rate=1.0, rates={}, unit_rows=(),
    )  # fmt: skip
    return ConfigDict({**values, **changes})


def test_scaling_rules():
    rules = {"linear_256": 32, "linear_512": 16, "sqrt_1024": 8**0.5, "four_sqrt_1024": 4 * 8**0.5, "sqrt": 8192**0.5}
    for scaling, factor in rules.items():
        assert optimizers.peak_lr(0.1, 8192, scaling) == pytest.approx(0.1 * factor)
    assert optimizers.peak_lr(0.03, 8192, "absolute") == 0.03
    assert optimizers.peak_lr(0.3, 4096, "linear_256") == pytest.approx(optimizers.peak_lr(0.075, 4096, "sqrt"))


# ---- optimisers


@pytest.fixture
def golden(request):
    return np.load(request.config.rootpath / "tests" / "golden" / "lars.npz")


def test_lars_is_that_of_moco_v3_step_for_step(golden):
    tx = optimizers.lars(float(golden["lr"]), weight_decay=float(golden["weight_decay"]))
    gradients = [{"w": jnp.asarray(w), "b": jnp.asarray(b)} for w, b in zip(golden["gw"], golden["gb"])]
    history = run(tx, {"w": jnp.asarray(golden["w"][0]), "b": jnp.asarray(golden["b"][0])}, gradients)
    for step, params in enumerate(history, 1):
        np.testing.assert_allclose(params["w"], golden["w"][step], rtol=1e-5, atol=1e-7)
        np.testing.assert_allclose(params["b"], golden["b"][step], rtol=1e-5, atol=1e-7)


def test_classic_lars_is_that_of_optax_for_any_schedule():
    params = dict(zip("wb", tensors(0, (5, 7), (7,))))
    gradients = [dict(zip("wb", tensors(seed, (5, 7), (7,)))) for seed in range(1, 5)]
    rate = schedules.cosine(0.3, 0.0, schedules.Clock(1.0, 5), 1.0)
    mask = {"w": True, "b": False}
    reference = optax.lars(rate, 0.01, mask, trust_ratio_mask=mask)
    ours = run(optimizers.lars(rate, 0.01, momentum_kind="classic"), params, gradients)
    for found, expected in zip(ours, run(reference, params, gradients)):
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7), found, expected)


def test_the_two_momenta_agree_only_while_the_rate_is_constant():
    params, gradients = {"w": tensors(0, (5, 7))[0]}, [{"w": tensors(seed, (5, 7))[0]} for seed in range(1, 5)]
    for rate, agree in ((0.3, True), (schedules.cosine(0.3, 0.0, schedules.Clock(1.0, 5)), False)):
        popular = run(optimizers.lars(rate, momentum_kind="popular"), params, gradients)[-1]["w"]
        classic = run(optimizers.lars(rate, momentum_kind="classic"), params, gradients)[-1]["w"]
        assert np.allclose(popular, classic, rtol=1e-6, atol=1e-7) == agree


def test_lars_of_a_stack_is_lars_of_its_layers():
    w, b = tensors(0, (3, 5, 7), (3, 7))
    w = w * jnp.array([1.0, 10.0, 0.1])[:, None, None]
    gradients = [tensors(seed, (3, 5, 7), (3, 7)) for seed in (1, 2)]
    tx = optimizers.lars(0.3, weight_decay=0.01)
    stacked = [{"blocks": {"w": gw, "b": gb}} for gw, gb in gradients]
    stack = run(tx, {"blocks": {"w": w, "b": b}}, stacked)[-1]["blocks"]
    for i in range(3):
        layer = run(tx, {"w": w[i], "b": b[i]}, [{"w": gw[i], "b": gb[i]} for gw, gb in gradients])[-1]
        np.testing.assert_allclose(stack["w"][i], layer["w"], rtol=1e-6, atol=1e-7)
        np.testing.assert_allclose(stack["b"][i], layer["b"], rtol=1e-6, atol=1e-7)


def test_a_zero_parameter_or_gradient_has_trust_ratio_one():
    w = tensors(0, (2, 3))[0]
    moved = run(optimizers.lars(0.1), {"w": jnp.zeros((2, 3))}, [{"w": w}])[0]["w"]
    np.testing.assert_allclose(moved, -0.1 * w, rtol=1e-6)
    np.testing.assert_array_equal(run(optimizers.lars(0.1), {"w": w}, [{"w": jnp.zeros((2, 3))}])[0]["w"], w)


def test_lars_with_decay_all_adapts_biases_too():
    b, g = tensors(0, (7,), (7,))
    moved = run(optimizers.lars(0.3, weight_decay=0.01, decay="all"), {"b": b}, [{"b": g}])[0]["b"]
    g = g + 0.01 * b
    np.testing.assert_allclose(moved, b - 0.3 * 0.001 * jnp.linalg.norm(b) / jnp.linalg.norm(g) * g, rtol=1e-5)


@pytest.mark.parametrize("nesterov", [False, True])
def test_sgd_is_that_of_pytorch(nesterov):
    w, *gradients = tensors(0, (2, 3), (2, 3), (2, 3), (2, 3))
    found = run(optimizers.sgd(0.1, 0.01, 0.9, nesterov), {"w": w}, [{"w": g} for g in gradients])
    speed = 0
    for g, after in zip(gradients, found):
        g = g + 0.01 * w
        speed = 0.9 * speed + g
        w = w - 0.1 * (g + 0.9 * speed if nesterov else speed)
        np.testing.assert_allclose(after["w"], w, rtol=1e-5, atol=1e-6)


def test_adamw_is_that_of_optax_and_decays_weights_only():
    params = dict(zip("wb", tensors(0, (5, 7), (7,))))
    gradients = [dict(zip("wb", tensors(seed, (5, 7), (7,)))) for seed in (1, 2, 3)]
    reference = optax.adamw(0.01, 0.9, 0.95, weight_decay=0.05, mask={"w": True, "b": False})
    found = run(optimizers.adamw(0.01, 0.05, 0.9, 0.95), params, gradients)[-1]
    expected = run(reference, params, gradients)[-1]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), found, expected)


def test_the_first_moment_alone_may_be_bfloat16():
    params = {"w": tensors(0, (5, 7))[0]}
    for name, dtype in (("float32", jnp.float32), ("bfloat16", jnp.bfloat16)):
        tx = optimizers.make(config(name="adamw", mu_dtype=name), 256, CLOCK)
        updates, state = tx.update(params, tx.init(params), params)
        adam = next(s for s in jax.tree.leaves(state, is_leaf=lambda s: hasattr(s, "mu")) if hasattr(s, "mu"))
        assert (adam.mu["w"].dtype, adam.nu["w"].dtype, updates["w"].dtype) == (dtype, jnp.float32, jnp.float32)


# ---- make


def test_make_clips_before_the_optimiser_globally_or_by_parameter():
    params = {"a": jnp.zeros((1, 1)), "b": jnp.zeros((1, 1))}
    gradient = {"a": jnp.full((1, 1), 3.0), "b": jnp.full((1, 1), 4.0)}
    for per, expected in (("network", [-1.2, -1.6]), ("parameter", [-2.0, -2.0])):
        settings = config(clip=1.0, clip_per=per, base_lr=2.0, warmup_epochs=0.0, schedule="constant", momentum=0.0)
        found = run(optimizers.make(settings, 256, CLOCK), params, [gradient])[0]
        np.testing.assert_allclose([found["a"][0, 0], found["b"][0, 0]], expected, rtol=1e-5)


def test_make_follows_the_config():
    params, gradients = {"w": tensors(0, (5, 7))[0]}, [{"w": tensors(seed, (5, 7))[0]} for seed in (1, 2, 3)]
    rate = schedules.cosine(0.4, 0.0, CLOCK, 2.0)
    pairs = (
        (dict(name="sgd", nesterov=True), optimizers.sgd(rate, 0.1, 0.9, True)),
        (dict(name="adamw", b1=0.8), optimizers.adamw(rate, 0.1, 0.8, 0.95)),
        (dict(name="lars", lars_momentum="classic"), optimizers.lars(rate, 0.1, momentum_kind="classic")),
        (dict(name="lars", trust_coefficient=0.02), optimizers.lars(rate, 0.1, trust_coefficient=0.02)),
        (dict(schedule="step"), optimizers.sgd(schedules.step(0.4, (5, 8), CLOCK, 2.0), 0.1)),
        (dict(final_weight_decay=0.5), optimizers.sgd(rate, schedules.cosine(0.1, 0.5, CLOCK))),
    )
    for changes, reference in pairs:
        found = run(optimizers.make(config(**changes), 512, CLOCK), params, gradients)[-1]
        np.testing.assert_array_equal(found["w"], run(reference, params, gradients)[-1]["w"], err_msg=str(changes))


def test_weight_decay_may_follow_a_schedule():
    tx = optimizers.sgd(1.0, schedules.linear(0.0, 0.5, schedules.Clock(1.0, 2)), momentum=0.0)
    still = {"w": jnp.zeros((1, 1))}
    history = run(tx, {"w": jnp.ones((1, 1))}, [still] * 3)
    np.testing.assert_allclose([params["w"][0, 0] for params in history], [1.0, 0.75, 0.375])


@pytest.mark.parametrize(
    "key, value, nearest",
    [
        ("name", "adam", "adamw"),
        ("scaling", "linear256", "linear_256"),
        ("schedule", "cosin", "cosine"),
        ("lars_momentum", "clasic", "classic"),
        ("mu_dtype", "bf16", "bfloat16"),
        ("decay", "weight", "weights"),
        ("name", "zzz", ""),
    ],
)
def test_an_unknown_name_is_refused_with_the_nearest(key, value, nearest):
    name = {"lars_momentum": "lars", "mu_dtype": "adamw"}.get(key, "sgd")
    with pytest.raises(UserError, match=f"config.optim.{key}='{value}' is unknown; did you mean '{nearest}"):
        optimizers.make(config(**{"name": name, key: value}), 256, CLOCK)


# ---- rules for some of the parameters


def test_larc_is_apex_step_by_step():
    """NVIDIA/apex parallel/LARC.py with clip off around torch SGD: ratio before decay joins, zeros untouched."""
    (w,), gradients = tensors(0, (4, 3)), [tensors(s, (4, 3))[0] for s in (1, 2, 3)]
    found = run(optimizers.larc(0.5, 0.01, 0.9, 0.02), {"w": w}, [{"w": g} for g in gradients])
    p, v = np.asarray(w, np.float64), 0
    for step, g in enumerate(np.asarray(g, np.float64) for g in gradients):
        size, force = np.linalg.norm(p), np.linalg.norm(g)
        v = 0.9 * v + 0.02 * size / (force + 0.01 * size + 1e-8) * (g + 0.01 * p)
        p = p - 0.5 * v
        np.testing.assert_allclose(found[step]["w"], p, rtol=1e-5)
    still = run(optimizers.larc(0.5, 0.01), {"w": w}, [{"w": jnp.zeros_like(w)}])[0]["w"]
    np.testing.assert_array_equal(still, w)  # no gradient, no decay


def test_frozen_parameters_stay_and_do_not_count_in_the_clip():
    w, b, g, h = tensors(0, (4, 3), (4, 3), (4, 3), (4, 3))
    settings = dict(name="adamw", clip=1.0, warmup_epochs=0.0)
    freezing = optimizers.make(config(frozen=("head",), **settings), 256, CLOCK)
    found = run(freezing, {"net": {"w": w}, "head": {"w": b}}, [{"net": {"w": g}, "head": {"w": 9 * h}}])
    alone = run(optimizers.make(config(**settings), 256, CLOCK), {"net": {"w": w}}, [{"net": {"w": g}}])
    np.testing.assert_array_equal(found[0]["head"]["w"], b)
    np.testing.assert_allclose(found[0]["net"]["w"], alone[0]["net"]["w"], rtol=1e-6)


def test_a_constant_rate_for_the_predictor_only():
    w, g = tensors(0, (4, 3), (4, 3))
    settings = config(constant_rate=("predictor",), momentum=0.0, weight_decay=0.0, warmup_epochs=0.0)
    gradient = {"backbone": {"w": g}, "predictor": {"w": g}}
    found = run(optimizers.make(settings, 256, CLOCK), {"backbone": {"w": w}, "predictor": {"w": w}}, [gradient] * 3)
    np.testing.assert_allclose(found[2]["predictor"]["w"], w - 3 * 0.2 * g, rtol=1e-5)
    rates = sum(schedules.cosine(0.2, 0.0, CLOCK)(step) for step in range(3))
    np.testing.assert_allclose(found[2]["backbone"]["w"], w - rates * g, rtol=1e-5)


def test_a_late_part_is_as_if_its_training_began_later_under_the_same_schedule():
    w, *gradients = tensors(0, *[(4, 3)] * 9)
    settings = config(name="adamw", late=("head",), late_epochs=0.45, warmup_epochs=0.3, final_weight_decay=0.4)
    params, both = {"backbone": w, "head": w}, [{"backbone": g, "head": g} for g in gradients]
    found = run(optimizers.make(settings, 256, CLOCK), params, both)
    usual = run(optimizers.make(config(**{**settings, "late": ()}), 256, CLOCK), params, both)
    for step in range(8):
        np.testing.assert_allclose(found[step]["backbone"], usual[step]["backbone"], rtol=1e-6)
    for step in range(5):  # 4.5 steps are not over before the sixth begins
        np.testing.assert_array_equal(found[step]["head"], w)
    rate = optimizers.learning_rate(settings, 256, CLOCK)
    decay = schedules.cosine(0.1, 0.4, CLOCK)
    own = optimizers.adamw(lambda n: rate(n + 5), lambda n: decay(n + 5), b1=settings.b1, b2=settings.b2)
    expected = run(own, {"head": w}, [{"head": g} for g in gradients[5:]])
    for step in range(3):
        np.testing.assert_allclose(found[5 + step]["head"], expected[step]["head"], rtol=1e-5)


def test_late_moments_gather_while_the_late_part_stands_still():
    w, *gradients = tensors(0, *[(4, 3)] * 7)
    settings = config(name="adamw", late=("head",), late_epochs=0.4, late_moments=True, weight_decay=0.0)
    found = run(optimizers.make(settings, 256, CLOCK), {"head": w}, [{"head": g} for g in gradients])
    plain = run(
        optimizers.make(config(**{**settings, "late": ()}), 256, CLOCK), {"head": w}, [{"head": g} for g in gradients]
    )
    np.testing.assert_array_equal(found[3]["head"], w)
    moves = [plain[step + 1]["head"] - plain[step]["head"] for step in (3, 4)]
    np.testing.assert_allclose(found[4]["head"], w + moves[0], rtol=1e-5)
    np.testing.assert_allclose(found[5]["head"], w + moves[0] + moves[1], rtol=1e-5)


def test_layer_decay_and_a_rate_for_the_embedding():
    backbone = {"embed": {"kernel": jnp.ones((2, 2))}, "encoder": {"blocks": {"kernel": jnp.ones((2, 2, 2))}}}
    params = {"backbone": backbone, "head": {"kernel": jnp.ones((2, 2))}}
    settings = config(layer_decay=0.5, embed_rate=0.2, warmup_epochs=0.0, weight_decay=0.0, momentum=0.0)
    moved = jax.tree.map(lambda p, q: (p - q).ravel()[0] / 0.2, params,
                         run(optimizers.make(settings, 256, CLOCK), params, [params])[0])  # fmt: skip
    assert moved["head"]["kernel"] == pytest.approx(1.0)
    assert moved["backbone"]["embed"]["kernel"] == pytest.approx(0.125 * 0.2)


def test_vectors_may_have_a_smaller_rate_than_matrices():
    w, b, g, h = tensors(0, (4, 3), (3,), (4, 3), (3,))
    params, gradients = {"kernel": w, "bias": b}, [{"kernel": g, "bias": h}]
    settings = config(vector_rate=0.024, momentum=0.0, weight_decay=0.0, warmup_epochs=0.0)
    found = run(optimizers.make(settings, 256, CLOCK), params, gradients)[0]
    np.testing.assert_allclose(found["kernel"], w - 0.2 * g, rtol=1e-5)
    np.testing.assert_allclose(found["bias"], b - 0.2 * 0.024 * h, rtol=1e-5)


def test_prototypes_keep_rows_of_length_one():
    c, g = tensors(0, (5, 3), (5, 3))
    settings = config(unit_rows=("prototypes",), momentum=0.0, weight_decay=0.0, warmup_epochs=0.0)
    moved = run(optimizers.make(settings, 256, CLOCK), {"prototypes": c}, [{"prototypes": g}])[0]["prototypes"]
    expected = c - 0.2 * g
    np.testing.assert_allclose(moved, expected / np.linalg.norm(expected, axis=1, keepdims=True), rtol=1e-5)


@pytest.mark.parametrize("key", ["frozen", "late", "constant_rate", "rates", "unit_rows"])
def test_a_name_that_no_parameter_has_is_refused(key):
    params = {"backbone": {"Block_10": jnp.ones((2, 2))}, "predictor": {}}
    naming = lambda name: config(**{key: {name: 0.1} if key == "rates" else (name,)})
    for name in ("prototype_head", "backbone/Block_1"):
        with pytest.raises(UserError, match=f"{name}.*there are backbone, predictor"):
            optimizers.make(naming(name), 256, CLOCK).init(params)
    optimizers.make(naming("predictor"), 256, CLOCK).init(params)  # is there, and has no layers


def test_rates_by_name_are_optimisers_of_their_own_that_step_at_once():
    """A critic at a tenth of the rate: what an Adam of its own with that rate and weight decay does to it."""
    random = np.random.default_rng(0)
    params = {"painter": {"kernel": jnp.ones((3, 4))}, "critic": {"kernel": jnp.ones((4, 2))}}
    grads = [jax.tree.map(lambda p: jnp.asarray(random.normal(size=p.shape), jnp.float32), params) for _ in range(3)]
    settings = dict(name="adamw", schedule="constant", warmup_epochs=0.0, scaling="absolute", base_lr=2e-3)
    moved = run(optimizers.make(config(**settings, rates={"critic": 0.1}), 256, CLOCK), params, grads)[-1]
    for name, rate in {"painter": 2e-3, "critic": 2e-4}.items():
        alone = optimizers.make(config(**settings | {"base_lr": rate}), 256, CLOCK)
        expected = run(alone, {name: params[name]}, [{name: g[name]} for g in grads])[-1]
        np.testing.assert_allclose(moved[name]["kernel"], expected[name]["kernel"], rtol=1e-6)


def test_a_warm_up_may_begin_above_zero_and_both_ends_scale_with_the_batch():
    rate = optimizers.learning_rate(config(warmup_lr=0.1, final_lr=0.01), 512, CLOCK)
    np.testing.assert_allclose([rate(0), rate(10), rate(20), rate(100)], [0.2, 0.3, 0.4, 0.02], rtol=1e-5)
    for schedule in ("step", "constant"):
        rate = optimizers.learning_rate(config(warmup_lr=0.1, schedule=schedule, milestones=(50,)), 512, CLOCK)
        np.testing.assert_allclose([rate(0), rate(10), rate(20)], [0.2, 0.3, 0.4], rtol=1e-5)


def test_a_step_schedule_goes_down_by_its_factor():
    rate = optimizers.learning_rate(config(schedule="step", warmup_epochs=0.0, milestone_factor=0.2), 256, CLOCK)
    steps = [int(epoch * CLOCK.steps_per_epoch) for epoch in (4, 6, 9)]
    np.testing.assert_allclose([rate(step) for step in steps], [0.2, 0.04, 0.008], rtol=1e-5)
