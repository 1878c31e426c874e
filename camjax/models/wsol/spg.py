"""Self-produced guidance: side branches learn masks of foreground and background from the network's own attention.

Zhang et al. 2018, arXiv:1807.08902.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import nnx

from camjax.cam import class_maps, normalize_map, resize_map
from camjax.errors import InputError
from camjax.models.caffe_layers import conv
from camjax.models.layers import relu
from camjax.models.wsol.method import TrainingLoss, WsolMethod, check_one_class, stage_channels

LEAST_FOREGROUND = 30
"""Pixels: with fewer above the high threshold, it becomes `OF_MAXIMUM` times the image's maximum."""

OF_MAXIMUM = 0.7
C_WIDTH = 512


class SelfProducedGuidance(WsolMethod):
    """SPG: branches B1 and B2 on two earlier feature maps, and C on the last; in training only.

    The map is CAM's.

    Args:
      model: that it becomes a part of; `wsol_places.spg` says where the branches are.
      high_1, low_1: thresholds of the attention, the map of the true class, which teach B2.
      high_2, low_2: of B2's probabilities, which teach B1.
      high_3, low_3: of the mean of both's probabilities, which teach C.
      rngs: random keys.
    """

    def __init__(self, model, *, high_1, low_1, high_2, low_2, high_3, low_3, rngs: nnx.Rngs):
        places = model.wsol_places
        if places.spg is None:
            raise InputError(
                f"spg with {type(model).__name__}: its branches look at two earlier feature maps, which have to be "
                "named. Expected vgg16_wsol, inception_v3_wsol, a ResNet or small_gap, or a network with "
                "`stage_maps` and `wsol_places`."
            )
        self.places = places.spg
        self.thresholds = ((high_1, low_1), (high_2, low_2), (high_3, low_3))
        channels = stage_channels(model)
        *_, last = channels.values()
        k1, k2 = (channels[place] for place in self.places)
        width = places.spg_width or k2
        options = {"dtype": model.dtype, "rngs": rngs}
        self.b1 = conv(k1, width, 3, padding=1, **options)
        self.b2 = conv(k2, width, 3, padding=1, **options)
        self.shared = nnx.List([conv(width, width, 3, padding=1, **options), conv(width, 1, 1, **options)])
        self.c = nnx.List([conv(last, C_WIDTH, 3, padding=1, **options), conv(C_WIDTH, 1, 1, **options)])

    def loss(self, model, images, labels, loss, axis_name=None) -> TrainingLoss:
        """The losses of the classes, and the cross-entropies of the branches' pixels that a mask says."""
        maps = model.stage_maps(model.normalized(images))
        *_, features = maps.values()
        logits = model.head(features)
        check_one_class("spg", logits, labels)
        size = images.shape[1:3]
        b1, b2, c = (
            resize_map(x[..., 0], size)
            for x in (
                _chain(self.shared, relu(self.b1(maps[self.places[0]]))),
                _chain(self.shared, relu(self.b2(maps[self.places[1]]))),
                _chain(self.c, features),
            )
        )
        kernel = None if model.head.kernel is None else model.head.kernel[...]
        attention = class_maps(features, kernel, labels[:, None])[:, 0]
        probability_1, probability_2 = jax.nn.sigmoid(b1), jax.nn.sigmoid(b2)
        teachers = (normalize_map(resize_map(attention, size)), probability_2, (probability_1 + probability_2) / 2)
        b2_term, b1_term, c_term = (
            masked_cross_entropy(branch, *guidance(teacher, *thresholds), axis_name)
            for branch, teacher, thresholds in zip((b2, b1, c), teachers, self.thresholds, strict=True)
        )
        return TrainingLoss(logits, loss(logits, labels), b2_term + b1_term + c_term)


def guidance(attention: jax.Array, high: float, low: float) -> tuple[jax.Array, jax.Array]:
    """What a branch learns.

    Args:
      attention: (B, H, W) in 0..1; no gradient goes through it.
      high: pixels above it are foreground; where an image has fewer than `LEAST_FOREGROUND`, those above `OF_MAXIMUM`
        times its maximum.
      low: pixels below it are background, whatever they are by the other threshold.

    Returns:
      Targets (B, H, W) float32, 1 or 0, and which of them count (B, H, W) bool.
    """
    attention = jax.lax.stop_gradient(attention)
    few = (attention > high).sum((1, 2), keepdims=True) < LEAST_FOREGROUND
    above = attention > jnp.where(few, OF_MAXIMUM * attention.max((1, 2), keepdims=True), high)
    below = attention < low
    return (above & ~below).astype(jnp.float32), above | below


def masked_cross_entropy(
    logits: jax.Array, targets: jax.Array, counted: jax.Array, axis_name: str | None = None
) -> jax.Array:
    """The mean binary cross-entropy of the pixels that count, over the whole batch; 0 where none does.

    Args:
      logits: (B, H, W) float32.
      targets: (B, H, W) in 0..1.
      counted: (B, H, W) bool.
      axis_name: of the mapped axis of devices. The mean of the results over them is that of the whole batch.
    """
    losses = -targets * jax.nn.log_sigmoid(logits) - (1 - targets) * jax.nn.log_sigmoid(-logits)
    count = counted.sum(dtype=jnp.float32)
    if axis_name is not None:
        count = jax.lax.pmean(count, axis_name)
    return jnp.where(counted, losses, 0).sum() / jnp.where(count > 0, count, 1)


def _chain(layers: Sequence[nnx.Conv], x: jax.Array) -> jax.Array:
    """Convolutions with ReLU between them."""
    for layer in layers[:-1]:
        x = relu(layer(x))
    return layers[-1](x)
