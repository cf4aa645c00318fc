"""DINO, iBOT and DINOv2 against the official numbers, against their definitions in float64, on a mesh and in chunks."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from jax_ssl import losses
from jax_ssl.plan import flops

HIGHEST = jax.lax.Precision.HIGHEST


@pytest.fixture
def golden(request):
    folder = request.config.rootpath / "tests" / "golden"
    return lambda name: {k: jnp.asarray(v) for k, v in np.load(folder / f"{name}.npz").items()}


def relative(found, expected):
    return np.linalg.norm(np.asarray(found) - expected) / np.linalg.norm(expected)


def softmax(x):
    x = np.exp(np.asarray(x, np.float64) - np.max(x, axis=-1, keepdims=True))
    return x / x.sum(-1, keepdims=True)


# ---- DINO


def test_dino_its_gradient_and_its_center_are_the_official_ones(golden):
    g = golden("dino")
    arguments = [g[key] for key in ("student", "teacher", "center", "student_temp", "teacher_temp")]
    loss, grads = jax.jit(jax.value_and_grad(losses.dino, (0, 1, 2)))(*arguments)
    np.testing.assert_allclose(loss, g["loss"], rtol=1e-5)
    assert relative(grads[0], g["dstudent"]) < 1e-5
    assert not grads[1].any() and not grads[2].any()
    center = losses.dino_center(g["center"], g["teacher"], g["center_momentum"])
    assert relative(center, g["new_center"]) < 1e-5


@pytest.mark.parametrize("views", [2, 5])
def test_dino_that_knows_nothing_is_log_k_with_any_number_of_crops(views):
    loss = losses.dino(jnp.zeros((views, 6, 30)), jnp.zeros((2, 6, 30)), jnp.zeros(30), 0.1, 0.04)
    np.testing.assert_allclose(loss, np.log(30), rtol=1e-6)


def test_no_view_is_compared_with_itself():
    student, teacher = jax.random.normal(jax.random.key(0), (2, 2, 4, 8))
    grad = jax.jit(jax.grad(lambda s, t: losses.dino(s, t, jnp.zeros(8), 0.1, 0.04)))
    other = teacher.at[0].set(0.0)  # the target of view 1 only
    moved = grad(student, teacher) - grad(student, other)
    assert not moved[0].any() and moved[1].any()


# ---- iBOT


def test_ibot_both_terms_and_both_centers_are_the_official_ones(golden):
    g = golden("ibot")
    views = jnp.concatenate([g["student_cls"], g["local_cls"]])
    image = losses.dino(views, g["teacher_cls"], g["center"], g["student_temp"], g["teacher_temp"])
    patch = losses.ibot_patch(
        g["student_patch"], g["teacher_patch"], g["mask"], g["patch_center"], g["student_temp"], g["teacher_patch_temp"]
    )
    np.testing.assert_allclose(image, g["cls_loss"], rtol=1e-5)
    np.testing.assert_allclose(patch, g["patch_loss"], rtol=1e-5)
    np.testing.assert_allclose(image + patch, g["loss_loss"], rtol=1e-5)
    assert relative(losses.dino_center(g["center"], g["teacher_cls"], 0.9), g["new_center"]) < 1e-5
    assert relative(losses.dino_center(g["patch_center"], g["teacher_patch"], 0.9), g["new_patch_center"]) < 1e-5


def test_ibot_gradient_is_that_of_the_definition(golden):
    g = golden("ibot")
    mask = np.asarray(g["mask"]).copy()
    mask[0, 3] = False  # a view without masked patches: zero, and still one of the 2 B
    loss = lambda s, t: losses.ibot_patch(s, t, jnp.asarray(mask), g["patch_center"], 0.1, 0.07)
    value, (grad, none) = jax.jit(jax.value_and_grad(loss, (0, 1)))(g["student_patch"], g["teacher_patch"])
    target = softmax((np.asarray(g["teacher_patch"], np.float64) - g["patch_center"]) / 0.07)
    predicted = softmax(np.asarray(g["student_patch"], np.float64) / 0.1)
    share = mask / np.maximum(mask.sum(-1, keepdims=True), 1) / mask[..., 0].size
    expected = -np.sum(share * np.sum(target * np.log(predicted), -1))
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    assert relative(grad, share[..., None] * (predicted - target) / 0.1) < 1e-5
    assert not none.any()


# ---- DINOv2


def test_dinov2_image_term_and_its_targets_are_the_official_ones(golden):
    g = golden("dinov2_cls")
    targets = losses.sinkhorn(g["teacher"], g["teacher_temp"], int(g["iterations"]))
    assert relative(targets, g["sinkhorn"]) < 1e-4
    np.testing.assert_allclose(targets, g["sinkhorn"], rtol=1e-4, atol=1e-8)
    targets = targets.reshape(2, 12, 40)
    views = jnp.concatenate([jnp.zeros((2, 12, 40)), g["student"]])  # two large crops that know nothing, eight small
    total = losses.view_cross_entropy(views, targets, 0.1) * 18 - 2 * np.log(40)
    np.testing.assert_allclose(total, g["loss"], rtol=1e-5)  # the official one is the sum over 8 crops and 2 targets


def test_dinov2_patch_term_and_its_targets_are_the_official_ones_padded_or_not(golden):
    g = golden("dinov2_patch")
    targets = losses.sinkhorn(g["teacher_masked"], g["teacher_temp"], 3)
    np.testing.assert_allclose(targets, g["sinkhorn"], rtol=1e-4, atol=1e-8)
    loss = lambda s, t: losses.masked_cross_entropy(s, t, g["mask"])
    value, grad = jax.jit(jax.value_and_grad(loss))(g["student_masked"], g["sinkhorn"])
    np.testing.assert_allclose(value, g["loss"], rtol=1e-5)
    np.testing.assert_allclose(loss(g["student_masked"], targets), g["loss"], rtol=1e-4)
    pad = lambda x: jnp.concatenate([x, jnp.full((7, 40), 5.0)])
    real = jnp.arange(37) < 30
    padded = losses.sinkhorn(pad(g["teacher_masked"]), g["teacher_temp"], 3, mask=real)
    np.testing.assert_allclose(padded[:30], targets, rtol=1e-5)
    assert not padded[30:].any()
    value_padded, grad_padded = jax.jit(jax.value_and_grad(loss))(pad(g["student_masked"]), padded)
    np.testing.assert_allclose(value_padded, g["loss"], rtol=1e-4)
    assert relative(grad_padded[:30], grad) < 1e-4 and not grad_padded[30:].any()


def test_dinov2_patch_gradient_is_that_of_the_definition(golden):
    g = golden("dinov2_patch")
    grad = jax.jit(jax.grad(losses.masked_cross_entropy))(g["student_masked"], g["sinkhorn"], g["mask"])
    image = np.nonzero(np.asarray(g["mask"]))[0]
    share = 1 / (np.asarray(g["mask"]).sum(1)[image] * 12)
    expected = share[:, None] * (softmax(np.asarray(g["student_masked"]) / 0.1) - g["sinkhorn"]) / 0.1
    assert relative(grad, expected) < 1e-5


def test_a_batch_without_any_masked_patch_gives_zero_and_finite_targets():
    mask = jnp.zeros((3, 4), bool)
    targets = losses.sinkhorn(jax.random.normal(jax.random.key(0), (5, 6)), 0.06, 3, mask=jnp.zeros(5, bool))
    assert not targets.any()
    value, grad = jax.jit(jax.value_and_grad(losses.masked_cross_entropy))(jnp.ones((5, 6)), targets, mask)
    assert value == 0 and not grad.any()


def test_masked_patches_are_weighed_by_their_own_image():
    mask = jnp.array([[0, 0, 0], [1, 0, 1], [0, 0, 0], [0, 1, 0]], bool)
    np.testing.assert_allclose(losses.patch_weights(mask, 5), [1 / 8, 1 / 8, 1 / 4, 0, 0])


# ---- KoLeo


def test_koleo_and_its_gradient_are_the_official_ones(golden):
    g = golden("koleo")
    loss, grad = jax.jit(jax.value_and_grad(losses.koleo))(g["x"])
    np.testing.assert_allclose(loss, g["loss"], rtol=1e-5)
    assert relative(grad, g["dx"]) < 1e-5


def test_koleo_pushes_the_nearest_apart_and_stays_finite_for_equal_rows():
    x = jnp.array([[1.0, 0.0], [0.8, 0.6], [-1.0, 0.1]])
    step = x - 0.01 * jax.jit(jax.grad(losses.koleo))(x)
    assert jnp.sum(losses.unit(step)[0] * losses.unit(step)[1]) < 0.8
    value, grad = jax.jit(jax.value_and_grad(losses.koleo))(jnp.ones((3, 4)))
    assert jnp.isfinite(value) and jnp.isfinite(grad).all()


# ---- of all of them


def distillation(student, teacher, patches, targets, mask):
    """Every loss of the file in one number; images are the leading axis of each array."""
    views_first = lambda x: jnp.moveaxis(x, 1, 0)
    student, teacher, patches, targets, mask = map(views_first, (student, teacher, patches, targets, mask))
    prototypes = student.shape[-1]
    rows = lambda x: x[0].reshape(-1, prototypes)[:24]
    center = jnp.linspace(-1, 1, prototypes)
    return (
        losses.dino(student, teacher, losses.dino_center(center, teacher, 0.9), 0.1, 0.3)
        + losses.ibot_patch(patches, targets, mask, center, 0.1, 0.3)
        + losses.masked_cross_entropy(rows(patches), losses.sinkhorn(rows(targets), 0.5, 3), mask[0])
        + losses.koleo(student[0])
    )


def inputs(dtype=jnp.float32):
    key = jax.random.split(jax.random.key(0), 5)
    draw = lambda key, *shape: jax.random.normal(key, shape, dtype)
    mask = jax.random.bernoulli(key[4], 0.4, (16, 2, 4))
    views, patches = [draw(key[0], 16, 5, 12), draw(key[1], 16, 2, 12)], [draw(k, 16, 2, 4, 12) for k in key[2:4]]
    return [*views, *patches, mask]


@pytest.mark.parametrize("shape", [(8, 1), (4, 2)])
def test_the_same_on_a_mesh(shape):
    function = jax.jit(jax.value_and_grad(distillation, (0, 2)))
    loss, expected = function(*inputs())
    mesh = Mesh(np.array(jax.devices()).reshape(shape), ("data", "fsdp"))
    split = NamedSharding(mesh, P(("data", "fsdp")))
    on_mesh, grads = function(*(jax.device_put(x, split) for x in inputs()))
    np.testing.assert_allclose(on_mesh, loss, rtol=1e-5)
    for ours, theirs in zip(grads, expected):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)


def test_half_precision_inputs_are_computed_in_fp32():
    halves = inputs(jnp.bfloat16)
    loss = jax.jit(distillation)(*halves)
    assert loss.dtype == jnp.float32
    fulls = [x.astype(jnp.float32) for x in halves[:4]]
    np.testing.assert_allclose(loss, jax.jit(distillation)(*fulls, halves[4]), rtol=1e-6)


def test_matrices_are_multiplied_at_highest_precision():
    text = str(jax.make_jaxpr(losses.koleo)(jnp.ones((4, 3))))
    assert text.count("dot_general[") == text.count("precision=(Precision.HIGHEST, Precision.HIGHEST)") > 0


# ---- in chunks


def dino_of_embeddings(count):
    """DINO of embeddings (V, B, D) and prototypes (K, D), in so many chunks of the images; 0 = plainly."""

    def loss(student, prototypes, teacher):
        scores = lambda z: jnp.matmul(z, prototypes.T, precision=HIGHEST)
        dino = lambda s, t: losses.dino(scores(s), scores(t), jnp.zeros(len(prototypes)), 0.1, 0.04)
        if not count:
            return dino(student, teacher)
        return losses.sum_in_chunks(dino, count, student, teacher, axis=1) / count

    return jax.jit(jax.value_and_grad(loss, (0, 1)))


def embeddings(images, width, prototypes):
    draw = lambda i, *shape: losses.unit(jax.random.normal(jax.random.key(i), shape))
    return draw(0, 4, images, width), draw(1, prototypes, width), draw(2, 2, images, width)


def test_sum_in_chunks_value_and_gradients_are_the_same_and_the_memory_is_a_share():
    arguments = embeddings(32, 8, 2048)
    plain, chunked = (dino_of_embeddings(count).lower(*arguments).compile() for count in (0, 8))
    loss, expected = plain(*arguments)
    value, grads = chunked(*arguments)
    np.testing.assert_allclose(value, loss, rtol=1e-5)
    assert relative(grads[0], expected[0]) < 1e-5 and relative(grads[1], expected[1]) < 1e-5
    stored = plain.memory_analysis().temp_size_in_bytes
    scores = 4 * 4 * 32 * 2048  # bytes of the student's scores alone
    assert stored > scores
    assert chunked.memory_analysis().temp_size_in_bytes < min(stored / 4, scores)


@pytest.mark.parametrize("wrap", [lambda f: f, jax.jit, jax.checkpoint], ids=["plain", "jit", "checkpoint"])
def test_sum_in_chunks_takes_what_has_no_gradient_and_keeps_dtypes(wrap):
    """Labels in the chunks, an integer around them, and embeddings of half precision that are used twice."""
    z, labels = jax.random.normal(jax.random.key(0), (8, 3)).astype(jnp.bfloat16), jnp.arange(8) % 3

    def loss(z, scale, step, count):
        part = lambda z, y: jnp.sum(scale * jnp.take_along_axis(z, y[:, None], 1).astype(jnp.float32) ** step)
        return (sum_up(part, count, z, labels) + z.astype(jnp.float32).sum()) * 2

    sum_up = lambda part, count, *rows: losses.sum_in_chunks(part, count, *rows) if count else part(*rows)
    found, expected = (
        jax.jit(jax.value_and_grad(wrap(lambda z, s, count=count: loss(z, s, labels[2], count)), (0, 1)))(z, 3.0)
        for count in (4, 0)
    )
    for ours, theirs in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert ours.dtype == theirs.dtype
        np.testing.assert_allclose(np.float32(ours), np.float32(theirs), rtol=1e-2)


def test_sum_in_chunks_computes_nothing_twice():
    arguments = embeddings(32, 8, 2048)
    plain, chunked = (flops.count(jax.make_jaxpr(dino_of_embeddings(count))(*arguments)) for count in (0, 8))
    assert chunked == plain > 0


def test_sum_in_chunks_on_a_mesh_is_the_same_and_every_device_has_a_part_of_each_chunk():
    arguments = embeddings(32, 8, 48)
    loss, expected = dino_of_embeddings(0)(*arguments)
    mesh = Mesh(np.array(jax.devices()).reshape(4, 2), ("data", "fsdp"))
    images, whole = NamedSharding(mesh, P(None, ("data", "fsdp"))), NamedSharding(mesh, P())
    placed = [jax.device_put(x, s) for x, s in zip(arguments, (images, whole, images))]
    compiled = dino_of_embeddings(4).lower(*placed).compile()
    value, grads = compiled(*placed)
    np.testing.assert_allclose(value, loss, rtol=1e-5)
    for ours, theirs in zip(grads, expected):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)
    text = compiled.as_text()
    assert not any(name in text for name in ("all-to-all", "collective-permute", "all-gather"))


def test_the_patch_term_in_chunks_sums_to_the_whole():
    g = jax.random.normal(jax.random.key(0), (2, 12, 20))
    mask = jax.random.bernoulli(jax.random.key(1), 0.3, (4, 6)).at[2].set(False)
    targets, weights = jax.nn.softmax(g[1]), losses.patch_weights(mask, 12)
    part = lambda s, t, w: jnp.sum(w * losses.cross_entropy(s, t, 0.1))
    found = losses.sum_in_chunks(part, 3, g[0], targets, weights)
    np.testing.assert_allclose(found, losses.masked_cross_entropy(g[0], targets, mask), rtol=1e-5)


def test_chunks_that_do_not_come_out_even_are_refused():
    with pytest.raises(ValueError, match="10 rows cannot be cut into 4"):
        losses.sum_in_chunks(jnp.sum, 4, jnp.ones((10, 2)))
