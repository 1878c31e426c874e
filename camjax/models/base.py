"""What every network with class activation maps has in common: the contract of the library."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import nnx


class _Hidden:
    """A value that rides along with a module and takes no part in its identity.

    Class names are long tuples of strings. As a static attribute they would be hashed and compared at every
    call of a jitted function; behind this wrapper, which equals every other, they cost nothing.
    """

    def __init__(self, value):
        self.value = value

    def __eq__(self, other):
        return isinstance(other, _Hidden)

    def __hash__(self):
        return 0

    def __repr__(self):
        return "..."


class CamModel(nnx.Module):
    """A convolutional network that ends in a pooled head.

    A subclass sets `head` and defines `backbone(x) -> (B, h, w, K)` on normalized images. The normalization,
    `(image - mean) / std`, belongs to the model: images are RGB in 0..255 everywhere outside of it.

    Args:
      input_size: (H, W) in pixels that the network was made for. Larger and oblong sizes work as well.
      stride: input pixels per cell of the feature map.
      mean: of the training images per channel, in 0..255.
      std: likewise.
      dtype: compute dtype, float32 or bfloat16. Parameters, logits and maps are float32.

    Attributes:
      head: has `kernel` (K, C), `bias` (C,) or None, and `head(features) -> logits (B, C)`.
      exact_cam: whether, for every class, the mean of its map plus its bias is its logit.
      class_names: tuple of C strings, or None where they are not known.
      created_as: the arguments of `create_model` that name this network, {"name", "num_classes", "pool"}; None for a
        model built otherwise.
    """

    head: nnx.Module

    def __init__(
        self,
        *,
        input_size: tuple[int, int],
        stride: int,
        mean: Sequence[float],
        std: Sequence[float],
        dtype=jnp.float32,
    ):
        if jnp.dtype(dtype) not in (jnp.float32, jnp.bfloat16):
            raise ValueError(f"dtype={jnp.dtype(dtype).name}: the compute dtype is float32 or bfloat16.")
        self.input_size = tuple(input_size)
        self.stride = stride
        self.mean = tuple(mean)
        self.std = tuple(std)
        self.dtype = jnp.dtype(dtype)
        # Through the setters, which leave the same trace in NNX's bookkeeping as a later assignment: two models that
        # differ in these alone share their compiled functions.
        self.class_names = None
        self.created_as = None

    def backbone(self, x: jax.Array) -> jax.Array:
        """(B, H, W, 3) normalized images in the compute dtype -> (B, h, w, K)."""
        raise NotImplementedError

    def features(self, images: jax.Array) -> jax.Array:
        """The last feature map.

        Args:
          images: (B, H, W, 3) RGB in 0..255, uint8 or float.

        Returns:
          (B, h, w, K) in the compute dtype.
        """
        x = (images.astype(jnp.float32) - jnp.array(self.mean)) / jnp.array(self.std)
        return self.backbone(x.astype(self.dtype))

    def __call__(self, images: jax.Array) -> jax.Array:
        """(B, H, W, 3) RGB images in 0..255 -> (B, C) float32 logits."""
        return self.head(self.features(images))

    @property
    def exact_cam(self) -> bool:
        """Whether, for every class, the mean of its map plus its bias is its logit."""
        return self.head.exact_cam

    @property
    def class_names(self) -> tuple[str, ...] | None:
        """Names of the C classes, or None."""
        return self._class_names.value

    @class_names.setter
    def class_names(self, names: Sequence[str] | None):
        if names is not None:
            names = tuple(names)
            if len(names) != self.head.num_classes:
                raise ValueError(f"{len(names)} class names for a head of {self.head.num_classes} classes.")
        self._class_names = _Hidden(names)

    @property
    def created_as(self) -> dict | None:
        """The arguments of `create_model` that name this network, or None."""
        return self._created_as.value

    @created_as.setter
    def created_as(self, arguments: dict | None):
        self._created_as = _Hidden(arguments)
