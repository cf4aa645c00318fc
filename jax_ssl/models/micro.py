"""A backbone that looks at a large batch in pieces: large contrastive batches on few chips.

Gao et al. 2021, https://arxiv.org/abs/2101.06983 ("gradient caching"): encode piece by piece without keeping
activations, take the loss over all embeddings, then encode each piece again to carry the gradient back. That is what a
rematerialised scan does, and its gradient is that of the whole batch; only batch norm sees one piece at a time.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from jax_ssl.sharding import join_strided, split_strided


class MicroBatched(nn.Module):
    """`backbone` over pieces of `size` images, with the same parameters under the same names.

    images (B, H, W, 3), B a multiple of size -> Features of all of them. Only training goes in pieces.
    """

    backbone: nn.Module
    size: int

    def setup(self):
        nn.share_scope(self, self.backbone)

    @property
    def norm_groups(self) -> int:
        return getattr(self.backbone, "norm_groups", 1)

    @property
    def dtype(self):
        return getattr(self.backbone, "dtype", jnp.float32)

    def __call__(self, images, train: bool = False):
        if not train or self.is_initializing() or len(images) % self.size:  # a picture's few
            return self.backbone(images, train)
        over_pieces = nn.scan(
            nn.remat(lambda backbone, carry, piece: (carry, backbone(piece, True)), prevent_cse=False),
            variable_broadcast="params",
            variable_carry="batch_stats",
            split_rngs={"drop_path": True},
        )
        _, features = over_pieces(self.backbone, (), split_strided(images, len(images) // self.size))
        return jax.tree.map(join_strided, features)
