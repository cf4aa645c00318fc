import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jax_ssl.encoder import Encoder
from jax_ssl.errors import UserError
from jax_ssl.evaluate import finetune as ft
from jax_ssl.models import resnet, vit
from jax_ssl.optim.schedules import Clock

SIDE, CLASSES = 16, 4


def gratings(count, seed):
    """Four classes: bars across or upright, coarse or fine, at any phase and in any colour, in noise."""
    random = np.random.RandomState(seed)
    labels = np.arange(count) % CLASSES
    waves = np.where(labels % 2, 2.0, 4.0)[:, None] * np.linspace(0, 2 * np.pi, SIDE, endpoint=False)
    bars = np.sin(waves + random.uniform(0, 2 * np.pi, (count, 1)))
    bars = np.where((labels < 2)[:, None, None], bars[:, :, None], bars[:, None, :])
    images = 128 + 60 * bars[..., None] * random.uniform(-1, 1, (count, 1, 1, 3))
    return np.clip(images + 25 * random.randn(*images.shape), 0, 255).astype(np.uint8), labels


def small_vit():
    return vit.make(patch=4, width=32, depth=2, heads=2, mlp_ratio=2.0, positions="sincos_row", pool="cls", registers=0,
                    layer_scale=0.0, drop_path=0.0, epsilon=1e-6, remat="none", dtype="float32")  # fmt: skip


def small_resnet():
    return resnet.make(
        depth=18, width=0.125, stem="patch", patch=2, stages=(1, 1), norm_groups=4, zero_init=True, dtype="float32"
    )


def untrained(backbone):
    variables = jax.jit(backbone.init)(jax.random.key(7), jnp.zeros((1, SIDE, SIDE, 3)))
    kept = {name: variables[name] for name in ("params", "batch_stats") if name in variables}
    return Encoder(backbone, kept, (0.5,) * 3, (0.25,) * 3, SIDE)


def recipe_of(encode, steps, **changes):
    pixel = encode.mean, encode.std
    return ft.Recipe(encode.backbone, pixel, "mean", Clock(1, steps), 0.0, 1.0, 0.05)._replace(**changes)


def trained(encode, images, labels, rows, peak, **changes):
    """The state after one step for each of `rows`, and the one before, on the host."""
    recipe = recipe_of(encode, len(rows), **changes)
    state = ft.initial_state(encode, recipe, SIDE, CLASSES, jax.random.key(0), False)
    before = jax.tree.map(np.array, state)
    after = ft.train(state, jnp.asarray(images), jnp.asarray(labels), rows, peak, jax.random.key(1), recipe)
    return jax.tree.map(np.array, after), before


@pytest.fixture(scope="module")
def pretrained():
    """A network that knows gratings, from images that no test uses."""
    encode, (images, labels) = untrained(small_vit()), gratings(1024, seed=100)
    rows = ft.batches(1024, 64, 11, seed=3)
    state, _ = trained(encode, images, labels, rows, 4e-3)
    return Encoder(encode.backbone, {"params": state.params["backbone"]}, encode.mean, encode.std, SIDE)


def tune(encode, **options):
    images, labels = gratings(40, seed=1)
    test = gratings(400, seed=2)
    options = dict(scratch=False, epochs=10, batch=16, base_lr=(0.004, 0.016)) | options
    return ft.finetune(encode, images, labels, *test, CLASSES, **options)


def test_a_network_that_knows_the_images_beats_scratch_on_few_labels(pretrained):
    """Also when the network from scratch has learnt its labels: 83 % of them here, and 54 % of the test set."""
    tuned = tune(pretrained, epochs=30)
    scratch = tune(pretrained, epochs=30, scratch=True, base_lr=(0.004, 0.016, 0.064))
    assert tuned["top1"] > 0.85 and tuned["top1"] > scratch["top1"] + 0.2
    assert min(tuned["train_top1"], scratch["train_top1"]) > 0.7
    assert (tuned["layer_decay"], scratch["layer_decay"]) == (0.75, 1.0)
    assert tuned["steps"] == scratch["steps"] == 30 * (36 // 16)
    assert list(scratch["grid"]) == [0.004, 0.016, 0.064]
    assert scratch["grid"][scratch["learning_rate"]] == max(scratch["grid"].values()) == scratch["held_out_top1"]


def test_the_encoder_stays_as_it_is_and_the_seed_decides(pretrained):
    before = jax.tree.map(np.array, pretrained.variables)
    options = dict(epochs=3, base_lr=0.01, weight_decay=0.0)
    one, same, *others = (tune(pretrained, seed=seed, **options) for seed in (0, 0, 1, 2))
    assert one == same and any(one != other for other in others)  # two seeds may be right equally often
    jax.tree.map(np.testing.assert_array_equal, before, pretrained.variables)


def test_scratch_and_pretrained_see_the_same_batches(pretrained, monkeypatch):
    seen = {True: [], False: []}
    for scratch, steps in seen.items():

        def record(state, images, labels, chosen, key, peak, recipe, steps=steps):
            shown = ft.random_crops(images[chosen], jax.random.split(key)[0])
            steps.append((np.asarray(shown), np.asarray(labels[chosen]), state.params, recipe._replace(layer_decay=0)))
            return state

        monkeypatch.setattr(ft, "train_step", record)
        tune(pretrained, scratch=scratch, epochs=2, base_lr=0.01)
    assert len(seen[True]) == len(seen[False]) == 4
    for ours, theirs in zip(seen[True], seen[False], strict=True):
        np.testing.assert_array_equal(ours[0], theirs[0])
        np.testing.assert_array_equal(ours[1], theirs[1])
        assert ours[3] == theirs[3]  # nothing else differs, and the weights do
        assert not np.allclose(ours[2]["backbone"]["embed"]["kernel"], theirs[2]["backbone"]["embed"]["kernel"])
    assert not np.array_equal(seen[True][0][0], seen[True][1][0])


def test_layer_decay_slows_the_lower_layers(pretrained):
    """A head of zeros sends no gradient down, so the first step moves the head alone. The second moves all layers, and
    from the same gradients whatever the decay, so the moves differ by its powers.
    """
    images, labels = gratings(16, seed=5)
    rows = np.tile(np.arange(16, dtype=np.int32), (2, 1))

    def moves(rate):
        after, before = trained(pretrained, images, labels, rows, 1e-3, layer_decay=rate, weight_decay=0.0)
        return jax.tree.map(lambda a, b: np.abs(a - b), after.params, before.params)

    fast, slow = moves(1.0), moves(0.5)
    moved = jax.tree.map(lambda a, b: a / np.maximum(b, 1e-12), slow, fast)["backbone"]
    stack = np.median(moved["encoder"]["blocks"]["mlp"]["fc1"]["kernel"], axis=(1, 2))
    np.testing.assert_allclose(stack, [0.25, 0.5], rtol=1e-3)
    np.testing.assert_allclose(np.median(moved["embed"]["kernel"]), 0.125, rtol=1e-3)
    np.testing.assert_allclose(slow["head"]["kernel"], fast["head"]["kernel"], rtol=1e-3, atol=1e-6)
    assert fast["head"]["kernel"].max() > 0


def test_weight_decay_leaves_biases_and_norms_alone():
    """With one class there is nothing to learn, so weight decay alone moves anything."""
    encode = untrained(small_vit())
    images, rows = gratings(8, seed=5)[0], np.arange(8, dtype=np.int32)[None]
    recipe = recipe_of(encode, 1, weight_decay=0.1)
    state = ft.initial_state(encode, recipe, SIDE, 1, jax.random.key(0), False)
    state = state._replace(params=jax.tree.map(lambda x: x + 1.0, state.params))
    before = jax.tree.map(np.array, state.params)
    after = ft.train(state, jnp.asarray(images), jnp.zeros(8, jnp.int32), rows, 0.5, jax.random.key(1), recipe).params
    for (path, old), new in zip(jax.tree_util.tree_leaves_with_path(before), jax.tree.leaves(after), strict=True):
        factor = 0.95 if path[-1].key == "kernel" else 1.0
        np.testing.assert_allclose(new, factor * old, rtol=1e-5, atol=1e-6)


def test_batch_norm_trains_on_the_whole_batch_and_tests_with_running_statistics():
    encode = untrained(small_resnet())
    assert ft.with_drop_path(encode.backbone, 0.0).norm_groups == 1
    images, labels = gratings(400, seed=1)
    found = ft.finetune(encode, images, labels, *gratings(100, seed=2), CLASSES, scratch=True, epochs=8, batch=30,
                        base_lr=0.1)  # fmt: skip
    assert found["top1"] > 0.75
    rows = np.arange(32, dtype=np.int32)[None]
    after, before = trained(encode, images, labels, rows, 0.01)
    moved = jax.tree.map(lambda a, b: bool(np.any(a != b)), after.stats, before.stats)
    assert all(jax.tree.leaves(moved))
    with pytest.raises(UserError, match="set layer decay to 1"):
        tune(encode, epochs=1)
    with pytest.raises(UserError, match="drop_path to 0"):
        tune(encode, drop_path=0.1)


def test_dropped_branches_and_the_encoders_own_pooling(pretrained):
    found = tune(pretrained, drop_path=0.2, pool="own", epochs=2, base_lr=0.01)
    assert 0 <= found["top1"] <= 1 and ft.with_drop_path(pretrained.backbone, 0.2).drop_path == 0.2


def test_views_are_crops_inside_the_image():
    """An image that shows its own coordinates: every view spans a box, within the limits, half of them mirrored."""
    ramp = np.broadcast_to(np.arange(64)[:, None], (64, 64))
    image = np.stack([4 * ramp, 4 * ramp.T, np.full((64, 64), 200)], axis=-1).astype(np.uint8)
    shown = np.asarray(ft.random_crops(jnp.asarray(np.tile(image, (300, 1, 1, 1))), jax.random.key(0)))
    assert shown.shape == (300, 64, 64, 3) and shown.dtype == np.float32
    np.testing.assert_allclose(shown[..., 2], 200 / 255, atol=1e-6)  # nothing from outside
    height = (shown[:, -1, :, 0] - shown[:, 0, :, 0]).mean(axis=1) * 255 / 4 + 1
    width = (shown[:, :, -1, 1] - shown[:, :, 0, 1]).mean(axis=1) * 255 / 4
    mirrored, width = width < 0, np.abs(width) + 1
    assert 0.4 < mirrored.mean() < 0.6
    area, ratio = height * width / 64**2, width / height
    assert 0.47 < area.min() < 0.55 and area.max() > 0.9
    assert 0.7 < ratio.min() < 0.8 and 1.25 < ratio.max() < 1.42


def test_every_epoch_is_a_permutation_without_its_last_partial_batch():
    rows = ft.batches(10, 3, 4, seed=0)
    assert rows.shape == (12, 3) and rows.dtype == np.int32
    epochs = rows.reshape(4, 9)
    assert all(len(set(epoch)) == 9 for epoch in epochs) and not np.array_equal(epochs[0], epochs[1])


def test_a_network_that_diverged_gets_nothing_right(pretrained):
    recipe = recipe_of(pretrained, 1)
    state = ft.initial_state(pretrained, recipe, SIDE, CLASSES, jax.random.key(0), False)
    broken = state._replace(params=jax.tree.map(lambda x: x * jnp.nan, state.params))
    images, zeros = gratings(10, seed=0)[0], np.zeros(10, int)
    assert ft.accuracy(state, images, zeros, recipe, batch=4) == 1.0  # a head of zeros says class 0
    assert ft.accuracy(broken, images, zeros, recipe, batch=4) == 0.0


def test_fewshot_is_balanced_nested_and_deterministic():
    labels = np.random.RandomState(0).permutation(np.repeat(np.arange(10), 50))
    chosen = ft.fewshot(labels, 103, seed=1)
    counts = np.bincount(labels[chosen])
    assert len(set(chosen)) == 103 and counts.min() == 10 and counts.max() == 11
    np.testing.assert_array_equal(chosen, ft.fewshot(labels, 103, seed=1))
    assert not np.array_equal(chosen, ft.fewshot(labels, 103, seed=2))
    assert set(ft.fewshot(labels, 40, seed=1)) < set(chosen)
    np.testing.assert_array_equal(ft.fewshot(labels, 40, seed=-1), ft.fewshot(labels, 40, seed=2**32 - 1))
    rare = np.array([0] * 20 + [1] * 3)
    assert np.bincount(rare[ft.fewshot(rare, 10)]).tolist() == [7, 3]
    for count in (0, 24):
        with pytest.raises(UserError, match="of 23"):
            ft.fewshot(rare, count)


def test_mistakes_are_named():
    encode = untrained(small_vit())
    images, labels = gratings(12, seed=0)
    for train, test, options, message in (
        (images, images[:, :8], {}, "square images of one size"),
        (images[:9], images, {}, "at least 10"),
        (images, images, {"pool": "max"}, "mean, own"),
        (images, images, {"epochs": 0}, "epochs=0"),
        (images, images[:0], {}, "none: give some"),
    ):
        options = {"epochs": 1} | options
        with pytest.raises(UserError, match=message):
            ft.finetune(encode, train, labels[: len(train)], test, labels, CLASSES, scratch=True, base_lr=0.1,
                        **options)  # fmt: skip
    with pytest.raises(UserError, match="of one class"):
        ft.finetune(encode, images, 0 * labels, images, labels, CLASSES, scratch=True, epochs=1, base_lr=0.1)
