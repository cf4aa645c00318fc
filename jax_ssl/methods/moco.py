"""MoCo v1 and v2: find a query's key among past keys in a queue; keys are encoded by a slow copy of the network.

Paper: He et al. 2020, https://arxiv.org/abs/1911.05722, Alg. 1; v2 https://arxiv.org/abs/2003.04297
Code:  https://github.com/facebookresearch/moco, moco/builder.py
"""

import jax
import jax.numpy as jnp
from jax import lax

from jax_ssl import bounds
from jax_ssl.core import Method, two_views
from jax_ssl.errors import UserError
from jax_ssl.losses import info_nce, unit
from jax_ssl.losses.diagnostics import information, spread
from jax_ssl.models import apply
from jax_ssl.models.heads import Mlp, Projected, check_widths


def enqueue(queue, keys, step):
    """The queue (K, D) with its oldest rows replaced by keys (B, D). K is a multiple of B; the step says which rows."""
    batches = len(queue) // len(keys)  # remainder first: in a long run the product would pass 2^31
    return lax.dynamic_update_slice_in_dim(queue, keys, step % batches * len(keys), axis=0)


def make(backbone, clock, *, projector=(2048, 128), temperature=0.2, momentum=0.999, queue=65536,
         shuffle=True) -> Method:  # fmt: skip
    """projector (128,) and temperature 0.07 make v1, an MLP and 0.2 make v2. queue: number of past keys.

    shuffle: encode keys in another order. With grouped batch norm (`model.norm_groups`, the paper's eight devices) a
    query and its key then have different batch statistics, which would otherwise reveal the pair. No effect with one
    group.
    """
    check_widths(projector)
    bounds.bounded("method.", dict(temperature=temperature), above=0)
    bounds.bounded("method.", dict(momentum=momentum), at_least=0, at_most=1)
    bounds.whole("method.", dict(queue=queue))
    net = Projected(backbone, Mlp(projector))
    shuffled = shuffle and getattr(backbone, "norm_groups", 1) > 1

    def init(rng, batch):
        query, _ = two_views(batch)
        if queue % len(query):
            raise UserError(
                f"method.queue={queue} is not a multiple of batch_size={len(query)}: "
                f"take {max(queue // len(query), 1) * len(query)}."
            )
        params, stats = apply.init(net, rng, query)
        keys = unit(jax.random.normal(jax.random.fold_in(rng, 1), (queue, projector[-1])))
        # The teacher's statistics come from its own forward passes; its parameters alone are averaged.
        return params, {"stats": stats, "teacher_stats": stats, "queue": keys}

    def encode_keys(state, images, rng):
        order = jax.random.permutation(rng, len(images)) if shuffled else None
        images = images if order is None else images[order]
        key, stats = apply.train(net, state.teacher, state.extra["teacher_stats"], images, rng=rng)
        return lax.stop_gradient(key if order is None else key[jnp.argsort(order)]), stats

    def loss(params, state, batch, rng):
        extra, (query_rng, key_rng) = state.extra, jax.random.split(rng)
        query, stats = apply.train(net, params, extra["stats"], batch["views"][:, 0], rng=query_rng)
        key, teacher_stats = encode_keys(state, batch["views"][:, 1], key_rng)
        loss = info_nce(query, key, extra["queue"], temperature)
        new_queue = enqueue(extra["queue"], unit(key), state.step)  # after the loss, or a key would be its own negative
        metrics = {"uniform_loss": jnp.log(1.0 + queue)} | spread(query, key) | information(loss, 1 + queue)
        return loss, ({"stats": stats, "teacher_stats": teacher_stats, "queue": new_queue}, metrics)

    def show(params, state, batch, rng):
        query, _ = apply.train(net, params, state.extra["stats"], batch["views"][:, 0], rng=rng)
        key, _ = encode_keys(state, batch["views"][:, 1], rng)
        past = state.extra["queue"][: len(query)]
        return {  # positives are on the diagonal; similarities to the queue should show no pattern
            "query_key_similarity": unit(query) @ unit(key).T,
            "query_queue_similarity": unit(query) @ past.T,
        }

    schedule = lambda step: momentum
    return Method(
        init, loss, teacher=("backbone", "projector"), momentum=schedule, show=show, min_batch=2,
        curves={"teacher_momentum": schedule}, memories={"method.queue": queue},
    )  # fmt: skip
