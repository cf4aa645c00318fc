"""CPC: cut an image into patches that overlap, and find from the rows above what a patch further down looks like.

Paper: van den Oord et al. 2018, https://arxiv.org/abs/1807.03748, Sec. 3.3 (v1)
       Henaff et al. 2019, https://arxiv.org/abs/1905.09272 (v2: four directions, LayerNorm, each patch augmented)
Code:  none was released; this follows the pseudo-code of v2's appendix, and its loss is that of
       https://github.com/Lightning-AI/lightning-bolts, CPCTask
"""

import jax
import jax.numpy as jnp

from jax_ssl import bounds
from jax_ssl.core import Method, Task, one_view
from jax_ssl.errors import UserError
from jax_ssl.losses import cpc
from jax_ssl.losses.contrastive import HIGHEST
from jax_ssl.losses.diagnostics import feature_std, information
from jax_ssl.models import apply
from jax_ssl.models import candidates as among
from jax_ssl.models import input_stage as stages
from jax_ssl.models import squares as change
from jax_ssl.models.context import Cpc

SHOWN = 6  # candidates of a query in a picture


def input_stage(backbone, *, patch=64, stride=32, **_):
    """Features are the mean over the patches of an image; the context network is thrown away."""
    bounds.whole("method.", dict(patch=patch, stride=stride))
    return stages.Patches(backbone, patch, stride)


def make(backbone, clock, *, patch=64, stride=32, offsets=4, directions=4, context_depth=5, context_width=256,
         target_width=64, embed_scale=0.1, jitter=0, mirror=0.5, channel_drop=0.8, relight=0.2,
         warp=0.0) -> Method:  # fmt: skip
    """patch, stride: side of a patch and from one to the next, in pixels. offsets: how many rows below are predicted,
    from the first that shares no pixel with what was seen. directions: 1 is down, 2 and up, 4 all. context_depth,
    context_width: of the masked network. target_width: of what is compared, 0 = the encoder's own vectors; embed_scale:
    factor on the scores. The rest changes each patch on its own. jitter: pixels by which a smaller part of it moves;
    mirror, channel_drop: shares that are mirrored, or keep one channel; relight: most change of contrast and
    brightness; warp: degrees of turn and shear, at most.
    """
    stage = input_stage(backbone, patch=patch, stride=stride)
    bounds.whole("method.", dict(offsets=offsets, context_depth=context_depth, context_width=context_width))
    bounds.whole("method.", dict(target_width=target_width, jitter=jitter), at_least=0)
    bounds.one_of("method.", dict(directions=directions), (1, 2, 4))
    bounds.bounded("method.", dict(embed_scale=embed_scale), above=0)
    bounds.bounded("method.", dict(mirror=mirror, channel_drop=channel_drop), at_least=0, at_most=1)
    bounds.bounded("method.", dict(relight=relight), at_least=0, below=1)
    bounds.bounded("method.", dict(warp=warp), at_least=0, below=45)
    first = -(-patch // stride)  # rows below, from which on no pixel is shared
    if jitter and jitter >= patch:
        raise UserError(f"method.jitter={jitter} leaves nothing of method.patch={patch}: take less.")
    net = Cpc(backbone, directions, context_depth, context_width, offsets, target_width)

    def starts(images):
        """First rows and columns of the patches. Raises UserError where nothing can be predicted."""
        stage.side(min(images.shape[1:3]))
        rows, columns = (stage.starts(side) for side in images.shape[1:3])
        if len(rows) < first + offsets:
            raise UserError(
                f"CPC predicts patches up to {first + offsets - 1} rows below, and the grid of method.patch={patch}, "
                f"{stride} apart, on {images.shape[1]} pixels is {len(rows)} x {len(columns)}: take a smaller patch or "
                f"method.stride{', or fewer method.offsets' * (offsets > 1)}."
            )
        return rows, columns

    def cut(images):
        """The patches as they are, (B, N, patch, patch, 3), and in how many rows."""
        rows, columns = starts(images)
        return stages.cut(images, rows, columns, patch), len(rows)

    def changed(rng, images):
        """The patches as they are trained on, each changed on its own, and in how many rows."""
        keys, places = jax.random.split(rng, 5), starts(images)
        patches = change.cut_jittered(keys[0], images, *places, patch, jitter) if jitter else cut(images)[0]
        patches = change.warped(keys[1], change.mirrored(keys[2], patches, mirror), warp)
        return change.one_channel(keys[3], change.relit(keys[4], patches, relight), channel_drop), len(places[0])

    def init(rng, batch):
        params, stats = apply.init(net, rng, *cut(one_view(batch)))
        return params, {"stats": stats}

    def loss(params, state, batch, rng):
        images, (augment, dropped, drawn) = batch["views"][:, 0], jax.random.split(rng, 3)
        patches, rows = changed(augment, images)
        stats = state.extra["stats"]
        (preds, targets, z), stats = apply.train(net, params, stats, patches, rows, rng=dropped)
        each = jax.checkpoint(cpc, static_argnums=(2, 3))  # the scores of all directions would be gigabytes
        values = [
            jnp.mean(jnp.stack([each(p[..., step, :], t, first + step, embed_scale) for p, t in zip(preds, targets)]))
            for step in range(offsets)
        ]
        count = targets[0, ..., 0].size
        metrics = {"uniform_loss": jnp.log(float(count)), "feature_std": feature_std(z.reshape(-1, z.shape[-1]))}
        metrics |= information(values[0], count) | {"patches_found": among.found(first_step(preds, targets, drawn)[0])}
        return jnp.mean(jnp.stack(values)), ({"stats": stats}, metrics)

    def first_step(preds, targets, rng):
        """Scores of the candidates for the first offset downwards, (B, Q, C), and which they are."""
        drawn = among.draw_candidates(rng, *targets.shape[1:4], first)
        flat = lambda grid: grid.reshape(len(grid), -1, grid.shape[-1]).astype(jnp.float32)
        product = lambda q, p: jnp.einsum("bqd,bkd->bqk", q, p, precision=HIGHEST)
        queries = preds[0, :, : targets.shape[2] - first, :, 0]
        return among.score_candidates(product, flat(queries), flat(targets[0]), drawn), drawn

    def predict(params, state, images, rng):
        preds, targets, _ = net.apply({"params": params, **state.extra["stats"]}, *cut(images))
        return first_step(preds, targets, rng)

    def measure(params, state, batch, rng):
        return {"accuracy": among.found(predict(params, state, batch["views"][:, 0], rng)[0])}

    def by_colour(batches, rng, linear):
        """The baseline: the candidate nearest in colour to the last patch that is seen; it learns nothing."""

        def solve(batch, rng):
            squares, rows = cut(batch["views"][:, 0])
            columns = squares.shape[1] // rows
            drawn = among.draw_candidates(rng, len(squares), rows, columns, first)
            return {"accuracy": among.found(among.nearest_colour(squares, columns, drawn))}

        return solve

    def show(params, state, batch, rng):
        """What is seen of an image; the patch that comes below it, and then the best of the candidates."""
        images = batch["views"][:, 0]
        scores, drawn = predict(params, state, images, rng)
        squares, rows = cut(images)
        columns, row = squares.shape[1] // rows, (rows - first) // 2
        query = row * columns + columns // 2
        best = jax.lax.top_k(scores[:8, query], min(SHOWN, scores.shape[2]))[1]
        image, place = (jnp.take_along_axis(x[:8, query], best, axis=1) for x in among.places_of(drawn))
        seen = jnp.arange(images.shape[1]) < stage.starts(images.shape[1])[row] + patch
        return {
            "seen": jnp.where(seen[:, None, None], images[:8], 0.0)[:, None],
            "patches": jnp.concatenate([squares[:8, drawn.right[query]][:, None], squares[image, place]], axis=1),
            "right": best == scores.shape[2] - 1,
        }

    protocol = dict(offset=first, candidates=among.CANDIDATES)
    chance = {"accuracy": 1 / among.CANDIDATES}
    task = Task(measure, chance=chance, baselines={"nearest colour": by_colour}, protocol=protocol)
    return Method(init, loss, show=show, min_batch=2, task=task)
