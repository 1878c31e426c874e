"""A small GAP network for small images: it trains in about a minute on two CPU cores."""

import jax
import jax.numpy as jnp
from flax import nnx

from camjax.models.base import CamModel
from camjax.models.head import Pool, PooledHead
from camjax.models.layers import ConvBN
from camjax.models.spec import ModelSpec
from camjax.models.wsol.method import Places

# (K_out, stride) of its 3x3 convolutions. The map keeps a quarter of the image's resolution, because boxes cannot be
# finer than its cells.
LAYERS = ((24, 2), (32, 2), (64, 1), (64, 1), (128, 1))


class SmallGap(CamModel):
    """Five 3x3 convolutions with BatchNorm and a pooled head. Map: input side / 4.

    Arguments as in `camjax.create_model`.
    """

    wsol_places = Places(adl=("layers.1", "layers.3", "layers.4"), spg=("layers.2", "layers.3"), acol_width=128)

    def __init__(self, num_classes: int = 10, *, pool: Pool = "gap", dtype=jnp.float32, rngs: nnx.Rngs):
        super().__init__(input_size=(64, 64), stride=4, mean=(127.5,) * 3, std=(127.5,) * 3, dtype=dtype)
        layers, in_features = [], 3
        for features, strides in LAYERS:
            layers.append(ConvBN(in_features, features, 3, strides, dtype=dtype, rngs=rngs))
            in_features = features
        self.layers = nnx.List(layers)
        self.head = PooledHead(in_features, num_classes, pool=pool, rngs=rngs)

    def backbone(self, x: jax.Array) -> jax.Array:
        """(B, H, W, 3) normalized images -> (B, ceil(H / 4), ceil(W / 4), 128)."""
        *_, last = self.stage_maps(x).values()
        return last

    def stage_maps(self, x: jax.Array) -> dict[str, jax.Array]:
        """The maps after each layer: "layers.0" to "layers.4"."""
        maps = {}
        for i, layer in enumerate(self.layers):
            x = maps[f"layers.{i}"] = self.at(f"layers.{i}", layer(x))
        return maps


SPECS = (ModelSpec("small_gap", SmallGap, num_classes=10),)
