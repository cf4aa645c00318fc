"""Context encoder: paint the hole in an image from what is around it, and fool a critic that sees paintings and photos.

Paper: Pathak et al. 2016, https://arxiv.org/abs/1604.07379, Eq. 1 to 3
Code:  https://github.com/pathak22/context-encoder, train.lua (centre), train_random.lua (random regions)
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange

from jax_ssl import bounds, losses, masking
from jax_ssl.core import Method, Task, one_view
from jax_ssl.errors import UserError
from jax_ssl.models import apply, dcgan, painting

FILL = 2 * np.array([117.0, 104.0, 123.0], np.float32) / 255 - 1  # what stands in a hole, of pixels from -1 to 1
BYTES = 2**29  # of training images, at most, among which the baseline looks for a similar one


class Net(nn.Module):
    """images (B, S, S, 3) -> a painting of the hole (B, h, h, 3), or of the whole image."""

    backbone: nn.Module
    bottleneck: int
    widths: tuple[int, ...]

    @nn.compact
    def __call__(self, images, train: bool = False):
        patches = self.backbone(images, train).patches
        rows = round(patches.shape[1] ** 0.5)
        places = rearrange(patches, "b (h w) d -> b h w d", h=rows)
        dtype = self.backbone.dtype
        if self.bottleneck:
            return dcgan.Painter(self.bottleneck, self.widths, dtype, name="painter")(places, train)
        return painting.Painter(self.widths, images.shape[1] // rows, dtype, name="painter")(places, train)


def make(backbone, clock, *, region="centre", hole=64, overlap=4, density=0.25, cells=8, bottleneck=4000,
         painter=(512, 256, 128, 64), critic=(64, 128, 256, 512), share=0.999) -> Method:  # fmt: skip
    """region: `centre`, a square of `hole` pixels that is painted, `overlap` pixels of its border seen and weighed ten
    times; or `random`, blotches over `density` of the image, `cells` side by side, where the whole image is painted and
    what is seen weighs ten times if there is any `overlap`. share: of the squared error; 1 = no critic.
    bottleneck: width of the one vector an image, which `painter` doubles to pixels (maps of 4, 8 ... pixels); 0 = each
    place of the last map paints its square, behind convolutions of widths `painter`. critic: widths of its maps.
    """
    bounds.one_of("method.", dict(region=region), ("centre", "random"))
    bounds.whole("method.", dict(hole=hole, cells=cells, painter=tuple(painter), critic=tuple(critic)))
    bounds.whole("method.", dict(overlap=overlap, bottleneck=bottleneck), at_least=0)
    bounds.bounded("method.", dict(density=density), above=0, below=1)
    bounds.bounded("method.", dict(share=share), above=0, at_most=1)
    if 2 * overlap >= hole:
        raise UserError(f"method.overlap={overlap} on each side leaves nothing of method.hole={hole}: take less.")
    if bottleneck and not painter:
        raise UserError("method.painter=() has no map to double: give the widths of its maps, or method.bottleneck=0.")
    net, centre = Net(backbone, bottleneck, tuple(painter)), region == "centre"
    judge_net = dcgan.Critic(tuple(critic), backbone.dtype)

    def check(side):
        painted = hole if centre else side
        if painted > side:
            raise UserError(f"method.hole={hole} is larger than the images of {side} pixels: take {side // 2}.")
        made = dcgan.Painter(bottleneck, tuple(painter)).side() if bottleneck else painted
        if made != painted:
            raise UserError(f"method.painter={bounds.shown(painter)} paints {made} pixels, not {painted}: change it.")
        if share < 1 and painted % 2 ** len(critic):
            raise UserError(f"method.critic={bounds.shown(critic)} can't halve {painted} pixels so often: take fewer.")

    def cover(rng, images):
        """(images with the hole filled, which pixels are hidden (S, S), how much each painted pixel counts)."""
        side = images.shape[1]
        if centre:
            hidden, weight = masking.centre_square(side, hole - 2 * overlap), losses.hole_weight(hole, overlap)
        else:
            hidden = masking.region(rng, side, density, cells)
            weight = jnp.where(hidden, 1.0, losses.BORDER_WEIGHT if overlap else 1.0)
        return jnp.where(hidden[..., None], FILL, images), hidden, weight

    def due(images):
        """The part of images, or of paintings of them, that is painted."""
        start = (images.shape[1] - hole) // 2
        return images[:, start : start + hole, start : start + hole] if centre else images

    def cut(painted):
        return due(painted) if centre and not bottleneck else painted

    def init(rng, batch):
        images = one_view(batch)
        check(images.shape[1])
        params, stats = apply.init(net, rng, images)
        if share == 1:
            return params | {"critic": {}}, {"stats": stats}
        critic, critic_stats = apply.init(judge_net, jax.random.fold_in(rng, 1), due(images))
        return params | {"critic": critic}, {"stats": stats, "critic_stats": critic_stats}

    def judge(params, stats, images):
        return apply.train(judge_net, params, stats, images)

    def loss(params, state, batch, rng):
        images = batch["views"][:, 0]
        seen, hidden, weight = cover(rng, images)
        ours = {name: params[name] for name in ("backbone", "painter")}
        painted, stats = apply.train(net, ours, state.extra["stats"], seen, rng=rng)
        painted, target, extra = cut(painted), due(images), {"stats": stats}
        metrics = {"hole_error": jnp.mean(jnp.square(painted - target))}
        if share == 1:
            return losses.reconstruction(painted, target, weight), (extra, metrics)
        value, parts, extra["critic_stats"] = losses.adversarial_game(
            judge, params["critic"], state.extra["critic_stats"], painted, target, weight, share
        )
        return value, (extra, metrics | parts)

    def fill(params, state, images, rng):
        """(images with the hole, with the painting in it, which pixels are hidden)."""
        seen, hidden, _ = cover(rng, images)
        ours = {name: params[name] for name in ("backbone", "painter")}
        painted = cut(net.apply({"params": ours, **state.extra["stats"]}, seen))
        room = images.shape[1] - painted.shape[1]
        around = (room // 2, room - room // 2)
        whole = jnp.pad(painted, ((0, 0), around, around, (0, 0)))
        return seen, jnp.where(hidden[..., None], whole, images), hidden

    def measure(params, state, batch, rng):
        images = batch["views"][:, 0]
        _, filled, hidden = fill(params, state, images, rng)
        return painting.hole_errors(filled, images, hidden)

    def filled_by(how):  # the baseline that fills holes by how(images, hidden)
        def measure(batch, rng):
            images = batch["views"][:, 0]
            hidden = jnp.asarray(cover(rng, images)[1])
            return painting.hole_errors(how(images, hidden), images, hidden)

        return jax.jit(measure)

    def by_neighbour(batches, rng, linear):
        others = jnp.concatenate([batch["views"][:, 0] for batch in batches])
        others = others[: max(1, BYTES // others[0].nbytes)]
        return filled_by(lambda images, hidden: painting.nearest_fill(images, hidden, others))

    def show(params, state, batch, rng):
        """Columns: the image with its hole, the hole painted, and the true image."""
        images = batch["views"][:8, 0]
        seen, filled, _ = fill(params, state, images, rng)
        return {"holes": jnp.stack([seen, filled, images], axis=1)}

    task = Task(
        measure, metric="l2", better="lower",
        baselines={"harmonic": lambda batches, rng, linear: filled_by(painting.harmonic_fill), "nearest": by_neighbour},
        summary=painting.summary,
    )  # fmt: skip
    return Method(init, loss, show=show, per_image=True, task=task, pixels=(0.5, 0.5))
