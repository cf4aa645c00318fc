"""Context encoder: paint the hole in an image from what is around it, and fool a critic that sees paintings and photos.

Paper: Pathak et al. 2016, https://arxiv.org/abs/1604.07379, Eq. 1 to 3
Code:  https://github.com/pathak22/context-encoder, train.lua (centre), train_random.lua (random regions)
"""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange

from jax_ssl import bounds, losses
from jax_ssl.core import Method, Task, one_view
from jax_ssl.errors import UserError
from jax_ssl.models import apply, dcgan, painting

FILL = 2 * np.array([117.0, 104.0, 123.0], np.float32) / 255 - 1  # what stands in a hole, of pixels from -1 to 1


class Net(nn.Module):
    """images (B, S, S, 3) with a hole -> what is painted of them, (B, h, h, 3) from -1 to 1."""

    backbone: nn.Module
    hole: painting.Hole
    bottleneck: int
    widths: tuple[int, ...]

    @nn.compact
    def __call__(self, images, train: bool = False):
        patches, dtype = self.backbone(images, train).patches, self.backbone.dtype
        rows, side = round(patches.shape[1] ** 0.5), images.shape[1]
        places = rearrange(patches, "b (h w) d -> b h w d", h=rows)
        if self.bottleneck:
            return dcgan.Painter(self.bottleneck, self.widths, dtype, name="painter")(places, train)
        if side % rows:
            raise UserError(
                f"The last map has {rows} x {rows} places, which can't paint equal squares of {side} pixels: take "
                "another size of images or another model, or a method.bottleneck."
            )
        painter = painting.Painter(self.widths, side // rows, dtype, name="painter")
        return self.hole.cut(painter(places, train))


def make(backbone, clock, *, region="centre", hole=64, overlap=4, density=0.25, cells=8, bottleneck=4000,
         painter=(512, 256, 128, 64), critic=(64, 128, 256, 512), share=0.999) -> Method:  # fmt: skip
    """region: `centre`, a square of `hole` pixels that is painted, `overlap` pixels of its border seen and weighed ten
    times; or `random`, blotches over `density` of the image, `cells` side by side, where the whole image is painted and
    what is seen weighs ten times if there is any `overlap`. share: of the squared error; 1 = no critic.
    bottleneck: width of the one vector an image, from which `painter` makes maps of 4, 8 ... pixels; 0 = each place of
    the encoder's last map paints its square, behind convolutions of widths `painter`. critic: widths of its maps.
    """
    bounds.one_of("method.", dict(region=region), ("centre", "random"))
    bounds.whole("method.", dict(hole=hole, cells=cells, painter=tuple(painter), critic=tuple(critic)))
    bounds.whole("method.", dict(overlap=overlap, bottleneck=bottleneck), at_least=0)
    bounds.bounded("method.", dict(density=density), above=0, below=1)
    bounds.bounded("method.", dict(share=share), above=0, at_most=1)
    if region == "centre" and 2 * overlap >= hole:
        raise UserError(f"method.overlap={overlap} on each side leaves nothing of method.hole={hole}: take less.")
    if bottleneck and not painter:
        raise UserError("method.painter=() has no map to double: give the widths of its maps, or method.bottleneck=0.")
    cut_out = painting.Hole(region == "random", hole, overlap, density, cells)
    net, judge_net = Net(backbone, cut_out, bottleneck, tuple(painter)), dcgan.Critic(tuple(critic), backbone.dtype)
    judge = partial(apply.train, judge_net)
    painters = lambda params: {name: params[name] for name in ("backbone", "painter")}

    def check(size):
        """Raises UserError where this can't be painted in images of `size` pixels."""
        due = cut_out.painted(size)
        if due > size:
            raise UserError(f"method.hole={hole} is larger than the images of {size} pixels: take {size // 2}.")
        hidden = round(density * size**2)
        if region == "random" and not 0 < hidden < size**2:
            raise UserError(f"method.density={density} hides {hidden} of {size} x {size} pixels: take another share.")
        made = dcgan.Painter(bottleneck, tuple(painter)).side() if bottleneck else due
        if made != due:
            raise UserError(f"method.painter={bounds.as_written(painter)} paints {made} pixels, not {due}: change it.")
        if share < 1 and due % 2 ** len(critic):
            raise UserError(f"method.critic={bounds.as_written(critic)} can't halve {due} pixels so often: take fewer.")

    def cover(rng, images):
        """Images with the fill in their hole, and which pixels that are. Raises UserError, as `check` does."""
        check(images.shape[1])
        hidden = cut_out.hidden(rng, images.shape[1])
        return jnp.where(hidden[..., None], FILL, images), hidden

    def init(rng, batch):
        images = one_view(batch)
        check(images.shape[1])
        params, stats = apply.init(net, rng, images)
        if share == 1:
            return params | {"critic": {}}, {"stats": stats}
        critic, critic_stats = apply.init(judge_net, jax.random.fold_in(rng, 1), cut_out.cut(images))
        return params | {"critic": critic}, {"stats": stats, "critic_stats": critic_stats}

    def loss(params, state, batch, rng):
        images, extra = batch["views"][:, 0], dict(state.extra)
        seen, hidden = cover(rng, images)
        painted, extra["stats"] = apply.train(net, painters(params), extra["stats"], seen, rng=rng)
        target, weight = cut_out.cut(images), cut_out.weight(hidden)
        metrics = {"painting_error": jnp.mean(jnp.square(painted - target))}
        if share == 1:
            return losses.reconstruction(painted, target, weight), (extra, metrics)
        value, told, extra["critic_stats"] = losses.adversarial_game(
            judge, params["critic"], extra["critic_stats"], painted, target, weight, share
        )
        return value, (extra, metrics | told)

    def fill(params, state, images, rng):
        """Images with a hole, with the painting in it, and which pixels that is."""
        seen, hidden = cover(rng, images)
        painted = net.apply({"params": painters(params), **state.extra["stats"]}, seen)
        return seen, cut_out.put(painted, images, hidden), hidden

    def measure(params, state, batch, rng):
        images = batch["views"][:, 0]
        _, filled, hidden = fill(params, state, images, rng)
        return painting.hole_errors(filled, images, hidden)

    def show(params, state, batch, rng):
        """Columns: the image with its hole, the hole painted, and the true image."""
        images = batch["views"][:8, 0]
        seen, filled, _ = fill(params, state, images, rng)
        return {"holes": jnp.stack([seen, filled, images], axis=1)}

    chosen = dict(density=density, cells=cells) if region == "random" else dict(hole=hole, overlap=overlap)
    ways, protocol = painting.baselines(cut_out), dict(region=region) | chosen
    task = Task(measure, "l2", "lower", baselines=ways, summary=painting.summary, protocol=protocol)
    return Method(init, loss, show=show, per_image=True, task=task, pixels=(0.5, 0.5))
