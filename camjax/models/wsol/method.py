"""What a training method for weakly supervised localization can change: the images, the network, and the loss."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from camjax.errors import InputError
from camjax.models.head import PooledHead
from camjax.models.inference_mode import inference_view

SAME_ON_ALL_DEVICES = "batch"
"""The tag of random streams whose draws hold for the whole batch: each step draws the same on all devices."""


@dataclass(frozen=True)
class Places:
    """Where training methods go in a network, by the names of `CamModel.stage_maps`.

    Attributes:
      adl: the feature maps that ADL changes; "features" is the last one of any network.
      spg: the two earlier feature maps that SPG looks at; None for a network without such names.
      spg_width: K_out of the convolutions on these; None for as many as the second one has.
      acol_width: K_out of the convolutions of ACoL's branches.
    """

    adl: tuple[str, ...] = ("features",)
    spg: tuple[str, str] | None = None
    spg_width: int | None = None
    acol_width: int = 1024


class TrainingLoss(NamedTuple):
    """What a step minimizes: the mean of the images' losses, and a term of the whole batch.

    Attributes:
      logits: (b, C) float32.
      losses: (b,) float32 of the images.
      of_batch: () float32, or None for no such term.
    """

    logits: jax.Array
    losses: jax.Array
    of_batch: jax.Array | None = None


class WsolMethod(nnx.Module):
    """A part of a model that says how it is trained. This base changes nothing: it is CAM.

    Args:
      model: that it becomes a part of; with this base any.
      rngs: random keys of new layers and of draws.
      **options: of the method.

    Attributes:
      takes: the networks that it takes, in words.
    """

    takes: ClassVar[str] = "a network that ends in a global pooling and one dense layer, camjax.models.PooledHead"

    def __init__(self, model: Any = None, *, rngs: nnx.Rngs | None = None, **options: float):
        pass

    @classmethod
    def fits(cls, model: Any) -> bool:
        """Whether it takes a model."""
        return isinstance(model.head, PooledHead)

    def at(self, place: str, x: jax.Array) -> jax.Array:
        """What follows a named place of the backbone, see `CamModel.at`."""
        return x

    def loss(
        self,
        model: Any,
        images: jax.Array,
        labels: jax.Array,
        loss: Callable[[jax.Array, jax.Array], jax.Array],
        axis_name: str | None = None,
    ) -> TrainingLoss:
        """The loss of a batch in training.

        Args:
          model: the `CamModel` that this is a part of, in training mode.
          images: (b, H, W, 3) RGB in 0..255.
          labels: (b,) int, or what the loss takes.
          loss: logits (b, C) and labels -> (b,).
          axis_name: of the mapped axis of devices, or None.
        """
        logits = model(images)
        return TrainingLoss(logits, loss(logits, labels))


def stream(rngs: nnx.Rngs, tag: str = "dropout") -> nnx.RngStream:
    """A random stream that is saved with the model. Each step draws anew, and each device unless the tag forbids it."""
    return nnx.RngStream(rngs.params(), tag=tag)


def stage_channels(model: Any) -> dict[str, int]:
    """K of each of a model's named feature maps, in order."""
    images = jax.ShapeDtypeStruct((1, *model.input_size, 3), jnp.uint8)
    view = inference_view(model)
    names: list[str] = []

    def maps(model, images):
        found = model.stage_maps(model.normalized(images))
        names.extend(found)  # in order, which a dict that JAX returns does not keep
        return tuple(found.values())

    shapes = jax.eval_shape(maps, view, images)
    return {name: shape.shape[-1] for name, shape in zip(names, shapes, strict=True)}


def check_one_class(method: str, logits: jax.Array, labels: jax.Array) -> None:
    """Raises ValueError for labels of several classes, of which a method would not know the true class."""
    if labels.shape != logits.shape[:1]:
        raise InputError(
            f"{method} with labels {labels.shape}: it looks at the map of the one true class of each image. Expected "
            f"({len(logits)},) class ids; for images of several classes train with another method."
        )
