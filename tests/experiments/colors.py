"""Networks and images of colored boxes for the experiments: small, with maps and boxes that can be told by hand."""

from dataclasses import dataclass, field

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

import camjax
from camjax.data.annotation import AnnotatedSource, Annotation
from camjax.data.sources import SourceInfo
from camjax.models import CamModel, PooledHead

SIDE = 16


class Identity(CamModel):
    """Features are the pixels, R, G, B in 0..1."""

    def __init__(self):
        super().__init__(input_size=(SIDE, SIDE), stride=1, mean=(0.0,) * 3, std=(255.0,) * 3)
        self.head = PooledHead(3, 3, rngs=nnx.Rngs(0))

    def backbone(self, x):
        return x


class Tiny(CamModel):
    """Two convolutions, which compile in a fraction of `small_gap`'s time; for images of 32 pixels."""

    def __init__(self, num_classes=10, *, pool="gap", dtype=jnp.float32, rngs):
        super().__init__(input_size=(32, 32), stride=4, mean=(127.5,) * 3, std=(127.5,) * 3, dtype=dtype)
        sizes = ((3, 16), (16, 32))
        self.layers = nnx.List([nnx.Conv(*size, (3, 3), 2, dtype=dtype, rngs=rngs) for size in sizes])
        self.head = PooledHead(32, num_classes, pool=pool, rngs=rngs)

    def backbone(self, x):
        for layer in self.layers:
            x = jax.nn.relu(layer(x))
        return x


TINY = "tests.experiments.colors:three_colors"
camjax.register_model("three_colors", Tiny)


@dataclass(repr=False)
class Colors(AnnotatedSource):
    """Images in memory, with labels red, green and blue."""

    images: list
    labels: list
    boxes: list
    split: str = "test"
    has_boxes: bool = True
    info: SourceInfo = field(init=False)

    def __post_init__(self):
        keys = ("image", "label", "filename")
        self.info = SourceInfo("colors", self.split, ("red", "green", "blue"), len(self.images), keys)

    def __getitem__(self, index):
        return {"image": self.images[index], "label": self.labels[index], "filename": f"{index}.png"}

    def annotation(self, index):
        return Annotation(f"{index}.png", self.labels[index], np.reshape(self.boxes[index], (-1, 4)).astype(np.float32))


def painted(*parts, size=(SIDE, SIDE)):
    """A black image with parts (channel, value, ymin, xmin, ymax, xmax) in pixels."""
    image = np.zeros((*size, 3), np.uint8)
    for channel, value, ymin, xmin, ymax, xmax in parts:
        image[ymin:ymax, xmin:xmax, channel] = value
    return image
