"""A network so small that a step compiles in a second, with the places that training methods need."""

import jax.numpy as jnp
from flax import nnx

import camjax
from camjax.models import CamModel, PooledHead
from camjax.models.caffe_layers import conv
from camjax.models.wsol.method import Places


class Staged(CamModel):
    """Three convolutions. Map: input side / 2."""

    wsol_places = Places(adl=("first", "last"), spg=("first", "second"), spg_width=5, acol_width=6)

    def __init__(self, num_classes=3, *, dtype=jnp.float32, rngs):
        super().__init__(input_size=(16, 16), stride=2, mean=(120.0, 110.0, 100.0), std=(60.0,) * 3, dtype=dtype)
        self.first = conv(3, 4, 3, 2, padding=1, dtype=dtype, rngs=rngs)
        self.second = conv(4, 6, 3, padding=1, dtype=dtype, rngs=rngs)
        self.last = conv(6, 8, 3, padding=1, dtype=dtype, rngs=rngs)
        self.head = PooledHead(8, num_classes, rngs=rngs)

    def backbone(self, x):
        return self.stage_maps(x)["last"]

    def stage_maps(self, x):
        maps = {}
        for name in ("first", "second", "last"):
            x = maps[name] = self.at(name, nnx.relu(getattr(self, name)(x)))
        return maps


camjax.register_model("staged", Staged)
