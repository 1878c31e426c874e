"""What the functions of images return, and networks that are such a function."""

import abc
from collections.abc import Callable
from typing import Any, NamedTuple

import jax


class CamOutput(NamedTuple):
    """What `cam_fn` returns, for B images, C classes in all and N asked for.

    Attributes:
      logits: (B, C) float32.
      class_ids: (B, N) int32.
      maps: (B, N, h, w) float32: raw maps, as the method defines them: neither clipped nor normalized.
    """

    logits: jax.Array
    class_ids: jax.Array
    maps: jax.Array


class Localization(NamedTuple):
    """What a `localize_fn` returns, for B images, C classes in all and N asked for.

    Attributes:
      logits: (B, C) float32.
      class_ids: (B, N) int32.
      maps: (B, N, h, w) float32: raw maps.
      boxes: (B, N, 4) float32 `[ymin, xmin, ymax, xmax]` in 0..1; zeros where not valid.
      valid: (B, N) bool: whether the map has a region, which it has if its maximum is positive and it holds no NaN.
    """

    logits: jax.Array
    class_ids: jax.Array
    maps: jax.Array
    boxes: jax.Array
    valid: jax.Array


class BoundNetwork(abc.ABC):
    """A network of which a function is left, by one method: it has no layers to look into.

    `camjax.load_exported` returns one. `camjax.make_cam_fn` and `camjax.make_localize_fn`, evaluations and annotations
    take it in place of a model, at its method.

    Attributes:
      class_names: names of the C classes; None where they are not known.
      num_classes: C.
      input_size: (H, W) in pixels, to which images have to be resized.
      multi_label: whether an image may have several classes.
      method: by which maps are made.
      weights_sha256: of the network that it was made of.
    """

    class_names: tuple[str, ...] | None
    num_classes: int
    input_size: tuple[int, int]
    multi_label: bool
    method: str
    weights_sha256: str

    @abc.abstractmethod
    def choosing(
        self, choose: Callable[[jax.Array, Any], jax.Array | None], threshold: float | None = None, boxes: bool = True
    ) -> Callable[..., Any]:
        """The function for classes that depend on the logits.

        Args:
          choose: (logits (B, C), class_ids (B, N) or None) -> class ids (B, N'), or None for all classes; traceable.
          threshold: of boxes; None for the network's own.
          boxes: False leaves them out, and what they cost.

        Returns:
          `network_fn(images, class_ids=None)`, which returns a `Localization` of the chosen classes, or a `CamOutput`.
        """
