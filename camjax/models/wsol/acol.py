"""Adversarial complementary learning: a second branch learns from what the first one leaves.

Zhang et al. 2018, arXiv:1804.06962.
"""

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

from camjax.cam import class_maps, normalize_map
from camjax.models.caffe_layers import conv
from camjax.models.layers import relu
from camjax.models.wsol.method import TrainingLoss, WsolMethod, check_one_class, stage_channels


class Branch(nnx.Module):
    """Two 3x3 convolutions, and a 1x1 convolution whose channels are class maps.

    Args:
      in_features: K_in.
      width: K_out of the first two.
      num_classes: C.
      dtype: compute dtype of the first two; class maps are float32.
      rngs: random keys.
    """

    def __init__(self, in_features: int, width: int, num_classes: int, *, dtype: DTypeLike, rngs: nnx.Rngs):
        self.conv1 = conv(in_features, width, 3, padding=1, dtype=dtype, rngs=rngs)
        self.conv2 = conv(width, width, 3, padding=1, dtype=dtype, rngs=rngs)
        self.classes = conv(width, num_classes, 1, dtype=jnp.float32, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """(B, h, w, K_in) -> (B, h, w, C) float32."""
        return self.classes(relu(self.conv2(relu(self.conv1(x)))).astype(jnp.float32))


class AcolHead(nnx.Module):
    """Two branches: B sees the features without the cells where the map of A is high.

    Args:
      num_features: K.
      num_classes: C.
      width: K_out of the branches' convolutions.
      threshold: of A's map, scaled to 0..1 by its minimum and maximum, from which on cells are erased.
      dtype: compute dtype of the branches.
      rngs: random keys.

    Attributes:
      a, b: the branches.
      kernel, bias: None; see `class_maps`.
      num_classes: C.
      exact_cam: False: maps are scaled.
    """

    exact_cam = False

    def __init__(self, num_features, num_classes, *, width, threshold: float, dtype, rngs: nnx.Rngs):
        self.a = Branch(num_features, width, num_classes, dtype=dtype, rngs=rngs)
        self.b = Branch(num_features, width, num_classes, dtype=dtype, rngs=rngs)
        self.threshold = threshold
        self.kernel = None
        self.bias = None
        self.num_classes = num_classes

    def __call__(self, features: jax.Array) -> jax.Array:
        """(B, h, w, K) features -> (B, C) float32 logits: those of A."""
        return self.a(features).mean((1, 2))

    def class_maps(self, features: jax.Array, class_ids: jax.Array | None = None) -> jax.Array:
        """The maximum of both branches' maps of a class, each scaled to 0..1; B without the cells that A has of it.

        Branch B runs once for each class that is asked for.

        Args:
          features: (..., h, w, K).
          class_ids: (..., N) integers; an id out of range gives a map of NaN. None for all C classes.

        Returns:
          (..., N, h, w) float32.
        """
        *batch, height, width, channels = features.shape
        if class_ids is None:
            class_ids = jnp.broadcast_to(jnp.arange(self.num_classes, dtype=jnp.int32), (*batch, self.num_classes))
        class_ids = jnp.broadcast_to(class_ids, (*batch, class_ids.shape[-1]))
        features = features.reshape(-1, height, width, channels)
        of_a = self.a(features)

        def maps_of(ids):
            map_a = normalize_map(class_maps(of_a, None, ids[:, None]))
            map_b = class_maps(self.b(erase(features, map_a[:, 0], self.threshold)), None, ids[:, None])
            # By addition, an id out of range stays NaN: normalizing makes zeros of it.
            unknown = 0 * class_maps(of_a[:, :1, :1], None, ids[:, None])
            return (jnp.maximum(map_a, normalize_map(map_b)) + unknown)[:, 0]

        found = jax.lax.map(maps_of, class_ids.reshape(-1, class_ids.shape[-1]).T)
        return jnp.moveaxis(found, 0, 1).reshape(*batch, -1, height, width)


class AdversarialComplementary(WsolMethod):
    """ACoL: `AcolHead` in place of the head, and the sum of both branches' losses.

    Args:
      model: that it becomes a part of; its head is replaced.
      threshold: as in `AcolHead`.
      rngs: random keys.
    """

    def __init__(self, model, *, threshold: float, rngs: nnx.Rngs):
        *_, channels = stage_channels(model).values()
        options = {"width": model.wsol_places.acol_width, "threshold": threshold, "dtype": model.dtype}
        model.head = AcolHead(channels, model.head.num_classes, rngs=rngs, **options)

    def loss(self, model, images, labels, loss, axis_name=None) -> TrainingLoss:
        """The sum of both branches' losses; B lacks the cells where A's map of the true class is high."""
        features, head = model.features(images), model.head
        of_a = head.a(features)
        logits = of_a.mean((1, 2))
        check_one_class("acol", logits, labels)
        high = normalize_map(class_maps(jax.lax.stop_gradient(of_a), None, labels[:, None])[:, 0])
        of_b = head.b(erase(features, high, head.threshold)).mean((1, 2))
        return TrainingLoss(logits, loss(logits, labels) + loss(of_b, labels))


def erase(features: jax.Array, maps: jax.Array, threshold: float) -> jax.Array:
    """Features (B, h, w, K) with zeros where the maps (B, h, w) are `threshold` or more."""
    return features * (maps < threshold)[..., None].astype(features.dtype)
