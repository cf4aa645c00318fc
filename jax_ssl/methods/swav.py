"""SwAV: views of an image belong to the same clusters, which are learned online and balanced; small crops are cheap.

Paper: Caron et al. 2020, https://arxiv.org/abs/2006.09882, Sec. 3
Code:  https://github.com/facebookresearch/swav, main_swav.py, src/resnet50.py
"""

import jax
import jax.numpy as jnp
from einops import rearrange
from jax.lax import Precision, stop_gradient

from jax_ssl import bounds
from jax_ssl.core import Method, crop_groups
from jax_ssl.errors import UserError
from jax_ssl.losses import swapped_prediction, swav_targets, unit
from jax_ssl.losses.diagnostics import prototype_use, spread
from jax_ssl.models import apply
from jax_ssl.models.heads import Crops, Mlp, check_widths


def make(backbone, clock, *, projector=(2048, 128), prototypes=3000, temperature=0.1, epsilon=0.05, iterations=3,
         queue=0, queue_from_epoch=15.0, freeze_steps=313) -> Method:  # fmt: skip
    """prototypes: how many clusters. epsilon, iterations: of Sinkhorn-Knopp; iterations=0 lets clusters become empty.

    queue: how many earlier embeddings of each view take part in the assignment, for small batches; 0 = none. It is
    filled from the first step and used from `queue_from_epoch` on. freeze_steps: the prototypes are fixed in these
    first steps. Prototypes are normalised after every step by `optim.unit_rows=("prototypes",)`.
    """
    check_widths(projector)
    bounds.whole("method.", dict(prototypes=prototypes), at_least=2)
    bounds.whole("method.", dict(iterations=iterations, queue=queue, freeze_steps=freeze_steps), at_least=0)
    bounds.bounded("method.", dict(temperature=temperature, epsilon=epsilon), above=0)
    bounds.bounded("method.", dict(queue_from_epoch=queue_from_epoch), at_least=0)
    groups = getattr(backbone, "norm_groups", 1)
    net = Crops(backbone, Mlp(projector, norm=True, norm_groups=groups))

    def init(rng, batch):
        groups = crop_groups(batch)
        if queue % len(groups[0]):
            raise UserError(f"method.queue={queue} is not a multiple of batch_size={len(groups[0])}.")
        params, stats = apply.init(net, rng, groups)
        centres = unit(jax.random.normal(jax.random.fold_in(rng, 1), (prototypes, projector[-1])))
        return params | {"prototypes": centres}, {"stats": stats, "queue": jnp.zeros((2, queue, projector[-1]))}

    def embed(params, state, batch, rng):
        """Normalised embeddings of the large crops (2, B, D) and the small ones (L, B, D), and the batch statistics."""
        nets = {name: params[name] for name in ("backbone", "projector")}
        embedded, stats = apply.train(net, nets, state.extra["stats"], crop_groups(batch), rng=rng)
        embedded = rearrange(unit(embedded), "b v d -> v b d")
        return embedded[:2], embedded[2:], stats

    def compare(z, centres):
        return jnp.einsum("vbd,kd->vbk", z, centres, precision=Precision.HIGHEST)

    def loss(params, state, batch, rng):
        high, low, stats = embed(params, state, batch, rng)
        centres = params["prototypes"]
        centres = jnp.where(state.step < freeze_steps, stop_gradient(centres), centres)
        high_scores, low_scores = compare(high, centres), compare(low, centres)
        targets = assign(state, stop_gradient(high_scores), centres)
        value = swapped_prediction(targets, high_scores, low_scores, temperature)
        new_queue = jnp.concatenate([stop_gradient(high), state.extra["queue"]], axis=1)[:, :queue]  # newest first
        metrics = {"uniform_loss": jnp.log(float(prototypes))} | spread(high[0], high[1])
        predicted = jax.nn.softmax(high_scores[0] / temperature)  # targets use all prototypes even after a collapse
        metrics |= prototype_use(targets[0]) | {"prototype_use": prototype_use(predicted)["prototype_use"]}
        return value, ({"stats": stats, "queue": new_queue}, metrics)

    def assign(state, scores, centres):
        without_queue = lambda: swav_targets(scores, epsilon, iterations)
        if not queue:
            return without_queue()
        # The queue is full after this many steps; the official code checks that its last row is not zero.
        full = state.step >= queue // scores.shape[1]
        use_queue = full & (state.step >= queue_from_epoch * clock.steps_per_epoch)
        with_queue = lambda: swav_targets(
            scores, epsilon, iterations, compare(state.extra["queue"], stop_gradient(centres))
        )
        return jax.lax.cond(use_queue, with_queue, without_queue)

    def show(params, state, batch, rng):
        high, _, _ = embed(params, state, batch, rng)
        scores = compare(high, params["prototypes"])
        return {  # how images share the clusters, before and after the assignment is balanced
            "prototype_probabilities": jax.nn.softmax(scores[0] / temperature),
            "balanced_assignment": swav_targets(scores, epsilon, iterations)[0],
        }

    lengths = {"method.freeze_steps": freeze_steps}
    lengths |= {"method.queue_from_epoch": queue_from_epoch * clock.steps_per_epoch} if queue else {}
    return Method(init, loss, show=show, min_batch=2, guards={"method.iterations": iterations > 0}, lengths=lengths,
                  memories={"method.queue": queue})  # fmt: skip
