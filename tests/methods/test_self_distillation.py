"""DINO, iBOT, DINOv2 and I-JEPA as whole methods, against their losses on all scores at once, written out plainly."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from einops import rearrange

from jax_ssl import __main__ as command
from jax_ssl import core, losses, masking, parts, train
from jax_ssl.errors import UserError
from jax_ssl.methods import ijepa
from jax_ssl.models import heads
from jax_ssl.models.predictor import Predictor
from jax_ssl.models.prototypes import DinoHead, matrix, scores
from tests.methods.test_contract import first_batch
from tests.small import small

pytestmark = pytest.mark.usefixtures("kept_by_nobody")
KEY = jax.random.key(5)


def started(name, *more):
    """(config, method, a state with a teacher and centers of its own, views) of a method at its small size."""
    config, method, tx, batch = first_batch(name, *more)
    state = jax.jit(lambda b: core.create(method, tx, jax.random.key(0), b))(batch)
    teacher = jax.tree.map(
        lambda p: np.asarray(p) + 0.02 * np.cos(np.arange(p.size, dtype=p.dtype)).reshape(p.shape), state.teacher
    )
    center = lambda name, x: 0.1 * np.sin(np.arange(x.size, dtype=x.dtype)) if "center" in name else x
    extra = {name: center(name, x) for name, x in state.extra.items()}
    return config, method, state.replace(teacher=teacher, extra=extra, step=jnp.int32(2)), batch


def tokens(config, patches_of_their_own):
    """The network of iBOT and DINOv2 without chunks or bounds."""
    m = config.method
    head = DinoHead(m.prototypes, m.hidden, m.bottleneck, m.get("norm_last_layer", False))
    other = DinoHead(m.get("patch_prototypes", m.prototypes), m.hidden, m.get("patch_bottleneck", m.bottleneck),
                     m.get("norm_last_layer", False))  # fmt: skip
    return heads.Tokens(parts.make_backbone(config), head, other if patches_of_their_own else None)


def everything(config, state, batch, mask):
    """All scores of student and teacher, images (V, B, K) and patches (2, B, N, K), and the student's features."""
    net, groups = tokens(config, True), [batch["views"], batch["local"]]
    every = jnp.broadcast_to(jnp.arange(mask.shape[-1]), mask.shape)
    run = jax.jit(lambda params, groups, mask: net.apply({"params": params}, groups, mask, every))
    images, patches, pooled = run(state.params, groups, mask)
    their_images, their_patches, _ = run(state.teacher, groups[:1], None)
    compare = lambda z, params, name: scores(jnp.moveaxis(z, 1, 0), matrix(params[name]))
    student = compare(images, state.params, "projector"), compare(patches, state.params, "patch_projector")
    teacher = (
        compare(their_images, state.teacher, "projector"),
        compare(their_patches, state.teacher, "patch_projector"),
    )
    return student, teacher, pooled


def drawn(ratios, key, batch, patch, smallest):
    """(B, 2, N) bool: what hides int(ratio * N) patches of each large crop."""
    views = batch["views"]
    grid = (views.shape[2] // patch, views.shape[3] // patch)
    hidden = (ratios * grid[0] * grid[1]).astype(jnp.int32)
    scores = jax.jit(lambda hidden: masking.block_scores(key, 2 * len(views), grid, hidden, smallest=smallest))
    return rearrange(masking.hide(scores(hidden), hidden), "(b v) n -> b v n", v=2)


@pytest.mark.seal(2, "dino")
def test_dino_is_its_loss_on_all_scores_and_moves_its_center_afterwards():
    config, method, state, batch = started("dino")
    value, (extra, _) = jax.jit(method.loss)(state.params, state, batch, KEY)
    m = config.method
    net = heads.Crops(parts.make_backbone(config), DinoHead(m.prototypes, m.hidden, m.bottleneck, m.norm_last_layer))
    groups = [batch["views"], batch["local"]]
    run = jax.jit(lambda params, groups: jnp.moveaxis(net.apply({"params": params}, groups), 1, 0))
    student = scores(run(state.params, groups), matrix(state.params["projector"]))
    teacher = scores(run(state.teacher, groups[:1]), matrix(state.teacher["projector"]))
    expected = losses.dino(student, teacher, state.extra["center"], m.student_temp, m.teacher_temp)
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    center = losses.dino_center(state.extra["center"], teacher, m.center_momentum)
    np.testing.assert_allclose(extra["center"], center, rtol=1e-4, atol=1e-6)
    off = first_batch("dino", "--config.method.centring=False")[1]
    kept = jax.jit(off.loss)(state.params, state, batch, KEY)[1][0]["center"]
    np.testing.assert_array_equal(kept, state.extra["center"])


@pytest.mark.seal(2, "ibot")
def test_ibot_is_its_two_losses_on_all_scores_and_centers_on_all_patches():
    config, method, state, batch = started("ibot")
    value, (extra, metrics) = jax.jit(method.loss)(state.params, state, batch, KEY)
    m = config.method
    ratios = masking.mixed_ratios(KEY, 2 * len(batch["views"]), m.mask_ratio, m.mask_spread)
    mask = drawn(ratios, KEY, batch, config.model.patch, smallest=1)
    student, teacher, _ = everything(config, state, batch, mask)
    image = losses.dino(student[0], teacher[0], state.extra["center"], m.student_temp, m.teacher_temp)
    patch_temp = m.teacher_patch_temp if not m.warmup_teacher_epochs else m.warmup_teacher_patch_temp
    patch = losses.ibot_patch(student[1], teacher[1], jnp.moveaxis(mask, 1, 0), state.extra["patch_center"],
                              m.student_temp, patch_temp)  # fmt: skip
    np.testing.assert_allclose(metrics["image_loss"], image, rtol=1e-5)
    np.testing.assert_allclose(metrics["patch_loss"], patch, rtol=1e-5)
    np.testing.assert_allclose(value, image + patch, rtol=1e-5)
    for name, rows in (("center", teacher[0]), ("patch_center", teacher[1])):
        expected = losses.dino_center(state.extra[name], rows, m.center_momentum)
        np.testing.assert_allclose(extra[name], expected, rtol=1e-4, atol=1e-6)


@pytest.mark.seal(2, "dinov2")
def test_dinov2_is_its_three_losses_on_all_scores():
    config, method, state, batch = started("dinov2")
    value, (_, metrics) = jax.jit(method.loss)(state.params, state, batch, KEY)
    m, count = config.method, 2 * len(batch["views"])
    ratios, blocks = jax.random.split(KEY)
    mask = drawn(masking.stratified_ratios(ratios, count, 0.5, 0.1, 0.5), blocks, batch, config.model.patch, smallest=4)
    student, teacher, pooled = everything(config, state, batch, mask)
    flat = lambda x: x.reshape(-1, x.shape[-1])
    targets = losses.sinkhorn(flat(teacher[0]), m.teacher_temp, 3).reshape(teacher[0].shape)
    image = losses.view_cross_entropy(student[0], targets, m.student_temp)
    hidden = np.asarray(mask).reshape(count, -1)
    rows = lambda x: jnp.moveaxis(x, 0, 1).reshape(count, -1, x.shape[-1])[hidden]
    patch = losses.masked_cross_entropy(rows(student[1]), losses.sinkhorn(rows(teacher[1]), m.teacher_temp, 3), hidden)
    groups = [losses.koleo(pooled[i : i + 8, view]) for view in (0, 1) for i in range(0, len(pooled), 8)]
    apart = 2 * np.mean(groups)
    np.testing.assert_allclose(metrics["image_loss"], image, rtol=1e-4)
    np.testing.assert_allclose(metrics["patch_loss"], patch, rtol=1e-4)
    np.testing.assert_allclose(metrics["koleo_loss"], apart, rtol=1e-4)
    np.testing.assert_allclose(value, image + patch + 0.1 * apart, rtol=1e-4)


@pytest.mark.seal(2, "dinov2")
def test_dinov2_with_a_moving_mean_centers_on_images_and_on_hidden_patches():
    config, method, state, batch = started("dinov2", "--config.method.centring=mean")
    _, (extra, _) = jax.jit(method.loss)(state.params, state, batch, KEY)
    ratios, blocks = jax.random.split(KEY)
    count = 2 * len(batch["views"])
    mask = drawn(masking.stratified_ratios(ratios, count, 0.5, 0.1, 0.5), blocks, batch, config.model.patch, smallest=4)
    _, teacher, _ = everything(config, state, batch, mask)
    hidden = np.asarray(mask).reshape(count, -1)
    rows = jnp.moveaxis(teacher[1], 0, 1).reshape(count, -1, teacher[1].shape[-1])[hidden]
    for name, given in (("center", teacher[0]), ("patch_center", rows)):
        expected = losses.dino_center(state.extra[name], given, 0.9)
        np.testing.assert_allclose(extra[name], expected, rtol=1e-4, atol=1e-6)


@pytest.mark.seal(2, "ijepa")
def test_ijepa_targets_are_the_teachers_normalised_features_and_padding_counts_for_nothing():
    config, method, state, batch = started("ijepa")
    value, _ = jax.jit(method.loss)(state.params, state, batch, KEY)
    images, m, patch = batch["views"][:, 0], config.method, config.model.patch
    grid = (images.shape[1] // patch, images.shape[2] // patch)
    kept = max(1, int(m.context_kept * grid[0] * grid[1]))
    draw = lambda key: masking.multi_block(
        key, len(images), grid, m.targets, m.target_scale, m.target_ratio, m.context_scale, kept
    )
    context, target, weight = jax.jit(draw)(KEY)
    net = parts.make_backbone(config)
    features = jax.jit(net.apply)({"params": state.teacher["backbone"]}, images).patches
    mean, std = features.mean(-1, keepdims=True), jnp.sqrt(features.var(-1, keepdims=True) + 1e-5)
    goal = jnp.stack([whole[at] for whole, at in zip((features - mean) / std, target)])
    predictor = Predictor(m.predictor_width, m.predictor_depth, m.predictor_heads, net.width, initial=net.initial)
    real = int(weight.sum())  # as if the largest size had never been padded to
    apply = jax.jit(ijepa.Net(net, predictor).apply)
    predicted = apply({"params": state.params}, images, context, target[:, :, :real])
    assert real < target.shape[-1], "take another key: this one draws the largest size"
    np.testing.assert_allclose(value, losses.smooth_l1(predicted, goal[:, :, :real]), rtol=1e-5)
    assert (weight[:real] == 1).all() and not weight[real:].any()


def test_the_teacher_sees_every_patch_and_drops_no_branch():
    """What is hidden or dropped is the student's: another key changes the student's loss and not the targets."""
    _, method, state, batch = started("ibot", "--config.method.centring=True", "--config.model.drop_path=0.3")
    centers = [jax.jit(method.loss)(state.params, state, batch, jax.random.key(k))[1][0]["center"] for k in (0, 1)]
    np.testing.assert_array_equal(*centers)


@pytest.mark.parametrize("name", ["dino", "ibot", "dinov2"])
def test_a_batch_that_chunks_do_not_divide_is_refused(name):
    for chunks in (5, 0):
        with pytest.raises(UserError, match="chunks"):
            started(name, f"--config.method.chunks={chunks}")


@pytest.mark.parametrize("name, wrong, complaint", [
    ("ijepa", "method.predictor_heads=5", "multiple of 4 and of method.predictor_heads=5"),
    ("ijepa", "method.target_scale=0.2", "must be two numbers, the least and the most"),
    ("dinov2", "method.mask_ratio=0.3", "must be two numbers"),
    ("dinov2", "method.prototypes=1", "prototypes=1 must be a whole number of at least 2"),
    ("ibot", "method.teacher_temp=0.0", "teacher_temp=0.0 must be above 0"),
    ("ibot", "method.mask_spread=(0.2,)", "as many of each"),
    ("dinov2", "micro_batch=8", "micro_batch is not for DINOv2"),
    ("ijepa", "model.pool=cls", "has patches and no class token"),
])  # fmt: skip
def test_settings_that_make_no_sense_are_said_in_one_sentence(name, wrong, complaint):
    with pytest.raises(UserError, match=complaint):
        train.build(small(name, f"--config.{wrong}"), 100)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("switches, diagnosis", [
    ((), ""),
    (("--config.method.centring=False",), "share one prototype.*try restoring method.centring"),
    (("--config.method.teacher_temp=0.1", "--config.method.warmup_teacher_temp=0.1"),
     "targets are uniform.*try restoring method.teacher_temp < method.student_temp"),
])  # fmt: skip
def test_the_doctor_tells_one_prototype_from_a_uniform_target(switches, diagnosis, seed, tmp_path):
    """Without centring all images come to share a prototype; without sharpening none has one."""
    flags = [f"--config.seed={seed}", "--config.evaluate_at_end=False", "--config.probe_every=0", *switches]
    assert command.main(["train", "--config=dino:tiny", f"--workdir={tmp_path}", *flags]) == 0
    log = (tmp_path / "log.txt").read_text()
    assert bool(re.search(f"dino looks collapsed.*{diagnosis}", log)) == bool(diagnosis), log
