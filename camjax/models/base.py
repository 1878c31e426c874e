"""What every network with class activation maps has in common: the contract of the library."""

import math
from collections.abc import Sequence
from typing import Any, ClassVar, Literal, NotRequired, get_args

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import ArrayLike, DTypeLike
from typing_extensions import TypedDict  # which pydantic reads; typing's own from Python 3.12 on

from camjax.errors import InputError
from camjax.models.head import Head
from camjax.models.wsol.method import Places, WsolMethod

ChannelOrder = Literal["rgb", "bgr"]
Interpolation = Literal["nearest", "bilinear", "bicubic", "lanczos"]


class InputRule(TypedDict):
    """How a network takes images: the arguments of `CamModel` that say it."""

    mean: Sequence[float]
    std: Sequence[float]
    channel_order: ChannelOrder


class WholeInputRule(InputRule):
    """The arguments of `CamModel.set_input_rule`, except the mean image."""

    crop_share: NotRequired[float]
    interpolation: NotRequired[Interpolation]


IMAGENET_MEAN = (0.485 * 255, 0.456 * 255, 0.406 * 255)
IMAGENET_STD = (0.229 * 255, 0.224 * 255, 0.225 * 255)
# torchvision's and timm's normalization.
IMAGENET_INPUT: InputRule = {"mean": IMAGENET_MEAN, "std": IMAGENET_STD, "channel_order": "rgb"}


def image_size(sides: Sequence[int]) -> tuple[int, int]:
    """(H, W) in pixels, as a file says it; raises ValueError unless it is two positive integers."""
    if len(sides) != 2 or min(sides) < 1:
        raise InputError(f"input_size={list(sides)}: expected height and width in pixels, at least 1.")
    height, width = sides
    return height, width


class _Hidden:
    """A value that a module carries and that takes no part in the module's identity.

    Class names are long tuples of strings. As a static attribute, they would be hashed and compared at every call of a
    jitted function; in this wrapper, which equals every other one, they cost nothing.
    """

    def __init__(self, value: Any):
        self.value = value

    def __eq__(self, other: object):
        return isinstance(other, _Hidden)

    def __hash__(self):
        return 0

    def __repr__(self):
        return "..."


class MeanImage(nnx.Variable):
    """(H, W, 3) float32 RGB in 0..255: the mean of the training images, pixel by pixel.

    Its own type of Variable: state that is saved with the weights, and that no optimizer takes for a parameter.
    """


class CamModel(nnx.Module):
    """A convolutional network that ends in a pooled head.

    A subclass sets `head` and defines `backbone(x) -> (B, h, w, K)` on normalized images. The model normalizes images
    itself: they are RGB in 0..255 everywhere outside of it.

    Args:
      input_size: (H, W) in pixels that the network was made for. Larger and oblong sizes work as well.
      stride: input pixels per cell of the feature map.
      mean: of the training images, R, G, B in 0..255.
      std: standard deviation of the training images, R, G, B in 0..255.
      channel_order: in which the first layer takes the channels: "rgb", or "bgr" as Caffe's networks do.
      min_size: smallest side of an image in pixels that leaves one cell of the feature map; `stride` if None.
      dtype: compute dtype, float32 or bfloat16. Parameters, logits and maps are float32.

    Attributes:
      head: see `camjax.models.head.Head`.
      mean_image: `MeanImage` that is subtracted in place of `mean`, or None; see `set_input_rule`.
      exact_cam: whether, for every class, the mean of its map plus its bias is its logit.
      class_names: tuple of C strings, or None where they are not known.
      multi_label: whether an image may have several classes: probabilities are sigmoids then, else a softmax.
        `camjax.training.fit` sets it by the loss.
      created_as: the arguments of `create_model` that name this network, {"name", "num_classes", "pool"}; None for a
        model that `create_model` did not make.
      wsol: the method for weakly supervised localization that it is trained by, see `camjax.models.wsol`; None for CAM.
      wsol_places: where such methods go in the network.
      cam_variant: only of networks with fully connected layers, which have no maps: the name of the variant with maps.
    """

    head: Head
    cam_variant: str
    multi_label: bool = False
    wsol: WsolMethod | None = None
    wsol_places: ClassVar[Places] = Places()

    def __init__(
        self,
        *,
        input_size: tuple[int, int],
        stride: int,
        mean: Sequence[float],
        std: Sequence[float],
        channel_order: ChannelOrder = "rgb",
        min_size: int | None = None,
        dtype: DTypeLike = jnp.float32,
    ):
        if jnp.dtype(dtype) not in (jnp.float32, jnp.bfloat16):
            raise InputError(f"dtype={jnp.dtype(dtype).name}: the compute dtype is float32 or bfloat16.")
        height, width = input_size
        self.input_size = (height, width)
        self.stride = stride
        self.min_size = stride if min_size is None else min_size
        self.set_input_rule(mean=mean, std=std, channel_order=channel_order)
        self.dtype = jnp.dtype(dtype)
        # By the setters, so that NNX sees the same as after a later assignment: two models that differ in these alone
        # share their compiled functions.
        self.class_names = None
        self.created_as = None

    def set_input_rule(
        self,
        *,
        mean: Sequence[float],
        std: Sequence[float] = (1.0, 1.0, 1.0),
        channel_order: ChannelOrder = "rgb",
        crop_share: float = 1.0,
        interpolation: Interpolation = "bilinear",
        mean_image: ArrayLike | jax.ShapeDtypeStruct | None = None,
    ) -> None:
        """Sets how images are normalized, for weights that were trained with another normalization than the default.

        Args:
          mean: R, G, B in 0..255.
          std: R, G, B in 0..255.
          channel_order: as in `CamModel`.
          crop_share: of the height and width of the largest centered part of an image, what center crops take.
          interpolation: by which center crops are resized. Images that are squashed are always resized bilinearly.
          mean_image: (H, W, 3) RGB in 0..255, subtracted in place of `mean`. Of a mean image that is at least as large
            as the image, the central part counts, as in Caffe's crops; a smaller one is resized to the image's size.
            Abstract in an abstract model.

        Raises:
          ValueError: mean or std is not three numbers, a std is not positive, the share is not in 0..1, or the order,
            interpolation or shape is another.
        """
        mean, std = (tuple(float(number) for number in numbers) for numbers in (mean, std))
        if len(mean) != 3 or len(std) != 3 or not all(map(math.isfinite, (*mean, *std))) or min(std) <= 0:
            raise InputError(f"mean={mean}, std={std}: expected three numbers each, R, G, B in 0..255, and std > 0.")
        if channel_order not in ("rgb", "bgr"):
            raise InputError(f'channel_order={channel_order!r}: expected "rgb" or "bgr".')
        if not 0 < crop_share <= 1 or interpolation not in get_args(Interpolation):
            raise InputError(
                f"crop_share={crop_share}, interpolation={interpolation!r}: expected a share in 0..1, and one of "
                f"{', '.join(get_args(Interpolation))}."
            )
        if mean_image is not None:
            if not isinstance(mean_image, jax.ShapeDtypeStruct):
                mean_image = jnp.asarray(mean_image, jnp.float32)
            if mean_image.ndim != 3 or mean_image.shape[-1] != 3:
                raise InputError(f"mean_image of shape {mean_image.shape}: expected (H, W, 3), RGB in 0..255.")
        self.mean, self.std, self.channel_order = mean, std, channel_order
        self.crop_share, self.interpolation = crop_share, interpolation
        self.mean_image = nnx.data(None if mean_image is None else MeanImage(mean_image))

    @property
    def input_rule(self) -> WholeInputRule:
        """The present arguments of `set_input_rule`, except the mean image, and what center crops are by default."""
        rule: WholeInputRule = {"mean": self.mean, "std": self.std, "channel_order": self.channel_order}
        if self.crop_share != 1:
            rule["crop_share"] = self.crop_share
        if self.interpolation != "bilinear":
            rule["interpolation"] = self.interpolation
        return rule

    def backbone(self, x: jax.Array) -> jax.Array:
        """(B, H, W, 3) normalized images in the compute dtype -> (B, h, w, K)."""
        raise NotImplementedError

    def stage_maps(self, x: jax.Array) -> dict[str, jax.Array]:
        """The feature maps at the places of the backbone that have a name, in order; the last is the backbone's.

        Args:
          x: (B, H, W, 3) normalized images in the compute dtype.

        Returns:
          Name -> (B, h, w, K).
        """
        return {"features": self.backbone(x)}

    def at(self, place: str, x: jax.Array) -> jax.Array:
        """What follows a named place of the backbone: the feature map, which a training method may change there.

        Args:
          place: its name, as in `stage_maps`; "features" for the last.
          x: (B, h, w, K) the feature map.

        Returns:
          (B, h, w, K).
        """
        return x if self.wsol is None else self.wsol.at(place, x)

    def for_wsol(self, method: str, *, rngs: nnx.Rngs) -> None:
        """Changes the network's own layers to those that the benchmark has with a training method, if they differ.

        Args:
          method: a name of `camjax.models.wsol.table.WSOL`.
          rngs: random keys of new layers.
        """

    def features(self, images: jax.Array) -> jax.Array:
        """The last feature map.

        Args:
          images: (B, H, W, 3) RGB in 0..255, uint8 or float.

        Returns:
          (B, h, w, K) in the compute dtype.
        """
        return self.at("features", self.backbone(self.normalized(images)))

    def normalized(self, images: jax.Array) -> jax.Array:
        """(B, H, W, 3) images as `features` takes them -> (B, H, W, 3) in the compute dtype, as `backbone` does."""
        _, height, width, _ = images.shape
        # Whatever JAX is set to: float32, and arrays of one rank.
        mean, std = (
            jnp.broadcast_to(numbers, images.shape)
            for numbers in (self.mean_of(height, width), jnp.array(self.std, jnp.float32))
        )
        x = (images.astype(jnp.float32) - mean) / std
        if self.channel_order == "bgr":
            x = x[..., ::-1]
        return x.astype(self.dtype)

    def mean_of(self, height: int, width: int) -> jax.Array:
        """`height`, `width` in pixels -> what is subtracted from images: (3,) float32, or (H, W, 3) of a mean image."""
        if self.mean_image is None:
            return jnp.array(self.mean, jnp.float32)
        image = self.mean_image[...]
        top, left = (image.shape[0] - height) // 2, (image.shape[1] - width) // 2
        if top >= 0 and left >= 0:
            return image[top : top + height, left : left + width]
        return jax.image.resize(image, (height, width, 3), "bilinear", antialias=False)

    def split(self, images: jax.Array) -> tuple[jax.Array, ...]:
        """The last feature map, and what goes around it to the classes.

        Args:
          images: (B, H, W, 3) RGB in 0..255, as `features` takes them.

        Returns:
          What `features` gives, followed by what else `finish` takes: nothing, but for networks whose head is no
          function of the features alone, such as transformers with a class token.
        """
        return (self.features(images),)

    def finish(self, features: jax.Array, *around: jax.Array) -> jax.Array:
        """What `split` gives -> (B, C) float32 logits."""
        return self.head(features)

    def __call__(self, images: jax.Array) -> jax.Array:
        """(B, H, W, 3) RGB images in 0..255 -> (B, C) float32 logits."""
        return self.finish(*self.split(images))

    @property
    def num_classes(self) -> int:
        """C."""
        return self.head.num_classes

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
                raise InputError(f"{len(names)} class names for a head of {self.head.num_classes} classes.")
        self._class_names = _Hidden(names)

    @property
    def created_as(self) -> dict | None:
        """The arguments of `create_model` that name this network, or None."""
        return self._created_as.value

    @created_as.setter
    def created_as(self, arguments: dict | None):
        self._created_as = _Hidden(arguments)


def takes_more_than_features(model: Any) -> bool:
    """Whether logits are no function of the features alone: the model has a `split` and `finish` of its own.

    A head that has maps, as that of TS-CAM, takes the features alone.
    """
    own = isinstance(model, CamModel) and type(model).split is not CamModel.split
    return own and not hasattr(model.head, "kernel")
